"""The cell's graph: every wiring, in plain words."""

import itertools

import pytest

from adabert_core.cell_figure import genotype_figure, plain_name
from tests.test_report_html import edges


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("conv_5", "convolution, 5 wide"),
        ("dil_conv_3", "dilated convolution, 3 wide"),
        ("max_pool_3", "max of 3"),
        ("avg_pool_3", "mean of 3"),
        ("identity", "unchanged"),
        ("zero", "nothing"),
    ],
)
def test_operations_have_plain_names(operation: str, name: str) -> None:
    assert plain_name(operation) == name


def test_every_wiring_of_the_cell_can_be_drawn() -> None:
    for third, fourth in itertools.product(itertools.combinations(range(3), 2), itertools.combinations(range(4), 2)):
        kept = [(0, 2), (1, 2), *((s, 3) for s in third), *((s, 4) for s in fourth)]
        drawn = genotype_figure({"depth": 1, "edges": edges(*((s, t, "conv_3") for s, t in kept))})
        assert drawn.svg.count(">convolution</") == 6
        assert "× 1 cell<" in drawn.svg
