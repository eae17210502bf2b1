"""The models of an experiment timed again, all in turns: what trained beside others, or on a GPU, has no times to compare.

Comes in: records, a run of each task. Goes out: the same records with other times. Latency is a matter of the structure, so the
models have random weights and nothing is trained.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxruntime import InferenceSession
from transformers import BertConfig, BertForSequenceClassification

from adabert_core.config import RunConfig
from adabert_core.distillation import separator_of
from adabert_core.export import INPUTS, export_student, open_session, session_to_time
from adabert_core.latency import Timed, onnx_call, random_batch, rows_in_turns, settings_to_time
from adabert_core.report import headline_latency
from adabert_core.search_space import Genotype
from adabert_core.student_training import new_student
from adabert_core.teacher import new_teacher, vocabulary_of

log = logging.getLogger(__name__)
_BESIDE = ("teacher", "bert-base")
_LABELS = ["0", "1"]  # a class more is one row of the last of all products


def time_again(records: Sequence[dict[str, Any]], configs: Mapping[str, RunConfig]) -> list[dict[str, Any]]:
    """Returns the records with `ms` and `latency` of fp32 ONNX on one thread, taken with the machine as it is now.

    All models of a task take turns, its teacher and, if asked for, BERT-base among them; records of one structure share their
    times. `configs` has a run's config by task; records of other tasks stay as they are.
    """
    found = list(records)
    for task, config in configs.items():
        mine = [i for i, record in enumerate(found) if record["task"] == task]
        students = {_name(found[i]): found[i] for i in mine}
        log.info("%s: timing %d structures", task, len(students))
        latency = _in_turns(students, config)
        for i in mine:
            own = [row | {"model": "student"} for row in latency if row["model"] == _name(found[i])]
            found[i] = found[i] | {"latency": [*own, *(row for row in latency if row["model"] in _BESIDE)]}
            found[i]["ms"] = headline_latency(found[i])["p50_ms"]
    return found


def _name(record: Mapping[str, Any]) -> str:
    """What a student's times depend on: an AdaBERT student's genotype, a peer's architecture."""
    return str(record["genotype"] or record["architecture"])


def _in_turns(students: Mapping[str, Mapping[str, Any]], config: RunConfig) -> list[dict[str, Any]]:
    """Rows of latency whose `model` is a key of `students` or one of those beside them."""
    pair = not isinstance(config.data.text, str) and len(config.data.text) == 2
    teacher, names = new_teacher(config.teacher.model, _LABELS, pair, config.teacher.max_length), (*INPUTS, "token_type_ids")
    sessions: dict[Timed, InferenceSession] = {
        ("teacher", "onnx"): session_to_time(teacher.model.eval(), names if teacher.template.segments else INPUTS, 1)
    }
    if config.benchmark.bert_base:
        sessions[("bert-base", "onnx")] = session_to_time(BertForSequenceClassification(BertConfig()).eval(), names, 1)
    with tempfile.TemporaryDirectory(prefix="adabert-timing-") as folder:
        for name, record in students.items():
            cells = Genotype.parse(record["genotype"] or "none")
            student = new_student(cells, teacher, _LABELS, config.search.channels, 0.0, record["architecture"])
            export_student(student.eval(), Path(folder) / "student.onnx")
            sessions[(name, "onnx")] = open_session(Path(folder) / "student.onnx", 1)
    rows = []
    for batch, length in settings_to_time(1, config.benchmark.batches, config.benchmark.lengths, teacher.max_length)[1]:
        fed = random_batch(vocabulary_of(teacher), batch, length, separator_of(teacher))
        own = random_batch(BertConfig().vocab_size, batch, length, None)
        calls = {key: onnx_call(session, own if key[0] == "bert-base" else fed) for key, session in sessions.items()}
        rows += rows_in_turns(calls, config.benchmark.seconds, 1, batch, length)
    return rows
