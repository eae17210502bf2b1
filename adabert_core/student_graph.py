"""The student as an ONNX graph that holds little but its arithmetic, in fp32 or int8.

Comes in: a trained student, and for int8 the ranges of its states. Goes out: a model with inputs (batch, length) of int64 and
logits (batch, classes). What the network writes as many operations is put together where that is the same function:
  - Every state is a table of rows (batch * length, C). The convolutions that add up to one state are one matrix product over
    the rows around each position; a row outside the text is a row of zeros, so no mask is applied to it.
  - ReLU and the pools commute with positive factors, so a state is kept at the scale that spares a multiplication; the shares
    of nodes go into the weights, those of depths into one product at the end.
  - A node that no other node reads is added to its cell's output at once.
  - The states are summed up over positions side by side. N-grams are one more product over rows around each position.
For one text most operations take less than what the runtime spends on each, so fewer are faster (docs/LOG.md).
"""

import dataclasses
from collections import Counter
from typing import NamedTuple, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto
from onnx.helper import make_tensor_value_info
from torch import Tensor, nn

from adabert_core.alignment import LEAST_NORM, OUT_OF_REACH
from adabert_core.arithmetic import Arithmetic
from adabert_core.network import NGRAM_STATES, AdaBertNetwork, Cell, Embedding, NGrams
from adabert_core.onnx_graph import Graph
from adabert_core.operations import Identity, ReluConvNorm
from adabert_core.search_space import INPUTS
from adabert_core.student import AdaBertForSequenceClassification

_REACH = 6  # of the widest convolution, 7 positions two apart


class State(NamedTuple):
    """A state of the network in the graph: `tensor` (batch * length, C) holds `scale` times its value."""

    tensor: str
    scale: float = 1.0


@dataclasses.dataclass
class Terms:
    """A sum of operations on states, not yet in the graph."""

    taps: dict[tuple[str, int], np.ndarray] = dataclasses.field(default_factory=dict)  # (tensor, offset) -> (C, C)
    bias: np.ndarray | float = 0.0
    others: dict[tuple[str, str], float] = dataclasses.field(default_factory=dict)  # (operation, tensor) -> factor

    def add(self, name: str, operation: nn.Module, state: State, share: float) -> None:
        """Adds `share` times an operation on a state."""
        tensor, factor = state.tensor, share / state.scale
        if isinstance(operation, ReluConvNorm):
            weight, bias = _folded(operation)
            (_, dilation), taps = operation.conv.dilation, weight.shape[-1]
            for i in range(taps):
                key = (tensor, dilation * (i - taps // 2))
                self.taps[key] = self.taps.get(key, 0.0) + factor * weight[:, :, 0, i].T
            self.bias = self.bias + share * bias
        elif name != "zero":
            self.others[(name, tensor)] = self.others.get((name, tensor), 0.0) + factor


class StudentGraph:
    """The graph of one student; `build` makes the model."""

    def __init__(self, student: AdaBertForSequenceClassification, arithmetic: Arithmetic) -> None:
        self.network = cast("AdaBertNetwork", student.network)
        self.depth, self.channels = student.depth, student.config.channels
        self.arithmetic, self.graph = arithmetic, Graph()
        self.read: dict[str, str] = {}  # tensor -> its ReLU, ready to be multiplied
        self._windows_made: dict[tuple[tuple[int, int], ...], str] = {}
        self.pools: dict[tuple[str, str], str] = {}
        self.watched: list[str] = []  # what the ranges of other tensors are known by

    def build(self, watched: bool = False) -> onnx.ModelProto:
        """Returns the model; `watched` makes every tensor that int8 would round an output as well."""
        add = self.graph.add
        self.mask = add("Cast", "attention_mask", to=TensorProto.FLOAT)  # (B, L)
        self._measure("input_ids")
        first, second, means = self._embedded()
        self._number_rows()
        self.nothing = first.tensor  # times zero, for a sum without terms
        states = [first, second]
        for k, cell in enumerate(self.network.cells, 1):
            states.append(self._sum(self._cell(cast("Cell", cell), f"cell{k}", *states[-2:]), f"cell{k}"))
        head = self.network.classifier
        features = add("Tanh", self._summary(first, states[INPUTS:], means))
        if self.network.ngrams is not None:
            features = add("Concat", features, self._ngrams(self.network.ngrams, first.tensor, watched), axis=1)
        add("Gemm", features, _array(head.weight).T, _array(head.bias), name="logits")
        tensors: dict[str, list[str | int]] = {"logits": ["batch", head.out_features]}
        if watched:
            tensors |= {tensor: ["rows", "columns"] for tensor in [*self.read, *self.watched]}
        return self.graph.model(
            [make_tensor_value_info(given, TensorProto.INT64, ["batch", "length"]) for given in ("input_ids", "attention_mask")],
            [make_tensor_value_info(made, TensorProto.FLOAT, shape) for made, shape in tensors.items()],
        )

    def _cell(self, cell: Cell, name: str, first: State, second: State) -> Terms:
        """The cell's output as terms; the nodes that others read are in the graph."""
        shares = _softmax(cell.node_weights)
        operations = {edge: next(iter(kept.items())) for edge, kept in cell.edges.items()}  # type: ignore[operator]
        readers = {source for incoming in cell.incoming for source, edge in incoming if operations[edge][0] != "zero"}
        states, output = [first, second], Terms()
        for node, incoming in enumerate(cell.incoming, INPUTS):
            share = shares[node - INPUTS]
            terms, own = (Terms(), 1.0) if node in readers else (output, share)
            for source, edge in incoming:
                kind, operation = operations[edge]
                terms.add(kind, operation, states[source], own)
            if node in readers:
                states.append(self._sum(terms, f"{name}.node{node}"))
                output.add("identity", Identity(), states[node], share)
            else:
                states.append(State(""))
        return output

    def _summary(self, first: State, cells: list[State], means: list[str]) -> str:
        """The embedding and the cells, each summed up over the real positions and weighted by depth -> (B, C).

        `means` (B, 1, C) are those of a pair's embedding, which `first` is not all of.
        """
        add, (share, *shares) = self.graph.add, _softmax(self.network.depth_weights[str(self.depth)])
        half = 0.5 if self.network.maxima else 1.0
        of_cells = [half * each / cell.scale for each, cell in zip(shares, cells, strict=True)]
        whole = [] if means else [first]
        parts = [(mean, [share / len(means)]) for mean in means]
        if tensors := [state.tensor for state in whole + cells]:
            table = self._by_text(add("Concat", *tensors, axis=1), len(tensors))
            parts.append((self._mean(table, self.mask), [share for _ in whole] + of_cells))
            if self.network.maxima:
                parts.append((self._maximum(table), [0.0 for _ in whole] + of_cells))
        weights = [weight for _, each in parts for weight in each]
        joined = add("Reshape", add("Concat", *(part for part, _ in parts), axis=2), [-1, len(weights), self.channels])
        return add("Reshape", add("MatMul", np.array([weights]), joined), [-1, self.channels])

    def _ngrams(self, ngrams: NGrams, tensor: str, watched: bool) -> str:
        """The maxima of n-grams of the embedding (B * L, C) -> (B, filters)."""
        add, name = self.graph.add, "ngrams.span"
        if watched:
            self.watched.append(add("Mul", add("Abs", tensor), 2.0, name=name))
        taps = _array(ngrams.filters.weight)[:, :, 0].transpose(2, 1, 0)  # (NGRAM, C, filters)
        windows = self._windows(tuple((0, offset - len(taps) // 2) for offset in range(len(taps))))
        rows = self._around([self.arithmetic.signed(self.graph, tensor, name)], self.arithmetic.signed_zeros, windows)
        weights = [(name, tap) for tap in taps]
        rows = add("Reshape", rows, [-1, len(taps) * self.channels])
        bias = _array(ngrams.filters.bias)
        product = self.arithmetic.multiply(self.graph, rows, weights, bias, "ngrams.product", signed=True)
        return add(
            "Relu", add("Reshape", self._maximum(self._by_text(product, NGRAM_STATES)), [-1, NGRAM_STATES * self.channels])
        )

    def _measure(self, ids: str) -> None:
        """Takes the sizes of the tables from ids (B, L)."""
        add = self.graph.add
        self.shape, self.count = add("Shape", ids), add("Size", ids)
        self.length = add("Shape", ids, start=1, end=2)  # (1,)
        self.span = add("Range", 0, add("Squeeze", self.length), 1)  # (L,)

    def _embedded(self) -> tuple[State, State, list[str]]:
        """Both inputs of the first cell and, for pairs, the means (B, 1, C) of each over its own text.

        From here on a pair is two texts side by side, as long as the longest of the batch.
        """
        embedding, separator = self.network.embedding, self.network.separator_id
        if separator is None:
            if embedding.position is None:
                rows = self._normed_words(embedding, "input_ids", "embedding")
            else:
                rows = self._embedding(embedding, self._words(embedding, "input_ids"), 0, "embedding")
            return State(rows), State(rows), []
        add = self.graph.add
        marks = add("Cast", add("Equal", "input_ids", separator), to=TensorProto.INT64)
        before = add("Sub", add("CumSum", marks, 1), marks)  # separators to the left, (B, L)
        in_b = add("Mul", add("Cast", add("Greater", before, 0), to=TensorProto.FLOAT), self.mask)
        mask_a = add("Sub", self.mask, in_b)
        length_a, length_b = (add("Cast", add("ReduceSum", mask, [1]), to=TensorProto.INT64) for mask in (mask_a, in_b))
        source = add("Min", add("Add", self.span, length_a), add("Sub", self.length, [1]))
        ids_b = add("GatherElements", "input_ids", source, axis=1)
        mask_b = add("Cast", add("Less", self.span, length_b), to=TensorProto.FLOAT)
        width = add("Reshape", add("ReduceMax", add("Max", length_a, length_b)), [1])
        ids_a, mask_a, ids_b, mask_b = (add("Slice", full, [0], width, [1]) for full in ("input_ids", mask_a, ids_b, mask_b))
        self._measure(ids_a)
        texts = ((ids_a, mask_a), (ids_b, mask_b))
        words = [self._words(embedding, ids) for ids, _ in texts]
        compared = self._compared(words, [mask for _, mask in texts])
        found, means = [], []
        for segment, (_, mask) in enumerate(texts):
            rows = self._embedding(embedding, words[segment], segment, f"text{segment}.embedding")
            rows = self._total([rows, *compared[segment : segment + 1]])
            rows = add("Mul", rows, add("Reshape", mask, [-1, 1]), name=f"text{segment}")
            means.append(self._mean(self._by_text(rows), mask))
            found.append(State(rows))
        self.mask = add("Max", mask_a, mask_b)
        return found[0], found[1], means

    def _words(self, embedding: Embedding, ids: str) -> str:
        """Word vectors (B, L, C) of ids (B, L)."""
        return self.arithmetic.look_up(self.graph, _array(embedding.word.weight), ids)

    def _normed_words(self, embedding: Embedding, ids: str, name: str) -> str:
        """The normalised vectors of ids (B, L) -> (B * L, C), from a table: to a word's nothing is added."""
        table = _array(embedding.norm(embedding.word.weight))
        return self.graph.add("Reshape", self.arithmetic.look_up(self.graph, table, ids), [-1, self.channels], name=name)

    def _embedding(self, embedding: Embedding, words: str, segment: int, name: str) -> str:
        """The normalised vectors of words (B, L, C), with what is added to them -> (B * L, C)."""
        added = (
            np.zeros((1, self.channels), np.float32) if embedding.segment is None else _array(embedding.segment.weight)[segment]
        )
        if embedding.position is not None:
            added = self.graph.add("Slice", _array(embedding.position.weight) + added, [0], self.length)
        scale, shift = _array(embedding.norm.weight), _array(embedding.norm.bias)
        added = self.graph.add("Add", words, added)
        normed = self.graph.add("LayerNormalization", added, scale, shift, epsilon=embedding.norm.eps)
        return self.graph.add("Reshape", normed, [-1, self.channels], name=name)

    def _compared(self, words: list[str], masks: list[str]) -> list[str]:
        """What the alignment adds to both texts, (B * L, C) each; nothing where the student has none."""
        alignment, add = self.network.alignment, self.graph.add
        if alignment is None:
            return []
        scale = float(np.sqrt(self.channels))
        units = []
        for vectors, mask in zip(words, masks, strict=True):
            norm = add("Max", add("ReduceL2", vectors, [-1]), LEAST_NORM)
            units.append(add("Mul", add("Div", vectors, norm), add("Mul", add("Unsqueeze", mask, [2]), scale)))
        likeness = add("MatMul", units[0], add("Transpose", units[1], perm=[0, 2, 1]))
        likeness = add("Mul", likeness, alignment.sharpness.item() / self.channels)
        weight, found = _array(alignment.compare.weight).T, []
        for text, matrix in enumerate((likeness, add("Transpose", likeness, perm=[0, 2, 1]))):
            pads = add("Mul", add("Sub", 1.0, masks[1 - text]), OUT_OF_REACH)
            shares = add("Softmax", add("Add", matrix, add("Unsqueeze", pads, [1])), axis=-1)
            aligned = add("MatMul", shares, units[1 - text])
            features = {
                "difference": add("Abs", add("Sub", units[text], aligned)),
                "agreement": add("Mul", units[text], aligned),
            }
            rows = [add("Reshape", part, [-1, self.channels], name=f"text{text}.{name}") for name, part in features.items()]
            weights = list(zip(rows, np.split(weight, 2), strict=True))
            joined = add("Concat", *(self._positive(row) for row in rows), axis=1)
            bias = _array(alignment.compare.bias)
            found.append(self.arithmetic.multiply(self.graph, joined, weights, bias, f"text{text}.product"))
        return found

    def _number_rows(self) -> None:
        """Numbers the real positions from 1 on, in the order of the rows, with zeros at pads and around: (B, L + reach)."""
        add = self.graph.add
        numbers = add("Reshape", add("Range", 1, add("Add", self.count, 1), 1), self.shape)
        real = add("Mul", numbers, add("Cast", self.mask, to=TensorProto.INT64))
        self.numbers = add("Pad", real, [0, _REACH, 0, _REACH], 0)
        self.block = add("Add", self.count, 1)  # rows of one state with its row of zeros

    def _windows(self, pattern: tuple[tuple[int, int], ...]) -> str:
        """Rows (B, L, k) to read around each position: (state, offset) each, in states stacked with their row of zeros."""
        if pattern not in self._windows_made:
            add = self.graph.add
            offsets = np.array([[offset + _REACH for _, offset in pattern]])
            columns = add("Add", add("Unsqueeze", self.span, [1]), offsets)  # (L, k)
            rows = add("Gather", self.numbers, columns, axis=1)
            blocks = np.array([number for number, _ in pattern])
            self._windows_made[pattern] = add("Add", rows, add("Mul", self.block, blocks)) if blocks.any() else rows
        return self._windows_made[pattern]

    def _around(self, tensors: list[str], zeros: np.ndarray, windows: str) -> str:
        """States stacked, each after its row of zeros, and read through windows (..., k) -> (..., k, C)."""
        stacked = [part for tensor in tensors for part in (zeros, tensor)]
        return self.graph.add("Gather", self.graph.add("Concat", *stacked, axis=0), windows)

    def _sum(self, terms: Terms, name: str) -> State:
        """Puts a sum into the graph, at the scale at which most of its terms without weights need no factor."""
        scale = 1 / Counter(terms.others.values()).most_common(1)[0][0] if terms.others else 1.0
        parts = [self._times(self._other(*other), scale * factor) for other, factor in terms.others.items()]
        if terms.taps:
            tensors = list(dict.fromkeys(tensor for tensor, _ in terms.taps))
            taps = sorted(terms.taps, key=lambda tap: (tensors.index(tap[0]), tap[1]))
            windows = self._windows(tuple((tensors.index(tensor), offset) for tensor, offset in taps))
            rows = self._around([self._positive(tensor) for tensor in tensors], self.arithmetic.zeros, windows)
            rows = self.graph.add("Reshape", rows, [-1, len(taps) * self.channels])
            weights = [(tensor, scale * terms.taps[(tensor, offset)]) for tensor, offset in taps]
            parts.append(self.arithmetic.multiply(self.graph, rows, weights, scale * np.asarray(terms.bias), f"{name}.product"))
        return State(self._total(parts, name) if parts else self.graph.add("Mul", self.nothing, 0.0, name=name), scale)

    def _positive(self, tensor: str) -> str:
        if tensor not in self.read:
            self.read[tensor] = self.arithmetic.positive(self.graph, tensor)
        return self.read[tensor]

    def _other(self, operation: str, tensor: str) -> str:
        """An operation without weights on a state (B * L, C)."""
        if operation == "identity":
            return tensor
        if (operation, tensor) not in self.pools:
            self.pools[(operation, tensor)] = self._pool(operation, tensor)
        return self.pools[(operation, tensor)]

    def _pool(self, operation: str, tensor: str) -> str:
        add, zeros = self.graph.add, np.zeros((1, self.channels), np.float32)
        windows = add("Reshape", self._windows(((0, -1), (0, 0), (0, 1))), [-1, 3])
        real = add("Greater", windows, 0)
        if operation == "max_pool_3":
            own = add("Slice", windows, [1], [2], [1])
            near = self._around([tensor], zeros, add("Where", real, windows, own))  # a pad cannot exceed what stands beside it
            return add("ReduceMax", near, [1], keepdims=0)
        count = add("ReduceSum", add("Cast", real, to=TensorProto.FLOAT), [1])  # (B * L, 1)
        near = add("ReduceSum", self._around([tensor], zeros, windows), [1], keepdims=0)
        return add("Div", near, add("Max", count, 1.0))

    def _by_text(self, tensor: str, states: int = 1) -> str:
        """Rows (B * L, n) of some states side by side -> (B, L, n)."""
        return self.graph.add("Reshape", tensor, self.graph.add("Concat", self.shape, [states * self.channels], axis=0))

    def _mean(self, table: str, mask: str) -> str:
        """Mean of a table (B, L, n) over the real positions of a mask (B, L) -> (B, 1, n)."""
        add = self.graph.add
        shares = add("Div", mask, add("Max", add("ReduceSum", mask, [1]), 1.0))
        return add("MatMul", add("Unsqueeze", shares, [1]), table)

    def _maximum(self, table: str) -> str:
        """Maximum of a table (B, L, n) over the real positions -> (B, 1, n); zero where there is none."""
        add = self.graph.add
        mask = add("Unsqueeze", self.mask, [2])  # (B, L, 1)
        found = add("ReduceMax", add("Add", table, add("Mul", add("Sub", 1.0, mask), OUT_OF_REACH)), [1])
        return add("Mul", found, add("ReduceMax", mask, [1]))

    def _times(self, tensor: str, factor: float) -> str:
        return tensor if factor == 1 else self.graph.add("Mul", tensor, factor)

    def _total(self, parts: list[str], name: str = "") -> str:
        if len(parts) == 1 and not name:
            return parts[0]
        return self.graph.add("Sum", *parts, name=name)


def _array(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None  # noqa: S101 - optional in torch's types only
    return tensor.detach().double().numpy()


def _softmax(logits: Tensor) -> list[float]:
    return torch.softmax(logits.detach().double(), dim=0).tolist()


def _folded(operation: ReluConvNorm) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, in, 1, k) and bias (out,) of a convolution and the BatchNorm behind it."""
    norm = operation.norm.norm
    factor = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return _array(operation.conv.weight) * factor[:, None, None, None], _array(norm.bias) - _array(norm.running_mean) * factor
