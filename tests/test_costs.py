import pytest
import torch
from click.testing import CliRunner

from adabert_core import costs
from adabert_core.cli import cli
from adabert_core.costs import measure_latencies, operation_costs
from adabert_core.search_space import PRIMITIVES
from adabert_core.storage import Checkpoints, FolderStore


def test_counted_costs_are_those_of_the_search_space():
    found = operation_costs("size_flops", 2, Checkpoints(None), "key")
    assert found == pytest.approx([0.5, 0.75, 1.0, 0.5, 0.75, 1.0, 3 / 64, 3 / 64, 0.0, 0.0])


def test_measured_latencies_are_free_for_identity_and_zero_only():
    threads = torch.get_num_threads()
    found = dict(zip(PRIMITIVES, measure_latencies(16, length=32, rounds=5), strict=True))
    assert {name for name, seconds in found.items() if seconds == 0} == {"identity", "zero"}
    assert all(seconds < 0.1 for seconds in found.values())
    assert torch.get_num_threads() == threads


def test_wider_convolution_takes_longer():
    found = dict(zip(PRIMITIVES, measure_latencies(128, length=128, rounds=15), strict=True))
    assert found["conv_3"] < found["conv_7"]


def test_latency_costs_are_shares_of_the_dearest(monkeypatch):
    monkeypatch.setattr(costs, "measure_latencies", lambda channels: [2e-3, 4e-3, 8e-3, 2e-3, 4e-3, 6e-3, 1e-3, 1e-3, 0.0, 0.0])
    found = operation_costs("latency", 16, Checkpoints(None), "key")
    assert found == pytest.approx([0.25, 0.5, 1.0, 0.25, 0.5, 0.75, 0.125, 0.125, 0.0, 0.0])


def test_resumed_search_goes_on_with_the_table_it_measured(tmp_path, monkeypatch):
    measured = iter([[1.0] * 9 + [2.0], [5.0] * 10])
    monkeypatch.setattr(costs, "measure_latencies", lambda channels: next(measured))
    first = operation_costs("latency", 16, Checkpoints(FolderStore(tmp_path)), "search/costs")
    assert first == [0.5] * 9 + [1.0]
    assert operation_costs("latency", 16, Checkpoints(FolderStore(tmp_path)), "search/costs") == first
    assert operation_costs("latency", 16, Checkpoints(FolderStore(tmp_path)), "other/costs") == [1.0] * 10


def test_search_space_is_printed_with_what_each_operation_costs():
    done = CliRunner().invoke(cli, ["search-space", "--channels", "2", "--k-max", "3", "--rounds", "2", "--length", "4"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:11]}
    assert tuple(rows) == PRIMITIVES
    assert (rows["conv_7"][:2], rows["conv_7"][3]) == (["32", "64"], "1.000")
    assert (rows["zero"][:2], rows["zero"][2:]) == (["0", "0"], ["0", "0.000"])
    assert "28,697,814 structures of 1 to 3" in lines[-1]
