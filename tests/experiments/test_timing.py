"""An experiment's models timed again: times are all that changes, and they are of the structures that the records name."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from adabert_core.config_file import load_run_config
from adabert_core.experiments import timing
from adabert_core.experiments.timing import time_again
from adabert_core.student_training import new_student
from pipelines.run import cli
from tests.experiments.test_table import record

CELLS = "1 x 0>2 conv_3, 1>2 conv_3, 0>3 identity, 1>4 identity"
WIDE = "4 x 0>2 conv_7, 1>2 conv_7, 0>3 conv_7, 1>3 conv_7, 0>4 conv_7, 1>4 conv_7"


def trained(variant, seed, genotype, architecture="adabert", task="words"):
    return {**record(variant, seed, 0.8, 99.0, task=task), "genotype": genotype, "architecture": architecture}


@pytest.fixture
def settings(bert_folder):
    return [f"teacher.model={bert_folder}", "data.source=rows.csv", "benchmark.seconds=0.05", "benchmark.lengths=[16]"]


@pytest.fixture
def built(monkeypatch):
    """Architecture, depth and kind of text of every student that is built."""
    seen = []

    def watched(genotype, teacher, labels, channels, dropout, architecture):
        seen.append((architecture, genotype.depth, teacher.pair))
        return new_student(genotype, teacher, labels, channels, dropout, architecture)

    monkeypatch.setattr(timing, "new_student", watched)
    return seen


def test_times_are_of_each_records_own_structure(settings, built):
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
    assert built == [("adabert", 1, False), ("adabert", 4, False), ("textcnn", 0, False)]
    assert peer["ms"] < 99.0


def test_pairs_are_timed_as_pairs(settings, built):
    config = load_run_config(Path("smoke"), [*settings, "data.text=[a, b]", "benchmark.bert_base=false"])
    (found,) = time_again([trained("searched", 0, CELLS)], {"words": config})
    assert built == [("adabert", 1, True)]
    assert found["ms"] < 99.0


@pytest.fixture
def file(settings, tmp_path):
    (tmp_path / "smoke.yaml").write_text("name: smoke\n")
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    given = {"data.source": str(tmp_path / "rows.csv"), "teacher.model": settings[0].partition("=")[2]}
    timing = {"benchmark.seconds": 0.05, "benchmark.lengths": [16], "benchmark.bert_base": False}
    content = {"name": "e", "preset": "smoke.yaml", "tasks": {"words": {"set": given | timing}, "other": {"set": given}}}
    wide = {"set": {"search.channels": 32}}
    (tmp_path / "e.yaml").write_text(json.dumps(content | {"variants": {"searched": {}, "wide": wide}}))
    return tmp_path / "e.yaml"


def again(file, *more):
    folder = file.parent
    places = ["--results", folder / "results", "--page", folder / "PAGE.md", "--output", folder / "runs"]
    words = ["experiments", file, "--time-again", *places, *more]
    return CliRunner().invoke(cli, [str(word) for word in words])


def write(file, *runs):
    (file.parent / "results").mkdir()
    told = {"command": "the command", "note": "On a GPU.", "timed": ""}
    written = {"experiment": "e", "tasks": {"words": told}, "runs": list(runs)}
    (file.parent / "results" / "e.json").write_text(json.dumps(written))


def test_written_results_are_timed_again_and_nothing_is_trained(file):
    write(file, trained("searched", 0, CELLS), trained("wide", 0, CELLS))
    for _ in range(2):
        done = again(file, "--variant", "searched")
        assert done.exit_code == 0, done.exception
    known = json.loads((file.parent / "results" / "e.json").read_text())
    searched, wide = known["runs"]
    told = known["tasks"]["words"]
    assert (told["command"], told["note"], searched["score"]) == ("the command", "On a GPU.", 0.8)
    assert searched["ms"] < 99.0 == wide["ms"]
    page = (file.parent / "PAGE.md").read_text()
    assert page.count("once more") == 1
    assert "--variant searched --time-again" in page
    assert "words: `the command`. On a GPU. Times were taken once more" in page
    assert not (file.parent / "runs").exists()


def test_what_cannot_be_timed_again_is_a_sentence(file):
    assert "has no results of other, words yet; run the experiment first" in str(again(file).exception)
    write(file, trained("searched", 0, CELLS))
    assert "has no results of other yet" in str(again(file, "--task", "other").exception)
    assert "the variants of words differ in search.channels; time them by themselves" in str(again(file).exception)
