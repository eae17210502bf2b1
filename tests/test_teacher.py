"""Families that a teacher may be of, and what is refused before anything is trained."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adabert_core.errors import UserError
from adabert_core.runtime import make_accelerator
from adabert_core.teacher import new_teacher, vocabulary_of
from adabert_core.vectors import word_vectors

LABELS = ["bad", "good"]


def test_an_encoder_with_a_decoder_is_refused_when_it_is_made(family: Callable[[str], str]) -> None:
    with pytest.raises(UserError, match="does not give the states of its layers"):
        new_teacher(family("Bart"), LABELS, False, 32)


def test_a_family_without_bound_on_positions_reads_as_much_as_is_asked_for(family: Callable[[str], str]) -> None:
    assert new_teacher(family("XLNet"), LABELS, False, 300).max_length == 300


@pytest.mark.parametrize("place", ["prefix", "suffix"])
def test_a_teacher_without_a_mark_before_or_after_a_text_gives_word_vectors(place: str, bert_folder: Path) -> None:
    teacher = new_teacher(str(bert_folder), LABELS, False, 32)
    teacher.template = dataclasses.replace(teacher.template, **{place: ()})
    counts = np.ones(vocabulary_of(teacher))
    assert len(word_vectors(teacher, counts, make_accelerator("cpu", "fp32"))["word"]) == len(counts)


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", None], ids=["pointer", "cut off"])
def test_weights_that_are_not_whole_are_refused(content: bytes | None, bert_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(bert_folder, tmp_path / "teacher")
    weights = tmp_path / "teacher" / "model.safetensors"
    weights.write_bytes(content or weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="teacher cannot be loaded"):
        new_teacher(str(tmp_path / "teacher"), LABELS, False, 32)
