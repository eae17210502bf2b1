"""The gate between fp32 and int8, with literal scores and with a network whose calibration is broken."""

import numpy as np
import pytest
import torch
from test_export import EVERY_KIND, expected_logits, rows_of, student

from adabert_core import export
from adabert_core.export import export_int8, export_student, onnx_logits, open_session
from adabert_core.retrain import int8_gate
from adabert_core.tasks import CLASSIFICATION

LABELS = np.array([0, 1] * 500)


def answers(wrong):
    """Logits (1000, 2) that are right but for the first `wrong` rows."""
    given = np.where(np.arange(1000) < wrong, 1 - LABELS, LABELS)
    return np.eye(2, dtype=np.float32)[given]


@pytest.mark.parametrize(("wrong", "passed"), [(100, True), (103, True), (104, False), (90, True)])
def test_int8_may_lose_the_tolerance_and_no_more(wrong, passed):
    found = int8_gate(answers(100), answers(wrong), LABELS, CLASSIFICATION, tolerance=0.003 + 1e-9)
    assert found["passed"] is passed
    assert found["score_lost"] == pytest.approx((wrong - 100) / 1000)
    assert found["same_answer"] == pytest.approx(1 - abs(wrong - 100) / 1000)


def test_answers_that_are_no_numbers_never_pass():
    assert int8_gate(answers(0), answers(0) * np.nan, LABELS, CLASSIFICATION, tolerance=1.0)["passed"] is False


def test_broken_calibration_fails_the_gate(tmp_path, monkeypatch):
    model, rows = student(EVERY_KIND), rows_of(pair=False, count=200)
    with torch.no_grad():  # so that each class is answered
        model.network.classifier.bias -= torch.from_numpy(expected_logits(model, rows)).mean(0)
    export_student(model, tmp_path / "model.onnx")
    fp32 = onnx_logits(open_session(tmp_path / "model.onnx", 1), rows)
    labels = fp32.argmax(1)
    assert np.bincount(labels).min() > 20

    def gate():
        export_int8(model, tmp_path / "model_int8.onnx", rows, np.arange(40))
        return int8_gate(fp32, onnx_logits(open_session(tmp_path / "model_int8.onnx", 1), rows), labels, CLASSIFICATION, 0.05)

    assert gate()["passed"]
    measured = export.measured_ranges
    monkeypatch.setattr(export, "measured_ranges", lambda *given: {name: 1e3 * r for name, r in measured(*given).items()})
    assert not gate()["passed"]
