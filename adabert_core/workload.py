"""What each stage of a run will do and hold, counted before anything is trained: steps, tokens, bytes.

Comes in: the settings and the lengths of all rows. Goes out: one `Work` per stage. Tokens are counted with the padding of their
batches. Of a search's trials the most there can be is counted, and a student whose depth is not known yet has k_max cells.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from adabert_core.config import BenchmarkConfig, RunConfig, SearchConfig
from adabert_core.latency import settings_to_time
from adabert_core.runtime import parameter_count
from adabert_core.scoring import scored_at_once
from adabert_core.search_space import EDGES, PRIMITIVES, Genotype, operation_size
from adabert_core.target_rows import TargetRows
from adabert_core.targets import augmented_bound
from adabert_core.training import LengthBuckets, total_steps

TYPICAL = "0>2 conv_5, 1>2 conv_3, 0>3 dil_conv_5, 2>3 identity, 1>4 conv_7, 3>4 max_pool_3"  # the mean cost of a random cell
# A benchmark times student, student in int8, teacher and BERT-base in ONNX, and all but int8 in torch, here and on a GPU.
TIMED_MODELS = 4
BERT_BASE = 109_500_000
_SCORE_BYTES = 20  # of a score of attention while a CPU trains, with what is made and kept of it (docs/SCALING.md)
_SCORED_AT_ONCE = 128  # rows in a batch of `evaluate.predict_logits`
_FLOAT = 4
_BATCHES_SEEN = 2000


@dataclasses.dataclass(frozen=True)
class TeacherSizes:
    """The figures of a teacher on which memory depends."""

    parameters: int
    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a run: lengths in tokens, special ones included, of every split, and the shapes that go with them."""

    lengths: Mapping[str, np.ndarray]
    special: int
    classes: int
    teacher: TeacherSizes


@dataclasses.dataclass(frozen=True)
class Work:
    """One stage: optimiser steps, tokens by kind of work, rows x epochs of its probes, seconds of timing, bytes at its peak."""

    stage: str
    steps: int = 0
    tokens: Mapping[str, float] = dataclasses.field(default_factory=dict)
    probe_rows: int = 0
    timing: float = 0.0
    bytes: float = 0.0


def workload(config: RunConfig, rows: Rows) -> list[Work]:
    """Returns the work of every stage that computes for long, in their order; bytes come on top of an idle process."""
    made = augmented_rows(config, rows)
    return [_teacher(config, rows), _targets(config, rows, made), *_students(config, rows, made), _benchmark(config, rows)]


def augmented_rows(config: RunConfig, rows: Rows) -> int:
    """How many rows `distill_targets` will make."""
    lengths = rows.lengths["train"] - rows.special
    return min(augmented_bound(config.targets, lengths), config.targets.max_copies * len(lengths))


def structure(config: SearchConfig) -> Genotype:
    """The given structure, or a typical one of k_max cells."""
    return Genotype.parse(config.genotype or f"{config.k_max} x {TYPICAL}")


def sizes_of(model: Any) -> TeacherSizes:
    """The figures of a Hugging Face encoder."""
    settings = model.config
    hidden = int(settings.hidden_size)
    inner = int(getattr(settings, "intermediate_size", None) or 4 * hidden)
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    heads = int(getattr(settings, "num_attention_heads", 0))  # FNet has none
    return TeacherSizes(parameter_count(model), hidden, inner, int(settings.num_hidden_layers), heads, vocabulary)


def _teacher(config: RunConfig, rows: Rows) -> Work:
    settings, lengths = config.teacher, rows.lengths["train"]
    steps = total_steps(len(lengths), settings.batch_size, settings.epochs, settings.min_steps, settings.max_steps)
    batches = LengthBuckets(lengths, settings.batch_size, settings.seed)
    evaluations = -(-steps // batches.per_epoch) + 1  # after every epoch, and of the best at the end
    validation = rows.lengths["validation"]
    sizes = rows.teacher
    held = 5 * sizes.parameters  # weights, gradients, two moments and the best so far
    trained = settings.batch_size * int(lengths.max()) * sizes.layers * (12 * sizes.hidden + 2.5 * sizes.inner)
    scored = _SCORED_AT_ONCE * int(validation.max()) * (6 * sizes.hidden + 2 * sizes.inner)
    if not _on_gpu(settings.device):  # there, and where nothing is trained, scores are not kept
        trained += settings.batch_size * sizes.heads * int(lengths.max()) ** 2 * sizes.layers * _SCORE_BYTES / _FLOAT
    return Work(
        "finetune_teacher",
        steps,
        {"teacher": _padded(batches, lengths, steps), "scoring": evaluations * int(validation.sum())},
        bytes=_FLOAT * (held + max(trained, scored)) + 3 * _FLOAT * int(lengths.sum()),
    )


def _targets(config: RunConfig, rows: Rows, made: int) -> Work:
    settings, sizes, train = config.targets, rows.teacher, rows.lengths["train"]
    fitted = min(settings.probe_rows, len(train))
    unlabeled = rows.lengths["unlabeled"][: settings.unlabeled_rows]
    mean = train.mean()
    tokens = train.sum() + unlabeled.sum() + rows.lengths["validation"].sum() + _copied(rows, made).sum()
    tokens += fitted * mean if fitted < len(train) else 0
    tokens += sizes.vocabulary * (rows.special + 1)  # every token alone, for the student's word vectors
    longest = scored_at_once(settings, "cuda" if _on_gpu(settings.device) else "cpu") * int(train.max())
    scored = longest * ((sizes.layers + 3) * sizes.hidden + 2 * sizes.inner)
    neighbours = sizes.vocabulary * 2 * sizes.hidden + 2 * 1024 * sizes.vocabulary
    vectors = 9 * sizes.vocabulary * sizes.hidden
    kept = (len(train) + made + len(unlabeled)) * (mean + rows.classes * (sizes.layers + 2)) + tokens
    states = fitted * (sizes.layers + 1) * sizes.hidden / 2  # float16
    return Work(
        "distill_targets",
        tokens={"scoring": float(tokens)},
        probe_rows=fitted * settings.probe_epochs,
        bytes=_FLOAT * (sizes.parameters + max(scored, neighbours, vectors) + kept + states),
    )


def _copied(rows: Rows, made: int) -> np.ndarray:
    """Lengths of the rows that `distill_targets` will make: of each text as many as it has tokens, in proportion."""
    tokens = rows.lengths["train"] - rows.special
    upto = np.cumsum(tokens) / max(tokens.sum(), 1)
    return rows.special + tokens[np.searchsorted(upto, (np.arange(made) + 0.5) / max(made, 1))]


def _students(config: RunConfig, rows: Rows, made: int) -> list[Work]:
    search, retrain, sizes = config.search, config.retrain, rows.teacher
    real, extra = rows.lengths["train"], rows.lengths["unlabeled"][: config.targets.unlabeled_rows]
    lengths = np.concatenate([real, extra, _copied(rows, made)])
    labels = np.concatenate([np.zeros(len(real), np.int64), np.full(len(extra) + made, -1)])
    table = TargetRows(None, labels, labels, labels)  # type: ignore[arg-type] # only its labels are asked for
    validation = rows.lengths["validation"].sum()
    genotype = structure(search)

    def epochs(settings: Any) -> tuple[int, LengthBuckets]:
        order = table.with_real_share(settings.real_share)
        steps = total_steps(len(order), settings.batch_size, settings.epochs, settings.min_steps, settings.max_steps)
        return steps, LengthBuckets(lengths, settings.batch_size, settings.seed, order)

    def weights(channels: int, depth: int, operations: Sequence[str]) -> float:
        return sizes.vocabulary * channels + depth * sum(operation_size(name, channels) for name in operations)

    def activations(batch_size: int, channels: int, edges: int, depth: int) -> float:
        return batch_size * int(lengths.max()) * channels * (6.0 * edges * depth + 8)

    data = lengths.sum() + len(lengths) * rows.classes * (sizes.layers + 2)
    operations = [name for _, _, name in genotype.operations]
    student = 7 * weights(search.channels, genotype.depth, operations)  # with average, best, export
    student += activations(retrain.batch_size, search.channels, len(operations), genotype.depth)
    steps, batches = epochs(retrain)
    tokens = {"student": _padded(batches, lengths, steps), "answering": (retrain.evaluations + 3) * validation}
    retrained = Work("retrain", steps, tokens, bytes=_FLOAT * (sizes.parameters + data + student))
    if search.genotype:
        return [Work("search", bytes=_FLOAT * sizes.parameters), retrained]
    steps, batches = epochs(search)
    per_step = _padded(batches, lengths, 1)
    trials, trained = trial_steps(search)
    width = search.proxy_channels or search.channels
    copies = 4 if search.optimizer == "adamw" else 3
    held = copies * weights(width, search.k_max, PRIMITIVES * len(EDGES)) + 7 * weights(width, genotype.depth, operations)
    held += activations(search.batch_size, width, len(EDGES), search.k_max)
    wide = per_step * trained * width / search.channels  # a narrower network takes less in proportion
    tokens = {"search": per_step * steps, "student": wide, "answering": trials * validation}
    searched = Work("search", steps + round(trained), tokens, bytes=_FLOAT * (sizes.parameters + data + held))
    return [searched, retrained]


def trial_steps(config: SearchConfig) -> tuple[int, float]:
    """The most trials a search makes, and their steps in those of a network of k_max cells."""
    if not config.trial_steps:
        return 0, 0.0
    finalists = config.trial_finalists if config.trial_finalists > 1 else 0
    by_depth = (config.k_max + 1) / 2  # the favourite at k_max, k_max - 1, ... cells
    steps = (by_depth + config.trial_cells - 1) * config.trial_steps + finalists * config.trial_final_steps
    return config.k_max + config.trial_cells - 1 + finalists, steps


def _benchmark(config: RunConfig, rows: Rows) -> Work:
    settings: BenchmarkConfig = config.benchmark
    in_onnx = TIMED_MODELS if settings.bert_base else TIMED_MODELS - 1
    models = in_onnx + (in_onnx - 1) * (1 + _on_gpu(settings.device))
    asked = settings_to_time(settings.threads, settings.batches, settings.lengths, config.teacher.max_length)
    shapes = [shape for part in asked.values() for shape in part]
    timing = settings.seconds * len(shapes) * models
    test, sizes = rows.lengths["test"], rows.teacher
    longest = max(_SCORED_AT_ONCE * int(test.max()), *(batch * length for batch, length in shapes))
    exported = 4 * (sizes.parameters + (BERT_BASE if settings.bert_base else 0))  # weights, graph, file and session
    return Work(
        "benchmark",
        tokens={"scoring": float(test.sum()), "answering": float(3 * test.sum())},
        timing=timing,
        bytes=_FLOAT * (exported + longest * (6 * sizes.hidden + 2 * sizes.inner)),
    )


def _on_gpu(device: str) -> bool:
    return device != "cpu" and torch.cuda.is_available()


def _padded(batches: LengthBuckets, lengths: np.ndarray, steps: int) -> float:
    """Tokens of that many batches, padding included, by the mean of the first epoch's."""
    seen = min(batches.per_epoch, _BATCHES_SEEN)
    indices = [batches.batch(step) for step in range(seen)]
    return sum(len(index) * int(lengths[index].max()) for index in indices) / seen * steps
