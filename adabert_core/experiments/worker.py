"""One run of an experiment in a process of its own: `python -m adabert_core.experiments.worker RUN_FOLDER LAST_STAGE`.

Comes in: job.json in the run folder. Goes out: a link per stage in it; the directories themselves lie in a folder that all
runs of the experiment share, under a key of all that leads to them, so that what several have in common is computed once.
"""

import contextlib
import dataclasses
import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from adabert_core import __version__
from adabert_core.artifacts import digest_of, read_json, read_manifest
from adabert_core.config import RunConfig, load_run_config
from adabert_core.entry import show_log
from adabert_core.errors import UserError
from adabert_core.stages import STAGES, run_stage
from adabert_core.storage import Checkpoints, open_store
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is told: the run's preset and overrides, its rows' data_version, and where shared stages lie."""

    preset: str
    overrides: list[str]
    data_version: str
    threads: int
    shared: str


def stage_keys(config: RunConfig, data_version: str, threads: int) -> dict[str, str]:
    """Stage -> a digest of all that its result follows from."""
    keys: dict[str, str] = {}
    for name, stage in STAGES.items():
        settings = dataclasses.asdict(getattr(config, stage.section))
        before = [keys[parent] for parent in stage.inputs.values()] or [data_version]
        keys[name] = digest_of([name, __version__, threads, settings, before])[:16]
    return keys


def is_whole(place: Path, stage: str) -> bool:
    """True where a finished stage directory lies."""
    try:
        read_manifest(place, stage)
    except UserError:
        return False
    return True


def work(folder: Path, last: str) -> None:
    """Runs the stages of a run up to `last` that no run has done before."""
    job = Job(**read_json(folder / "job.json"))
    config, shared = load_run_config(Path(job.preset), job.overrides), Path(job.shared)
    places = {name: shared / f"{name}-{key}" for name, key in stage_keys(config, job.data_version, job.threads).items()}
    for name, stage in STAGES.items():
        place = places[name]
        with locked(place):
            if is_whole(place, name):
                log.info("%s: done before, nothing to do", name)
            else:
                inputs = {key: places[parent] for key, parent in stage.inputs.items()}
                checkpoints = Checkpoints(open_store(str(shared / "checkpoints"), place.name))
                settings = getattr(config, stage.section)
                run_stage(name, settings, inputs, place, tracker=Tracker(""), checkpoints=checkpoints)
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(place, folder))
        if name == last:
            return


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Holds a stage directory for this process; another one that wants it waits until it is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{place.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(folder: str, last: str) -> None:
    """Works, and ends with exit code 2 and one sentence for what the user can mend."""
    from adabert_core.parallel import die_with_parent

    die_with_parent()
    show_log(sys.stderr)
    try:
        work(Path(folder), last)
    except UserError as error:
        log.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
