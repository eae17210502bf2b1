import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.profiler import profile

from adabert_core.distillation import DistilledNetwork
from adabert_core.gumbel import sample
from adabert_core.network import AdaBertNetwork, State, split_pair
from adabert_core.operations import Positions, fixed_shapes
from adabert_core.search_space import EDGES, PRIMITIVES, Genotype, plain_cell, random_genotype
from adabert_core.student import AdaBertConfig, AdaBertForSequenceClassification
from adabert_core.student_training import inherit
from adabert_core.supernet import build_supernet, hard_gates

SEP, PAD, VOCABULARY, CHANNELS = 3, 0, 30, 8


def unsettle(module, seed=0):
    """Random weights and statistics everywhere, so that a pad that leaks shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.copy_(torch.randn(part.running_mean.shape, generator=generator))
                part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
    return module


def derived(genotype, separator_id=None, dropout=0.0, alignment=True, maxima=True, position_vectors=False, ngrams=False):
    return unsettle(
        AdaBertNetwork(
            vocab_size=VOCABULARY,
            channels=CHANNELS,
            max_length=40,
            depth=genotype.depth,
            candidates=genotype.candidates(),
            num_labels=2,
            depths=[genotype.depth],
            separator_id=separator_id,
            dropout=dropout,
            alignment=alignment and separator_id is not None,
            maxima=maxima,
            position_vectors=position_vectors,
            ngrams=ngrams,
        )
    )


def padded(rows, width=None):
    width = width or max(map(len, rows))
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    return ids, mask


def answer(network, rows, width=None):
    depth = len(network.cells)
    return network.logits(network.summaries(*padded(rows, width), depth), depth)


SINGLES = [[2, 7, 8, 9, 10, 11, SEP], [2, 12, SEP], [2, *range(4, 24), SEP]]
PAIRS = [
    [2, 7, 8, 9, SEP, 10, 11, SEP],
    [2, 12, SEP, *range(4, 20), SEP],
    [2, *range(4, 20), SEP, 5, SEP],
    [2, 7, 8, 9],
]
DOUBLE_PAIRS = [[2, 7, 8, 9, SEP, SEP, 10, 11, SEP], [2, 12, SEP, SEP, *range(4, 20), SEP]]


@pytest.mark.parametrize(
    ("rows", "separator"), [(SINGLES, None), (PAIRS, SEP), (DOUBLE_PAIRS, SEP)], ids=["single", "pair", "double"]
)
@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_logits_are_the_same_alone_padded_and_in_a_batch(rows, separator, seed):
    network = derived(random_genotype(random.Random(seed), 3), separator).eval()
    together = answer(network, rows)
    assert together.std(0).max() > 1e-3  # the rows do get different answers; a tanh at its end may give one logit to all
    for i, row in enumerate(rows):
        alone = answer(network, [row])
        torch.testing.assert_close(answer(network, [row], width=len(row) + 9), alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rows", "separator"), [(SINGLES, None), (PAIRS, SEP)], ids=["single", "pair"])
@pytest.mark.parametrize("seed", range(4))
def test_training_statistics_do_not_see_pads(rows, separator, seed):
    genotype = random_genotype(random.Random(seed), 2)
    tight, wide = derived(genotype, separator).train(), derived(genotype, separator).train()
    torch.testing.assert_close(answer(wide, rows, width=35), answer(tight, rows), atol=1e-4, rtol=0)
    for (name, expected), found in zip(tight.named_buffers(), wide.buffers(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize(("rows", "separator"), [(SINGLES, None), (PAIRS, SEP)], ids=["single", "pair"])
@pytest.mark.parametrize("seed", range(4))
def test_fixed_shapes_change_no_answer_no_gradient_and_no_statistics(rows, separator, seed):
    genotype = random_genotype(random.Random(seed), 2)
    free, fixed = derived(genotype, separator).train(), derived(genotype, separator).train()
    expected = answer(free, rows, width=35)
    expected.square().sum().backward()
    with fixed_shapes():
        found = answer(fixed, rows, width=35)
    found.square().sum().backward()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    for (name, wanted), own in zip(free.named_buffers(), fixed.buffers(), strict=True):
        torch.testing.assert_close(own, wanted, atol=1e-5, rtol=1e-5, msg=name)
    for (name, wanted), own in zip(free.named_parameters(), fixed.parameters(), strict=True):
        scale = 1 + float(wanted.grad.abs().max())
        torch.testing.assert_close(own.grad / scale, wanted.grad / scale, atol=1e-3, rtol=0, msg=name)


@torch.no_grad()
def test_first_summary_is_the_mean_of_the_real_embeddings():
    network = derived(Genotype(1, ())).eval()
    ids, mask = padded([[5, 6, 7], [8]])
    summaries = network.summaries(ids, mask, 0)
    word = network.embedding.word.weight
    vectors = network.embedding.norm(word[[5, 6, 7]])
    assert summaries.shape == (1, 2, CHANNELS)
    torch.testing.assert_close(summaries[0, 0], vectors.sum(0) / 3)
    torch.testing.assert_close(summaries[0, 1], network.embedding.norm(word[8]))


@torch.no_grad()
@pytest.mark.parametrize("positions", [False, True], ids=["without_positions", "with_them"])
def test_pair_starts_from_both_texts_alike_with_segments_and_positions_of_their_own(positions):
    network = derived(Genotype(1, ()), SEP, alignment=False, position_vectors=positions).eval()

    def mean(ids, segment):
        embedding = network.embedding
        vectors = embedding.word.weight[ids] + embedding.segment.weight[segment]
        if positions:
            vectors = vectors + embedding.position.weight[: len(ids)]  # from 0 in both texts
        return embedding.norm(vectors).mean(0)

    summaries = network.summaries(*padded([[2, 7, SEP, 8, 9, SEP], [2, 4, 5, 6, 7, SEP, 8, 9, SEP]]), 0)
    second = mean([8, 9, SEP], 1)
    torch.testing.assert_close(summaries[0, 0], (mean([2, 7, SEP], 0) + second) / 2)
    torch.testing.assert_close(summaries[0, 1], (mean([2, 4, 5, 6, 7, SEP], 0) + second) / 2)


@torch.no_grad()
def test_cell_output_is_the_weighted_sum_of_its_nodes():
    network = derived(Genotype(1, ((0, 2, "identity"), (1, 2, "identity"), (2, 3, "identity"), (0, 4, "identity")))).eval()
    network.cells[0].node_weights.copy_(torch.tensor([0.5, 0.25, 0.25]).log())
    x = torch.randn(1, 4, CHANNELS)
    out = network.cells[0](State(x), State(x), Positions.of(torch.ones(1, 4), training=False), None)
    torch.testing.assert_close(out.x, 0.5 * 2 * x + 0.25 * 2 * x + 0.25 * x)  # nodes: x + x, that again, x


@torch.no_grad()
def test_summary_of_a_cell_is_half_the_mean_and_half_the_maximum_of_its_real_positions():
    genotype = Genotype(1, ((0, 2, "identity"), (0, 3, "identity"), (0, 4, "identity")))  # a cell that gives its input
    network, (ids, mask) = derived(genotype).eval(), padded([[5, 6, 7], [8]])
    vectors = network.embedding.norm(network.embedding.word.weight[[5, 6, 7]])
    expected = (vectors.mean(0) + vectors.amax(0)) / 2
    torch.testing.assert_close(network.summaries(ids, mask, 1)[1, 0], expected)
    old = derived(genotype, maxima=False).eval()
    torch.testing.assert_close(old.summaries(ids, mask, 1)[1, 0], vectors.mean(0))


@torch.no_grad()
def test_head_mixes_the_summaries_of_all_layers():
    network = derived(Genotype(2, ())).eval()
    network.depth_weights["2"].copy_(torch.tensor([0.2, 0.3, 0.5]).log())
    summaries = torch.randn(3, 4, CHANNELS)
    mixed = 0.2 * summaries[0] + 0.3 * summaries[1] + 0.5 * summaries[2]
    torch.testing.assert_close(network.logits(summaries, 2), network.classifier(torch.tanh(mixed)))


@torch.no_grad()
def test_classifier_reads_the_maxima_of_three_words_each_beside_the_cells():
    network = derived(plain_cell(1), ngrams=True).eval()
    rows = [[5, 6, 7, 8, 9, 10, 11], [8, 9]]
    summaries = network.summaries(*padded(rows), 1)
    assert summaries.shape == (4, 2, CHANNELS)
    ngrams = torch.cat([summaries[2], summaries[3]], dim=-1)
    weight, bias = network.ngrams.filters.weight[:, :, 0], network.ngrams.filters.bias  # (2 C, C, 3), (2 C,)
    for row, found in zip(rows, ngrams, strict=True):
        words = nn.functional.pad(network.embedding.norm(network.embedding.word.weight[row]), (0, 0, 1, 1))
        said = [torch.einsum("oiw,wi->o", weight, words[i : i + 3]) + bias for i in range(len(row))]
        torch.testing.assert_close(found, torch.stack(said).amax(0).clamp(min=0))
    without = network.summaries(*padded(rows), 0)
    assert without.shape == (3, 2, CHANNELS)
    assert torch.equal(without[1:], summaries[2:])
    network.depth_weights["1"].zero_()
    features = torch.cat([torch.tanh(summaries[:2].mean(0)), ngrams], dim=-1)
    torch.testing.assert_close(network.logits(summaries, 1), network.classifier(features))


def test_pair_is_split_at_the_first_separator():
    ids = torch.tensor([[2, 7, 8, SEP, 9, SEP, PAD], [2, 7, SEP, 10, 11, 12, SEP]])
    mask = torch.tensor([[1] * 6 + [0], [1] * 7])
    (ids_a, mask_a), (ids_b, mask_b) = split_pair(ids, mask, SEP)
    assert mask_a.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert (ids_a * mask_a).tolist() == [[2, 7, 8, SEP], [2, 7, SEP, 0]]
    assert mask_b.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert (ids_b * mask_b).tolist() == [[9, SEP, 0, 0], [10, 11, 12, SEP]]


def test_pair_with_a_double_separator_is_split_at_its_first():
    ids, mask = torch.tensor([[2, 7, SEP, SEP, 9, 10, SEP]]), torch.ones(1, 7, dtype=torch.long)
    (ids_a, mask_a), (ids_b, mask_b) = split_pair(ids, mask, SEP)
    assert (ids_a * mask_a).tolist() == [[2, 7, SEP, 0]]
    assert (ids_b * mask_b).tolist() == [[SEP, 9, 10, SEP]]


@pytest.mark.parametrize("separator", [None, SEP], ids=["single", "pair"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@torch.no_grad()
def test_supernet_with_one_hot_alpha_is_the_derived_student(tmp_path, depth, separator):
    genotype = random_genotype(random.Random(depth), depth)
    generator = torch.Generator().manual_seed(1)
    supernet = build_supernet(
        k_max=3,
        channels=CHANNELS,
        num_labels=2,
        vocab_size=VOCABULARY,
        max_length=40,
        separator_id=separator,
        dropout=0.1,
        generator=generator,
    )
    unsettle(supernet.distilled).eval()
    kept = {(source, target): operation for source, target, operation in genotype.operations}
    supernet.alpha_c.zero_()
    supernet.alpha_K.zero_()
    supernet.alpha_K[depth - 1] = 60.0
    for row, edge in enumerate(EDGES):
        supernet.alpha_c[row, PRIMITIVES.index(kept.get(edge, "zero"))] = 60.0
    assert supernet.genotype() == genotype
    save_file(supernet.state_dict(), tmp_path / "supernet.safetensors")

    config = AdaBertConfig(
        vocab_size=VOCABULARY,
        channels=CHANNELS,
        max_position_embeddings=40,
        genotype={"depth": depth, "edges": [{"source": s, "target": t, "operation": o} for s, t, o in genotype.operations]},
        separator_id=separator,
        alignment=separator is not None,
        maxima=True,
        position_vectors=separator is not None,
        ngrams=separator is None,
    )
    student = AdaBertForSequenceClassification(config)
    distilled = DistilledNetwork(student.network, depth, 2)
    inherit(distilled, tmp_path / "supernet.safetensors")
    student.eval()

    ids, mask = padded(SINGLES if separator is None else PAIRS)
    gates = hard_gates(sample(supernet.alpha_c, 0.5, generator))
    expected = supernet.distilled.network.summaries(ids, mask, depth, gates)
    found = student.network.summaries(ids, mask, depth)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    logits = supernet.distilled.network.logits(expected, depth)
    assert logits.std(0).min() > 1e-3
    torch.testing.assert_close(student(ids, mask).logits, logits, atol=1e-6, rtol=1e-6)
    for own, theirs, layer in zip(distilled.probes, supernet.distilled.probes, expected, strict=False):
        assert torch.equal(own(layer), theirs(layer))


def test_only_the_gated_operation_is_computed_and_learns():
    generator = torch.Generator().manual_seed(0)
    supernet = build_supernet(
        k_max=1,
        channels=CHANNELS,
        num_labels=2,
        vocab_size=VOCABULARY,
        max_length=40,
        separator_id=None,
        dropout=0.0,
        generator=generator,
    )
    draws = torch.zeros(len(EDGES), len(PRIMITIVES))
    draws[:, PRIMITIVES.index("conv_3")] = 1.0
    draws[0] = torch.eye(len(PRIMITIVES))[PRIMITIVES.index("zero")]
    network = supernet.distilled.network
    network.logits(network.summaries(*padded(SINGLES), 1, hard_gates(draws)), 1).square().sum().backward()
    used = [name.split(".") for name, parameter in network.named_parameters() if parameter.grad is not None]
    learned = {(name[3], name[4]) for name in used if name[2:3] == ["edges"]}  # cells.0.edges.0-2.conv_3
    assert learned == {(f"{s}-{t}", "conv_3") for s, t in EDGES if (s, t) != (0, 2)}


def plain(depth, separator=None):
    return derived(plain_cell(depth), separator)


@pytest.mark.parametrize(("rows", "separator"), [(SINGLES, None), (PAIRS, SEP)], ids=["single", "pair"])
def test_cells_compute_in_the_precision_of_autocast_and_are_summed_up_in_float32(rows, separator):
    network, kinds = plain(2, separator).train(), set()
    for cell in network.cells:
        cell.register_forward_hook(lambda cell, inputs, out: kinds.add(out.x.dtype))
    ids, mask = padded(rows)
    expected = network.summaries(ids, mask, 2)
    assert kinds == {torch.float32}
    kinds.clear()
    with torch.autocast("cpu", torch.bfloat16):
        summaries = network.summaries(ids, mask, 2)
    assert kinds == {torch.bfloat16}
    assert summaries.dtype == torch.float32
    torch.testing.assert_close(summaries, expected, atol=0.05, rtol=0.05)


@torch.no_grad()
def test_convolutions_of_one_state_share_its_relu():
    network, (ids, mask) = plain(3).eval(), padded(SINGLES)
    with profile() as record:
        network.summaries(ids, mask, 3)
    calls = {event.key: event.count for event in record.key_averages()}
    assert calls["aten::relu"] == 3  # of the embedding, which is both inputs, and of two cells; there are 18 convolutions
