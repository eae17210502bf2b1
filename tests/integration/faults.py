"""What the fault tests share: stages that take some seconds, and a way to wait for the middle of one."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from adabert_core.s3 import open_place
from adabert_core.stages import STAGES
from tests.whole_run import SMOKE

LONG_STAGES = ("finetune_teacher", "distill_targets", "search", "retrain")
_LONG = {
    "data.max_train_rows": "null",
    "teacher.max_steps": 600,
    "teacher.epochs": 100,
    "teacher.learning_rate": 0.003,
    "targets.augmented_rows": 3000,
    "search.max_steps": 250,
    "search.epochs": 100,
    "retrain.max_steps": 400,
    "retrain.epochs": 100,
}


def long_settings(*more: str) -> list[str]:
    """`--set` arguments of stages long enough to be killed in the middle, on few rows."""
    return [part for setting in (*(f"{key}={value}" for key, value in _LONG.items()), *more) for part in ("--set", setting)]


def arguments(stage: str, run: Path, output: Path, checkpoint_uri: str) -> list[str]:
    """Arguments of `adabert` for one stage whose inputs are those of a finished run, with its very settings."""
    inputs = [part for key, name in STAGES[stage].inputs.items() for part in (f"--{key}", str(run / name))]
    config = ["--config", str(run / "smoke.yaml"), *(run / "settings.txt").read_text().split("\n")]
    place = ["--checkpoint-uri", checkpoint_uri, "--checkpoint-seconds", "1"]
    return [stage, *config, *inputs, "--output", str(output), *place]


def digest(run: Path, stage: str) -> dict[str, str]:
    """sha256 of every file that a stage wrote."""
    return json.loads((run / stage / "manifest.json").read_text())["files"]


def wait_for_seal(place: str, alive: Callable[[], bool], seconds: float = 120) -> None:
    """Returns as soon as a checkpoint below `place` is valid; fails if the process ends before."""
    store, until = open_place(place), time.monotonic() + seconds
    while not any(
        key.count("@") == 1 and key.split("@")[1].count("/") == 1 and key.endswith("seal.json") for key in store.keys()
    ):  # noqa: SIM118
        assert alive(), "the stage ended before its first checkpoint"
        assert time.monotonic() < until, "no checkpoint came"
        time.sleep(0.1)


def write_settings(run: Path, values: list[str]) -> None:
    """Keeps beside a run what `arguments` needs."""
    (run / "smoke.yaml").write_text(SMOKE.read_text())
    (run / "settings.txt").write_text("\n".join(values))
