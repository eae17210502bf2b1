"""A new way to make text: two neighbouring tokens change places. `targets.mix: {swap: 1.0}` uses it."""

import numpy as np

from adabert_core.augment import GENERATORS
from adabert_core.tokens import Ragged, TokenRows


def swap_words(
    rows: TokenRows, part: np.ndarray, labels: np.ndarray, neighbours: np.ndarray, p: float, rng: np.random.Generator
) -> TokenRows:
    """Each of the rows in `part` with one random pair of neighbours swapped; a text of one token stays as it is."""

    def swap(text: Ragged) -> Ragged:
        values, long = text.values.copy(), text.lengths > 1
        first = text.offsets[:-1][long] + np.floor(rng.random(long.sum()) * (text.lengths[long] - 1)).astype(np.int64)
        values[first], values[first + 1] = text.values[first + 1], text.values[first]
        return Ragged(values, text.offsets)

    taken = rows.take(part)
    return TokenRows(swap(taken.a), None if taken.b is None else swap(taken.b))


GENERATORS["swap"] = swap_words
