import numpy as np
import pytest
import torch

from adabert_core.probes import Probes, fit_probes, pool_states


def test_pooling_takes_the_first_position_but_for_the_embeddings():
    embeddings = torch.tensor([[[1.0, 10.0], [3.0, 20.0], [100.0, 100.0]], [[4.0, 8.0], [5.0, 5.0], [6.0, 6.0]]])
    layer = embeddings + 0.5
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    pooled = pool_states((embeddings, layer), mask, "cls")
    assert pooled.tolist() == [[[2.0, 15.0], [1.5, 10.5]], [[4.0, 8.0], [4.5, 8.5]]]


def test_mean_pooling_takes_real_positions_of_every_layer():
    embeddings = torch.tensor([[[1.0], [3.0], [100.0]]])
    pooled = pool_states((embeddings, embeddings * 2, embeddings * 3), torch.tensor([[1, 1, 0]]), "mean")
    assert pooled.tolist() == [[[2.0], [4.0], [6.0]]]


def test_probe_is_one_linear_map_per_layer():
    probes = Probes(torch.tensor([[[1.0, 2.0]], [[10.0, 20.0]]]), torch.tensor([[0.5, 0.0], [0.0, -1.0]]))
    assert probes(torch.tensor([[[3.0], [4.0]]])).tolist() == [[[3.5, 6.0], [40.0, 79.0]]]


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_layer_is_learned_and_noise_is_not(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 3000)
    states = rng.normal(size=(3000, 3, 8)).astype(np.float32)
    states[:, 1] += 50 + 4 * np.eye(8)[labels]  # far from the origin, as hidden states are
    states[:, 2] *= 1e-3
    states[:, 2] += 5e-3 * np.eye(8)[labels]  # small in scale
    fit, held_out = slice(0, 2000), slice(2000, 3000)
    probes = fit_probes(states[fit], labels[fit], classes, epochs=20, batch_size=64, generator=torch.Generator().manual_seed(0))
    answers = probes(torch.from_numpy(states[held_out])).argmax(-1).numpy()
    accuracy = (answers == labels[held_out][:, None]).mean(0)
    assert accuracy[0] < 1 / classes + 0.06
    assert accuracy[1] > 0.97
    assert accuracy[2] > 0.97


def test_same_generator_gives_the_same_probes():
    states = np.random.default_rng(0).normal(size=(300, 2, 4)).astype(np.float32)
    labels = np.arange(300) % 2
    first, second = (
        fit_probes(states, labels, 2, epochs=2, batch_size=32, generator=torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_probes_are_constants():
    states = np.random.default_rng(0).normal(size=(64, 2, 4)).astype(np.float16)
    probes = fit_probes(states, np.arange(64) % 2, 2, epochs=1, generator=torch.Generator())
    assert not probes.weight.requires_grad
    assert not probes.bias.requires_grad
    assert probes.weight.shape == (2, 4, 2)
