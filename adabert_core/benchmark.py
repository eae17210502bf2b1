"""Stage benchmark: the one time the test split is looked at, the latencies, and the report.

Comes in: every earlier directory. Goes out: BenchmarkDir with report.json, report.html and its pictures.
"""

import logging
import time
from pathlib import Path

from transformers import AutoModelForSequenceClassification

from adabert_core.artifacts import Manifest, read_json, write_json
from adabert_core.config import BenchmarkConfig
from adabert_core.data.dataset import read_dataset
from adabert_core.early_warnings import unmet_target, untimed_teacher
from adabert_core.export import FP32, INT8
from adabert_core.quality import test_quality
from adabert_core.report import (
    SCHEMA_VERSION,
    comparable,
    findable,
    headline,
    headline_latency,
    retention,
    table_markdown,
    verdict,
)
from adabert_core.report_html import write_html, write_pictures
from adabert_core.reproduce import reproduction
from adabert_core.runtime import make_accelerator, parameter_count, seed_everything
from adabert_core.stages import StageReport, peak_memory_bytes, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.target_rows import read_targets
from adabert_core.teacher import load_teacher
from adabert_core.timing import time_all
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)
STAGE = "benchmark"


def run(
    config: BenchmarkConfig, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
) -> StageReport:
    """Scores teacher and student on the test split, times them and BERT-base, and writes the report."""
    started = time.perf_counter()
    with stage_frame(STAGE, config, inputs, output, tracker) as frame:
        seed_everything(config.seed)
        dataset, targets = read_dataset(inputs["dataset"]), read_targets(inputs["targets"])
        teacher = load_teacher(inputs["teacher"])
        student = AutoModelForSequenceClassification.from_pretrained(inputs["student"], use_safetensors=True).eval()
        files = {"onnx": inputs["student"] / FP32, "onnx-int8": inputs["student"] / INT8}
        onnx_files = {runtime: path for runtime, path in files.items() if path.is_file()}
        accelerator = make_accelerator(config.device, "auto")
        quality = test_quality(dataset, targets, teacher, student, onnx_files, accelerator)
        rows, bert_parameters = time_all(config, teacher, student, onnx_files)
        report = {
            "schema_version": SCHEMA_VERSION,
            "task": dataset.task.name,
            "metric": dataset.metric,
            "labels": dataset.labels,
            "data_version": frame.data_version,
            "seed": frame.parents["student"].seed,
            "test_rows": len(dataset.split("test").labels),
            "teacher": {
                "name": frame.parents["teacher"].config["model"],
                "parameters": parameter_count(teacher.model),
                "metrics": quality["teacher"],
            },
            "student": {
                "architecture": student.config.architecture,
                "parameters": parameter_count(student),
                "bytes_on_disk": {
                    {"onnx": "fp32", "onnx-int8": "int8"}[runtime]: path.stat().st_size for runtime, path in onnx_files.items()
                },
                "int8": read_json(inputs["student"] / "parity.json").get("int8"),
                "genotype": read_json(inputs["student"] / "genotype.json"),
                "metrics": quality["student"],
            },
            "bert_base": {"parameters": bert_parameters, "weights": "random: an architecture's time does not depend on them"},
            "retention": retention(quality["student"]["test"]["onnx"]["score"], quality["teacher"]["test"]["score"]),
            "latency": rows,
            "cost": stage_costs(frame.parents),
            "reproduction": reproduction(frame.parents.values(), config),
            "probe_accuracy": targets.info["probe_accuracy"],
            "probe_metric": dataset.task.probe_metric,
            "trials": read_json(inputs["search"] / "trials.json"),
            "search_trace": read_json(inputs["search"] / "trace.json"),
            "cut": {"tokens": teacher.max_length, "test_rows": quality["cut_rows"]} | cut_rows(frame.parents["targets"]),
            "confusion": quality["confusion"],
            "student_errors": quality["errors"],
        }
        target = frame.parents["search"].config.get("target", {})
        frame.warn(untimed_teacher(rows))
        told = [sentence for parent in frame.parents.values() for sentence in parent.warnings] + frame.warnings
        report["warnings"] = told + unmet_target(target, report["retention"], headline_latency(report))
        report["verdict"] = verdict(report)
        report["cost"]["seconds"][STAGE] = round(time.perf_counter() - started, 3)  # all but writing it down
        report["cost"]["peak_memory_bytes"][STAGE] = peak_memory_bytes()
        write_json(frame.path / "report.json", report)
        write_html(report, frame.path)
        pictures = write_pictures(report, frame.path / "pictures")
        for path in (frame.path / "report.json", frame.path / "report.html", *pictures):
            tracker.artifact(path)
        tracker.headline(comparable(report), findable(report), table_markdown(report))
        frame.metrics.update(headline(report))
        log.info("%s", report["verdict"])
    return frame.finished


def cut_rows(targets: Manifest) -> dict[str, int]:
    """How many texts of train and validation were longer than teacher and student read."""
    return {name: int(targets.metrics.get(f"cut_{name}", 0)) for name in ("train_rows", "validation_rows")}


def stage_costs(parents: dict[str, Manifest]) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of every stage before this one."""
    return {
        "seconds": {manifest.stage: manifest.wall_seconds for manifest in parents.values()},
        "peak_memory_bytes": {manifest.stage: manifest.peak_memory_bytes for manifest in parents.values()},
    }
