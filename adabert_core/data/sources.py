"""Finds the rows that `data.source` and `data.unlabeled` name: builtin data, a hub dataset, a file or a folder, here or on S3.

Comes in: the source. Goes out: a `Table` per published split, named train, validation or test. A source without
published splits has only train; splits.py carves the others from it. Of unlabeled text every file or split counts.
"""

import dataclasses
import functools
import importlib
import logging
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adabert_core.data.builtin import ROWS, imdb_sentences, movie_reviews, news_pairs
from adabert_core.data.files import Table, file_format, formats, plain_cells, read_file
from adabert_core.errors import UserError

log = logging.getLogger(__name__)
_OTHER_DATA = frozenset(".xlsx .xls .ods .zip .7z .tar .xz .txt .dat .arrow .feather .orc .avro .pkl .pickle .npz .xml".split())

SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
_HIDDEN_LABEL = -1
_MIN_MEAN_RATING = 0.5
_Reader = Callable[[Path], Table]
_FolderReader = Callable[[Path, _Reader], dict[str, Table]]


def read_source(source: str, label: str, columns: Sequence[str] = ()) -> dict[str, Table]:
    """Returns the tables of a source by split name; train is always there.

    Where only train and validation are published, that validation is returned as test ("dev as published"): results are
    then comparable with others', and nothing is selected on it, since another validation split is carved from train.
    Hub labels with names come as ordered categories, and a test split that hides its labels, as GLUE's do, is left out. `columns`
    are those of CSV and TSV files without a header.

    Raises:
        UserError: the source does not exist, cannot be reached or read, or has no train split.
    """
    if source.startswith("builtin:"):
        return {"train": _read_reviews(source)}
    if source.startswith("hf:"):
        return _validation_as_test(_read_hub(source, label))
    tables = _read_place(source, functools.partial(read_file, columns=columns), _read_folder)
    if "test" in tables and _lacks_labels(tables["test"].frame, tables["train"].frame, label):
        log.warning("%s has no column %r and is not used", tables.pop("test").name, label)
    return _validation_as_test(tables)


def read_unlabeled(source: str, text: Sequence[str], label: str = "", columns: Sequence[str] = ()) -> dict[str, Table]:
    """Returns the tables of a source by the name of the split or the file in a folder, whatever that is; labels are not needed.

    Where `label` names a column, a hub's labels are their names, and its splits that hide them are left out. `text` are the
    columns to be read: those of what is builtin have whatever names are wanted. `columns` are those of CSV and TSV files
    without a header.

    Raises:
        UserError: the source does not exist, cannot be reached or read, or is a folder without a readable file.
    """
    try:
        if source.startswith("builtin:"):
            return {"train": _read_builtin(source, text, label)}
        if source.startswith("hf:"):
            published = {split: rows for split, rows in _load_hub(source).items() if not _hides_labels(rows, label)}
            return {split: _hub_table(f"{source} {split}", rows, label) for split, rows in published.items()}
        return _read_place(source, functools.partial(read_file, columns=columns), _read_all)
    except UserError as error:
        raise UserError(str(error).replace("data.source", "data.unlabeled")) from error


def _read_place(source: str, read: _Reader, read_folder: _FolderReader) -> dict[str, Table]:
    if not source.strip():
        raise UserError("data.source is empty: name a file, a folder or another source.")
    if source.startswith("s3://"):
        return _read_s3(source, read, read_folder)
    if "://" in source:
        raise UserError(f"data.source={source}: only paths, s3://, builtin: and hf: sources are read; copy the file here first.")
    return _read_path(Path(source).expanduser(), read, read_folder)


def _read_path(path: Path, read: _Reader, read_folder: _FolderReader) -> dict[str, Table]:
    if path.is_dir():
        return read_folder(path, read)
    if not path.is_file():
        raise UserError(f"data.source={path}: no such file or folder, seen from {Path.cwd()}; check the path.")
    return {"train": read(path)}


def _read_s3(source: str, read: _Reader, read_folder: _FolderReader) -> dict[str, Table]:
    """Returns the tables of an object or of the objects below a prefix; errors name them by their URI."""
    from adabert_core.s3 import fetch  # here: boto3 takes its time, and most sources do without

    with tempfile.TemporaryDirectory(prefix="adabert-source-") as scratch:
        path = fetch(source, Path(scratch))
        there = source.rstrip("/") if path == Path(scratch) else source.rpartition("/")[0]
        try:
            tables = _read_path(path, read, read_folder)
        except UserError as error:
            raise UserError(str(error).replace(scratch, there)) from error
        return {split: dataclasses.replace(table, name=table.name.replace(scratch, there)) for split, table in tables.items()}


def _read_builtin(source: str, text: Sequence[str], label: str) -> Table:
    """Returns builtin rows for text columns of any names, with labels where they have some."""
    if source not in ROWS:
        raise UserError(f"{source} is not known; what is builtin are {', '.join(ROWS)}.")
    pair = source == "builtin:news-pairs"
    if pair != (len(text) == 2):
        held, wanted = ("pairs", "single texts") if pair else ("single texts", "pairs")
        raise UserError(f"{source} has {held}, and {wanted} are wanted: name a file or a folder.")
    if source == "builtin:movie-reviews":
        rows = _read_reviews(source)
        frame = rows.frame.drop(columns=[column for column in text if column != "text"], errors="ignore")
        return dataclasses.replace(rows, frame=frame.rename(columns={"text": text[0]}))
    if label:
        raise UserError(f"{source} has no labels: name rows that have some.")
    if pair:
        return Table(source, pd.read_csv(news_pairs(), names=list(text), dtype=str, keep_default_na=False))
    return Table(source, pd.DataFrame({text[0]: imdb_sentences().read_text(encoding="utf-8").removesuffix("\n").split("\n")}))


def _read_reviews(source: str) -> Table:
    """Returns the movie reviews with text and label, the sign of the mean rating; near-neutral ones are left out."""
    if source in ROWS and source != "builtin:movie-reviews":
        raise UserError(f"data.source={source} has no labels; it is for data.unlabeled.")
    if source != "builtin:movie-reviews":
        raise UserError(f"data.source={source} is not known; the builtin source is builtin:movie-reviews.")
    lines = movie_reviews().read_bytes().decode("utf-8").removesuffix("\r\n").split("\r\n")
    frame = pd.DataFrame([line.split("\t", 2) for line in lines], columns=["id", "rating", "text"])
    rating = frame.pop("rating").astype(float)
    frame["label"] = pd.Series(["positive" if mean > 0 else "negative" for mean in rating])
    kept = frame.index[rating.abs() >= _MIN_MEAN_RATING]
    return Table(source, frame.loc[kept].reset_index(drop=True), lambda row: int(kept[row]) + 1)


def _read_folder(folder: Path, read: _Reader) -> dict[str, Table]:
    found: dict[str, Path] = {}
    odd: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if split := _split_of(re.split(r"[.-]", path.name, maxsplit=1)[0]):
            if "-" in path.name.partition(".")[0] or not path.is_file() or file_format(path) is None:
                if path.is_dir() or {suffix.lower() for suffix in path.suffixes} & {*_OTHER_DATA, *formats().split(", ")}:
                    odd.setdefault(split, path)
                continue
            if split in found:
                raise UserError(f"{folder} has two files for {split}, {found[split].name} and {path.name}; remove one.")
            found[split] = path
    for split in sorted(odd.keys() - found.keys() - {"train"}):  # it would be carved from train, and nobody would know
        raise UserError(
            f"{odd[split]} looks like the {split} split and is not read: give one file {split} ({formats()}), or move it away."
        )
    if "train" not in found:
        seen = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise UserError(f"{folder} has no train file ({formats()}), only {seen}; name the files train, validation and test.")
    return {split: read(path) for split, path in found.items()}


def _lacks_labels(test: pd.DataFrame, train: pd.DataFrame, label: str) -> bool:
    """Whether train has labels and test none, not even by another name: what only test has numbers its rows."""
    if label in test or label not in train:
        return False
    added = [test[column].astype(str) for column in test if column not in train]
    return all(values.is_unique and values.str.isdecimal().all() for values in added)


def _read_all(folder: Path, read: _Reader) -> dict[str, Table]:
    found = {path.name: read(path) for path in sorted(folder.iterdir()) if path.is_file() and file_format(path)}
    if not found:
        raise UserError(f"{folder} has no file that can be read ({formats()}); put the texts there in one.")
    return found


def _validation_as_test(tables: dict[str, Table]) -> dict[str, Table]:
    if "validation" in tables and "test" not in tables:
        tables["test"] = tables.pop("validation")
    return tables


def _split_of(name: str) -> str | None:
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def _read_hub(source: str, label: str) -> dict[str, Table]:
    published = _load_hub(source)
    names = {split: key for key in published if (split := _split_of(key))}
    if "train" not in names:
        if len(published) != 1:
            raise UserError(f"data.source={source} has no train split, only {', '.join(published)}; choose another.")
        names = {"train": next(iter(published))}
    ignored = sorted(set(published) - set(names.values()))
    if ignored:
        log.warning("%s: the splits %s are not used", source, ", ".join(ignored))
    tables = {split: _hub_table(f"{source} {key}", published[key], label) for split, key in names.items()}
    if "test" in tables and _hides_labels(published[names["test"]], label):
        log.warning("%s: the test split hides its labels and is not used", source)
        del tables["test"]
    return tables


def _load_hub(source: str) -> dict[str, Any]:
    """Returns the splits of `hf:[OWNER/]DATASET[/CONFIG]` or of a local folder after `hf:`."""
    name = source.removeprefix("hf:")
    datasets = importlib.import_module("datasets")  # slow to import, and most sources do without
    if (Path(name).expanduser() / "dataset_dict.json").is_file():
        return dict(datasets.load_from_disk(str(Path(name).expanduser())))
    head, _, tail = name.rpartition("/")
    readings: list[tuple[str, ...]] = [(name,)] if name.count("/") < 2 or Path(name).expanduser().is_dir() else []
    if head and not Path(name).expanduser().is_dir():
        readings.append((head, tail))
    reasons = []
    for reading in readings:
        try:
            return dict(datasets.load_dataset(*reading))
        except (OSError, ValueError, RuntimeError) as error:
            reasons.append(re.sub(r"\s+", " ", str(error)).strip().rstrip("."))
    raise UserError(
        f"data.source={source} cannot be loaded ({'; '.join(reasons)}): check its name (hf:DATASET or hf:DATASET/CONFIG) "
        "and the network, or load it once into the local cache where there is one."
    )


def _hub_table(name: str, rows: Any, label: str) -> Table:
    frame = _frame_of(rows)
    class_names = getattr(rows.features.get(label), "names", None)
    if class_names:
        codes = frame[label].where(frame[label] != _HIDDEN_LABEL, None)
        named = codes.map(dict(enumerate(class_names)))
        frame[label] = pd.Categorical(named, categories=class_names, ordered=True)
    return Table(name, frame)


def _frame_of(rows: Any) -> pd.DataFrame:
    return plain_cells(rows.to_pandas())


def _hides_labels(rows: Any, label: str) -> bool:
    return label in rows.column_names and set(rows.unique(label)) == {_HIDDEN_LABEL}
