"""What each operation costs, for the efficiency loss: counted (size and FLOPs) or measured on this machine (latency)."""

import statistics
import time

import torch

from adabert_core.operations import Positions, make_operation
from adabert_core.parallel import measured_once
from adabert_core.report import aligned
from adabert_core.search_space import (
    EDGES,
    INPUTS,
    KEPT_PER_NODE,
    NODES,
    PRIMITIVES,
    cell_count,
    operation_flops,
    operation_size,
    size_flops_costs,
)
from adabert_core.storage import Checkpoints


def operation_costs(kind: str, channels: int, checkpoints: Checkpoints, key: str) -> list[float]:
    """Returns the cost of each of PRIMITIVES in [0, 1], the dearest at 1.

    Measured costs are kept under `key` at once, so that a resumed search goes on with the same table.
    """
    if kind == "size_flops":
        return size_flops_costs(channels)

    def kept() -> list[float]:
        saved = checkpoints.load(key)
        if saved is None:
            saved = {"costs": measure_latencies(channels)}
            checkpoints.save(key, saved)
        return saved["costs"]

    seconds = measured_once(kept)
    return [each / max(seconds) for each in seconds]


def search_space_text(channels: int, k_max: int, length: int = 128, rounds: int = 30) -> str:
    """What can be searched, and what each operation costs here: a table and two sentences."""
    costs = size_flops_costs(channels)
    rows = [["operation", "parameters", "FLOPs a token", f"us here (1 x {length})", "cost"]]
    for name, seconds, cost in zip(PRIMITIVES, measure_latencies(channels, length, rounds), costs, strict=True):
        size, flops = operation_size(name, channels), operation_flops(name, channels)
        rows.append([name, f"{size:,}", f"{flops:,}", f"{seconds * 1e6:.0f}", f"{cost:.3f}"])
    edges = ", ".join(f"{source}>{target}" for source, target in EDGES)
    return (
        f"{aligned(rows)}\n\n"
        f"A cell has {INPUTS} inputs (0, 1) and {NODES} nodes; of the edges {edges} each node keeps {KEPT_PER_NODE}.\n"
        f"That is {cell_count():,} cells, {k_max * cell_count():,} structures of 1 to {k_max} of them, {channels} channels wide."
    )


@torch.inference_mode()
def measure_latencies(channels: int, length: int = 128, rounds: int = 30) -> list[float]:
    """Median seconds of each of PRIMITIVES on one thread, one text of `length` positions; zero and identity cost nothing.

    The operations take turns, so that a drift of the machine's speed reaches all of them alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x = torch.randn(1, length, channels)
        positions = Positions.of(torch.ones(1, length), training=False)
        free = {"identity", "zero"}
        operations = {name: make_operation(name, channels).eval() for name in PRIMITIVES if name not in free}
        times: dict[str, list[float]] = {name: [] for name in operations}
        for _ in range(rounds):
            for name, operation in operations.items():
                started = time.perf_counter()
                operation(x, positions)
                times[name].append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return [statistics.median(times[name]) if name in times else 0.0 for name in PRIMITIVES]
