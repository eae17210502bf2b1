"""One run of an experiment in a process of its own: `python -m adabert_core.experiments.worker RUN_FOLDER LAST_STAGE`.

Comes in: job.json in the run folder. Goes out: the stages up to the last one, as `adabert run` leaves them; what several runs
have in common is made once and comes to the others from the stage cache.
"""

import dataclasses
import logging
import sys
from pathlib import Path

from adabert_core.artifacts import read_json
from adabert_core.config_file import load_run_config
from adabert_core.entry import show_log
from adabert_core.errors import UserError
from adabert_core.runner import run_all

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is told: the run's preset and overrides, and the stage cache that all runs share."""

    preset: str
    overrides: list[str]
    stage_cache: str


def main(folder: str, last: str) -> None:
    """Works, and ends with exit code 2 and one sentence for what the user can mend."""
    from adabert_core.parallel import die_with_parent

    die_with_parent()
    show_log(sys.stderr)
    try:
        job = Job(**read_json(Path(folder) / "job.json"))
        run_all(load_run_config(Path(job.preset), job.overrides), Path(folder), stage_cache=job.stage_cache, last=last)
    except UserError as error:
        log.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
