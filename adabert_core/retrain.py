"""Stage retrain: the derived student trained with task and distillation losses, then exported.

Comes in: TeacherDir, TargetsDir, SearchDir. Goes out: StudentDir, a Hugging Face model with tokenizer, genotype.json and
onnx/model.onnx, whose weights are the moving average that validated best, and onnx/model_int8.onnx, which is served if it
passes its gate on the validation split.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adabert_core.artifacts import read_manifest, write_json
from adabert_core.config import RetrainConfig, check_inheritance
from adabert_core.early_warnings import behind_static, static_baseline
from adabert_core.export import FP32, INT8, export_int8, export_student, onnx_logits, open_session
from adabert_core.runtime import make_accelerator, parameter_count
from adabert_core.search_space import Genotype
from adabert_core.stages import StageReport, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.student import AdaBertForSequenceClassification
from adabert_core.student_training import network_logits, student_thresholds, train_student
from adabert_core.target_rows import Targets, known_rows, read_targets
from adabert_core.tasks import Task
from adabert_core.tasks.classification import Classification
from adabert_core.teacher import Teacher, load_teacher
from adabert_core.tokens import Collator
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)
STAGE = "retrain"
_PARITY = 1e-3
_CALIBRATION_ROWS = 256


class ExportError(RuntimeError):
    """The exported network is not the trained one: a defect of ours or of the exporter, not of the user."""


def run(
    config: RetrainConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> StageReport:
    """Trains and exports the student and returns its validation metrics."""
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        teacher, targets = load_teacher(inputs["teacher"]), read_targets(inputs["targets"])
        searched = read_manifest(inputs["search"], "search").config
        if config.inherit:
            check_inheritance(searched, config.architecture)
        genotype = Genotype.load(inputs["search"] / "genotype.json")
        supernet = inputs["search"] / "supernet.safetensors" if config.inherit else None
        student, score = train_student(
            genotype,
            teacher,
            targets,
            config,
            channels=searched["channels"],
            supernet=supernet,
            tracker=tracker,
            checkpoints=checkpoints,
            checkpoint_key=frame.checkpoint_key,
        )
        save_student(student, teacher, genotype, frame.path)
        if config.architecture == "adabert":
            real = np.nonzero(known_rows(targets.train.labels))[0][:_CALIBRATION_ROWS]
            export_int8(student, frame.path / INT8, Collator(targets.train.rows, teacher.template), real)
        validation = Collator(targets.validation.rows, teacher.template)
        frame.metrics.update(check_onnx(student, frame.path, validation, targets, config.int8_tolerance))
        if isinstance(targets.task, Classification):
            static = frame.metrics["static_baseline_score"] = static_baseline(targets)
            frame.warn(behind_static(frame.metrics["validation_score"], static, targets.info["metric"]))
        frame.metrics["parameters"] = parameter_count(student)
        tracker.artifact(frame.path / "genotype.json")
        log.info(
            "student: %.2f M parameters, validation %s %.4f", frame.metrics["parameters"] / 1e6, targets.info["metric"], score
        )
    checkpoints.clear(frame.checkpoint_key)
    return frame.finished


def save_student(student: AdaBertForSequenceClassification, teacher: Teacher, genotype: Genotype, path: Path) -> None:
    """Writes the Hugging Face model, its tokenizer, genotype.json and onnx/model.onnx."""
    student.save_pretrained(path, safe_serialization=True)
    teacher.tokenizer.model_max_length = teacher.max_length
    teacher.tokenizer.save_pretrained(path)
    (path / "genotype.json").write_text(genotype.to_json(), encoding="utf-8")
    export_student(student, path / FP32)


def check_onnx(
    student: AdaBertForSequenceClassification, path: Path, rows: Collator, targets: Targets, tolerance: float
) -> dict[str, float]:
    """Returns validation scores and differences in logits of the ONNX files, and writes parity.json.

    Raises:
        ExportError: fp32 and torch answer differently on the validation split.
    """
    expected = network_logits(student.network, student.depth, rows, make_accelerator("cpu", "fp32"))
    student.eval()
    found = onnx_logits(open_session(path / FP32), rows)
    difference = float(np.abs(expected - found).max())
    task, thresholds = targets.task, student_thresholds(student)
    same = float(task.same(expected, found, difference, thresholds).mean())  # a tie to the last bit may fall either way
    if difference / task.scale() > _PARITY or same < 1:
        raise ExportError(
            f"{path / FP32} differs from torch by {difference:.2g}, same answer on {same:.2%}: report genotype.json."
        )
    labels = targets.validation.labels
    values = task.scores(labels, task.predictions(found, thresholds))
    parity: dict[str, Any] = {"max_logit_difference": difference, "same_answer": same}
    if (path / INT8).is_file():
        int8 = onnx_logits(open_session(path / INT8), rows)
        parity["int8"] = int8_gate(found, int8, labels, task, tolerance, thresholds)
    write_json(path / "parity.json", parity)
    return {
        **{f"validation_{name}": value for name, value in values.items()},
        "onnx_max_logit_difference": difference,
        **{f"int8_{name}": float(value) for name, value in parity.get("int8", {}).items()},
    }


def int8_gate(
    fp32: np.ndarray,
    int8: np.ndarray,
    labels: np.ndarray,
    task: Task,
    tolerance: float,
    thresholds: Sequence[float] | None = None,
) -> dict[str, float | bool]:
    """Returns how far int8's answers to the validation split are from fp32's, and whether its score is near enough."""
    before, after = (task.scores(labels, task.predictions(logits, thresholds))["score"] for logits in (fp32, int8))
    lost = before - after
    passed = bool(np.isfinite(int8).all() and lost <= tolerance)
    if not passed:
        log.warning("int8 loses %.4f of the validation %s, more than %.4f: fp32 will be served", lost, task.metric, tolerance)
    return {
        "passed": passed,
        "score_lost": lost,
        "tolerance": tolerance,
        "max_logit_difference": float(np.abs(fp32 - int8).max()),
        "same_answer": float(task.same(fp32, int8, 0.0, thresholds).mean()),
    }
