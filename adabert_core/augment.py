"""Augmented text for the teacher to score (AdaBERT section 3.4's recipe widened, see ALGORITHM section 7).

Comes in: tokenised train rows and the teacher's word embeddings. Goes out: new token rows; their labels are not trusted,
the teacher's answer is their target. Every generator works on flat arrays, whole rows at a time.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from adabert_core.errors import UserError
from adabert_core.tokens import Ragged, TokenRows, longest_first, offsets_of

_CHUNK = 1024
_WORD_MARKS = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write the start of a word; WordPiece marks the rest instead


def choose_rows(
    labels: np.ndarray, lengths: np.ndarray, augmented_rows: int, max_copies: int, rng: np.random.Generator
) -> np.ndarray:
    """Row indices to copy: `augmented_rows` in all, at most `max_copies` of a row on average.

    Rare classes get more than their share: a class is drawn in proportion to the root of its size. And a row is in proportion to
    its tokens (`lengths`): copies of a short text are soon the same again, those of a long one hold what is new (docs/LOG.md).
    """
    total = min(augmented_rows, max_copies * len(labels))
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = lengths / np.sqrt(counts[inverse])
    return rng.choice(len(labels), size=total, p=weights / weights.sum())


def copied_length(lengths: np.ndarray) -> float:
    """Tokens of the rows that `choose_rows` takes of rows with that many, on average."""
    return float(np.square(lengths, dtype=np.float64).sum() / max(lengths.sum(), 1))


def augment(
    rows: TokenRows,
    labels: np.ndarray,
    *,
    neighbours: np.ndarray,
    augmented_rows: int,
    max_copies: int,
    replace_probability: float,
    mix: Mapping[str, float],
    rng: np.random.Generator,
) -> TokenRows:
    """Returns new rows made by the generators of `mix` in proportion to their weights.

    Args:
        rows: tokenised train rows.
        labels: (rows,) class of each.
        neighbours: (vocabulary, k) replacement ids of each token, itself where there are none.
        augmented_rows: how many rows to make.
        max_copies: bound on the mean number of copies of a row.
        replace_probability: share of tokens the replacing generators change.
        mix: generator name -> weight.
        rng: the source of all draws.

    Raises:
        UserError: `mix` names a generator that does not exist.
    """
    check_mix(mix)
    lengths = rows.a.lengths + (0 if rows.b is None else rows.b.lengths)
    chosen = choose_rows(labels, lengths, augmented_rows, max_copies, rng)
    names = [name for name in GENERATORS if name in mix]  # a mapping's order is not part of what it says
    shares = np.array([mix[name] for name in names]) / sum(mix.values())
    bounds = np.round(np.cumsum(shares) * len(chosen)).astype(int)[:-1]
    made = []
    for name, part in zip(names, np.split(chosen, bounds), strict=True):
        if len(part):
            made.append(GENERATORS[name](rows, part, labels, neighbours, replace_probability, rng))
    return TokenRows.concatenate(made) if made else rows.take(np.array([], dtype=np.int64))


def check_mix(mix: Iterable[str]) -> None:
    """Checks that there are generators of these names.

    Raises:
        UserError: one is not known.
    """
    unknown = set(mix) - set(GENERATORS)
    if unknown:
        raise UserError(f"targets.mix: no generator named {sorted(unknown)[0]}; there are {', '.join(GENERATORS)}.")


def replace_words(
    rows: TokenRows, part: np.ndarray, labels: np.ndarray, neighbours: np.ndarray, p: float, rng: np.random.Generator
) -> TokenRows:
    """Each token becomes, with probability p, one of its neighbours in the teacher's embedding table."""
    taken = rows.take(part)
    b = None if taken.b is None else _replace(taken.b, neighbours, p, rng)
    return TokenRows(_replace(taken.a, neighbours, p, rng), b)


def join_halves(
    rows: TokenRows, part: np.ndarray, labels: np.ndarray, neighbours: np.ndarray, p: float, rng: np.random.Generator
) -> TokenRows:
    """First half of one text and second half of another of the same class; for pairs, A of one row with B of another."""
    partner = _same_class_partner(part, labels, rng)
    if rows.b is not None:
        a, b, index = rows.a.take(part), rows.b.take(partner), np.arange(len(part))
        longest = int((rows.a.lengths + rows.b.lengths).max())  # two long texts may have met
        keep_a, keep_b = longest_first(a.lengths, b.lengths, longest)
        return TokenRows(a.take(index, lengths=keep_a), b.take(index, lengths=keep_b))
    first, second = rows.a.lengths[part] // 2, rows.a.lengths[partner] // 2
    heads = rows.a.take(part, lengths=first)
    tails = rows.a.take(partner, starts=second, lengths=rows.a.lengths[partner] - second)
    return TokenRows(_join(heads, tails), None)


def cut_span(
    rows: TokenRows, part: np.ndarray, labels: np.ndarray, neighbours: np.ndarray, p: float, rng: np.random.Generator
) -> TokenRows:
    """A random stretch of each text, a third of it or more (n-gram sampling, Tang et al. 2019)."""

    def cut(text: Ragged) -> Ragged:
        full = text.lengths[part]
        length = np.clip(np.ceil(full * rng.uniform(1 / 3, 1, len(part))), np.minimum(full, 1), full).astype(np.int64)
        return text.take(
            part, starts=np.floor(rng.uniform(0, 1, len(part)) * (full - length + 1)).astype(np.int64), lengths=length
        )

    return TokenRows(cut(rows.a), None if rows.b is None else cut(rows.b))


def drop_words(
    rows: TokenRows, part: np.ndarray, labels: np.ndarray, neighbours: np.ndarray, p: float, rng: np.random.Generator
) -> TokenRows:
    """Each token is left out with probability p / 2; a text keeps at least its first token."""

    def drop(text: Ragged) -> Ragged:
        keep = rng.random(len(text.values)) >= p / 2
        keep[text.offsets[:-1][text.lengths > 0]] = True
        lengths = np.diff(np.concatenate([[0], np.cumsum(keep)])[text.offsets])
        return Ragged(text.values[keep], offsets_of(lengths))

    taken = rows.take(part)
    return TokenRows(drop(taken.a), None if taken.b is None else drop(taken.b))


GENERATORS = {"replace": replace_words, "halves": join_halves, "span": cut_span, "drop": drop_words}


def _replace(text: Ragged, neighbours: np.ndarray, p: float, rng: np.random.Generator) -> Ragged:
    hit = rng.random(len(text.values)) < p
    column = rng.integers(neighbours.shape[1], size=len(text.values))
    return Ragged(np.where(hit, neighbours[text.values, column], text.values).astype(np.int32), text.offsets)


def _same_class_partner(part: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.argsort(labels, kind="stable")
    classes, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    index = np.searchsorted(classes, labels[part])
    return order[starts[index] + np.floor(rng.random(len(part)) * counts[index]).astype(np.int64)]


def _join(heads: Ragged, tails: Ragged) -> Ragged:
    lengths = heads.lengths + tails.lengths
    values = np.empty(lengths.sum(), np.int32)
    starts = offsets_of(lengths)[:-1]
    for piece, begin in ((heads, starts), (tails, starts + heads.lengths)):
        within = np.arange(len(piece.values)) - np.repeat(piece.offsets[:-1], piece.lengths)
        values[np.repeat(begin, piece.lengths) + within] = piece.values
    return Ragged(values, offsets_of(lengths))


def nearest_tokens(table: torch.Tensor, tokens: list[str], used: np.ndarray, k: int) -> np.ndarray:
    """Returns (vocabulary, k) ids of the nearest whole words in an embedding table by cosine, for the `used` ids.

    A token that is not used, or is no whole alphabetic word, has only itself. `tokens` are the vocabulary's strings.
    """
    vocabulary = len(table)
    result = np.repeat(np.arange(vocabulary, dtype=np.int32)[:, None], k, axis=1)
    mark = next((m for m in _WORD_MARKS if sum(token.startswith(m) for token in tokens) > len(tokens) / 10), "")
    words = np.array([i for i, token in enumerate(tokens[:vocabulary]) if _is_word(token, mark)])
    sources = np.intersect1d(used, words)
    if len(words) <= k or not len(sources):
        return result
    unit = torch.nn.functional.normalize(table.float(), dim=1)
    bank = unit[words]
    for first in range(0, len(sources), _CHUNK):
        chunk = sources[first : first + _CHUNK]
        near = (unit[chunk] @ bank.T).topk(k + 1, dim=1).indices[:, 1:]  # the nearest is the word itself
        result[chunk] = words[near.numpy()]
    return result


def _is_word(token: str, mark: str) -> bool:
    bare = token.removeprefix(mark)
    readable = bare.isascii() or mark != "Ġ"  # byte-level vocabularies write other scripts in letters of their own
    return token.startswith(mark) and len(bare) > 1 and readable and bare.isalpha()
