"""The latency that `target` allows: which structures answer in time on this machine.

Comes in: a bound in ms, or a speed-up against BERT-base. Goes out: milliseconds of a structure's ONNX file with random weights,
for one text on one thread, timed as the benchmark does; what was measured is kept, so that a resumed search decides alike.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from onnxruntime import InferenceSession
from transformers import BertConfig, BertForSequenceClassification

from adabert_core.config import TargetConfig
from adabert_core.distillation import separator_of
from adabert_core.export import INPUTS, export_student, open_session, session_to_time
from adabert_core.latency import onnx_call, random_batch, time_in_turns
from adabert_core.parallel import measured_once
from adabert_core.report import LENGTH
from adabert_core.search_space import Genotype
from adabert_core.storage import Checkpoints
from adabert_core.student_training import new_student
from adabert_core.teacher import Teacher, vocabulary_of

_SECONDS = 0.3


class Budget:
    """Milliseconds that a student may take, None for any, and those that structures do take."""

    def __init__(self, target: TargetConfig, teacher: Teacher, channels: int, checkpoints: Checkpoints, key: str) -> None:
        self.teacher, self.channels, self.checkpoints, self.key = teacher, channels, checkpoints, key
        self.length = min(LENGTH, teacher.max_length)
        self.measured: dict[str, float] = checkpoints.load(key) or {}
        bounds = [target.latency_ms] if target.latency_ms else []
        if target.speedup:
            bounds.append(self._known("bert-base", self._bert_base) / target.speedup)
        self.limit = min(bounds, default=None)

    def fits(self, genotype: Genotype) -> bool:
        """True where a structure answers in time."""
        return self.limit is None or self.milliseconds(genotype) <= self.limit

    def milliseconds(self, genotype: Genotype) -> float:
        """The median time of a structure."""
        return self._known(str(genotype), lambda: self._student(genotype))

    def _known(self, name: str, opened: Callable[[], tuple[InferenceSession, int, int | None]]) -> float:
        self.measured[name] = measured_once(lambda: self._measured(name, opened))
        return self.measured[name]

    def _measured(self, name: str, opened: Callable[[], tuple[InferenceSession, int, int | None]]) -> float:
        if name not in self.measured:
            session, vocabulary, separator = opened()
            call = onnx_call(session, random_batch(vocabulary, 1, self.length, separator))
            (times,) = time_in_turns({(name, "onnx"): call}, _SECONDS).values()
            self.measured[name] = statistics.median(times)
            self.checkpoints.save(self.key, self.measured)
        return self.measured[name]

    def _student(self, genotype: Genotype) -> tuple[InferenceSession, int, int | None]:
        labels = list(self.teacher.model.config.id2label.values())
        student = new_student(genotype, self.teacher, labels, self.channels, dropout=0.0).eval()
        with tempfile.TemporaryDirectory(prefix="adabert-budget-") as folder:
            path = Path(folder) / "model.onnx"
            export_student(student, path)
            return open_session(path, 1), vocabulary_of(self.teacher), separator_of(self.teacher)

    def _bert_base(self) -> tuple[InferenceSession, int, int | None]:
        model = BertForSequenceClassification(BertConfig()).eval()
        return session_to_time(model, (*INPUTS, "token_type_ids"), 1), int(model.config.vocab_size), None
