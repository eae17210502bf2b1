"""Names of classes: one spelling per class whatever the file format, and their order.

Comes in: label columns as they were read. Goes out: strings (1, 1.0 and "1.0" are all "1"; true is "True").
"""

import re
from collections.abc import Collection
from typing import Any

import pandas as pd

_WHOLE = re.compile(r"[+-]?\d+")
_WHOLE_AS_FLOAT = re.compile(r"([+-]?\d+)\.0*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def class_names(column: pd.Series) -> pd.Series:
    """Returns the class name of every row; missing and blank labels become None."""
    return column.astype(object).map({value: _name(value) for value in column.dropna().unique()}).astype(object)


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


def _name(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    name = str(value).strip()
    if whole := _WHOLE_AS_FLOAT.fullmatch(name):
        return whole[1]
    return name or None
