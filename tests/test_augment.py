import numpy as np
import pytest
import torch

from adabert_core.augment import (
    GENERATORS,
    augment,
    choose_rows,
    copied_length,
    cut_span,
    drop_words,
    join_halves,
    nearest_tokens,
    replace_words,
)
from adabert_core.errors import UserError
from adabert_core.tokens import Ragged, TokenRows

VOCABULARY = 1000
ITSELF = np.arange(VOCABULARY, dtype=np.int32)[:, None]
MIX = {"replace": 3.0, "halves": 2.0, "span": 1.0, "drop": 1.0}


def made_up(count=60, pair=False, seed=0):
    """Rows whose tokens say whose they are: class 0 has ids below 500, class 1 from 500 on; row i of a class has 10 ids."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    texts = [(500 * (i % 2) + 10 * (i // 2) + rng.integers(0, 10, rng.integers(1, 12))).tolist() for i in range(count)]
    others = [(500 * (i % 2) + 10 * (i // 2) + rng.integers(0, 10, rng.integers(1, 6))).tolist() for i in range(count)]
    return TokenRows(Ragged.of(texts), Ragged.of(others) if pair else None), labels


def lists(text):
    return [text.values[a:b].tolist() for a, b in zip(text.offsets, text.offsets[1:], strict=False)]


def augmented(seed=0, pair=False, rows=200, **changes):
    given, labels = made_up(pair=pair)
    settings = {
        "neighbours": (ITSELF + 1) % VOCABULARY,
        "augmented_rows": rows,
        "max_copies": 20,
        "replace_probability": 0.4,
        "mix": MIX,
    }
    return augment(given, labels, **{**settings, **changes}, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_same_rng_gives_the_same_rows_and_another_others(pair):
    first, again, other = augmented(3, pair), augmented(3, pair), augmented(4, pair)
    assert first.a.values.tolist() == again.a.values.tolist()
    assert first.a.offsets.tolist() == again.a.offsets.tolist()
    assert first.a.values.tolist() != other.a.values.tolist()
    if pair:
        assert first.b.values.tolist() == again.b.values.tolist()


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_as_many_rows_as_asked_none_of_them_empty_or_torn(pair):
    made = augmented(rows=333, pair=pair)
    for text in (made.a, made.b) if pair else (made.a,):
        assert len(text) == 333
        assert text.offsets[-1] == len(text.values)
        assert text.lengths.min() >= 1
        assert text.values.dtype == np.int32
    assert (made.b is not None) == pair


def test_copies_are_bounded_and_none_are_made_of_none():
    assert len(augmented(rows=100_000, max_copies=3)) == 180
    assert len(augmented(rows=0)) == 0
    assert len(augmented(rows=100, max_copies=0)) == 0


def test_mix_shares_the_rows():
    made = augmented(
        rows=400, mix={"span": 3.0, "replace": 1.0}, replace_probability=0.999, neighbours=np.full((VOCABULARY, 1), 999)
    )
    replaced = [set(row) == {999} for row in lists(made.a)]
    assert sum(replaced[:100]) > 95  # in the generators' own order, whatever the order of the mix
    assert not any(replaced[100:])


def test_order_of_the_mix_changes_nothing():
    first, second = (augmented(rows=50, mix=mix) for mix in ({"span": 1.0, "drop": 2.0}, {"drop": 2.0, "span": 1.0}))
    assert lists(first.a) == lists(second.a)


def test_rare_classes_get_more_than_their_share():
    labels = np.array([0] * 900 + [1] * 100)
    chosen = choose_rows(labels, np.full(1000, 7), 20_000, 20, np.random.default_rng(0))
    assert len(chosen) == 20_000
    assert labels[chosen].mean() == pytest.approx(10 / 40, abs=0.01)  # roots of 100 and 900, not 10 %


def test_long_rows_are_copied_more_often():
    lengths = np.array([5, 20] * 500)
    chosen = choose_rows(np.zeros(1000, int), lengths, 20_000, 20, np.random.default_rng(0))
    assert np.mean(lengths[chosen] == 20) == pytest.approx(0.8, abs=0.01)
    assert lengths[chosen].mean() == pytest.approx(copied_length(lengths), abs=0.1)


def test_unknown_generator_is_named():
    with pytest.raises(UserError, match="no generator named shuffle; there are replace, halves, span, drop"):
        augmented(mix={"replace": 1.0, "shuffle": 1.0})


def test_replaced_words_are_neighbours_and_the_rest_stays():
    rows, labels = made_up()
    neighbours = np.stack([(ITSELF[:, 0] + 1) % VOCABULARY, (ITSELF[:, 0] + 2) % VOCABULARY], axis=1)
    part = np.repeat(np.arange(60), 50)
    made = replace_words(rows, part, labels, neighbours, 0.4, np.random.default_rng(0))
    shift = (made.a.values - rows.a.take(part).values) % VOCABULARY
    assert set(shift.tolist()) == {0, 1, 2}
    assert np.mean(shift > 0) == pytest.approx(0.4, abs=0.02)
    assert made.a.lengths.tolist() == rows.a.lengths[part].tolist()


def test_halves_come_from_the_same_class():
    rows, labels = made_up()
    part = np.random.default_rng(1).integers(0, 60, 500)
    made = join_halves(rows, part, labels, ITSELF, 0.4, np.random.default_rng(0))
    texts = lists(rows.a)
    partners = set()
    for source, text in zip(part, lists(made.a), strict=True):
        head = texts[source][: len(texts[source]) // 2]
        assert text[: len(head)] == head
        owner = [i for i in range(60) if labels[i] == labels[source] and texts[i][len(texts[i]) // 2 :] == text[len(head) :]]
        assert owner
        partners |= set(owner)
    assert len(partners) > 50


def test_pairs_take_their_second_text_from_the_same_class():
    rows, labels = made_up(pair=True)
    part = np.arange(60)
    made = join_halves(rows, part, labels, ITSELF, 0.4, np.random.default_rng(0))
    assert lists(made.a) == lists(rows.a)
    assert lists(made.b) != lists(rows.b)
    assert [row[0] >= 500 for row in lists(made.b)] == [bool(label) for label in labels]


def test_span_is_a_stretch_of_a_third_or_more():
    rows, labels = made_up()
    part = np.repeat(np.arange(60), 20)
    made = cut_span(rows, part, labels, ITSELF, 0.4, np.random.default_rng(0))
    texts = lists(rows.a)
    for source, text in zip(part, lists(made.a), strict=True):
        full = texts[source]
        assert any(full[i : i + len(text)] == text for i in range(len(full)))
        assert len(text) * 3 >= len(full)
    starts = {tuple(text) for source, text in zip(part, lists(made.a), strict=True) if source == 3}
    assert len(starts) > 3


def test_dropping_leaves_order_and_at_least_one_word():
    rows, labels = made_up()
    part = np.repeat(np.arange(60), 50)
    made = drop_words(rows, part, labels, ITSELF, 0.5, np.random.default_rng(0))
    for source, text in zip(part[:600], lists(made.a)[:600], strict=True):
        rest = iter(rows.a.values[rows.a.offsets[source] : rows.a.offsets[source + 1]].tolist())
        assert text
        assert all(token in rest for token in text)
    after_first = rows.a.lengths[part] - 1
    assert (made.a.lengths - 1).sum() / after_first.sum() == pytest.approx(0.75, abs=0.02)


def test_generators_take_an_empty_text():
    rows, labels = TokenRows(Ragged.of([[], [4, 5]]), None), np.array([0, 0])
    for generator in GENERATORS.values():
        assert len(generator(rows, np.array([0, 1, 0]), labels, ITSELF, 0.5, np.random.default_rng(0))) == 3


def circle(count):
    """Vectors that lie closer the closer their indices are."""
    angle = torch.arange(count) * 0.1
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_neighbours_are_whole_words_near_by():
    tokens = ["[PAD]", "good", "##ly", "fine", "great", "7", "x", "nice", "kind", "!"]
    near = nearest_tokens(circle(10), tokens, np.array([1, 2, 4, 5]), 2)
    assert near.shape == (10, 2)
    assert sorted(near[1]) == [3, 4]
    assert sorted(near[4]) == [3, 7] or sorted(near[4]) == [1, 3]  # 1 and 7 are equally far
    assert near[2].tolist() == [2, 2]  # a piece of a word
    assert near[5].tolist() == [5, 5]  # a number
    assert near[7].tolist() == [7, 7]  # a word that the data does not use


def test_words_of_marked_vocabularies_are_those_with_the_mark():
    tokens = ["<s>", "Ġgood", "ly", "Ġfine", "Ġgreat", "ness", "Ġ7", "Ġnice", "ing", "Ġ"]
    near = nearest_tokens(circle(10), tokens, np.arange(10), 2)
    assert sorted(near[1]) == [3, 4]
    assert near[2].tolist() == [2, 2]
    assert near[5].tolist() == [5, 5]
    assert set(near[7]) == {3, 4}


def test_vocabulary_without_enough_words_has_no_neighbours():
    near = nearest_tokens(circle(4), ["[PAD]", "good", "fine", "##s"], np.arange(4), 2)
    assert near.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
