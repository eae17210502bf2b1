"""Dropout that costs little on a CPU. Comes in: a model. Goes out: the same model, its dropout layers drawing four chances at once.

torch draws one random number per element there, one after the other: in a small teacher's step that is a twelfth of the time
on a CPU without bf16 and a larger part with it (docs/LOG.md).
"""

import torch
from torch import Tensor, nn

_CHANCES = 2**16  # a 64-bit draw holds four numbers of 16 bits


class Dropout(nn.Dropout):
    """nn.Dropout whose probability is rounded to a 65,536th while it trains on a CPU; elsewhere the same."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; elements are zero with probability p, the others divided by 1 - p."""
        if not self.training or not 0 < self.p < 1 or x.device.type != "cpu":
            return super().forward(x)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= round(self.p * _CHANCES) - _CHANCES // 2
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))


def with_cheap_dropout(model: nn.Module) -> nn.Module:
    """Replaces every nn.Dropout inside of the model, and returns it."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p, child.inplace))
    return model
