"""Numbers and sets of labels as labels: how they are read, told from classes, and split."""

import json

import numpy as np
import pandas as pd
import pytest

from adabert_core.data.labels import label_sets, numbers, task_of

HEADER = ("text", "label")
NUMBERS = [(f"text {i}", i / 4) for i in range(200)]


def about(dataset):
    return json.loads((dataset.path / "dataset.json").read_text())


@pytest.mark.parametrize(
    ("columns", "task"),
    [
        ([["a", "b"]], "classification"),
        ([["1", "2"], ["3.0"]], "classification"),  # stars that a file format wrote as floats
        ([[1.0, 2.0, None]], "classification"),
        ([["1", "2"], ["2.5"]], "regression"),
        ([[0.5, None, 3.0]], "regression"),
        ([["0.5", "many"]], "classification"),
        ([[["a"], []], [["b", "a"]]], "multilabel"),
        ([[["a"], "b"]], "classification"),  # which then refuses the list
        ([["a|b", "a"]], "classification"),  # a list in a string has to be stated
        ([[None]], "classification"),
    ],
)
def test_task_that_labels_speak_of(columns, task):
    assert task_of([pd.Series(column, dtype=object) for column in columns]) == task


def test_spellings_of_numbers_and_sets():
    assert numbers(pd.Series(["5.000", " 3.8", "1e1", "-2"], dtype=object)).tolist() == [5.0, 3.8, 10.0, -2.0]
    assert numbers(pd.Series(["x", None, "inf", "nan", True], dtype=object)).isna().all()
    assert label_sets(pd.Series(["b|a", "a", "", " c , d | a"])).tolist() == [("a", "b"), ("a",), (), ("a", "c , d")]
    assert label_sets(pd.Series(["b, a", "a,a"])).tolist() == [("a", "b"), ("a",)]
    assert label_sets(pd.Series([["b", 1.0], [], np.array(["a"])], dtype=object)).tolist() == [("1", "b"), (), ("a",)]
    assert label_sets(pd.Series([None, 3], dtype=object)).tolist() == [None, ("3",)]


def test_numbers_are_described_by_the_train_split(write, prepare):
    dataset = prepare(write("rows.csv", [HEADER, *NUMBERS]))
    values = dataset.split("train").labels
    assert values.dtype == np.float32
    assert (about(dataset)["task"], dataset.labels, dataset.metric) == ("regression", ["label"], "pearson")
    assert dataset.task.mean == pytest.approx(values.mean())
    assert dataset.task.std == pytest.approx(values.std())
    found = {text: value for name in ("train", "validation", "test") for text, value in rows_of(dataset.split(name))}
    assert found == dict(NUMBERS)


def rows_of(split):
    return zip(split.text_a, split.labels.tolist(), strict=True)


def test_whole_numbers_are_numbers_where_that_is_stated(write, prepare):
    rows = [(f"text {i}", i % 6) for i in range(200)]
    source = write("rows.csv", [HEADER, *rows])
    assert prepare(source, "classes").task.name == "classification"
    assert prepare(source, "numbers", task="regression", metric="r2").task.name == "regression"


def test_text_with_several_numbers_has_their_mean(write, prepare):
    raters = [*NUMBERS, ("text 7", 0.75), ("text 7", 9.0)]
    dataset = prepare(write("rows.csv", [HEADER, *raters]), test_fraction=0.3)
    found = {text: value for name in ("train", "validation", "test") for text, value in rows_of(dataset.split(name))}
    assert found["text 7"] == pytest.approx((1.75 + 0.75 + 9.0) / 3)
    assert len(found) == 200


def test_sets_of_labels_come_back_as_they_were(write, prepare):
    sets = [["x"], ["y", "x"], [], ["z", "y"], ["z"]]
    records = [{"text": f"text {i}", "label": sets[i % 5]} for i in range(150)]
    dataset = prepare(write("rows.jsonl", "\n".join(map(json.dumps, records))))
    assert (dataset.task.name, dataset.labels, dataset.metric) == ("multilabel", ["x", "y", "z"], "micro_f1")
    for name in ("train", "validation", "test"):
        split = dataset.split(name)
        assert split.labels.any(0).all()  # every label in every split
        for text, row in rows_of(split):
            assert [dataset.labels[i] for i in np.flatnonzero(row)] == sorted(sets[int(text.split()[1]) % 5])
    assert about(dataset)["label_counts"]["train"]["x"] == int(dataset.split("train").labels[:, 0].sum())
    lines = [("text", "label"), *((record["text"], "|".join(record["label"])) for record in records)]
    same = prepare(write("rows.csv", lines), "strings", task="multilabel")
    assert same.data_version == dataset.data_version


def test_rare_label_of_sets_is_lent_to_every_split(write, prepare):
    rows = [(f"text {i}", "common|rare" if i % 30 == 0 else "common") for i in range(300)]
    dataset = prepare(write("rows.csv", [HEADER, *rows]), task="multilabel")
    assert all(dataset.split(name).labels[:, 1].sum() >= 1 for name in ("train", "validation", "test"))


def test_thousand_classes_are_in_every_split(write, prepare):
    rows = [(f"text {i}", f"class {i % 1000}") for i in range(10_000)]
    dataset = prepare(write("rows.csv", [HEADER, *rows]))
    assert len(dataset.labels) == 1000
    assert all(len(np.unique(dataset.split(name).labels)) == 1000 for name in ("train", "validation", "test"))


def test_balanced_weights_make_classes_count_the_same(write, prepare):
    rows = [(f"mail {i}", "spam" if i % 10 == 0 else "ham") for i in range(400)]
    dataset = prepare(write("mail.csv", [HEADER, *rows]), class_weights="balanced")
    counts = np.bincount(dataset.split("train").labels)
    assert np.array(dataset.task.class_weights) * counts == pytest.approx([counts.sum() / 2] * 2)
    assert prepare(write("mail.csv", [HEADER, *rows]), "plain").task.class_weights is None
