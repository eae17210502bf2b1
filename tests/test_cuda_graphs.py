"""A student's recorded steps against plain ones, on a GPU; without one only that nothing is recorded."""

import copy
import random

import pytest
import torch

from adabert_core.cuda_graphs import GraphedOutputs, outputs_at
from adabert_core.distillation import DistilledNetwork
from adabert_core.network import AdaBertNetwork
from adabert_core.search_space import random_genotype

SEPARATOR, ROWS, CLASSES = 3, 6, 2
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def distilled(pair, device, dropout=0.0):
    torch.manual_seed(0)
    genotype = random_genotype(random.Random(1), 2)
    network = AdaBertNetwork(
        vocab_size=50,
        channels=16,
        max_length=21,
        depth=2,
        candidates=genotype.candidates(),
        num_labels=CLASSES,
        depths=[2],
        separator_id=SEPARATOR if pair else None,
        dropout=dropout,
        alignment=pair,
    )
    return DistilledNetwork(network, 2, CLASSES).to(device).train()


def batches(count, device):
    """Batches of several lengths, the third of them smaller than the others."""
    generator = torch.Generator().manual_seed(2)
    for i in range(count):
        rows, width = (ROWS - 1 if i == 2 else ROWS), (7, 12, 9, 21)[i % 4]
        lengths = torch.randint(5, width + 1, (rows,), generator=generator)
        lengths[0] = width
        ids = torch.randint(4, 50, (rows, width), generator=generator)
        ids[:, 2] = SEPARATOR
        mask = (torch.arange(width) < lengths[:, None]).long()
        yield {"input_ids": (ids * mask).to(device), "attention_mask": mask.to(device)}


def train(network, outputs, steps, device):
    """Losses of some steps."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for batch in batches(steps, device):
        optimizer.zero_grad(set_to_none=True)
        found = outputs(batch)
        loss = (found.probes - 1).square().mean() + (found.logits + 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def plain(network):
    return lambda batch: network.outputs(batch["input_ids"], batch["attention_mask"], [2])


def test_without_a_gpu_nothing_is_recorded():
    outputs = outputs_at(distilled(pair=False, device="cpu"), 2, ROWS, torch.device("cpu"))
    assert not isinstance(outputs, GraphedOutputs)
    assert next(iter(batches(1, "cpu")))["input_ids"].shape == (ROWS, 7)
    assert outputs(next(iter(batches(1, "cpu")))).logits.shape == (1, ROWS, CLASSES)


@needs_gpu
@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_replayed_training_is_the_plain_one(pair):
    device = torch.device("cuda")
    one = distilled(pair, device)
    other = copy.deepcopy(one)
    expected = train(one, plain(one), 12, device)
    outputs = outputs_at(other, 2, ROWS, device)
    assert isinstance(outputs, GraphedOutputs)
    torch.testing.assert_close(train(other, outputs, 12, device), expected, atol=1e-3, rtol=1e-3)
    for (name, wanted), own in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(own, wanted, atol=1e-2, rtol=1e-2, msg=name)


@needs_gpu
def test_recording_leaves_no_trace():
    """Whoever has recorded already and whoever has not draw the same dropout and keep the same statistics."""
    device = torch.device("cuda")
    fresh, used = distilled(pair=True, device=device, dropout=0.3), distilled(pair=True, device=device, dropout=0.3)
    recorded = outputs_at(used, 2, ROWS, device)
    with torch.no_grad():
        before = copy.deepcopy(used.state_dict())
    train(used, recorded, 4, device)
    used.load_state_dict(before)
    results = []
    for network, outputs in ((fresh, outputs_at(fresh, 2, ROWS, device)), (used, recorded)):
        torch.manual_seed(5)
        results.append(train(network, outputs, 8, device))
    torch.testing.assert_close(results[0], results[1])
