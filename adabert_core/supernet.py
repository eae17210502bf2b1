"""The supernet: every operation on every edge of k_max cells, and the alpha that choose among them.

Comes in: sizes. Goes out: a module whose weights a derived student inherits by name, and the genotype alpha favours.
"""

import torch
from torch import Tensor, nn

from adabert_core.distillation import DistilledNetwork
from adabert_core.network import AdaBertNetwork, Gates
from adabert_core.search_space import (
    EDGES,
    PRIMITIVES,
    Genotype,
    all_candidates,
    deployed_products,
    derive,
    edge_name,
    plain_cell,
)
from adabert_core.tasks import CLASSIFICATION, Task

_DRAWS = 4  # for a cheap one; the cheapest of many is of pools alone


class Supernet(nn.Module):
    """All candidates' weights, and alpha: what to choose per edge and how deep to go."""

    def __init__(
        self, network: AdaBertNetwork, k_max: int, num_labels: int, generator: torch.Generator, task: Task = CLASSIFICATION
    ) -> None:
        super().__init__()
        self.distilled = DistilledNetwork(network, k_max, num_labels, task)
        self.alpha_c = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(PRIMITIVES), generator=generator))
        self.alpha_K = nn.Parameter(1e-3 * torch.randn(k_max, generator=generator))

    def weights(self) -> list[nn.Parameter]:
        """Everything but alpha, the parameters of the structure."""
        return list(self.distilled.parameters())

    def genotype(self) -> Genotype:
        """The structure that alpha favours now."""
        return self._favoured(flat=False)

    def _favoured(self, flat: bool) -> Genotype:
        edges, depth = (torch.softmax(alpha.detach(), -1).cpu().tolist() for alpha in (self.alpha_c, self.alpha_K))
        return derive(edges, depth, flat)

    def candidates(self, count: int, explored: int, generator: torch.Generator) -> list[Genotype]:
        """The structure that alpha favours, its flat one, others drawn from alpha (log p + Gumbel noise), `explored` others.

        All are different. A flat cell is nearly as good as a chain of nodes for 0.6 of its products (docs/LOG.md). The last are
        the plain cell and uniform draws, since shared weights favour operations that have none of their own: half of these the
        cheapest to deploy of a few, half as they come, so that what a trial pays for its products decides.
        """
        found = [self.genotype()]
        pair = self.distilled.network.separator_id is not None

        def draw(logs: Tensor, wanted: int, of: int = 1) -> None:
            for _ in range(100 * count):  # a decided alpha has few cells to draw
                if len(found) >= wanted:
                    break
                noise = -torch.log(-torch.log(torch.rand((of, *logs.shape), generator=generator).clamp(min=1e-20)))
                depth = [0.0] * (found[0].depth - 1) + [1.0]
                cells = [derive(drawn.tolist(), depth) for drawn in logs + noise]
                cell = min(cells, key=lambda cell: deployed_products(cell, pair))
                if cell not in found:
                    found.append(cell)

        if count - explored > 1 and (flat := self._favoured(flat=True)) not in found:
            found.append(flat)
        favoured = torch.log_softmax(self.alpha_c.detach().cpu(), -1)
        draw(favoured, count - explored)
        if explored and plain_cell(found[0].depth) not in found:
            found.append(plain_cell(found[0].depth))
        uniform = torch.zeros_like(favoured)
        draw(uniform, (len(found) + count) // 2, _DRAWS)
        draw(uniform, count)
        return found


def hard_gates(draws: Tensor) -> Gates:
    """Draws (edges, operations), one-hot in value -> each edge's operation and its straight-through weight."""
    chosen = draws.detach().argmax(-1).tolist()
    return {edge_name(edge): (PRIMITIVES[o], draws[e, o]) for e, (edge, o) in enumerate(zip(EDGES, chosen, strict=True))}


def build_supernet(
    *,
    k_max: int,
    channels: int,
    num_labels: int,
    vocab_size: int,
    max_length: int,
    separator_id: int | None,
    dropout: float,
    generator: torch.Generator,
    task: Task = CLASSIFICATION,
) -> Supernet:
    """Returns a fresh supernet; alpha starts near zero, so that every structure is as likely as any other."""
    network = AdaBertNetwork(
        vocab_size=vocab_size,
        channels=channels,
        max_length=max_length,
        depth=k_max,
        candidates=all_candidates(),
        num_labels=num_labels,
        depths=range(1, k_max + 1),
        separator_id=separator_id,
        dropout=dropout,
        alignment=separator_id is not None,
        maxima=True,
        position_vectors=separator_id is not None,
        ngrams=separator_id is None,
    )
    return Supernet(network, k_max, num_labels, generator, task)
