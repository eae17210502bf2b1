import dataclasses
import random

import pytest

from adabert_core import trials
from adabert_core.config import RetrainConfig
from adabert_core.search_space import deployed_products, random_genotype
from adabert_core.storage import Checkpoints
from adabert_core.trials import Trial, choose_by_trials

RNG = random.Random(0)
FAVOURITE, SECOND, THIRD = (random_genotype(RNG, 4) for _ in range(3))


def choose(monkeypatch, losses, price=0.0, **settings):
    """Runs the choice with trials that give `losses(cell, steps)`, and records their order."""
    order = []

    def run_trial(genotype, trial, checkpoints, key):
        steps, loss = trial.config.max_steps, losses(genotype, trial.config.max_steps)
        assert trial.config.min_steps == steps  # however few rows there are
        order.append((genotype.operations, genotype.depth, steps))
        return {"log_loss": loss, "objective": loss + trial.price * deployed_products(genotype, pair=False), "key": key}

    monkeypatch.setattr(trials, "run_trial", run_trial)
    trial = Trial(None, None, RetrainConfig(min_steps=250, max_steps=250), 8, price)
    options = {"k_max": 3, "finalists": 2, "final_steps": 600, "checkpoints": Checkpoints(None), "checkpoint_key": "t"}
    chosen, found = choose_by_trials([FAVOURITE, SECOND, THIRD], trial, **{**options, **settings})
    return chosen, found, order


def short_run(genotype):
    return {FAVOURITE.operations: 0.30, SECOND.operations: 0.32, THIRD.operations: 0.31}[genotype.operations] + abs(
        genotype.depth - 2
    )


def test_favourite_gets_shallower_as_long_as_that_helps_and_the_others_have_its_best_depth(monkeypatch):
    _, _, order = choose(monkeypatch, lambda genotype, steps: short_run(genotype), k_max=4)
    tried = [(operations, depth) for operations, depth, steps in order if steps == 250]
    assert tried == [(FAVOURITE.operations, k) for k in (4, 3, 2, 1)] + [(SECOND.operations, 2), (THIRD.operations, 2)]
    _, _, order = choose(monkeypatch, lambda genotype, steps: short_run(genotype), k_max=2)
    assert [depth for operations, depth, _ in order if operations == FAVOURITE.operations] == [2, 1, 2]


def test_the_best_two_are_tried_longer_and_that_decides(monkeypatch):
    def losses(genotype, steps):
        late = {FAVOURITE.operations: 0.29, THIRD.operations: 0.28}
        return late[genotype.operations] if steps == 600 else short_run(genotype)

    chosen, found, order = choose(monkeypatch, losses)
    assert order[-2:] == [(FAVOURITE.operations, 2, 600), (THIRD.operations, 2, 600)]
    assert (chosen.operations, chosen.depth) == (THIRD.operations, 2)
    keys = [trial["key"] for trial in found]
    assert len(set(keys)) == len(keys) == 7  # one result of each structure and number of steps
    _, again, _ = choose(monkeypatch, losses, finalists=1)
    assert [trial["key"] for trial in again] == keys[:-2]


def test_one_finalist_needs_no_longer_trial(monkeypatch):
    chosen, found, _ = choose(monkeypatch, lambda genotype, steps: short_run(genotype), finalists=1)
    assert (chosen.operations, chosen.depth, len(found)) == (FAVOURITE.operations, 2, 5)


@pytest.mark.parametrize("finalists", [1, 2])
def test_price_does_not_decide_on_the_depth(monkeypatch, finalists):
    chosen, _, _ = choose(
        monkeypatch, lambda genotype, steps: 0.3 - 0.004 * genotype.depth, price=0.01 / 40, k_max=4, finalists=finalists
    )
    assert chosen.depth == 4


def test_only_what_answers_in_time_is_tried_and_others_get_shallower_until_they_do(monkeypatch):
    longest = {FAVOURITE.operations: 2, SECOND.operations: 1, THIRD.operations: 0}  # cells in time
    chosen, _, order = choose(
        monkeypatch, lambda genotype, steps: 0.3, fits=lambda genotype: genotype.depth <= longest[genotype.operations]
    )
    assert [depth for operations, depth, _ in order if operations == FAVOURITE.operations] == [2, 1, 2]
    assert {depth for operations, depth, _ in order if operations == SECOND.operations} == {1}
    assert THIRD.operations not in {operations for operations, _, _ in order}
    assert chosen.depth <= longest[chosen.operations]


def test_another_cell_is_taken_where_the_favourite_is_never_in_time_and_one_cell_where_nothing_is(monkeypatch):
    fits = {SECOND.operations: 2}
    chosen, _, _ = choose(
        monkeypatch,
        lambda genotype, steps: 0.1 if genotype.operations == FAVOURITE.operations else 0.3,
        fits=lambda genotype: genotype.depth <= fits.get(genotype.operations, 0),
    )
    assert (chosen.operations, chosen.depth) == (SECOND.operations, 2)
    chosen, _, _ = choose(monkeypatch, lambda genotype, steps: 0.3, fits=lambda genotype: False)
    assert (chosen.operations, chosen.depth) == (FAVOURITE.operations, 1)
    odd = {"fits": lambda genotype: genotype == dataclasses.replace(FAVOURITE, depth=2)}  # one cell was timed on a busy machine
    chosen, _, _ = choose(monkeypatch, lambda genotype, steps: 0.1 * genotype.depth, **odd)
    assert (chosen.operations, chosen.depth) == (FAVOURITE.operations, 2)


def test_cells_are_compared_with_their_cost_but_depths_without(monkeypatch):
    cheapest = min((FAVOURITE, SECOND, THIRD), key=lambda cell: deployed_products(cell, pair=False))
    chosen, _, order = choose(monkeypatch, lambda genotype, steps: 0.3 - 0.01 * genotype.depth, price=0.1)
    assert {depth for operations, depth, _ in order if operations != FAVOURITE.operations} == {3}
    assert [depth for _, depth, steps in order if steps == 600] == [3, 3]
    assert (chosen.operations, chosen.depth) == (cheapest.operations, 3)
