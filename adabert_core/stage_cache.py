"""Finished directories of the long stages, kept by all that their result is a function of: no experiment pays for one twice.

Comes in: a stage's call. Goes out: the directory that was made for the same settings, inputs and content outside, its digests
checked; or a new one, which is then kept. Any number of processes may share the folder: what two of them want is made once.
"""

import contextlib
import dataclasses
import fcntl
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adabert_core.artifacts import link_tree, list_files, read_manifest, whole_directory
from adabert_core.errors import UserError
from adabert_core.stages import StageReport, outside_content, parent_digests, report_of, result_key, run_stage
from adabert_core.storage import Checkpoints
from adabert_core.tracking import Tracker

log = logging.getLogger(__name__)
CACHED = ("finetune_teacher", "distill_targets", "search", "retrain")  # benchmark times this machine, register asks a server


class StageCache:
    """A folder of stage directories under STAGE/DIGEST."""

    def __init__(self, root: str) -> None:
        """Makes the folder.

        Raises:
            UserError: it cannot be made.
        """
        if "://" in root:
            raise UserError(f"--stage-cache {root}: only a folder can be one.")
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--stage-cache {root} cannot be written: {error.strerror}.") from error

    def run_stage(
        self, name: str, config: Any, inputs: dict[str, Path], output: Path, *, tracker: Tracker, checkpoints: Checkpoints
    ) -> StageReport:
        """Like `stages.run_stage`, but a long stage that is kept here is not run again."""
        if name not in CACHED:
            return run_stage(name, config, inputs, output, tracker=tracker, checkpoints=checkpoints)
        settings = dataclasses.asdict(config)
        key = result_key(name, settings, parent_digests(name, inputs), outside_content(name, config))
        with self._alone(key):
            if not self._take(name, key, output):
                report = run_stage(name, config, inputs, output, tracker=tracker, checkpoints=checkpoints)
                self._keep(key, output)
                return report
        report = report_of(name, output)
        tracker.start(name, settings)
        tracker.tag(f"adabert.{name}.from", key)
        tracker.metrics(report.metrics)
        tracker.finish("FINISHED")
        checkpoints.clear(key)
        return report

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Lets one process of this machine at a time make a result; the others wait and take it. A lock ends with its process."""
        place = self.root / ".locks" / key.replace("/", "-")
        place.parent.mkdir(exist_ok=True)
        with place.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _take(self, name: str, key: str, output: Path) -> bool:
        """Puts what is kept under a key into `output`; False where there is nothing, or nothing whole, which is then removed."""
        kept = self.root / key
        if not kept.is_dir():
            return False
        try:
            with whole_directory(output) as scratch:
                link_tree(kept, scratch)
                manifest = read_manifest(scratch, name)
                if list_files(scratch) != manifest.files:
                    raise UserError("its files are not those of its manifest")
        except (UserError, shutil.Error, FileNotFoundError) as error:
            log.warning("%s: %s is damaged and not used (%s)", name, kept, error)
            shutil.rmtree(kept, ignore_errors=True)
            return False
        log.info("%s: taken from %s, made in %.0f s by %s", name, kept, manifest.wall_seconds, manifest.git_sha or "an image")
        return True

    def _keep(self, key: str, output: Path) -> None:
        """Keeps a finished directory; a full disk costs the entry, not the run."""
        try:
            with whole_directory(self.root / key, replace=False) as scratch:
                link_tree(output, scratch)
        except (OSError, shutil.Error) as error:
            log.warning("%s was not kept in %s (%s); the run goes on", key, self.root, error)
