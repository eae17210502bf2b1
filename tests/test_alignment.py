"""The comparison of two texts: what it computes, and that it tells what cells alone cannot."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from adabert_core.alignment import Alignment
from adabert_core.network import AdaBertNetwork
from adabert_core.search_space import Genotype

SEP = 1


@torch.no_grad()
def test_each_word_is_compared_with_the_mean_of_the_words_most_like_it():
    torch.manual_seed(0)
    alignment = Alignment(6)
    a, b = torch.randn(2, 4, 6), torch.randn(2, 3, 6)
    mask_a, mask_b = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    found_a, found_b = alignment(a, b, mask_a, mask_b)
    for row, lengths in enumerate(((4, 3), (2, 1))):
        own, others = a[row, : lengths[0]], b[row, : lengths[1]]
        for found, first, second in ((found_a, own, others), (found_b, others, own)):
            for place, word in enumerate(first):
                u = word / word.square().mean().sqrt()
                units = [other / other.square().mean().sqrt() for other in second]
                shares = torch.softmax(torch.stack([alignment.sharpness * F.cosine_similarity(u, v, dim=0) for v in units]), 0)
                v = sum(share * unit for share, unit in zip(shares, units, strict=True))
                expected = alignment.compare(torch.cat([(u - v).abs(), torch.relu(u * v)]))
                torch.testing.assert_close(found[row, place], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("aligned", "learns"), [(True, True), (False, False)], ids=["with", "without"])
def test_same_words_in_another_order_are_told_from_other_words(aligned, learns):
    torch.manual_seed(0)
    genotype = Genotype.parse("1 x 0>2 conv_3, 1>2 conv_3, 0>3 conv_3, 1>3 conv_3, 0>4 conv_3, 1>4 conv_3")
    network = AdaBertNetwork(
        vocab_size=400,
        channels=32,
        max_length=16,
        depth=1,
        candidates=genotype.candidates(),
        num_labels=2,
        depths=[1],
        separator_id=SEP,
        dropout=0.0,
        alignment=aligned,
    )
    rng = np.random.default_rng(0)

    def rows(count):
        a, other = rng.permuted(np.tile(np.arange(4, 400), (count, 1)), axis=1)[:, :12].reshape(count, 2, 6).swapaxes(0, 1)
        same = rng.random(count) < 0.5
        b = rng.permuted(np.where(same[:, None], a, other), axis=1)
        mark = np.full((count, 1), SEP)
        return torch.from_numpy(np.hstack([a, mark, b, mark])), torch.from_numpy(same.astype(np.int64))

    def logits(ids):
        return network.logits(network.summaries(ids, torch.ones_like(ids), 1), 1)

    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(60):
        ids, labels = rows(64)
        optimizer.zero_grad()
        F.cross_entropy(logits(ids), labels).backward()
        optimizer.step()
    network.eval()
    ids, labels = rows(500)
    with torch.no_grad():
        accuracy = (logits(ids).argmax(1) == labels).float().mean()
    assert (accuracy > 0.95) == learns, accuracy
