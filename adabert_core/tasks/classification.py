"""Classification: one class for every text, the largest logit wins.

Labels are class numbers (rows,), -1 where not known.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from scipy.special import softmax
from sklearn.metrics import log_loss
from torch import Tensor

from adabert_core import losses
from adabert_core.evaluate import scores

Outputs = TypeVar("Outputs", np.ndarray, Tensor)

MATRIX_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class for every text; outputs are the classes' logits."""

    labels: Sequence[str] = ()
    metric: str = "accuracy"
    class_weights: Sequence[float] | None = None

    name: ClassVar[str] = "classification"
    problem_type: ClassVar[str | None] = None  # what Hugging Face calls it, where it has to be told
    probe_metric: ClassVar[str] = "accuracy"
    severity: ClassVar[str] = "confidence"
    thresholded: ClassVar[bool] = False

    def hard_loss(self, student: Tensor, labels: Tensor) -> Tensor:
        """Student logits (B, c) and labels (B) -> scalar over known rows, each weighing as its class does."""
        return losses.label_cross_entropy(student, labels, losses.on_device(self.class_weights, student))

    def soft_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Student and teacher logits (B, c) -> scalar."""
        return losses.soft_cross_entropy(student, teacher, temperature)

    def layer_losses(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Student (M, B, c) and teacher probe logits (B, J+1, c) -> (M, J+1)."""
        return losses.layer_cross_entropies(student, teacher, temperature)

    def log_likelihoods(self, probes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Mean over rows of log P_T_j(y | x), (J+1): what weighs the layers in the distillation loss (AdaBERT eq. 6)."""
        logs = torch.log_softmax(torch.from_numpy(probes), dim=-1)
        return logs[torch.arange(len(labels)), :, torch.from_numpy(labels)].mean(0).numpy()

    def layer_scores(self, probes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Accuracy of every layer's probe, (J+1)."""
        return (probes.argmax(-1) == labels[:, None]).mean(0)

    def validation_loss(self, labels: np.ndarray, logits: np.ndarray) -> float:
        """Log loss."""
        return float(log_loss(labels, softmax(logits, axis=1), labels=range(logits.shape[1])))

    def thresholds(self, labels: np.ndarray, logits: np.ndarray) -> list[float] | None:
        """Nothing: the largest logit wins."""
        return None

    def predictions(self, logits: np.ndarray, thresholds: Sequence[float] | None = None) -> np.ndarray:
        """Class numbers (rows,)."""
        return logits.argmax(1)

    def scores(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Every metric, and the run's own as `score`."""
        return scores(labels, predictions, self.metric)

    def same(self, a: np.ndarray, b: np.ndarray, slack: float, thresholds: Sequence[float] | None = None) -> np.ndarray:
        """Which rows have the same answer, or one within `slack` of a tie, (rows,)."""
        top = np.sort(a, axis=1)
        return (a.argmax(1) == b.argmax(1)) | (top[:, -1] - top[:, -2] <= 2 * slack)

    def in_units(self, outputs: Outputs) -> Outputs:
        """The network's outputs as they are."""
        return outputs

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A last layer as it is."""
        return weight, bias

    def scale(self) -> float:
        """What a difference of logits is large against."""
        return 1.0

    def groups(self, labels: np.ndarray) -> np.ndarray:
        """Numbers of the rows that are alike enough for augmentation to join them, (rows,)."""
        return labels

    def useless(self, found: Mapping[str, float], labels: np.ndarray) -> str:
        """What a teacher with these scores is no better than, '' where it is better."""
        majority = np.bincount(labels).max() / len(labels)
        worse = found["accuracy"] <= majority and found["matthews"] < 0.1
        return f"always answering the largest class ({majority:.3f})" if worse else ""

    def errors(
        self, labels: np.ndarray, teacher: np.ndarray, student: np.ndarray, logits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which rows' predictions only the teacher has right, and the student's confidence by its logits, (rows,) both."""
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return (student != labels) & (teacher == labels), powers.max(1) / powers.sum(1)

    def confusion(self, labels: np.ndarray, predictions: np.ndarray) -> list[list[int]]:
        """Counts, rows the true class and columns the answer; of many classes only [class, answer, count] that occur."""
        classes = len(self.labels)
        found = np.zeros((classes, classes), np.int64)
        np.add.at(found, (labels, predictions), 1)
        if classes <= MATRIX_CLASSES:
            return found.tolist()
        return np.column_stack([*np.nonzero(found), found[np.nonzero(found)]]).tolist()

    def words(self, answer: Any) -> str:
        """A label or prediction as a reader sees it."""
        return self.labels[int(answer)]

    def read(self, answers: Mapping[str, Sequence[Any]]) -> np.ndarray | None:
        """Predictions from the columns that a served model answers with, None if they are another task's."""
        numbers = {label: i for i, label in enumerate(self.labels)}
        given = [str(label) for label in answers.get("label", [])]
        return np.array([numbers[label] for label in given]) if given and set(given) <= set(numbers) else None
