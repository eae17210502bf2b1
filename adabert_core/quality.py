"""How good teacher and student are on validation and test, and the errors that only the student makes.

Comes in: the dataset, the teacher's targets, both models. Goes out: what `benchmark` puts into the report, from its one look at
the test split.
"""

from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from adabert_core.data.dataset import Dataset
from adabert_core.export import onnx_logits, open_session
from adabert_core.runtime import make_accelerator
from adabert_core.student import AdaBertForSequenceClassification
from adabert_core.student_training import network_logits, student_thresholds
from adabert_core.target_rows import Targets
from adabert_core.teacher import Teacher
from adabert_core.tokens import Collator

_ERRORS_SHOWN = 20


def test_quality(
    dataset: Dataset,
    targets: Targets,
    teacher: Teacher,
    student: AdaBertForSequenceClassification,
    onnx_files: dict[str, Path],
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Metrics of teacher and student on validation and test, confusion matrices, and errors only the student makes."""
    test = dataset.split("test")
    rows, validation = teacher.collator(test), Collator(targets.validation.rows, teacher.template)
    teacher.model.to(accelerator.device)
    task = dataset.task
    teacher_logits = task.in_units(teacher.logits(rows, accelerator))
    teacher.model.cpu()
    sessions = {"int8" if runtime == "onnx-int8" else runtime: open_session(path) for runtime, path in onnx_files.items()}
    onnx = {name: onnx_logits(session, rows) for name, session in sessions.items()}
    torch_logits = network_logits(student.network, student.depth, rows, make_accelerator("cpu", "fp32"))
    student.eval()
    known, right, own = targets.validation.labels, test.labels, student_thresholds(student)
    teachers = task.thresholds(known, targets.validation.teacher_logits)
    answers = {"teacher": task.predictions(teacher_logits, teachers), "student": task.predictions(onnx["onnx"], own)}
    return {
        "teacher": {
            "validation": task.scores(known, task.predictions(targets.validation.teacher_logits, teachers)),
            "test": task.scores(right, answers["teacher"]),
        },
        "student": {
            "validation": {
                name: task.scores(known, task.predictions(onnx_logits(session, validation), own))
                for name, session in sessions.items()
            },
            "test": {
                **{name: task.scores(right, task.predictions(logits, own)) for name, logits in onnx.items()},
                "torch": task.scores(right, task.predictions(torch_logits, own)),
            },
        },
        "cut_rows": rows.rows.cut,
        "confusion": {model: task.confusion(right, given) for model, given in answers.items()},
        "errors": student_errors(dataset, answers["teacher"], answers["student"], onnx["onnx"]),
    }


def student_errors(dataset: Dataset, teacher: np.ndarray, student: np.ndarray, logits: np.ndarray) -> list[dict[str, Any]]:
    """The test texts that the teacher gets right and the student wrong, the worst errors first, given both predictions.

    How bad one is depends on the task: the student's confidence, how far off its number is, how many labels are wrong.
    """
    test, task = dataset.split("test"), dataset.task
    wrong, severity = task.errors(test.labels, teacher, student, logits)
    order = np.nonzero(wrong)[0][np.argsort(-severity[wrong], kind="stable")][:_ERRORS_SHOWN]
    return [
        {
            "text": test.text_a[i] if test.text_b is None else f"{test.text_a[i]} ||| {test.text_b[i]}",
            "label": task.words(test.labels[i]),
            "student": task.words(student[i]),
            task.severity: round(float(severity[i]), 4),
        }
        for i in order
    ]
