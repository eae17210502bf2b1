"""An experiment from the command line: everything shared is computed once, a kill costs nothing, a failure stops nobody else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.integration  # minutes, and the fast tests have one experiment's stages in test_stage_cache
ROOT = Path(__file__).parents[2]
TIMES = ("ms", "latency", "seconds", "command")


@pytest.fixture(scope="module")
def file(tmp_path_factory, learnable_csv, bert_folder):
    """A searched net, a random cell as dear, a peer, and a run that cannot work: its rows have no such column."""
    given = {"search.genotype": "1 x 0>2 conv_3, 1>2 conv_3, 0>3 identity, 1>4 identity"}
    content = {
        "name": "killed",
        "preset": str(ROOT / "pipelines" / "configs" / "smoke.yaml"),
        "seeds": [0],
        "set": {
            "data.source": str(learnable_csv),
            "data.max_train_rows": None,
            "teacher.model": str(bert_folder),
            "targets.augmented_rows": 200,
            "search.trial_steps": 0,
        },
        "tasks": {"words": {"set": {}}},
        "variants": {
            "searched": {},
            "random": {"dearer_than": "searched"},
            "hopeless": {"set": {**given, "data.label": "nowhere"}},
            "static": {"set": {"search.genotype": "none", "retrain.architecture": "static_mlp"}},
        },
    }
    path = tmp_path_factory.mktemp("experiment") / "killed.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def command(file: Path, folder: Path) -> list[str]:
    places = ["--output", folder / "runs", "--results", folder / "results", "--page", folder / "RESULTS.md", "--workers", "2"]
    return [sys.executable, "-m", "pipelines.run", "experiments", str(file), *map(str, places)]


def stages(folder: Path) -> Path:
    return folder / "runs" / "threads-1" / "stages"


def records(folder: Path) -> list[dict]:
    found = json.loads((folder / "results" / "killed.json").read_text())["runs"]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in found]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, file):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, subprocess.run(command(file, folder), cwd=ROOT, capture_output=True, text=True, check=False)


def test_failing_run_is_named_and_the_others_are_published(undisturbed):
    folder, done = undisturbed
    assert done.returncode == 1, done.stderr
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1
    assert failed[0].startswith("failed: words/hopeless/seed-0: ")
    assert "nowhere" in failed[0]
    found = records(folder)
    assert [record["variant"] for record in found] == ["searched", "random", "static"]
    assert found[1]["cost"] >= found[0]["cost"]
    assert found[1]["genotype"].partition(" x ")[0] == found[0]["genotype"].partition(" x ")[0]
    assert (found[2]["architecture"], found[2]["genotype"], found[2]["cost"]) == ("static_mlp", None, None)
    page = (folder / "RESULTS.md").read_text()
    assert page.count("| words (accuracy) |") == 4
    assert done.stdout.strip() in page
    assert (folder / "results" / "killed.svg").is_file()


def test_what_runs_have_in_common_is_computed_once(undisturbed):
    folder, _ = undisturbed
    kept = stages(folder)
    counts = {stage: len(list(kept.glob(f"{stage}/*/manifest.json"))) for stage in ("finetune_teacher", "distill_targets")}
    assert counts == {"finetune_teacher": 1, "distill_targets": 1}
    assert (len(list(kept.glob("search/*/manifest.json"))), len(list(kept.glob("retrain/*/manifest.json")))) == (3, 3)
    logs = "".join(path.read_text() for path in folder.glob("runs/**/log.txt"))
    assert [logs.count(f"{stage}: started") for stage in ("finetune_teacher", "distill_targets", "retrain")] == [1, 1, 3]


def test_second_call_computes_nothing_and_says_the_same(undisturbed, file):
    folder, before = undisturbed
    made = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("**/manifest.json")}
    done = subprocess.run(command(file, folder), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == before.stdout
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("**/manifest.json")} == made


def test_killed_at_two_moments_it_ends_with_the_same_table(undisturbed, file, tmp_path):
    words = [*command(file, tmp_path), "--variant", "searched", "--variant", "random"]

    def until(pattern: str) -> None:
        """Starts the experiment and kills it, workers and all, as soon as a stage of this name is being written or is there."""
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            while not list((tmp_path / "runs").glob(pattern)):
                assert process.poll() is None
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    until("threads-1/killed/**/.finetune_teacher.*")
    until("threads-1/stages/search/*/manifest.json")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path) == records(undisturbed[0])[:2]
