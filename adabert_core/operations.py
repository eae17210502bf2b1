"""The ten operations of the search space as modules over positions, C channels in and out, padding without influence.

Comes in: x (B, L, C), zero at pads, and `Positions`. Goes out: (B, L, C); what stands at pads is the caller's to mask.
The memory order (B, L, C) is "channels last" for the convolution kernels, which is what makes bf16 fast on CPUs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from adabert_core.convolution import Convolution
from adabert_core.search_space import PRIMITIVES, kernel_of

_fixed = False


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Inside, no shape and no decision depends on what a tensor holds, as CUDA graphs and exports need it."""
    global _fixed  # noqa: PLW0603 - the networks ask deep inside their layers
    before, _fixed = _fixed, True
    try:
        yield
    finally:
        _fixed = before


def shapes_fixed() -> bool:
    """Whether shapes may not depend on what tensors hold."""
    return _fixed or torch.compiler.is_exporting()


class Positions(NamedTuple):
    """Which positions are real. Where all are, nothing is held and nothing cleared."""

    mask: Tensor | None  # (B, L, 1), 1.0 at real positions; None where all are
    rows: Tensor | None  # the real ones in (B*L) order; found while training only, and not where shapes are fixed

    @classmethod
    def of(cls, mask: Tensor, training: bool) -> "Positions":
        """Positions of a 0/1 mask (B, L)."""
        if shapes_fixed():
            return cls(mask.unsqueeze(-1).float(), None)
        if bool(mask.all()):
            return cls(None, None)
        return cls(mask.unsqueeze(-1).float(), mask.reshape(-1).nonzero().squeeze(1) if training else None)

    def clear(self, x: Tensor) -> Tensor:
        """Zeros at the pads of x (B, L, C)."""
        return x if self.mask is None else x * self.mask.to(x.dtype)

    def mean(self, x: Tensor) -> Tensor:
        """Mean of x (B, L, C) over the real positions, (B, C) in float32."""
        return x.sum(1, dtype=torch.float32) / x.shape[1] if self.mask is None else masked_mean(x, self.mask)

    def maximum(self, x: Tensor) -> Tensor:
        """Maximum of x (B, L, C) over the real positions, (B, C) in float32; zero for a text without any."""
        if self.mask is None:  # by a pool, whose gradient takes half of amax's time
            return F.max_pool2d(x.transpose(1, 2).unsqueeze(2), (1, x.shape[1])).flatten(1).float()
        found = x.float().masked_fill(self.mask == 0, torch.finfo(torch.float32).min).amax(1)
        return found * self.mask.amax(1)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (B, L, C) over the positions where mask (B, L, 1) is 1, (B, C) in float32."""
    return (x.float() * mask).sum(1) / mask.sum(1).clamp(min=1)


class MaskedBatchNorm(nn.Module):
    """BatchNorm over channels whose statistics see real positions only (B, L, C) -> (B, L, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """Normalised x, anything at pads."""
        if self.training and positions.mask is not None and positions.rows is None:
            return self._by_sums(x, positions.mask)
        if positions.rows is None:
            return self.norm(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        flat = x.reshape(-1, x.shape[-1])
        real = flat.index_select(0, positions.rows)  # (n, C)
        real = self.norm(real.t().unsqueeze(0).unsqueeze(2)).squeeze(2).squeeze(0).t()
        return torch.zeros_like(flat, dtype=real.dtype).index_copy(0, positions.rows, real).view(x.shape)

    def _by_sums(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same without a list of real positions, whose length would depend on the mask: slower, but of fixed shapes."""
        norm, values, count = self.norm, x.float(), mask.sum()
        share = mask / count  # (B, L, 1)
        mean = (values * share).sum((0, 1))
        centred = values - mean
        variance = (centred.square() * share).sum((0, 1))
        seen = cast("tuple[Tensor, Tensor, Tensor]", (norm.running_mean, norm.running_var, norm.num_batches_tracked))
        momentum = cast("float", norm.momentum)
        with torch.no_grad():
            seen[0].lerp_(mean, momentum)
            seen[1].lerp_(variance * count / (count - 1), momentum)
            seen[2].add_(1)
        return torch.addcmul(norm.bias, centred, norm.weight * torch.rsqrt(variance + norm.eps)).to(x.dtype)


class ReluConvNorm(nn.Module):
    """ReLU-Conv-BatchNorm with "same" padding (AdaBERT section 3.1)."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = Convolution(channels, channels, kernel, dilation, bias=False)
        self.norm = MaskedBatchNorm(channels)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        return self.of_positive(F.relu(x), positions)

    def of_positive(self, x: Tensor, positions: Positions) -> Tensor:
        """The same of an x that went through the ReLU: operations on one state share it."""
        return self.norm(self.conv(x), positions)


class MaxPool(nn.Module):
    """Maximum over three neighbouring real positions."""

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        if positions.mask is None:
            return _window_max(x)
        pads = positions.mask == 0
        pooled = _window_max(x.masked_fill(pads, torch.finfo(x.dtype).min))
        return pooled.masked_fill(pads, 0.0)  # two minima would add up to -inf, which no mask takes back


class AvgPool(nn.Module):
    """Mean over those of three neighbouring positions that are real."""

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        real = torch.ones_like(x[:1, :, :1]) if positions.mask is None else positions.mask
        share = _window_mean(real).clamp(min=1 / 3)  # (B or 1, L, 1)
        return _window_mean(x) / share.to(x.dtype)


def _window_max(x: Tensor) -> Tensor:
    return F.max_pool2d(x.transpose(1, 2).unsqueeze(2), (1, 3), stride=1, padding=(0, 1)).squeeze(2).transpose(1, 2)


def _window_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x.transpose(1, 2).unsqueeze(2), (1, 3), stride=1, padding=(0, 1)).squeeze(2).transpose(1, 2)


class Identity(nn.Module):
    """Its input."""

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        return x


class Zero(nn.Module):
    """Nothing: an edge that is not there."""

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        return torch.zeros_like(x)


def make_operation(primitive: str, channels: int) -> nn.Module:
    """Returns a fresh module for one of PRIMITIVES."""
    if kernel := kernel_of(primitive):
        return ReluConvNorm(channels, kernel, 2 if primitive.startswith("dil") else 1)
    return _WITHOUT_WEIGHTS[primitive]()


_WITHOUT_WEIGHTS: dict[str, type[nn.Module]] = {
    "max_pool_3": MaxPool,
    "avg_pool_3": AvgPool,
    "identity": Identity,
    "zero": Zero,
}
assert set(_WITHOUT_WEIGHTS) == {name for name in PRIMITIVES if not kernel_of(name)}  # noqa: S101 - at import
