"""Recompression as a schedule does it: the same DAG on the same place in S3, whose rows change from one run to the next."""

import csv
import json
import subprocess
import sys
import uuid
from pathlib import Path

from adabert_core.s3 import open_place
from tests.conftest import sentences
from tests.test_end_to_end import ROOT, SMOKE, digests, settings

TRAINED = ("finetune_teacher", "distill_targets", "search", "retrain", "benchmark")


def test_new_rows_behind_the_same_address_make_a_challenger_and_the_same_rows_cost_nothing(
    stack_environment: dict[str, str], bert_folder: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    name = uuid.uuid4().hex
    place = open_place(f"s3://adabert-exports/{name}")
    source, tracking = f"{place.uri}/rows.csv", stack_environment["MLFLOW_TRACKING_URI"]
    words = settings(source, bert_folder, tracking)
    words += ["--set", f"register.model_name={name}", "--set", f"experiment={name}"]

    def run(rows: list[tuple[str, str]]) -> str:
        with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *rows])
        place.upload(tmp_path / "rows.csv", "rows.csv")
        command = [sys.executable, "-m", "pipelines.run", "local", "--no-plan", "--config", str(SMOKE), *words]
        command += ["--output", str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def decision() -> dict:
        return json.loads((tmp_path / "run" / "register" / "decision.json").read_text())

    first = run(sentences(300, seed=0))
    assert all(f"{stage}: started" in first for stage in TRAINED)
    assert (decision()["version"], decision()["alias"], decision()["champion_before"]) == ("1", "champion", None)
    before = digests(tmp_path / "run")

    unchanged = run(sentences(300, seed=0))
    assert not [stage for stage in (*TRAINED, "register") if f"{stage}: started" in unchanged]
    assert digests(tmp_path / "run") == before

    changed = run([*sentences(300, seed=0), *sentences(200, seed=7)])
    assert all(f"{stage}: started" in changed for stage in TRAINED)
    assert digests(tmp_path / "run") != before
    found = decision()
    assert found["version"] == "2"
    assert found["champion_before"]["version"] == "1"
    assert any("on the same rows" in reason for reason in found["reasons"])
    client = MlflowClient()
    holder = str(client.get_model_version_by_alias(name, "champion").version)
    assert holder == ("2" if found["alias"] == "champion" else "1")
    tags = client.get_model_version(name, "2").tags
    assert tags["verdict"] == found["alias"]
    assert tags["adabert.reasons"] == "; ".join(found["reasons"])
    assert tags["data_version"] != client.get_model_version(name, "1").tags["data_version"]
    page = (tmp_path / "run" / "register" / "report.html").read_text()
    assert found["reasons"][0] in page

    back = run(sentences(300, seed=0))
    assert not [stage for stage in (*TRAINED, "register") if f"{stage}: started" in back]
    assert digests(tmp_path / "run") == before  # from the cache, and not what ran last
