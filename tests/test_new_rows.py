"""Labelled rows of later: which are read, with what labels, what the run had of them. Whole runs: test_end_to_end and others."""

import json
from pathlib import Path

import datasets
import pytest

from adabert_core import new_rows
from adabert_core.artifacts import Manifest, read_manifest, write_json, write_manifest
from adabert_core.config import DataConfig
from adabert_core.data import prepare
from adabert_core.errors import UserError
from adabert_core.new_rows import score_rows, summary
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker
from tests.conftest import sentences


class Reader:
    """A student that answers what the last word of its (second) text says."""

    precision = "fp32"

    def __call__(self, texts: list) -> list[dict]:
        return [{"label": (text if isinstance(text, str) else text[1]).split()[-1]} for text in texts]


def write_stage(folder: Path, version: str, **parents: str) -> None:
    """Writes a manifest, and nothing else, for a stage directory."""
    folder.mkdir(exist_ok=True)
    manifest = Manifest(folder.name, {}, 0, version, parents, {}, {}, 1.0, 1)
    write_manifest(folder, manifest)


@pytest.fixture(params=["single", "pair"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = ["a,b,mark", *(f"{text},it is {label},{label}" for text, label in sentences(200, seed=0))]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    (tmp_path / "more.jsonl").write_text('{"a": "seen without label", "b": "it is good"}\n')
    text = "b" if request.param == "single" else ["a", "b"]
    if request.param == "single":
        (tmp_path / "rows.csv").write_text(
            "\n".join(["b,mark", *(f"{text} {label},{label}" for text, label in sentences(200, seed=0))])
        )
    config = DataConfig(source=str(tmp_path / "rows.csv"), text=text, label="mark", unlabeled=str(tmp_path / "more.jsonl"))
    return write_run(tmp_path / "run", config, monkeypatch)


def write_run(folder: Path, config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder, now a run with real rows and a `Reader` for a student."""
    prepare.run(config, {}, folder / "prepare_data", tracker=Tracker(""), checkpoints=Checkpoints(None))
    write_stage(folder / "retrain", read_manifest(folder / "prepare_data", "prepare_data").data_version)
    monkeypatch.setattr(new_rows, "load", lambda *_: Reader())
    return folder


def test_rows_without_a_header_have_the_columns_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").write_text("\n".join(f"{label},{text} {label}" for text, label in sentences(200, seed=0)))
    config = DataConfig(source=str(tmp_path / "rows.csv"), columns=["mark", "b"], text="b", label="mark")
    run = write_run(tmp_path / "run", config, monkeypatch)
    (tmp_path / "may.csv").write_text("good,this is good\nbad,and that is good\n")
    found = score_rows(run, str(tmp_path / "may.csv"))
    assert (found["rows"], found["score"]) == (2, 0.5)


def test_unlabeled_text_that_the_targets_left_out_was_not_seen(run: Path, tmp_path: Path) -> None:
    (tmp_path / "june.jsonl").write_text('{"a": "Seen, without label", "b": "It is... good", "mark": "good"}\n')
    (run / "distill_targets").mkdir()
    for said, seen in (({"unlabeled_rows": 1}, {"unlabeled": 1}), ({"augmented_rows": 9}, {})):
        (run / "distill_targets" / "targets.json").write_text(json.dumps(said))
        assert score_rows(run, str(tmp_path / "june.jsonl"))["seen"] == {"train": 0, "validation": 0, "test": 0, **seen}


def test_all_files_of_a_folder_count_and_numbers_of_rows_add_up(run: Path, tmp_path: Path) -> None:
    (tmp_path / "months").mkdir()
    (tmp_path / "months" / "may.csv").write_text("a,b,mark\nx,this is good,good\ny,that is bad,bad\nz,fine is bad,good\n")
    (tmp_path / "months" / "june.jsonl").write_text('{"a": "Seen, without label", "b": "It is... good", "mark": "good"}\n')
    found = score_rows(run, str(tmp_path / "months"))
    assert (found["rows"], found["scores"]["accuracy"], found["confusion"]) == (4, 0.75, [[1, 0], [1, 2]])
    assert found["test_score"] is None
    assert found["seen"] == {"train": 0, "validation": 0, "test": 0, "unlabeled": 1}
    assert "of these texts the run had 1 in unlabeled" in summary(found)
    assert ["good", "3", "2", "0.667", "1.000"] in [line.split() for line in summary(found).splitlines()]


def test_hub_labels_are_their_names_and_hidden_ones_are_left_out(run: Path, tmp_path: Path) -> None:
    features = datasets.Features(
        {"a": datasets.Value("string"), "b": datasets.Value("string"), "mark": datasets.ClassLabel(names=["good", "bad"])}
    )
    columns = {"a": ["x", "y"], "b": ["one good", "one bad"]}
    splits = {"week": [0, 1], "hidden": [-1, -1]}
    published = {name: datasets.Dataset.from_dict(columns | {"mark": marks}, features) for name, marks in splits.items()}
    datasets.DatasetDict(published).save_to_disk(str(tmp_path / "hub"))
    found = score_rows(run, f"hf:{tmp_path / 'hub'}")
    assert (found["rows"], found["score"]) == (2, 1.0)  # the hub's numbers are not the run's
    datasets.DatasetDict({"hidden": published["hidden"]}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(UserError, match="every split hides its labels"):
        score_rows(run, f"hf:{tmp_path / 'none'}")


@pytest.mark.parametrize("run", ["pair"], indirect=True)
@pytest.mark.parametrize(
    ("text", "label", "sentence"),
    [
        (["a"], "", "^--text: .* was trained on pairs, name two columns"),
        (["a", "a"], "", "^--text names the column 'a' twice"),
        (["a", "mark"], "", "^--text and --label both name the column 'mark'"),
        (["a", "c"], "", r"^.*/data.text.csv has no column 'c' \(--text\)"),
        ([], "c", r"^.*/data.text.csv has no column 'c' \(--label\)"),
    ],
)
def test_columns_are_checked_as_for_training(run: Path, text: list[str], label: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "data.text.csv").write_text("a,b,mark\nx,y good,good\n")
    with pytest.raises(UserError, match=sentence):
        score_rows(run, str(tmp_path / "data.text.csv"), text, label)


def test_a_folder_that_is_no_run_says_what_is_wanted(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.csv").write_text("a,b,mark\nx,y good,good\n")
    monkeypatch.chdir(run / "retrain")
    assert summary(score_rows(Path(), str(tmp_path / "one.csv"))).startswith("accuracy 1.0000 on 1 text of ")
    (tmp_path / "exported").mkdir()
    with pytest.raises(UserError, match="exported holds no prepare_data: give the folder of a run"):
        score_rows(tmp_path / "exported", str(tmp_path / "one.csv"))
    (tmp_path / "one.txt").write_text("x")
    with pytest.raises(UserError, match=r"one\.txt.*--data reads \.csv"):
        score_rows(run, str(tmp_path / "one.txt"))


@pytest.mark.parametrize(("precision", "score"), [("fp32", 0.9), ("int8", 0.8)])
def test_score_before_is_that_of_this_student_in_this_precision(
    run: Path, tmp_path: Path, precision: str, score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "june.jsonl").write_text('{"a": "x", "b": "It is... good", "mark": "good"}\n')
    student = read_manifest(run / "retrain", "retrain")
    write_stage(run / "benchmark", student.data_version, student=student.digest)
    test = {"onnx": {"score": 0.9}, "int8": {"score": 0.8}}
    write_json(run / "benchmark" / "report.json", {"student": {"metrics": {"test": test}}})
    monkeypatch.setattr(Reader, "precision", precision)
    assert score_rows(run, str(tmp_path / "june.jsonl"))["test_score"] == score
    write_stage(run / "benchmark", student.data_version, student="another")
    assert score_rows(run, str(tmp_path / "june.jsonl"))["test_score"] is None


def test_student_of_other_rows_is_not_scored(run: Path, tmp_path: Path) -> None:
    (tmp_path / "june.jsonl").write_text('{"a": "x", "b": "It is... good", "mark": "good"}\n')
    write_stage(run / "retrain", "older")
    with pytest.raises(UserError, match="its rows are not those its student was trained on"):
        score_rows(run, str(tmp_path / "june.jsonl"))
