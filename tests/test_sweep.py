import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kfp_api_server import Done

from adabert_core.errors import UserError
from pipelines.sweep import cases_of
from tests.whole_run import ROOT, SMOKE, settings


def test_every_combination_is_a_case_with_all_sections() -> None:
    cases = cases_of(SMOKE, ("data.label=stars",), ("seed=0,1", "search.beta=0.1,0.2"))
    assert [case["name"] for case in cases] == [
        "seed=0 search.beta=0.1",
        "seed=0 search.beta=0.2",
        "seed=1 search.beta=0.1",
        "seed=1 search.beta=0.2",
    ]
    assert [(case["seed"], case["search"]["beta"]) for case in cases] == [(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)]
    assert {case["data"]["label"] for case in cases} == {"stars"}
    assert set(cases[0]) == {"name", "seed", "data", "teacher", "targets", "search", "retrain", "benchmark", "register"}


@pytest.mark.parametrize("words", ["seed", "seed=", "seed=1,,2", "=1", "search.bta=1"])
def test_what_cannot_vary_is_refused(words: str) -> None:
    with pytest.raises(UserError, match=r"--vary|unknown key|key=value"):
        cases_of(SMOKE, (), (words,))


def test_sweep_compiles_to_a_loop_with_the_stages_inside(tmp_path: Path, command: Callable[..., Done]) -> None:
    done = command("sweep", "--config", str(SMOKE), "--vary", "seed=0,1", "--output", str(tmp_path / "s.yaml"))
    assert done.code == 0, done.error
    assert "2 cases" in done.out
    spec, _ = yaml.safe_load_all((tmp_path / "s.yaml").read_text())
    loop = spec["components"]["comp-for-loop-2"]["dag"]["tasks"]
    assert {"prepare-data", "finetune-teacher", "distill-targets", "search", "retrain", "benchmark", "register"} <= set(loop)
    assert "compare-cases" in str(spec["components"]["comp-exit-handler-1"]["dag"]["tasks"])


@pytest.mark.integration
def test_sweep_over_two_seeds_runs_here_and_compares(learnable_csv: Path, bert_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.run", "sweep", "--config", str(SMOKE), *settings(learnable_csv, bert_folder)]
    done = subprocess.run(
        [*command, "--vary", "seed=0,1", "--run", str(tmp_path / "sweep")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = Path(done.stdout.strip().splitlines()[-1].split()[-1])
    text = page.read_text()
    assert "of 2 students are worth having" in text
    assert "<td>seed=0</td>" in text
    assert "<td>seed=1</td>" in text
    assert "Over the seeds" in text


@pytest.mark.integration
def test_users_mistake_in_a_sweep_that_runs_here_is_one_sentence(learnable_csv: Path, bert_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.run", "sweep", "--config", str(SMOKE), *settings(learnable_csv, bert_folder)]
    wrong = ["--set", "data.label=stars", "--vary", "seed=0,1", "--run", str(tmp_path / "sweep")]
    done = subprocess.run([*command, *wrong], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("adabert: ")]
    assert "has no column 'stars'" in line
    assert "Traceback" not in done.stderr


def test_cases_for_a_cluster_name_nothing_of_this_machine() -> None:
    with pytest.raises(UserError, match="data.source: README.md is on this machine"):
        cases_of(SMOKE, ("data.source=README.md",), ("seed=0,1",))
