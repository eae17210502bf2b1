"""Stage directories passed through S3 where nothing else carries them: containers on one host, as pods do it on a cluster.

Comes in: a stage directory, a place. Goes out: the directory with its manifest and the URI of the rest; and, for the next
stage, a whole copy of its own. On a cluster KFP's launcher does this, and nothing here is used.
"""

import logging
import time
from pathlib import Path

from adabert_core.artifacts import MANIFEST, Manifest, file_digest, parse_manifest
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
    copy = scratch / folder.name / uri.rpartition("/")[2]
    fetch(uri, copy)
    manifest: Manifest = parse_manifest(copy / MANIFEST)
    for name, digest in manifest.files.items():
        if not (copy / name).is_file() or file_digest(copy / name) != digest:
            raise RemoteError(f"{uri}/{name} is missing or damaged: remove {uri} and run {manifest.stage} again.")
    return copy
