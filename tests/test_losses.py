"""Expectations are worked out with plain logarithms; logits are logarithms of the probabilities beside them."""

import math

import pytest
import torch

from adabert_core.losses import (
    efficiency,
    label_cross_entropy,
    layer_cross_entropies,
    layer_weights,
    mix_over_depths,
    probe_distillation,
    soft_cross_entropy,
)

LN2, LN3 = math.log(2), math.log(3)


def logits(*probabilities):
    """Logits of given probabilities; a constant is added, which no loss may see."""
    return torch.tensor(probabilities).log() + 0.7


def test_soft_cross_entropy_of_three_classes_at_temperature_two():
    # at T = 2 probabilities (16, 4, 4) / 24 become roots (4, 2, 2) / 8, and (1, 9, 1) / 11 become (1, 3, 1) / 5
    teacher, student = logits([16 / 24, 4 / 24, 4 / 24]), logits([1 / 11, 9 / 11, 1 / 11])
    expected = -(0.5 * math.log(1 / 5) + 0.25 * math.log(3 / 5) + 0.25 * math.log(1 / 5)) * 4
    assert float(soft_cross_entropy(student, teacher, 2.0)) == pytest.approx(expected)
    at_one = -(16 * math.log(1 / 11) + 4 * math.log(9 / 11) + 4 * math.log(1 / 11)) / 24
    assert float(soft_cross_entropy(student, teacher, 1.0)) == pytest.approx(at_one)


def test_soft_cross_entropy_is_a_mean_over_rows():
    teacher = logits([0.5, 0.5], [0.25, 0.75])
    student = logits([0.5, 0.5], [0.5, 0.5])
    assert float(soft_cross_entropy(student, teacher, 1.0)) == pytest.approx(LN2)
    student = logits([0.5, 0.5], [0.25, 0.75])
    expected = (LN2 - 0.25 * math.log(0.25) - 0.75 * math.log(0.75)) / 2
    assert float(soft_cross_entropy(student, teacher, 1.0)) == pytest.approx(expected)


def test_layer_cross_entropies_pair_every_student_with_every_teacher_layer():
    student = torch.stack(
        [logits([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]), logits([0.25, 0.25, 0.5], [1 / 3, 1 / 3, 1 / 3])]
    )  # (2, 2, 3)
    teacher = torch.stack(  # rows, layers, classes
        [
            logits([1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25], [0.8, 0.1, 0.1]),
            logits([1 / 3, 1 / 3, 1 / 3], [0.25, 0.25, 0.5], [0.1, 0.8, 0.1]),
        ]
    )
    found = layer_cross_entropies(student, teacher, 1.0)
    # -log of the student's probabilities, in units of ln 2: (1, 2, 2), (2, 1, 2) for m = 0 and (2, 2, 1), (a, a, a) for m = 1
    a = LN3 / LN2
    expected = [
        [5 / 3, (1.5 + 1.75) / 2, (0.8 + 0.2 + 0.2 + 0.2 + 0.8 + 0.2) / 2],
        [(5 / 3 + a) / 2, (1.75 + a) / 2, (1.6 + 0.2 + 0.1 + a) / 2],
    ]
    torch.testing.assert_close(found, torch.tensor(expected) * LN2)


def test_layer_cross_entropies_take_only_the_student_at_temperature():
    student, teacher = logits([[1 / 11, 9 / 11, 1 / 11]]), logits([[16 / 24, 4 / 24, 4 / 24]])
    expected = -(16 * math.log(1 / 5) + 4 * math.log(3 / 5) + 4 * math.log(1 / 5)) / 24
    assert float(layer_cross_entropies(student, teacher, 2.0)) == pytest.approx(expected)


def test_layer_weights_follow_the_matched_probes():
    likelihoods = torch.tensor([math.log(0.2), math.log(0.9), math.log(0.3), math.log(0.5), math.log(0.1)])  # J = 4
    # depth 2 meets teacher layers 0, 2, 4; depth 3 meets 0, ceil(4/3) = 2, ceil(8/3) = 3, 4; depth 1 meets 0, 4
    assert layer_weights(likelihoods, 1).tolist() == pytest.approx([0.2 / 0.3, 0.1 / 0.3])
    assert layer_weights(likelihoods, 2).tolist() == pytest.approx([0.2 / 0.6, 0.3 / 0.6, 0.1 / 0.6])
    assert layer_weights(likelihoods, 3).tolist() == pytest.approx([0.2 / 1.1, 0.3 / 1.1, 0.5 / 1.1, 0.1 / 1.1])


def test_probe_distillation_weighs_the_matched_pairs():
    matrix = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0], [512.0, 1024.0, 2048.0]])  # m 0..3, J = 2
    likelihoods = torch.tensor([math.log(0.1), math.log(0.2), math.log(0.7)])
    # depth 1: (0, 0), (1, 2) with weights 0.1 : 0.7; depth 2: (0, 0), (1, 1), (2, 2); depth 3: (0, 0), (1, 1), (2, 2), (3, 2)
    assert float(probe_distillation(matrix, likelihoods, 1)) == pytest.approx((0.1 * 1 + 0.7 * 32) / 0.8)
    assert float(probe_distillation(matrix, likelihoods, 2)) == pytest.approx(0.1 * 1 + 0.2 * 16 + 0.7 * 256)
    assert float(probe_distillation(matrix, likelihoods, 3)) == pytest.approx((0.1 + 0.2 * 16 + 0.7 * 256 + 0.7 * 2048) / 1.7)


def test_label_cross_entropy_leaves_out_rows_without_a_label():
    given = logits([0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.25, 0.25, 0.5])
    assert float(label_cross_entropy(given, torch.tensor([0, -1, 1]))) == pytest.approx((LN2 + 2 * LN2) / 2)
    assert float(label_cross_entropy(given, torch.tensor([-1, -1, -1]))) == 0.0


def test_label_cross_entropy_gives_no_gradient_to_rows_without_a_label():
    given = torch.zeros(2, 3, requires_grad=True)
    label_cross_entropy(given, torch.tensor([-1, 2])).backward()
    assert given.grad[0].tolist() == [0.0, 0.0, 0.0]
    assert given.grad[1].tolist() == pytest.approx([1 / 3, 1 / 3, -2 / 3])


def test_efficiency_is_depth_share_times_mean_cost():
    edges = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5]])
    costs = torch.tensor([1.0, 0.5, 0.0])
    assert float(efficiency(edges, torch.tensor([0.0, 1.0, 0.0, 0.0]), costs)) == pytest.approx(2 / 4 * (1 + 0.5 + 0 + 0.5) / 4)
    assert float(efficiency(edges, torch.tensor([0.5, 0.0, 0.0, 0.5]), costs)) == pytest.approx(2.5 / 4 * 0.5)
    assert float(efficiency(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.0, 0.0, 0.0, 1.0]), costs)) == 1.0


def test_efficiency_pulls_at_operations_and_at_depth():
    edges, depths = torch.tensor([[0.0, 1.0], [1.0, 0.0]], requires_grad=True), torch.tensor([0.0, 1.0], requires_grad=True)
    efficiency(edges, depths, torch.tensor([0.8, 0.2])).backward()
    assert edges.grad.flatten().tolist() == pytest.approx([0.4, 0.1, 0.4, 0.1])
    assert depths.grad.tolist() == pytest.approx([0.25, 0.5])


def test_mix_over_depths_is_the_loss_at_the_drawn_depth():
    losses = torch.tensor([5.0, 3.0, 4.0], requires_grad=True)
    gate = torch.tensor([0.0, 0.0, 1.0, 0.0], requires_grad=True)
    mixed = mix_over_depths(losses, gate)
    mixed.backward()
    assert mixed.item() == 4.0
    assert losses.grad.tolist() == [0.0, 0.0, 1.0]
    assert gate.grad.tolist() == [1.0, -1.0, 0.0, 0.0]  # worse, better, the same, not computed
