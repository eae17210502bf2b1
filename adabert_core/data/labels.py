"""What labels are: classes, numbers or sets of labels; one spelling per name whatever the file format, and their order.

Comes in: label columns as they were read. Goes out: strings (1, 1.0 and "1.0" are all "1"; true is "True"), floats, or tuples
of strings. A list in every cell is a set of labels; so is a string with `|` or `,` between names, if data.task says multilabel.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

METRICS = {  # of each task, the default first
    "classification": ("accuracy", "f1", "macro_f1", "matthews"),
    "regression": ("pearson", "spearman", "r2"),
    "multilabel": ("micro_f1", "macro_f1"),
}

MISSING = frozenset("nan NaN -nan -NaN NA <NA> N/A n/a #N/A #NA NULL null None".split())  # as pandas and others write it

_WHOLE = re.compile(r"[+-]?\d+")
_WHOLE_AS_FLOAT = re.compile(r"([+-]?\d+)\.0*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def class_names(column: pd.Series) -> pd.Series:
    """Returns the class name of every row; missing and blank labels become None, and so does what MISSING has among numbers."""
    names = {value: _name(value) for value in column.dropna().unique()}
    others = set(names.values()) - MISSING - {None}
    if others and all(_NUMBER.fullmatch(str(name)) for name in others):
        names = {value: None if name in MISSING else name for value, name in names.items()}
    return column.astype(object).map(names).astype(object)


def in_order(names: Collection[str], column: pd.Series) -> list[str]:
    """Returns the names sorted: in the data set's own order where it has one, else by number, else by letter."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [name for name in column.dtype.categories if name in names]
    if all(_WHOLE.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def is_measure(names: Collection[str]) -> bool:
    """Returns whether the names are numbers and not all of them whole: a target for regression."""
    return all(_NUMBER.fullmatch(name) for name in names) and not all(_WHOLE.fullmatch(name) for name in names)


def odd_among_measures(names: Collection[str]) -> set[str]:
    """Returns the few names that are no numbers where nearly all are, and not whole ones: typing errors in a regression."""
    known = {name for name in names if _NUMBER.fullmatch(name)}
    return set(names) - known if is_measure(known) and len(known) >= 0.9 * len(names) else set()


def task_of(columns: Sequence[pd.Series]) -> str:
    """Returns the task that the label columns of all files speak of: lists, numbers with decimals, or else classes."""
    cells = pd.concat([column.astype(object) for column in columns]).dropna()
    lists = structured(cells)
    if lists.any():
        return "multilabel" if lists.all() else "classification"
    return "regression" if is_measure(set(class_names(cells).dropna().unique())) else "classification"


def structured(column: pd.Series) -> np.ndarray:
    """Returns which cells are lists or objects, (rows,)."""
    if column.dtype != object:
        return np.zeros(len(column), dtype=bool)
    return np.array([isinstance(cell, list | dict | np.ndarray) for cell in column], dtype=bool)


def numbers(column: pd.Series) -> pd.Series:
    """Returns the finite number of every row, NaN where there is none."""
    found = pd.to_numeric(class_names(column), errors="coerce").astype(float)
    return found.where(np.isfinite(found))


def label_sets(column: pd.Series) -> pd.Series:
    """Returns the sorted tuple of label names of every row, which may be empty; None where it or one of its names is null."""
    strings = [cell for cell in column if isinstance(cell, str)]
    separator = "|" if any("|" in cell for cell in strings) else ","

    def names(cell: Any) -> tuple[str, ...] | None:
        if not isinstance(cell, str | list | np.ndarray):
            return None if pd.isna(cell) else (str(_name(cell)),)
        parts = cell.split(separator) if isinstance(cell, str) else cell
        if any(part is None or part != part for part in parts):
            return None
        return tuple(sorted({name for part in parts if (name := _name(part))}))

    return pd.Series([names(cell) for cell in column], dtype=object)


def _name(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    name = str(value).strip()
    if whole := _WHOLE_AS_FLOAT.fullmatch(name):
        return whole[1]
    return name or None
