"""A fresh environment of base dependencies alone: a student answers there without torch, and training says what it needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adabert_core.serving import Predictor
from tests.test_package import copy_code
from tests.test_serving import folder  # noqa: F401 - the fixture: a StudentDir with random weights

ROOT = Path(__file__).parents[2]
TEXTS = ("a superb film", "dull and awful")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that `pip install .` made."""
    place = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    done = subprocess.run([*pip, copy_code(tmp_path_factory.mktemp("code"))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place / "bin"


def in_base(base: Path, *command: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([base / command[0], *command[1:]], capture_output=True, text=True, cwd=base, env=clean)


def test_student_answers_without_torch(base: Path, folder: tuple) -> None:  # noqa: F811
    path, _, _, pair = folder
    done = in_base(base, "adabert", "predict", "--model", str(path), *TEXTS)
    assert done.returncode == 0, done.stderr
    expected = Predictor(path)([TEXTS] if pair else list(TEXTS))
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == [answer["label"] for answer in expected]
    code = "import adabert_core.api, adabert_core.serving, importlib.util; print(importlib.util.find_spec('torch'))"
    assert in_base(base, "python", "-c", code).stdout == "None\n"


@pytest.mark.parametrize("settings", [[], ["--set", "tracking_uri=''"]], ids=["tracked", "untracked"])
def test_training_there_names_the_extra(base: Path, tmp_path: Path, settings: list[str]) -> None:
    done = in_base(base, "adabert", "run", "--config", "smoke", *settings, "--output", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("adabert: this needs ")
    assert sentence.endswith("pip install 'adabert-pipeline[train]'")
    assert not (tmp_path / "run").exists()
