import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from adabert_core.convolution import Convolution


def gradients(filters: Convolution, x: torch.Tensor, back: torch.Tensor, precision: torch.dtype) -> list[torch.Tensor]:
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        out = filters(leaf)
    found = torch.autograd.grad(out, [leaf, *filters.parameters()], back.to(out.dtype))
    return [out, *found]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "dilation", "filters", "bias", "length"), [(3, 1, 16, True, 9), (5, 2, 8, False, 9), (7, 1, 8, False, 2)]
)
def test_bf16_gives_the_gradients_of_float32(kernel, dilation, filters, bias, length, threads):
    torch.manual_seed(0)
    layer = Convolution(8, filters, kernel, dilation, bias)
    x, back = torch.randn(4, length, 8), torch.randn(4, length, filters)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        exact, rounded = gradients(layer, x, back, torch.float32), gradients(layer, x, back, torch.bfloat16)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert rounded[0].dtype == torch.bfloat16
    for a, b in zip(exact, rounded, strict=True):
        assert a.shape == b.shape
        assert (a - b.float()).abs().max() < 0.03 * a.abs().max()


def test_float32_is_torchs_own_convolution():
    torch.manual_seed(0)
    layer, x = Convolution(8, 4, 3), torch.randn(2, 5, 8)
    plain = F.conv1d(x.transpose(1, 2), layer.weight.squeeze(2), layer.bias, padding=1).transpose(1, 2)
    assert torch.allclose(layer(x), plain, atol=1e-6)


def test_weights_alone_can_be_trained():
    layer = Convolution(8, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(2, 5, 8)).sum().backward()  # the input needs no gradient
    assert layer.weight.grad is not None
    assert layer.weight.grad.shape == layer.weight.shape
