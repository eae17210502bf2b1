"""An experiment's models timed again: times are all that changes, and they are of the structures that the records name."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from adabert_core.config_file import load_run_config
from adabert_core.experiments.timing import time_again
from pipelines.run import cli
from tests.experiments.test_table import record

CELLS = "1 x 0>2 conv_3, 1>2 conv_3, 0>3 identity, 1>4 identity"
WIDE = "4 x 0>2 conv_7, 1>2 conv_7, 0>3 conv_7, 1>3 conv_7, 0>4 conv_7, 1>4 conv_7"


def trained(variant, seed, genotype, architecture="adabert", task="words"):
    return {**record(variant, seed, 0.8, 99.0, task=task), "genotype": genotype, "architecture": architecture}


@pytest.fixture
def settings(bert_folder):
    return [f"teacher.model={bert_folder}", "data.source=rows.csv", "benchmark.seconds=0.05", "benchmark.lengths=[16]"]


def test_times_are_of_each_records_own_structure(settings):
    before = [
        trained("searched", 0, CELLS),
        trained("twin", 1, CELLS),
        trained("random", 0, WIDE),
        trained("TextCNN", 0, None, "textcnn"),
        trained("searched", 0, CELLS, task="elsewhere"),
    ]
    after = time_again(before, {"words": load_run_config(Path("smoke"), [*settings, "benchmark.bert_base=true"])})
    small, twin, wide, peer, elsewhere = after
    assert small["ms"] == twin["ms"] < wide["ms"]
    assert elsewhere == before[-1]
    for old, new in zip(before[:-1], after[:-1], strict=True):
        assert {k: v for k, v in old.items() if k not in ("ms", "latency")} == {
            k: v for k, v in new.items() if k not in ("ms", "latency")
        }
        assert {row["model"] for row in new["latency"]} == {"student", "teacher", "bert-base"}
        assert {(row["length"], row["threads"], row["runtime"]) for row in new["latency"]} == {(16, 1, "onnx"), (64, 1, "onnx")}
    assert peer["ms"] != small["ms"]


def test_pairs_are_timed_as_pairs(settings):
    config = load_run_config(Path("smoke"), [*settings, "data.text=[a, b]", "benchmark.bert_base=false"])
    (found,) = time_again([trained("searched", 0, CELLS)], {"words": config})
    assert found["ms"] < 99.0


def test_written_results_are_timed_again_and_nothing_is_trained(settings, tmp_path):
    file, results, page = tmp_path / "e.yaml", tmp_path / "results", tmp_path / "PAGE.md"
    given = dict(word.split("=") for word in settings)
    given |= {"benchmark.seconds": 0.05, "benchmark.lengths": [16], "benchmark.bert_base": False}
    file.write_text(
        json.dumps({"name": "e", "preset": "smoke.yaml", "tasks": {"words": {"set": given}}, "variants": {"searched": {}}})
    )
    (tmp_path / "smoke.yaml").write_text("name: smoke\n")
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    file.write_text(file.read_text().replace("rows.csv", str(tmp_path / "rows.csv")))
    words = [
        "experiments",
        str(file),
        "--time-again",
        "--results",
        str(results),
        "--page",
        str(page),
        "--output",
        str(tmp_path / "runs"),
    ]
    refused = CliRunner().invoke(cli, words)
    assert "run the experiment first" in str(refused.exception)
    results.mkdir()
    written = {"experiment": "e", "command": "the command", "note": "On a GPU.", "runs": [trained("searched", 0, CELLS)]}
    (results / "e.json").write_text(json.dumps(written))
    for _ in range(2):
        done = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    known = json.loads((results / "e.json").read_text())
    assert (known["command"], known["runs"][0]["score"]) == ("the command", 0.8)
    assert known["runs"][0]["ms"] < 99.0
    assert page.read_text().count("once more") == 1
    assert not (tmp_path / "runs").exists()
