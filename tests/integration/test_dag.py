"""The DAG against real servers: on rows in S3 that change from one run to the next, as a schedule does it; and in containers."""

import contextlib
import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from adabert_core.s3 import S3Place, open_place
from pipelines.stack.stack import Stack
from tests.conftest import sentences
from tests.integration.conftest import use_servers
from tests.whole_run import ROOT, SMOKE, digests, settings, test_metrics

TRAINED = ("finetune_teacher", "distill_targets", "search", "retrain", "benchmark")
ROWS = sentences(300, seed=0)  # those of the fixture learnable_csv


@dataclasses.dataclass
class Schedule:
    """A recompression that is run again and again in subprocesses, on the rows that are then at the same address."""

    name: str
    place: S3Place
    folder: Path
    words: list[str]

    def run(self, rows: list[tuple[str, str]]) -> str:
        """Runs it once and returns what it said."""
        with (self.folder / "rows.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *rows])
        self.place.upload(self.folder / "rows.csv", "rows.csv")
        return run_local(self.output, *self.words)

    @property
    def output(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def decision(self) -> dict:
        """What the last run's register stage decided."""
        return json.loads((self.output / "register" / "decision.json").read_text())


@dataclasses.dataclass
class First:
    """A schedule after its first run, and what that run said, left and measured."""

    schedule: Schedule
    said: str
    digests: dict[str, str]
    metrics: dict[str, dict[str, float]]


def run_local(output: Path, *more: str) -> str:
    command = [sys.executable, "-m", "pipelines.run", "local", "--no-plan", "--config", str(SMOKE), "--output", str(output)]
    done = subprocess.run([*command, *more], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def first(stack: Stack, bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[First]:
    with contextlib.ExitStack() as when_done:
        environment = use_servers(stack, when_done.enter_context(pytest.MonkeyPatch.context()))
        name = uuid.uuid4().hex
        place = open_place(f"s3://adabert-exports/{name}")
        folder = tmp_path_factory.mktemp("schedule")
        shutil.copytree(bert_folder, folder / "teacher")
        words = settings(f"{place.uri}/rows.csv", folder / "teacher", environment["MLFLOW_TRACKING_URI"])
        words += ["--set", f"register.model_name={name}", "--set", f"experiment={name}"]
        schedule = Schedule(name, place, folder, words)
        said = schedule.run(ROWS)
        yield First(schedule, said, digests(schedule.output), test_metrics(schedule.output))


@pytest.mark.timeout(1200)
def test_new_rows_behind_the_same_address_make_a_challenger_and_the_same_rows_cost_nothing(
    first: First, stack_environment: dict[str, str], bert_folder: Path
) -> None:
    from mlflow import MlflowClient

    schedule, output = first.schedule, first.schedule.output
    assert all(f"{stage}: started" in first.said for stage in TRAINED)
    found = schedule.decision()
    assert (found["version"], found["alias"], found["champion_before"]) == ("1", "champion", None)

    same = {"dirs_exist_ok": True, "copy_function": shutil.copyfile}
    shutil.copytree(bert_folder, schedule.folder / "teacher", **same)  # the same bytes, written again, like the rows
    unchanged = schedule.run(ROWS)
    assert not [stage for stage in (*TRAINED, "register") if f"{stage}: started" in unchanged]
    assert digests(output) == first.digests

    changed = schedule.run([*ROWS, *sentences(200, seed=7)])
    assert all(f"{stage}: started" in changed for stage in TRAINED)
    assert digests(output) != first.digests
    found = schedule.decision()
    assert found["version"] == "2"
    assert found["champion_before"]["version"] == "1"
    assert any("on the same rows" in reason for reason in found["reasons"])
    client = MlflowClient()
    holder = str(client.get_model_version_by_alias(schedule.name, "champion").version)
    assert holder == ("2" if found["alias"] == "champion" else "1")
    tags = client.get_model_version(schedule.name, "2").tags
    assert tags["verdict"] == found["alias"]
    assert tags["adabert.reasons"] == "; ".join(found["reasons"])
    assert tags["data_version"] != client.get_model_version(schedule.name, "1").tags["data_version"]
    page = (output / "register" / "report.html").read_text()
    assert found["reasons"][0] in page

    back = schedule.run(ROWS)
    assert not [stage for stage in (*TRAINED, "register") if f"{stage}: started" in back]
    assert digests(output) == first.digests  # from the cache, and not what ran last


@pytest.mark.timeout(1200)
def test_dag_in_containers_gives_what_subprocesses_give(
    first: First,
    images: dict[str, str],
    stack_environment: dict[str, str],
    learnable_csv: Path,
    bert_folder: Path,
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    places = [f"s3://{bucket}/{uuid.uuid4().hex}" for bucket in ("adabert-pipelines", "adabert-checkpoints")]
    experiment, output = uuid.uuid4().hex, tmp_path / "containers"
    inside = ["--runner", "docker", "--image", images["cpu"], "--artifact-uri", places[0], "--checkpoint-uri", places[1]]
    rows = settings(learnable_csv, bert_folder, "sqlite:///unused.db")
    said = run_local(output, "--plan", *inside, *rows, "--set", f"experiment={experiment}")
    assert "plan: about " in said
    assert "The student keeps" in said
    assert (digests(output), test_metrics(output)) == (first.digests, first.metrics)
    shared = [path.name for path in (output / "kfp" / "tasks").rglob("*") if path.is_file()]
    assert not {"model.safetensors", "train.parquet", "teacher_logits.npy"} & set(shared)
    assert not [name for name in shared if name.endswith(".pyc")]
    assert any(key.endswith("model/model.safetensors") for key in open_place(places[0]).keys())  # noqa: SIM118
    assert open_place(places[1]).keys() == {}, "a finished stage forgets its checkpoints"

    client = MlflowClient()
    (found,) = client.search_experiments(filter_string=f"name = '{experiment}'")
    runs = client.search_runs([found.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert len(runs) == 8
    secrets = [stack_environment[name] for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")]
    for path in output.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path
