"""What is timed, and what happens to a teacher that no ONNX exporter takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adabert_core.benchmark import time_all
from adabert_core.config import BenchmarkConfig
from adabert_core.early_warnings import untimed_teacher
from adabert_core.export import FP32, export_student
from adabert_core.search_space import Genotype
from adabert_core.student_training import new_student
from adabert_core.teacher import new_teacher

LABELS = ["bad", "good"]


@pytest.fixture
def timed(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Returns the latency rows of a teacher of random weights and its student."""

    def rows(teacher: str, max_length: int = 32, **settings: Any) -> list[dict[str, Any]]:
        made = new_teacher(teacher, LABELS, False, max_length)
        student = new_student(Genotype(0, ()), made, LABELS, 8, dropout=0.0).eval()
        export_student(student, tmp_path / FP32)
        config = BenchmarkConfig(seconds=0.01, bert_base=False, device="cpu", **settings)
        return time_all(config, made, student, {"onnx": tmp_path / FP32})[0]

    return rows


def test_teacher_that_no_exporter_takes_has_torch_rows_only_and_a_warning_says_so(
    timed: Callable[..., list[dict[str, Any]]], family: Callable[[str], str]
) -> None:
    rows = timed(family("Longformer"), batches=[1], lengths=[32])
    assert [(row["model"], row["runtime"]) for row in rows] == [("student", "onnx"), ("student", "torch"), ("teacher", "torch")]
    assert untimed_teacher(rows).startswith("torch cannot write the teacher as ONNX")
    assert untimed_teacher([*rows, {"model": "teacher", "runtime": "onnx"}]) == ""
