"""Text in, label and scores out, from an ONNX student: onnxruntime, tokenizers and numpy, no torch.

Comes in: a folder with model.onnx, tokenizer.json and serving.json or a StudentDir. Goes out: predictions. This file is also
logged with the MLflow model as its code, so it imports nothing of this package.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

_BATCH = 64


class Predictor:
    """A loaded student. Texts are sorted by length, so that a long one does not slow down the short ones."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """Loads the model; `threads` 0 means as many as there are cores.

        Raises:
            FileNotFoundError: the folder holds no student.
        """
        settings = folder / "serving.json"
        if settings.is_file():
            known = json.loads(settings.read_text(encoding="utf-8"))
            self.labels, limit, model = known["labels"], known["max_length"], folder / "model.onnx"
        else:
            names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
            self.labels = [names[str(i)] for i in range(len(names))]
            limit = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
            model = folder / "onnx" / "model.onnx"
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(int(limit), strategy="longest_first")
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> list[dict[str, Any]]:
        """Returns for each text (or pair) its label, that label's score and all scores by name."""
        if not texts:
            return []
        encoded = self._tokenizer.encode_batch(list(texts))
        order = np.argsort([len(e.ids) for e in encoded], kind="stable")
        scores = np.empty((len(encoded), len(self.labels)), np.float32)
        for first in range(0, len(order), _BATCH):
            part = order[first : first + _BATCH]
            scores[part] = _softmax(self._logits([encoded[i].ids for i in part]))
        best = scores.argmax(1)
        return [
            {
                "label": self.labels[b],
                "score": float(row[b]),
                "scores": {name: float(value) for name, value in zip(self.labels, row, strict=True)},
            }
            for b, row in zip(best, scores, strict=True)
        ]

    def _logits(self, rows: list[list[int]]) -> np.ndarray:
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _define_mlflow_model() -> None:
    """Declares the MLflow flavour: a frame with column text (and text_b for pairs) in, label, score and scores out."""
    import pandas as pd
    from mlflow.models import set_model
    from mlflow.pyfunc import PythonModel

    class StudentModel(PythonModel):
        def load_context(self, context: Any) -> None:
            threads = int(os.environ.get("ADABERT_THREADS", "0"))
            self.predictor = Predictor(Path(context.artifacts["student"]), threads)

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - MLflow reads hints as a schema
            texts = model_input["text"].astype(str).tolist()
            if "text_b" in model_input:
                texts = list(zip(texts, model_input["text_b"].astype(str), strict=True))
            found = pd.DataFrame(self.predictor(texts), columns=["label", "score", "scores"])
            return found.assign(scores=found["scores"].map(json.dumps))

    set_model(StudentModel())


if "mlflow" in sys.modules:  # MLflow is loading this file as a model's code; a machine that only predicts needs no MLflow
    _define_mlflow_model()
