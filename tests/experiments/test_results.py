"""Written results: a call brings its tasks, nothing else is lost, and each task says how its figures came about."""

import json

import pytest
from test_table import record

from adabert_core.errors import UserError
from adabert_core.experiments.results import Results

VARIANTS = ["searched", "BiLSTM"]


def written(tmp_path, records, **told):
    results = Results.load(tmp_path / "results", "peers")
    results.replace(records, {"command": "", "note": "", "timed": ""} | told)
    results.publish(tmp_path / "results", tmp_path / "RESULTS.md", "About.", VARIANTS)
    return (tmp_path / "RESULTS.md").read_text()


def test_tasks_come_one_by_one_and_a_task_is_replaced_as_a_whole(tmp_path):
    both = [record(variant, 0, 0.8, 1.0, task="sst2") for variant in VARIANTS]
    written(tmp_path, both, command="run --task sst2", note="On a GPU.")
    written(tmp_path, [record("searched", 0, 0.7, 1.0)], command="run --task mrpc")
    page = written(tmp_path, [record("BiLSTM", 0, 0.9, 1.0, task="sst2")], command="run --variant BiLSTM")
    known = json.loads((tmp_path / "results" / "peers.json").read_text())
    assert [(run["task"], run["variant"], run["score"]) for run in known["runs"]] == [
        ("sst2", "BiLSTM", 0.9),
        ("mrpc", "searched", 0.7),
    ]
    assert page.index("sst2: `run --variant BiLSTM`.\n\n") < page.index("mrpc: `run --task mrpc`.\n\n")
    assert "On a GPU." not in page
    assert "| against searched |" in page


def test_tasks_of_one_call_say_once_how_they_came_about(tmp_path):
    page = written(tmp_path, [record("searched", 0, 0.8, 1.0, task=task) for task in ("sst2", "mrpc")], command="run")
    assert "sst2, mrpc: `run`.\n\n" in page
    assert page.count("`run`") == 1


def test_results_of_an_older_version_are_not_overwritten(tmp_path):
    (tmp_path / "peers.json").write_text('{"command": "run", "runs": []}')
    with pytest.raises(UserError, match=r"peers.json is not of this version: move it away, or give another folder by --results"):
        Results.load(tmp_path, "peers")
