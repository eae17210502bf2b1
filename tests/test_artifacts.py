import dataclasses
import json
from pathlib import Path

import pytest

from adabert_core.artifacts import (
    Manifest,
    check_place,
    file_digest,
    list_files,
    read_json,
    read_manifest,
    recover,
    whole_directory,
    write_json,
    write_manifest,
)
from adabert_core.errors import UserError
from adabert_core.stages import check_one_run
from tests.conftest import killed_while_writing

MANIFEST = Manifest(
    stage="search",
    config={"beta": 4.0},
    seed=0,
    data_version="abc",
    parents={"teacher": "t1"},
    files={"genotype.json": "d1"},
    metrics={"depth": 2.0},
    wall_seconds=1.5,
    peak_memory_bytes=100,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_directory_appears_whole(tmp_path):
    target = tmp_path / "deep" / "search"
    with whole_directory(target) as scratch:
        (scratch / "sub").mkdir()
        (scratch / "sub" / "a").write_text("a")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "a"
    assert names(tmp_path / "deep") == ["search"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), whole_directory(tmp_path / "search") as scratch:
        (scratch / "a").write_text("a")
        raise RuntimeError
    assert names(tmp_path) == []


def test_failure_keeps_the_old_one(tmp_path):
    with whole_directory(tmp_path / "search") as scratch:
        (scratch / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_directory(tmp_path / "search") as scratch:
        (scratch / "new").write_text("new")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["search"]
    assert names(tmp_path / "search") == ["old"]


def test_success_replaces_the_old_one(tmp_path):
    for name in ("old", "new"):
        with whole_directory(tmp_path / "search") as scratch:
            (scratch / name).write_text(name)
    assert names(tmp_path) == ["search"]
    assert names(tmp_path / "search") == ["new"]


def test_what_a_killed_process_left_goes(tmp_path):
    left = killed_while_writing(tmp_path / "search")
    assert names(left) == ["half"]
    recover(tmp_path / "search")
    assert names(tmp_path) == []


def test_what_another_machine_writes_stays(tmp_path):
    left = killed_while_writing(tmp_path / "search")
    table = left.name.split(".")[2]
    theirs = left.rename(left.with_name(left.name.replace(table, table[::-1])))  # its process is not among those seen here
    with whole_directory(tmp_path / "search"):
        recover(tmp_path / "search")
    assert names(theirs) == ["half"]


def test_what_another_process_writes_stays(tmp_path):
    with whole_directory(tmp_path / "search") as first, whole_directory(tmp_path / "search") as second:
        recover(tmp_path / "search")
        assert first.is_dir()
        assert second.is_dir()


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "genotype.json").write_text("{}")
    write_manifest(tmp_path, MANIFEST)
    return tmp_path


def test_manifest_comes_back_as_it_was(stage):
    assert read_manifest(stage, "search") == MANIFEST


def test_directory_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a finished search directory .*run `adabert search` first"):
        read_manifest(tmp_path / "nowhere", "search")


def test_directory_of_another_stage_is_refused(stage):
    with pytest.raises(UserError, match="was written by search, but a retrain directory is needed here"):
        read_manifest(stage, "retrain")


def test_missing_file_is_named(stage):
    (stage / "genotype.json").unlink()
    with pytest.raises(UserError, match=r"genotype\.json is missing though manifest\.json lists it"):
        read_manifest(stage, "search")


def test_other_schema_is_refused(stage):
    write_manifest(stage, dataclasses.replace(MANIFEST, schema_version=99))
    with pytest.raises(UserError, match="has schema 99, this version reads 1"):
        read_manifest(stage, "search")


@pytest.mark.parametrize("content", ["not json", "[1]", '{"stage": "search"}', '{"stage": "search", "colour": "red"}'])
def test_unreadable_manifest_is_refused(stage, content):
    (stage / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="is not a manifest this version can read"):
        read_manifest(stage, "search")


@pytest.mark.parametrize(
    "change",
    [
        {"wall_seconds": 99.0},
        {"peak_memory_bytes": 7},
        {"package_version": "9.9"},
        {"git_sha": "fff"},
        {"metrics": {"depth": 3.0}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_does_not_depend_on_times_memory_or_versions(change):
    assert dataclasses.replace(MANIFEST, **change).digest == MANIFEST.digest


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"beta": 2.0}},
        {"files": {"genotype.json": "d2"}},
        {"parents": {"teacher": "t2"}},
        {"data_version": "x"},
        {"stage": "retrain"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_digest_depends_on_the_content(change):
    assert dataclasses.replace(MANIFEST, **change).digest != MANIFEST.digest


def test_digest_survives_the_disk(stage):
    assert read_manifest(stage, "search").digest == MANIFEST.digest


def test_files_are_listed_with_their_digests_but_for_the_manifest(stage):
    (stage / "sub").mkdir()
    (stage / "sub" / "a").write_bytes(b"abc")
    found = list_files(stage)
    assert list(found) == ["genotype.json", "sub/a"]
    assert found["sub/a"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(stage / "sub" / "a") == found["sub/a"]


def test_json_has_sorted_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [2], "b": 1}


def test_directories_of_two_runs_do_not_go_together():
    teacher = dataclasses.replace(MANIFEST, stage="finetune_teacher", parents={"dataset": "d1"})
    targets = dataclasses.replace(MANIFEST, stage="distill_targets", parents={"dataset": "d1", "teacher": teacher.digest})
    check_one_run({"teacher": teacher, "targets": targets})
    other = dataclasses.replace(targets, parents={"dataset": "d2", "teacher": teacher.digest})
    with pytest.raises(UserError, match="^distill_targets and finetune_teacher are of two runs, .* directories of dataset: "):
        check_one_run({"teacher": teacher, "targets": other})
    older = dataclasses.replace(targets, parents={"dataset": "d1", "teacher": "older"})
    with pytest.raises(UserError, match="of two runs, .* directories of teacher: "):
        check_one_run({"teacher": teacher, "targets": older})


def test_only_its_own_directory_is_replaced(tmp_path, monkeypatch):
    check_place(tmp_path / "new", "search")
    (tmp_path / "empty").mkdir()
    check_place(tmp_path / "empty", "search")
    own = tmp_path / "search"
    own.mkdir()
    write_manifest(own, MANIFEST)
    (own / "genotype.json").write_text("{}")
    check_place(own, "search")
    for rest in ("", (own / "manifest.json").read_text()[:40]):
        (own / "manifest.json").write_text(rest)
        check_place(own, "search")
    write_manifest(own, dataclasses.replace(MANIFEST, stage="retrain"))
    (tmp_path / "rows.csv").write_text("text,label")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for number, content in enumerate(('{"name": "app"}', "[1, 2]", "// comment\n{}")):
        (tmp_path / f"app{number}").mkdir()
        (tmp_path / f"app{number}" / "manifest.json").write_text(content)
    for place in ("search", "rows.csv", "notes", "link", "", "app0", "app1", "app2"):
        with pytest.raises(UserError, match="was not written by search, which would replace it"):
            check_place(tmp_path / place, "search")
    monkeypatch.chdir(tmp_path / "empty")
    for place in (".", "", "..", str(tmp_path)):
        with pytest.raises(UserError, match="is the current folder or holds it"):
            check_place(Path(place), "search")


def test_damaged_json_is_one_sentence(tmp_path):
    (tmp_path / "report.json").write_text('{"cut')
    with pytest.raises(UserError, match=r"report\.json is damaged: run the command that wrote it again"):
        read_json(tmp_path / "report.json")
