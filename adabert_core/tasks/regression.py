"""Regression: one number for every text.

Labels are numbers (rows,) in the user's units, NaN where not known. What a network in training puts out, `student` here, is
standardised by the train split; all else, teacher and probes among them, is in the user's units (`in_units`, `fold`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from adabert_core import losses
from adabert_core.evaluate import number_scores

Outputs = TypeVar("Outputs", np.ndarray, Tensor)
_BINS = 10
_NEAR = 0.1  # of a standard deviation: two numbers that count as the same answer


@dataclasses.dataclass(frozen=True)
class Regression:
    """One number for every text; the output is that number, standardised until the last layer is folded."""

    labels: Sequence[str] = ()
    metric: str = "pearson"
    mean: float = 0.0
    std: float = 1.0

    name: ClassVar[str] = "regression"
    problem_type: ClassVar[str | None] = "regression"
    probe_metric: ClassVar[str] = "pearson"
    severity: ClassVar[str] = "off_by"
    thresholded: ClassVar[bool] = False

    def hard_loss(self, student: Tensor, labels: Tensor) -> Tensor:
        """Outputs (B, 1) and numbers (B) -> mean squared error in standard deviations."""
        return losses.label_squared_error(student, (labels - self.mean) / self.std)

    def soft_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Outputs (B, 1) of both -> mean squared error; a temperature has no meaning here."""
        return F.mse_loss(student, (teacher - self.mean) / self.std)

    def layer_losses(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Student (M, B, 1) and teacher probe outputs (B, J+1, 1) -> (M, J+1)."""
        return losses.layer_squared_errors(student, (teacher - self.mean) / self.std)

    def log_likelihoods(self, probes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Mean log-likelihood (J+1) under a Gaussian around each probe's output, as wide as the probe's own errors."""
        error = np.square((probes[:, :, 0] - labels[:, None]) / self.std).mean(0)
        return -0.5 * (np.log(2 * np.pi * np.maximum(error, 1e-6)) + 1)

    def layer_scores(self, probes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Pearson correlation of every layer's probe, (J+1)."""
        return np.array([number_scores(labels, layer, "pearson")["score"] for layer in probes[:, :, 0].T])

    def validation_loss(self, labels: np.ndarray, logits: np.ndarray) -> float:
        """Mean squared error in standard deviations."""
        return float(np.square((logits[:, 0] - labels) / self.std).mean())

    def thresholds(self, labels: np.ndarray, logits: np.ndarray) -> list[float] | None:
        """Nothing: the output is the answer."""
        return None

    def predictions(self, logits: np.ndarray, thresholds: Sequence[float] | None = None) -> np.ndarray:
        """Numbers (rows,)."""
        return logits[:, 0]

    def scores(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Every metric, and the run's own as `score`."""
        return number_scores(labels, predictions, self.metric)

    def same(self, a: np.ndarray, b: np.ndarray, slack: float, thresholds: Sequence[float] | None = None) -> np.ndarray:
        """Which rows have numbers within a tenth of a standard deviation of each other, (rows,)."""
        return np.abs(a - b)[:, 0] <= max(slack, _NEAR * self.std)

    def in_units(self, outputs: Outputs) -> Outputs:
        """Standardised outputs in the user's units."""
        return outputs * self.std + self.mean

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A last layer whose outputs are in the user's units."""
        return weight * self.std, bias * self.std + self.mean

    def scale(self) -> float:
        """What a difference of outputs is large against."""
        return self.std

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """The tenth of all labels that each lies in, (rows,)."""
        return np.searchsorted(np.quantile(labels, np.arange(1, _BINS) / _BINS), labels, side="right")

    def useless(self, found: Mapping[str, float], labels: np.ndarray) -> str:
        """What a teacher with these scores is no better than, '' where it is better."""
        return "always answering the mean" if found["r2"] <= 0 else ""

    def errors(
        self, labels: np.ndarray, teacher: np.ndarray, student: np.ndarray, logits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which rows the teacher is nearer to by half a standard deviation, and how far off the student is, (rows,) both."""
        off = np.abs(student - labels)
        return off - np.abs(teacher - labels) > self.std / 2, off

    def confusion(self, labels: np.ndarray, predictions: np.ndarray) -> list[list[int]]:
        """Numbers have none."""
        return []

    def words(self, answer: Any) -> str:
        """A label or prediction as a reader sees it."""
        return f"{float(answer):.4g}"

    def read(self, answers: Mapping[str, Sequence[Any]]) -> np.ndarray | None:
        """Predictions from the columns that a served model answers with, None if they are another task's."""
        return np.array(answers["value"], np.float64) if "value" in answers else None
