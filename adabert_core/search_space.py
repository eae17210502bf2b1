"""The search space: which operations there are, how a cell is wired, and what a genotype is. Pure Python, no torch.

Glossary (the paper's words):
  alpha_c   operation logits, one row per edge, shared by all cells      K      number of cells, 1..k_max
  alpha_K   depth logits                                                 tau    Gumbel temperature, falls during search
  gamma     weight of distillation against the labels                    beta   weight of the efficiency loss
  J         teacher layers; probe j of 0..J meets student layer m        T      distillation temperature
  state     an input (0, 1) or an inner node (2, 3, 4) of a cell         edge   (source state, target state)
"""

import dataclasses
import json
import math
import random
import re
from pathlib import Path
from typing import Any

from adabert_core.errors import UserError

PRIMITIVES = (
    "conv_3",
    "conv_5",
    "conv_7",
    "dil_conv_3",
    "dil_conv_5",
    "dil_conv_7",
    "max_pool_3",
    "avg_pool_3",
    "identity",
    "zero",
)
INPUTS = 2
NODES = 3
EDGES = tuple((source, target) for target in range(INPUTS, INPUTS + NODES) for source in range(target))
KEPT_PER_NODE = 2


def edge_name(edge: tuple[int, int]) -> str:
    """'0-2' for the edge from state 0 to state 2."""
    return f"{edge[0]}-{edge[1]}"


def kernel_of(primitive: str) -> int:
    """Kernel width of a convolution, 0 for every other operation."""
    return int(primitive.rsplit("_", 1)[1]) if "conv" in primitive else 0


@dataclasses.dataclass(frozen=True)
class Genotype:
    """A derived structure: `depth` cells (K) that share `operations`, one (source, target, operation) per kept edge."""

    depth: int
    operations: tuple[tuple[int, int, str], ...]

    def to_json(self) -> str:
        """Readable JSON; the same genotype always gives the same bytes."""
        edges = [{"source": s, "target": t, "operation": o} for s, t, o in self.operations]
        return json.dumps({"schema_version": 1, "depth": self.depth, "edges": edges}, indent=2) + "\n"

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Genotype":
        """Returns the genotype of parsed JSON.

        Raises:
            UserError: an edge or an operation that the search space does not have.
        """
        try:
            operations = tuple((int(e["source"]), int(e["target"]), str(e["operation"])) for e in raw["edges"])
            depth = int(raw["depth"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("the genotype needs depth and edges, each with source, target and operation.") from error
        for source, target, operation in operations:
            if (source, target) not in EDGES or operation not in PRIMITIVES:
                raise UserError(f"the genotype has {operation} on edge {source}-{target}, which the search space does not have.")
        return cls(depth, operations)

    @classmethod
    def load(cls, path: Path) -> "Genotype":
        """Returns the genotype of a genotype.json."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def parse(cls, words: str) -> "Genotype":
        """Returns the genotype of words such as `4 x 0>2 conv_3, 1>2 identity, ...`; `none` is no cell at all.

        Raises:
            UserError: the words do not say depth and edges, or name an edge twice or one that the search space does not have.
        """
        if words.strip() == "none":
            return cls(0, ())
        form = re.fullmatch(r"\s*([1-9]\d*) x (.+)", words)
        edges = [re.fullmatch(r"\s*(\d)>(\d) (\w+)\s*", part) for part in form[2].split(",")] if form else []
        if form is None or not all(edges):
            raise UserError(f"search.genotype: {words!r} is not understood; write it as 4 x 0>2 conv_3, 1>2 identity, ...")
        found = [{"source": e[1], "target": e[2], "operation": e[3]} for e in edges if e]
        if len({(e["source"], e["target"]) for e in found}) < len(found):
            raise UserError(f"search.genotype: {words!r} names an edge twice; every edge has one operation.")
        return cls.from_dict({"depth": form[1], "edges": found})

    def __str__(self) -> str:
        """The words that `parse` reads."""
        edges = ", ".join(f"{s}>{t} {o}" for s, t, o in self.operations)
        return f"{self.depth} x {edges}" if self.depth else "none"

    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Edge name -> its one operation, in the form `network.Cell` takes."""
        return {edge_name((source, target)): (operation,) for source, target, operation in self.operations}


def all_candidates() -> dict[str, tuple[str, ...]]:
    """Edge name -> every operation: the candidates of the supernet."""
    return {edge_name(edge): PRIMITIVES for edge in EDGES}


def derive(edge_probabilities: list[list[float]], depth_probabilities: list[float], flat: bool = False) -> Genotype:
    """Returns the genotype that the probabilities (rows as EDGES, columns as PRIMITIVES) favour.

    K is the likeliest depth. An edge's operation is its likeliest one other than zero, its strength that probability;
    every inner node keeps its two strongest edges (AdaBERT section 3.2; DARTS section 2.4 for the rule), of a `flat` cell
    those from the cell's inputs: its convolutions then add up to one product with each position (`deployed_products`).
    """
    depth = max(range(len(depth_probabilities)), key=lambda k: depth_probabilities[k]) + 1
    usable = [i for i, name in enumerate(PRIMITIVES) if name != "zero"]
    kept: list[tuple[int, int, str]] = []
    for target in range(INPUTS, INPUTS + NODES):
        ranked = []
        for edge, row in zip(EDGES, edge_probabilities, strict=True):
            if edge[1] == target and (edge[0] < INPUTS or not flat):
                best = max(usable, key=lambda i: row[i])  # noqa: B023 - used at once
                ranked.append((row[best], edge, PRIMITIVES[best]))
        ranked.sort(key=lambda item: (-item[0], item[1]))
        kept += [(edge[0], edge[1], operation) for _, edge, operation in ranked[:KEPT_PER_NODE]]
    return Genotype(depth, tuple(sorted(kept, key=lambda item: (item[1], item[0]))))


def random_genotype(rng: random.Random, depth: int) -> Genotype:
    """Returns a cell drawn uniformly: two incoming edges per node, any operation but zero on each."""
    usable = [name for name in PRIMITIVES if name != "zero"]
    kept = [
        (source, target, rng.choice(usable))
        for target in range(INPUTS, INPUTS + NODES)
        for source in sorted(rng.sample(range(target), KEPT_PER_NODE))
    ]
    return Genotype(depth, tuple(kept))


def plain_cell(depth: int) -> Genotype:
    """Returns the cell whose nodes all take both inputs by conv_3, which deployed is one convolution over both."""
    nodes = range(INPUTS, INPUTS + NODES)
    return Genotype(depth, tuple((source, target, "conv_3") for target in nodes for source in range(INPUTS)))


def random_cells(searched: Genotype, costs: list[float], count: int, seed: int) -> list[Genotype]:
    """Returns `count` random cells of the searched depth that cost at least as much as the searched one.

    Uniform draws that are too cheap are thrown away; after 2,000 such draws the dearest seen takes the place.
    """
    rng, floor = random.Random(seed), cell_cost(searched, costs)  # noqa: S311 - an experiment, not a secret
    found: list[Genotype] = []
    while len(found) < count:
        dearest = random_genotype(rng, searched.depth)
        for _ in range(2000):
            if cell_cost(dearest, costs) >= floor - 1e-9:
                break
            draw = random_genotype(rng, searched.depth)
            dearest = max(dearest, draw, key=lambda cell: cell_cost(cell, costs))
        found.append(dearest)
    return found


def cell_count() -> int:
    """How many cells can be derived: two of each node's edges, on each any operation but zero."""
    operations = (len(PRIMITIVES) - 1) ** KEPT_PER_NODE
    return math.prod(math.comb(target, KEPT_PER_NODE) * operations for target in range(INPUTS, INPUTS + NODES))


def operation_size(primitive: str, channels: int) -> int:
    """Parameters of one operation: a convolution's weights and its BatchNorm's scale and shift."""
    kernel = kernel_of(primitive)
    return kernel * channels * channels + 2 * channels if kernel else 0


def operation_flops(primitive: str, channels: int) -> int:
    """Multiply-adds of one operation per position, counted as two operations each."""
    if kernel := kernel_of(primitive):
        return 2 * kernel * channels * channels + 4 * channels
    return {"max_pool_3": 3, "avg_pool_3": 3, "identity": 0, "zero": 0}[primitive] * channels


def size_flops_costs(channels: int) -> list[float]:
    """Cost of each primitive in [0, 1]: the mean of its size and its FLOPs, each over the dearest one's.

    AdaBERT eq. 9; the normalisation is ours.
    """
    sizes = [operation_size(name, channels) for name in PRIMITIVES]
    flops = [operation_flops(name, channels) for name in PRIMITIVES]
    return [(s / max(sizes) + f / max(flops)) / 2 for s, f in zip(sizes, flops, strict=True)]


def cell_cost(genotype: Genotype, costs: list[float]) -> float:
    """Sum of a genotype's operation costs over all its cells, in units of the dearest operation."""
    return genotype.depth * sum(costs[PRIMITIVES.index(o)] for _, _, o in genotype.operations)


def deployed_products(genotype: Genotype, pair: bool) -> int:
    """How many products with a (C, C) matrix a position takes in the cells of the deployed student.

    A pool, or what else has no weights and is no identity, counts as one. Convolutions that add up to one state are one there and
    share the offsets they have in common (structural re-parameterization, Ding et al. 2021), and so do all nodes that none
    reads: six convolutions of width 3 over both inputs are six products a cell, in a chain they are up to eighteen.
    """
    readers = {source for source, _, operation in genotype.operations if source >= INPUTS and operation != "zero"}
    products, pools, lowest = 0, set(), -1 if pair else 0  # the first cell's inputs are the texts of a pair, or one and the same
    for cell in range(genotype.depth):
        taps = set()
        for source, target, operation in genotype.operations:
            state = (max(cell - 1 + source, lowest), 0) if source < INPUTS else (cell + 1, source)
            total = target if target in readers else None
            taps |= {(total, state, offset) for offset in _offsets(operation)}
            if operation not in ("identity", "zero") and not kernel_of(operation):
                pools.add((operation, state))
        products += len(taps)
    return products + len(pools)


def _offsets(operation: str) -> list[int]:
    """Where a convolution reads, in positions from its own."""
    taps, step = kernel_of(operation), 2 if operation.startswith("dil") else 1
    return [step * (tap - taps // 2) for tap in range(taps)]


def matched_layer(student_layer: int, depth: int, teacher_layers: int) -> int:
    """J = ceil(m * J / K): the teacher layer that layer m of a student of depth K learns from; the last one if K is 0."""
    if depth == 0:
        return teacher_layers
    return math.ceil(student_layer * teacher_layers / depth)
