"""A student's recorded steps against plain ones, on a GPU; without one, which batches would be recorded and at which lengths."""

import copy
import gc
import random
from contextlib import nullcontext

import pytest
import torch

from adabert_core import cuda_graphs
from adabert_core.cuda_graphs import GraphedOutputs, outputs_at
from adabert_core.distillation import DistilledNetwork
from adabert_core.network import AdaBertNetwork
from adabert_core.operations import fixed_shapes
from adabert_core.search_space import random_genotype

SEPARATOR, ROWS, CLASSES, LONGEST = 3, 6, 2, 21
GPU, CPU = torch.device("cuda"), torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def distilled(pair, device, dropout=0.0):
    torch.manual_seed(0)
    genotype = random_genotype(random.Random(1), 2)
    network = AdaBertNetwork(
        vocab_size=50,
        channels=16,
        max_length=LONGEST,
        depth=2,
        candidates=genotype.candidates(),
        num_labels=CLASSES,
        depths=[2],
        separator_id=SEPARATOR if pair else None,
        dropout=dropout,
        alignment=pair,
        maxima=True,
        ngrams=not pair,
    )
    return DistilledNetwork(network, 2, CLASSES).to(device).train()


def batches(count, device):
    """Batches of several lengths, the third of them smaller than the others."""
    generator = torch.Generator().manual_seed(2)
    for i in range(count):
        rows, width = (ROWS - 1 if i == 2 else ROWS), (7, 12, 9, LONGEST)[i % 4]
        lengths = torch.randint(5, width + 1, (rows,), generator=generator)
        lengths[0] = width
        ids = torch.randint(4, 50, (rows, width), generator=generator)
        ids[:, 2] = SEPARATOR
        mask = (torch.arange(width) < lengths[:, None]).long()
        yield {"input_ids": (ids * mask).to(device), "attention_mask": mask.to(device)}


def train(network, outputs, steps, device, autocast=nullcontext):
    """Losses of some steps."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for batch in batches(steps, device):
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            found = outputs(batch)
            loss = (found.probes - 1).square().mean() + (found.logits + 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def plain(network):
    return lambda batch: network.outputs(batch["input_ids"], batch["attention_mask"], [2])


def test_only_students_on_one_gpu_are_recorded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    student, peer = distilled(pair=False, device=CPU), distilled(pair=False, device=CPU)
    peer.network = torch.nn.Identity()
    for network, device, processes, recorded in (
        (student, GPU, 1, True),
        (student, CPU, 1, False),
        (student, GPU, 2, False),
        (peer, GPU, 1, False),
    ):
        monkeypatch.setattr(cuda_graphs, "rank_and_size", lambda processes=processes: (0, processes))
        with outputs_at(network, 2, ROWS, device) as outputs:
            assert isinstance(outputs, GraphedOutputs) == recorded


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_lengths_are_padded_recorded_once_and_change_no_loss(pair, monkeypatch):
    """What stands in for a recorded graph computes with fixed shapes, as the graph would."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    recorded = []

    def record(self, ids, mask):
        recorded.append(tuple(ids.shape))
        module = cuda_graphs._AtDepth(self.distilled, self.depth)

        def replay(*given):
            with fixed_shapes():
                return module(*given)

        return replay

    monkeypatch.setattr(GraphedOutputs, "_record", record)
    one = distilled(pair, CPU)
    other = copy.deepcopy(one)
    found = train(other, GraphedOutputs(other, 2, ROWS), 9, CPU)
    torch.testing.assert_close(found, train(one, plain(one), 9, CPU), atol=1e-4, rtol=1e-4)
    assert recorded == [(ROWS, 8), (ROWS, 16), (ROWS, LONGEST)]


@needs_gpu
@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-3), (torch.bfloat16, 5e-2)], ids=["fp32", "bf16"])
def test_replayed_training_is_the_plain_one(pair, dtype, tolerance):
    def autocast():
        return torch.autocast("cuda", dtype) if dtype else nullcontext()

    one = distilled(pair, GPU)
    other = copy.deepcopy(one)
    expected = train(one, plain(one), 12, GPU, autocast)
    with outputs_at(other, 2, ROWS, GPU) as outputs:
        assert isinstance(outputs, GraphedOutputs)
        torch.testing.assert_close(train(other, outputs, 12, GPU, autocast), expected, atol=tolerance, rtol=tolerance)
    for (name, wanted), own in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(own, wanted, atol=10 * tolerance, rtol=10 * tolerance, msg=name)


@needs_gpu
def test_recording_leaves_no_trace():
    """Whoever has recorded already and whoever has not draw the same dropout and keep the same statistics."""
    fresh, used = distilled(pair=True, device=GPU, dropout=0.3), distilled(pair=True, device=GPU, dropout=0.3)
    before = copy.deepcopy(used.state_dict())
    with outputs_at(used, 2, ROWS, GPU) as recorded, outputs_at(fresh, 2, ROWS, GPU) as new:
        train(used, recorded, 4, GPU)
        used.load_state_dict(before)
        results = []
        for network, outputs in ((fresh, new), (used, recorded)):
            torch.manual_seed(5)
            results.append(train(network, outputs, 8, GPU))
    torch.testing.assert_close(results[0], results[1])


@needs_gpu
def test_memory_comes_back_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        held = []
        for _ in range(3):
            network = distilled(pair=False, device=GPU)
            with outputs_at(network, 2, ROWS, GPU) as outputs:
                train(network, outputs, 4, GPU)
            del network, outputs
            held.append(torch.cuda.memory_allocated())
    finally:
        gc.enable()
    assert held[2] == held[1]


def test_nothing_is_collected_while_a_graph_is_recorded():
    with pytest.raises(RuntimeError, match="recording failed"), cuda_graphs._no_collection():
        assert not gc.isenabled()
        raise RuntimeError("recording failed")
    assert gc.isenabled()
