"""Multi-label: any number of labels for every text, each decided by a threshold of its own.

Labels are sets, (rows, labels) of 0 and 1, -1 throughout where not known.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.special import expit
from torch import Tensor

from adabert_core import losses
from adabert_core.evaluate import set_scores

Outputs = TypeVar("Outputs", np.ndarray, Tensor)


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """Any number of labels for every text; outputs are one logit per label, each decided by a threshold of its own."""

    labels: Sequence[str] = ()
    metric: str = "micro_f1"
    class_weights: Sequence[float] | None = None

    name: ClassVar[str] = "multilabel"
    problem_type: ClassVar[str | None] = "multi_label_classification"
    probe_metric: ClassVar[str] = "micro_f1"
    severity: ClassVar[str] = "wrong_labels"
    thresholded: ClassVar[bool] = True

    def hard_loss(self, student: Tensor, labels: Tensor) -> Tensor:
        """Student logits (B, c) and label sets (B, c) -> scalar mean over known rows and labels."""
        return losses.label_binary_cross_entropy(student, labels, losses.on_device(self.class_weights, student))

    def soft_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Student and teacher logits (B, c) -> scalar."""
        return losses.soft_binary_cross_entropy(student, teacher, temperature)

    def layer_losses(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Student (M, B, c) and teacher probe logits (B, J+1, c) -> (M, J+1)."""
        return losses.layer_binary_cross_entropies(student, teacher, temperature)

    def log_likelihoods(self, probes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Mean over rows and labels of the log-likelihood, (J+1); a sum over many labels would make eq. 6 one-hot."""
        signs = torch.from_numpy(labels.astype(np.float32) * 2 - 1)
        return F.logsigmoid(torch.from_numpy(probes) * signs[:, None]).mean((0, 2)).numpy()

    def layer_scores(self, probes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Micro F1 of every layer's probe, each label yes from one half on, (J+1)."""
        layers = range(probes.shape[1])
        return np.array([set_scores(labels, self.predictions(probes[:, j]), "micro_f1")["score"] for j in layers])

    def validation_loss(self, labels: np.ndarray, logits: np.ndarray) -> float:
        """Mean binary log loss over rows and labels."""
        return float(np.logaddexp(0, -logits * (labels * 2.0 - 1)).mean())

    def thresholds(self, labels: np.ndarray, logits: np.ndarray) -> list[float] | None:
        """The probability of each label above which saying yes gives its best F1 on these rows, 0.5 where it is nowhere."""
        return [_best_threshold(labels[:, i], expit(logits[:, i].astype(np.float64))) for i in range(labels.shape[1])]

    def predictions(self, logits: np.ndarray, thresholds: Sequence[float] | None = None) -> np.ndarray:
        """Label sets (rows, labels) of 0 and 1."""
        return (expit(logits.astype(np.float64)) > (0.5 if thresholds is None else np.array(thresholds))).astype(np.int8)

    def scores(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Every metric, and the run's own as `score`."""
        return set_scores(labels, predictions, self.metric)

    def same(self, a: np.ndarray, b: np.ndarray, slack: float, thresholds: Sequence[float] | None = None) -> np.ndarray:
        """Which rows have the same labels but for those within `slack` of their threshold, (rows,)."""
        level = np.full(a.shape[1], 0.5) if thresholds is None else np.array(thresholds)
        near = np.abs(a - np.log(level / (1 - level))) <= slack
        return ((self.predictions(a, thresholds) == self.predictions(b, thresholds)) | near).all(1)

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
        """The number of each row's label set, (rows,)."""
        return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)

    def useless(self, found: Mapping[str, float], labels: np.ndarray) -> str:
        """What a teacher with these scores is no better than, '' where it is better."""
        every = set_scores(labels, np.ones_like(labels), "micro_f1")["score"]
        return f"always answering all labels (micro F1 {every:.3f})" if found["micro_f1"] <= every else ""

    def errors(
        self, labels: np.ndarray, teacher: np.ndarray, student: np.ndarray, logits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which rows' label sets only the teacher has right, and how many labels the student has wrong, (rows,) both."""
        wrong = (student != labels).sum(1)
        return (wrong > 0) & (teacher == labels).all(1), wrong

    def confusion(self, labels: np.ndarray, predictions: np.ndarray) -> list[list[int]]:
        """Label sets have none."""
        return []

    def words(self, answer: Any) -> str:
        """A label set as a reader sees it."""
        return ", ".join(self.labels[i] for i in np.flatnonzero(answer).tolist()) or "nothing"

    def read(self, answers: Mapping[str, Sequence[Any]]) -> np.ndarray | None:
        """Predictions from the columns that a served model answers with, None if they are another task's."""
        sets = [json.loads(words) for words in answers.get("labels", [])]
        if not sets or not {label for found in sets for label in found} <= set(self.labels):
            return None
        return np.array([[label in found for label in self.labels] for found in sets], np.int8)


def _best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    order = np.argsort(-probabilities, kind="stable")
    level = np.append(probabilities[order], 0.0)
    hits = np.cumsum(labels[order] > 0)
    quality = 2 * hits / (np.arange(1, len(order) + 1) + max(hits[-1], 1))  # F1 of saying yes to the first n
    quality[level[:-1] == level[1:]] = -1  # no threshold lies between equals
    best = np.flatnonzero(quality == quality.max())
    middles = (level[best] + level[best + 1]) / 2
    return float(np.clip(middles[np.abs(middles - 0.5).argmin()], 1e-6, 1 - 1e-6)) if hits[-1] else 0.5
