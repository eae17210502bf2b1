"""Train, validation and test: who is where depends on a row's own text, and no text is in two splits.

Comes in: rows (text_a, text_b for pairs, label: a class number, a float or a tuple of class numbers) per published split.
Goes out: the three splits without duplicates or leaks, and how many rows were removed for which reason.

A row lies at a point of [0, 1) that a hash of its normalised text gives: test below test_fraction, then validation, then
train. Its label takes no part, so equal texts always share a split, and every class is spread in the same shares up to
chance; adding rows moves no old row. The one exception: a class that chance leaves out of a split (likely below some 30
rows) lends that split the row nearest to its range. That row goes home once the class has rows of its own there.
Each label of a set counts as a class here, and all numbers as one.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping

import numpy as np
import pandas as pd

from adabert_core.errors import UserError

SPLITS = ("train", "validation", "test")
UNLABELED = "unlabeled"
# Spaces and the marks of ASCII, Latin 1, general and CJK punctuation.
_MARKS = re.compile(r"[\s!-/:-@\[-`{-~\u00a1-\u00bf\u2000-\u206f\u3001-\u303f]+")
_ROWS_AT_ONCE = 100_000


def with_keys(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with `key`, the normalised text (both of a pair), and `point`, its hash as a number in [0, 1)."""
    keys = _normalised(rows["text_a"])
    if "text_b" in rows:
        keys = [f"{a}\x1f{b}" for a, b in zip(keys, _normalised(rows["text_b"]), strict=True)]
    digests = b"".join([hashlib.sha256(key.encode()).digest()[:8] for key in keys])
    points = np.frombuffer(digests, dtype=">u8") >> np.uint64(11)  # 53 bits, so that the largest stays below 1
    return rows.assign(key=keys, point=points / 2.0**53)


def letters(rows: pd.DataFrame) -> pd.Series:
    """The texts without spaces, marks and capitals, which sources write differently; a text of marks alone stays."""

    def bare(texts: pd.Series) -> pd.Series:
        plain = texts.str.normalize("NFC").str.casefold()
        found = plain.str.replace(_MARKS, "", regex=True)
        return found.where(found != "", plain.str.replace(r"\s+", "", regex=True))

    first = bare(rows["text_a"])
    return first + "\x1f" + bare(rows["text_b"]) if "text_b" in rows else first


def _normalised(texts: pd.Series) -> list[str]:
    keys = (" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)
    return [text if key == text else key for text, key in zip(texts, keys, strict=True)]  # most are as they were: one string


def drop_duplicates(published: Mapping[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
    """Returns the published splits without duplicates and leaks, and the counts of removed rows by reason.

    In train a text with several labels keeps the one most rows have, or none on a tie, and of several numbers the mean.
    Published validation and test rows keep theirs. A text in two splits stays in test, else in validation.
    """
    removed = dict.fromkeys(("duplicates", "conflicting_labels"), 0)
    rows = dict(published)
    agreed = _drop_minority_labels(rows["train"])
    removed["conflicting_labels"] = len(rows["train"]) - len(agreed)
    rows["train"] = agreed
    for split, frame in rows.items():
        # Sorted first: which of several spellings stays must not depend on the order of the file.
        texts = [column for column in ("text_a", "text_b") if column in frame]
        rows[split] = frame.sort_values(["key", "label", *texts]).drop_duplicates(["key", "label"]).reset_index(drop=True)
        removed["duplicates"] += len(frame) - len(rows[split])
    for kept, other in (("test", "validation"), ("test", "train"), ("validation", "train")):
        leaked = rows[other]["key"].isin(rows[kept]["key"]) if kept in rows and other in rows else pd.Series(dtype=bool)
        removed[f"{other}_rows_in_{kept}"] = int(leaked.sum())
        if leaked.any():
            rows[other] = rows[other][~leaked].reset_index(drop=True)
    return rows, removed


def _drop_minority_labels(rows: pd.DataFrame) -> pd.DataFrame:
    if rows["label"].dtype.kind == "f":
        return rows.assign(label=rows.groupby("key")["label"].transform("mean"))
    votes = rows.groupby(["key", "label"], as_index=False).size()
    best = votes[votes["size"] == votes.groupby("key")["size"].transform("max")]
    winners = best[~best.duplicated("key", keep=False)]
    return rows.merge(winners[["key", "label"]], on=["key", "label"])


def complete_splits(
    rows: Mapping[str, pd.DataFrame], validation_fraction: float, test_fraction: float
) -> dict[str, pd.DataFrame]:
    """Returns train, validation and test; those that were not published are carved from train.

    Raises:
        UserError: a split has to be carved and its fraction is 0, or the fractions leave nothing for train.
    """
    rows = dict(rows)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    carved = {split: fraction for split, fraction in fractions.items() if split not in rows}
    for split, fraction in carved.items():
        if fraction == 0:
            raise UserError(f"data.{split}_fraction=0, but the source has no {split} split of its own: set it to 0.1, say.")
    if sum(carved.values()) >= 1:
        raise UserError("data.validation_fraction and data.test_fraction leave no rows for train: their sum must be below 1.")
    if carved:
        train = rows["train"]
        places = _places(train, carved)
        rows |= {split: train[places == split] for split in ("train", *carved)}
    return {split: rows[split].reset_index(drop=True) for split in SPLITS}


def _places(rows: pd.DataFrame, carved: Mapping[str, float]) -> np.ndarray:
    """Returns the split's name of every row, each class in every split if it has a row for each."""
    ranges, low = {}, 0.0
    for split, fraction in carved.items():
        ranges[split] = (low, low + fraction)
        low += fraction
    ranges["train"] = (low, 1.0)
    points, order = rows["point"].to_numpy(), list(ranges)
    places = np.searchsorted([high for _, high in ranges.values()][:-1], points, side="right")
    for members in _members(rows["label"]):
        present = set(places[members].tolist())
        for place, split in enumerate(order):
            if place not in present:
                _lend(places, members, points, place, ranges[split])
    return np.array(order)[places]


def _members(labels: pd.Series) -> list[np.ndarray]:
    """Returns the row positions of every class."""
    if labels.dtype.kind == "f":
        return [np.arange(len(labels))]
    exploded = labels.reset_index(drop=True).explode().dropna()
    return [positions.to_numpy() for _, positions in exploded.index.to_series().groupby(exploded.to_numpy())]


def _lend(places: np.ndarray, members: np.ndarray, points: np.ndarray, place: int, bounds: tuple[float, float]) -> None:
    """Moves into split `place` the class's nearest row, out of the split where the class has most."""
    counts = np.bincount(places[members])
    if counts.max() > 1:
        lenders = members[places[members] == counts.argmax()]
        low, high = bounds
        distance = np.maximum(low - points[lenders], points[lenders] - high)
        places[lenders[distance.argmin()]] = place


def unlabeled_rows(rows: pd.DataFrame, splits: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Returns the different texts of `rows` that are in no split, and the counts of removed rows by reason.

    Rows and splits have their keys. Nothing of validation or test may be trained on, however it is written: the text may be
    from another source than theirs. Train's own texts have labels.
    """
    kept = rows.sort_values(["key", *(c for c in ("text_a", "text_b") if c in rows)]).drop_duplicates("key", ignore_index=True)
    removed = {"unlabeled_duplicates": len(rows) - len(kept)}
    held = {split: set(letters(part)) for split, part in splits.items() if split != "train"}
    written = {split: np.zeros(len(kept), bool) for split in splits}
    for start in range(0, len(kept), _ROWS_AT_ONCE):  # with millions of rows each copy of the text counts
        piece = slice(start, start + _ROWS_AT_ONCE)
        found = letters(kept.iloc[piece])
        for split, texts in held.items():
            written[split][piece] = found.isin(texts)
    for split, part in splits.items():
        leaked = kept["key"].isin(part["key"]) | written[split][kept.index]
        removed[f"unlabeled_rows_in_{split}"] = int(leaked.sum())
        kept = kept[~leaked]
    return kept.reset_index(drop=True), removed


def limit_train(splits: Mapping[str, pd.DataFrame], max_rows: int | None) -> tuple[dict[str, pd.DataFrame], int]:
    """Returns the splits with at most `max_rows` of train, those with the lowest points, and how many were left out."""
    train = splits["train"]
    kept = train if max_rows is None else train.nsmallest(max_rows, "point").reset_index(drop=True)
    return {**splits, "train": kept}, len(train) - len(kept)
