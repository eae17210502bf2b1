from contextlib import nullcontext

import pytest
import torch
from torch import nn

from adabert_core.operations import AvgPool, MaskedBatchNorm, MaxPool, Positions, ReluConvNorm, fixed_shapes, make_operation
from adabert_core.search_space import PRIMITIVES

CONVOLUTIONS = tuple(name for name in PRIMITIVES if "conv" in name)


def line(*values):
    """(1, L, 1)"""
    return torch.tensor(values).reshape(1, -1, 1)


def everywhere(length, batch=1):
    return Positions.of(torch.ones(batch, length), training=False)


def real(*mask):
    return Positions.of(torch.tensor([mask]), training=False)


def quiet(operation):
    """Evaluation mode with a BatchNorm that changes nothing."""
    operation.eval()
    operation.norm.norm.running_var.fill_(1 - operation.norm.norm.eps)
    return operation


@pytest.mark.parametrize(
    ("primitive", "expected"),
    [
        ("conv_3", [10.0, 301.0, 430.0, 43.0]),
        ("dil_conv_3", [310.0, 400.0, 31.0, 40.0]),
    ],
)
@torch.no_grad()
def test_convolution_of_three_taps(primitive, expected):
    operation = quiet(make_operation(primitive, 1))
    operation.conv.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).reshape(1, 1, 1, 3))
    out = operation(line(1.0, -2.0, 3.0, 4.0), everywhere(4))  # ReLU makes the -2 a 0
    torch.testing.assert_close(out, line(*expected))


@pytest.mark.parametrize(
    ("primitive", "offsets"),
    [
        ("conv_3", [-1, 0, 1]),
        ("conv_5", [-2, -1, 0, 1, 2]),
        ("conv_7", [-3, -2, -1, 0, 1, 2, 3]),
        ("dil_conv_3", [-2, 0, 2]),
        ("dil_conv_5", [-4, -2, 0, 2, 4]),
        ("dil_conv_7", [-6, -4, -2, 0, 2, 4, 6]),
    ],
)
@torch.no_grad()
def test_convolution_reaches_its_positions_and_no_others(primitive, offsets):
    operation = quiet(make_operation(primitive, 1))
    operation.conv.weight.fill_(1.0)
    impulse = torch.zeros(1, 21, 1)
    impulse[0, 10] = 1.0
    out = operation(impulse, everywhere(21))
    assert (out[0, :, 0].nonzero().squeeze(1) - 10).tolist() == offsets


@torch.no_grad()
def test_convolution_mixes_channels_and_normalises_each():
    operation = make_operation("conv_3", 2).eval()
    operation.conv.weight.zero_()
    operation.conv.weight[0, 1, 0, 1] = 2.0  # out channel 0 = 2 x in channel 1
    operation.conv.weight[1, 0, 0, 0] = 3.0  # out channel 1 = 3 x in channel 0 one position back
    norm = operation.norm.norm
    norm.running_mean.copy_(torch.tensor([1.0, 0.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0]) - norm.eps)
    norm.weight.copy_(torch.tensor([10.0, 1.0]))
    norm.bias.copy_(torch.tensor([0.0, 5.0]))
    out = operation(torch.tensor([[[1.0, 2.0], [-3.0, 4.0]]]), everywhere(2))
    # channel 0: (2 * 2 - 1) / 2 * 10 and (2 * 4 - 1) / 2 * 10; channel 1: 0 / 3 + 5 and 3 * 1 / 3 + 5
    torch.testing.assert_close(out, torch.tensor([[[15.0, 5.0], [35.0, 6.0]]]))


@pytest.mark.parametrize("shapes", [nullcontext, fixed_shapes])
def test_batch_norm_sees_real_positions_only(shapes):
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 + 2
    ours, plain = MaskedBatchNorm(4).train(), nn.BatchNorm1d(4).train()
    with shapes():
        out = ours(x, Positions.of(mask, training=True))
    torch.testing.assert_close(out[mask == 1], plain(x[mask == 1]))
    torch.testing.assert_close(ours.norm.running_mean, plain.running_mean)
    torch.testing.assert_close(ours.norm.running_var, plain.running_var)


def test_batch_norm_without_pads_and_in_evaluation_is_the_plain_one():
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    ours, plain = MaskedBatchNorm(4), nn.BatchNorm1d(4)
    torch.testing.assert_close(ours(x, Positions.of(torch.ones(3, 5), training=True)).reshape(15, 4), plain(x.reshape(15, 4)))
    ours.eval()
    plain.eval()
    torch.testing.assert_close(ours(x, everywhere(5, batch=3)).reshape(15, 4), plain(x.reshape(15, 4)))


def test_max_pool_takes_no_pad_for_a_zero():
    out = MaxPool()(line(-1.0, -5.0, -7.0, -2.0, 0.0, 0.0), real(1, 1, 1, 1, 0, 0))
    assert out.flatten().tolist() == [-1.0, -1.0, -2.0, -2.0, 0.0, 0.0]


def test_max_pools_of_pads_add_up_to_a_number():
    positions = real(1, 0, 0, 0)
    pooled = MaxPool()(line(-1.0, 0.0, 0.0, 0.0), positions)
    assert ((pooled + pooled) * positions.mask).flatten().tolist() == [-2.0, 0.0, 0.0, 0.0]


def test_avg_pool_divides_by_the_real_positions():
    out = AvgPool()(line(3.0, 6.0, 12.0, 0.0, 0.0), real(1, 1, 1, 0, 0))
    assert out[0, :3, 0].tolist() == pytest.approx([4.5, 7.0, 9.0])
    assert AvgPool()(line(3.0, 6.0, 12.0), everywhere(3)).flatten().tolist() == pytest.approx([4.5, 7.0, 9.0])


def test_identity_and_zero():
    x = line(1.0, -2.0)
    assert torch.equal(make_operation("identity", 1)(x, everywhere(2)), x)
    assert torch.equal(make_operation("zero", 1)(x, everywhere(2)), torch.zeros(1, 2, 1))


def test_every_primitive_keeps_the_shape():
    x = torch.randn(2, 9, 6)
    for name in PRIMITIVES:
        assert make_operation(name, 6)(x, everywhere(9, batch=2)).shape == (2, 9, 6)


@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("training", [False, True])
def test_pads_change_no_real_position(primitive, training):
    torch.manual_seed(0)
    operation = make_operation(primitive, 3).train(training)
    if isinstance(operation, ReluConvNorm):
        nn.init.normal_(operation.norm.norm.bias)
        nn.init.normal_(operation.norm.norm.running_mean)
    x = torch.randn(1, 4, 3)
    padded = torch.cat([x, torch.zeros(1, 8, 3)], dim=1)
    mask = torch.tensor([[1] * 4 + [0] * 8])
    alone = operation(x, Positions.of(mask[:, :4], training))
    torch.testing.assert_close(operation(padded, Positions.of(mask, training))[:, :4], alone)


def test_the_six_convolutions_are_the_ones_with_weights():
    assert len(CONVOLUTIONS) == 6
    assert [name for name in PRIMITIVES if list(make_operation(name, 2).parameters())] == list(CONVOLUTIONS)
