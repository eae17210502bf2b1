"""How fast this machine does what the stages do: a few real steps of each, with the stages' own code, stopped by the clock.

Comes in: a small DatasetDir and the settings. Goes out: seconds per token of each kind of work. Nothing is kept.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from adabert_core import teacher as teacher_stage
from adabert_core.config import RunConfig
from adabert_core.data.dataset import Dataset, read_dataset
from adabert_core.probes import fit_probes
from adabert_core.runtime import make_accelerator
from adabert_core.scoring import Scorer, scored_at_once
from adabert_core.search import Trace, fresh_supernet, search_structure
from adabert_core.search_space import size_flops_costs
from adabert_core.storage import Checkpoints
from adabert_core.student_training import train_student
from adabert_core.target_rows import TargetRows, Targets
from adabert_core.teacher import Teacher, choose_pooling
from adabert_core.tokens import Collator, length_sorted
from adabert_core.tracking import Tracker
from adabert_core.training import LengthBuckets
from adabert_core.workload import structure

_SHARES = {"teacher": 0.4, "scoring": 0.15, "search": 0.25, "student": 0.2}  # of the time to measure in
_ENDLESS = 10**6


class TimeIsUp(Exception):  # noqa: N818 - what it says is no error
    """Ends a training whose steps have been timed."""


class StepClock:
    """A store of checkpoints that keeps nothing, but notes when each step ended and lets none begin after `seconds`.

    The first step warms up and counts only in that the second is measured from its end.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ends: list[float] = []

    def busy(self) -> bool:
        """True, so that nothing is saved; `training.fit` asks after each step."""
        self.ends.append(time.perf_counter())
        if len(self.ends) > 1 and self.ends[-1] - self.ends[0] >= self.seconds:
            raise TimeIsUp
        return True

    def put(self, key: str, files: Callable[[Path], None], step: int = 0) -> None:
        """Keeps nothing."""

    def get(self, key: str) -> Path | None:
        """None: there is nothing."""
        return None

    def delete(self, prefix: str) -> None:
        """Nothing to forget."""

    def address(self) -> tuple[str, str]:
        """No place that another process could open."""
        return "", ""

    def seconds_per_token(self, batches: LengthBuckets, lengths: np.ndarray) -> float:
        """Median of the timed steps' seconds per padded token, without those that end an epoch and then score.

        A median, since a GPU records a graph in the first step of every length.
        """
        steps = range(1, len(self.ends))
        timed = [step for step in steps if (step + 1) % batches.per_epoch] or list(steps)
        tokens = [len(index) * int(lengths[index].max()) for index in map(batches.batch, timed)]
        return statistics.median(
            (self.ends[step] - self.ends[step - 1]) / count for step, count in zip(timed, tokens, strict=True)
        )


def measure(config: RunConfig, dataset: Path, teacher: Teacher, scratch: Path, seconds: float) -> dict[str, float]:
    """Returns seconds per token of `workload`'s kinds of work, and per row and epoch of probes, in about `seconds` of measuring.

    Args:
        config: the run's settings; a stage's own device, precision and batch size are used.
        dataset: a DatasetDir, of which a few batches are read.
        teacher: the teacher before fine-tuning, with a fresh head.
        scratch: an empty folder.
        seconds: the time to measure in, besides loading.
    """
    data = read_dataset(dataset)
    train = teacher.collator(data.split("train"))
    found = {"teacher": teacher_step(config, dataset, train, scratch, seconds * _SHARES["teacher"])}
    found |= scoring(config, data, teacher, train, seconds * _SHARES["scoring"])
    targets = made_up_targets(data, teacher, train)
    found["search"] = search_step(config, teacher, targets, seconds * _SHARES["search"])
    found["student"] = student_step(config, teacher, targets, seconds * _SHARES["student"])
    found["answering"] = found["student"] / 3  # forward only
    return found


def teacher_step(config: RunConfig, dataset: Path, rows: Collator, scratch: Path, seconds: float) -> float:
    """Seconds per token of fine-tuning, by the stage itself."""
    clock = StepClock(seconds)
    settings = dataclasses.replace(config.teacher, min_steps=_ENDLESS, max_steps=None, processes=1)
    try:
        inputs, output = {"dataset": dataset}, scratch / "teacher"
        teacher_stage.run(settings, inputs, output, tracker=Tracker(""), checkpoints=Checkpoints(clock, 0.0))
    except TimeIsUp:
        pass
    return clock.seconds_per_token(LengthBuckets(rows.lengths, settings.batch_size, settings.seed), rows.lengths)


def scoring(config: RunConfig, data: Dataset, teacher: Teacher, rows: Collator, seconds: float) -> dict[str, float]:
    """Seconds per token of the frozen teacher, and per row and epoch of fitting probes on what it said."""
    accelerator = make_accelerator(config.targets.device, config.targets.precision)
    teacher.model.to(accelerator.device).eval()
    pooling = choose_pooling(config.targets.pooling, teacher.template)
    batch_size = scored_at_once(config.targets, accelerator.device.type)
    batches = length_sorted(rows.lengths, batch_size)
    order = np.random.default_rng(0).permutation(len(batches))
    scorer = Scorer(teacher, accelerator, pooling, batch_size, Checkpoints(None), "", data.task)
    pooled = []
    scorer.forward(rows, batches[order[0]][:8])  # warms up
    scorer.tokens, scorer.seconds = 0, 0.0
    for i in order:
        pooled.append(scorer.forward(rows, batches[i])[1])
        if scorer.seconds >= seconds:
            break
    teacher.model.cpu()
    states = torch.cat(pooled).half().numpy()
    labels = np.arange(len(states)) % len(data.labels)
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    fit_probes(states, labels, len(data.labels), epochs=1, generator=generator, device=accelerator.device)
    return {"scoring": scorer.seconds / scorer.tokens, "probes": (time.perf_counter() - started) / len(states)}


def made_up_targets(data: Dataset, teacher: Teacher, rows: Collator) -> Targets:
    """Targets of the rows with answers drawn at random: a step takes as long with them as with the teacher's."""
    layers, classes, count = int(teacher.model.config.num_hidden_layers), len(data.labels), len(rows.rows)
    rng = np.random.default_rng(0)
    answers = rng.normal(size=(count, layers + 2, classes)).astype(np.float32)
    table = TargetRows(rows.rows, np.arange(count) % classes, answers[:, 0], answers[:, 1:])
    info = {"labels": data.labels, "metric": data.metric, "probe_log_likelihood": [-0.5] * (layers + 1)}
    return Targets(info, table, table, {})


def search_step(config: RunConfig, teacher: Teacher, targets: Targets, seconds: float) -> float:
    """Seconds per token of the supernet, by the search's own loop; depths and operations are drawn as at its start."""
    settings = dataclasses.replace(config.search, real_share=0.0)
    accelerator: Accelerator = make_accelerator(settings.device, settings.precision)
    supernet = fresh_supernet(settings, teacher, targets, torch.Generator().manual_seed(0))
    supernet.to(accelerator.device).train()
    rows, clock = Collator(targets.train.rows, teacher.template), StepClock(seconds)
    try:
        search_structure(
            supernet,
            rows,
            targets.train,
            targets.log_likelihoods,
            settings,
            steps=_ENDLESS,
            costs=size_flops_costs(settings.channels),
            trace=Trace(),
            accelerator=accelerator,
            generator=torch.Generator().manual_seed(0),
            tracker=Tracker(""),
            checkpoints=Checkpoints(clock, 0.0),
            checkpoint_key="",
        )
    except TimeIsUp:
        pass
    return clock.seconds_per_token(LengthBuckets(rows.lengths, settings.batch_size, settings.seed), rows.lengths)


def student_step(config: RunConfig, teacher: Teacher, targets: Targets, seconds: float) -> float:
    """Seconds per token of a student of k_max cells, or of the given structure or architecture, by its own training."""
    clock = StepClock(seconds)
    settings = dataclasses.replace(config.retrain, min_steps=_ENDLESS, max_steps=None, real_share=0.0)
    try:
        train_student(
            structure(config.search),
            teacher,
            targets,
            settings,
            channels=config.search.channels,
            supernet=None,
            tracker=Tracker(""),
            checkpoints=Checkpoints(clock, 0.0),
            checkpoint_key="",
            evaluate=False,
        )
    except TimeIsUp:
        pass
    lengths = Collator(targets.train.rows, teacher.template).lengths
    return clock.seconds_per_token(LengthBuckets(lengths, settings.batch_size, settings.seed), lengths)
