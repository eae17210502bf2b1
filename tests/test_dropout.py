"""Dropout by four chances a draw: the same distribution as torch's, the same gradients' shape, nothing while evaluating."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from adabert_core.dropout import Dropout, replace_dropout


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.99])
def test_elements_are_dropped_with_the_wanted_probability_and_the_mean_stays(p):
    torch.manual_seed(0)
    count = 1_000_003  # not a multiple of the four numbers of a draw
    found = Dropout(p)(torch.ones(count))
    deviation = (p * (1 - p) / count) ** 0.5
    assert abs(float((found == 0).float().mean()) - p) < 5 * deviation + 2**-17
    assert torch.allclose(found[found != 0], torch.tensor(1 / (1 - p)))


def test_neighbours_are_dropped_independently():
    """The four numbers of one draw must not go together."""
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).float().view(-1, 4)
    correlation = torch.corrcoef(dropped.T)
    assert (correlation - torch.eye(4)).abs().max() < 0.02


def test_gradients_pass_where_values_do():
    x = torch.randn(64, 32, requires_grad=True)
    found = Dropout(0.3)(x)
    found.sum().backward()
    assert torch.equal(x.grad == 0, found == 0)
    assert torch.allclose(x.grad[x.grad != 0], torch.tensor(1 / 0.7))


def test_the_same_seed_drops_the_same_elements_in_any_precision():
    masks = []
    for kind in (torch.float32, torch.bfloat16):
        torch.manual_seed(3)
        found = Dropout(0.2)(torch.ones(7, 5, dtype=kind))
        assert found.dtype == kind
        masks.append(found == 0)
    assert torch.equal(*masks)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_are_torchs(p):
    x = torch.randn(50)
    assert torch.equal(Dropout(p)(x), nn.Dropout(p)(x))


def test_nothing_is_dropped_while_evaluating():
    x = torch.randn(50)
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_a_models_dropout_layers_are_replaced_and_nothing_else():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=50, hidden_dropout_prob=0.25, **sizes))
    names = list(model.state_dict())
    before = [name for name, module in model.named_modules() if type(module) is nn.Dropout]
    replace_dropout(model)
    found = {name: module for name, module in model.named_modules() if type(module) is Dropout}
    assert [*found] == before
    assert len(before) > 4
    assert found["bert.embeddings.dropout"].p == 0.25
    assert list(model.state_dict()) == names
