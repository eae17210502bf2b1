"""Answers of a model over a table of rows, and what they are worth. The only place that computes a metric."""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import Tensor

from adabert_core.parallel import gathered, share
from adabert_core.runtime import frozen
from adabert_core.tokens import Collator, length_sorted


def scores(labels: np.ndarray, predictions: np.ndarray, metric: str) -> dict[str, float]:
    """Returns every metric of predicted classes and, under `score`, the one that the run selects by.

    accuracy, macro_f1 and matthews always; f1 (of class 1) where labels and predictions are of the first two classes. All in
    [0, 1] but matthews in [-1, 1], 0 where all are of one class.
    """
    found = {
        "accuracy": float(accuracy_score(labels, predictions)),
        "macro_f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
        "matthews": float(matthews_corrcoef(labels, predictions)) if len(np.union1d(labels, predictions)) > 1 else 0.0,
    }
    if max(labels.max(initial=0), predictions.max(initial=0)) <= 1:
        found["f1"] = float(f1_score(labels, predictions, zero_division=0))
    return {**found, "score": found[metric]}


def number_scores(numbers: np.ndarray, predictions: np.ndarray, metric: str) -> dict[str, float]:
    """Returns every metric of predicted numbers and, under `score`, the one that the run selects by.

    pearson and spearman in [-1, 1], 0 where all predictions are equal; mse in the square of the user's units; r2 is
    1 - mse / variance, so at most 1 and 0 for always answering the mean.
    """
    truth, found = numbers.astype(np.float64), predictions.astype(np.float64)
    mse = float(np.square(found - truth).mean())
    variance = float(truth.var())
    values = {
        "pearson": _correlation(truth, found),
        "spearman": _correlation(rankdata(truth), rankdata(found)),
        "mse": mse,
        "r2": 1 - mse / variance if variance > 0 else 0.0,
    }
    return {**values, "score": values[metric]}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0


def set_scores(labels: np.ndarray, predictions: np.ndarray, metric: str) -> dict[str, float]:
    """Returns every metric of predicted label sets, (rows, labels) of 0 and 1, and, under `score`, the run's own.

    micro_f1 counts every (row, label), macro_f1 is the mean over labels, exact the share of rows with all labels right.
    """
    values = {
        "micro_f1": float(f1_score(labels, predictions, average="micro", zero_division=0)),
        "macro_f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
        "exact": float((labels == predictions).all(1).mean()),
    }
    return {**values, "score": values[metric]}


def predict_logits(
    forward: Callable[[dict[str, Tensor]], Tensor], rows: Collator, accelerator: Accelerator, batch_size: int = 128
) -> np.ndarray:
    """Returns logits (rows, classes) in float32, in the order of the rows, computed in batches of similar length."""
    found: Tensor | None = None
    batches = list(length_sorted(rows.lengths, batch_size))
    with frozen(accelerator):
        for index in share(batches):
            with accelerator.autocast():
                logits = forward(rows(index, accelerator.device)).float().cpu()
            if found is None:
                found = torch.zeros(len(rows.lengths), *logits.shape[1:])
            found[torch.from_numpy(index)] = logits
    if found is None:
        raise ValueError("no rows to predict")
    return gathered(found, batches, accelerator.device).numpy()


class Best:
    """The weights of the best evaluation so far, as part of a training state."""

    def __init__(self) -> None:
        self.score = -float("inf")
        self.step = -1
        self.weights: dict[str, Tensor] = {}

    def offer(self, score: float, step: int, weights: dict[str, Tensor]) -> None:
        """Keeps a copy of the weights if the score is higher than any before."""
        if score > self.score:
            self.score, self.step = score, step
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}

    def state_dict(self) -> dict[str, object]:
        """Score, step and weights."""
        return {"score": self.score, "step": self.step, "weights": self.weights}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restores what `state_dict` gave."""
        self.__dict__.update(state)
