"""The moving average of a student's weights: what it remembers, and that a short training remembers less."""

from types import SimpleNamespace

import pytest
import torch
from test_peers import VOCABULARY, votes

from adabert_core.config import RetrainConfig
from adabert_core.search_space import Genotype
from adabert_core.storage import Checkpoints
from adabert_core.student_training import train_student
from adabert_core.target_rows import Targets
from adabert_core.teacher import Teacher
from adabert_core.tokens import Template
from adabert_core.tracking import Tracker

STEPS = 8  # the average takes in the weights after four of them and after all


def trained(target_rows, ema_decay):
    """The weights of a small network after eight steps, averaged with that decay, as one vector."""
    info = {"labels": ["no", "yes"], "metric": "accuracy", "probe_log_likelihood": [-0.7, -0.4, -0.1]}
    config = RetrainConfig(
        min_steps=STEPS,
        max_steps=STEPS,
        batch_size=32,
        learning_rate=0.05,
        evaluations=1,
        architecture="static_linear",
        precision="fp32",
        ema_decay=ema_decay,
    )
    student, _ = train_student(
        Genotype(0, ()),
        Teacher(
            SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(VOCABULARY, 4)),
            None,
            Template((), (), (), 0, False),
            32,
            False,
        ),
        Targets(info, target_rows(*votes(400, 0)), target_rows(*votes(40, 1)), {}),
        config,
        channels=8,
        supernet=None,
        tracker=Tracker(""),
        checkpoints=Checkpoints(None),
        checkpoint_key="student",
        evaluate=False,
    )
    return torch.nn.utils.parameters_to_vector(student.network.parameters()).detach().double()


def test_average_remembers_by_its_decay_and_no_more_than_a_training_of_its_length_allows(target_rows):
    last, short, bound, beyond = (trained(target_rows, decay) for decay in (0.0, 0.4, 8 / 18, 0.999))
    assert (last - short).abs().max() > 1e-4
    remembered = ((last - bound) @ (last - short)) / (last - short).square().sum()
    assert remembered.item() == pytest.approx((8 / 18) ** 4 / 0.4**4, rel=1e-3)  # four steps between what it takes in
    assert torch.equal(bound, beyond)
