"""What register does when data, labels or the champion have changed since the last time, with a real MLflow in a sqlite file."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from adabert_core.artifacts import read_manifest, write_manifest
from adabert_core.config_file import load_run_config, parse_section
from adabert_core.data.dataset import read_dataset
from adabert_core.runner import run_all
from adabert_core.serving import Predictor
from adabert_core.stages import STAGES, run_stage
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker
from tests.conftest import sentences
from tests.whole_run import SMOKE, settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, learnable_csv: Path, bert_folder: Path) -> Path:
    """A finished run without tracking; its register stage is what the tests do again."""
    output = tmp_path_factory.mktemp("runs") / "first"
    overrides = [value for value in settings(learnable_csv, bert_folder) if value != "--set"]
    run_all(load_run_config(SMOKE, overrides), output)
    return output


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take it seconds to make."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    client_of(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def tracking(tmp_path: Path, empty: Path) -> str:
    shutil.copy(empty, tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def client_of(uri: str):
    from mlflow import MlflowClient

    return MlflowClient(uri, uri)


def register(run: Path, uri: str, output: Path, dataset: Path | None = None, patience: float = 60.0, **gate) -> dict:
    inputs = {"dataset": dataset or run / "prepare_data", "student": run / "retrain"}
    inputs["benchmark"] = measured(run, inputs, output.with_name(f"{output.name}-benchmark"))
    config = parse_section("register", {"model_name": "m", "min_retention": 0.0, **gate})
    tracker = Tracker(uri, "adabert", str(output), "test", patience)
    run_stage("register", config, inputs, output, tracker=tracker, checkpoints=Checkpoints(None))
    return json.loads((output / "decision.json").read_text())


def measured(run: Path, inputs: dict[str, Path], folder: Path) -> Path:
    """The run's benchmark as if it had been made of these inputs."""
    shutil.copytree(run / "benchmark", folder)
    manifest = read_manifest(folder, "benchmark")
    digests = {name: read_manifest(path, STAGES["register"].inputs[name]).digest for name, path in inputs.items()}
    write_manifest(folder, dataclasses.replace(manifest, parents={**manifest.parents, **digests}))
    return folder


def prepared(rows: list[tuple[str, str]], folder: Path) -> Path:
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    config = parse_section("data", {"source": str(folder / "rows.csv")})
    output = folder / "prepared"
    run_stage("prepare_data", config, {}, output, tracker=Tracker(""), checkpoints=Checkpoints(None))
    return output


def other_student(run: Path, folder: Path) -> Path:
    """The same run with another student's digest: what a retraining on new rows would leave."""
    shutil.copytree(run, folder)
    manifest = json.loads((folder / "retrain" / "manifest.json").read_text())
    manifest["data_version"] = "another"
    (folder / "retrain" / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_first_student_becomes_version_1_and_champion(run: Path, tracking: str, tmp_path: Path) -> None:
    decision = register(run, tracking, tmp_path / "a")
    assert (decision["version"], decision["alias"], decision["champion_before"]) == ("1", "champion", None)
    version = client_of(tracking).get_model_version_by_alias("m", "champion")
    assert version.version == 1 or version.version == "1"
    assert version.tags["adabert.reasons"] == decision["reasons"][0]
    assert "student keeps" in version.description
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Now the champion" in page
    assert decision["reasons"][0] in page


def test_stage_that_is_tried_again_registers_nothing_twice(run: Path, tracking: str, tmp_path: Path) -> None:
    assert register(run, tracking, tmp_path / "a")["version"] == register(run, tracking, tmp_path / "b")["version"] == "1"


def test_champion_is_scored_on_the_new_test_split(run: Path, tracking: str, tmp_path: Path) -> None:
    register(run, tracking, tmp_path / "a")
    swapped = [(text, {"good": "bad", "bad": "good"}[label]) for text, label in sentences(400, seed=9)]
    decision = register(other_student(run, tmp_path / "new"), tracking, tmp_path / "b", dataset=prepared(swapped, tmp_path))
    dataset = read_dataset(tmp_path / "prepared")
    test = dataset.split("test")
    right = [dataset.labels[label] for label in test.labels]
    same = [answer["label"] == label for answer, label in zip(Predictor(run / "retrain")(test.text_a), right, strict=True)]
    assert decision["version"] == "2"
    assert decision["champion_before"] == {"version": "1", "score": pytest.approx(sum(same) / len(same))}
    assert "on the same rows" in decision["reasons"][-1]


def test_worse_student_stays_challenger_and_the_champion_keeps_its_alias(run: Path, tracking: str, tmp_path: Path) -> None:
    register(run, tracking, tmp_path / "a")
    decision = register(other_student(run, tmp_path / "new"), tracking, tmp_path / "b", min_retention=9.0)
    assert decision["alias"] == "challenger"
    report = report_of(run)
    served = "int8" if report["student"]["int8"]["passed"] else "onnx"
    score = report["student"]["metrics"]["test"][served]["score"]
    assert decision["reasons"] == [f"retention {score / report['teacher']['metrics']['test']['score']:.3f}, needed 9.000"]
    client = client_of(tracking)
    assert str(client.get_model_version_by_alias("m", "champion").version) == "1"
    assert str(client.get_model_version_by_alias("m", "challenger").version) == "2"
    assert "A challenger only" in (tmp_path / "b" / "report.html").read_text()


def report_of(run: Path) -> dict:
    return json.loads((run / "benchmark" / "report.json").read_text())


def test_broken_champion_is_replaced_and_named(run: Path, tracking: str, tmp_path: Path) -> None:
    register(run, tracking, tmp_path / "a")
    for model in (tmp_path / "mlartifacts").rglob("model*.onnx"):
        model.write_bytes(b"not a model")
    decision = register(other_student(run, tmp_path / "new"), tracking, tmp_path / "b")
    assert decision["alias"] == "champion"
    assert decision["reasons"][-1].startswith("the champion, version 1, is broken (")
    shutil.rmtree(tmp_path / "mlartifacts")
    third = other_student(run, tmp_path / "newer")
    manifest = third / "retrain" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"another"', '"a third"'))
    decision = register(third, tracking, tmp_path / "c")
    assert (decision["version"], decision["alias"]) == ("3", "champion")
    assert decision["reasons"][-1].startswith("the champion, version 2, is broken (")


def test_changed_labels_are_named_and_do_not_stand_in_the_way(run: Path, tracking: str, tmp_path: Path) -> None:
    register(run, tracking, tmp_path / "a")
    renamed = [(text, f"very {label}") for text, label in sentences(400, seed=3)]
    decision = register(other_student(run, tmp_path / "new"), tracking, tmp_path / "b", dataset=prepared(renamed, tmp_path))
    assert decision["alias"] == "champion"
    assert decision["reasons"][-1] == "the champion, version 1, knows other labels (bad, good)"


def test_rollback_gives_the_alias_back(run: Path, tracking: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from adabert_core.cli import cli
    from adabert_core.errors import UserError

    register(run, tracking, tmp_path / "a")
    arguments = ["rollback", "--model-name", "m", "--tracking-uri", tracking]
    assert isinstance(CliRunner().invoke(cli, arguments).exception, UserError)  # nothing to go back to
    assert register(other_student(run, tmp_path / "new"), tracking, tmp_path / "b")["alias"] == "champion"
    done = CliRunner().invoke(cli, arguments)
    assert done.output == "m: version 1 is champion again, version 2 is not any more\n"
    assert str(client_of(tracking).get_model_version_by_alias("m", "champion").version) == "1"
    assert "no version 9" in str(CliRunner().invoke(cli, [*arguments, "--to", "9"]).exception)


def test_register_without_tracking_says_so(run: Path, tmp_path: Path) -> None:
    assert dataclasses.asdict(parse_section("register", {}))["export_uri"] == ""
    decision = json.loads((run / "register" / "decision.json").read_text())
    assert decision["version"] == ""
    assert "Not registered: tracking is off" in (run / "register" / "report.html").read_text()
