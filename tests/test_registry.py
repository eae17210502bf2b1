"""Who is champion when stores fail and runs finish beside each other, with a real MLflow in a sqlite file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adabert_core import registry
from adabert_core.entry import component_tracker, run_component
from adabert_core.tracking import Tracker
from tests.test_recompression import client_of, empty, other_student, register, run, tracking

__all__ = ["empty", "run", "tracking"]


def champion_of(uri: str) -> str:
    return str(client_of(uri).get_model_version_by_alias("m", "champion").version)


def test_champion_whose_store_is_down_keeps_its_alias(
    run: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    def down(*_: object, **__: object) -> None:
        raise MlflowException("503 Server Error: Service Unavailable")

    register(run, tracking, tmp_path / "a")
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", down)
    decision = register(other_student(run, tmp_path / "new"), tracking, tmp_path / "b", patience=0.1)
    assert decision["version"] == ""
    assert champion_of(tracking) == "1"


def test_champion_made_in_the_meantime_is_compared_with(
    run: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote, beside = registry.promote, []

    def after_another(*said: object) -> bool:
        if not beside:
            beside.append("")
            beside.append(register(other_student(run, tmp_path / "new"), tracking, tmp_path / "b")["version"])
        return promote(*said)

    monkeypatch.setattr(registry, "promote", after_another)
    decision = register(run, tracking, tmp_path / "a")
    assert decision["champion_before"]["version"] == beside[1] == "2"
    assert "on the same rows" in decision["reasons"][-1]


def test_requests_have_minutes_while_a_model_is_sent_and_seconds_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with registry._patient_requests():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "120"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"


def component(run: Path, uri: str, output: Path) -> dict:
    inputs = {"dataset": run / "prepare_data", "student": run / "retrain", "benchmark": run / "benchmark"}
    config = {"model_name": "m", "min_retention": 0.0}
    run_component("register", config, {name: str(path) for name, path in inputs.items()}, str(output), tracking_uri=uri)
    return json.loads((output / "decision.json").read_text())


def test_task_of_a_cluster_fails_where_the_student_was_not_registered(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9"
    assert component(run, nowhere, tmp_path / "here")["version"] == ""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(RuntimeError, match="MLflow did not take the student as a version of m"):
        component(run, nowhere, tmp_path / "there")


def test_file_of_a_pod_is_no_place_to_track_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert component_tracker(uri, "e").uri == uri
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert component_tracker(uri, "e").uri == ""
    assert component_tracker("http://127.0.0.1:9", "e").uri == "http://127.0.0.1:9"


def test_end_of_a_pipeline_run_without_stages_makes_no_run(tracking: str) -> None:
    Tracker(tracking, "e", "night").finish_pipeline()
    assert client_of(tracking).get_experiment_by_name("e") is None


@pytest.mark.parametrize(("ends", "status"), [(("FAILED", "FINISHED"), "FINISHED"), (("FINISHED", "FAILED"), "FAILED")])
def test_last_run_of_a_stage_tells_how_the_pipeline_run_ended(tracking: str, ends: tuple[str, str], status: str) -> None:
    for end in ends:  # the second is a retry of the first
        tracker = Tracker(tracking, "e", "night")
        tracker.start("search", {})
        tracker.finish(end)
    Tracker(tracking, "e", "night").finish_pipeline()
    client = client_of(tracking)
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert [run.info.status for run in runs if "mlflow.parentRunId" not in run.data.tags] == [status]


def test_tasks_that_start_together_share_one_parent(tracking: str) -> None:
    code = "import sys; from adabert_core.tracking import Tracker; t = Tracker(sys.argv[1], 'e', 'night'); "
    code += "t.start(sys.argv[2], {}); t.finish('FINISHED')"
    started = [subprocess.Popen([sys.executable, "-c", code, tracking, stage]) for stage in ("search", "retrain", "benchmark")]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    client = client_of(tracking)
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    parents = {run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert len(parents) == 1
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run.info.run_id not in parents} == parents
    assert len(runs) == 4
