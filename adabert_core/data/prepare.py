"""Stage prepare_data: from the user's rows to a DatasetDir that every later stage reads.

Comes in: a DataConfig. Goes out: train, validation and test as Parquet (id, text_a, text_b for pairs, label), sorted by
id so that the order of the source changes nothing, unlabeled text likewise but for the label, if there is any, and
dataset.json with the task, its class names, the metric and the counts. A label is a class number, for regression a float,
for multi-label the list of its class numbers.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from adabert_core.artifacts import write_json
from adabert_core.config import DataConfig
from adabert_core.data import checks, splits
from adabert_core.data.labels import METRICS
from adabert_core.data.sources import read_source, read_unlabeled
from adabert_core.errors import UserError
from adabert_core.stages import StageReport, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)
STAGE = "prepare_data"
_IMBALANCED_SHARE = 0.75
_ROWS_AT_ONCE = 100_000


def run(config: DataConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints) -> StageReport:
    """Returns the report of a finished DatasetDir at `output`.

    Raises:
        UserError: a setting or the data are wrong; the sentence names file, line and what to do.
    """
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        task, text_columns, parts, names, removed = _read(config)
        metric = choose_metric(config.metric, parts["train"]["label"], task)
        frame.data_version = frame.outside = data_version(parts, names)
        frame.metrics.update({f"{split}_rows": float(len(part)) for split, part in parts.items()}, classes=float(len(names)))
        for split, part in parts.items():
            write_split(frame.path / f"{split}.parquet", part)
        description = _describe(task, parts, names) | {"metric": metric, "removed": removed}
        if config.class_weights == "balanced":
            description["class_weights"] = balanced_weights(parts["train"]["label"], task, len(names))
        columns = {"text_columns": text_columns, "label_column": config.label, "columns": config.columns}
        write_json(frame.path / "dataset.json", description | columns)
        _log_counts(config.source, task, parts, names, removed)
    return frame.finished


def fingerprint(config: DataConfig) -> str:
    """Returns the data_version of the rows as they are now, checked and split as `run` would, and writes nothing."""
    _, _, parts, names, _ = _read(config)
    return data_version(parts, names)


def _read(config: DataConfig) -> tuple[str, list[str], dict[str, pd.DataFrame], list[str], dict[str, int]]:
    """Returns the task, the text columns, the splits and unlabeled text, the class names and the counts of removed rows."""
    text_columns = checks.check_columns_setting(config.text, config.label)
    tables = read_source(config.source, config.label, config.columns)
    task = checks.choose_task(tables, config.label, config.task, text_columns)
    rows = {split: checks.clean_rows(table, text_columns, config.label, task) for split, table in tables.items()}
    names = checks.check_labels(tables, rows, config.label, task, config.task)
    del tables  # with millions of rows each copy of the text counts
    parts, removed = _split(rows, names, config, task)
    if config.unlabeled is not None:
        known = {split: splits.with_keys(part) for split, part in parts.items()}
        tables = read_unlabeled(config.unlabeled, text_columns, columns=config.columns)
        found = [checks.clean_rows(table, text_columns, None) for table in tables.values()]
        unlabeled, reasons = splits.unlabeled_rows(splits.with_keys(pd.concat(found, ignore_index=True)), known)
        parts, removed = parts | {splits.UNLABELED: _with_ids(unlabeled, names)}, removed | reasons
    return task, text_columns, parts, names, removed


def _split(
    rows: Mapping[str, pd.DataFrame], names: list[str], config: DataConfig, task: str
) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
    """Returns the three splits with ids, sorted by them, and the counts of removed rows by reason."""
    numbered = {split: part.assign(label=_numbered(part["label"], names, task)) for split, part in rows.items()}
    keyed = {split: splits.with_keys(part) for split, part in numbered.items()}
    distinct, removed = splits.drop_duplicates(keyed)
    if task == "regression":
        checks.check_enough_numbers(distinct, config.source)
    else:
        checks.check_class_sizes(distinct, names, config.source, removed["conflicting_labels"])
    parts = splits.complete_splits(distinct, config.validation_fraction, config.test_fraction)
    parts, removed["over_max_train_rows"] = splits.limit_train(parts, config.max_train_rows)
    if task != "regression":
        checks.check_every_class_everywhere(parts, names, config.source)
    return {split: _with_ids(part, names) for split, part in parts.items()}, removed


def _numbered(labels: pd.Series, names: list[str], task: str) -> pd.Series:
    numbers = {name: number for number, name in enumerate(names)}
    if task == "multilabel":
        return pd.Series([tuple(sorted(numbers[name] for name in names)) for names in labels], labels.index, dtype=object)
    return labels if task == "regression" else labels.map(numbers).astype("int64")


def _with_ids(part: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Returns the columns that are written; an id is a hash of the text and the label's words, so it outlives other rows."""
    classes = [_words(label, names) for label in part["label"]] if "label" in part else [""] * len(part)
    contents = zip(part["key"], classes, strict=True)
    ids = [hashlib.sha256(f"{key}\x1f{name}".encode()).hexdigest()[:16] for key, name in contents]
    written = [column for column in ("id", "text_a", "text_b", "label") if column in ("id", *part.columns)]
    return part.assign(id=ids)[written].sort_values("id").reset_index(drop=True)


def _words(label: int | float | tuple[int, ...], names: list[str]) -> str:
    if isinstance(label, tuple):
        return "|".join(names[number] for number in label)
    return repr(label) if isinstance(label, float) else names[label]


def choose_metric(metric: str, train_labels: pd.Series, task: str = "classification") -> str:
    """Returns the metric's name; "auto" is the task's first but macro_f1 where one class holds over 75 % of the train rows.

    Raises:
        UserError: the metric is another task's, or f1, the F1 of the second class, is asked for with more than two classes.
    """
    known = METRICS[task]
    if metric != "auto" and metric not in known:
        raise UserError(f"data.metric={metric} does not go with {task}: choose {', '.join(known)}.")
    if task != "classification":
        return known[0] if metric == "auto" else metric
    shares = train_labels.value_counts(normalize=True)
    if metric == "auto":
        return "macro_f1" if shares.max() > _IMBALANCED_SHARE else known[0]
    if metric == "f1" and len(shares) != 2:
        raise UserError(f"data.metric=f1 is for two classes and the data have {len(shares)}: choose macro_f1 or accuracy.")
    return metric


def balanced_weights(train_labels: pd.Series, task: str, classes: int) -> list[float]:
    """Returns each class's weight: rows / (classes * its rows), so that all weigh the same; for a label of sets no / yes.

    Raises:
        UserError: the task is regression, which has no classes.
    """
    if task == "regression":
        raise UserError("data.class_weights=balanced does not go with regression, which has no classes: set it to none.")
    counts = train_labels.explode().value_counts().reindex(range(classes)).to_numpy(dtype=float)
    rows = len(train_labels)
    return ((rows - counts).clip(min=1) / counts if task == "multilabel" else rows / (classes * counts)).tolist()


def data_version(parts: Mapping[str, pd.DataFrame], names: list[str]) -> str:
    """Returns 16 hex digits that change when, and only when, texts or labels of a split, unlabeled text or class names do."""
    digest = hashlib.sha256(json.dumps(names).encode())
    for split in [name for name in (*splits.SPLITS, splits.UNLABELED) if name in parts]:
        digest.update(split.encode())
        for column in parts[split].columns:
            for piece in _json_pieces(column, parts[split][column]):
                digest.update(piece.encode())
    return digest.hexdigest()[:16]


def _json_pieces(name: str, column: pd.Series) -> Iterator[str]:
    """Yields `json.dumps([name, column.tolist()])` piece by piece, which as a whole takes the room of the column again."""
    yield f"[{json.dumps(name)}, ["
    for first in range(0, len(column), _ROWS_AT_ONCE):
        piece = json.dumps(column.iloc[first : first + _ROWS_AT_ONCE].tolist())
        yield (", " if first else "") + piece[1:-1]
    yield "]]"


def write_split(path: Path, part: pd.DataFrame) -> None:
    """Writes one split as Parquet with plain string columns and labels of int64, float64 or lists of int64."""
    kinds = {"i": pa.int64(), "f": pa.float64(), "O": pa.list_(pa.int64())}
    types = {column: kinds[part[column].dtype.kind] if column == "label" else pa.string() for column in part.columns}
    table = pa.table({column: pa.array(part[column].tolist(), kind) for column, kind in types.items()})
    pyarrow.parquet.write_table(table, path)


def _describe(task: str, parts: Mapping[str, pd.DataFrame], names: list[str]) -> dict[str, Any]:
    about: dict[str, Any] = {
        "task": task,
        "labels": names,
        "pair": "text_b" in parts["train"],
        "counts": {split: len(part) for split, part in parts.items()},
    }
    if task == "regression":
        numbers = parts["train"]["label"].to_numpy()
        return about | {"mean": float(numbers.mean()), "std": float(numbers.std()) or 1.0}
    about["label_counts"] = {}
    for split in splits.SPLITS:
        counts = parts[split]["label"].explode().value_counts()
        about["label_counts"][split] = {name: int(counts.get(number, 0)) for number, name in enumerate(names)}
    return about


def _log_counts(source: str, task: str, parts: Mapping[str, pd.DataFrame], names: list[str], removed: Mapping[str, int]) -> None:
    counts = ", ".join(f"{len(part)} {split}" for split, part in parts.items())
    kinds = {
        "classification": f"in {len(names)} classes",
        "multilabel": f"with {len(names)} labels",
        "regression": "with numbers",
    }
    log.info("%s: %s rows %s", source, counts, kinds[task])
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in removed.items() if count)
    if reasons:
        log.warning("%s: rows removed: %s", source, reasons)
