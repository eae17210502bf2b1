"""Stage register: the gate, and the student as a new version of an MLflow registered model.

Comes in: StudentDir, BenchmarkDir. Goes out: decision.json, pyfunc/ (text in, label and scores out; needs onnxruntime and
tokenizers only) and, where tracking is on, a model version with the alias challenger or champion.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from adabert_core import __version__
from adabert_core.artifacts import write_json
from adabert_core.config import RegisterConfig
from adabert_core.report import headline_latency, load_report
from adabert_core.stages import StageReport, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)
STAGE = "register"
_SERVED = ("tokenizer.json", "tokenizer_config.json", "config.json", "genotype.json")


def run(
    config: RegisterConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> StageReport:
    """Decides on the student and registers it."""
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        report, _ = load_report(inputs["benchmark"])
        model = frame.path / "model"
        pack_model(inputs["student"], model)
        champion = tracker.champion(config.model_name)
        decision = decide(report, config, champion)
        tags = {
            "adabert.data_version": report["data_version"],
            "adabert.metric": report["metric"],
            "adabert.test_score": f"{decision['score']:.6f}",
            "adabert.retention": f"{report['retention']:.6f}",
            "adabert.reasons": "; ".join(decision["reasons"]),
        }
        decision["version"] = tracker.register_model(config.model_name, model, decision["alias"], tags, report["verdict"])
        write_json(frame.path / "decision.json", decision)
        tracker.tag("adabert.verdict", report["verdict"])
        tracker.tag("adabert.data_version", report["data_version"])
        frame.metrics["passed_gate"] = float(decision["alias"] == "champion")
        where = (
            f"version {decision['version']} of {config.model_name}" if decision["version"] else "not registered, tracking is off"
        )
        log.info("%s: %s (%s)", where, decision["alias"], "; ".join(decision["reasons"]))
    return frame.finished


def decide(report: dict[str, Any], config: RegisterConfig, champion: dict[str, str] | None) -> dict[str, Any]:
    """Returns alias, score and reasons.

    Champion if the student passes the gate and is not worse than the champion by more than the margin. A champion measured
    on other data or by another metric cannot be compared and does not stand in the way.
    """
    score = report["student"]["metrics"]["test"]["onnx"]["score"]
    row = headline_latency(report)
    against: list[str] = []
    reasons: list[str] = []
    said = f"retention {report['retention']:.3f}, needed {config.min_retention:.3f}"
    (reasons if report["retention"] >= config.min_retention else against).append(said)
    if config.max_latency_ms is not None:
        said = f"{row['p50_ms']:.2f} ms at length {row['length']}, allowed {config.max_latency_ms:.2f} ms"
        (reasons if row["p50_ms"] <= config.max_latency_ms else against).append(said)
    if champion is not None:
        same = all(champion.get(f"adabert.{key}") == report[key] for key in ("data_version", "metric"))
        if same:
            held = float(champion["adabert.test_score"])
            said = f"{report['metric']} {score:.4f}, champion {held:.4f}, margin {config.margin:.4f}"
            (reasons if score >= held - config.margin else against).append(said)
        else:
            reasons.append("the champion was measured on other data")
    return {"alias": "challenger" if against else "champion", "score": score, "reasons": against or reasons}


def pack_model(student: Path, target: Path) -> None:
    """Writes what serving needs into one folder: the ONNX file, the tokenizer and the class names."""
    target.mkdir(parents=True)
    shutil.copy(student / "onnx" / "model.onnx", target / "model.onnx")
    for name in _SERVED:
        shutil.copy(student / name, target / name)
    settings = json.loads((student / "config.json").read_text())
    limit = json.loads((student / "tokenizer_config.json").read_text())["model_max_length"]
    labels = [settings["id2label"][str(i)] for i in range(len(settings["id2label"]))]
    write_json(target / "serving.json", {"labels": labels, "max_length": limit, "package_version": __version__})
