"""The seven stages in the order of the data, and the frame every one of them runs in.

Comes in: a checked config, the directories of earlier stages. Goes out: one directory, whole, with its manifest.
Components, CLI and in-process runs all call `run_stage`; nothing else calls a stage's `run`.
"""

import contextlib
import dataclasses
import logging
import os
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adabert_core import __version__
from adabert_core.artifacts import (
    Manifest,
    check_place,
    digest_of,
    file_digest,
    git_sha,
    list_files,
    read_manifest,
    recover,
    whole_directory,
    write_manifest,
)
from adabert_core.errors import UserError
from adabert_core.imports import collector_paused, imported
from adabert_core.memory import status_bytes
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
    outside: str
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    report: StageReport | None = None

    def warn(self, sentence: str) -> None:
        """Tells the log now and the report later what looks wrong; '' is nothing to tell."""
        if sentence:
            log.warning("%s", sentence)
            self.warnings.append(sentence)

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
        return imported(module).run(config, inputs, output, tracker=tracker, checkpoints=checkpoints)
    with collector_paused():  # here: the other stages need no torch
        from adabert_core.parallel import run_as_one_of_many, run_on_many, wanted_processes

    parent_digests(name, inputs)  # before any process is started
    if "TORCHELASTIC_RUN_ID" in os.environ:  # somebody's torchrun has started this process and its peers, on any number of nodes
        run_as_one_of_many(module, config, inputs, output, tracker=tracker, checkpoints=checkpoints)
        if os.environ["RANK"] != "0":  # the directory need not be on this node
            return StageReport(name, output, {}, "", 0.0, 0)
    elif (count := wanted_processes(config)) == 1:
        return imported(module).run(config, inputs, output, tracker=tracker, checkpoints=checkpoints)
    else:
        run_on_many(count, module, config, inputs, output, tracker=tracker, checkpoints=checkpoints)
    return report_of(name, output)


def report_of(name: str, output: Path) -> StageReport:
    """What a finished stage directory told when it was made."""
    done = read_manifest(output, name)
    return StageReport(name, output, done.metrics, done.data_version, done.wall_seconds, done.peak_memory_bytes)


def outside_content(name: str, config: Any) -> str:
    """Names the content of what a stage reads besides its inputs, rows or a teacher's files; '' where its config says it all.

    Both may have changed behind an unchanged path.
    """
    if name == "prepare_data":
        from adabert_core.data.prepare import fingerprint  # here: it builds on this module

        return fingerprint(config)
    if name == "finetune_teacher":
        from adabert_core.teacher_source import teacher_content

        return teacher_content(config.model)
    return ""


def parent_digests(name: str, inputs: dict[str, Path]) -> dict[str, str]:
    """Input name -> digest of the directory that is given for it, whose manifest is checked."""
    return {key: read_manifest(inputs[key], stage).digest for key, stage in STAGES[name].inputs.items()}


def check_one_run(manifests: Mapping[str, Manifest]) -> None:
    """Checks that what directories (by input name) were made from is one thing: a folder may hold parts of two runs.

    Raises:
        UserError: two of them differ in it, or one was not made from another that is among them.
    """
    known = {name: (manifest.digest, manifest.stage) for name, manifest in manifests.items()}
    for manifest in manifests.values():
        for name, digest in manifest.parents.items():
            same, stage = known.setdefault(name, (digest, manifest.stage))
            if same != digest:
                raise UserError(
                    f"{manifest.stage} and {stage} are of two runs, they were made from different directories of {name}: "
                    "give those of one run, or finish the run by its own command."
                )


def result_key(name: str, config: dict[str, Any], parents: dict[str, str], outside: str) -> str:
    """STAGE/DIGEST of all that a stage's result is a function of; `parents` are the digests of its inputs."""
    return f"{name}/{digest_of([__version__, config, parents, outside])[:16]}"


def is_done(name: str, config: Any, inputs: dict[str, Path], output: Path) -> bool:
    """True when `output` holds this stage's result for the same config, the same inputs and the same content outside.

    Raises:
        UserError: what the config points at outside cannot be read.
    """
    try:
        manifest = read_manifest(output, name)
        parents = parent_digests(name, inputs)
    except UserError:
        return False
    same = (manifest.package_version, manifest.config, manifest.parents) == (__version__, dataclasses.asdict(config), parents)
    if not same or manifest.outside != outside_content(name, config):
        return False
    if any(file_digest(output / name) != digest for name, digest in manifest.files.items()):
        log.warning("%s: a file of %s is damaged, so the stage runs again", name, output)
        return False
    return True


@contextlib.contextmanager
def stage_frame(name: str, config: Any, inputs: dict[str, Path], output: Path, tracker: Tracker) -> Iterator[StageFrame]:
    """Checks the inputs, yields the frame, and turns what the block wrote into a whole stage directory."""
    started = time.perf_counter()
    _reset_peak_memory()
    recover(output.absolute())
    check_place(output, name)
    parents = {key: read_manifest(inputs[key], stage) for key, stage in STAGES[name].inputs.items()}
    check_one_run(parents)
    settings = dataclasses.asdict(config)
    digests = {key: manifest.digest for key, manifest in parents.items()}
    data_version = next((manifest.data_version for manifest in parents.values()), "")
    outside = outside_content(name, config) if parents else ""  # prepare_data says itself what it has found
    log.info("%s: started", name)
    tracker.start(name, settings)
    status = "FAILED"
    try:
        with whole_directory(output) as scratch:
            frame = StageFrame(scratch, parents, result_key(name, settings, digests, outside), data_version, outside)
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
                outside=frame.outside,
                warnings=frame.warnings,
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
    return status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
