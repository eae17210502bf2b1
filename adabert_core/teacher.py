"""Stage finetune_teacher: any encoder that AutoModelForSequenceClassification loads, fine-tuned on the train split.

Comes in: DatasetDir. Goes out: TeacherDir with model/ (safetensors, tokenizer) of the epoch that validated best.
"""

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

from adabert_core.artifacts import read_json, read_manifest, write_json
from adabert_core.attention import replace_attention
from adabert_core.config import TeacherConfig
from adabert_core.data.builtin import known_teachers
from adabert_core.data.dataset import Split, read_dataset
from adabert_core.dropout import replace_dropout
from adabert_core.early_warnings import head_order, other_labels
from adabert_core.errors import UserError
from adabert_core.evaluate import Best, predict_logits
from adabert_core.probes import pool_states
from adabert_core.runtime import make_accelerator, parameter_count, seed_everything
from adabert_core.stages import StageReport, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.tasks import Task
from adabert_core.teacher_source import teacher_files
from adabert_core.tokens import Collator, Template, tokenize
from adabert_core.tracking import Tracker
from adabert_core.training import LengthBuckets, fit, total_steps

log = logging.getLogger(__name__)
STAGE = "finetune_teacher"
_PAD_TO_MULTIPLE_OF = 4  # a new length costs oneDNN some 20 new kernels, two tokens more next to nothing (docs/LOG.md)


def run(
    config: TeacherConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> StageReport:
    """Fine-tunes the teacher and returns its validation metrics."""
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        dataset = read_dataset(inputs["dataset"])
        accelerator = make_accelerator(config.device, config.precision)
        generator = seed_everything(config.seed)  # before the model: its head is drawn at random
        task = dataset.task
        teacher = new_teacher(config.model, dataset.labels, dataset.pair, config.max_length, task.problem_type)
        train, validation = dataset.split("train"), dataset.split("validation")
        rows, validation_rows = teacher.collator(train, _PAD_TO_MULTIPLE_OF), teacher.collator(validation)
        if rows.rows.cut:
            share, limit = rows.rows.cut / len(train), teacher.max_length
            log.warning("%.1f %% of the train texts are longer than the %d tokens that the teacher reads", 100 * share, limit)
        labels, validation_labels = train.labels, validation.labels
        del train, validation  # the texts of millions of rows
        steps = total_steps(len(labels), config.batch_size, config.epochs, config.min_steps, config.max_steps)
        replace_dropout(teacher.model)
        if accelerator.device.type == "cpu":
            replace_attention(teacher.model)
        model = teacher.model.to(accelerator.device)
        optimizer = torch.optim.AdamW(_decay_groups(model, config.weight_decay), lr=config.learning_rate, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, int(config.warmup_fraction * steps), steps)
        batches = LengthBuckets(rows.lengths, config.batch_size, config.seed)
        best = Best()

        def loss(index: np.ndarray, step: int) -> tuple[Tensor, dict[str, float]]:
            model.train()
            wanted = torch.from_numpy(labels[index]).to(accelerator.device)
            logits = model(**rows(index, accelerator.device)).logits
            return task.hard_loss(logits.float(), wanted), {"learning_rate": schedule.get_last_lr()[0]}

        def apply(step: int) -> None:
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if (step + 1) % batches.per_epoch == 0 or step + 1 == steps:
                found = teacher.scores(validation_rows, validation_labels, task, accelerator)
                tracker.metrics({f"validation_{name}": value for name, value in found.items()}, step + 1)
                log.info("teacher step %d: validation %s %.4f", step + 1, dataset.metric, found["score"])
                best.offer(found["score"], step + 1, model.state_dict())

        fit(
            label="teacher",
            steps=steps,
            batches=batches,
            loss=loss,
            apply=apply,
            state={"model": model, "optimizer": optimizer, "schedule": schedule, "best": best},
            optimizers=[optimizer],
            accelerator=accelerator,
            generator=generator,
            tracker=tracker,
            checkpoints=checkpoints,
            checkpoint_key=frame.checkpoint_key,
        )
        model.load_state_dict(best.weights)
        frame.warn(other_labels(teacher.own_labels, dataset.labels))
        found = teacher.scores(validation_rows, validation_labels, task, accelerator)
        if said := task.useless(found, validation_labels):
            frame.warn(f"the teacher is no better than {said}: check data.label, or raise teacher.min_steps")
        teacher.save(frame.path)
        frame.metrics.update({f"validation_{name}": value for name, value in found.items()})
        frame.metrics["parameters"] = parameter_count(model)
    checkpoints.clear(frame.checkpoint_key)
    return frame.finished


@dataclasses.dataclass
class Teacher:
    """A sequence classifier with its tokenizer and how texts are laid out for it."""

    model: Any
    tokenizer: Any
    template: Template
    max_length: int
    pair: bool
    own_labels: tuple[str, ...] = ()  # before it got those of the data

    def collator(self, split: Split, pad_to_multiple_of: int = 1) -> Collator:
        """Returns batches over a split's rows, tokenised once."""
        rows = tokenize(self.tokenizer, self.template, split.text_a, split.text_b, self.max_length)
        return Collator(rows, self.template, pad_to_multiple_of)

    def logits(self, rows: Collator, accelerator: Any) -> np.ndarray:
        """Logits (rows, classes) in evaluation mode; a regression's are standardised."""
        self.model.eval()
        return predict_logits(lambda batch: self.model(**batch).logits, rows, accelerator)

    def scores(self, rows: Collator, labels: np.ndarray, task: Task, accelerator: Any) -> dict[str, float]:
        """Metrics on the rows, with the thresholds that suit them best where a task has any."""
        logits = task.in_units(self.logits(rows, accelerator))
        return task.scores(labels, task.predictions(logits, task.thresholds(labels, logits)))

    def save(self, path: Path) -> None:
        """Writes model/ and teacher.json."""
        self.model.save_pretrained(path / "model", safe_serialization=True)
        self.tokenizer.save_pretrained(path / "model")
        write_json(path / "teacher.json", {"max_length": self.max_length, "pair": self.pair})


def new_teacher(name: str, labels: list[str], pair: bool, max_length: int, problem_type: str | None = None) -> Teacher:
    """Returns a teacher with a head for `labels`: a fresh one, or its own where it was trained for as many classes.

    Classes of the same names in another order are put into the order of `labels`.

    Raises:
        UserError: no such builtin, folder, s3:// prefix or hub id, no safetensors, no fast tokenizer, no states of its layers.
    """
    names = dict(enumerate(labels))
    head: dict[str, Any] = {"num_labels": len(labels), "id2label": names, "label2id": {label: i for i, label in names.items()}}
    if problem_type:
        head["problem_type"] = problem_type
    with tempfile.TemporaryDirectory(prefix="adabert-teacher-") as scratch:
        files = teacher_files(name, Path(scratch))
        teacher = _load(files, name, pair, max_length, ignore_mismatched_sizes=True, **head)
        _check_states(teacher, name)
        own = AutoConfig.from_pretrained(files, trust_remote_code=False).id2label or {}
    teacher.own_labels = tuple(str(own[i]) for i in sorted(own))
    if order := head_order(teacher.own_labels, labels):
        reorder_head(teacher.model, order)
    return teacher


@torch.no_grad()
def reorder_head(model: nn.Module, order: list[int]) -> None:
    """Makes output i of a classifier's last layer what output order[i] was."""
    inside = {id(module) for module in model.base_model.modules()}  # type: ignore[union-attr]
    outputs = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == len(order) and id(m) not in inside]
    if outputs:
        for parameter in outputs[-1].parameters():
            parameter.copy_(parameter[order].clone())


def load_teacher(path: Path) -> Teacher:
    """Returns the fine-tuned teacher of a TeacherDir."""
    read_manifest(path, STAGE)
    settings = read_json(path / "teacher.json")
    return _load(str(path / "model"), str(path), settings["pair"], settings["max_length"])


def _load(source: str, name: str, pair: bool, max_length: int, **head: Any) -> Teacher:
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # a fresh head is what we ask for, not worth a page of warnings
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, **head
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"teacher.model {name} cannot be loaded ({reason}); "
            f"name {known_teachers()}, a folder, s3://bucket/folder or a hub id."
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    if not tokenizer.is_fast:
        raise UserError(
            f"teacher.model {name} has no fast tokenizer (tokenizer.json), which the student needs; choose another teacher."
        )
    limit, template = min(max_length, longest_text(model)), Template.of(tokenizer, pair)
    if limit < template.size + 2:
        raise UserError(f"teacher.max_length {limit} leaves no room for text beside {template.size} special tokens; raise it.")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return Teacher(model, tokenizer, template, limit, pair)


@torch.no_grad()
def _check_states(teacher: Teacher, name: str) -> None:
    """Checks on one short text that the model gives the states that `distill_targets` will pool."""
    words = ["a " * 8]
    rows = tokenize(teacher.tokenizer, teacher.template, words, words if teacher.pair else None, teacher.max_length)
    batch = Collator(rows, teacher.template)(np.array([0]))
    try:
        with torch.random.fork_rng(devices=[]):
            states = teacher.model.eval()(**batch, output_hidden_states=True).hidden_states
        pool_states(states, batch["attention_mask"], choose_pooling("auto", teacher.template))
    except Exception as error:  # whatever it was, training would end in it after a long time
        raise UserError(
            f"teacher.model {name} does not give the states of its layers ({type(error).__name__}), which the student learns "
            "from: choose an encoder such as BERT, not an encoder with a decoder."
        ) from error


def choose_pooling(wanted: str, template: Template) -> str:
    """The pooling that is wanted; "auto" is 'cls' where a model's own head reads its first position, 'mean' for the others."""
    return ("cls" if template.prefix else "mean") if wanted == "auto" else wanted


def vocabulary_of(teacher: Teacher) -> int:
    """Rows of the teacher's word table, and so of the student's."""
    return int(teacher.model.get_input_embeddings().num_embeddings)


def longest_text(model: nn.Module) -> int:
    """Tokens a model has positions for; RoBERTa and its kin count theirs from after the padding index."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        limit = int(getattr(model.config, "max_position_embeddings", 0) or 0)
        return limit if limit > 0 else 10**6  # XLNet's is -1
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, as is usual for transformers."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
