"""The network: embedding (for pairs an alignment) -> K cells, and n-grams -> head. One class serves as supernet and as student.

Comes in: token ids and attention mask. Goes out: one summary s_m per layer 0..K, and logits at any depth.
Because both nets share these classes and their parameter names, a student inherits by key from a supernet.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from adabert_core.alignment import Alignment
from adabert_core.convolution import Convolution, as_computed
from adabert_core.dropout import Dropout
from adabert_core.operations import Positions, ReluConvNorm, make_operation, shapes_fixed
from adabert_core.search_space import INPUTS, NODES

NGRAM, NGRAM_STATES = 3, 2  # words that a filter of `NGrams` sees; how many times as many filters as channels there are
Gates = Mapping[str, tuple[str, Tensor | None]]  # edge name -> (operation, its straight-through weight)


class Embedding(nn.Module):
    """Word vectors, for a pair with those of positions, from 0 in both texts, and segments; LayerNorm, dropout.

    Convolutions see the order of words. Position vectors are learned for the lengths of the train texts and disturb longer ones;
    where two texts are compared they help (docs/LOG.md).
    """

    def __init__(self, vocab_size: int, channels: int, positions: int, dropout: float, pair: bool) -> None:
        super().__init__()
        self.word = nn.Embedding(vocab_size, channels)
        self.position = nn.Embedding(positions, channels) if positions else None
        self.segment = nn.Embedding(2, channels) if pair else None
        self.norm = nn.LayerNorm(channels)
        self.dropout = Dropout(dropout)

    def forward(self, words: Tensor, positions: Positions, segment: int) -> Tensor:
        """Word vectors (B, L, C) -> (B, L, C), zero at pads."""
        x = words
        if self.position is not None:
            x = x + self.position(torch.arange(words.shape[1], device=words.device))
        if self.segment is not None:
            x = x + self.segment.weight[segment]
        return positions.clear(self.dropout(self.norm(x)))


class NGrams(nn.Module):
    """The maxima over time of filters over NGRAM words each (Kim 2014): the classifier reads them beside what the cells say.

    They take the embedding as it is. Behind a ReLU and with a BatchNorm, as convolutions of cells are, they are worth a third of
    that, and summed up with the cells half (docs/LOG.md).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filters = Convolution(channels, NGRAM_STATES * channels, NGRAM)

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """An embedding (B, L, C), zero at pads -> (B, NGRAM_STATES * C), never negative."""
        return F.relu(positions.maximum(self.filters(x)))


class State:
    """A state (B, L, C) of a cell and, once a convolution asks for it, its ReLU, which all that read the state share."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._positive: Tensor | None = None

    def positive(self) -> Tensor:
        """max(x, 0)."""
        if self._positive is None:
            self._positive = F.relu(self.x)
        return self._positive


class Cell(nn.Module):
    """Three inner nodes over two inputs: h_i = sum of operations on earlier states, out = sum of softmax(a)_i h_i."""

    def __init__(self, channels: int, candidates: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {edge: nn.ModuleDict({name: make_operation(name, channels) for name in names}) for edge, names in candidates.items()}
        )
        self.incoming: list[list[tuple[int, str]]] = [
            [(int(edge.split("-")[0]), edge) for edge in candidates if edge.endswith(f"-{target}")]
            for target in range(INPUTS, INPUTS + NODES)
        ]
        self.node_weights = nn.Parameter(torch.zeros(NODES))

    def forward(self, first: State, second: State, positions: Positions, gates: Gates | None) -> State:
        """Two inputs -> output. Only the operation that `gates` names for an edge is computed."""
        states = [first, second]
        for incoming in self.incoming:
            node: Tensor | None = None
            for source, edge in incoming:
                value = self._edge(edge, states[source], positions, gates)
                if value is not None:
                    node = value if node is None else node + value
            states.append(State(torch.zeros_like(second.x) if node is None else positions.clear(node)))
        weights = torch.softmax(self.node_weights, dim=0)
        out = weights[0] * states[INPUTS].x
        for i in range(1, NODES):
            out = out + weights[i] * states[INPUTS + i].x
        return State(out)

    def _edge(self, edge: str, state: State, positions: Positions, gates: Gates | None) -> Tensor | None:
        operations = cast("nn.ModuleDict", self.edges[edge])
        name, weight = (next(iter(operations)), None) if gates is None else gates[edge]
        if name == "zero":
            return None  # its output and every gradient through it are zero
        operation = operations[name]
        if isinstance(operation, ReluConvNorm):
            value = operation.of_positive(state.positive(), positions)
        else:
            value = operation(state.x, positions)
        return value if weight is None else value * weight


class AdaBertNetwork(nn.Module):
    """Embedding, `depth` cells and the head r_K = sum of softmax(b_K)_k s_k -> tanh -> dropout -> linear.

    With `ngrams` the linear layer reads the maxima of n-grams as well.
    With `alignment` the texts of a pair are compared word by word before the first cell. With `maxima` the summary of a cell is
    half the mean and half the maximum over positions: what a long text says once is not diluted. With `position_vectors` the
    embedding has them for `max_length` positions.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        channels: int,
        max_length: int,
        depth: int,
        candidates: Mapping[str, Sequence[str]],
        num_labels: int,
        depths: Sequence[int],
        separator_id: int | None,
        dropout: float,
        alignment: bool = False,
        maxima: bool = False,
        position_vectors: bool = False,
        ngrams: bool = False,
    ) -> None:
        super().__init__()
        self.separator_id, self.maxima, self.max_length, self.summary_width = separator_id, maxima, max_length, channels
        positions = max_length if position_vectors else 0
        self.embedding = Embedding(vocab_size, channels, positions, dropout, pair=separator_id is not None)
        self.alignment = Alignment(channels) if alignment else None
        self.cells = nn.ModuleList(Cell(channels, candidates) for _ in range(depth))
        self.depth_weights = nn.ParameterDict({str(k): nn.Parameter(torch.zeros(k + 1)) for k in depths})
        self.ngrams = NGrams(channels) if ngrams else None
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(channels * (1 + NGRAM_STATES if ngrams else 1), num_labels)

    def tables(self) -> dict[str, Tensor]:
        """The embedding tables that can start from the teacher's."""
        tables = {"word": self.embedding.word, "position": self.embedding.position, "segment": self.embedding.segment}
        return {name: table.weight for name, table in tables.items() if table is not None}

    def summaries(self, input_ids: Tensor, attention_mask: Tensor, depth: int, gates: Gates | None = None) -> Tensor:
        """Ids and mask (B, L) -> s (depth + 1, B, C): the embedding and every cell summed up over the real positions.

        N-grams are NGRAM_STATES rows more, the last.
        """
        if self.separator_id is None:
            positions = Positions.of(attention_mask, self.training)
            first = second = self.embedding(self.embedding.word(input_ids), positions, 0)
            start = positions.mean(first)
        else:
            (ids_a, mask_a), (ids_b, mask_b) = split_pair(input_ids, attention_mask, self.separator_id)
            own_a, own_b = Positions.of(mask_a, self.training), Positions.of(mask_b, self.training)
            words_a, words_b = self.embedding.word(ids_a), self.embedding.word(ids_b)
            first, second = self.embedding(words_a, own_a, 0), self.embedding(words_b, own_b, 1)
            if self.alignment is not None:
                compared_a, compared_b = self.alignment(words_a, words_b, mask_a, mask_b)
                first, second = own_a.clear(first + compared_a), own_b.clear(second + compared_b)
            positions = Positions.of(torch.maximum(mask_a, mask_b), self.training)
            start = (own_a.mean(first) + own_b.mean(second)) / 2
        summaries = [start]
        before, state = (State(as_computed(x)) for x in (first, second))
        ngrams = () if self.ngrams is None else self.ngrams(state.x, positions).chunk(NGRAM_STATES, dim=-1)
        if first is second:
            before = state
        for cell in list(self.cells)[:depth]:
            before, state = state, cell(before, state, positions, gates)
            mean = positions.mean(state.x)
            summaries.append((mean + positions.maximum(state.x)) / 2 if self.maxima else mean)
        return torch.stack([*summaries, *ngrams])

    def logits(self, summaries: Tensor, depth: int) -> Tensor:
        """Summaries (>= depth + 1, B, C) -> logits (B, classes) of the net that ends after `depth` cells."""
        weights = torch.softmax(self.depth_weights[str(depth)], dim=0)
        features = torch.tanh(torch.einsum("k,kbc->bc", weights, summaries[: depth + 1]))
        if self.ngrams is not None:
            features = torch.cat([features, *summaries[-NGRAM_STATES:]], dim=-1)
        return self.classifier(self.dropout(features))


def split_pair(ids: Tensor, mask: Tensor, separator_id: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Ids and mask (B, L) of `[CLS] A [SEP] B [SEP]` -> (ids, mask) of A with its marks, and of B moved to position 0.

    The first separator ends text A, so that tokenizers without segment ids (RoBERTa, MPNet) are split as well.
    Unless shapes are fixed the result is cut to the longest text of the batch.
    """
    separators = (ids == separator_id).long()
    in_b = ((separators.cumsum(1) - separators) > 0).to(mask.dtype) * mask  # (B, L)
    mask_a = mask - in_b
    length_a = mask_a.sum(1, keepdim=True).long()
    position = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)  # (1, L)
    source = (position + length_a).clamp(max=ids.shape[1] - 1)
    ids_b = ids.gather(1, source)
    mask_b = (position < in_b.sum(1, keepdim=True)).to(mask.dtype)
    width = ids.shape[1]
    if not shapes_fixed():
        width = int(torch.maximum(mask_a.sum(1), mask_b.sum(1)).max())
    return (ids[:, :width], mask_a[:, :width]), (ids_b[:, :width], mask_b[:, :width])
