"""The DAG in containers, with artifacts and checkpoints in S3 and tracking on a server; and stages killed and retried there."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from adabert_core.s3 import open_place
from tests.integration.faults import LONG_STAGES, arguments, digest, wait_for_seal
from tests.test_end_to_end import ROOT, SMOKE, digests, settings, test_metrics

Docker = Callable[..., subprocess.CompletedProcess[str]]


def run_local(output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.run", "local", "--config", str(SMOKE), "--output", str(output), *more]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_dag_in_containers_gives_what_subprocesses_give(
    images: dict[str, str], stack_environment: dict[str, str], learnable_csv: Path, bert_folder: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    places = [f"s3://{bucket}/{uuid.uuid4().hex}" for bucket in ("adabert-pipelines", "adabert-checkpoints")]
    experiment = f"experiment={uuid.uuid4().hex}"
    inside = ["--runner", "docker", "--image", images["cpu"], "--artifact-uri", places[0], "--checkpoint-uri", places[1]]
    rows = settings(learnable_csv, bert_folder)
    served = [part if part != "tracking_uri=''" else "tracking_uri=sqlite:///unused.db" for part in rows]
    done = run_local(tmp_path / "containers", "--no-plan", *inside, *served, "--set", experiment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The student keeps" in done.stdout
    done = run_local(tmp_path / "subprocesses", *rows)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plan: about " in done.stderr
    for compare in (digests, test_metrics):
        here, there = compare(tmp_path / "subprocesses"), compare(tmp_path / "containers")
        assert here == there
    shared = [path.name for path in (tmp_path / "containers" / "kfp" / "tasks").rglob("*") if path.is_file()]
    assert not {"model.safetensors", "train.parquet", "teacher_logits.npy"} & set(shared)
    assert any(key.endswith("model/model.safetensors") for key in open_place(places[0]).keys())  # noqa: SIM118
    assert open_place(places[1]).keys() == {}, "a finished stage forgets its checkpoints"

    client = MlflowClient()
    (found,) = client.search_experiments(filter_string=f"name = '{experiment.partition('=')[2]}'")
    runs = client.search_runs([found.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert len(runs) == 8
    secrets = [stack_environment[name] for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD")]
    for path in (tmp_path / "containers").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path


@pytest.mark.parametrize("stage", LONG_STAGES)
def test_stage_killed_in_a_container_goes_on_in_a_fresh_one(
    stage: str, undisturbed: Path, images: dict[str, str], docker: Docker, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    """What KFP's retry does: another container, an empty disk, the same arguments; only S3 remembers."""
    place = f"s3://adabert-checkpoints/{uuid.uuid4().hex}"
    name = f"adabert-test-{uuid.uuid4().hex[:12]}"
    environment = [part for key in stack_environment for part in ("-e", key)]
    result = tmp_path / "result"
    result.mkdir()
    mounts = ["-v", f"{undisturbed}:{undisturbed}:ro", "-v", f"{undisturbed.parent}:{undisturbed.parent}:ro"]
    flags = ["--network", "host", "--shm-size", "1g", "--user", f"{os.getuid()}:{os.getgid()}", "-e", "OMP_NUM_THREADS=1"]
    inside = ["adabert", *arguments(stage, undisturbed, Path("/tmp/out"), place)]

    assert docker("run", "-d", "--name", name, *flags, *environment, *mounts, images["cpu"], *inside).returncode == 0
    try:
        wait_for_seal(place, alive=lambda: docker("inspect", "-f", "{{.State.Running}}", name).stdout.strip() == "true")
        assert docker("kill", "-s", "KILL", name).returncode == 0
    finally:
        docker("rm", "-f", name)
    after = "cp /tmp/out/manifest.json /result/"
    shell = ["sh", "-c", f'"$@" && {after}', "sh", *inside]
    done = docker("run", "--rm", "-v", f"{result}:/result", *flags, *environment, *mounts, images["cpu"], *shell)
    assert done.returncode == 0, done.stderr
    if stage != "distill_targets":
        assert "resumed at step" in done.stderr
    assert json.loads((result / "manifest.json").read_text())["files"] == digest(undisturbed, stage)
