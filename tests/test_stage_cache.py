"""What is computed again and what is not: in the same folder, in another one with a stage cache, and after changes outside."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from adabert_core.artifacts import list_files, read_manifest
from adabert_core.config import RunConfig
from adabert_core.config_file import load_run_config
from adabert_core.entry import fingerprint_component
from adabert_core.errors import UserError
from adabert_core.runner import run_all, stage_inputs
from adabert_core.stage_cache import StageCache
from adabert_core.stages import STAGES, is_done, run_stage
from adabert_core.storage import Checkpoints
from adabert_core.teacher_source import teacher_content
from adabert_core.tracking import Tracker
from pipelines.local_run import collect
from tests.conftest import killed_while_writing, replace_weights
from tests.whole_run import SMOKE, settings

NAMES = ("prepare_data", "finetune_teacher", "distill_targets")
KEPT = NAMES[1:]


@pytest.fixture(scope="module")
def config(learnable_csv: Path, bert_folder: Path) -> RunConfig:
    return load_run_config(SMOKE, [value for value in settings(learnable_csv, bert_folder) if value != "--set"])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> Path:
    """The first stages of a run, kept in the folder `cache` beside it."""
    output = tmp_path_factory.mktemp("runs") / "first"
    run(config, output, output.parent / "cache")
    return output


def run(config: RunConfig, output: Path, cache: Path | None = None) -> list[str]:
    """Does the first stages as `run_all` does all, and returns the names of those that were not done yet."""
    call = StageCache(str(cache)).run_stage if cache else run_stage
    names = []
    for name in NAMES:
        section, inputs = getattr(config, STAGES[name].section), stage_inputs(name, output)
        if not is_done(name, section, inputs, output / name):
            call(name, section, inputs, output / name, tracker=Tracker(""), checkpoints=Checkpoints(None))
            names.append(name)
    return names


def digests(run: Path) -> dict[str, str]:
    return {stage: read_manifest(run / stage, stage).digest for stage in KEPT}


def started(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message.removesuffix(": started") for message in caplog.messages if message.endswith(": started")]


def test_another_folder_gets_the_kept_stages(
    first: Path, tmp_path: Path, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="adabert_core")
    assert run(config, tmp_path / "second", first.parent / "cache") == list(NAMES)
    assert digests(tmp_path / "second") == digests(first)
    assert started(caplog) == ["prepare_data"]
    assert run(config, tmp_path / "second") == []  # what was taken is as good as what was made here


def test_stage_with_a_damaged_file_is_not_done(
    first: Path, tmp_path: Path, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(first, tmp_path / "second")
    rows = tmp_path / "second" / "prepare_data" / "test.parquet"
    rows.write_bytes(rows.read_bytes()[:-1])
    (tmp_path / "second" / "finetune_teacher" / "notes.txt").write_text("mine")  # more than was written is no damage
    assert run(config, tmp_path / "second") == ["prepare_data"]  # what was made of it is as it was
    assert (tmp_path / "second" / "finetune_teacher" / "notes.txt").is_file()
    assert "prepare_data: a file of" in caplog.text
    assert digests(tmp_path / "second") == digests(first)


def test_another_seed_is_another_result(first: Path, tmp_path: Path, config: RunConfig) -> None:
    shutil.copytree(first.parent / "cache", tmp_path / "cache")
    other = dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, seed=1))
    run(other, tmp_path / "other", tmp_path / "cache")
    assert not set(digests(tmp_path / "other").values()) & set(digests(first).values())
    assert [len(list((tmp_path / "cache" / stage).iterdir())) for stage in KEPT] == [2, 2]


@pytest.mark.parametrize("damage", ["changed byte", "missing file"])
def test_damaged_entry_is_thrown_away_and_computed_again(
    damage: str, first: Path, tmp_path: Path, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(first.parent / "cache", tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "distill_targets").iterdir()
    logits = kept / "train" / "teacher_logits.npy"
    if damage == "changed byte":
        logits.write_bytes(logits.read_bytes()[:-1] + b"\x01")
    else:
        logits.unlink()
    caplog.set_level("INFO", logger="adabert_core")
    run(config, tmp_path / "again", tmp_path / "cache")
    assert "is damaged and not used" in caplog.text
    assert started(caplog) == ["prepare_data", "distill_targets"]
    assert digests(tmp_path / "again") == digests(first)
    assert list_files(kept) == list_files(first / "distill_targets")  # it is whole again


def test_killed_writer_leaves_no_entry(first: Path, tmp_path: Path, config: RunConfig) -> None:
    shutil.copytree(first.parent / "cache", tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "finetune_teacher").iterdir()
    shutil.rmtree(kept)
    killed_while_writing(kept)
    run(config, tmp_path / "run", tmp_path / "cache")
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert digests(tmp_path / "run") == digests(first)


def test_place_that_fails_costs_the_entry_and_not_the_run(
    first: Path, tmp_path: Path, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "finetune_teacher").touch()  # no folder can be made in a file
    run(config, tmp_path / "run", cache)
    assert "was not kept in" in caplog.text
    assert digests(tmp_path / "run") == digests(first)
    assert len(list((cache / "distill_targets").iterdir())) == 1


def test_place_that_cannot_be_a_cache_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--stage-cache /proc/nowhere cannot be written"):
        run_all(RunConfig(), tmp_path / "run", stage_cache="/proc/nowhere")
    with pytest.raises(UserError, match="--stage-cache s3://bucket/cache: only a folder"):
        run_all(RunConfig(), tmp_path / "run", stage_cache="s3://bucket/cache")


def test_teacher_changed_behind_its_path_is_trained_again(tmp_path: Path, config: RunConfig, bert_folder: Path) -> None:
    teacher, output = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(bert_folder, teacher)
    config = dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, model=str(teacher)))
    assert run(config, output) == list(NAMES)
    before = read_manifest(output / "finetune_teacher", "finetune_teacher")
    shutil.copytree(bert_folder, teacher, dirs_exist_ok=True, copy_function=shutil.copyfile)  # the same bytes, written again
    assert run(config, output) == []
    replace_weights(teacher)
    assert run(config, output) == ["finetune_teacher", "distill_targets"]
    after = read_manifest(output / "finetune_teacher", "finetune_teacher")
    assert (after.config, after.parents) == (before.config, before.parents)
    assert after.digest != before.digest


def test_tasks_of_the_dag_are_told_of_both_and_their_directories_chosen_by_both(
    first: Path, tmp_path: Path, config: RunConfig, bert_folder: Path
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(bert_folder, teacher)
    data = {"source": config.data.source}
    version = read_manifest(first / "prepare_data", "prepare_data").data_version
    assert fingerprint_component(data, {"model": "builtin:minilm"}) == version
    before = fingerprint_component(data, {"model": str(teacher)})
    assert before == f"{version}-{teacher_content(str(teacher))}"
    config = dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, model=str(teacher)))
    run(config, tmp_path / "tasks" / "old")
    replace_weights(teacher)
    assert fingerprint_component(data, {"model": str(teacher)}) not in (before, version)
    collect(tmp_path / "tasks", tmp_path, config)
    assert not (tmp_path / "finetune_teacher").exists()  # that of the old weights would be wrong
    run(config, tmp_path / "tasks" / "new")
    shutil.copytree(bert_folder, teacher, dirs_exist_ok=True)
    collect(tmp_path / "tasks", tmp_path, config)
    assert digests(tmp_path) == digests(tmp_path / "tasks" / "old") != digests(tmp_path / "tasks" / "new")


def test_rows_changed_behind_their_path_are_prepared_again(tmp_path: Path, config: RunConfig, learnable_csv: Path) -> None:
    source, output = tmp_path / "rows.csv", tmp_path / "run"
    source.write_bytes(learnable_csv.read_bytes())
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=str(source)))
    assert run(config, output) == list(NAMES)
    source.write_bytes(learnable_csv.read_bytes())
    assert run(config, output) == []
    source.write_bytes(learnable_csv.read_bytes() + b"a new film,good\n")
    assert run(config, output) == list(NAMES)
    source.unlink()
    with pytest.raises(UserError, match=r"rows\.csv: no such file"):
        run(config, output)


def test_content_of_a_teacher_is_that_of_the_files_that_are_loaded(tmp_path: Path, bert_folder: Path) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(bert_folder, folder)
    content = teacher_content(str(folder))
    assert len(content) == 16
    os.utime(folder / "model.safetensors", (0, 0))
    (folder / ".cache").mkdir()
    (folder / ".gitattributes").touch()
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"not loaded")
    assert teacher_content(str(folder)) == content
    (folder / "tokenizer_config.json").write_text("{}")
    assert teacher_content(str(folder)) != content
    assert teacher_content("builtin:minilm") == teacher_content("bert-base-uncased") == ""
