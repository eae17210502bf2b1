"""What the local runs of the DAG refuse before they start anything."""

import sys
from pathlib import Path

import pytest

from adabert_core.config import RunConfig
from adabert_core.errors import UserError
from pipelines.local_run import Containers, run_local


def test_interpreter_under_a_path_with_a_space_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/my checkout/.venv/bin/python")
    with pytest.raises(UserError, match=r"cannot start /my checkout/.venv/bin/python, whose path has a space"):
        run_local(RunConfig(tracking_uri=""), tmp_path, cache=True)


def test_containers_refuse_a_tracking_file_they_cannot_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="containers cannot share a sqlite file"):
        run_local(RunConfig(), tmp_path, cache=True, containers=Containers("an-image", "s3://bucket/a", "s3://bucket/b"))
