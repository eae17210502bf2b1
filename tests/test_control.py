"""The cells a searched one is compared with."""

from pathlib import Path

import numpy as np
import pytest

from adabert_core.artifacts import Manifest, write_manifest
from adabert_core.control import _sentence, compare_with_random, lead_error
from adabert_core.errors import UserError
from adabert_core.search_space import Genotype, cell_cost, random_cells, size_flops_costs
from adabert_core.stages import STAGES

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


def row(name: str, cost: float, products: int, validation: float, test: float, loss: float) -> dict[str, object]:
    return {"name": name, "cost": cost, "products": products, "validation": validation, "test": test, "test_loss": loss}


def test_sentence_says_which_is_better_and_whether_that_can_be_told() -> None:
    rows = [
        row("searched", 2.0, 30, 0.81, 0.80, 0.40),
        row("random 1", 4.0, 50, 0.80, 0.79, 0.41),
        row("random 2", 4.0, 70, 0.82, 0.83, 0.43),
    ]
    assert _sentence(rows, 0.004) == (
        "The searched cell is worse than the mean of 2 random cells on the test split (0.8000 against 0.8100, standard error "
        "0.0040; log loss 0.4000 against 0.4200; validation 0.8100 against 0.8100) at 0.50 of their cost and 0.50 of their "
        "products."
    )
    assert "on the test split, a difference within one standard error, (0.8000" in _sentence(rows, 0.02)
    rows[2]["test"] = 0.80
    assert _sentence(rows, 0.004).startswith("The searched cell is at least as good as the mean of 2 random cells")


def test_error_of_a_lead_is_that_of_paired_rows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=2000)
    first, second = (np.where(rng.random(2000) < 0.1, 1 - labels, labels) for _ in range(2))

    def accuracy(labels: np.ndarray, said: np.ndarray) -> float:
        return float((labels == said).mean())

    difference = (first == labels).astype(float) - (second == labels)
    assert lead_error(labels, [first, second], accuracy) == pytest.approx(difference.std() / 2000**0.5, rel=0.2)
    assert lead_error(labels, [first, first], accuracy) == 0


def test_peer_has_no_cell_to_compare(tmp_path: Path) -> None:
    for stage in STAGES["benchmark"].inputs.values():
        (tmp_path / stage).mkdir()
        config = {"architecture": "textcnn"} if stage == "retrain" else {}
        write_manifest(tmp_path / stage, Manifest(stage, config, 0, "v", {}, {}, {}, 1.0, 1))
    with pytest.raises(UserError, match="its student is a textcnn, which has no cell to compare"):
        compare_with_random(tmp_path, 3)
