"""Stage register: the gate, and the student as a new version of an MLflow registered model.

Comes in: DatasetDir, StudentDir, BenchmarkDir. Goes out: decision.json, model/ (text in, label and scores out; needs
onnxruntime and tokenizers only), report.html with the decision and, where tracking is on, a model version with the alias
challenger or champion.
"""

import functools
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from adabert_core import __version__, registry
from adabert_core.artifacts import read_json, write_json
from adabert_core.config import RegisterConfig
from adabert_core.data.dataset import Dataset, read_dataset
from adabert_core.export import FP32, INT8
from adabert_core.report import findable, headline_latency, load_report, retention, table_markdown
from adabert_core.report_html import write_html
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
        dataset = read_dataset(inputs["dataset"])
        model = frame.path / "model"
        pack_model(inputs["student"], model)
        student = frame.parents["student"].digest[:16]
        export = _export(model, f"{config.export_uri.rstrip('/')}/{student}") if config.export_uri else ""
        tags = {
            "adabert.student": student,
            "adabert.labels": json.dumps(dataset.labels),
            "adabert.retention": f"{served(report)['retention']:.6f}",
            "adabert.export": export,
            **findable(report),
        }
        table = table_markdown(report)
        told = (config.model_name, model, tags, table)
        version = tracker.ask(lambda client, run: registry.add_version(tracker.uri, client, run, *told)) or ""
        decision = settled(tracker, config, report, dataset, version, table) | {"export": export}
        write_json(frame.path / "decision.json", decision)
        write_html(report, frame.path, decision)
        tracker.tag("verdict", decision["alias"])
        tracker.artifact(frame.path / "report.html", parent=True)
        frame.metrics["passed_gate"] = float(decision["alias"] == "champion")
        log.info("%s", decision_text(decision, config.model_name))
    return frame.finished


def settled(
    tracker: Tracker, config: RegisterConfig, report: dict[str, Any], dataset: Dataset, version: str, table: str
) -> dict[str, Any]:
    """Returns the decision on a version, whose aliases follow it; on a student without one where tracking is off.

    A champion that another run makes while this one decides is compared with, too.
    """
    while True:
        held = tracker.ask(lambda client, _: registry.champion(client, config.model_name)) if version else None
        score, obstacle = champion_score(tracker, held, dataset) if held is not None else (None, "")
        decision = decide(report, config, score, obstacle, held.tags.get("task", "") if held is not None else "")
        decision["champion_before"] = {"version": held.version, "score": score} if held is not None else None
        decision["version"] = version if tracker.uri else ""
        if not decision["version"]:
            return decision
        moved = functools.partial(give_alias, config.model_name, decision, held.version if held is not None else "", table)
        done = tracker.ask(moved)
        if done:
            return decision
        if done is None:
            return decision | {"version": ""}


def give_alias(name: str, decision: dict[str, Any], before: str, table: str, client: Any, _: str) -> bool:
    """Gives a version its reasons and, last, its alias; False where the champion is not `before` any more."""
    version = decision["version"]
    said = {"adabert.reasons": "; ".join(decision["reasons"]), "adabert.test_score": f"{decision['score']:.6f}"}
    for tag, value in {**said, "verdict": decision["alias"]}.items():
        client.set_model_version_tag(name, version, tag, value)
    if decision["alias"] != "champion":
        client.set_registered_model_alias(name, decision["alias"], version)
        return True
    if not registry.promote(client, name, version, before):
        return False
    client.update_registered_model(name, description=f"Champion: version {version}. {table}")
    return True


def champion_score(tracker: Tracker, held: registry.ModelVersion, dataset: Dataset) -> tuple[float | None, str]:
    """Returns the champion's score on the test split, or None and why it cannot be compared."""
    who = f"the champion, version {held.version},"
    known = held.tags.get("adabert.labels")
    if known and sorted(json.loads(known)) != sorted(dataset.labels):
        return None, f"{who} knows other labels ({', '.join(json.loads(known)[:8])})"
    test = dataset.split("test")
    with tempfile.TemporaryDirectory(prefix="adabert-champion-") as scratch:
        found = tracker.ask(lambda *_: registry.fetch(tracker.uri, held, Path(scratch)))
        if found is None:
            return None, ""
        try:
            if isinstance(found, Exception):
                raise found
            predictions = dataset.task.read(registry.answers(found, test.text_a, test.text_b))
        except Exception as error:  # noqa: BLE001 - a champion that does not load or answer must not stop its successor
            log.warning("version %s of %s, the champion, does not answer: %s", held.version, held.name, error)
            return None, f"{who} is broken ({type(error).__name__})"
    if predictions is None:
        return None, f"{who} answers with other labels"
    return dataset.task.scores(test.labels, predictions)["score"], ""


def decide(
    report: dict[str, Any], config: RegisterConfig, held: float | None, obstacle: str = "", task: str = ""
) -> dict[str, Any]:
    """Returns alias, score and reasons.

    Champion if the student passes the gate and is not worse than the champion on the same test split by more than the
    margin. `held` is the champion's score there, None where there is none or where `obstacle` says why it has none. `task` is
    the champion's, which one label that looks like a number of another kind would change: that takes no alias away.
    """
    found = served(report)
    score, row = found["score"], found["row"]
    against: list[str] = []
    reasons: list[str] = []
    said = f"retention {found['retention']:.3f}, needed {config.min_retention:.3f}"
    (reasons if found["retention"] >= config.min_retention else against).append(said)
    if config.max_latency_ms is not None:
        taken = f"{row['p50_ms']:.2f} ms {'in int8 ' if row['runtime'] == 'onnx-int8' else ''}at length {row['length']}"
        said = f"{taken}, allowed {config.max_latency_ms:.2f} ms"
        (reasons if row["p50_ms"] <= config.max_latency_ms else against).append(said)
    if held is not None:
        said = f"{report['metric']} {score:.4f}, champion {held:.4f} on the same rows, margin {config.margin:.4f}"
        (reasons if score >= held - config.margin else against).append(said)
    if task and task != report["task"]:
        against.append(f"the champion's task is {task}, this student's {report['task']}: set data.task, or another model_name")
    if obstacle:
        reasons.append(obstacle)
    return {"alias": "challenger" if against else "champion", "score": score, "reasons": against or reasons}


def served(report: dict[str, Any]) -> dict[str, Any]:
    """Test score, retention and headline latency row of the network that is served: int8 where that has passed."""
    int8 = (report["student"]["int8"] or {}).get("passed", False)
    score = report["student"]["metrics"]["test"]["int8" if int8 else "onnx"]["score"]
    kept = retention(score, report["teacher"]["metrics"]["test"]["score"])
    return {"score": score, "retention": kept, "row": headline_latency(report, "onnx-int8" if int8 else "onnx")}


def decision_text(decision: dict[str, Any], model_name: str) -> str:
    """One sentence: which version became what, and why."""
    version = decision["version"]
    where = f"version {version} of {model_name}" if version else "not registered, tracking is off"
    return f"{where}: {decision['alias']} ({'; '.join(decision['reasons'])})"


def _export(model: Path, uri: str) -> str:
    """Puts the student as an MLflow model folder below an s3:// URI and returns that."""
    from adabert_core.s3 import push  # here: boto3 takes its time, and most runs export nothing

    with tempfile.TemporaryDirectory(prefix="adabert-export-") as scratch:
        registry.save_model(model, Path(scratch) / "model")
        push(Path(scratch) / "model", uri, last="MLmodel")
    return uri


def pack_model(student: Path, target: Path) -> None:
    """Writes what serving needs into one folder: the ONNX files, the tokenizer and the class names."""
    target.mkdir(parents=True)
    for model in (model for model in (FP32, INT8) if (student / model).is_file()):
        shutil.copy(student / model, target / model.name)
    for name in _SERVED:
        shutil.copy(student / name, target / name)
    settings = read_json(student / "config.json")
    limit = read_json(student / "tokenizer_config.json")["model_max_length"]
    pair = settings.get("separator_id") is not None
    labels = [settings["id2label"][str(i)] for i in range(len(settings["id2label"]))]
    int8 = read_json(student / "parity.json").get("int8", {}).get("passed", False)
    serving = {"labels": labels, "pair": pair, "max_length": limit, "int8": int8, "package_version": __version__}
    serving |= {name: settings[name] for name in ("problem_type", "thresholds") if settings.get(name)}
    write_json(target / "serving.json", serving)
