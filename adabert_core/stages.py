"""The seven stages in the order of the data, and the frame every one of them runs in.

Comes in: a checked config, the directories of earlier stages. Goes out: one directory, whole, with its manifest.
Components, CLI and in-process runs all call `run_stage`; nothing else calls a stage's `run`.
"""

import contextlib
import dataclasses
import importlib
import logging
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adabert_core import __version__
from adabert_core.artifacts import Manifest, digest_of, git_sha, list_files, read_manifest, whole_directory, write_manifest
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage's config section, module and inputs (input name -> the stage that wrote it)."""

    section: str
    module: str
    inputs: dict[str, str]


STAGES: dict[str, Stage] = {
    "prepare_data": Stage("data", "adabert_core.data.prepare", {}),
    "finetune_teacher": Stage("teacher", "adabert_core.teacher", {"dataset": "prepare_data"}),
    "distill_targets": Stage("targets", "adabert_core.targets", {"dataset": "prepare_data", "teacher": "finetune_teacher"}),
    "search": Stage("search", "adabert_core.search", {"teacher": "finetune_teacher", "targets": "distill_targets"}),
    "retrain": Stage(
        "retrain",
        "adabert_core.retrain",
        {"teacher": "finetune_teacher", "targets": "distill_targets", "search": "search"},
    ),
    "benchmark": Stage(
        "benchmark",
        "adabert_core.benchmark",
        {
            "dataset": "prepare_data",
            "teacher": "finetune_teacher",
            "targets": "distill_targets",
            "search": "search",
            "student": "retrain",
        },
    ),
    "register": Stage(
        "register",
        "adabert_core.register",
        {"dataset": "prepare_data", "student": "retrain", "benchmark": "benchmark"},
    ),
}


@dataclasses.dataclass(frozen=True)
class StageReport:
    """What a finished stage tells its caller."""

    stage: str
    output: Path
    metrics: dict[str, float]
    data_version: str
    wall_seconds: float
    peak_memory_bytes: int


@dataclasses.dataclass
class StageFrame:
    """What a stage's `run` works with: the folder to write into, and what it reports."""

    path: Path
    parents: dict[str, Manifest]
    checkpoint_key: str
    data_version: str
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    report: StageReport | None = None

    @property
    def finished(self) -> StageReport:
        """The report, which is there once the frame is closed."""
        if self.report is None:
            raise RuntimeError("the stage has not finished")
        return self.report


def run_stage(
    name: str,
    config: Any,
    inputs: dict[str, Path],
    output: Path,
    *,
    tracker: Tracker,
    checkpoints: Checkpoints,
) -> StageReport:
    """Runs one stage by name, on as many processes as its config asks for, and returns its report."""
    module = STAGES[name].module
    if not hasattr(config, "processes"):
        return importlib.import_module(module).run(config, inputs, output, tracker=tracker, checkpoints=checkpoints)
    from adabert_core.parallel import run_as_one_of_many, run_on_many, wanted_processes  # here: the other stages need no torch

    count = wanted_processes(config)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # somebody's torchrun has started this process and its peers, on any number of nodes
        run_as_one_of_many(module, config, inputs, output, tracker=tracker, checkpoints=checkpoints)
        if os.environ["RANK"] != "0":  # the directory need not be on this node
            return StageReport(name, output, {}, "", 0.0, 0)
    elif count == 1:
        return importlib.import_module(module).run(config, inputs, output, tracker=tracker, checkpoints=checkpoints)
    else:
        run_on_many(count, module, config, inputs, output, tracker=tracker, checkpoints=checkpoints)
    done = read_manifest(output, name)
    return StageReport(name, output, done.metrics, done.data_version, done.wall_seconds, done.peak_memory_bytes)


def is_done(name: str, config: Any, inputs: dict[str, Path], output: Path) -> bool:
    """True when `output` holds this stage's result for the same config and the same inputs."""
    from adabert_core.errors import UserError

    try:
        manifest = read_manifest(output, name)
        parents = {key: read_manifest(inputs[key], stage).digest for key, stage in STAGES[name].inputs.items()}
    except UserError:
        return False
    if manifest.package_version != __version__:
        return False
    same_source = name != "prepare_data"  # rows may have changed behind an unchanged path, so they are read again
    return same_source and manifest.config == dataclasses.asdict(config) and manifest.parents == parents


@contextlib.contextmanager
def stage_frame(name: str, config: Any, inputs: dict[str, Path], output: Path, tracker: Tracker) -> Iterator[StageFrame]:
    """Checks the inputs, yields the frame, and turns what the block wrote into a whole stage directory."""
    started = time.perf_counter()
    _reset_peak_memory()
    parents = {key: read_manifest(inputs[key], stage) for key, stage in STAGES[name].inputs.items()}
    settings = dataclasses.asdict(config)
    digests = {key: manifest.digest for key, manifest in parents.items()}
    data_version = next((manifest.data_version for manifest in parents.values()), "")
    log.info("%s: started", name)
    tracker.start(name, settings)
    status = "FAILED"
    try:
        with whole_directory(output) as scratch:
            key = f"{name}/{digest_of([settings, digests])[:16]}"
            frame = StageFrame(scratch, parents, key, data_version)
            yield frame
            seconds, peak = time.perf_counter() - started, peak_memory_bytes()
            manifest = Manifest(
                stage=name,
                config=settings,
                seed=settings.get("seed", 0),
                data_version=frame.data_version,
                parents=digests,
                files=list_files(scratch),
                metrics=frame.metrics,
                wall_seconds=round(seconds, 3),
                peak_memory_bytes=peak,
                git_sha=git_sha(),
            )
            write_manifest(scratch, manifest)
        tracker.metrics({**frame.metrics, "stage_seconds": seconds, "peak_memory_gb": peak / 1e9})
        frame.report = StageReport(name, output, frame.metrics, frame.data_version, seconds, peak)
        status = "FINISHED"
        log.info("%s: done in %.0f s, peak memory %.2f GB", name, seconds, peak / 1e9)
    finally:
        tracker.finish(status)


def peak_memory_bytes() -> int:
    """Peak resident memory of this process since the stage started (since process start where /proc is missing)."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
