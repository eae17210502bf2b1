"""How a student's ONNX graph keeps and multiplies numbers: in fp32, or in bytes.

Comes in: a graph under construction, and for bytes the ranges of the states on real text. Goes out: nodes. In int8, states stay
in fp32 between the products, so that only what is multiplied is rounded, and ReLU is what an unsigned byte does to negative
numbers. Where these count, zero is in the middle of the byte's range.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import onnx

from adabert_core.onnx_graph import Graph

_LEVELS = 255  # of a state
_WEIGHT = 64  # two products of 255 * 64 still fit into the 16 bits in which CPUs without VNNI add them up
_ROW = 127  # of the word table
_MIDDLE = 128  # zero of a state with a sign


class Arithmetic(Protocol):
    """How numbers are kept and multiplied: as floating point or as bytes."""

    zeros: np.ndarray  # (1, C), the row that stands outside every text
    signed_zeros: np.ndarray  # the same beside what `signed` returns

    def look_up(self, graph: Graph, table: np.ndarray, ids: str) -> str:
        """Rows of a table (V, C) by ids (B, L) -> (B, L, C)."""

    def positive(self, graph: Graph, tensor: str) -> str:
        """ReLU of a tensor, ready to be multiplied."""

    def signed(self, graph: Graph, tensor: str, name: str) -> str:
        """A tensor as it is, ready to be multiplied; `name` is that of its span around zero among the ranges."""

    def multiply(
        self,
        graph: Graph,
        rows: str,
        weights: list[tuple[str, np.ndarray]],
        bias: np.ndarray,
        name: str,
        signed: bool = False,
    ) -> str:
        """Rows (n, k * C) times the weights (C, columns) that belong to each tensor they came from, plus the bias."""


class Fp32:
    """Floating point throughout."""

    def __init__(self, channels: int) -> None:
        self.zeros = self.signed_zeros = np.zeros((1, channels), np.float32)

    def look_up(self, graph: Graph, table: np.ndarray, ids: str) -> str:
        """See Arithmetic."""
        return graph.add("Gather", table, ids)

    def positive(self, graph: Graph, tensor: str) -> str:
        """See Arithmetic."""
        return graph.add("Relu", tensor)

    def signed(self, graph: Graph, tensor: str, name: str) -> str:
        """See Arithmetic."""
        return tensor

    def multiply(
        self,
        graph: Graph,
        rows: str,
        weights: list[tuple[str, np.ndarray]],
        bias: np.ndarray,
        name: str,
        signed: bool = False,
    ) -> str:
        """See Arithmetic."""
        table = np.concatenate([weight for _, weight in weights])
        return graph.add("Gemm", rows, table, bias, name=name)


class Int8:
    """Arithmetic in bytes; `ranges` holds the greatest value of every tensor that is multiplied."""

    def __init__(self, channels: int, ranges: Mapping[str, float]) -> None:
        self.zeros = np.zeros((1, channels), np.uint8)
        self.signed_zeros = np.full((1, channels), _MIDDLE, np.uint8)
        self._steps = {tensor: max(greatest, 1e-30) / _LEVELS for tensor, greatest in ranges.items()}

    def look_up(self, graph: Graph, table: np.ndarray, ids: str) -> str:
        """See Arithmetic; each row has a scale of its own."""
        steps = np.maximum(np.abs(table).max(1, keepdims=True) / _ROW, 1e-30)
        rows = graph.add("Cast", graph.add("Gather", np.rint(table / steps).astype(np.int8), ids), to=onnx.TensorProto.FLOAT)
        return graph.add("Mul", rows, graph.add("Gather", steps, ids))

    def positive(self, graph: Graph, tensor: str) -> str:
        """See Arithmetic."""
        return graph.add("QuantizeLinear", tensor, self._steps[tensor], np.uint8(0))

    def signed(self, graph: Graph, tensor: str, name: str) -> str:
        """See Arithmetic."""
        return graph.add("QuantizeLinear", tensor, self._steps[name], np.uint8(_MIDDLE))

    def multiply(
        self,
        graph: Graph,
        rows: str,
        weights: list[tuple[str, np.ndarray]],
        bias: np.ndarray,
        name: str,
        signed: bool = False,
    ) -> str:
        """See Arithmetic; each output channel has a scale, in which the steps of the states are contained."""
        table = np.concatenate([weight * self._steps[tensor] for tensor, weight in weights])
        steps = np.maximum(np.abs(table).max(0) / _WEIGHT, 1e-30)
        return graph.add(
            "MatMulIntegerToFloat",
            rows,
            np.rint(table / steps).astype(np.int8),
            1.0,
            steps,
            np.uint8(_MIDDLE if signed else 0),
            np.zeros(len(steps), np.int8),
            bias,
            name=name,
            domain="com.microsoft",
        )
