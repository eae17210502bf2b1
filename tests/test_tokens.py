import random

import numpy as np
import pytest

from adabert_core.tokens import Collator, Ragged, Template, TokenRows, length_sorted, longest_first, tokenize

WORDS = ("good", "dull", "film", "plays", "story", "acting", "the", "xyz", "plot", ".")


def texts(count, longest, seed):
    rng = random.Random(seed)  # noqa: S311
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]


def same(batch, expected):
    assert set(batch) == set(expected)
    for name, tensor in batch.items():
        assert tensor.tolist() == expected[name].tolist(), name


def test_batch_of_single_texts_is_the_tokenizers_own(tokenizer):
    rows = texts(20, 12, seed=0)
    template = Template.of(tokenizer, pair=False)
    collator = Collator(tokenize(tokenizer, template, rows, None, 64), template)
    index = np.array([3, 0, 17, 3, 9])
    same(collator(index), tokenizer([rows[i] for i in index], padding=True, return_tensors="pt"))
    assert collator.lengths.tolist() == [len(ids) for ids in tokenizer(rows)["input_ids"]]


def test_batch_of_pairs_is_the_tokenizers_own(tokenizer):
    first, second = texts(20, 12, seed=1), texts(20, 12, seed=2)
    template = Template.of(tokenizer, pair=True)
    collator = Collator(tokenize(tokenizer, template, first, second, 64), template)
    index = np.array([5, 1, 19, 0])
    expected = tokenizer([first[i] for i in index], [second[i] for i in index], padding=True, return_tensors="pt")
    same(collator(index), expected)


def test_empty_text_among_others_is_the_tokenizers_own(tokenizer):
    template = Template.of(tokenizer, pair=True)
    collator = Collator(tokenize(tokenizer, template, ["good film", ""], ["", "dull"], 64), template)
    same(collator(np.array([0, 1])), tokenizer(["good film", ""], ["", "dull"], padding=True, return_tensors="pt"))


def test_batches_are_padded_to_a_multiple_but_not_past_the_longest_row(tokenizer):
    rows = ["good " * count for count in (3, 7, 20)]
    template = Template.of(tokenizer, pair=False)
    collator = Collator(tokenize(tokenizer, template, rows, None, 64), template, pad_to_multiple_of=4)
    expected = tokenizer(rows[:2], padding="max_length", max_length=12, return_tensors="pt")
    assert collator.lengths.tolist() == [5, 9, 22]
    same(collator(np.array([0, 1])), expected)
    assert collator(np.array([0]))["input_ids"].shape == (1, 8)
    assert collator(np.array([2]))["input_ids"].shape == (1, 22)


@pytest.mark.parametrize("limit", [5, 6, 11, 16])
def test_single_texts_are_cut_as_the_tokenizer_cuts(tokenizer, limit):
    rows = texts(40, 25, seed=3)
    template = Template.of(tokenizer, pair=False)
    collator = Collator(tokenize(tokenizer, template, rows, None, limit), template)
    same(collator(np.arange(40)), tokenizer(rows, truncation=True, max_length=limit, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("limit", [8, 9, 12, 17, 30])
def test_pairs_are_cut_longest_first_as_the_tokenizer_cuts(tokenizer, limit):
    first, second = texts(150, 25, seed=4), texts(150, 25, seed=5)
    template = Template.of(tokenizer, pair=True)
    collator = Collator(tokenize(tokenizer, template, first, second, limit), template)
    expected = tokenizer(first, second, truncation="longest_first", max_length=limit, padding=True, return_tensors="pt")
    same(collator(np.arange(150)), expected)


@pytest.mark.parametrize(
    ("lengths", "budget", "kept"),
    [
        ((3, 4), 10, (3, 4)),
        ((10, 3), 10, (7, 3)),
        ((3, 10), 10, (3, 7)),
        ((10, 10), 10, (5, 5)),
        ((10, 9), 7, (4, 3)),
        ((9, 10), 7, (3, 4)),
        ((0, 10), 7, (0, 7)),
    ],
)
def test_longest_first(lengths, budget, kept):
    a, b = longest_first(np.array([lengths[0]]), np.array([lengths[1]]), budget)
    assert (int(a[0]), int(b[0])) == kept


def test_template_of_both_families(bert_folder, roberta_folder):
    from transformers import AutoTokenizer

    bert, roberta = AutoTokenizer.from_pretrained(bert_folder), AutoTokenizer.from_pretrained(roberta_folder)
    assert Template.of(bert, pair=False) == Template((2,), (), (3,), 0, True)
    assert Template.of(bert, pair=True) == Template((2,), (3,), (3,), 0, True)
    assert Template.of(roberta, pair=False) == Template((0,), (), (2,), 1, False)
    assert Template.of(roberta, pair=True) == Template((0,), (2, 2), (2,), 1, False)


def test_ragged_takes_rows_and_spans_and_survives_the_disk(tmp_path):
    ragged = Ragged.of([[1, 2, 3], [], [4, 5]])
    assert ragged.lengths.tolist() == [3, 0, 2]
    taken = ragged.take(np.array([2, 0, 1, 2]))
    assert (taken.values.tolist(), taken.offsets.tolist()) == ([4, 5, 1, 2, 3, 4, 5], [0, 2, 5, 5, 7])
    spans = ragged.take(np.array([0, 2]), starts=np.array([1, 0]), lengths=np.array([2, 1]))
    assert (spans.values.tolist(), spans.offsets.tolist()) == ([2, 3, 4], [0, 2, 3])
    joined = Ragged.concatenate([ragged, spans])
    joined.save(tmp_path / "rows")
    loaded = Ragged.load(tmp_path / "rows")
    assert loaded.values.tolist() == [1, 2, 3, 4, 5, 2, 3, 4]
    assert loaded.offsets.tolist() == [0, 3, 3, 5, 7, 8]


def test_rows_of_pairs_stay_together():
    rows = TokenRows(Ragged.of([[1], [2, 2]]), Ragged.of([[7, 7], [8]]))
    taken = TokenRows.concatenate([rows.take(np.array([1])), rows])
    assert taken.a.values.tolist() == [2, 2, 1, 2, 2]
    assert taken.b.values.tolist() == [8, 7, 7, 8]


def test_length_sorted_holds_every_row_once():
    batches = length_sorted(np.array([5, 1, 4, 1, 9]), 2)
    assert [batch.tolist() for batch in batches] == [[1, 3], [2, 0], [4]]


@pytest.mark.parametrize(("bound", "value"), [("_TEXTS_AT_ONCE", 5), ("_CHARACTERS_AT_ONCE", 60), ("_CHARACTERS_AT_ONCE", 1)])
@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_texts_tokenised_a_few_at_a_time_are_the_same_rows(tokenizer, pair, bound, value, monkeypatch):
    first, second = texts(23, 12, seed=6), texts(23, 12, seed=7)
    template = Template.of(tokenizer, pair)
    whole = tokenize(tokenizer, template, first, second if pair else None, 16)
    monkeypatch.setattr(f"adabert_core.tokens.{bound}", value)
    pieces = tokenize(tokenizer, template, first, second if pair else None, 16)
    for one, other in ((whole.a, pieces.a), (whole.b, pieces.b)) if pair else ((whole.a, pieces.a),):
        assert one.values.dtype == other.values.dtype == np.int32
        assert one.values.tolist() == other.values.tolist()
        assert one.offsets.tolist() == other.offsets.tolist()


def test_long_texts_go_to_the_tokenizer_few_at_a_time(tokenizer):
    sizes = []

    def watched(some, **settings):
        sizes.append([len(text) for text in some])
        return tokenizer(some, **settings)

    million = "x" * 2**20
    rows = [*["good film"] * 20_000, million, million, million, million * 5, "dull", "dull"]
    found = tokenize(watched, Template.of(tokenizer, pair=False), rows, None, 16)
    assert [len(size) for size in sizes] == [16_384, 3_616 + 1, 2, 1, 2]
    assert found.a.lengths.tolist() == [2] * 20_000 + [1] * 6
