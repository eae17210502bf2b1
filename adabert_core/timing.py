"""Which models are timed in which runtimes: student, teacher and BERT-base, in ONNX and torch, on the CPU and on a GPU.

Comes in: the models and the settings. Goes out: the report's latency rows, whose models took turns (latency.py).
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime import InferenceSession
from transformers import BertConfig, BertForSequenceClassification

from adabert_core.config import BenchmarkConfig
from adabert_core.export import INPUTS, open_session, session_to_time
from adabert_core.latency import Timed, onnx_call, random_batch, rows_in_turns, settings_to_time, torch_call, with_speedups
from adabert_core.runtime import parameter_count
from adabert_core.student import AdaBertForSequenceClassification
from adabert_core.teacher import Teacher

log = logging.getLogger(__name__)


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


def vocabulary(model: Any) -> int:
    """How many ids a model knows."""
    return int(model.config.vocab_size)
