"""A convolution over positions whose training does not wait for a core that is busy with something else.

Comes in: x (B, L, C). Goes out: (B, L, filters). For the gradient of the weights in bf16 oneDNN has threads wait for each other
by spinning, many times a call: where one of two cores is busy, a student's step takes ten to fifty times as long (docs/LOG.md).
One thread takes hardly longer than two for it, and waits for nobody.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Convolution(nn.Conv2d):
    """Filters over `kernel` positions each, `dilation` apart, with "same" padding."""

    def __init__(self, channels: int, filters: int, kernel: int, dilation: int = 1, bias: bool = True) -> None:
        padding = (0, dilation * (kernel - 1) // 2)
        super().__init__(channels, filters, (1, kernel), padding=padding, dilation=(1, dilation), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, channels) -> (B, L, filters), in the precision that autocast computes in."""
        image = as_computed(x).transpose(1, 2).unsqueeze(2)  # (B, C, 1, L), channels last in memory
        if image.device.type == "cpu" and image.dtype == torch.bfloat16 and torch.is_grad_enabled():
            bias = None if self.bias is None else as_computed(self.bias)
            weight = self.weight.to(image.dtype, memory_format=torch.channels_last)  # else each kernel makes a copy of its own
            out = _Convolved.apply(image, weight, bias, self.padding, self.dilation)
        else:
            out = super().forward(image)
        return out.squeeze(2).transpose(1, 2)


class _Convolved(torch.autograd.Function):
    """`F.conv2d` whose weights get their gradient on one thread."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], dilation: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.padding, ctx.dilation, ctx.filters = padding, dilation, None if bias is None else [len(bias)]
        return F.conv2d(image, weight, bias, padding=padding, dilation=dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None, None]:
        image, weight = ctx.saved_tensors
        settings = (ctx.filters, [1, 1], ctx.padding, ctx.dilation, False, [0, 0], 1)

        def gradients(*wanted: bool) -> tuple[Tensor | None, Tensor, Tensor | None]:  # of the image, the weights, the bias
            return torch.ops.aten.convolution_backward(gradient, image, weight, *settings, wanted)

        if (threads := torch.get_num_threads()) == 1:
            return *gradients(ctx.needs_input_grad[0], True, ctx.filters is not None), None, None
        to_image, _, _ = gradients(ctx.needs_input_grad[0], False, False)
        torch.set_num_threads(1)
        try:
            _, to_weight, to_bias = gradients(False, True, ctx.filters is not None)
        finally:
            torch.set_num_threads(threads)
        return to_image, to_weight, to_bias, None, None


def as_computed(x: Tensor) -> Tensor:
    """Puts x into the precision that autocast computes in: cells cast nothing between their operations."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
