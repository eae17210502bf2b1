"""Unlabeled text among the targets: scored by the teacher, before augmented text, and a change to nothing else."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adabert_core.config import RunConfig
from adabert_core.config_file import load_run_config
from adabert_core.data.dataset import read_dataset
from adabert_core.errors import UserError
from adabert_core.runner import stage_inputs
from adabert_core.runtime import make_accelerator
from adabert_core.stages import STAGES, run_stage
from adabert_core.storage import Checkpoints
from adabert_core.target_rows import Targets, read_targets
from adabert_core.targets import check_room
from adabert_core.teacher import load_teacher
from adabert_core.tracking import Tracker
from tests.conftest import sentences
from tests.whole_run import SMOKE, settings

MORE = [text for text, _ in sentences(40, seed=77)]


def stage(name: str, config: RunConfig, output: Path) -> None:
    section = getattr(config, STAGES[name].section)
    run_stage(name, section, stage_inputs(name, output), output / name, tracker=Tracker(""), checkpoints=Checkpoints(None))


def made(output: Path, rows: Path, teacher: Path, **values: Any) -> Targets:
    """The targets of a run on some rows, with settings such as data.unlabeled as keywords with two underscores for the dot."""
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in values.items()]
    config = load_run_config(SMOKE, [value for value in settings(rows, teacher) if value != "--set"] + overrides)
    for name in ("prepare_data", "finetune_teacher", "distill_targets"):
        stage(name, config, output)
    return read_targets(output / "distill_targets")


def table(path: Path, rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, learnable_csv: Path, bert_folder: Path) -> Targets:
    return made(tmp_path_factory.mktemp("plain"), learnable_csv, bert_folder)


def test_unlabeled_text_is_scored_and_comes_before_augmented(
    plain: Targets, tmp_path: Path, learnable_csv: Path, bert_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="adabert_core")
    source = table(tmp_path / "more.csv", [("text",), *((text,) for text in MORE)])
    found = made(tmp_path, learnable_csv, bert_folder, data__unlabeled=source)
    assert re.search(r"to be scored: 40 unlabeled rows, 200 augmented rows, 0\.0 M tokens, about \d s", caplog.text)
    real, extra = plain.info["real_rows"], plain.info["augmented_rows"]
    assert found.info == {**plain.info, "unlabeled_rows": 40}
    assert "unlabeled_rows" not in plain.info
    assert found.train.labels.tolist() == plain.train.labels[:real].tolist() + [-1] * (40 + extra)
    split = read_dataset(tmp_path / "prepare_data").unlabeled()
    assert split is not None
    teacher = load_teacher(tmp_path / "finetune_teacher")
    logits = teacher.logits(teacher.collator(split), make_accelerator("cpu", "fp32"))
    np.testing.assert_allclose(found.train.teacher_logits[real : real + 40], logits, atol=0.05)  # scored in bf16 where there is
    tokens = [found.train.rows.a.take(np.array([real + i])).values.tolist() for i in range(40)]
    assert tokens == [teacher.tokenizer(text, add_special_tokens=False)["input_ids"] for text in split.text_a]
    for name in ("teacher_logits", "probe_logits"):  # all else is as it was
        with_more, without = getattr(found.train, name), getattr(plain.train, name)
        assert np.array_equal(np.delete(with_more, np.s_[real : real + 40], axis=0), without)
    assert np.isfinite(found.train.probe_logits).all()


def test_bound_keeps_the_rows_of_smallest_id(tmp_path: Path, learnable_csv: Path, bert_folder: Path) -> None:
    source = table(tmp_path / "more.csv", [("text",), *((text,) for text in MORE)])
    found = made(tmp_path, learnable_csv, bert_folder, data__unlabeled=source, targets__unlabeled_rows=7)
    assert found.info["unlabeled_rows"] == 7
    split = read_dataset(tmp_path / "prepare_data").unlabeled(7)
    assert split is not None
    teacher = load_teacher(tmp_path / "finetune_teacher")
    first = found.train.rows.a.take(np.array([found.info["real_rows"]])).values.tolist()
    assert first == teacher.tokenizer(split.text_a[0], add_special_tokens=False)["input_ids"]


def test_bound_of_zero_uses_none_of_the_text(tmp_path: Path, learnable_csv: Path, bert_folder: Path) -> None:
    source = table(tmp_path / "more.csv", [("text",), *((text,) for text in MORE)])
    found = made(tmp_path, learnable_csv, bert_folder, data__unlabeled=source, targets__unlabeled_rows=0)
    assert "unlabeled_rows" not in found.info
    assert len(found.train.labels) == found.info["real_rows"] + found.info["augmented_rows"]


def test_unlabeled_pairs_of_another_family(tmp_path: Path, roberta_folder: Path) -> None:
    texts = sentences(300, seed=5)
    pairs = [(text, texts[-1 - i][0], label) for i, (text, label) in enumerate(texts)]
    rows = table(tmp_path / "pairs.csv", [("first", "second", "label"), *pairs])
    more = table(tmp_path / "more.csv", [("first", "second"), *zip(MORE[:20], MORE[20:], strict=True)])
    values = {"data__text": "[first,second]", "data__unlabeled": more, "targets__augmented_rows": 0}
    found = made(tmp_path, rows, roberta_folder, **values)
    assert found.info["unlabeled_rows"] == 20
    assert len(found.train.rows.a) == len(found.train.rows.b) == len(found.train.labels) == found.info["real_rows"] + 20
    assert json.loads((tmp_path / "prepare_data" / "dataset.json").read_text())["counts"]["unlabeled"] == 20


def test_logits_that_do_not_fit_are_refused_with_the_cure() -> None:
    check_room(1000, 7, 1000, memory=2 * 4 * 7 * 10**6)
    with pytest.raises(UserError, match=r"1,001 texts x 7 layers x 1000 outputs need 0\.1 GB .*: lower targets\.augmented_rows"):
        check_room(1001, 7, 1000, memory=2 * 4 * 7 * 10**6)


def test_texts_that_are_cut_are_counted(plain: Targets, tmp_path: Path, learnable_csv: Path, bert_folder: Path) -> None:
    found = made(tmp_path, learnable_csv, bert_folder, teacher__max_length=8, targets__augmented_rows=0)
    metrics = json.loads((tmp_path / "distill_targets" / "manifest.json").read_text())["metrics"]
    lengths = plain.train.rows.a.lengths[: plain.info["real_rows"]]
    assert metrics["cut_train_rows"] == (lengths > 6).sum() > 0
    assert found.train.rows.a.lengths.max() == 6


def test_probes_fitted_on_some_rows_are_asked_about_all(
    plain: Targets, tmp_path: Path, learnable_csv: Path, bert_folder: Path
) -> None:
    found = made(tmp_path, learnable_csv, bert_folder, targets__probe_rows=30)
    real = plain.info["real_rows"]
    assert found.train.labels.tolist() == plain.train.labels.tolist()
    np.testing.assert_allclose(found.train.teacher_logits, plain.train.teacher_logits, atol=0.05)  # in other batches
    fewer, all_rows = found.train.probe_logits[:real], plain.train.probe_logits[:real]
    assert not np.allclose(fewer, all_rows, atol=0.05)  # fitted on fewer rows they are other probes
    agreed = (fewer[:, -1].argmax(-1) == all_rows[:, -1].argmax(-1)).mean()
    assert agreed > 0.8  # and of much the same opinion
