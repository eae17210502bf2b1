"""Stage benchmark: the one time the test split is looked at, the latencies, and the report.

Comes in: every earlier directory. Goes out: BenchmarkDir with report.json, report.html and its pictures.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from onnxruntime import InferenceSession
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from adabert_core.artifacts import Manifest, read_json, write_json
from adabert_core.config import BenchmarkConfig
from adabert_core.data.dataset import Dataset, read_dataset
from adabert_core.early_warnings import unmet_target, untimed_teacher
from adabert_core.export import FP32, INPUTS, INT8, onnx_logits, open_session, session_to_time
from adabert_core.latency import (
    Timed,
    latency_row,
    onnx_call,
    random_batch,
    settings_to_time,
    time_in_turns,
    torch_call,
    with_speedups,
)
from adabert_core.report import SCHEMA_VERSION, comparable, findable, headline_latency, table_markdown, verdict
from adabert_core.report_html import write_html, write_pictures
from adabert_core.reproduce import reproduction
from adabert_core.runtime import make_accelerator, seed_everything
from adabert_core.stages import StageReport, peak_memory_bytes, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.student import AdaBertForSequenceClassification
from adabert_core.student_training import network_logits, student_thresholds
from adabert_core.target_rows import Targets, read_targets
from adabert_core.teacher import Teacher, load_teacher
from adabert_core.tokens import Collator
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)
STAGE = "benchmark"
_ERRORS_SHOWN = 20


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
            "retention": retention(quality),
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


def test_quality(
    dataset: Dataset,
    targets: Targets,
    teacher: Teacher,
    student: AdaBertForSequenceClassification,
    onnx_files: dict[str, Path],
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Metrics of teacher and student on validation and test, confusion matrices, and errors only the student makes."""
    test = dataset.split("test")
    rows, validation = teacher.collator(test), Collator(targets.validation.rows, teacher.template)
    teacher.model.to(accelerator.device)
    task = dataset.task
    teacher_logits = task.in_units(teacher.logits(rows, accelerator))
    teacher.model.cpu()
    sessions = {"int8" if runtime == "onnx-int8" else runtime: open_session(path) for runtime, path in onnx_files.items()}
    onnx = {name: onnx_logits(session, rows) for name, session in sessions.items()}
    torch_logits = network_logits(student.network, student.depth, rows, make_accelerator("cpu", "fp32"))
    student.eval()
    known, right, own = targets.validation.labels, test.labels, student_thresholds(student)
    teachers = task.thresholds(known, targets.validation.teacher_logits)
    answers = {"teacher": task.predictions(teacher_logits, teachers), "student": task.predictions(onnx["onnx"], own)}
    return {
        "teacher": {
            "validation": task.scores(known, task.predictions(targets.validation.teacher_logits, teachers)),
            "test": task.scores(right, answers["teacher"]),
        },
        "student": {
            "validation": {
                name: task.scores(known, task.predictions(onnx_logits(session, validation), own))
                for name, session in sessions.items()
            },
            "test": {
                **{name: task.scores(right, task.predictions(logits, own)) for name, logits in onnx.items()},
                "torch": task.scores(right, task.predictions(torch_logits, own)),
            },
        },
        "cut_rows": rows.rows.cut,
        "confusion": {model: task.confusion(right, given) for model, given in answers.items()},
        "errors": student_errors(dataset, answers["teacher"], answers["student"], onnx["onnx"]),
    }


def cut_rows(targets: Manifest) -> dict[str, int]:
    """How many texts of train and validation were longer than teacher and student read."""
    return {name: int(targets.metrics.get(f"cut_{name}", 0)) for name in ("train_rows", "validation_rows")}


def student_errors(dataset: Dataset, teacher: np.ndarray, student: np.ndarray, logits: np.ndarray) -> list[dict[str, Any]]:
    """The test texts that the teacher gets right and the student wrong, the worst errors first, given both predictions.

    How bad one is depends on the task: the student's confidence, how far off its number is, how many labels are wrong.
    """
    test, task = dataset.split("test"), dataset.task
    wrong, severity = task.errors(test.labels, teacher, student, logits)
    order = np.nonzero(wrong)[0][np.argsort(-severity[wrong], kind="stable")][:_ERRORS_SHOWN]
    return [
        {
            "text": test.text_a[i] if test.text_b is None else f"{test.text_a[i]} ||| {test.text_b[i]}",
            "label": task.words(test.labels[i]),
            "student": task.words(student[i]),
            task.severity: round(float(severity[i]), 4),
        }
        for i in order
    ]


def time_all(
    config: BenchmarkConfig, teacher: Teacher, student: AdaBertForSequenceClassification, onnx_files: dict[str, Path]
) -> tuple[list[dict[str, Any]], int | None]:
    """Latency rows of student, teacher and, if asked for, BERT-base, with BERT-base's parameter count.

    On the CPU in ONNX and torch, and where there is a GPU in torch on that, too; the headline's setting is among them always.
    """
    before = torch.get_num_threads()
    models: dict[str, Any] = {"student": student, "teacher": teacher.model.eval()}
    if config.bert_base:
        models["bert-base"] = BertForSequenceClassification(BertConfig(id2label=student.config.id2label)).eval()
    names = {
        "student": INPUTS,
        "teacher": (*INPUTS, "token_type_ids") if teacher.template.segments else INPUTS,
        "bert-base": (*INPUTS, "token_type_ids"),
    }
    longest = {"student": student.config.max_position_embeddings, "teacher": teacher.max_length, "bert-base": 512}
    separator = student.config.separator_id
    rows = []
    for threads, settings in settings_to_time(config.threads, config.batches, config.lengths, longest["student"]).items():
        torch.set_num_threads(threads)
        sessions = open_sessions(models, names, onnx_files, threads, {length for _, length in settings})
        for batch, length in settings:
            fed = {
                name: (
                    model,
                    random_batch(vocabulary(model), batch, length, None if name == "bert-base" else separator),
                    names[name],
                )
                for name, model in models.items()
                if length <= longest[name]
            }
            log.info("timing batch %d, length %d, %d thread(s)", batch, length, threads)
            in_onnx = {key: onnx_call(session, fed[key[0]][1]) for key, session in sessions.items() if key[0] in fed}
            rows += rows_in_turns(in_onnx, config.seconds, threads, batch, length)
            in_torch = {(name, "torch"): torch_call(*each) for name, each in fed.items()}
            rows += rows_in_turns(in_torch, config.seconds, threads, batch, length)
            if config.device != "cpu" and torch.cuda.is_available():
                rows += rows_on_gpu(fed, config.seconds, threads, batch, length)
    torch.set_num_threads(before)
    return with_speedups(rows), parameter_count(models["bert-base"]) if config.bert_base else None


def open_sessions(
    models: Mapping[str, torch.nn.Module],
    names: Mapping[str, tuple[str, ...]],
    onnx_files: Mapping[str, Path],
    threads: int,
    lengths: Iterable[int],
) -> dict[Timed, InferenceSession]:
    """Returns the models as ONNX; without the teacher where no exporter takes it for these lengths, since only times need it."""
    sessions = {("student", runtime): open_session(path, threads) for runtime, path in onnx_files.items()}
    for name in models.keys() - {"student"}:
        log.info("exporting %s to ONNX", name)
        try:
            session = session_to_time(models[name], names[name], threads)
            for length in lengths if name == "teacher" else ():  # what was traced may fit some lengths only
                onnx_call(session, random_batch(vocabulary(models[name]), 1, length, None))()
            sessions[(name, "onnx")] = session
        except Exception:  # an exporter's limits, after all training
            if name != "teacher":
                raise
            log.debug("the teacher could not be exported", exc_info=True)
    return sessions


def vocabulary(model: Any) -> int:
    """How many ids a model knows."""
    return int(model.config.vocab_size)


def rows_on_gpu(
    fed: Mapping[str, tuple[torch.nn.Module, dict[str, np.ndarray], tuple[str, ...]]],
    seconds: float,
    threads: int,
    batch: int,
    length: int,
) -> list[dict[str, Any]]:
    """The same on the GPU, in fp32 without TensorFloat-32; nothing where it has no room for the models."""
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            calls = {(name, "torch-cuda"): torch_call(each[0].to("cuda"), *each[1:], "cuda") for name, each in fed.items()}
            return rows_in_turns(calls, seconds, threads, batch, length)
    except torch.cuda.OutOfMemoryError:
        log.warning("batch %d, length %d: not timed on the GPU, which has no room for the models", batch, length)
        return []
    finally:
        for model, *_ in fed.values():
            model.cpu()


def rows_in_turns(
    calls: dict[Timed, Callable[[], None]], seconds: float, threads: int, batch: int, length: int
) -> list[dict[str, Any]]:
    """Latency rows of models that take turns over one setting."""
    timed = time_in_turns(calls, seconds)
    return [latency_row(*key, threads, batch, length, times) for key, times in timed.items()]


def parameter_count(model: torch.nn.Module) -> int:
    """Parameters of a torch model, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def retention(quality: dict[str, Any]) -> float:
    """Student over teacher on the test split, by the selected metric; 0 where the teacher scores nothing."""
    teacher = quality["teacher"]["test"]["score"]
    return quality["student"]["test"]["onnx"]["score"] / teacher if teacher > 0 else 0.0


def stage_costs(parents: dict[str, Manifest]) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of every stage before this one."""
    return {
        "seconds": {manifest.stage: manifest.wall_seconds for manifest in parents.values()},
        "peak_memory_bytes": {manifest.stage: manifest.peak_memory_bytes for manifest in parents.values()},
    }


def headline(report: dict[str, Any]) -> dict[str, float]:
    """The figures by which runs are compared."""
    found = {
        "teacher_test_score": report["teacher"]["metrics"]["test"]["score"],
        "student_test_score": report["student"]["metrics"]["test"]["onnx"]["score"],
        "retention": report["retention"],
        "student_parameters": report["student"]["parameters"],
    }
    if report["student"]["int8"]:
        found["student_int8_test_score"] = report["student"]["metrics"]["test"]["int8"]["score"]
    threads = headline_latency(report)["threads"]
    for row in report["latency"]:
        alone = (row["batch"], row["threads"]) == (1, threads)
        if row["model"] == "student" and row["runtime"].startswith("onnx") and alone:
            found[f"student_{row['runtime'].replace('-', '_')}_b1_l{row['length']}_ms"] = row["p50_ms"]
            if "speedup_vs_bert_base" in row:
                found[f"speedup_vs_bert_base_l{row['length']}"] = row["speedup_vs_bert_base"]
            if "speedup_vs_bert_base_fp32" in row:
                found[f"int8_speedup_vs_bert_base_fp32_l{row['length']}"] = row["speedup_vs_bert_base_fp32"]
    return found
