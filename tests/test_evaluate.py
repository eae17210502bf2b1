import math

import numpy as np
import pytest
import torch

from adabert_core.evaluate import Best, predict_logits, scores
from adabert_core.runtime import make_accelerator
from adabert_core.tokens import Collator, Ragged, Template, TokenRows


def test_scores_of_two_classes():
    labels, predictions = np.array([1, 1, 1, 1, 0, 0]), np.array([1, 1, 1, 0, 1, 0])
    found = scores(labels, predictions, "f1")
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["f1"] == pytest.approx(3 / 4)
    assert found["macro_f1"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["matthews"] == pytest.approx((3 * 1 - 1 * 1) / math.sqrt(4 * 4 * 2 * 2))
    assert found["score"] == found["f1"]


def test_scores_of_three_classes_have_no_f1_of_class_one():
    labels, predictions = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 2])
    found = scores(labels, predictions, "macro_f1")
    assert "f1" not in found
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((1 + 0 + 0.8) / 3)
    assert found["score"] == found["macro_f1"]


def test_rows_without_the_last_class_are_scored_where_it_is_predicted():
    found = scores(np.array([0, 1, 1]), np.array([0, 2, 1]), "accuracy")
    assert "f1" not in found
    assert found["score"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "matthews", "f1"])
def test_one_answer_for_all_is_scored_without_a_warning(metric, recwarn):
    found = scores(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0]), metric)
    expected = {"accuracy": 0.5, "macro_f1": 1 / 3, "matthews": 0.0, "f1": 0.0}
    assert found["score"] == pytest.approx(expected[metric])
    assert not recwarn.list


def test_logits_come_in_the_order_of_the_rows():
    texts = [[5] * 9, [1], [3] * 4, [2, 2], [7] * 9, [4]]
    rows = Collator(TokenRows(Ragged.of(texts), None), Template((), (), (), 0, False))
    widths = []

    def forward(batch):
        widths.append(batch["input_ids"].shape[1])
        total = (batch["input_ids"] * batch["attention_mask"]).sum(1)
        return torch.stack([total, -total], dim=1)

    found = predict_logits(forward, rows, make_accelerator("cpu", "fp32"), batch_size=2)
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == [45.0, 1.0, 12.0, 4.0, 63.0, 4.0]
    assert found[:, 1].tolist() == [-45.0, -1.0, -12.0, -4.0, -63.0, -4.0]
    assert widths == [1, 4, 9]  # rows of similar length together


def test_no_rows_are_an_error():
    rows = Collator(TokenRows(Ragged.of([]), None), Template((), (), (), 0, False))
    with pytest.raises(ValueError, match="no rows"):
        predict_logits(lambda batch: batch["input_ids"], rows, make_accelerator("cpu", "fp32"))


def test_best_keeps_a_copy_of_the_highest_and_the_first_of_equals():
    best, weight = Best(), torch.tensor([1.0])
    for step, score in enumerate([0.5, 0.8, 0.8, 0.6]):
        weight.fill_(step)
        best.offer(score, step, {"w": weight})
    assert (best.score, best.step, best.weights["w"].item()) == (0.8, 1, 1.0)


def test_best_survives_a_checkpoint():
    best, other = Best(), Best()
    best.offer(0.7, 3, {"w": torch.tensor([2.0])})
    other.load_state_dict(best.state_dict())
    other.offer(0.6, 4, {"w": torch.tensor([9.0])})
    assert (other.score, other.step, other.weights["w"].item()) == (0.7, 3, 2.0)
