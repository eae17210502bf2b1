"""Stage distill_targets: probes on every teacher layer, and their and the teacher's answers for all text.

Comes in: DatasetDir, TeacherDir. Goes out: TargetsDir, all that search and retraining read: token rows, labels (-1 or NaN
where the label is not trusted), teacher logits and probe logits, both in the user's units for regression, of the train split,
unlabeled and augmented text in this order. Scoring goes shard by shard, and a killed stage keeps its shards.
"""

import logging
import math
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.metrics import recall_score

from adabert_core.artifacts import write_json
from adabert_core.augment import augment, copied_length, nearest_tokens
from adabert_core.config import TargetsConfig
from adabert_core.data.dataset import read_dataset
from adabert_core.early_warnings import probes_at_chance
from adabert_core.errors import UserError
from adabert_core.probes import Probes, fit_probes
from adabert_core.runtime import make_accelerator, seed_everything
from adabert_core.scoring import SHARD_ROWS, Scorer, scored_at_once
from adabert_core.stages import StageReport, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.target_rows import TargetRows, unknown_labels
from adabert_core.tasks import described
from adabert_core.tasks.classification import Classification
from adabert_core.teacher import Teacher, choose_pooling, load_teacher, vocabulary_of
from adabert_core.tokens import Collator, TokenRows
from adabert_core.tracking import Tracker
from adabert_core.vectors import word_vectors

log = logging.getLogger(__name__)
STAGE = "distill_targets"


def run(
    config: TargetsConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> StageReport:
    """Fits the probes, scores all text and returns the probes' validation accuracies."""
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        dataset, teacher = read_dataset(inputs["dataset"]), load_teacher(inputs["teacher"])
        accelerator = make_accelerator(config.device, config.precision)
        generator = seed_everything(config.seed)
        teacher.model.to(accelerator.device).eval()
        pooling = choose_pooling(config.pooling, teacher.template)
        train, validation = dataset.split("train"), dataset.split("validation")
        train_rows, validation_rows = teacher.collator(train), teacher.collator(validation)
        train_labels, validation_labels = train.labels, validation.labels
        del train, validation  # the texts of millions of rows
        task = dataset.task
        batch_size = scored_at_once(config, accelerator.device.type)
        scorer = Scorer(teacher, accelerator, pooling, batch_size, checkpoints, frame.checkpoint_key, task)

        saved = checkpoints.load(f"{frame.checkpoint_key}/probes")
        if saved is None:
            scratch = frame.path / "states.tmp.npy"
            saved = fit_on_states(config, scorer, train_rows, train_labels, scratch, generator)
            checkpoints.save(f"{frame.checkpoint_key}/probes", saved)
        probes = Probes(saved["weight"], saved["bias"])
        if "teacher" in saved:
            real_teacher, real_probes = saved["teacher"].numpy(), saved["probes"].numpy()
        else:
            real_teacher, real_probes = scorer.score(train_rows, probes, "train")

        extra = {
            "augmented": Collator(augmented_rows(config, teacher, train_rows.rows, task.groups(train_labels)), teacher.template)
        }
        if unlabeled := dataset.unlabeled(config.unlabeled_rows):
            extra = {"unlabeled": teacher.collator(unlabeled), **extra}
        scorer.announce(extra)
        layers, _, outputs = probes.weight.shape
        check_room(len(train_labels) + sum(len(rows.rows) for rows in extra.values()), layers, outputs)
        scored = [scorer.score(rows, probes, name) for name, rows in extra.items()]
        counts = {f"{name}_rows": len(rows.rows) for name, rows in extra.items()}
        labels = np.concatenate([train_labels, unknown_labels(train_labels, sum(counts.values()))])
        kept_teacher, kept_probes = scorer.score(validation_rows, probes, "validation")

        TargetRows(
            TokenRows.concatenate([train_rows.rows, *(rows.rows for rows in extra.values())]),
            labels,
            np.concatenate([real_teacher, *(logits for logits, _ in scored)]),
            np.concatenate([real_probes, *(logits for _, logits in scored)]),
        ).save(frame.path / "train")
        TargetRows(validation_rows.rows, validation_labels, kept_teacher, kept_probes).save(frame.path / "validation")
        save_file({"weight": probes.weight.contiguous(), "bias": probes.bias.contiguous()}, frame.path / "probes.safetensors")
        uses = np.bincount(all_tokens(train_rows.rows), minlength=vocabulary_of(teacher))
        save_file(word_vectors(teacher, uses, accelerator), frame.path / "vectors.safetensors")
        accuracy = task.layer_scores(kept_probes, validation_labels)
        if isinstance(task, Classification) and task.class_weights is None:  # weights give accuracy away for rare classes
            said = task.log_likelihoods(kept_probes, validation_labels)
            recall = np.array([recall_score(validation_labels, given, average="macro") for given in kept_probes.argmax(2).T])
            frame.warn(probes_at_chance(accuracy, said, recall, validation_labels))
        likelihood = task.log_likelihoods(real_probes, train_labels)
        write_json(
            frame.path / "targets.json",
            {
                **described(task),
                "pair": dataset.pair,
                "pooling": pooling,
                "teacher_layers": len(accuracy) - 1,
                "probe_accuracy": accuracy.tolist(),
                "probe_log_likelihood": likelihood.tolist(),
                "real_rows": len(train_labels),
                **counts,
            },
        )
        for layer, value in enumerate(accuracy.tolist()):
            tracker.metrics({"probe_validation_accuracy": value}, layer)
        frame.metrics.update(cut_train_rows=train_rows.rows.cut, cut_validation_rows=validation_rows.rows.cut)
        frame.metrics.update({"rows": len(labels), "last_probe_validation_accuracy": float(accuracy[-1])})
        values = " ".join(f"{v:.3f}" for v in accuracy)
        log.info("probes, layers 0..%d, validation %s: %s", len(accuracy) - 1, task.probe_metric, values)
    checkpoints.clear(frame.checkpoint_key)
    return frame.finished


def fit_on_states(
    config: TargetsConfig,
    scorer: Scorer,
    rows: Collator,
    labels: np.ndarray,
    scratch: Path,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Returns the probes' weight and bias and, where they saw all rows, the teacher's and their logits of these.

    At most `probe_rows` rows are drawn: the states of millions would fill a disk, and a linear probe needs no more.
    """
    count = len(labels)
    if count > config.probe_rows:
        drawn = np.sort(np.random.default_rng(config.seed).choice(count, config.probe_rows, replace=False))
        rows, labels = Collator(rows.rows.take(drawn), rows.template), labels[drawn]
    states, logits = scorer.states(rows, scratch)
    task = scorer.task
    found = fit_probes(
        states,
        labels,
        len(task.labels),
        epochs=config.probe_epochs,
        generator=generator,
        loss=task.hard_loss,
        device=scorer.accelerator.device,
    )
    probes = Probes(*task.fold(found.weight, found.bias))
    saved = {"weight": probes.weight, "bias": probes.bias}
    if len(labels) == count:
        pieces = math.ceil(count / SHARD_ROWS)  # the states may not fit into memory at once
        answers = np.concatenate([probes(torch.from_numpy(part)).numpy() for part in np.array_split(states, pieces)])
        saved |= {"teacher": torch.from_numpy(logits), "probes": torch.from_numpy(answers)}
    scratch.unlink()
    return saved


def augmented_rows(config: TargetsConfig, teacher: Teacher, rows: TokenRows, labels: np.ndarray) -> TokenRows:
    """Returns the augmented train rows: the same for the same seed, whatever ran before.

    Texts of one label are joined with each other; `labels` are numbers of whatever counts as one label.
    """
    table = teacher.model.get_input_embeddings().weight.detach().float().cpu()
    lengths = rows.a.lengths + (0 if rows.b is None else rows.b.lengths)
    used = np.unique(all_tokens(rows))
    tokens = teacher.tokenizer.convert_ids_to_tokens(list(range(len(table))))
    return augment(
        rows,
        labels,
        neighbours=nearest_tokens(table, [str(t) for t in tokens], used, config.neighbours),
        augmented_rows=augmented_bound(config, lengths),
        max_copies=config.max_copies,
        replace_probability=config.replace_probability,
        mix=config.mix,
        rng=np.random.default_rng(config.seed),
    )


def augmented_bound(config: TargetsConfig, lengths: np.ndarray) -> int:
    """The most rows to make of rows with that many tokens: the cost of scoring grows with tokens, not with rows."""
    by_tokens = (
        int(config.augmented_tokens / max(copied_length(lengths), 1)) if config.augmented_tokens else config.augmented_rows
    )
    return min(config.augmented_rows, by_tokens)


def all_tokens(rows: TokenRows) -> np.ndarray:
    """The tokens of all texts, one after the other."""
    return rows.a.values if rows.b is None else np.concatenate([rows.a.values, rows.b.values])


def check_room(rows: int, layers: int, outputs: int, memory: int = 0) -> None:
    """Checks that the probes' logits fit twice into `memory` bytes, by default this machine's: joining them takes a copy.

    Raises:
        UserError: they do not, as can be with a thousand classes.
    """
    needed, memory = 2 * 4 * rows * layers * outputs, memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise UserError(
            f"distill_targets: {rows:,} texts x {layers} layers x {outputs} outputs need {needed / 1e9:.1f} GB and there "
            f"are {memory / 1e9:.1f} of memory: lower targets.augmented_rows, targets.unlabeled_rows or data.max_train_rows."
        )
