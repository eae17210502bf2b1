"""What tests of whole runs share: the smoke preset on a few hundred rows, the command, and what a run must lead to."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "pipelines" / "configs" / "smoke.yaml"
RESULTS = {  # what must not depend on how or how often a run was started
    "finetune_teacher": "model/model.safetensors",
    "distill_targets": "train/teacher_logits.npy",
    "search": "genotype.json",
    "retrain": "model.safetensors",
}


def settings(source: Path | str, teacher: Path, tracking: str = "") -> list[str]:
    values = {
        "data.source": source,
        "data.max_train_rows": "null",
        "teacher.model": teacher,
        "teacher.max_steps": 20,
        "teacher.learning_rate": 0.003,
        "targets.augmented_rows": 200,
        "tracking_uri": f"'{tracking}'",
    }
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def command(output: Path, *arguments: str) -> list[str]:
    plain = ["run", "--config", str(SMOKE), "--output", str(output), "--no-plan"]
    return [sys.executable, "-m", "adabert_core.cli", *plain, *arguments]


def digests(run: Path) -> dict[str, str]:
    return {stage: json.loads((run / stage / "manifest.json").read_text())["files"][file] for stage, file in RESULTS.items()}


def test_metrics(run: Path) -> dict[str, dict[str, float]]:
    report = json.loads((run / "benchmark" / "report.json").read_text())
    return {"teacher": report["teacher"]["metrics"]["test"], "student": report["student"]["metrics"]["test"]["onnx"]}


test_metrics.__test__ = False  # type: ignore[attr-defined]


def predictions(run: Path, *texts: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "adabert_core.cli", "predict", "--model", str(run / "retrain"), *texts],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["label"] for line in done.stdout.splitlines()]
