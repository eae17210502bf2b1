"""All seven stages in this process, in the order of the data. Stages whose result is there already are not run again."""

import dataclasses
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from adabert_core.artifacts import check_place, read_json
from adabert_core.config import RunConfig
from adabert_core.errors import UserError
from adabert_core.memory import give_memory_back
from adabert_core.stage_cache import StageCache
from adabert_core.stages import STAGES, StageReport, is_done, run_stage
from adabert_core.storage import Checkpoints, open_store
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)


def run_all(
    config: RunConfig,
    output: Path,
    *,
    checkpoint_uri: str = "",
    checkpoint_seconds: float = 60.0,
    stage_cache: str = "",
    last: str = "register",
    on_rows: Callable[[Path], None] | None = None,
) -> list[StageReport]:
    """Runs what is not done yet and returns the reports of the stages that ran or were taken from the stage cache.

    `output` gets one folder per stage. Checkpoints go to `checkpoint_uri`, by default a folder inside `output`. A folder
    `stage_cache` keeps the results of the long stages for other runs. Nothing comes after the stage `last`.
    `on_rows` is called with the DatasetDir if it was made here, before anything is trained.

    Raises:
        UserError: there can be no folder at `output`, or what a stage says.
    """
    run = StageCache(stage_cache).run_stage if stage_cache else run_stage
    for name in stages_to(last):
        check_place(output / name, name)
    pipeline_run, status = _pipeline_run(output), "FAILED"
    store = open_store(checkpoint_uri or str(output / "checkpoints"), pipeline_run)
    reports = []
    tracker = Tracker(config.tracking_uri, config.experiment, pipeline_run, config.name)
    try:
        for name in stages_to(last):
            inputs, target = stage_inputs(name, output), output / name
            settings = getattr(config, STAGES[name].section)
            if is_done(name, settings, inputs, target) and not _unregistered(name, target, tracker):
                log.info("%s: done before, nothing to do", name)
                continue
            checkpoints = Checkpoints(store, checkpoint_seconds)
            reports.append(run(name, settings, inputs, target, tracker=tracker, checkpoints=checkpoints))
            give_memory_back()
            if name == "prepare_data" and on_rows:
                on_rows(target)
        status = "FINISHED"
    finally:
        if reports or status == "FAILED":
            tracker.finish_pipeline(status)
    return reports


def tracked_here(config: RunConfig) -> RunConfig:
    """The config of a run in this process: the environment's MLflow wins over the default, which is a file here."""
    wanted = os.environ.get("MLFLOW_TRACKING_URI")
    if wanted and config.tracking_uri == RunConfig().tracking_uri:
        return dataclasses.replace(config, tracking_uri=wanted)
    return config


def stages_to(last: str) -> list[str]:
    """The stages up to `last`, in order."""
    names = list(STAGES)
    return names[: names.index(last) + 1]


def is_done_to(last: str, config: RunConfig, output: Path) -> bool:
    """True when `output` holds the results of all stages up to `last` for this config and the rows as they are now."""
    return all(
        is_done(name, getattr(config, STAGES[name].section), stage_inputs(name, output), output / name)
        for name in stages_to(last)
    )


def stage_inputs(name: str, root: Path) -> dict[str, Path]:
    """Input name -> directory of a stage whose predecessors ran under `root`."""
    return {key: root / stage for key, stage in STAGES[name].inputs.items()}


def _pipeline_run(output: Path) -> str:
    """An id of this run folder, kept in it, so that a resumed run goes on under the same MLflow parent."""
    path = output / "pipeline_run.txt"
    try:
        known = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not known:  # a full disk leaves an empty file
            output.mkdir(parents=True, exist_ok=True)
            known = uuid.uuid4().hex
            path.write_text(known, encoding="utf-8")
        return known
    except OSError as error:
        raise UserError(f"--output {output} can be no run folder ({error.strerror}): name another place.") from error


def _unregistered(name: str, target: Path, tracker: Tracker) -> bool:
    """True for a register stage that found tracking off or down, now that there is a place to register."""
    return name == "register" and bool(tracker.uri) and not read_json(target / "decision.json")["version"]
