"""Dropout that costs little on a CPU: one random number serves four elements.

Comes in: a model. Goes out: the same with other dropout layers. torch draws a number per element, one after the other: a
twelfth of a small teacher's step on a CPU without bf16 (docs/LOG.md).
"""

import torch
from torch import Tensor, nn

_CHANCES = 2**16  # a 64-bit draw holds four numbers of 16 bits


class Dropout(nn.Dropout):
    """nn.Dropout whose probability is rounded to a 65,536th while it trains on a CPU; elsewhere the same."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in and out: elements are zero with probability p, the others divided by 1 - p."""
        if not self.training or not 0 < self.p < 1 or x.device.type != "cpu":
            return super().forward(x)
        return drop(x, self.p)


def drop(x: Tensor, p: float) -> Tensor:
    """Any shape in and out: elements are zero with probability p in (0, 1), the others divided by 1 - p."""
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= round(p * _CHANCES) - _CHANCES // 2
    return x * kept.to(x.dtype).mul_(1 / (1 - p))


def replace_dropout(model: nn.Module) -> None:
    """Puts a `Dropout` in the place of every nn.Dropout inside of the model."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p, child.inplace))
