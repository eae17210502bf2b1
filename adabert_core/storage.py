"""The one door to places that outlive a process: checkpoints go through here, and nothing else opens such a place.

Comes in: a `checkpoint_uri` (a folder or s3://bucket/prefix) and named states. Goes out: the last whole state, or None.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from adabert_core.artifacts import file_digest, read_json, recover, whole_directory, write_json
from adabert_core.errors import UserError

log = logging.getLogger(__name__)
_STATE, _SEAL = "state.pt", "seal.json"


class Store(Protocol):
    """A place for small folders of files under slash-separated keys."""

    def put(self, key: str, files: Callable[[Path], None], step: int = 0) -> None:
        """Calls `files` with an empty folder and keeps what it wrote there, whole or not at all; `step` says how far it is."""

    def address(self) -> tuple[str, str]:
        """The URI and the writer's name by which `open_store` gives this store again."""

    def busy(self) -> bool:
        """True while what was put is still on its way: a good moment not to put more."""

    def get(self, key: str) -> Path | None:
        """Returns a local folder with what was put under `key`, or None."""

    def delete(self, prefix: str) -> None:
        """Forgets every key below `prefix`."""


class FolderStore:
    """A store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, files: Callable[[Path], None], step: int = 0) -> None:
        """Writes a temporary sibling and renames it."""
        with whole_directory(self.root / key) as scratch:
            files(scratch)

    def address(self) -> tuple[str, str]:
        """The folder; it belongs to one run at a time."""
        return str(self.root), ""

    def busy(self) -> bool:
        """False: a folder is written at once."""
        return False

    def get(self, key: str) -> Path | None:
        """Returns the folder of `key`, or None where there is none."""
        path = self.root / key
        recover(path)
        return path if path.is_dir() else None

    def delete(self, prefix: str) -> None:
        """Removes the folder of `prefix`, and of its parents those that are empty now."""
        path = self.root / prefix
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            while path.parent != self.root.parent:
                path = path.parent
                path.rmdir()


def open_store(uri: str, writer: str) -> Store:
    """Returns the store behind a `checkpoint_uri`; `writer` names this run, and is the same when it is started again.

    Any number of runs may share an S3 prefix; a folder belongs to one run at a time.

    Raises:
        UserError: a scheme that is not known, a folder that cannot be written, or an S3 place that does not answer.
    """
    if uri.startswith("s3://"):
        from adabert_core.s3 import FEW_ATTEMPTS, open_place  # here: boto3 takes its time, and a local run has no use for it
        from adabert_core.s3_store import S3Store

        open_place(uri, FEW_ATTEMPTS).probe()
        return S3Store(open_place(uri), writer)
    if "://" in uri:
        raise UserError(f"checkpoint_uri {uri}: only folders and s3://bucket/prefix are known.")
    root = Path(uri)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"checkpoint_uri {uri} cannot be written: {error.strerror}.") from error
    return FolderStore(root)


class Checkpoints:
    """States of the running stage in a store, saved at most every `every_seconds`. Without a store nothing is kept."""

    def __init__(
        self,
        store: Store | None,
        every_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        reads_only: bool = False,
    ) -> None:
        self.store = store
        self.every_seconds = every_seconds
        self.reads_only = reads_only  # of the processes of a parallel stage only the first one writes
        self._clock = clock
        self._last = clock()

    def due(self) -> bool:
        """True when the last save lies far enough back."""
        return (
            self.store is not None
            and not self.reads_only
            and self._clock() - self._last >= self.every_seconds
            and not self.store.busy()
        )

    def save(self, key: str, state: dict[str, Any]) -> None:
        """Keeps a state of tensors and plain values; a full disk or a lost store costs the checkpoint, not the run."""
        if self.store is None or self.reads_only:
            return

        def write(folder: Path) -> None:
            _write_state(state, folder / _STATE)
            write_json(folder / _SEAL, {"sha256": file_digest(folder / _STATE)})

        try:
            self.store.put(key, write, int(state.get("step", 0)))
        except OSError as error:
            log.warning("checkpoint %s was not written (%s); the run goes on", key, error)
        self._last = self._clock()

    def load(self, key: str) -> dict[str, Any] | None:
        """Returns the last state kept under `key`; None where there is none or where its seal does not match."""
        folder = self.store.get(key) if self.store is not None else None
        if folder is None:
            return None
        import torch

        try:
            if read_json(folder / _SEAL)["sha256"] != file_digest(folder / _STATE):
                raise ValueError("digest differs")
            return torch.load(folder / _STATE, weights_only=True, map_location="cpu")
        except (OSError, ValueError, KeyError, UserError) as error:
            log.warning("checkpoint %s is damaged (%s); starting this stage over", key, error)
            return None

    def clear(self, key: str) -> None:
        """Forgets the states below `key`: the stage is done."""
        if self.store is not None and not self.reads_only:
            self.store.delete(key)


def _write_state(state: dict[str, Any], path: Path) -> None:
    import torch  # here and in `load`: a stage without checkpoints need not wait for torch

    try:
        with path.open("wb") as stream:
            torch.save(state, stream)
    except RuntimeError as error:  # torch's own, which hides what the file system said
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
