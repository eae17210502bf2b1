import random
import statistics

import torch

from adabert_core.search_space import EDGES, PRIMITIVES, deployed_products, plain_cell, random_genotype
from adabert_core.supernet import build_supernet


def supernet(operation: str, certainty: float):
    found = build_supernet(
        k_max=2,
        channels=4,
        num_labels=2,
        vocab_size=10,
        max_length=8,
        separator_id=None,
        dropout=0.0,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        found.alpha_c[:, PRIMITIVES.index(operation)] += certainty
    return found


def operations(cell):
    return {operation for _, _, operation in cell.operations}


def test_first_is_the_favourite_and_all_are_different():
    net = supernet("conv_5", 1.0)
    cells = net.candidates(6, 2, torch.Generator().manual_seed(1))
    assert cells[0] == net.genotype()
    assert operations(cells[0]) == {"conv_5"}
    assert len(set(cells)) == len(cells) == 6


def test_second_is_the_favourite_of_inputs_alone_unless_that_is_the_first():
    net = supernet("conv_5", 1.0)
    with torch.no_grad():
        net.alpha_c[EDGES.index((2, 4)), PRIMITIVES.index("conv_7")] += 5.0
    favourite, flat, *_ = net.candidates(6, 2, torch.Generator().manual_seed(1))
    assert (2, 4, "conv_7") in favourite.operations
    assert flat.operations == tuple((source, target, "conv_5") for target in (2, 3, 4) for source in (0, 1))
    assert deployed_products(flat, pair=False) < deployed_products(favourite, pair=False)
    with torch.no_grad():
        net.alpha_c[[EDGES.index(edge) for edge in ((2, 3), (2, 4), (3, 4))]] = 0.0
    cells = net.candidates(6, 2, torch.Generator().manual_seed(1))
    assert cells[0].operations == flat.operations and len(set(cells)) == 6
    assert net.candidates(2, 1, torch.Generator().manual_seed(1))[1:] == [plain_cell(cells[0].depth)]


def test_a_decided_alpha_still_leaves_room_to_explore():
    cells = supernet("conv_5", 50.0).candidates(6, 3, torch.Generator().manual_seed(1))
    drawn, explored = [c for c in cells if operations(c) == {"conv_5"}], [c for c in cells if operations(c) != {"conv_5"}]
    assert len(drawn) >= 1
    assert plain_cell(explored[0].depth) in explored
    assert sum(len(operations(cell)) > 2 for cell in explored) >= 2


def test_half_of_what_is_explored_is_cheap_to_deploy_and_half_as_it_comes():
    favourite, _, *explored = supernet("conv_7", 50.0).candidates(402, 401, torch.Generator().manual_seed(1))
    rng = random.Random(0)

    def products(cells):
        return statistics.median(deployed_products(cell, pair=False) for cell in cells)

    uniform = products([random_genotype(rng, favourite.depth) for _ in range(1000)])
    assert products(explored[:200]) < 0.8 * uniform
    assert products(explored[200:]) > 0.9 * uniform


def test_draws_follow_alpha_where_none_are_uniform():
    cells = supernet("max_pool_3", 6.0).candidates(5, 0, torch.Generator().manual_seed(1))
    share = sum(operation == "max_pool_3" for cell in cells for _, _, operation in cell.operations) / (6 * len(cells))
    assert share > 0.7
