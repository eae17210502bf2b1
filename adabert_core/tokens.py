"""Token ids as flat arrays, and batches made from them without a loop over rows.

Comes in: texts, once. Goes out: `Ragged` arrays without special tokens, and padded batches with them, for teacher and student
alike: nothing is tokenised twice.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TEXTS_AT_ONCE = 16_384
_CHARACTERS_AT_ONCE = 2**21


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one flat array: row i is values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray  # int32
    offsets: np.ndarray  # int64, one more than there are rows

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Length of every row."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        """Packs lists."""
        values = np.fromiter(itertools.chain.from_iterable(rows), np.int32)
        return cls(values, offsets_of(np.fromiter(map(len, rows), np.int64, len(rows))))

    @classmethod
    def concatenate(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """The rows of all parts, one after the other."""
        return cls(np.concatenate([p.values for p in parts]), offsets_of(np.concatenate([p.lengths for p in parts])))

    def positions(self, rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Flat positions of `lengths[i]` tokens of row `rows[i]` from its token `starts[i]` on."""
        return np.repeat(self.offsets[rows] + starts - offsets_of(lengths)[:-1], lengths) + np.arange(lengths.sum())

    def take(self, rows: np.ndarray, starts: np.ndarray | None = None, lengths: np.ndarray | None = None) -> "Ragged":
        """Returns the rows (or a span of each) in the order given."""
        lengths = self.lengths[rows] if lengths is None else lengths
        starts = np.zeros_like(lengths) if starts is None else starts
        return Ragged(self.values[self.positions(rows, starts, lengths)], offsets_of(lengths))

    def save(self, stem: Path) -> None:
        """Writes STEM.tokens.npy and STEM.offsets.npy."""
        np.save(f"{stem}.tokens.npy", self.values)
        np.save(f"{stem}.offsets.npy", self.offsets)

    @classmethod
    def load(cls, stem: Path) -> "Ragged":
        """Reads what `save` wrote, memory-mapped."""
        return cls(np.load(f"{stem}.tokens.npy", mmap_mode="r"), np.load(f"{stem}.offsets.npy"))


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Offsets (n + 1) of rows with the given lengths."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class TokenRows:
    """Tokenised rows: text A and, for pairs, text B; `cut` of those that a tokenizer made were longer than they may be."""

    a: Ragged
    b: Ragged | None
    cut: int = 0

    def __len__(self) -> int:
        return len(self.a)

    @classmethod
    def concatenate(cls, parts: Sequence["TokenRows"]) -> "TokenRows":
        """The rows of all parts, one after the other."""
        seconds = [p.b for p in parts if p.b is not None]
        return cls(Ragged.concatenate([p.a for p in parts]), Ragged.concatenate(seconds) if seconds else None)

    def take(self, rows: np.ndarray) -> "TokenRows":
        """Returns the rows in the order given."""
        return TokenRows(self.a.take(rows), None if self.b is None else self.b.take(rows))


@dataclasses.dataclass(frozen=True)
class Template:
    """The special tokens a tokenizer puts around and between texts, found by looking at what it does."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]  # between A and B; empty for single texts
    suffix: tuple[int, ...]
    pad_id: int
    segments: bool  # the model tells texts apart by token_type_ids

    @classmethod
    def of(cls, tokenizer: Any, pair: bool) -> "Template":
        """Returns the template of a fast tokenizer for single texts or for pairs."""
        encoded = tokenizer("a", "b") if pair else tokenizer("a")
        ids, owners = encoded["input_ids"], encoded.sequence_ids(0)
        first = owners.index(0)
        last_a = len(owners) - 1 - owners[::-1].index(0)
        segments = "token_type_ids" in tokenizer.model_input_names
        pad = tokenizer.pad_token_id or 0
        if not pair:
            return cls(tuple(ids[:first]), (), tuple(ids[last_a + 1 :]), pad, segments)
        first_b = owners.index(1)
        last_b = len(owners) - 1 - owners[::-1].index(1)
        return cls(tuple(ids[:first]), tuple(ids[last_a + 1 : first_b]), tuple(ids[last_b + 1 :]), pad, segments)

    @property
    def size(self) -> int:
        """How many special tokens a row gets."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def tokenize(tokenizer: Any, template: Template, text_a: list[str], text_b: list[str] | None, max_length: int) -> TokenRows:
    """Returns the rows' token ids without special tokens, cut so that with them they have at most `max_length`.

    Pairs are cut longest first, as the tokenizer itself would.
    """
    budget = max_length - template.size
    if text_b is None:
        found, cut = _token_ids(tokenizer, text_a, budget)
        return TokenRows(found, None, cut)
    a, b = _token_ids(tokenizer, text_a)[0], _token_ids(tokenizer, text_b)[0]
    keep_a, keep_b = longest_first(a.lengths, b.lengths, budget)
    rows = np.arange(len(a))
    cut = int((a.lengths + b.lengths > budget).sum())
    return TokenRows(a.take(rows, lengths=keep_a), b.take(rows, lengths=keep_b), cut)


def _token_ids(tokenizer: Any, texts: list[str], longest: int | None = None) -> tuple[Ragged, int]:
    """The ids of all texts, the first `longest` of each, made some texts at a time, and how many were longer.

    What a tokenizer returns takes forty times the room of its ids, and the positions of what is kept six times.
    """
    found, cut = [], 0
    for some in _pieces(texts):
        piece = Ragged.of(tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"])
        if longest is not None:
            cut += int((piece.lengths > longest).sum())
            piece = piece.take(np.arange(len(piece)), lengths=np.minimum(piece.lengths, longest))
        found.append(piece)
    return Ragged.concatenate(found), cut


def _pieces(texts: list[str]) -> Iterator[list[str]]:
    """The texts in lists of bounded count and characters, of which a text alone may have more; one empty list of none."""
    first = characters = 0
    for i, text in enumerate(texts):
        if i > first and (i - first == _TEXTS_AT_ONCE or characters + len(text) > _CHARACTERS_AT_ONCE):
            yield texts[first:i]
            first, characters = i, 0
        characters += len(text)
    yield texts[first:]


def longest_first(length_a: np.ndarray, length_b: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of each text of a pair are kept when both may have `budget` (the tokenizers library's rule)."""
    swap = length_a > length_b
    short, long = np.minimum(length_a, length_b), np.maximum(length_a, length_b)
    cut_long = np.minimum(long, np.maximum(short, budget - short))
    over = short + cut_long > budget
    short, cut_long = np.where(over, budget // 2, short), np.where(over, budget // 2 + budget % 2, cut_long)
    return np.where(swap, cut_long, short), np.where(swap, short, cut_long)


class Collator:
    """Turns row indices into padded batches with special tokens (B, L).

    L is the longest row's length, or with `pad_to_multiple_of` the next multiple, though never more than the longest of all rows.
    """

    def __init__(self, rows: TokenRows, template: Template, pad_to_multiple_of: int = 1) -> None:
        self.rows, self.template, self.pad_to_multiple_of = rows, template, pad_to_multiple_of
        self._length_a = rows.a.lengths
        self._length_b = np.zeros_like(self._length_a) if rows.b is None else rows.b.lengths
        self.lengths = self._length_a + self._length_b + template.size
        self._longest = int(self.lengths.max(initial=0))

    def __call__(self, index: np.ndarray, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Returns input_ids and attention_mask, and token_type_ids where the model has segments."""
        template, rows = self.template, self.rows
        lengths = self.lengths[index]
        longest = int(lengths.max())
        shape = (len(index), min(longest + -longest % self.pad_to_multiple_of, self._longest))
        ids = np.full(shape, template.pad_id, np.int64)
        length_a = self._length_a[index]
        after = np.full(len(index), len(template.prefix))
        ids[:, : len(template.prefix)] = template.prefix
        _fill(ids, rows.a, index, length_a, after)
        after = after + length_a
        start_b = after
        if rows.b is not None:
            _put(ids, template.middle, after)
            start_b = after = after + len(template.middle)
            length_b = self._length_b[index]
            _fill(ids, rows.b, index, length_b, after)
            after = after + length_b
        _put(ids, template.suffix, after)
        column = np.arange(shape[1])
        batch = {"input_ids": ids, "attention_mask": (column < lengths[:, None]).astype(np.int64)}
        if template.segments:
            in_b = (column >= start_b[:, None]) if rows.b is not None else np.zeros(shape, bool)
            batch["token_type_ids"] = (in_b & (column < lengths[:, None])).astype(np.int64)
        return {name: sent(value, device) for name, value in batch.items()}


def sent(array: np.ndarray, device: torch.device | str) -> Tensor:
    """An array as a tensor on a device; a GPU's is copied from pinned memory, so that nobody waits for it."""
    found = torch.from_numpy(array)
    return found.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else found.to(device)


def _fill(ids: np.ndarray, source: Ragged, index: np.ndarray, lengths: np.ndarray, starts: np.ndarray) -> None:
    row = np.repeat(np.arange(len(index)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(offsets_of(lengths)[:-1], lengths)
    ids[row, np.repeat(starts, lengths) + within] = source.values[source.positions(index, np.zeros_like(lengths), lengths)]


def _put(ids: np.ndarray, marks: tuple[int, ...], starts: np.ndarray) -> None:
    for i, mark in enumerate(marks):
        ids[np.arange(len(ids)), starts + i] = mark


def length_sorted(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Row indices in batches of similar length, for passes whose order does not matter."""
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
