"""Checkpoints in S3: uploaded in the background, valid by their seal, shared by any number of runs under one prefix.

Comes in: keys and small folders of files. Goes out: the furthest whole one under a key, whichever run wrote it. A run writes
and removes only what is under its own name: KEY/@WRITER/CONTENT/files and KEY/@WRITER/seal.json, which is put last.
"""

import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from adabert_core.artifacts import digest_of, list_files
from adabert_core.errors import RemoteError
from adabert_core.s3 import ConflictError, S3Place

log = logging.getLogger(__name__)
_SEAL = "seal.json"
_TRIES = 5


@dataclasses.dataclass(frozen=True)
class Seal:
    """What makes an uploaded folder valid: how far it is, where its files are, and their sha256."""

    step: int
    folder: str
    files: dict[str, str]


class S3Store:
    """A `storage.Store` below an s3:// prefix; `writer` is the name of this run, the same when it is started again."""

    def __init__(self, place: S3Place, writer: str) -> None:
        self.place, self.writer = place, writer
        self._uploads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-upload")
        self._last: Future[None] | None = None
        self._local = tempfile.TemporaryDirectory(prefix="adabert-checkpoints-")

    def put(self, key: str, files: Callable[[Path], None], step: int = 0) -> None:
        """Lets `files` fill a folder and uploads it in the background; a failure is a warning, the run goes on."""
        scratch = Path(tempfile.mkdtemp(dir=self._local.name))
        try:
            files(scratch)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        self._last = self._uploads.submit(self._upload, key, scratch, step)

    def address(self) -> tuple[str, str]:
        """The prefix and this run's name."""
        return self.place.uri, self.writer

    def busy(self) -> bool:
        """True while an upload is under way."""
        return self._last is not None and not self._last.done()

    def get(self, key: str) -> Path | None:
        """Returns a local copy of the furthest whole folder of a key, good until the next call, or None.

        Raises:
            RemoteError: the place cannot be read: better tried again later than started over.
        """
        self._wait()
        target = Path(self._local.name) / "got"
        seals = self._seals(key)
        for base in sorted(seals, key=lambda base: (-seals[base].step, base)):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            try:
                for name in seals[base].files:
                    self.place.download(f"{base}/{seals[base].folder}/{name}", target / name)
            except RemoteError as error:
                self.place.probe()  # an object that is missing or damaged is one thing, a place that is down another
                log.warning("checkpoint %s is left aside: %s", base, error)
                continue
            if list_files(target) == seals[base].files:
                return target
            log.warning("checkpoint %s is damaged and left aside", base)
        if f"{key}/@{self.writer}" in seals:  # one that cannot be read must not count as further than what comes now
            self._forget(f"{key}/@{self.writer}")
        return None

    def delete(self, prefix: str) -> None:
        """Forgets what this run has below a prefix."""
        self._wait()
        self._forget(prefix)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def _upload(self, key: str, scratch: Path, step: int) -> None:
        try:
            self._commit(f"{key}/@{self.writer}", scratch, step)
        except (RemoteError, OSError) as error:
            log.warning("checkpoint %s was not written (%s); the run goes on", key, error)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _commit(self, base: str, scratch: Path, step: int) -> None:
        """Uploads the files, then moves the seal to them, unless another process of this run is further."""
        files = list_files(scratch)
        new = Seal(step, digest_of(files)[:16], files)
        for name in files:
            self.place.upload(scratch / name, f"{base}/{new.folder}/{name}")
        for _ in range(_TRIES):
            found = self.place.read(f"{base}/{_SEAL}")
            old = _parse(found[0]) if found else None
            if old is not None and old.step > step:
                log.warning("checkpoint %s: another process of this run is at step %d, this one at %d", base, old.step, step)
                self._forget(f"{base}/{new.folder}")
                return
            try:
                content = json.dumps(dataclasses.asdict(new), sort_keys=True).encode()
                self.place.write(f"{base}/{_SEAL}", content, found[1] if found else None)
            except ConflictError:
                continue
            if old is not None and old.folder != new.folder:
                self._forget(f"{base}/{old.folder}")
            return
        raise RemoteError(f"{self.place.uri}/{base} is being written by another process all the time.")

    def _seals(self, key: str) -> dict[str, Seal]:
        found = {}
        for name in self.place.keys(key):
            base, _, last = name.rpartition("/")
            if last == _SEAL and base.removeprefix(f"{key}/").startswith("@") and base.count("@") == 1:
                content = self.place.read(name)
                seal = _parse(content[0]) if content else None
                if seal is not None:
                    found[base] = seal
        return found

    def _forget(self, prefix: str) -> None:
        try:
            self.place.delete([key for key in self.place.keys(prefix) if f"/@{self.writer}/" in key])
        except RemoteError as error:
            log.warning("checkpoints below %s were not removed (%s)", prefix, error)


def _parse(content: bytes) -> Seal | None:
    try:
        return Seal(**json.loads(content))
    except (ValueError, TypeError):
        return None
