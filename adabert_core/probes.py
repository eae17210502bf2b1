"""Linear probes, one per teacher layer (AdaBERT section 3.2, task-oriented distillation): softmax ones for classes.

Comes in: pooled hidden states of the frozen teacher. Goes out: weights that are constants from then on.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adabert_core.losses import label_cross_entropy


@dataclasses.dataclass(frozen=True)
class Probes:
    """All layers' probes: logits_j = h_j W_j + b_j."""

    weight: Tensor  # (J + 1, H, classes)
    bias: Tensor  # (J + 1, classes)

    def __call__(self, states: Tensor) -> Tensor:
        """Pooled states (B, J + 1, H) -> logits (B, J + 1, classes)."""
        return torch.einsum("bjh,jhc->bjc", states.float(), self.weight) + self.bias


def pool_states(hidden_states: tuple[Tensor, ...], mask: Tensor, pooling: str) -> Tensor:
    """Hidden states of layers 0..J, each (B, L, H) -> (B, J + 1, H).

    Layer 0 is the masked mean of the embeddings; the others give their first position ('cls') or their masked mean.
    """
    weights = mask.unsqueeze(-1).float() / mask.sum(1).clamp(min=1)[:, None, None]
    means = [(h.float() * weights).sum(1) for h in (hidden_states if pooling == "mean" else hidden_states[:1])]
    firsts = [] if pooling == "mean" else [h[:, 0].float() for h in hidden_states[1:]]
    return torch.stack([*means, *firsts], dim=1)


def fit_probes(
    states: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    epochs: int,
    batch_size: int = 512,
    generator: torch.Generator,
    loss: Callable[[Tensor, Tensor], Tensor] = label_cross_entropy,
    device: torch.device | str = "cpu",
) -> Probes:
    """Returns probes fitted by Adam on all layers at once, with standardised inputs folded into the weights.

    Args:
        states: (rows, J + 1, H) pooled states, possibly memory-mapped.
        labels: (rows,) classes, or whatever else the loss compares with.
        classes: number of outputs.
        epochs: passes over the rows.
        batch_size: rows a step.
        generator: draws the order of the rows.
        loss: of outputs (n, classes) and labels (n, ...), a mean over n.
        device: where they are fitted; what is returned is on the CPU.
    """
    rows, layers, width = states.shape
    sample = torch.from_numpy(np.asarray(states[:: max(rows // 20_000, 1)], dtype=np.float32))
    mean, scale = sample.mean(0).to(device), sample.std(0).clamp(min=1e-6).to(device)
    weight = torch.zeros(layers, width, classes, device=device, requires_grad=True)
    bias = torch.zeros(layers, classes, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=2e-3, weight_decay=1e-4)
    steps = epochs * -(-rows // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    targets = torch.from_numpy(labels)
    for _ in range(epochs):
        for index in torch.randperm(rows, generator=generator).split(batch_size):
            batch = torch.from_numpy(states[np.sort(index.numpy())]).to(device, torch.float32)
            logits = torch.einsum("bjh,jhc->bjc", (batch - mean) / scale, weight) + bias
            wanted = targets[index.sort().values].to(device).repeat_interleave(layers, 0)
            value = loss(logits.flatten(0, 1), wanted) * layers
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        folded = weight / scale.unsqueeze(-1)
        shifted = bias - torch.einsum("jh,jhc->jc", mean, folded)
        return Probes(folded.detach().cpu(), shifted.detach().cpu())
