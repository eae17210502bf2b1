"""The search finds what was planted: tasks made so that it is known which operations can solve them.

The tasks are rows of a dozen token ids. A convolution is linear behind its ReLU and a mean over positions follows, so a
pattern needs two of them in a row; one cell has room for three.
"""

import numpy as np
import pytest
import torch

from adabert_core.config_file import parse_section
from adabert_core.runtime import make_accelerator, seed_everything
from adabert_core.search import Trace, search_structure
from adabert_core.search_space import PRIMITIVES, size_flops_costs
from adabert_core.storage import Checkpoints, FolderStore
from adabert_core.supernet import build_supernet
from adabert_core.tokens import Collator, Template
from adabert_core.tracking import Tracker

ROWS, VOCABULARY, CHANNELS = 4000, 12, 16
CONVOLUTIONS = {name for name in PRIMITIVES if "conv" in name}
WITHOUT_WEIGHTS = {"max_pool_3", "avg_pool_3", "identity"}


def distances(yes, no, length):
    """Token 2 and later token 3 in every row: the label says whether their distance is one of `yes` or of `no`."""
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(4, VOCABULARY, (ROWS, length)), rng.integers(0, 2, ROWS)
    for row, label in zip(ids, labels, strict=True):
        distance = rng.choice(yes if label else no)
        start = rng.integers(0, length - distance)
        row[start], row[start + distance] = 2, 3
    return ids.tolist(), labels


def votes():
    """Half of the tokens are 2 or 3: the label says which of them is there more often, wherever they stand."""
    rng = np.random.default_rng(0)
    ids = rng.integers(2, VOCABULARY, (ROWS, 15))
    ids = np.where(rng.random(ids.shape) < 0.5, rng.integers(2, 4, ids.shape), ids)
    return ids.tolist(), ((ids == 2).sum(1) > (ids == 3).sum(1)).astype(np.int64)


@pytest.fixture
def search(target_rows):
    def searched(data, *, steps, k_max, seed=0, checkpoints=None, **settings):
        """Returns the supernet and the trace of a search over made-up rows."""
        targets, trace = target_rows(*data), Trace()
        config = parse_section(
            "search",
            {
                "k_max": k_max,
                "channels": CHANNELS,
                "batch_size": 64,
                "optimizer": "adamw",
                "learning_rate": 1e-2,
                "learning_rate_end": 1e-3,
                "alpha_learning_rate": 2e-2,
                "alpha_weight_decay": 0.0,
                "gamma": 0.5,
                "beta": 0.0,
                "dropout": 0.0,
                **settings,
            },
        )
        generator = seed_everything(seed)
        supernet = build_supernet(
            k_max=k_max,
            channels=CHANNELS,
            num_labels=2,
            vocab_size=VOCABULARY,
            max_length=32,
            separator_id=None,
            dropout=0.0,
            generator=generator,
        )
        search_structure(
            supernet,
            Collator(targets.rows, Template((), (), (), 0, False)),
            targets,
            torch.tensor([-0.69, -0.4, -0.05]),
            config,
            steps=steps,
            costs=size_flops_costs(CHANNELS),
            trace=trace,
            accelerator=make_accelerator("cpu", "fp32"),
            generator=generator,
            tracker=Tracker(""),
            checkpoints=checkpoints or Checkpoints(None),
            checkpoint_key="search/state",
        )
        return supernet, trace

    return searched


def mass(supernet, *names):
    """Mean probability over edges of an operation; the mean of those of several."""
    probabilities = torch.softmax(supernet.alpha_c.detach(), -1).mean(0)
    return float(probabilities[[PRIMITIVES.index(name) for name in names]].mean())


def operations(supernet):
    return [operation for _, _, operation in supernet.genotype().operations]


def last_label_loss(trace):
    return float(np.mean([point["loss_labels"] for point in trace.points[-15:]]))


def test_pattern_over_seven_tokens_is_found(search):
    supernet, trace = search(distances([6], [2, 3, 4, 5, 8, 9], length=16), steps=800, k_max=1)
    assert last_label_loss(trace) < 0.2
    wide = mass(supernet, "dil_conv_5", "dil_conv_7")  # even distances only; 6 is within -4..4 and -6..6
    assert wide > 1.4 * mass(supernet, "conv_3", "conv_5", "dil_conv_3")
    assert wide > 1.4 * mass(supernet, "max_pool_3", "avg_pool_3", "identity", "zero")
    assert sum(name in {"conv_7", "dil_conv_5", "dil_conv_7"} for name in operations(supernet)) >= 2


def test_pair_of_tokens_far_apart_wants_the_widest_kernel(search):
    supernet, trace = search(distances([12], [8, 16, 18], length=24), steps=900, k_max=2)
    assert last_label_loss(trace) < 0.2
    assert mass(supernet, "dil_conv_7") > 1.4 * mass(supernet, *CONVOLUTIONS - {"dil_conv_7"})  # only -6..6 spans 12 at once
    assert "dil_conv_7" in operations(supernet)


def test_no_convolution_survives_where_order_does_not_matter(search):
    supernet, trace = search(votes(), steps=300, k_max=2, beta=0.5)
    assert set(operations(supernet)) <= WITHOUT_WEIGHTS
    assert supernet.genotype().depth == 1
    assert mass(supernet, *CONVOLUTIONS) < 0.5 * mass(supernet, *WITHOUT_WEIGHTS)
    assert last_label_loss(trace) < 0.3  # and nothing is lost


@pytest.mark.integration
def test_higher_beta_gives_cheaper_cells_and_a_large_one_the_cheapest(search):
    data = distances([6], [1, 2, 3, 4], length=16)
    # without a warm-up the efficiency loss removes every convolution before one has learned to be of use, at beta 0.05 already
    settings = {"steps": 700, "k_max": 2, "alpha_warmup_fraction": 0.4}
    found = {beta: search(data, **settings, beta=beta) for beta in (0.0, 0.05, 0.2, 0.5, 8.0)}
    costs = [trace.points[-1]["expected_cost"] for _, trace in found.values()]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 1.5 * costs[2] > 3 * costs[4]
    for beta in (0.0, 0.05):
        supernet, trace = found[beta]
        assert CONVOLUTIONS & set(operations(supernet))
        assert last_label_loss(trace) < 0.2
    dear = found[8.0][0]
    assert set(operations(dear)) <= WITHOUT_WEIGHTS
    assert dear.genotype().depth == 1


class KilledError(Exception):
    """Stands for a kill."""


class Deadly(Checkpoints):
    """Checkpoints whose process ends once a step is saved."""

    def save(self, key, state):
        super().save(key, state)
        if state["step"] == 17:
            raise KilledError


def test_killed_search_ends_with_the_structure_of_the_undisturbed_one(search, tmp_path):
    data = votes()
    settings = {"steps": 30, "k_max": 3, "alpha_warmup_fraction": 0.2}
    expected, trace = search(data, **settings)
    with pytest.raises(KilledError):
        search(data, **settings, checkpoints=Deadly(FolderStore(tmp_path), every_seconds=0))
    found, resumed = search(data, **settings, checkpoints=Checkpoints(FolderStore(tmp_path), every_seconds=0))
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in expected.state_dict().items())
    assert resumed.points == trace.points
    assert [point["step"] for point in trace.points] == list(range(30))


def test_same_seed_gives_the_same_genotype_and_another_seed_other_alphas(search):
    data = votes()
    first, again, other = (search(data, steps=20, k_max=2, seed=seed)[0] for seed in (4, 4, 5))
    assert first.genotype().to_json() == again.genotype().to_json()
    assert torch.equal(first.alpha_c, again.alpha_c)
    assert not torch.equal(first.alpha_c, other.alpha_c)
