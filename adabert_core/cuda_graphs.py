"""A student's forward and backward pass on a GPU as CUDA graphs: two launches instead of a thousand kernels too small for it.

Comes in: a DistilledNetwork and the batch size. Goes out: a function from batches to its outputs, through which gradients flow.
A stage on several GPUs computes plainly: recording beside NCCL's own threads is not tried.
"""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from adabert_core.distillation import DistilledNetwork, Outputs
from adabert_core.network import AdaBertNetwork
from adabert_core.operations import fixed_shapes
from adabert_core.parallel import rank_and_size

_MULTIPLE = 8  # lengths are padded up to multiples of this: fewer graphs to record for a little more to compute


@contextmanager
def outputs_at(
    distilled: DistilledNetwork, depth: int, batch_size: int, device: torch.device
) -> Iterator[Callable[[dict[str, Tensor]], Outputs]]:
    """Gives the function from a batch to a student's outputs at its depth: replayed graphs on a GPU, plain elsewhere.

    Peers are never replayed.
    """
    if device.type != "cuda" or rank_and_size()[1] > 1 or not isinstance(distilled.network, AdaBertNetwork):
        yield lambda batch: distilled.outputs(batch["input_ids"], batch["attention_mask"], [depth])
        return
    graphed = GraphedOutputs(distilled, depth, batch_size)
    try:
        yield graphed
    finally:
        graphed.close()


class GraphedOutputs:
    """One pair of graphs per length, recorded when the length first comes; batches of another size are computed plainly.

    Recording computes the batch several times. Buffers and random state are put back afterwards, so that a training that is
    resumed, and records at other steps, ends the same.
    """

    def __init__(self, distilled: DistilledNetwork, depth: int, batch_size: int) -> None:
        self.distilled, self.depth, self.batch_size = distilled, depth, batch_size
        self.longest = cast("AdaBertNetwork", distilled.network).max_length
        self._graphs: dict[int, nn.Module] = {}
        self._pool = torch.cuda.graph_pool_handle()  # shared: a step is done with its graphs before the next one begins

    def __call__(self, batch: dict[str, Tensor]) -> Outputs:
        """Ids and mask (B, L) -> outputs."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        if len(ids) != self.batch_size:
            return self.distilled.outputs(ids, mask, [self.depth])
        length = min(math.ceil(ids.shape[1] / _MULTIPLE) * _MULTIPLE, self.longest)
        ids, mask = (F.pad(part, (0, length - ids.shape[1])) for part in (ids, mask))
        if length not in self._graphs:
            self._graphs[length] = self._record(ids, mask)
        return Outputs(*self._graphs[length](ids, mask))

    def close(self) -> None:
        """Gives the graphs' memory back: a recorded module refers to itself, which only a garbage collection would find."""
        for graph in self._graphs.values():
            graph.__dict__.pop("forward", None)
        self._graphs.clear()

    def _record(self, ids: Tensor, mask: Tensor) -> nn.Module:
        buffers = [(buffer, buffer.clone()) for buffer in self.distilled.buffers()]
        random = torch.cuda.get_rng_state(ids.device)
        autocast = torch.autocast(
            "cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), cache_enabled=False
        )
        with fixed_shapes(), autocast, _no_collection():
            graphed = torch.cuda.make_graphed_callables(
                _AtDepth(self.distilled, self.depth), (ids.clone(), mask.clone()), allow_unused_input=True, pool=self._pool
            )
        for buffer, before in buffers:
            buffer.copy_(before)
        torch.cuda.set_rng_state(random, ids.device)
        return cast("nn.Module", graphed)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Inside, no garbage is collected: an old graph that is freed while another is recorded would spoil the recording."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _AtDepth(nn.Module):
    """The student as a module whose forward pass takes and gives tensors only."""

    def __init__(self, distilled: DistilledNetwork, depth: int) -> None:
        super().__init__()
        self.distilled, self.depth = distilled, depth

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) -> the two parts of `Outputs`."""
        return tuple(self.distilled.outputs(ids, mask, [self.depth]))  # type: ignore[return-value]
