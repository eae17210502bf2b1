"""Stage retrain: the derived student trained with task and distillation losses, then exported.

Comes in: TeacherDir, TargetsDir, SearchDir. Goes out: StudentDir, a Hugging Face model with tokenizer, genotype.json and
onnx/model.onnx, whose weights are the moving average that validated best.
"""

import json
import logging
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from scipy.special import softmax
from sklearn.metrics import log_loss
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from adabert_core.artifacts import read_manifest, write_json
from adabert_core.config import RetrainConfig
from adabert_core.distillation import DistilledNetwork, separator_of, start_from_teacher
from adabert_core.evaluate import Best, predict_logits, scores
from adabert_core.export import export_onnx, fold_batch_norms, onnx_logits, open_session
from adabert_core.network import AdaBertNetwork
from adabert_core.runtime import make_accelerator, seed_everything
from adabert_core.search_space import Genotype
from adabert_core.stages import StageReport, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.student import AdaBertConfig, AdaBertForSequenceClassification
from adabert_core.target_rows import Targets, read_targets
from adabert_core.teacher import Teacher, load_teacher, vocabulary_of
from adabert_core.tokens import Collator
from adabert_core.tracking import Tracker
from adabert_core.training import LengthBuckets, fit, total_steps

log = logging.getLogger(__name__)
STAGE = "retrain"
_PARITY = 1e-3


class ExportError(RuntimeError):
    """The exported network is not the trained one: a defect of ours or of the exporter, not of the user."""


def run(
    config: RetrainConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> StageReport:
    """Trains and exports the student and returns its validation metrics."""
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        teacher, targets = load_teacher(inputs["teacher"]), read_targets(inputs["targets"])
        channels = read_manifest(inputs["search"], "search").config["channels"]
        genotype = Genotype.load(inputs["search"] / "genotype.json")
        supernet = inputs["search"] / "supernet.safetensors" if config.inherit else None
        student, score = train_student(
            genotype,
            teacher,
            targets,
            config,
            channels=channels,
            supernet=supernet,
            tracker=tracker,
            checkpoints=checkpoints,
            checkpoint_key=frame.checkpoint_key,
        )
        save_student(student, teacher, genotype, frame.path)
        frame.metrics.update(check_onnx(student, frame.path, Collator(targets.validation.rows, teacher.template), targets))
        frame.metrics["parameters"] = sum(p.numel() for p in student.parameters())
        tracker.artifact(frame.path / "genotype.json")
        log.info(
            "student: %.2f M parameters, validation %s %.4f", frame.metrics["parameters"] / 1e6, targets.info["metric"], score
        )
    checkpoints.clear(frame.checkpoint_key)
    return frame.finished


def new_student(
    genotype: Genotype, teacher: Teacher, labels: list[str], channels: int, dropout: float
) -> AdaBertForSequenceClassification:
    """Returns an untrained student of a genotype, for the teacher's tokenizer."""
    settings = AdaBertConfig(
        vocab_size=vocabulary_of(teacher),
        channels=channels,
        max_position_embeddings=teacher.max_length,
        genotype=json.loads(genotype.to_json()),
        separator_id=separator_of(teacher),
        dropout=dropout,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        pad_token_id=teacher.template.pad_id,
    )
    return AdaBertForSequenceClassification(settings)


def inherit(distilled: DistilledNetwork, supernet: Path) -> None:
    """Loads from a supernet every tensor that the student has too; the names agree by construction."""
    known = load_file(supernet)
    own = distilled.state_dict()
    distilled.load_state_dict({name: known.get(f"distilled.{name}", tensor) for name, tensor in own.items()})


def train_student(
    genotype: Genotype,
    teacher: Teacher,
    targets: Targets,
    config: RetrainConfig,
    *,
    channels: int,
    supernet: Path | None,
    tracker: Tracker,
    checkpoints: Checkpoints,
    checkpoint_key: str,
) -> tuple[AdaBertForSequenceClassification, float]:
    """Returns the trained student of a genotype, in evaluation mode on the CPU, and its validation score."""
    accelerator = make_accelerator(config.device, config.precision)
    generator = seed_everything(config.seed)
    labels = targets.info["labels"]
    student = new_student(genotype, teacher, labels, channels, config.dropout)
    start_from_teacher(student.network, targets.vectors)
    distilled = DistilledNetwork(student.network, genotype.depth, len(labels))
    if supernet is not None:
        inherit(distilled, supernet)
    distilled.to(accelerator.device).train()
    rows = Collator(targets.train.rows, teacher.template)
    validation = Collator(targets.validation.rows, teacher.template)
    order = targets.train.with_real_share(config.real_share)
    steps = total_steps(len(order), config.batch_size, config.epochs, config.min_steps, config.max_steps)
    optimizer = torch.optim.AdamW(distilled.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps + 1, pct_start=max(config.warmup_fraction, 1 / (steps + 1))
    )
    decay = min(config.ema_decay, 1 - 10 / (steps + 10))  # a short training has no use for a long memory
    average = AveragedModel(student.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    best = Best()
    likelihoods = targets.log_likelihoods.to(accelerator.device)
    milestones = {round(steps * (i + 1) / config.evaluations) for i in range(config.evaluations)} | {steps}

    def loss(index: np.ndarray, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        values, terms = distilled.losses(
            rows(index, accelerator.device),
            targets.train.batch(index, accelerator.device),
            likelihoods,
            [genotype.depth],
            gamma=config.gamma,
            final_weight=config.final_weight,
            temperature=config.temperature,
        )
        return values[0], {**terms, "learning_rate": schedule.get_last_lr()[0]}

    def apply(step: int) -> None:
        accelerator.clip_grad_norm_(distilled.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        average.update_parameters(student.network)
        if step + 1 in milestones:
            logits = network_logits(cast("AdaBertNetwork", average.module), genotype.depth, validation, accelerator)
            found = scores(targets.validation.labels, logits.argmax(1), targets.info["metric"])
            found["log_loss"] = float(log_loss(targets.validation.labels, softmax(logits, axis=1), labels=range(len(labels))))
            log.info(
                "student step %d: validation %s %.4f, log loss %.4f",
                step + 1,
                targets.info["metric"],
                found["score"],
                found["log_loss"],
            )
            tracker.metrics({f"validation_{name}": value for name, value in found.items()}, step + 1)
            best.offer(found["score"], step + 1, average.module.state_dict())

    fit(
        label="student",
        steps=steps,
        batches=LengthBuckets(rows.lengths, config.batch_size, config.seed, order),
        loss=loss,
        apply=apply,
        state={"distilled": distilled, "optimizer": optimizer, "schedule": schedule, "average": average, "best": best},
        optimizers=[optimizer],
        accelerator=accelerator,
        generator=generator,
        tracker=tracker,
        checkpoints=checkpoints,
        checkpoint_key=f"{checkpoint_key}/state",
    )
    student.network.load_state_dict(best.weights)
    return student.cpu().eval(), best.score


def network_logits(network: AdaBertNetwork, depth: int, rows: Collator, accelerator: Accelerator) -> np.ndarray:
    """Logits (rows, classes) of a network in evaluation mode."""
    network.eval()
    found = predict_logits(
        lambda batch: network.logits(network.summaries(batch["input_ids"], batch["attention_mask"], depth), depth),
        rows,
        accelerator,
    )
    network.train()
    return found


def save_student(student: AdaBertForSequenceClassification, teacher: Teacher, genotype: Genotype, path: Path) -> None:
    """Writes the Hugging Face model, its tokenizer, genotype.json and onnx/model.onnx."""
    student.save_pretrained(path, safe_serialization=True)
    teacher.tokenizer.model_max_length = teacher.max_length
    teacher.tokenizer.save_pretrained(path)
    (path / "genotype.json").write_text(genotype.to_json(), encoding="utf-8")
    export_onnx(fold_batch_norms(student), path / "onnx" / "model.onnx")


def check_onnx(student: AdaBertForSequenceClassification, path: Path, rows: Collator, targets: Targets) -> dict[str, float]:
    """Returns torch's and ONNX's validation scores and their largest difference in logits.

    Raises:
        ExportError: the two answer differently on the validation split.
    """
    with torch.inference_mode():
        expected = network_logits(student.network, student.depth, rows, make_accelerator("cpu", "fp32"))
    student.eval()
    found = onnx_logits(open_session(path / "onnx" / "model.onnx"), rows)
    difference = float(np.abs(expected - found).max())
    top = np.sort(expected, axis=1)
    undecided = top[:, -1] - top[:, -2] <= 2 * difference  # a tie to the last bit may fall either way
    same = float(((expected.argmax(1) == found.argmax(1)) | undecided).mean())
    if difference > _PARITY or same < 1:
        raise ExportError(
            f"{path / 'onnx'} differs from torch by {difference:.2g}, same answer on {same:.2%}: report genotype.json."
        )
    labels, metric = targets.validation.labels, targets.info["metric"]
    values = scores(labels, found.argmax(1), metric)
    write_json(path / "parity.json", {"max_logit_difference": difference, "same_answer": same})
    return {**{f"validation_{name}": value for name, value in values.items()}, "onnx_max_logit_difference": difference}
