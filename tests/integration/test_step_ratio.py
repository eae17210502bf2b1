"""What a step takes: the supernet's beside one of the student with the same operations, since sampling them must cost little
(docs/RESULTS.md), and a student's beside a core that is busy with something else."""

import logging
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adabert_core.distillation import DistilledNetwork
from adabert_core.network import AdaBertNetwork, Gates
from adabert_core.runtime import has_bf16, make_accelerator, usable_cores
from adabert_core.search_space import EDGES, PRIMITIVES, Genotype, random_genotype
from adabert_core.supernet import build_supernet, hard_gates

CHANNELS, K_MAX, CLASSES, ROWS, LENGTH, VOCABULARY, TEACHER_LAYERS = 64, 4, 2, 128, 24, 8000, 6
SIZES = {"vocab_size": VOCABULARY, "channels": CHANNELS, "max_length": 64, "num_labels": CLASSES, "dropout": 0.1}


def student_of(genotype: Genotype, channels: int = CHANNELS) -> DistilledNetwork:
    """The derived student, in training."""
    network = AdaBertNetwork(
        **SIZES | {"channels": channels},
        depth=genotype.depth,
        candidates=genotype.candidates(),
        depths=[genotype.depth],
        separator_id=None,
        alignment=False,
        maxima=True,
        ngrams=True,
    )
    return DistilledNetwork(network, genotype.depth, CLASSES).train()


def gates_of(genotype: Genotype) -> Gates:
    """What the supernet samples when it samples this structure; zero on the edges that it lacks."""
    draws = torch.zeros(len(EDGES), len(PRIMITIVES))
    kept = {(source, target): operation for source, target, operation in genotype.operations}
    for number, edge in enumerate(EDGES):
        draws[number, PRIMITIVES.index(kept.get(edge, "zero"))] = 1
    return hard_gates(draws.requires_grad_())


def stepper(distilled: DistilledNetwork) -> Callable[[Tensor, Gates | None, list[int]], float]:
    """A function that takes one training step at some depths and returns its seconds."""
    accelerator, generator = make_accelerator("cpu", "auto"), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(distilled.parameters(), lr=1e-3, fused=True)
    layers = TEACHER_LAYERS + 1
    answers = (
        torch.randint(CLASSES, (ROWS,), generator=generator),
        torch.randn(ROWS, CLASSES, generator=generator),
        torch.randn(ROWS, layers, CLASSES, generator=generator),
    )

    def step(ids: Tensor, gates: Gates | None, depths: list[int]) -> float:
        start = time.perf_counter()
        with accelerator.autocast():
            outputs = distilled.outputs(ids, torch.ones_like(ids), depths, gates)
        values, _ = distilled.losses(outputs, answers, torch.zeros(layers), depths, gamma=0.8, final_weight=0.5, temperature=1.0)
        optimizer.zero_grad()
        values.sum().backward()
        torch.nn.utils.clip_grad_norm_(distilled.parameters(), 5.0)
        optimizer.step()
        return time.perf_counter() - start

    return step


def test_supernet_step_costs_little_more_than_the_students() -> None:
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)
    supernet = build_supernet(**SIZES, k_max=K_MAX, separator_id=None, generator=generator).train()
    super_step = stepper(supernet.distilled)
    searching = training = 0.0
    for depth in (1, 2, 3, 4, 4, 3, 2, 1):
        genotype = random_genotype(rng, depth)
        student_step, gates = stepper(student_of(genotype)), gates_of(genotype)
        taken = []
        for _ in range(6):
            ids = torch.randint(5, VOCABULARY, (ROWS, LENGTH), generator=generator)
            taken.append((super_step(ids, gates, list(range(1, depth + 1))), student_step(ids, None, [depth])))
        searching, training = (
            total + statistics.median(seconds)
            for total, seconds in zip((searching, training), zip(*taken[1:], strict=True), strict=True)
        )
    ratio = searching / training
    logging.getLogger(__name__).info("a supernet's step takes %.2f times a student's", ratio)
    assert ratio < 1.5


@pytest.mark.skipif(not has_bf16("cpu") or usable_cores() < 2, reason="needs two cores with bf16 of their own")
def test_two_threads_train_beside_a_busy_core() -> None:
    genotype = Genotype.parse("3 x 0>2 conv_5, 1>2 conv_3, 0>3 conv_5, 1>3 conv_3, 0>4 conv_3, 1>4 conv_5")
    step, generator = stepper(student_of(genotype, channels=128)), torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (ROWS, LENGTH), generator=generator)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])  # noqa: S603
    before, taken = torch.get_num_threads(), []
    try:
        for threads in [1, usable_cores()] * 8:
            torch.set_num_threads(threads)
            taken.append(step(ids, None, [3]))
    finally:
        torch.set_num_threads(before)
        busy.kill()
        busy.wait()
    alone, together = statistics.median(taken[2::2]), statistics.median(taken[3::2])
    logging.getLogger(__name__).info("ms a step: %.0f on one thread, %.0f on all", 1e3 * alone, 1e3 * together)
    assert together < 2.5 * alone  # three to nine times before weights had their gradient on one thread
