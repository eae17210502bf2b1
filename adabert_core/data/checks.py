"""What rows must be like before anything is trained on them; every fault is one sentence that says where and what to do.

Comes in: tables as they were read. Goes out: clean texts and class names, or a UserError.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from adabert_core.data.files import Table, refuse_other_delimiter
from adabert_core.data.labels import (
    MISSING,
    class_names,
    in_order,
    is_measure,
    label_sets,
    numbers,
    odd_among_measures,
    structured,
    task_of,
)
from adabert_core.errors import UserError
from adabert_core.texts import is_broken, is_empty

log = logging.getLogger(__name__)
MIN_CLASS_ROWS = 10
MAX_CLASSES = 1000
_NAME_WORDS = 5  # a column's name of more is more likely a text
_PLAIN = ("string", "integer", "floating", "boolean")  # told without a look at every cell from Python


def check_columns_setting(text: str | Sequence[str], label: str) -> list[str]:
    """Returns the one or two text columns that `data.text` names.

    Raises:
        UserError: it names none, three or more, one twice, or the label column.
    """
    columns = [text] if isinstance(text, str) else list(text)
    if len(columns) not in (1, 2):
        raise UserError(f"data.text names {len(columns)} columns ({', '.join(columns)}): name one, or two for pairs of texts.")
    if len(set(columns)) < len(columns):
        raise UserError(f"data.text names the column {columns[0]!r} twice: name two different columns, or one.")
    if label in columns:
        raise UserError(f"data.text and data.label both name the column {label!r}: name the column that holds the classes.")
    return columns


def choose_task(tables: Mapping[str, Table], label_column: str, stated: str, text_columns: Sequence[str] = ()) -> str:
    """Returns the task that is stated or, for "auto", the one that the labels of all splits speak of.

    Raises:
        UserError: a table has no such column.
    """
    for table in tables.values():
        _check_column(table, "data.label", label_column, text_columns)
        _refuse_surrogates(table, label_column)
    return task_of([table.frame[label_column] for table in tables.values()]) if stated == "auto" else stated


def clean_rows(table: Table, text_columns: Sequence[str], label_column: str | None, task: str = "classification") -> pd.DataFrame:
    """Returns the rows as text_a, text_b (only for pairs) and label (unless no column is named).

    Texts and classes are strings, a regression's labels floats, sets of labels tuples of strings.

    Raises:
        UserError: there are no rows, a column is missing, a text is empty or a label is missing or of another kind.
    """
    for column in text_columns:
        _check_column(table, "data.text", column, [*text_columns, *([] if label_column is None else [label_column])])
    if label_column is not None:
        _check_column(table, "data.label", label_column, text_columns)
    if table.frame.empty:
        raise UserError(f"{table.name} has no rows: give a file with rows.")
    texts = {name: _texts(table, column) for name, column in zip(("text_a", "text_b"), text_columns, strict=False)}
    return pd.DataFrame(texts if label_column is None else {**texts, "label": _labels(table, label_column, task)})


def check_labels(
    tables: Mapping[str, Table],
    rows: Mapping[str, pd.DataFrame],
    label_column: str,
    task: str = "classification",
    stated: str = "auto",
) -> list[str]:
    """Returns the class names in order, or the column's name for regression; a class has its index here as its number.

    `stated` is the task as the user has it: where that is classification, numbers and words may be mixed.

    Raises:
        UserError: the labels are measures, too many, of one class only, or not the same in every split.
    """
    names = set().union(*(set(frame["label"].explode().dropna().unique()) for frame in rows.values()))
    total = sum(len(frame) for frame in rows.values())
    train = tables["train"]
    if task == "regression":
        if len(names) == 1:
            raise UserError(f"{train.name}: every row has the label {names.pop():g}; there is nothing to learn from it.")
        return [label_column]
    if task == "classification" and is_measure(names):
        _refuse_regression(tables, rows, label_column)
    if (task, stated) == ("classification", "auto") and (odd := odd_among_measures(names)):
        split = next(split for split, frame in rows.items() if frame["label"].isin(odd).any())
        strange = rows[split]["label"].isin(odd)
        raise UserError(
            f"{_first(tables[split], strange)}: the label {rows[split]['label'][strange].iloc[0]!r} in column {label_column!r} "
            "is no number, and nearly all others are measured ones; correct it, or set data.task=classification."
        )
    if not names:
        raise UserError(
            f"{train.name}: no row has any label in column {label_column!r}; set data.label to the column with labels."
        )
    if len(names) > MAX_CLASSES or (len(names) > 2 and len(names) > total / 2):
        raise UserError(
            f"{train.name}: column {label_column!r} has {len(names)} different values in {total} rows (at most {MAX_CLASSES} "
            "classes, each with several rows, are possible); set data.label to the column that holds the classes."
        )
    if len(names) == 1 and task == "classification":
        raise UserError(f"{train.name}: every row has the label {names.pop()!r}; add rows of at least one other class.")
    for mark in sorted(MISSING & names):
        log.warning("%s: the label %r is taken for a class; remove its rows if it means that they have none", train.name, mark)
    _check_same_classes(tables, rows)
    return in_order(names, train.frame[label_column])


def check_enough_numbers(rows: Mapping[str, pd.DataFrame], source: str) -> None:
    """Checks that a regression has enough different texts to be split.

    Raises:
        UserError: there are fewer than ten times MIN_CLASS_ROWS of them.
    """
    if (count := sum(map(len, rows.values()))) < 10 * MIN_CLASS_ROWS:
        raise UserError(f"{source} has only {count} different texts, regression needs at least {10 * MIN_CLASS_ROWS}; add rows.")


def check_class_sizes(rows: Mapping[str, pd.DataFrame], names: Sequence[str], source: str, conflicts: int = 0) -> None:
    """Checks that every class has enough different texts to be in every split.

    `conflicts` are rows that were left out because their text has other labels, too.

    Raises:
        UserError: a class has fewer than MIN_CLASS_ROWS of them.
    """
    labels = pd.concat([frame["label"] for frame in rows.values()]).explode()
    counts = labels.value_counts().reindex(range(len(names)), fill_value=0)
    if (smallest := int(counts.min())) < MIN_CLASS_ROWS:
        name = names[int(counts.idxmin())]
        raise UserError(
            f"{source}: class {name!r} has only {smallest} different texts, at least {MIN_CLASS_ROWS} are needed so that "
            f"it can be in every split; add rows of it or leave the class out.{_conflicts(conflicts)}"
        )


def _conflicts(rows: int) -> str:
    return f" {rows} rows do not count, since their text has another label as often or more often." if rows else ""


def check_every_class_everywhere(splits: Mapping[str, pd.DataFrame], names: Sequence[str], source: str) -> None:
    """Checks the finished splits.

    Raises:
        UserError: removing duplicates or limiting the train rows left a split without a class.
    """
    for split, frame in splits.items():
        absent = sorted(set(range(len(names))) - set(frame["label"].explode()))
        if absent:
            raise UserError(
                f"{source}: no row of class {names[absent[0]]!r} is left for {split} once duplicates are removed and "
                "data.max_train_rows is applied; add rows of it or raise the limit."
            )


def _refuse_regression(tables: Mapping[str, Table], rows: Mapping[str, pd.DataFrame], label_column: str) -> None:
    for split, frame in rows.items():
        measures = frame["label"].map(lambda name: is_measure({name}))
        if measures.any():
            value = frame["label"][measures].iloc[0]
            raise UserError(
                f"{_first(tables[split], measures)}: the label {value!r} in column {label_column!r} is a measured number; "
                "set data.task=regression, or write whole numbers or words as classes."
            )


def _check_column(table: Table, key: str, column: str, taken: Sequence[str]) -> None:
    known = [str(name) for name in table.frame.columns]
    if column in known:
        return
    refuse_other_delimiter(table.name, known)
    lowered = {name.lower(): name for name in known if name not in taken}
    near = difflib.get_close_matches(column.lower(), lowered, n=1, cutoff=0.0)
    hint = f"; did you mean {key}={lowered[near[0]]}?" if near else "."
    if any(len(name.split()) > _NAME_WORDS for name in known):
        hint = ". If its first line is a row, list the columns in data.columns."
    raise UserError(f"{table.name} has no column {column!r} ({key}), its columns are {', '.join(known)}{hint}")


def _texts(table: Table, column: str) -> pd.Series:
    cells = table.frame[column]
    _refuse_bytes(table, column)
    lists = structured(cells)
    if lists.any():
        raise UserError(f"{_first(table, lists)}: {column!r} holds a list or an object; write the text as one string.")
    texts = ["" if absent else str(cell) for cell, absent in zip(cells, cells.isna(), strict=True)]
    empty = np.array([is_empty(text) for text in texts])
    if empty.any():
        raise UserError(
            f"{_first(table, empty)}: the text in column {column!r} is empty ({int(empty.sum())} such rows); "
            "fill it in or remove the row."
        )
    broken = np.array([is_broken(text) for text in texts])
    if broken.any():
        raise UserError(f"{_first(table, broken)}: the text in column {column!r} holds half a surrogate pair; write it as UTF-8.")
    return pd.Series(texts, dtype=object)


def _labels(table: Table, column: str, task: str) -> pd.Series:
    cells = table.frame[column]
    _refuse_bytes(table, column)
    _refuse_surrogates(table, column)
    if task == "multilabel":
        nested = np.array([_nested(cell) for cell in cells])
        if nested.any():
            raise UserError(
                f"{_first(table, nested)}: the label in column {column!r} is an object or has one in its list; write a list of "
                "strings or numbers."
            )
        found = label_sets(cells)
    else:
        lists = structured(cells)
        if lists.any():
            raise UserError(
                f"{_first(table, lists)}: the label in column {column!r} is a list or an object, which {task} cannot use; write "
                "one string or number, or a list in every row for multi-label."
            )
        found = class_names(cells)
    missing = found.isna()
    if missing.any():
        raise UserError(
            f"{_first(table, missing)}: the label in column {column!r} is missing ({int(missing.sum())} such rows); "
            "fill it in or remove the row."
        )
    if task != "regression":
        return found
    measured = numbers(cells)
    if (strange := measured.isna()).any():
        raise UserError(
            f"{_first(table, strange)}: the label {found[strange].iloc[0]!r} in column {column!r} is no finite number, which "
            "data.task=regression needs; correct it or remove the row."
        )
    return measured


def _refuse_surrogates(table: Table, column: str) -> None:
    cells = table.frame[column]
    if cells.dtype != object:
        return
    broken = np.array(
        [any(isinstance(p, str) and is_broken(p) for p in (cell if isinstance(cell, list) else [cell])) for cell in cells]
    )
    if broken.any():
        raise UserError(f"{_first(table, broken)}: a label in column {column!r} holds half a surrogate pair; write it as UTF-8.")


def _nested(cell: object) -> bool:
    parts = cell if isinstance(cell, list | np.ndarray) else [cell]
    return any(isinstance(part, list | dict | np.ndarray) for part in parts)


def _refuse_bytes(table: Table, column: str) -> None:
    cells = table.frame[column]
    if infer_dtype(cells, skipna=True) in _PLAIN:
        return
    undecoded = np.array(
        [any(isinstance(part, bytes) for part in (cell if isinstance(cell, list) else [cell])) for cell in cells]
    )
    if undecoded.any():
        raise UserError(f"{_first(table, undecoded)}: {column!r} holds bytes that are not UTF-8; write it as strings.")


def _first(table: Table, faulty: pd.Series | np.ndarray) -> str:
    return table.place(int(np.argmax(np.asarray(faulty))))


def _check_same_classes(tables: Mapping[str, Table], rows: Mapping[str, pd.DataFrame]) -> None:
    known = set(rows["train"]["label"].explode().dropna())
    for split in rows.keys() - {"train"}:
        labels = rows[split]["label"].explode().dropna()
        strange = labels[~labels.isin(known)]
        if len(strange):
            raise UserError(
                f"{tables[split].place(int(strange.index[0]))}: the label {strange.iloc[0]!r} does not occur in "
                f"{tables['train'].name}; correct it, or add rows of this class there."
            )
        if absent := sorted(known - set(labels)):
            raise UserError(
                f"{tables[split].name} has no row of class {absent[0]!r}, which {tables['train'].name} has; "
                "every split needs every class, so add rows of it here or remove the class there."
            )
