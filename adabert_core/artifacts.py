"""Stage directories on disk: written whole or not at all, and checked before they are read.

Comes in: what a stage wrote. Goes out: a directory with `manifest.json`, whose digest names its content.
"""

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from adabert_core import __version__
from adabert_core.errors import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a stage directory says of itself.

    `files` maps a relative path to its sha256; `outside` names the content that the config points at outside of the run.
    """

    stage: str
    config: dict[str, Any]
    seed: int
    data_version: str
    parents: dict[str, str]
    files: dict[str, str]
    metrics: dict[str, float]
    wall_seconds: float
    peak_memory_bytes: int
    package_version: str = __version__
    git_sha: str = ""
    outside: str = ""
    warnings: list[str] = dataclasses.field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """sha256 of everything that identifies the content: not of times, memory or versions of the code."""
        return digest_of([self.schema_version, self.stage, self.config, self.data_version, self.parents, self.files])


def digest_of(value: object) -> str:
    """sha256 of a JSON-serialisable value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def git_sha() -> str:
    """The commit of the code that runs, or an empty string outside a checkout (an image sets ADABERT_GIT_SHA)."""
    if sha := os.environ.get("ADABERT_GIT_SHA"):
        return sha
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    return ""


@contextlib.contextmanager
def whole_directory(target: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yields a temporary sibling that becomes `target` when the block ends well, and vanishes when it does not.

    What stands there gives way to it; without `replace` it stays, so that of two writers of one content the first to end wins.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.{_pid_table()}.{os.getpid()}.", dir=target.parent))
    scratch.chmod(0o755)
    try:
        yield scratch
        sync_tree(scratch)
        if replace:
            replace_directory(scratch, target)
        else:
            _rename_unless_there(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def replace_directory(source: Path, target: Path) -> None:
    """Renames `source` to `target`; what stood there goes only after the new one is complete."""
    old = _old(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    _sync(target.parent)


def check_place(target: Path, stage: str) -> None:
    """Checks that a stage may write `target`, which it replaces as a whole: nothing, an empty folder, or its own directory.

    Raises:
        UserError: something else is there, or we are in it.
    """
    if not (target.exists() or target.is_symlink()) or _is_of(target, stage):
        return
    here, place = Path.cwd(), target.resolve()
    if place == here or place in here.parents:
        raise UserError(f"--output {target} is the current folder or holds it: name a new one, which {stage} makes.")
    if place.is_dir() and not any(place.iterdir()):
        return
    raise UserError(f"--output {target} is there and was not written by {stage}, which would replace it: name another place.")


def _is_of(target: Path, stage: str) -> bool:
    """True for a directory with the stage's manifest, or with what is left of one."""
    try:
        text = (target / MANIFEST).read_text(encoding="utf-8", errors="replace")
        return json.loads(text)["stage"] == stage
    except ValueError:
        return not text.strip("\0 \n") or text.startswith('{\n  "config"')  # as write_manifest begins one
    except (OSError, KeyError, TypeError):
        return False


def _rename_unless_there(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def recover(target: Path) -> None:
    """Mends what a process killed while writing `target` left: the old content comes back, scratch folders go.

    Those of another machine or container, whose processes cannot be seen from here, stay.
    """
    if not target.parent.is_dir():
        return
    if not target.exists() and _old(target).is_dir():
        with contextlib.suppress(OSError):  # another process was faster
            _old(target).rename(target)
    start = f".{target.name}.{_pid_table()}."
    for scratch in target.parent.glob(f"{glob.escape(start)}*.*"):
        owner = scratch.name.removeprefix(start).split(".")[0]
        if owner.isdigit() and not _lives(int(owner)):
            shutil.rmtree(scratch, ignore_errors=True)


@cache
def _pid_table() -> str:
    """Returns what names the processes that are seen from here: this boot of this machine and, in a container, that one."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return digest_of([boot, os.readlink("/proc/self/ns/pid")])[:12]
    return uuid.uuid4().hex[:12]  # nobody's but this process's


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _old(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def link_tree(source: Path, target: Path) -> None:
    """Gives `target`, which may be there, the files of `source`: hard links, or copies on another file system."""
    shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def sync_tree(root: Path) -> None:
    """Flushes every file and folder below `root` to the disk."""
    for path in [*root.rglob("*"), root]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_files(root: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file below `root` but the manifest, in sorted order."""
    paths = sorted(p for p in root.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(root).as_posix(): file_digest(p) for p in paths}


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Writes `manifest.json` into a stage directory."""
    write_json(root / MANIFEST, dataclasses.asdict(manifest))


def read_manifest(root: Path, stage: str) -> Manifest:
    """Returns the manifest of a directory that `stage` wrote.

    Raises:
        UserError: no directory, another stage's, another schema, or a file that the manifest lists is missing.
    """
    path = root / MANIFEST
    if not path.is_file():
        raise UserError(f"{root} is not a finished {stage} directory ({MANIFEST} is missing): run `adabert {stage}` first.")
    manifest = parse_manifest(path)
    if manifest.stage != stage:
        raise UserError(f"{root} was written by {manifest.stage}, but a {stage} directory is needed here.")
    if manifest.schema_version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema {manifest.schema_version}, this version reads {SCHEMA_VERSION}: run `adabert {stage}` again."
        )
    for name in manifest.files:
        if not (root / name).is_file():
            raise UserError(f"{root / name} is missing though {MANIFEST} lists it: run `adabert {stage}` again.")
    return manifest


def parse_manifest(path: Path) -> Manifest:
    """Returns the manifest in a file, whatever stage wrote it and whether or not its files are there.

    Raises:
        UserError: the file cannot be read as a manifest.
    """
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a manifest this version can read; run its stage again.") from error


def write_json(path: Path, value: object) -> None:
    """Writes readable JSON with sorted keys: the same value always gives the same bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Returns a parsed JSON file.

    Raises:
        UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: run the command that wrote it again, the same one mends it.") from error
