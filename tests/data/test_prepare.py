import json
import random

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from adabert_core.data import splits
from adabert_core.errors import UserError

HEADER = ("text", "label")
ROWS = [(f"review number {i}", "good" if i % 2 else "bad") for i in range(300)]


def homes(dataset):
    return {text: name for name in ("train", "validation", "test") for text in dataset.split(name).text_a}


def about(dataset):
    return json.loads((dataset.path / "dataset.json").read_text())


def test_directory_says_what_is_in_it(write, prepare):
    dataset = prepare(write("rows.csv", [HEADER, *ROWS, ROWS[0]]))
    assert about(dataset) == {
        "task": "classification",
        "labels": ["bad", "good"],
        "pair": False,
        "metric": "accuracy",
        "counts": {"train": 236, "validation": 24, "test": 40},
        "label_counts": {
            "train": {"bad": 120, "good": 116},
            "validation": {"bad": 10, "good": 14},
            "test": {"bad": 20, "good": 20},
        },
        "removed": {
            "duplicates": 1,
            "conflicting_labels": 0,
            "validation_rows_in_test": 0,
            "train_rows_in_test": 0,
            "train_rows_in_validation": 0,
            "over_max_train_rows": 0,
        },
        "text_columns": ["text"],
        "label_column": "label",
        "columns": [],
    }
    schema = pq.read_schema(dataset.path / "train.parquet")
    assert {name: str(schema.field(name).type) for name in schema.names} == {"id": "string", "text_a": "string", "label": "int64"}
    metrics = json.loads((dataset.path / "manifest.json").read_text())["metrics"]
    assert metrics == {"train_rows": 236, "validation_rows": 24, "test_rows": 40, "classes": 2}


def test_source_and_unlabeled_text_without_a_header(write, prepare):
    bare = prepare(
        write("bare.csv", [(f"id{i}", label, text) for i, (text, label) in enumerate(ROWS)]),
        columns=["id", "label", "text"],
        unlabeled=str(write("more.csv", [("x1", "", "a text that nobody has read")])),
    )
    whole = prepare(
        write("whole.csv", [HEADER, *ROWS]),
        "whole",
        unlabeled=str(write("more.jsonl", '{"text": "a text that nobody has read"}')),
    )
    assert bare.data_version == whole.data_version
    assert about(bare)["columns"] == ["id", "label", "text"]


def test_order_of_the_source_changes_no_byte(write, prepare):
    shuffled = random.Random(0).sample([*ROWS, ("review  number 0", "bad")], 301)  # noqa: S311
    first = prepare(write("a.csv", [HEADER, *ROWS, ("review  number 0", "bad")]), "first")
    second = prepare(write("b.csv", [HEADER, *shuffled]), "second")
    assert first.data_version == second.data_version
    for name in ("train.parquet", "validation.parquet", "test.parquet", "dataset.json"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


def test_added_rows_move_no_old_row_and_change_the_version(write, prepare):
    old = prepare(write("a.csv", [HEADER, *ROWS]), "old")
    new = prepare(write("a.csv", [HEADER, ("a new review", "good"), *ROWS]), "new")
    assert homes(old).items() <= homes(new).items()
    assert len(homes(new)) == 301
    assert len(old.data_version) == 16
    assert old.data_version != new.data_version


def test_changed_label_changes_the_version(write, prepare):
    old = prepare(write("a.csv", [HEADER, *ROWS]), "old")
    new = prepare(write("a.csv", [HEADER, (ROWS[0][0], "good"), *ROWS[1:]]), "new")
    assert old.data_version != new.data_version


def test_same_rows_in_another_format_are_the_same_data(write, prepare):
    lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    first = prepare(write("a.csv", [HEADER, *ROWS]), "first")
    second = prepare(write("a.jsonl", "\n".join(lines)), "second")
    assert first.data_version == second.data_version


def test_imbalanced_classes_are_in_every_split_and_choose_macro_f1(write, prepare):
    rows = [(f"mail {i}", "spam" if i % 20 == 0 else "ham") for i in range(400)]
    dataset = prepare(write("mail.csv", [HEADER, *rows]))
    assert dataset.metric == "macro_f1"
    assert all(counts["spam"] >= 1 for counts in about(dataset)["label_counts"].values())
    assert sum(counts["spam"] for counts in about(dataset)["label_counts"].values()) == 20


def test_pairs_keep_both_texts(write, prepare):
    rows = [(f"is {i} even", f"number {i}", i % 2) for i in range(100)]
    dataset = prepare(write("pairs.tsv", [("q", "a", "even"), *rows]), text=["q", "a"], label="even", metric="f1")
    test = dataset.split("test")
    assert dataset.pair
    assert dataset.labels == ["0", "1"]
    assert dataset.metric == "f1"
    assert test.text_b is not None
    assert [int(a.split()[1]) % 2 for a in test.text_a] == test.labels.tolist()
    assert [a.split()[1] for a in test.text_a] == [b.split()[1] for b in test.text_b]


def test_whole_number_labels_are_sorted_by_value(write, prepare):
    rows = [(f"review {i}", [1, 2, 10][i % 3]) for i in range(90)]
    assert prepare(write("stars.csv", [HEADER, *rows])).labels == ["1", "2", "10"]


def test_published_dev_is_the_test_split_and_leaks_leave_train(write, prepare, tmp_path, caplog):
    write("data/train.tsv", [HEADER, *ROWS])
    write("data/dev.tsv", [HEADER, *((f"dev {i}", label) for i, (_, label) in enumerate(ROWS[:20])), *ROWS[20:24]])
    dataset = prepare(tmp_path / "data")
    assert len(dataset.split("test")) == 24
    assert about(dataset)["removed"]["train_rows_in_test"] == 4
    assert len(dataset.split("train")) + len(dataset.split("validation")) == 296
    assert "rows removed: 4 train rows in test" in caplog.text


def test_limit_leaves_validation_and_test_whole(write, prepare):
    dataset = prepare(write("rows.csv", [HEADER, *ROWS]), max_train_rows=50)
    assert about(dataset)["counts"] == {"train": 50, "validation": 24, "test": 40}
    assert about(dataset)["removed"]["over_max_train_rows"] == 186


def test_unlabeled_text_is_kept_beside_the_splits_and_without_what_they_hold(write, prepare):
    source = write("rows.csv", [HEADER, *ROWS])
    plain = prepare(source, "plain")
    held = {name: plain.split(name).text_a[0] for name in ("train", "validation", "test")}
    more = [f"unlabeled number {i}" for i in range(20)]
    texts = [*more, more[3].replace(" ", "  "), *held.values()]
    dataset = prepare(source, "more", unlabeled=str(write("more.csv", [("other", "text"), *((1, text) for text in texts)])))
    rows = dataset.unlabeled()
    assert sorted(" ".join(text.split()) for text in rows.text_a) == sorted(more)
    assert rows.labels.tolist() == [-1] * 20
    assert dataset.unlabeled(3).text_a == rows.text_a[:3]
    assert len(dataset.unlabeled(3)) == len(dataset.unlabeled(3).labels) == 3
    assert about(dataset)["counts"] == {"train": 236, "validation": 24, "test": 40, "unlabeled": 20}
    assert {name: count for name, count in about(dataset)["removed"].items() if "unlabeled" in name} == {
        "unlabeled_duplicates": 1,
        "unlabeled_rows_in_train": 1,
        "unlabeled_rows_in_validation": 1,
        "unlabeled_rows_in_test": 1,
    }
    for name in ("train.parquet", "validation.parquet", "test.parquet"):
        assert (dataset.path / name).read_bytes() == (plain.path / name).read_bytes()
    assert plain.unlabeled() is None
    assert plain.data_version == "fbe02dda2ed91072"  # what it was before there was unlabeled text


@pytest.mark.parametrize("columns", [["text"], ["text", "more"]])
def test_unlabeled_text_is_none_of_validation_or_test_however_it_is_written(write, prepare, columns):
    rows = [(*(f"It's {name}, number {i}!" for name in columns), i % 2) for i in range(200)]
    source = write("rows.csv", [(*columns, "label"), *rows])
    again = [tuple(f"it 's  {name} , NUMBER {i} !" for name in columns) for i in range(200)]
    new = [tuple(f"it 's {name} , number {i} !" for name in columns) for i in range(200, 220)]
    dataset = prepare(source, unlabeled=str(write("more.csv", [columns, *again, *new])), text=columns)
    counts, removed = about(dataset)["counts"], about(dataset)["removed"]
    assert counts["unlabeled"] == counts["train"] + 20
    for split in ("validation", "test"):
        assert removed[f"unlabeled_rows_in_{split}"] == counts[split] > 5


@pytest.mark.parametrize(
    ("held", "same"),
    [("cliché", "cliche\u0301"), ("!!! ???", "!!!  ???"), ("a b", "a\x1fb"), ("It's THE end…", "it 's the end ...")],
)
def test_letters_are_the_same_in_every_writing(held, same):
    rows = [splits.letters(pd.DataFrame({"text_a": [text]}))[0] for text in (held, same)]
    assert rows[0] == rows[1] != ""


def test_letters_of_other_scripts_stay_apart():
    assert splits.letters(pd.DataFrame({"text_a": ["का", "कि", "к", "猫", "犬"]})).nunique() == 5


@pytest.mark.parametrize("kind", ["classes", "numbers", "sets", "pairs"])
def test_rows_read_in_pieces_are_those_of_the_file(kind, write, prepare, monkeypatch):
    label = {"classes": lambda i: "ab"[i % 2], "numbers": lambda i: i / 7, "sets": lambda i: ["x", "y,x", "z"][i % 3]}
    given = label.get(kind, label["classes"])
    columns, settings = (("text", "more"), {"text": ["text", "more"]}) if kind == "pairs" else (("text",), {})
    rows = [(*(f"{name} number {i}" for name in columns), given(i)) for i in range(200)]
    more = write("more.csv", [columns, *(tuple(f"{name} unlabeled {i}" for name in columns) for i in range(30))])
    task = {"numbers": "regression", "sets": "multilabel"}.get(kind, "auto")
    dataset = prepare(write("rows.csv", [(*columns, "label"), *rows]), task=task, unlabeled=str(more), **settings)
    whole = [dataset.split("train"), dataset.unlabeled(11)]
    monkeypatch.setattr("adabert_core.data.dataset._ROWS_AT_ONCE", 4)
    for before, after in zip(whole, [dataset.split("train"), dataset.unlabeled(11)], strict=True):
        assert (after.text_a, after.text_b) == (before.text_a, before.text_b)
        assert after.labels.dtype == before.labels.dtype
        assert np.array_equal(after.labels, before.labels)
    assert len(whole[1]) == 11


def test_unlabeled_text_is_part_of_the_version(write, prepare):
    source = write("rows.csv", [HEADER, *ROWS])
    versions = [prepare(source, "none").data_version]
    for name, texts in (("first", ["one", "two"]), ("turned", ["two", "one"]), ("other", ["one", "three"])):
        path = write(f"{name}.jsonl", "\n".join(json.dumps({"text": text}) for text in texts))
        versions.append(prepare(source, name, unlabeled=str(path)).data_version)
    assert versions[1] == versions[2]
    assert len(set(versions)) == 3


def test_unlabeled_pairs_have_both_texts(write, prepare):
    rows = [(f"is {i} even", f"number {i}", i % 2) for i in range(100)]
    source, settings = write("pairs.tsv", [("q", "a", "even"), *rows]), {"text": ["q", "a"], "label": "even"}
    more = write("more.tsv", [("q", "a"), ("is it", "so"), ("is it", "not so"), rows[0][:2]])
    unlabeled = prepare(source, unlabeled=str(more), **settings).unlabeled()
    assert sorted(zip(unlabeled.text_a, unlabeled.text_b, strict=True)) == [("is it", "not so"), ("is it", "so")]


def test_unlabeled_text_that_is_all_known_is_none(write, prepare):
    dataset = prepare(write("rows.csv", [HEADER, *ROWS]), unlabeled=str(write("more.csv", [HEADER, *ROWS])))
    assert dataset.unlabeled() is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("words\na\n", r"more\.csv has no column 'text' \(data\.text\)"),
        ('text\na\n" "\n', r"more\.csv, line 3: the text in column 'text' is empty"),
        ("text\n", r"more\.csv has no rows"),
        (b"text\n\xff\n", r"more\.csv, line 2: byte 5 is not UTF-8"),
        (None, r"data\.unlabeled=.*more\.csv: no such file or folder"),
    ],
)
def test_bad_unlabeled_text_is_one_sentence(content, sentence, write, prepare, tmp_path):
    if content is not None:
        write("more.csv", content)
    with pytest.raises(UserError, match=sentence):
        prepare(write("rows.csv", [HEADER, *ROWS]), unlabeled=str(tmp_path / "more.csv"))


def test_unknown_split_is_refused(write, prepare):
    dataset = prepare(write("rows.csv", [HEADER, *ROWS]))
    with pytest.raises(UserError, match="no split 'dev'; choose train, validation, test"):
        dataset.split("dev")
