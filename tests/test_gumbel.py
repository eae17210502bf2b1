import math

import pytest
import torch

from adabert_core.gumbel import anneal, sample


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_draws_are_one_hot():
    draws = sample(torch.randn(200, 9, 10, generator=seeded(1)), 0.7, seeded())
    assert torch.equal(draws.detach().round(), draws.detach().round().clamp(0, 1))
    torch.testing.assert_close(draws.detach(), draws.detach().round(), atol=1e-6, rtol=0)
    assert torch.equal(draws.detach().round().sum(-1), torch.ones(200, 9))


def test_gradient_reaches_every_logit_of_every_edge():
    logits = torch.zeros(9, 10, requires_grad=True)
    draws = sample(logits, 1.0, seeded())
    (draws * torch.arange(10.0)).sum().backward()
    assert (logits.grad.abs() > 1e-6).all()


def test_gradient_is_that_of_the_soft_draw():
    logits = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    draws = sample(logits, 0.5, seeded(3))
    draws[0].backward()
    uniform = torch.rand(3, generator=seeded(3)).tolist()
    powers = [math.exp((a - math.log(-math.log(u))) / 0.5) for a, u in zip([0.5, -1.0, 2.0], uniform, strict=True)]
    soft = [power / sum(powers) for power in powers]
    assert draws.detach().argmax() == soft.index(max(soft))
    expected = [soft[0] * ((j == 0) - soft[j]) / 0.5 for j in range(3)]
    assert logits.grad.tolist() == pytest.approx(expected, rel=1e-4)


def test_same_seed_gives_the_same_draws_and_another_seed_others():
    logits = torch.zeros(50, 10)
    assert torch.equal(sample(logits, 1.0, seeded(5)), sample(logits, 1.0, seeded(5)))
    assert not torch.equal(sample(logits, 1.0, seeded(5)), sample(logits, 1.0, seeded(6)))
    generator = seeded(5)
    assert not torch.equal(sample(logits, 1.0, generator), sample(logits, 1.0, generator))


@pytest.mark.parametrize("tau", [1.0, 0.2])
def test_frequencies_are_the_softmax_at_any_temperature(tau):
    logits = torch.tensor([0.5, 0.2, 0.3]).log()
    found = sample(logits.expand(40_000, 3), tau, seeded()).mean(0)
    assert found.tolist() == pytest.approx([0.5, 0.2, 0.3], abs=0.01)


def test_lower_temperature_gives_harder_gradients():
    norms = []
    for tau in (1.0, 0.1):
        logits = torch.zeros(1000, 4, requires_grad=True)
        (sample(logits, tau, seeded()) * torch.arange(4.0)).sum().backward()
        norms.append(float((logits.grad * tau).abs().mean()))
    assert norms[1] < 0.5 * norms[0]  # beside the factor 1 / tau the soft draw is nearly one-hot


def test_temperature_falls_geometrically_over_four_fifths():
    assert anneal(0, 100, 1.0, 0.2) == 1.0
    assert anneal(40, 100, 1.0, 0.2) == pytest.approx(0.4472136)
    assert anneal(80, 100, 1.0, 0.2) == pytest.approx(0.2)
    assert anneal(99, 100, 1.0, 0.2) == pytest.approx(0.2)
    steps = [anneal(step, 100, 1.0, 0.1) for step in range(81)]
    assert all(later < earlier for earlier, later in zip(steps, steps[1:], strict=False))
    assert anneal(0, 1, 1.0, 0.2) == 1.0
