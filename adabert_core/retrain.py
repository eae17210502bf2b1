"""Stage retrain: the derived student trained with task and distillation losses, then exported.

Comes in: TeacherDir, TargetsDir, SearchDir. Goes out: StudentDir, a Hugging Face model with tokenizer, genotype.json and
onnx/model.onnx, whose weights are the moving average that validated best.
"""

import logging
from pathlib import Path

import numpy as np

from adabert_core.artifacts import read_manifest, write_json
from adabert_core.config import RetrainConfig
from adabert_core.errors import UserError
from adabert_core.evaluate import scores
from adabert_core.export import export_student, onnx_logits, open_session
from adabert_core.runtime import make_accelerator
from adabert_core.search_space import Genotype
from adabert_core.stages import StageReport, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.student import AdaBertForSequenceClassification
from adabert_core.student_training import network_logits, train_student
from adabert_core.target_rows import Targets, read_targets
from adabert_core.teacher import Teacher, load_teacher
from adabert_core.tokens import Collator
from adabert_core.tracking import Tracker

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
        searched = read_manifest(inputs["search"], "search").config
        if config.inherit and searched.get("genotype"):
            raise UserError("retrain.inherit: a given search.genotype has no weights to inherit; set it to false.")
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
        frame.metrics.update(check_onnx(student, frame.path, Collator(targets.validation.rows, teacher.template), targets))
        frame.metrics["parameters"] = sum(p.numel() for p in student.parameters())
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
    export_student(student, path / "onnx" / "model.onnx")


def check_onnx(student: AdaBertForSequenceClassification, path: Path, rows: Collator, targets: Targets) -> dict[str, float]:
    """Returns torch's and ONNX's validation scores and their largest difference in logits.

    Raises:
        ExportError: the two answer differently on the validation split.
    """
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
