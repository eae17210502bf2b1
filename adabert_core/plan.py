"""What a run will take on this machine, before it starts: rows, tokens, steps, minutes and memory, and whether that fits.

Comes in: the settings. Goes out: a `Plan`, its table, or a refusal that names what to change. The rows are read, checked and
split as the run would do it; speeds come from `calibration`, counts from `workload`. Times are those of one process; of a GPU's
memory nothing is said.
"""

import dataclasses
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet

from adabert_core.artifacts import read_json, read_manifest
from adabert_core.calibration import measure
from adabert_core.config import RunConfig
from adabert_core.data.dataset import Dataset, read_dataset
from adabert_core.data.splits import SPLITS, UNLABELED
from adabert_core.errors import UserError
from adabert_core.memory import status_bytes
from adabert_core.report import aligned
from adabert_core.stages import STAGES, run_stage, stage_frame
from adabert_core.storage import Checkpoints
from adabert_core.teacher import Teacher, new_teacher
from adabert_core.tracking import Tracker
from adabert_core.workload import Rows, Work, sizes_of, workload

_ALLOWANCE = 0.25e9  # bytes that no count holds: what the allocator keeps, libraries loaded later
_STEPS_A_SECOND = 100  # of measuring: a run of 2,000 steps or more gets all 20 seconds
_SAMPLE_ROWS = 20_000  # tokenised of each split: more would tell nothing new
_FIXED = {"finetune_teacher": 4.0, "distill_targets": 12.0, "search": 4.0, "retrain": 8.0, "benchmark": 15.0}  # loading, exports
_SLOW = {
    "prepare_data": "data.max_train_rows",
    "finetune_teacher": "teacher.max_steps, teacher.max_length or a smaller teacher.model",
    "distill_targets": "targets.augmented_tokens and targets.unlabeled_rows",
    "search": "search.max_steps, search.trial_steps and search.trial_cells",
    "retrain": "retrain.max_steps",
    "benchmark": "benchmark.seconds, or set benchmark.bert_base=false",
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One stage of a plan."""

    stage: str
    steps: int
    tokens: float
    seconds: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will take; `splits` has rows and tokens of each."""

    splits: dict[str, tuple[int, int]]
    lines: list[Line]
    available: float  # bytes of memory

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(line.seconds for line in self.lines)

    @property
    def bytes(self) -> float:
        """The most that any stage holds."""
        return max(line.bytes for line in self.lines)

    def __str__(self) -> str:
        """One line."""
        parts = ", ".join(f"{line.stage} {line.seconds / 60:.1f}" for line in self.lines)
        return (
            f"about {self.seconds / 60:.1f} minutes ({parts}) and {self.bytes / 1e9:.1f} GB of the "
            f"{self.available / 1e9:.1f} GB here, for {self.splits['train'][0]:,} rows to train on"
        )


def make_plan(config: RunConfig, seconds: float | None = None, dataset: Path | None = None) -> Plan:
    """Returns the plan of a run; measuring takes about `seconds`, reading the rows and loading the teacher come on top.

    By default it takes 20, and less before a short run. The rows are those of a DatasetDir, where one is given.

    Raises:
        UserError: the rows, the teacher or a setting cannot be used, or the run would not fit into the memory there is.
    """
    idle = status_bytes("VmRSS") + _ALLOWANCE
    with tempfile.TemporaryDirectory(prefix="adabert-plan-") as folder, _quiet():
        scratch = Path(folder)
        if dataset is None:
            dataset = scratch / "rows"
            run_stage("prepare_data", config.data, {}, dataset, tracker=Tracker(""), checkpoints=Checkpoints(None))
        prepared = read_manifest(dataset, "prepare_data")
        reading = Line("prepare_data", 0, 0.0, prepared.wall_seconds, prepared.peak_memory_bytes)
        sample_dataset(dataset, config, scratch / "sample")
        data = read_dataset(scratch / "sample")
        teacher = new_teacher(config.teacher.model, data.labels, data.pair, config.teacher.max_length)
        rows = sampled_rows(read_json(dataset / "dataset.json")["counts"], data, teacher)
        work = workload(config, rows)
        available = available_bytes()
        check_memory(config, rows, work, idle, available)
        if seconds is None:
            seconds = min(20.0, sum(part.steps for part in work) / _STEPS_A_SECOND)
        speeds = measure(config, scratch / "sample", teacher, scratch, seconds)
    lines = [reading, *(_line(part, speeds, idle) for part in work)]
    used = {**rows.lengths, UNLABELED: rows.lengths[UNLABELED][: config.targets.unlabeled_rows]}
    splits = {name: (len(lengths), int(lengths.sum())) for name, lengths in used.items() if len(lengths)}
    return Plan(splits, lines, available)


def check_minutes(plan: Plan, minutes: float) -> None:
    """Refuses a plan that takes longer.

    Raises:
        UserError: it does; the longest stage's settings are named.
    """
    if plan.seconds / 60 > minutes:
        longest = max(plan.lines, key=lambda line: line.seconds)
        raise UserError(
            f"the run would take about {plan.seconds / 60:.1f} minutes, more than {minutes:g}; {longest.stage} takes "
            f"{longest.seconds / 60:.1f} of them: lower {_SLOW[longest.stage]}."
        )


def check_memory(config: RunConfig, rows: Rows, work: list[Work], idle: float, available: float) -> None:
    """Refuses a run of which a stage needs more than there is.

    Raises:
        UserError: it does; the largest setting of that stage with which it fits is named.
    """
    for part in work:
        if part.bytes + idle > available:
            raise UserError(
                f"{part.stage} would need about {(part.bytes + idle) / 1e9:.1f} GB and there are {available / 1e9:.1f}: "
                f"{_advice(config, rows, part.stage, idle, available)}."
            )


def _advice(config: RunConfig, rows: Rows, stage: str, idle: float, available: float) -> str:
    section = STAGES[stage].section
    settings = getattr(config, section)
    tried = [{"bert_base": False}] if stage == "benchmark" else []
    if size := getattr(settings, "batch_size", None):
        tried = [{"batch_size": size >> i} for i in range(1, size.bit_length())]
    for change in tried:
        changed = dataclasses.replace(config, **{section: dataclasses.replace(settings, **change)})
        (part,) = (part for part in workload(changed, rows) if part.stage == stage)
        if part.bytes + idle <= available:
            ((name, value),) = change.items()
            return f"set {section}.{name}={json.dumps(value)}"
    fewer = "fewer rows (data.max_train_rows, targets.unlabeled_rows)"
    return f"take a smaller teacher.model, a lower teacher.max_length or {fewer}, or a larger machine"


def table_text(plan: Plan) -> str:
    """The plan as a table in aligned columns: rows and tokens, then the stages."""
    splits = [["", "rows", "tokens"], *([name, f"{n:,}", f"{tokens:,}"] for name, (n, tokens) in plan.splits.items())]
    stages = [["stage", "steps", "tokens", "minutes", "GB"]]
    for line in plan.lines:
        tokens = f"{line.tokens / 1e6:.1f} M" if line.tokens else "-"
        minutes, memory = f"{line.seconds / 60:.1f}", f"{line.bytes / 1e9:.1f}"
        stages.append([line.stage, f"{line.steps:,}" if line.steps else "-", tokens, minutes, memory])
    stages.append(["together", "", "", f"{plan.seconds / 60:.1f}", f"{plan.bytes / 1e9:.1f}"])
    return f"{aligned(splits)}\n\n{aligned(stages)}"


def sample_dataset(path: Path, config: RunConfig, output: Path) -> None:
    """Writes a DatasetDir of the first rows of each split, which are ordered by a hash."""
    with stage_frame("prepare_data", config.data, {}, output, Tracker("")) as frame:
        shutil.copy(path / "dataset.json", frame.path)
        for split in [name for name in (*SPLITS, UNLABELED) if (path / f"{name}.parquet").is_file()]:
            table = pyarrow.parquet.read_table(path / f"{split}.parquet").slice(0, _SAMPLE_ROWS)
            pyarrow.parquet.write_table(table, frame.path / f"{split}.parquet")


def sampled_rows(counts: dict[str, int], data: Dataset, teacher: Teacher) -> Rows:
    """Returns the lengths of all rows, as those of a sample are distributed where there are more."""
    unlabeled = data.unlabeled()
    lengths = {name: np.resize(teacher.collator(data.split(name)).lengths, counts[name]) for name in SPLITS}
    extra = np.resize(teacher.collator(unlabeled).lengths, counts[UNLABELED]) if unlabeled else np.zeros(0, np.int64)
    return Rows({**lengths, UNLABELED: extra}, teacher.template.size, len(data.labels), sizes_of(teacher.model))


def available_bytes() -> float:
    """Memory of this machine, or of the control group that this process is in."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for place in ("memory.max", "memory/memory.limit_in_bytes"):  # control groups version 2 and 1
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(float((Path("/sys/fs/cgroup") / place).read_text()))
    return min(found)


def _line(part: Work, speeds: dict[str, float], idle: float) -> Line:
    seconds = sum(speeds[kind] * tokens for kind, tokens in part.tokens.items())
    seconds += speeds["probes"] * part.probe_rows + part.timing + _FIXED[part.stage]
    return Line(part.stage, part.steps, sum(part.tokens.values()), seconds, part.bytes + idle)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lets only errors through: the stages that are tried out are not the run's, which will say it again."""
    logger = logging.getLogger("adabert_core")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
