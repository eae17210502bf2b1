"""Stage directories in S3, where nothing else carries them: between containers, nodes of a TrainJob, and commands.

On a cluster KFP's launcher does it between the tasks of a pipeline.
Comes in: a stage directory, a place. Goes out: the directory with its manifest and the URI of the rest; or a whole copy whose
digests were checked.
"""

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from adabert_core.artifacts import MANIFEST, file_digest, parse_manifest
from adabert_core.errors import RemoteError
from adabert_core.s3 import fetch, open_place, push

log = logging.getLogger(__name__)
_POINTER = "stored_at.txt"
_STAYS = (MANIFEST, _POINTER, "report.html")  # the page is what a runner shows


def put_away(folder: Path, place: str) -> str:
    """Moves a stage directory's files to `place`/STAGE/DIGEST, leaves its manifest, its page and that URI, and returns the URI.

    A directory of the same content that is there already is not sent again: the manifest, which goes last, says it is whole.
    """
    manifest = parse_manifest(folder / MANIFEST)
    uri = f"{place.rstrip('/')}/{manifest.stage}/{manifest.digest[:16]}"
    started = time.perf_counter()
    if open_place(uri).read(MANIFEST) is None:
        push(folder, uri, last=MANIFEST)
    (folder / _POINTER).write_text(uri, encoding="utf-8")
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        elif path.relative_to(folder).as_posix() not in _STAYS:
            path.unlink()
    log.info("%s: kept at %s, %.1f s", manifest.stage, uri, time.perf_counter() - started)
    return uri


def at_hand(folder: Path, scratch: Path) -> Path:
    """Returns the directory itself, or a whole copy below `scratch` of one that was put away.

    Raises:
        RemoteError: what is stored is not what the manifest says.
    """
    pointer = folder / _POINTER
    if not pointer.is_file():
        return folder
    uri = pointer.read_text(encoding="utf-8")
    return whole_copy(uri, scratch / folder.name / uri.rpartition("/")[2])


def whole_copy(uri: str, folder: Path) -> Path:
    """Downloads a stage directory and returns the folder.

    Raises:
        RemoteError: what is stored is not what its manifest says.
    """
    started = time.perf_counter()
    fetch(uri, folder)
    manifest = parse_manifest(folder / MANIFEST)
    for name, digest in manifest.files.items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise RemoteError(f"{uri}/{name} is missing or damaged: remove {uri} and run {manifest.stage} again.")
    log.info("%s: fetched from %s, %.1f s", manifest.stage, uri, time.perf_counter() - started)
    return folder


@contextlib.contextmanager
def stage_places(inputs: Mapping[str, str], output: str) -> Iterator[tuple[dict[str, Path], Path]]:
    """Yields folders for stage directories that are paths or s3:// URIs; what was written is sent when the block ends well."""
    with tempfile.TemporaryDirectory(prefix="adabert-stage-") as scratch:
        paths = {
            name: whole_copy(place, Path(scratch) / name) if place.startswith("s3://") else Path(place)
            for name, place in inputs.items()
        }
        target = Path(scratch) / "output" if output.startswith("s3://") else Path(output)
        yield paths, target
        if target != Path(output) and (target / MANIFEST).is_file():  # of several processes only the first has written
            push(target, output, last=MANIFEST)
