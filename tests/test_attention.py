"""The attention of a teacher on a CPU: transformers' own answers and gradients, whatever the length and the padding."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from adabert_core import attention
from adabert_core.attention import replace_attention
from adabert_core.runtime import make_accelerator
from adabert_core.scoring import scoring_model

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def models(**dropout: float) -> tuple[BertForSequenceClassification, BertForSequenceClassification]:
    torch.manual_seed(0)
    own = BertForSequenceClassification(BertConfig(vocab_size=50, **_SIZES, **dropout))
    other = BertForSequenceClassification(BertConfig(vocab_size=50, **_SIZES, **dropout))
    other.load_state_dict(own.state_dict())
    replace_attention(other)
    assert own.config._attn_implementation == "sdpa" != other.config._attn_implementation
    return own, other


def batch(length: int, padded: bool) -> dict[str, torch.Tensor]:
    ids = torch.randint(4, 50, (3, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("length", [2, 15, 16, 17, 40])
def test_answers_are_those_of_sdpa(length, padded):
    own, other = models()
    with torch.no_grad():
        given = batch(length, padded)
        assert torch.allclose(own.eval()(**given).logits, other.eval()(**given).logits, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_gradients_are_those_of_sdpa_where_next_to_nothing_is_dropped(padded):
    """A probability below a 65,536th's half drops nothing here, yet takes the way of training."""
    own, other = models(attention_probs_dropout_prob=1e-7, hidden_dropout_prob=0.0)
    for model in (own, other):
        model.train()(**batch(11, padded), labels=torch.tensor([0, 1, 1])).loss.backward()
    for (name, expected), found in zip(own.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(expected.grad, found.grad, atol=1e-5), name


def test_weights_are_dropped_while_training():
    _, model = models(attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    given = batch(11, padded=True)
    with torch.no_grad():
        expected = model.eval()(**given, output_hidden_states=True).hidden_states[1]
        model.train()
        found = torch.stack([model(**given, output_hidden_states=True).hidden_states[1] for _ in range(2)])
    assert not torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], expected)


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_a_plain_model_does_not_fall_back_to_sdpa(padded, monkeypatch):
    _, model = models()
    monkeypatch.setattr(attention, "sdpa_attention_forward", None)  # a call would fail
    for mode in (True, False):
        model.train(mode)(**batch(21, padded))


def test_a_mask_that_is_added_to_the_scores_still_counts():
    """A mask of numbers, as a model of one's own may make: more keys behind it must not be let in by zeros."""
    query, key, value = torch.randn(3, 2, 1, 5, 8).unbind()
    mask = torch.zeros(2, 1, 5, 5)
    mask[1, ..., 3:] = torch.finfo(torch.float32).min
    module = torch.nn.Module().eval()
    module.is_causal = False
    found, _ = attention.attend(module, query, key, value, mask)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("family", ["mpnet", "roberta", "distilbert", "modernbert", "gpt2", "llama"])
def test_any_family_answers_as_before(family, padded):
    """Some do their attention themselves, some look at near words only, look back only or share keys among heads."""
    model, given = classifier(family), batch(21, padded)
    with torch.no_grad():
        expected = model(**given).logits
        replace_attention(model)
        assert torch.allclose(model(**given).logits, expected, atol=1e-5)


@pytest.mark.parametrize("family", ["mpnet", "roberta", "distilbert", "modernbert", "gpt2", "llama"])
def test_a_copy_that_scores_in_bf16_answers_nearly_as_the_model_and_leaves_it_alone(family):
    model, given = classifier(family), batch(21, padded=True)
    with torch.no_grad():
        expected = model(**given).logits
        found = scoring_model(model, make_accelerator("cpu", "bf16"))(**given).logits
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.float(), expected, atol=0.03 * float(expected.abs().max()))
        assert torch.equal(model(**given).logits, expected)


def classifier(family: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=50, pad_token_id=1, **_FAMILIES[family])
    return AutoModelForSequenceClassification.from_config(config).eval()


_FAMILIES: dict[str, dict[str, Any]] = {
    "mpnet": _SIZES,
    "roberta": _SIZES,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "modernbert": {**_SIZES, "num_hidden_layers": 4, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "llama": {**_SIZES, "num_attention_heads": 4, "num_key_value_heads": 2},
}
