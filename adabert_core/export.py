"""The student as ONNX: BatchNorm folded into the convolutions, dynamic batch and length, checked against torch."""

import copy
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from adabert_core.operations import ReluConvNorm
from adabert_core.tokens import Collator, length_sorted

INPUTS = ("input_ids", "attention_mask")


class _Logits(nn.Module):
    def __init__(self, model: nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.model(**dict(zip(self.inputs, arguments, strict=True))).logits


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode in which every convolution carries its BatchNorm in weight and bias."""
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        if isinstance(module, ReluConvNorm):
            module.conv = nn.utils.fuse_conv_bn_eval(module.conv, module.norm.norm)
            module.norm = _PassThrough()  # type: ignore[assignment]
    return folded


class _PassThrough(nn.Module):
    def forward(self, x: Tensor, positions: Any) -> Tensor:
        return x


def export_onnx(model: nn.Module, path: Path, inputs: tuple[str, ...] = INPUTS, length: int = 16) -> None:
    """Writes a classifier as fp32 ONNX with inputs (batch, length) of int64 and output logits (batch, classes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    example = tuple(torch.ones(2, length, dtype=torch.int64) for _ in inputs)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    for noisy in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(model.eval(), inputs),
            example,
            path,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes=((axes,) * len(inputs),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def export_student(student: nn.Module, path: Path) -> None:
    """Writes a student as ONNX without the exporter's notes, whose stack traces hold this machine's paths.

    The same weights then give the same bytes, wherever they were exported.
    """
    export_onnx(fold_batch_norms(student), path)
    model = onnx.load(path)
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    onnx.save(model, path)


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Returns a CPU session on `threads` threads (0: as many as there are cores)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_logits(session: onnxruntime.InferenceSession, rows: Collator, batch_size: int = 64) -> np.ndarray:
    """Returns logits (rows, classes) of an ONNX classifier, in the order of the rows."""
    names = [given.name for given in session.get_inputs()]
    found = np.empty((len(rows.lengths), session.get_outputs()[0].shape[1]), np.float32)
    for index in length_sorted(rows.lengths, batch_size):
        batch = rows(index)
        found[index] = session.run(None, {name: batch[name].numpy() for name in names})[0]
    return found
