"""Straight-through Gumbel sampling of operations and depth (AdaBERT section 3.3)."""

import torch
from torch import Tensor


def sample(logits: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """Logits (..., n) -> one-hot draws (..., n) whose gradient is that of softmax((log p + g) / tau).

    The noise is drawn on the CPU by `generator`, so that one seed gives one sequence of draws on every device.
    """
    uniform = torch.rand(logits.shape, generator=generator).clamp(min=1e-20)
    noise = -torch.log(-torch.log(uniform)).to(logits.device)
    soft = torch.softmax((torch.log_softmax(logits, dim=-1) + noise) / tau, dim=-1)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), logits.shape[-1]).to(soft.dtype)
    return hard - soft.detach() + soft


def anneal(step: int, total_steps: int, start: float, end: float) -> float:
    """Tau at a step: falls geometrically from `start` to `end` over the first 80 % of the search, then stays."""
    progress = min(step / max(0.8 * total_steps, 1), 1.0)
    return start * (end / start) ** progress
