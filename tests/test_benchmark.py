"""What is timed, and what happens to a teacher that no ONNX exporter takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adabert_core.config import BenchmarkConfig
from adabert_core.early_warnings import untimed_teacher
from adabert_core.export import FP32, export_student
from adabert_core.latency import settings_to_time
from adabert_core.report import headline_latency
from adabert_core.search_space import Genotype
from adabert_core.student_training import new_student
from adabert_core.teacher import new_teacher
from adabert_core.timing import time_all

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


def test_one_text_of_128_tokens_on_one_thread_is_timed_besides_what_is_asked(
    timed: Callable[..., list[dict[str, Any]]], bert_folder: Path
) -> None:
    before = torch.get_num_threads()
    rows = timed(str(bert_folder), batches=[8], lengths=[16], threads=2)  # the teacher reads 32
    models = [("student", "onnx"), ("teacher", "onnx"), ("student", "torch"), ("teacher", "torch")]
    found = [(row["threads"], row["batch"], row["length"], row["model"], row["runtime"]) for row in rows]
    assert found == [(*setting, *model) for setting in ((2, 8, 16), (1, 1, 32)) for model in models]
    row = headline_latency({"latency": rows})
    assert (row["threads"], row["batch"], row["length"]) == (1, 1, 32)
    assert "speedup_vs_teacher" in row
    assert torch.get_num_threads() == before


def test_nothing_is_timed_twice_and_lengths_end_where_the_teacher_does() -> None:
    assert settings_to_time(1, [1, 32], [32, 128], 128) == {1: [(1, 32), (1, 128), (32, 32), (32, 128)]}
    assert settings_to_time(1, [1], [64, 512], 256) == {1: [(1, 64), (1, 256), (1, 128)]}
    assert settings_to_time(4, [1], [128], 64) == {4: [(1, 64)], 1: [(1, 64)]}
