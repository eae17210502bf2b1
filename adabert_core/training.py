"""The one training loop, shared by teacher, search and retraining: it steps, shows, tracks, checkpoints and resumes.

Comes in: a loss over row indices and the objects that have state. Goes out: the same objects, trained. Killed at any
moment and called again with the same arguments it ends in the same state as if it had never stopped.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from adabert_core.parallel import agreed, rank_and_size, share, synchronise
from adabert_core.progress import Progress
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)
_LOG_STEPS = 20


class Stateful(Protocol):
    """A module, an optimiser, a schedule: anything whose state can be taken and given back."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restores a state."""


class LengthBuckets:
    """Batches of row indices, nearly all of rows of one length so that nothing is padded, in an order fixed by (seed, epoch)."""

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, rows: np.ndarray | None = None) -> None:
        """Batches over all rows, or over `rows`, in which a row may stand more than once."""
        self.rows = np.arange(len(lengths)) if rows is None else rows
        self.lengths, self.batch_size, self.seed = lengths[self.rows], batch_size, seed
        self.per_epoch = math.ceil(len(self.rows) / batch_size)
        self._epoch = -1
        self._batches: list[np.ndarray] = []

    def batch(self, step: int) -> np.ndarray:
        """Row indices of batch `step`, counted through all epochs: the position of the sampler is the step."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffle(epoch)
        return self._batches[index]

    def _shuffle(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.lengths))
        order = order[np.argsort(self.lengths[order], kind="stable")]
        _, starts, counts = np.unique(self.lengths[order], return_index=True, return_counts=True)
        within = np.arange(len(order)) - np.repeat(starts, counts)  # one length's rows: full batches, and a rest for mixed ones
        full = within < np.repeat(counts - counts % self.batch_size, counts)
        order = self.rows[np.concatenate([order[full], order[~full]])]
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def total_steps(rows: int, batch_size: int, epochs: int, min_steps: int, max_steps: int | None) -> int:
    """Steps of `epochs` passes over `rows`, within the bounds."""
    steps = max(epochs * math.ceil(rows / batch_size), min_steps, 1)
    return min(steps, max_steps) if max_steps else steps


def fit(
    *,
    label: str,
    steps: int,
    batches: LengthBuckets,
    loss: Callable[[np.ndarray, int], tuple[Tensor, Mapping[str, float | Tensor]]],
    apply: Callable[[int], None],
    state: Mapping[str, Stateful],
    optimizers: list[torch.optim.Optimizer],
    accelerator: Accelerator,
    generator: torch.Generator,
    tracker: Tracker,
    checkpoints: Checkpoints,
    checkpoint_key: str,
) -> None:
    """Runs steps 0..steps: `loss(rows, step)` gives the scalar and its terms, `apply(step)` uses the gradients.

    `state` names everything that must survive a kill besides the random generators, which are kept as well.
    """
    saved = checkpoints.load(checkpoint_key)
    if not agreed(int(saved["step"]) if saved else 0, accelerator.device):
        log.warning("%s: this stage's processes found different checkpoints; all start over", label)
        saved = None
    step = _restore(saved, state, generator)
    if step:
        log.info("%s: resumed at step %d of %d", label, step, steps)
    progress = Progress(label, steps, start=step)
    modules = [owner for owner in state.values() if isinstance(owner, nn.Module)]
    rank, size = rank_and_size()
    while step < steps:
        if size > 1:  # draws of dropout of its own for every process, the same after a resume
            torch.manual_seed(int(np.random.default_rng([batches.seed, step, rank]).integers(2**63)))
        batch = batches.batch(step)
        part = share(batch)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            value, terms = loss(part, step)
        accelerator.backward(value * (len(part) * size / len(batch) if len(part) < len(batch) else 1))
        synchronise(optimizers, modules)
        apply(step)
        step += 1
        figures = {}
        if step % _LOG_STEPS == 0 or step == steps:
            figures = {name: float(term) for name, term in {"loss": value.detach(), **terms}.items()}
            tracker.metrics(figures, step)
        progress.update(1, **figures)
        if checkpoints.due():
            checkpoints.save(checkpoint_key, _snapshot(step, state, generator))
    progress.close()


def _snapshot(step: int, state: Mapping[str, Stateful], generator: torch.Generator) -> dict[str, Any]:
    return {
        "step": step,
        "state": {name: part.state_dict() for name, part in state.items()},
        "generator": generator.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore(saved: dict[str, Any] | None, state: Mapping[str, Stateful], generator: torch.Generator) -> int:
    if saved is None:
        return 0
    for name, part in state.items():
        part.load_state_dict(saved["state"][name])
    generator.set_state(saved["generator"])
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda"])
    return int(saved["step"])
