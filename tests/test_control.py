"""The cells a searched one is compared with."""

from adabert_core.control import _sentence
from adabert_core.search_space import Genotype, cell_cost, random_cells, size_flops_costs

COSTS = size_flops_costs(128)
EDGES = ((0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4))


def cell(operation: str, depth: int = 3) -> Genotype:
    return Genotype(depth, tuple((source, target, operation) for source, target in EDGES))


def test_random_cells_have_the_searched_depth_and_cost_no_less() -> None:
    searched = cell("conv_3")
    cells = random_cells(searched, COSTS, 5, seed=0)
    assert len(cells) == 5
    assert all(found.depth == 3 for found in cells)
    assert all(cell_cost(found, COSTS) >= cell_cost(searched, COSTS) for found in cells)
    assert cells == random_cells(searched, COSTS, 5, seed=0)
    assert cells != random_cells(searched, COSTS, 5, seed=1)


def test_against_the_dearest_cell_the_dearest_draws_stand_in() -> None:
    (found,) = random_cells(cell("conv_7"), COSTS, 1, seed=0)
    assert cell_cost(found, COSTS) > 0.8 * cell_cost(cell("conv_7"), COSTS)


def test_sentence_says_which_is_better() -> None:
    rows = [
        {"name": "searched", "cost": 2.0, "validation": 0.81, "test": 0.80},
        {"name": "random 1", "cost": 4.0, "validation": 0.80, "test": 0.79},
        {"name": "random 2", "cost": 4.0, "validation": 0.82, "test": 0.83},
    ]
    assert _sentence(rows) == (
        "The searched cell is worse than the mean of 2 random cells on the test split "
        "(0.8000 against 0.8100; validation 0.8100 against 0.8100) at 0.50 of their cost."
    )
    rows[2]["test"] = 0.80
    assert _sentence(rows).startswith("The searched cell is at least as good as the mean of 2 random cells")
