"""ONNX files with dynamic batch and length, and what runs them: students in fp32 and int8, their peers as torch exports them.

Comes in: torch models, for int8 rows to calibrate on. Goes out: files, sessions, logits.
"""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from adabert_core.arithmetic import Fp32, Int8
from adabert_core.network import AdaBertNetwork
from adabert_core.student import AdaBertForSequenceClassification
from adabert_core.student_graph import StudentGraph
from adabert_core.tokens import Collator, length_sorted

log = logging.getLogger(__name__)
INPUTS = ("input_ids", "attention_mask")
FP32, INT8 = Path("onnx", "model.onnx"), Path("onnx", "model_int8.onnx")  # in a StudentDir; a peer has no int8


class _Logits(nn.Module):
    def __init__(self, model: nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.model(**dict(zip(self.inputs, arguments, strict=True))).logits


def export_onnx(model: nn.Module, path: Path, inputs: tuple[str, ...] = INPUTS) -> None:
    """Writes a classifier as fp32 ONNX with inputs (batch, length) of int64 and output logits (batch, classes)."""
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    _export(model, path, inputs, {"dynamo": True, "dynamic_shapes": ((axes,) * len(inputs),), "external_data": False})


def session_to_time(model: nn.Module, inputs: tuple[str, ...], threads: int) -> onnxruntime.InferenceSession:
    """Returns a session of a classifier as ONNX: traced, which takes far less time than `export_onnx`, or by that.

    torch deprecates tracing, which fixes in the graph what a model decides by a shape. So a traced graph has to give torch's
    logits for a batch of another shape.
    """
    axes = {name: {0: "batch", 1: "length"} for name in inputs} | {"logits": {0: "batch"}}
    with tempfile.TemporaryDirectory(prefix="adabert-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            _export(model, path, inputs, {"dynamo": False, "dynamic_axes": axes, "opset_version": 18})
            session = open_session(path, threads)
            if _agrees(session, model, inputs):
                return session
        except Exception:  # whatever it was, there is the other exporter
            log.debug("a model could not be traced", exc_info=True)
        export_onnx(model, path, inputs)
        return open_session(path, threads)


def _agrees(session: onnxruntime.InferenceSession, model: nn.Module, inputs: tuple[str, ...]) -> bool:
    batch = {name: torch.full((3, 23), {"input_ids": 7, "attention_mask": 1}.get(name, 0)) for name in inputs}
    with torch.inference_mode():
        expected = model(**batch).logits.numpy()
    found = session.run(None, {given.name: batch[given.name].numpy() for given in session.get_inputs()})[0]
    return np.allclose(found, expected, rtol=1e-3, atol=1e-3)


def _export(model: nn.Module, path: Path, inputs: tuple[str, ...], how: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    example = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in inputs)
    for noisy in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how |= {"input_names": list(inputs), "output_names": ["logits"], "verbose": False}
        torch.onnx.export(_Logits(model, inputs).eval(), example, path, **how)


def export_student(student: AdaBertForSequenceClassification, path: Path) -> None:
    """Writes a student as fp32 ONNX, or a peer as torch exports it; the same weights give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(student.network, AdaBertNetwork):
        onnx.save(StudentGraph(student, Fp32(student.config.channels)).build(), path)
    else:
        export_onnx(student, path)
        without_notes(path)


def without_notes(path: Path) -> None:
    """Removes the exporter's notes from a file: their stack traces hold this machine's paths."""
    model = onnx.load(path)
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    onnx.save(model, path)


def export_int8(student: AdaBertForSequenceClassification, path: Path, rows: Collator, index: np.ndarray) -> None:
    """Writes a student as int8 ONNX, calibrated on some rows; the same weights and rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ranges = measured_ranges(student, rows, index)
    onnx.save(StudentGraph(student, Int8(student.config.channels, ranges)).build(), path)


def measured_ranges(student: AdaBertForSequenceClassification, rows: Collator, index: np.ndarray) -> dict[str, float]:
    """Returns the greatest value that each tensor which int8 rounds has on some rows, each of them alone."""
    model = StudentGraph(student, Fp32(student.config.channels)).build(watched=True)
    session = open_session(model.SerializeToString(), threads=1)
    names = [made.name for made in session.get_outputs()][1:]  # without the logits
    found = dict.fromkeys(names, 0.0)
    for i in index if names else []:  # a student of pools and identities multiplies nothing
        for name, values in zip(names, session.run(names, _feed(session, rows(np.array([i])))), strict=True):
            found[name] = max(found[name], float(values.max()))
    return found


def open_session(model: Path | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """Returns a CPU session of a file (or its bytes) on `threads` threads (0: as many as there are cores)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_logits(session: onnxruntime.InferenceSession, rows: Collator, batch_size: int = 64) -> np.ndarray:
    """Returns logits (rows, classes) of an ONNX classifier, in the order of the rows."""
    found = np.empty((len(rows.lengths), session.get_outputs()[0].shape[1]), np.float32)
    for index in length_sorted(rows.lengths, batch_size):
        found[index] = session.run(None, _feed(session, rows(index)))[0]
    return found


def _feed(session: onnxruntime.InferenceSession, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {given.name: batch[given.name].numpy() for given in session.get_inputs()}
