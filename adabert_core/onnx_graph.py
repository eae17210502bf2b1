"""An ONNX graph under construction: nodes in order, constants kept once. Knows nothing of students."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Value = np.ndarray | np.generic | float | Sequence[int]
OPSETS = (helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1))


class Graph:
    """Nodes, named by what they make. The same calls give the same bytes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def add(self, op: str, *inputs: str | Value, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Appends a node and returns its output's name.

        What is no name among the inputs becomes a constant: floats of 32 bits, whole numbers of 64 unless they have a type.
        """
        output = name or f"{op.lower()}_{len(self._nodes)}"
        names = [given if isinstance(given, str) else self._constant(given) for given in inputs]
        self._nodes.append(helper.make_node(op, names, [output], name=output, domain=domain, **attributes))
        return output

    def model(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """Returns the checked model."""
        graph = helper.make_graph(self._nodes, "adabert", inputs, outputs, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=OPSETS, ir_version=10, producer_name="adabert")
        onnx.checker.check_model(model)
        return model

    def _constant(self, given: Value) -> str:
        value = np.asarray(given)
        if value.dtype == np.float64:
            value = value.astype(np.float32)
        key = (str(value.dtype), value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(np.ascontiguousarray(value), f"constant_{len(self._constants)}")
        return self._constants[key].name
