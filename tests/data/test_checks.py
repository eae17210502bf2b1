import json

import pandas as pd
import pytest

from adabert_core.errors import UserError

GOOD = [(f"text {i}", "ab"[i % 2]) for i in range(40)]
HEADER = ("text", "label")
WHOLE = [HEADER, *((f"t{i}", i % 5) for i in range(40)), ("y", 0.25)]
NUMBERS = [HEADER, *((f"t{i}", i / 8) for i in range(120))]


def rows_with(line, row):
    """Forty good rows with one replaced, so that it stands on the given line of the file."""
    rows = [HEADER, *GOOD]
    rows[line - 1] = row
    return rows


@pytest.mark.parametrize(
    ("content", "settings", "sentence"),
    [
        ([HEADER], {}, r"rows\.csv has no rows"),
        (rows_with(7, ("", "a")), {}, r"rows\.csv, line 7: the text in column 'text' is empty \(1 such rows\); fill it in"),
        (rows_with(7, (" \t", "a")), {}, r"rows\.csv, line 7: the text in column 'text' is empty"),
        (rows_with(7, ("\u200b \ufeff", "a")), {}, r"rows\.csv, line 7: the text in column 'text' is empty"),
        (rows_with(9, ("x", "")), {}, r"rows\.csv, line 9: the label in column 'label' is missing"),
        (
            [HEADER, *((f"t{i}", i % 2) for i in range(40)), *((f"y{i}", "nan") for i in range(12))],
            {},
            r"rows\.csv, line 42: the label in column 'label' is missing \(12 such rows\)",
        ),
        ([*NUMBERS, ("x", "NA")], {}, r"rows\.csv, line 122: the label in column 'label' is missing \(1 such rows\)"),
        ([*NUMBERS, ("x", "-")], {}, r"rows\.csv, line 122: the label '-' in column 'label' is no number, and nearly all others"),
        (
            [HEADER, *((f"t{i // 2}", "ab"[i % 2]) for i in range(80))],
            {},
            r"class 'a' has only 0 different texts, .* 80 rows do not count, since their text has another label",
        ),
        (rows_with(5, ("x", "c")), {}, r"class 'c' has only 1 different texts, at least 10 are needed"),
        (rows_with(5, ("x",)), {}, r"rows\.csv, line 5: 1 fields where the header has 2"),
        (
            [("text;label",), *((f"t{i};a",) for i in range(40))],
            {},
            r"rows\.csv has semicolons between its columns \('text;label'\): save it as a CSV with commas",
        ),
        ([HEADER, *GOOD], {"label": "lable"}, r"rows\.csv has no column 'lable' .*; did you mean data\.label=label\?"),
        ([HEADER, *GOOD], {"text": "Text"}, r"no column 'Text' .*its columns are text, label; did you mean data\.text=text\?"),
        ([HEADER, *GOOD], {"columns": ["a", "a"]}, r"data\.columns names the column 'a' twice: give each its own name"),
        (
            [("gj04", 1, "", "Our friends won't buy this analysis"), *((f"s{i}", i % 2, "", f"t{i}") for i in range(40))],
            {},
            r"no column 'label' \(data\.label\), its columns are gj04.*analysis\. If its first line is a row, list the columns",
        ),
        ([HEADER, *GOOD], {"text": ["text", "b", "c"]}, r"data\.text names 3 columns \(text, b, c\): name one, or two"),
        ([HEADER, *GOOD], {"text": []}, r"data\.text names 0 columns"),
        ([HEADER, *GOOD], {"text": ["text", "text"]}, r"data\.text names the column 'text' twice"),
        ([HEADER, *GOOD], {"text": "label"}, r"data\.text and data\.label both name the column 'label'"),
        ([HEADER, *((text, "same") for text, _ in GOOD)], {}, r"every row has the label 'same'; add rows of at least one"),
        ([HEADER, *GOOD[:12]], {}, r"class 'a' has only 6 different texts, at least 10 are needed"),
        ([HEADER, *(("same text", label) for _, label in GOOD)], {}, r"class 'a' has only 0 different texts"),
        (WHOLE, {"task": "classification"}, r"line 42: the label '0\.25' .* is a measured number; set data\.task=regression"),
        (WHOLE, {}, r"rows\.csv has only 41 different texts, regression needs at least 100"),
        (rows_with(7, ("x", "-")), {"task": "regression"}, r"rows\.csv, line 2: the label 'a' in .* is no finite number"),
        ([HEADER, *((f"t{i}", 2) for i in range(200))], {"task": "regression"}, r"every row has the label 2; there is nothing"),
        ([HEADER, *GOOD], {"metric": "pearson"}, r"data\.metric=pearson does not go with classification: choose accuracy, f1"),
        (
            [HEADER, *GOOD],
            {"task": "multilabel", "metric": "f1"},
            r"data\.metric=f1 does not go with multilabel: choose micro_f1",
        ),
        ([HEADER, *((f"t{i}", "") for i in range(40))], {"task": "multilabel"}, r"no row has any label in column 'label'"),
        (rows_with(5, ("x", "a|c")), {"task": "multilabel"}, r"class 'c' has only 1 different texts, at least 10 are needed"),
        (NUMBERS, {"class_weights": "balanced"}, r"data\.class_weights=balanced does not go with regression"),
        ([HEADER, *((f"t{i}", i) for i in range(40))], {}, r"column 'label' has 40 different values in 40 rows .*set data"),
        ([HEADER, *((f"t{i}", i % 1001) for i in range(4004))], {}, r"column 'label' has 1001 different values in 4004 rows"),
        ([HEADER, *GOOD], {"test_fraction": 0}, r"data\.test_fraction=0, but the source has no test split of its own"),
        ([HEADER, *GOOD], {"test_fraction": 0.5, "validation_fraction": 0.5}, r"leave no rows for train: their sum must"),
        ([HEADER, *GOOD], {"max_train_rows": 1}, r"no row of class '.' is left for train .*raise the limit"),
        ([HEADER, *((f"t{i}", i % 3) for i in range(60))], {"metric": "f1"}, r"data\.metric=f1 is for two classes and .* have 3"),
    ],
)
def test_bad_rows_are_one_sentence(write, prepare, content, settings, sentence):
    path = write("rows.csv", content)
    with pytest.raises(UserError, match=sentence) as caught:
        prepare(path, **settings)
    assert "\n" not in str(caught.value)


def test_failure_leaves_no_output(write, prepare, tmp_path):
    with pytest.raises(UserError):
        prepare(write("rows.csv", [HEADER]))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"text": None, "label": "a"}, r"line 3: the text in column 'text' is empty"),
        ({"label": "a"}, r"line 3: the text in column 'text' is empty"),
        ({"text": "x"}, r"line 3: the label in column 'label' is missing"),
        ({"text": "x", "label": ["a", "b"]}, r"line 3: the label in column 'label' is a list or an object, which classification"),
        ({"text": ["x"], "label": "a"}, r"line 3: 'text' holds a list or an object; write the text as one string"),
        ({"text": "x", "label": "a\ud83d"}, r"line 3: a label in column 'label' holds half a surrogate pair"),
        ({"text": "x", "label": ["a\ud83d"]}, r"line 3: a label in column 'label' holds half a surrogate pair"),
        ({"text": "\ud83d", "label": "a"}, r"line 3: the text in column 'text' holds half a surrogate pair"),
    ],
)
def test_bad_json_values_are_one_sentence_with_the_line(write, prepare, record, sentence):
    records = [{"text": text, "label": label} for text, label in GOOD]
    lines = [json.dumps(row) for row in [records[0], {}, record, *records[1:]]]
    lines[1] = ""
    with pytest.raises(UserError, match=sentence):
        prepare(write("rows.jsonl", "\n".join(lines)))


def test_label_that_train_does_not_have_is_named_with_its_line(write, prepare, tmp_path):
    write("data/train.csv", [HEADER, *GOOD])
    write("data/test.csv", [HEADER, ("x", "a"), ("y", "b"), ("z", "c")])
    with pytest.raises(UserError, match=r"test\.csv, line 4: the label 'c' does not occur in .*train\.csv"):
        prepare(tmp_path / "data")


def test_label_that_only_train_has_is_named(write, prepare, tmp_path):
    write("data/train.csv", [HEADER, *GOOD])
    write("data/dev.csv", [HEADER, ("x", "a")])
    with pytest.raises(UserError, match=r"dev\.csv has no row of class 'b', which .*train\.csv has"):
        prepare(tmp_path / "data")


def test_split_whose_last_row_of_a_class_leaks_is_refused(write, prepare, tmp_path):
    write("data/train.csv", [HEADER, *GOOD])
    write("data/validation.csv", [HEADER, ("v", "a"), ("t2", "b")])
    write("data/test.csv", [HEADER, ("t1", "a"), ("t2", "b")])
    with pytest.raises(UserError, match="no row of class 'b' is left for validation once duplicates are removed"):
        prepare(tmp_path / "data")


def test_empty_second_text_of_a_pair_is_named(write, prepare):
    rows = [("a", "b", "label"), *((text, f"other {text}", label) for text, label in GOOD), ("x", " ", "a")]
    with pytest.raises(UserError, match=r"line 42: the text in column 'b' is empty"):
        prepare(write("pairs.csv", rows), text=["a", "b"])


def test_numbers_as_texts_are_read_as_strings(prepare, tmp_path):
    pd.DataFrame({"text": range(40), "label": [True, False] * 20}).to_parquet(tmp_path / "rows.parquet")
    dataset = prepare(tmp_path / "rows.parquet")
    texts = [text for name in ("train", "validation", "test") for text in dataset.split(name).text_a]
    assert sorted(texts, key=int) == [str(number) for number in range(40)]
    assert dataset.labels == ["False", "True"]


@pytest.mark.parametrize(
    ("column", "cell", "sentence"),
    [
        ("text", b"caf\xe9", r"rows\.parquet, row 7: 'text' holds bytes that are not UTF-8"),
        ("label", b"\xe9", r"rows\.parquet, row 7: 'label' holds bytes that are not UTF-8"),
        ("label", [b"a", b"\xe9"], r"rows\.parquet, row 7: 'label' holds bytes that are not UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_named(prepare, tmp_path, column, cell, sentence):
    frame = pd.DataFrame(GOOD, columns=HEADER)
    frame[column] = [[value.encode()] if isinstance(cell, list) else value.encode() for value in frame[column]]
    frame.at[6, column] = cell
    frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=sentence):
        prepare(tmp_path / "rows.parquet")


def test_null_in_a_set_of_labels_is_a_missing_label(write, prepare):
    records = [{"text": text, "label": [label, None] if text == "text 6" else [label]} for text, label in GOOD]
    with pytest.raises(UserError, match=r"line 7: the label in column 'label' is missing \(1 such rows\)"):
        prepare(write("rows.jsonl", "\n".join(map(json.dumps, records))))


def test_word_that_may_mean_a_missing_label_is_a_class_with_a_warning(write, prepare, caplog):
    dataset = prepare(write("rows.csv", [HEADER, *GOOD, *((f"y{i}", "NA") for i in range(20))]))
    assert dataset.labels == ["NA", "a", "b"]
    assert "rows.csv: the label 'NA' is taken for a class" in caplog.text
