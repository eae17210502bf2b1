"""Attention that costs little on a CPU: the function of transformers' "sdpa", for a teacher that is trained or scores texts.

Comes in: a model. Goes out: the same with another attention. torch's kernel takes the exponentials of a row 16 at a time and what
is left one by one, so that 28 keys cost twice as much as 32; and while it drops weights it draws a number for each (docs/LOG.md).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from adabert_core.dropout import drop

_NAME = "adabert"
_LANES = 16  # numbers of 32 bits in a register of AVX-512


def replace_attention(model: PreTrainedModel) -> None:
    """Gives a model this attention where it would use "sdpa" and lets others do its attention; others stay as they are."""
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        model.set_attn_implementation(_NAME)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Query, key and value (B, heads, L, D), mask (B, 1, L, L), true where a key counts -> (B, L, heads, D), and no weights.

    What looks back only, shares keys among heads or adds to the scores, by a mask or a bias, is left to transformers.
    """
    special = key.shape != query.shape or others.get("position_bias") is not None
    additive = attention_mask is not None and attention_mask.dtype != torch.bool
    if special or additive or getattr(module, "is_causal", True):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others)
    if module.training and dropout > 0:
        scores = (query @ key.transpose(-1, -2)).float() * (scaling or query.shape[-1] ** -0.5)
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        found = drop(scores.softmax(-1).to(value.dtype), dropout) @ value
    else:
        if more := -key.shape[2] % _LANES:
            attention_mask = _without(more, key) if attention_mask is None else F.pad(attention_mask, (0, more))
            key, value = F.pad(key, (0, 0, 0, more)), F.pad(value, (0, 0, 0, more))
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    return found.transpose(1, 2).contiguous(), None


def _without(more: int, key: Tensor) -> Tensor:
    """What is added to the scores of keys (B, heads, L, D) and `more` behind them, which do not count: (B, 1, L, L + more)."""
    batch, _, length, _ = key.shape
    return F.pad(key.new_zeros(length), (0, more), value=-math.inf).expand(batch, 1, length, -1)


AttentionInterface.register(_NAME, attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
