"""Families that a teacher may be of, and what is refused before anything is trained."""

from collections.abc import Callable

import pytest

from adabert_core.errors import UserError
from adabert_core.teacher import new_teacher

LABELS = ["bad", "good"]


def test_an_encoder_with_a_decoder_is_refused_when_it_is_made(family: Callable[[str], str]) -> None:
    with pytest.raises(UserError, match="does not give the states of its layers"):
        new_teacher(family("Bart"), LABELS, False, 32)


def test_a_family_without_bound_on_positions_reads_as_much_as_is_asked_for(family: Callable[[str], str]) -> None:
    assert new_teacher(family("XLNet"), LABELS, False, 300).max_length == 300
