"""What the tasks say, against values worked out by hand; classification's own losses and metrics have tests of their own."""

import math

import numpy as np
import pytest
import torch

from adabert_core.evaluate import number_scores, set_scores
from adabert_core.losses import (
    label_binary_cross_entropy,
    label_cross_entropy,
    label_squared_error,
    layer_binary_cross_entropies,
    soft_binary_cross_entropy,
)
from adabert_core.report_html import confusions
from adabert_core.tasks import CLASSIFICATION, Classification, MultiLabel, Regression, described, task_of
from adabert_core.tasks.classification import MATRIX_CLASSES

NUMBERS = Regression(["stars"], "pearson", mean=10.0, std=2.0)
SETS = MultiLabel(["a", "b"], "micro_f1")
LN3 = math.log(3)


def test_class_weights_multiply_rows_and_leave_unknown_ones_out():
    logits = torch.tensor([[LN3, 0.0], [LN3, 0.0], [9.0, -9.0]])  # 3/4 and 1/4
    labels = torch.tensor([0, 1, -1])
    expected = -(2.0 * math.log(3 / 4) + 0.5 * math.log(1 / 4)) / 2
    assert float(Classification(class_weights=[2.0, 0.5]).hard_loss(logits, labels)) == pytest.approx(expected)
    assert torch.equal(CLASSIFICATION.hard_loss(logits, labels), label_cross_entropy(logits, labels))


def test_loss_without_weights_is_torchs_to_the_bit():
    logits, labels = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 5
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    first, second = label_cross_entropy(ours, labels), torch.nn.functional.cross_entropy(theirs, labels)
    first.backward()
    second.backward()
    assert torch.equal(first, second)
    assert torch.equal(ours.grad, theirs.grad)


def test_label_sets_cost_the_mean_of_yes_and_no_over_known_rows():
    logits = torch.tensor([[LN3, 0.0], [5.0, 5.0]])  # yes with 3/4 and 1/2
    labels = torch.tensor([[1, 0], [-1, -1]], dtype=torch.int8)
    assert float(label_binary_cross_entropy(logits, labels)) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 2)) / 2)
    weighted = label_binary_cross_entropy(logits, labels, torch.tensor([4.0, 7.0]))  # the 7 is of a label that is not there
    assert float(weighted) == pytest.approx(-(4 * math.log(3 / 4) + math.log(1 / 2)) / 2)
    assert float(label_binary_cross_entropy(logits[1:], labels[1:])) == 0


def test_label_sets_are_distilled_at_temperature():
    teacher, student = torch.tensor([[2 * LN3]]), torch.tensor([[-2 * LN3]])  # at T = 2 yes with 3/4 and 1/4
    expected = -(0.75 * math.log(1 / 4) + 0.25 * math.log(3 / 4))
    assert float(soft_binary_cross_entropy(student, teacher, 2.0)) == pytest.approx(expected * 4)
    layers = layer_binary_cross_entropies(student[None], teacher[:, None] / 2, 2.0)  # the teacher at 1, the student at 2
    assert layers.tolist() == [[pytest.approx(expected)]]


def test_every_student_layer_meets_every_teacher_layer():
    student = torch.tensor([[[0.0], [1.0]], [[2.0], [2.0]]])  # layers, rows, 1
    teacher = torch.tensor([[[10.0], [12.0], [14.0]], [[10.0], [14.0], [10.0]]])  # rows, layers, 1: 0 1 2 and 0 2 0 deviations
    expected = [[(0 + 1) / 2, (1 + 1) / 2, (4 + 1) / 2], [(4 + 4) / 2, (1 + 0) / 2, (0 + 4) / 2]]
    assert NUMBERS.layer_losses(student, teacher, 3.0).tolist() == expected
    student, teacher = torch.zeros(3, 4, 2), torch.zeros(4, 5, 2)
    assert SETS.layer_losses(student, teacher, 1.0).flatten().tolist() == [pytest.approx(math.log(2))] * 15


def test_numbers_are_learnt_in_standard_deviations():
    student = torch.tensor([[1.0], [0.0], [7.0]])
    assert float(NUMBERS.hard_loss(student, torch.tensor([14.0, 10.0, math.nan]))) == pytest.approx((1 + 0) / 2)
    assert float(label_squared_error(student, torch.full((3,), math.nan))) == 0
    assert float(NUMBERS.soft_loss(student, torch.tensor([[14.0], [10.0], [24.0]]), 1.0)) == pytest.approx(1 / 3)


def test_folded_layer_answers_in_the_users_units():
    layer, states = torch.nn.Linear(3, 1), torch.randn(5, 3)
    weight, bias = NUMBERS.fold(layer.weight, layer.bias)
    torch.testing.assert_close(torch.nn.functional.linear(states, weight, bias), layer(states) * 2 + 10)
    assert SETS.fold(layer.weight, layer.bias) == (layer.weight, layer.bias)


def test_likelihoods_weigh_layers():
    probes, labels = np.array([[[10.0], [12.0]], [[12.0], [14.0]]], np.float32), np.array([10.0, 10.0], np.float32)
    first, second = (-0.5 * (math.log(2 * math.pi * v) + 1) for v in (0.5, 2.5))  # errors 0 1 and 1 2 deviations
    assert NUMBERS.log_likelihoods(probes, labels).tolist() == [pytest.approx(first), pytest.approx(second)]
    probes = np.array([[[LN3, 0.0], [0.0, LN3]]], np.float32)  # one row, two layers
    found = SETS.log_likelihoods(probes, np.array([[1, 0]], np.int8))
    assert found.tolist() == [pytest.approx(math.log(3 / 8) / 2), pytest.approx(math.log(1 / 8) / 2)]


def test_number_scores():
    found = number_scores(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 40.0]), "spearman")
    assert found["spearman"] == found["score"] == pytest.approx(0.8)
    assert found["mse"] == pytest.approx((0 + 1 + 1 + 36**2) / 4)
    assert found["r2"] == pytest.approx(1 - found["mse"] / 1.25)
    assert number_scores(np.array([1.0, 3.0]), np.array([2.0, 6.0]), "pearson")["score"] == pytest.approx(1)
    constant = number_scores(np.array([1.0, 3.0]), np.array([2.0, 2.0]), "pearson")
    assert (constant["score"], constant["r2"]) == (0, 0)


def test_set_scores():
    labels, given = np.array([[1, 0], [1, 1], [0, 1], [0, 0]]), np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    found = set_scores(labels, given, "macro_f1")
    assert found["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert found["score"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["exact"] == 0.5


def test_threshold_of_a_label_is_where_its_f1_is_best():
    def logit(p):
        return math.log(p / (1 - p))

    chances = [[0.9, 0.9], [0.3, 0.8], [0.2, 0.6], [0.1, 0.1]]
    logits = np.array([[logit(p) for p in row] for row in chances])
    labels = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], np.int8)
    thresholds = SETS.thresholds(labels, logits)
    assert thresholds == [pytest.approx(0.25), 0.5]  # nothing is known of the second
    assert SETS.predictions(logits, thresholds).tolist() == [[1, 1], [1, 1], [0, 1], [0, 0]]
    assert SETS.predictions(logits).tolist() == [[1, 1], [0, 1], [0, 1], [0, 0]]
    near = logits + [[0.01], [0.0], [0.0], [0.0]]
    assert SETS.same(logits, near, 0.0, thresholds).all()
    turned = logits * [[-1], [1], [1], [1]]
    assert SETS.same(logits, turned, 0.0, thresholds).tolist() == [False, True, True, True]
    tied = np.array([[logit(0.2501), 0.5]])
    assert SETS.same(tied, np.array([[logit(0.2499), 0.5]]), 0.01, thresholds).tolist() == [True]


def test_numbers_are_the_same_within_a_tenth_of_a_deviation():
    assert NUMBERS.same(np.array([[10.0], [10.0]]), np.array([[10.19], [10.21]]), 0.0).tolist() == [True, False]


def test_errors_are_those_of_the_student_alone_the_worst_with_the_greatest_severity():
    labels = np.array([10.0, 10.0, 10.0])
    wrong, off = NUMBERS.errors(labels, np.array([10.0, 14.0, 10.0]), np.array([10.9, 14.0, 13.0]), np.zeros((3, 1)))
    assert (wrong.tolist(), off.tolist()) == ([False, False, True], [pytest.approx(0.9), 4, 3])
    sets = np.array([[1, 0], [0, 0]])
    wrong, count = SETS.errors(sets, sets, np.array([[0, 1], [0, 0]]), np.zeros((2, 2)))
    assert (wrong.tolist(), count.tolist()) == ([True, False], [2, 0])
    assert [SETS.words(row) for row in ([1, 1], [0, 0])] == ["a, b", "nothing"]
    assert NUMBERS.words(3.14159) == "3.142"


def test_joined_texts_are_of_a_kind():
    assert NUMBERS.groups(np.arange(100.0)).tolist() == [i // 10 for i in range(100)]
    groups = SETS.groups(np.array([[1, 0], [0, 0], [1, 0], [1, 1]]))
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 3


@pytest.mark.parametrize("task", [Classification(["x", "y"], "f1", [0.5, 2.0]), NUMBERS, SETS])
def test_description_tells_the_whole_task(task):
    assert task_of(described(task)) == task


def test_plain_classification_needs_no_word():
    assert described(Classification(["x", "y"], "f1")) == {"labels": ["x", "y"], "metric": "f1"}


def test_useless_teachers_are_told_by_their_own_metric():
    assert NUMBERS.useless({"r2": -0.1}, np.zeros(3)) == "always answering the mean"
    assert NUMBERS.useless({"r2": 0.1}, np.zeros(3)) == ""
    labels = np.array([[1, 0], [0, 1]])
    assert SETS.useless({"micro_f1": 2 / 3}, labels).startswith("always answering all labels (micro F1 0.667)")
    assert SETS.useless({"micro_f1": 0.7}, labels) == ""


def test_answers_of_another_task_are_not_read():
    classes = Classification(["x", "y"])
    assert classes.read({"label": ["y", "x"]}).tolist() == [1, 0]
    assert classes.read({"label": ["z"]}) is None
    assert classes.read({"value": [1.0]}) is None
    assert NUMBERS.read({"label": ["x"]}) is None
    assert SETS.read({"labels": ['["b"]', "[]"]}).tolist() == [[0, 1], [0, 0]]
    assert SETS.read({"labels": ['["c"]']}) is None
    assert SETS.read({"value": [1.0]}) is None


def page(task, teacher, student):
    found = confusions(list(task.labels), {"teacher": teacher, "student": student})["largest"]
    return [(line["true"], line["answer"], line["teacher"], line["student"]) for line in found]


def test_confusions_of_many_classes_are_only_those_that_occur():
    many = Classification([str(i) for i in range(MATRIX_CLASSES + 1)])
    assert many.confusion(np.array([0, 0, 7]), np.array([3, 3, 7])) == [[0, 3, 2], [7, 7, 1]]
    assert page(many, [[0, 3, 2], [7, 7, 1], [9, 1, 5]], [[0, 3, 1], [7, 7, 1]]) == [("9", "1", 5, 0), ("0", "3", 2, 1)]
    assert Classification(["x", "y"]).confusion(np.array([0, 0, 1]), np.array([1, 1, 1])) == [[0, 2], [0, 1]]
