import json
import random
from pathlib import Path

import pytest

from adabert_core.config_file import parse_section
from adabert_core.errors import UserError
from adabert_core.search_space import (
    EDGES,
    PRIMITIVES,
    Genotype,
    all_candidates,
    cell_cost,
    cell_count,
    deployed_products,
    derive,
    matched_layer,
    plain_cell,
    random_genotype,
    size_flops_costs,
)

CELL = Genotype(
    3,
    (
        (0, 2, "conv_3"),
        (1, 2, "identity"),
        (0, 3, "dil_conv_7"),
        (2, 3, "max_pool_3"),
        (1, 4, "avg_pool_3"),
        (3, 4, "conv_7"),
    ),
)


def row(**probabilities):
    """Probabilities of one edge; what is not named shares a little."""
    return [probabilities.get(name, 0.01) for name in PRIMITIVES]


def test_nine_edges_from_two_inputs_and_earlier_nodes():
    assert EDGES == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4), (3, 4))
    assert all_candidates()["2-4"] == PRIMITIVES
    assert len(all_candidates()) == 9


def test_derive_keeps_the_two_strongest_edges_of_each_node():
    rows = [
        row(conv_3=0.2),
        row(identity=0.1),
        row(conv_5=0.3),
        row(conv_7=0.2),
        row(dil_conv_3=0.4),
        row(max_pool_3=0.5),
        row(avg_pool_3=0.3),
        row(identity=0.6),
        row(conv_3=0.4),
    ]
    assert derive(rows, [0.2, 0.5, 0.3]) == Genotype(
        2,
        (
            (0, 2, "conv_3"),
            (1, 2, "identity"),
            (0, 3, "conv_5"),
            (2, 3, "dil_conv_3"),
            (0, 4, "max_pool_3"),
            (2, 4, "identity"),
        ),
    )


def test_derive_never_chooses_zero_and_does_not_count_it_as_strength():
    rows = [row(zero=0.9, conv_3=0.05)] * 2 + [row(zero=0.9, conv_5=0.05), row(conv_7=0.3), row(identity=0.2)]
    rows += [row(zero=0.2, dil_conv_5=0.7), row(zero=0.99), row(max_pool_3=0.3), row(zero=0.9)]
    genotype = derive(rows, [1.0])
    assert genotype.operations == (
        (0, 2, "conv_3"),
        (1, 2, "conv_3"),
        (1, 3, "conv_7"),
        (2, 3, "identity"),
        (0, 4, "dil_conv_5"),
        (2, 4, "max_pool_3"),
    )


def test_derive_breaks_ties_by_order():
    genotype = derive([[0.1] * len(PRIMITIVES)] * len(EDGES), [0.25] * 4)
    assert genotype.depth == 1
    assert genotype.operations == tuple((s, t, "conv_3") for s, t in ((0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4)))


@pytest.mark.parametrize(
    ("layer", "depth", "teacher_layers", "expected"),
    [
        (0, 3, 12, 0),
        (1, 3, 12, 4),
        (2, 3, 12, 8),
        (3, 3, 12, 12),
        (1, 8, 12, 2),
        (5, 8, 12, 8),
        (7, 8, 12, 11),
        (1, 4, 6, 2),
        (1, 1, 6, 6),
    ],
)
def test_matched_layer_is_rounded_up(layer, depth, teacher_layers, expected):
    assert matched_layer(layer, depth, teacher_layers) == expected


def test_last_layer_meets_the_last_and_the_first_the_embeddings():
    for depth in range(1, 9):
        for teacher_layers in range(1, 25):
            assert matched_layer(depth, depth, teacher_layers) == teacher_layers
            assert matched_layer(0, depth, teacher_layers) == 0
            assert [matched_layer(m, depth, teacher_layers) for m in range(depth)] == [
                -(-m * teacher_layers // depth) for m in range(depth)
            ]


def test_costs_of_two_channels():
    # conv_k: 4k + 4 parameters of at most 32, 8k + 8 FLOPs of at most 64; a pool 6 FLOPs
    expected = [0.5, 0.75, 1.0, 0.5, 0.75, 1.0, 3 / 64, 3 / 64, 0.0, 0.0]
    assert size_flops_costs(2) == pytest.approx(expected)


@pytest.mark.parametrize("channels", [1, 16, 128])
def test_costs_lie_in_zero_to_one_and_grow_with_the_kernel(channels):
    costs = dict(zip(PRIMITIVES, size_flops_costs(channels), strict=True))
    assert costs["conv_7"] == costs["dil_conv_7"] == 1.0
    assert costs["conv_3"] < costs["conv_5"] < 1.0
    assert costs["zero"] == costs["identity"] == 0.0
    assert costs["avg_pool_3"] < costs["conv_3"]


def test_deployed_convolutions_share_what_they_read():
    parallel = "0>2 conv_3, 1>2 conv_3, 0>3 conv_3, 1>3 dil_conv_3, 0>4 identity, 1>4 avg_pool_3"
    # The first cell's inputs are one: offsets -2 to 2. Later, 0 is read at -1, 0, 1 and 1 at -2 to 2; cell k's input 0 is cell
    # k - 1's input 1, and its pool is there already.
    assert deployed_products(Genotype.parse(f"1 x {parallel}"), pair=False) == 5 + 1
    assert deployed_products(Genotype.parse(f"3 x {parallel}"), pair=False) == 5 + 2 * (3 + 5) + 3
    two_texts = 3 + 5  # which are two states
    assert deployed_products(Genotype.parse(f"1 x {parallel}"), pair=True) == two_texts + 1
    chain = "0>2 conv_3, 1>2 conv_3, 1>3 conv_3, 2>3 conv_3, 2>4 conv_3, 3>4 conv_3"  # each node is a product of its own
    assert deployed_products(Genotype.parse(f"2 x {chain}"), pair=False) == (3 + 6 + 6) + 3 * 6


def test_widest_chain_shares_nothing_but_the_first_input():
    widest = "0>2 dil_conv_7, 1>2 conv_7, 1>3 dil_conv_7, 2>3 conv_7, 2>4 dil_conv_7, 3>4 conv_7"
    assert deployed_products(Genotype.parse(f"4 x {widest}"), pair=False) == 4 * 6 * 7 - 3


def test_plain_cell_is_one_convolution_over_both_inputs():
    assert str(plain_cell(2)) == "2 x 0>2 conv_3, 1>2 conv_3, 0>3 conv_3, 1>3 conv_3, 0>4 conv_3, 1>4 conv_3"
    assert deployed_products(plain_cell(1), pair=False) == 3  # whose inputs are one
    assert deployed_products(plain_cell(4), pair=False) == 3 + 3 * 6


def test_cell_cost_counts_every_cell():
    assert cell_cost(CELL, size_flops_costs(2)) == pytest.approx(3 * (0.5 + 0 + 1 + 3 / 64 + 3 / 64 + 1))


def test_genotype_survives_json(tmp_path):
    (tmp_path / "genotype.json").write_text(CELL.to_json())
    assert Genotype.load(tmp_path / "genotype.json") == CELL
    assert Genotype.from_dict(json.loads(CELL.to_json())).to_json() == CELL.to_json()
    assert json.loads(CELL.to_json())["edges"][0] == {"source": 0, "target": 2, "operation": "conv_3"}


def test_candidates_name_one_operation_per_kept_edge():
    assert CELL.candidates() == {
        "0-2": ("conv_3",),
        "1-2": ("identity",),
        "0-3": ("dil_conv_7",),
        "2-3": ("max_pool_3",),
        "1-4": ("avg_pool_3",),
        "3-4": ("conv_7",),
    }


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"edges": []}, "needs depth and edges"),
        ({"depth": 2}, "needs depth and edges"),
        ({"depth": 2, "edges": [{"source": 0, "target": 2}]}, "needs depth and edges"),
        ({"depth": "deep", "edges": []}, "needs depth and edges"),
        ({"depth": 2, "edges": [{"source": 0, "target": 2, "operation": "conv_9"}]}, "conv_9 on edge 0-2"),
        ({"depth": 2, "edges": [{"source": 3, "target": 2, "operation": "conv_3"}]}, "conv_3 on edge 3-2"),
    ],
)
def test_genotype_outside_the_space_is_refused(raw, message):
    with pytest.raises(UserError, match=message):
        Genotype.from_dict(raw)


def test_random_genotype_is_a_cell_of_the_space_and_fixed_by_its_rng():
    drawn = [random_genotype(random.Random(seed), 2) for seed in range(50)]
    for genotype in drawn:
        assert [target for _, target, _ in genotype.operations] == [2, 2, 3, 3, 4, 4]
        assert len(genotype.candidates()) == 6
        assert "zero" not in {operation for _, _, operation in genotype.operations}
        assert Genotype.from_dict(json.loads(genotype.to_json())) == genotype
    assert drawn[7] == random_genotype(random.Random(7), 2)
    assert len(set(drawn)) == 50


WORDS = "4 x 0>2 conv_3, 1>2 identity, 0>3 conv_5, 2>3 max_pool_3, 1>4 dil_conv_7, 3>4 avg_pool_3"


def test_a_genotype_is_the_same_from_words_from_a_file_and_from_a_config(tmp_path: Path) -> None:
    genotype = Genotype.parse(WORDS)
    assert (genotype.depth, genotype.operations[4]) == (4, (1, 4, "dil_conv_7"))
    assert str(genotype) == WORDS
    (tmp_path / "genotype.json").write_text(genotype.to_json())
    assert parse_section("search", {"genotype": str(tmp_path / "genotype.json")}).genotype == WORDS
    assert parse_section("search", {"genotype": WORDS.replace(", ", " ,  ")}).genotype == WORDS
    assert Genotype.parse("none") == Genotype(0, ())
    assert str(Genotype(0, ())) == "none"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("4 cells", "write it as 4 x 0>2 conv_3"),
        ("0 x 0>2 conv_3", "write it as"),
        ("2 x 0>2 conv_3, 0>2 conv_5", "names an edge twice"),
        ("2 x 0>2 conv_9", "does not have"),
        ("2 x 4>2 conv_3", "does not have"),
        ("missing.json", "no such file"),
    ],
)
def test_words_that_are_no_genotype_are_refused(words: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_section("search", {"genotype": words})


def test_a_net_without_cells_learns_from_the_last_layer() -> None:
    assert matched_layer(0, 0, 12) == 12


def test_cells_are_counted():
    # one, three and six ways to choose the edges of the nodes, nine operations on each of six edges
    assert cell_count() == 18 * 9**6 == 9_565_938
