import contextlib

import numpy as np
import pytest
import torch

from adabert_core import training
from adabert_core.runtime import make_accelerator
from adabert_core.storage import Checkpoints, FolderStore
from adabert_core.tracking import Tracker
from adabert_core.training import LengthBuckets, fit, total_steps

STEPS = 12
LENGTHS = np.random.default_rng(0).integers(2, 40, 50)


class KilledError(Exception):
    """Stands for a kill."""


class Ticks:
    """A clock that moves one second a look."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def train(store=None, *, killed_at=None, every_seconds=0.0, drawn=None):
    """Trains a small net whose losses draw from torch's and the loop's generator; returns its weights and losses.

    `drawn` takes a number that torch draws at each step.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    table = torch.randn(50, 4, generator=torch.Generator().manual_seed(2))
    losses = {}

    def loss(index, step):
        if step == killed_at:
            raise KilledError
        if drawn is not None:
            drawn[step] = torch.rand(()).item()
        noise = torch.randn(len(index), 4, generator=generator)
        value = (model(table[index] + noise) - 1).square().mean()
        losses[step] = value.item()
        return value, {"step_seen": step}

    def apply(step):
        optimizer.step()
        schedule.step()

    fit(
        label="test",
        steps=STEPS,
        batches=LengthBuckets(LENGTHS, 8, seed=3),
        loss=loss,
        apply=apply,
        state={"model": model, "optimizer": optimizer, "schedule": schedule},
        optimizers=[optimizer],
        accelerator=make_accelerator("cpu", "fp32"),
        generator=generator,
        tracker=Tracker(""),
        checkpoints=Checkpoints(store, every_seconds, clock=Ticks()),
        checkpoint_key="here/state",
    )
    return model.state_dict(), losses


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "min_steps", "max_steps", "expected"),
    [
        (100, 32, 3, 0, None, 12),
        (100, 32, 3, 50, None, 50),
        (100, 32, 3, 50, 20, 20),
        (100, 32, 3, 0, 100, 12),
        (1, 32, 1, 0, 1, 1),
    ],
)
def test_total_steps_are_epochs_within_bounds(rows, batch_size, epochs, min_steps, max_steps, expected):
    assert total_steps(rows, batch_size, epochs, min_steps, max_steps) == expected


def test_every_row_comes_once_an_epoch():
    buckets = LengthBuckets(LENGTHS, 8, seed=0)
    assert buckets.per_epoch == 7
    for epoch in range(3):
        rows = np.concatenate([buckets.batch(epoch * 7 + i) for i in range(7)])
        assert sorted(rows.tolist()) == list(range(50))


def test_order_is_fixed_by_the_seed_and_differs_between_epochs_and_seeds():
    first, again, other = (LengthBuckets(LENGTHS, 8, seed=seed) for seed in (0, 0, 1))
    order = [again.batch(step).tolist() for step in reversed(range(14))][::-1]  # asked for in any order
    assert [first.batch(step).tolist() for step in range(14)] == order
    assert [other.batch(step).tolist() for step in range(7)] != order[:7]
    assert order[:7] != order[7:]


def test_all_batches_but_the_rest_of_each_length_have_one_length():
    lengths = np.random.default_rng(0).integers(1, 30, 4000)
    buckets = LengthBuckets(lengths, 32, seed=0)
    spans = [np.ptp(lengths[buckets.batch(step)]) for step in range(buckets.per_epoch)]
    rest = sum(count % 32 for count in np.bincount(lengths))
    assert spans.count(0) >= buckets.per_epoch - -(-rest // 32)
    assert max(spans) <= 6  # and the rest is in the order of its lengths
    means = [lengths[buckets.batch(step)].mean() for step in range(buckets.per_epoch)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5  # but the batches themselves are shuffled


@pytest.mark.parametrize("killed_at", [0, 1, 5, 11])
def test_killed_and_started_again_it_ends_where_the_undisturbed_one_does(tmp_path, killed_at):
    weights, losses = train()
    with pytest.raises(KilledError):
        train(FolderStore(tmp_path), killed_at=killed_at)
    resumed, later = train(FolderStore(tmp_path))
    assert later == {step: losses[step] for step in range(killed_at, STEPS)}
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())


def test_steps_after_the_last_checkpoint_are_repeated_alike(tmp_path):
    weights, losses = train()
    for killed_at in (5, 10):
        with pytest.raises(KilledError):
            train(FolderStore(tmp_path), killed_at=killed_at, every_seconds=3)
    resumed, later = train(FolderStore(tmp_path))
    assert 5 < min(later) < 10  # an old checkpoint of the second life, not a state of the moment it was killed
    assert later == {step: losses[step] for step in range(min(later), STEPS)}
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())


def test_finished_training_is_not_run_again(tmp_path):
    weights, _ = train(FolderStore(tmp_path))
    again, losses = train(FolderStore(tmp_path))
    assert losses == {}
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())


def test_each_of_two_processes_draws_its_own_numbers_and_the_same_after_a_resume(tmp_path, monkeypatch):
    def draws(rank, store=None, killed_at=None):
        found = {}
        monkeypatch.setattr(training, "rank_and_size", lambda: (rank, 2))
        with contextlib.suppress(KilledError):
            train(store, killed_at=killed_at, drawn=found)
        return found

    first, second = draws(0), draws(1)
    assert not set(first.values()) & set(second.values())
    draws(0, FolderStore(tmp_path), killed_at=7)  # the first process alone writes checkpoints
    resumed = draws(1, FolderStore(tmp_path))
    assert 0 < len(resumed) < STEPS
    assert resumed.items() <= second.items()
