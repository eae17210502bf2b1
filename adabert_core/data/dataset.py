"""The reading side of a DatasetDir, for every stage after prepare_data.

Comes in: the directory. Goes out: its class names, metric and splits, checked against the manifest.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet

from adabert_core.artifacts import read_json, read_manifest
from adabert_core.data.splits import SPLITS, UNLABELED
from adabert_core.errors import UserError
from adabert_core.tasks import Task, task_of

_ROWS_AT_ONCE = 16_384  # a whole table of texts takes four times their room while it is read


@dataclasses.dataclass(frozen=True)
class Split:
    """One split's rows in the order of their ids; `text_b` is None unless the task is about pairs."""

    text_a: list[str]
    text_b: list[str] | None
    labels: np.ndarray  # as `tasks` has them: (rows,) int64 or float32, or (rows, labels) int8

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.text_a)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a DatasetDir holds; a label's number is its index in `labels`."""

    path: Path
    task: Task
    pair: bool
    data_version: str

    @property
    def labels(self) -> list[str]:
        """The names of the network's outputs."""
        return list(self.task.labels)

    @property
    def metric(self) -> str:
        """What the run selects by."""
        return self.task.metric

    def split(self, name: str) -> Split:
        """Returns the rows of train, validation or test.

        Raises:
            UserError: there is no such split.
        """
        if name not in SPLITS:
            raise UserError(f"{self.path} has no split {name!r}; choose {', '.join(SPLITS)}.")
        return self._rows(name)

    def unlabeled(self, limit: int | None = None) -> Split | None:
        """Returns the rows without a label (-1), at most `limit`, those of the smallest ids; None where there are none."""
        if limit == 0 or not (self.path / f"{UNLABELED}.parquet").is_file():
            return None
        rows = self._rows(UNLABELED, limit)
        return rows if len(rows) else None

    def _rows(self, name: str, limit: int | None = None) -> Split:
        file = pyarrow.parquet.ParquetFile(self.path / f"{name}.parquet")
        texts = ["text_a", "text_b"] if self.pair else ["text_a"]
        labelled = "label" in file.schema_arrow.names
        found: dict[str, list[str]] = {column: [] for column in texts}
        labels = [] if labelled else [np.full(min(file.metadata.num_rows, limit or sys.maxsize), -1, np.int64)]
        for piece in file.iter_batches(_ROWS_AT_ONCE, columns=[*texts, *(["label"] if labelled else [])]):
            wanted = piece.slice(0, None if limit is None else limit - len(found["text_a"]))
            for column in texts:
                found[column] += wanted[column].to_pylist()
            if labelled:
                labels.append(self._labels(wanted["label"]))
            if len(found["text_a"]) == limit:
                break
        return Split(found["text_a"], found.get("text_b"), np.concatenate(labels or [np.zeros(0, np.int64)]))

    def _labels(self, column: pyarrow.Array) -> np.ndarray:
        if pyarrow.types.is_floating(column.type):
            return column.to_numpy().astype(np.float32)
        if not pyarrow.types.is_list(column.type):
            return column.to_numpy().astype(np.int64)
        found = np.zeros((len(column), len(self.labels)), np.int8)
        found[np.repeat(np.arange(len(column)), column.value_lengths().to_numpy()), column.flatten().to_numpy()] = 1
        return found


def read_dataset(path: Path) -> Dataset:
    """Returns the dataset that prepare_data wrote to `path`.

    Raises:
        UserError: `path` is not a finished directory of prepare_data.
    """
    manifest = read_manifest(path, "prepare_data")
    about = read_json(path / "dataset.json")
    return Dataset(path, task_of(about), about["pair"], manifest.data_version)
