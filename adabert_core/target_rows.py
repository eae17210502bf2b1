"""The rows of a TargetsDir: written by distill_targets, read by search, retrain and benchmark."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from adabert_core.artifacts import read_json, read_manifest
from adabert_core.tasks import Task, task_of
from adabert_core.tokens import Ragged, TokenRows, sent


@dataclasses.dataclass(frozen=True)
class TargetRows:
    """Token rows with what the teacher says of them."""

    rows: TokenRows
    labels: np.ndarray  # (n,) class or number, or (n, labels); -1 or NaN where there is no trusted label
    teacher_logits: np.ndarray  # (n, classes)
    probe_logits: np.ndarray  # (n, J + 1, classes)

    def save(self, folder: Path) -> None:
        """Writes the arrays as .npy files."""
        folder.mkdir(parents=True)
        self.rows.a.save(folder / "a")
        if self.rows.b is not None:
            self.rows.b.save(folder / "b")
        for name in ("labels", "teacher_logits", "probe_logits"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> "TargetRows":
        """Reads them back, memory-mapped."""
        b = Ragged.load(folder / "b") if (folder / "b.tokens.npy").exists() else None
        arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("labels", "teacher_logits", "probe_logits"))
        return cls(TokenRows(Ragged.load(folder / "a"), b), *arrays)

    def with_real_share(self, share: float) -> np.ndarray:
        """Row indices of an epoch in which real rows, repeated as often as it takes, are at least `share` of all."""
        known = known_rows(self.labels)
        real, made = np.nonzero(known)[0], np.nonzero(~known)[0]
        repeats = max(1, math.ceil(share / (1 - share) * len(made) / max(len(real), 1)))
        return np.concatenate([np.tile(real, repeats), made])

    def batch(self, index: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (B,) or (B, labels), teacher logits (B, classes) and probe logits (B, J + 1, classes) of some rows."""
        return (
            sent(self.labels[index], device),
            sent(self.teacher_logits[index], device),
            sent(self.probe_logits[index], device),
        )


def known_rows(labels: np.ndarray) -> np.ndarray:
    """Which rows have a trusted label, (n,)."""
    if labels.dtype.kind == "f":
        return ~np.isnan(labels)
    return (labels if labels.ndim == 1 else labels[:, 0]) >= 0


def unknown_labels(like: np.ndarray, count: int) -> np.ndarray:
    """The labels of `count` rows that have none, of the kind of others."""
    return np.full((count, *like.shape[1:]), np.nan if like.dtype.kind == "f" else -1, like.dtype)


@dataclasses.dataclass(frozen=True)
class Targets:
    """A whole TargetsDir."""

    info: dict[str, Any]
    train: TargetRows
    validation: TargetRows
    vectors: dict[str, Tensor]

    @property
    def task(self) -> Task:
        """What the rows' labels and logits mean."""
        return task_of(self.info)

    @property
    def log_likelihoods(self) -> Tensor:
        """(J + 1) mean log-likelihood of the labels under each probe."""
        return torch.tensor(self.info["probe_log_likelihood"])


def read_targets(path: Path) -> Targets:
    """Returns the content of a TargetsDir, its manifest checked."""
    read_manifest(path, "distill_targets")
    vectors = load_file(path / "vectors.safetensors")
    return Targets(
        read_json(path / "targets.json"), TargetRows.load(path / "train"), TargetRows.load(path / "validation"), vectors
    )
