"""A run's student scored on labelled rows that the run did not have: does it still hold on this week's texts?

Comes in: the folder of a run, rows with the run's columns and labels. Goes out: the run's metrics on them, what the student
scored on the run's own test split, and how many of the texts the run had seen.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adabert_core.api import load
from adabert_core.artifacts import MANIFEST, parse_manifest, read_json, read_manifest
from adabert_core.data.checks import check_columns_setting, clean_rows
from adabert_core.data.dataset import Dataset, read_dataset
from adabert_core.data.files import Table
from adabert_core.data.sources import read_unlabeled
from adabert_core.data.splits import SPLITS, UNLABELED, letters
from adabert_core.errors import UserError
from adabert_core.report import aligned
from adabert_core.tasks.classification import MATRIX_CLASSES, Classification
from adabert_core.tasks.regression import Regression

_SETTING = re.compile(r"(?<![\w/.-])data\.(text|label)(?![.\w])")  # no part of a file's name


def score_rows(
    given: Path, source: str, text: Sequence[str] = (), label: str = "", threads: int = 1, precision: str = "auto"
) -> dict[str, Any]:
    """Returns metric, score, all scores, rows, precision, `seen` by split, confusion, and `test_score`, None without a report.

    Args:
        given: the folder of a finished run, or of one of its stages.
        source: what `data.source` takes; of a folder every file counts. Without a header it has the run's columns.
        text: the text columns; default: the run's.
        label: the label column; default: the run's.
        threads: of the ONNX session, 0 for all cores.
        precision: as `api.load` has it.

    Raises:
        UserError: no finished run, or rows that training would refuse or whose labels the student does not know.
    """
    run = next((place for place in (given, given.resolve().parent) if (place / "prepare_data").is_dir()), None)
    if run is None:
        raise UserError(f"{given} holds no prepare_data: give the folder of a run, which says what its rows and labels are.")
    dataset, predictor = read_dataset(run / "prepare_data"), load(run, threads, precision)
    made = read_manifest(run / "retrain", "retrain")
    if made.data_version != dataset.data_version:
        raise UserError(f"{run}: its rows are not those its student was trained on: finish the run by its own command.")
    columns = read_json(dataset.path / "dataset.json")
    text, label = text or columns["text_columns"], label or columns["label_column"]
    if len(text) != 1 + dataset.pair:
        raise UserError(
            f"--text: {run} was trained on {'pairs, name two columns' if dataset.pair else 'single texts, name one'}."
        )
    with _options_named():
        text = check_columns_setting(text, label)
        tables = list(read_unlabeled(source, text, label, columns.get("columns", ())).values())
        if not tables:
            raise UserError(f"--data {source}: every split hides its labels; give rows with labels.")
        parts = [clean_rows(table, text, label, dataset.task.name) for table in tables]
    known = np.concatenate([_numbered(part["label"], table, dataset) for part, table in zip(parts, tables, strict=True)])
    rows = pd.concat(parts, ignore_index=True)
    texts = list(zip(rows["text_a"], rows["text_b"], strict=True)) if dataset.pair else rows["text_a"].tolist()
    answers = predictor(texts)
    said = {name: [answer[name] for answer in answers] for name in answers[0]}
    if "labels" in said:
        said["labels"] = [json.dumps(labels) for labels in said["labels"]]
    predictions = dataset.task.read(said)
    if predictions is None:
        raise UserError(f"{run}: its student answers with other labels than its rows have; run it again.")
    scores = dataset.task.scores(known, predictions)
    return {
        "source": source,
        "rows": len(rows),
        "metric": dataset.metric,
        "score": scores["score"],
        "scores": scores,
        "precision": predictor.precision,
        "test_score": _test_score(run, made.digest, predictor.precision),
        "seen": _seen(rows, dataset),
        "labels": dataset.labels,
        "confusion": dataset.task.confusion(known, predictions) if isinstance(dataset.task, Classification) else None,
    }


def summary(found: dict[str, Any]) -> str:
    """What `score_rows` returned as a reader sees it: a sentence, classes with their rows, and a warning for known texts."""
    before = f"; {found['test_score']:.4f} on the run's own test split" if found["test_score"] is not None else ""
    lines = [
        f"{found['metric'].replace('_', ' ')} {found['score']:.4f} on {_texts(found['rows'])} of {found['source']} "
        f"({found['precision']}){before}"
    ]
    if found["confusion"] and len(found["labels"]) <= MATRIX_CLASSES:
        matrix = np.array(found["confusion"])
        table = [["class", "rows", "answered", "recall", "precision"]]
        for name, rows, answered, right in zip(found["labels"], matrix.sum(1), matrix.sum(0), matrix.diagonal(), strict=True):
            shares = [f"{right / count:.3f}" if count else "-" for count in (rows, answered)]
            table.append([name, f"{rows:,}", f"{answered:,}", *shares])
        lines.append(aligned(table))
    learned = ("train", "validation", UNLABELED)
    known = ", ".join(f"{found['seen'][split]:,} in {split}" for split in learned if found["seen"].get(split))
    if known:
        lines.append(
            f"warning    of these texts the run had {known}: a student scores better on what it was trained or chosen on"
        )
    return "\n".join(lines)


def _texts(count: int) -> str:
    return f"{count:,} text{'' if count == 1 else 's'}"


@contextlib.contextmanager
def _options_named() -> Iterator[None]:
    """Names this command's options in the sentences of prepare_data, which speak of its settings."""
    try:
        yield
    except UserError as error:
        said = _SETTING.sub(lambda found: f"--{found[1]}", str(error))
        raise UserError(
            re.sub(r"(?<![\w/.-])data\.unlabeled(=?)", lambda found: "--data " if found[1] else "--data", said)
        ) from error


def _numbered(labels: pd.Series, table: Table, dataset: Dataset) -> np.ndarray:
    """Labels as `tasks` has them; a name that the run does not know is named with its row."""
    if isinstance(dataset.task, Regression):
        return labels.to_numpy(np.float32)
    numbers = {name: number for number, name in enumerate(dataset.labels)}
    found = np.zeros((len(labels), len(numbers)), np.int8)
    for row, names in enumerate(labels):
        for name in [names] if isinstance(names, str) else names:
            if name not in numbers:
                raise UserError(
                    f"{table.place(row)}: the label {name!r} is none that the student knows ({', '.join(dataset.labels[:8])}); "
                    "correct it, or train with rows of it."
                )
            found[row, numbers[name]] = 1
    return found.argmax(1) if isinstance(dataset.task, Classification) else found


def _seen(rows: pd.DataFrame, dataset: Dataset) -> dict[str, int]:
    """How many of the rows have a text that is in a split of the run's, by split."""
    targets = dataset.path.parent / "distill_targets" / "targets.json"
    used = read_json(targets).get("unlabeled_rows", 0) if targets.is_file() else None
    splits = {name: dataset.split(name) for name in SPLITS} | {UNLABELED: dataset.unlabeled(used)}
    keys, found = letters(rows), {}
    for name, split in splits.items():
        if split is not None:
            texts = {"text_a": split.text_a} | ({} if split.text_b is None else {"text_b": split.text_b})
            found[name] = int(keys.isin(letters(pd.DataFrame(texts))).sum())
    return found


def _test_score(run: Path, student: str, precision: str) -> float | None:
    """What the benchmark of this very student (its digest) found, None without one."""
    report, manifest = (run / "benchmark" / name for name in ("report.json", MANIFEST))
    if not report.is_file() or not manifest.is_file() or parse_manifest(manifest).parents.get("student") != student:
        return None
    test = read_json(report)["student"]["metrics"]["test"]
    return float(test["int8" if precision == "int8" and "int8" in test else "onnx"]["score"])
