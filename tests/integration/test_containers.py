"""Stages killed in a container and tried again in a fresh one, which has nothing but S3."""

import json
import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.faults import LONG_STAGES, arguments, digest, wait_for_seal

Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the images' containers share, since they hold none."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.mark.parametrize("stage", LONG_STAGES)
def test_stage_killed_in_a_container_goes_on_in_a_fresh_one(
    stage: str,
    undisturbed: Path,
    images: dict[str, str],
    docker: Docker,
    stack_environment: dict[str, str],
    bytecode: Path,
    tmp_path: Path,
) -> None:
    """What KFP's retry does: another container, an empty disk, the same arguments; only S3 remembers."""
    place = f"s3://adabert-checkpoints/{uuid.uuid4().hex}"
    name = f"adabert-test-{uuid.uuid4().hex[:12]}"
    environment = [part for key in stack_environment for part in ("-e", key)]
    result = tmp_path / "result"
    result.mkdir()
    mounts = ["-v", f"{undisturbed}:{undisturbed}:ro", "-v", f"{bytecode}:/tmp/pycache"]
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
