"""Text in, label and scores out, from an ONNX student: onnxruntime, tokenizers and numpy, no torch.

Comes in: a folder with model.onnx, model_int8.onnx, tokenizer.json and serving.json, or a StudentDir. Goes out: predictions.
This file is also logged with the MLflow model as its code, so it imports nothing of this package.
"""

import itertools
import json
import math
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

_BATCH = 32
_OUTPUTS = ["logits"]
COLUMNS = {  # that a served model answers with, and their types, by Hugging Face's name for the task; the lists are JSON
    None: {"label": "string", "score": "double", "scores": "string"},
    "regression": {"value": "double"},
    "multi_label_classification": {"labels": "string", "scores": "string"},
}


class Predictor:
    """A loaded student, one session for all calls. Texts are sorted by length, and a batch is as long as its longest."""

    def __init__(self, folder: Path, threads: int = 1, precision: str = "auto") -> None:
        """Loads the model; `threads` 0 means as many as there are cores, precision is fp32, int8 or auto.

        auto is int8 where that has passed its gate against fp32.

        Raises:
            FileNotFoundError: the folder holds no student.
        """
        settings = folder / "serving.json"
        if settings.is_file():
            known = json.loads(settings.read_text(encoding="utf-8"))
            self.labels, limit, models, passed = known["labels"], known["max_length"], folder, known.get("int8", False)
            self._read_task(known)
        else:
            known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self.labels = [known["id2label"][str(i)] for i in range(len(known["id2label"]))]
            self._read_task(known)
            limit = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
            models = folder / "onnx"
            passed = json.loads((folder / "parity.json").read_text(encoding="utf-8")).get("int8", {}).get("passed", False)
        self.precision = ("int8" if passed else "fp32") if precision == "auto" else precision
        self.model = models / {"fp32": "model.onnx", "int8": "model_int8.onnx"}[self.precision]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(int(limit), strategy="longest_first")
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def _read_task(self, known: dict[str, Any]) -> None:
        self.problem_type, self.thresholds = known.get("problem_type"), known.get("thresholds")
        self.pair = bool(known.get("pair", known.get("separator_id") is not None))

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> list[dict[str, Any]]:
        """Returns for each text (or pair) its label, that label's score and all scores by name.

        A regression student gives a value instead, a multi-label one its labels and all scores by name.

        Raises:
            ValueError: a single text where the student classifies pairs, or the other way round.
        """
        rows = self.tokenize(texts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found: dict[int, dict[str, Any]] = {}
        for first in range(0, len(order), _BATCH):
            part = order[first : first + _BATCH]
            found.update(zip(part, self.answers(self.logits(*padded([rows[i] for i in part]))), strict=True))
        return [found[i] for i in range(len(rows))]

    def tokenize(self, texts: Sequence[str | tuple[str, str]]) -> list[list[int]]:
        """Returns each text's token ids, special ones among them; ValueError as a call gives it."""
        if any(isinstance(text, str) == self.pair for text in texts):
            wanted = "pairs: give tuples of two texts" if self.pair else "single texts: give strings, no tuples"
            raise ValueError(f"this student classifies {wanted}.")
        return [encoded.ids for encoded in self._tokenizer.encode_batch_fast(list(texts))]

    def logits(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Ids and mask (B, L) -> logits (B, classes)."""
        return self._session.run(_OUTPUTS, {"input_ids": ids, "attention_mask": mask})[0]

    def answers(self, logits: np.ndarray) -> list[dict[str, Any]]:
        """Returns label, score and scores by name for each row of logits; a value, or labels and scores, for other tasks."""
        if self.problem_type == "regression":
            return [{"value": value} for value in logits[:, 0].tolist()]
        if self.problem_type == "multi_label_classification":
            chances = (1 / (1 + np.exp(-logits.astype(np.float64)))).tolist()
            return [self._label_set(row) for row in chances]
        found = []
        for row in logits.tolist():
            scores = _softmax(row)
            score = max(scores)
            label = self.labels[scores.index(score)]
            found.append({"label": label, "score": score, "scores": dict(zip(self.labels, scores, strict=True))})
        return found

    def _label_set(self, row: list[float]) -> dict[str, Any]:
        given = [label for label, score, level in zip(self.labels, row, self.thresholds or [], strict=True) if score > level]
        return {"labels": given, "scores": dict(zip(self.labels, row, strict=True))}


def padded(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask (B, L) of token ids, L the longest row's length."""
    lengths = [*map(len, rows)]
    if min(lengths) == max(lengths):  # one text at a time: as few calls as can be, since the network leaves no cache warm
        ids = np.array(rows, np.int64)
        return ids, np.ones_like(ids)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.fromiter(itertools.chain.from_iterable(rows), np.int64, sum(lengths))
    return ids, mask.astype(np.int64)


def _softmax(row: list[float]) -> list[float]:
    greatest = max(row)
    powers = [math.exp(logit - greatest) for logit in row]
    total = sum(powers)
    return [power / total for power in powers]


def _define_mlflow_model() -> None:
    """Declares the MLflow flavour: a frame with column text (and text_b for pairs) in, what `COLUMNS` names out."""
    import pandas as pd
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel

    with warnings.catch_warnings(record=True):  # MLflow asks for type hints, which it would read as a schema; no filter stops it

        class StudentModel(PythonModel):
            def load_context(self, context: Any) -> None:
                threads = int(os.environ.get("ADABERT_THREADS", "1"))
                precision = os.environ.get("ADABERT_PRECISION", "auto")
                self.predictor = Predictor(Path(context.artifacts["student"]), threads, precision)

            def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                texts = model_input["text"].astype(str).tolist()
                if "text_b" in model_input:
                    texts = list(zip(texts, model_input["text_b"].astype(str), strict=True))
                columns = COLUMNS[self.predictor.problem_type]
                found = pd.DataFrame(self.predictor(texts), columns=list(columns))
                return found.assign(**{name: found[name].map(json.dumps) for name in ("labels", "scores") if name in columns})

    set_model(StudentModel())


if "mlflow" in sys.modules:  # MLflow is loading this file as a model's code; a machine that only predicts needs no MLflow
    _define_mlflow_model()
