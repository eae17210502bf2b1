"""The reading side of a DatasetDir, for every stage after prepare_data.

Comes in: the directory. Goes out: its class names, metric and splits, checked against the manifest.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet

from adabert_core.artifacts import read_json, read_manifest
from adabert_core.data.splits import SPLITS, UNLABELED
from adabert_core.errors import UserError
from adabert_core.tasks import Task, task_of


@dataclasses.dataclass(frozen=True)
class Split:
    """One split's rows in the order of their ids; `text_b` is None unless the task is about pairs."""

    ids: list[str]
    text_a: list[str]
    text_b: list[str] | None
    labels: np.ndarray  # as `tasks` has them: (rows,) int64 or float32, or (rows, labels) int8

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.ids)


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
        if not (self.path / f"{UNLABELED}.parquet").is_file():
            return None
        rows = self._rows(UNLABELED, limit)
        return rows if len(rows) else None

    def _rows(self, name: str, limit: int | None = None) -> Split:
        columns = pyarrow.parquet.read_table(self.path / f"{name}.parquet").slice(0, limit)
        text_b = columns["text_b"].to_pylist() if self.pair else None
        labelled = "label" in columns.column_names
        labels = self._labels(columns["label"]) if labelled else np.full(len(columns), -1, np.int64)
        return Split(columns["id"].to_pylist(), columns["text_a"].to_pylist(), text_b, labels)

    def _labels(self, column: pyarrow.ChunkedArray) -> np.ndarray:
        if pyarrow.types.is_floating(column.type):
            return column.to_numpy().astype(np.float32)
        if not pyarrow.types.is_list(column.type):
            return column.to_numpy().astype(np.int64)
        found, sets = np.zeros((len(column), len(self.labels)), np.int8), column.combine_chunks()
        found[np.repeat(np.arange(len(sets)), sets.value_lengths().to_numpy()), sets.flatten().to_numpy()] = 1
        return found


def read_dataset(path: Path) -> Dataset:
    """Returns the dataset that prepare_data wrote to `path`.

    Raises:
        UserError: `path` is not a finished directory of prepare_data.
    """
    manifest = read_manifest(path, "prepare_data")
    about = read_json(path / "dataset.json")
    return Dataset(path, task_of(about), about["pair"], manifest.data_version)
