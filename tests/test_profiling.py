"""The profile of a small student: its parts, and the floor counted by hand."""

import json
import random

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from adabert_core.arithmetic import Fp32
from adabert_core.cli import cli
from adabert_core.export import export_int8, export_student
from adabert_core.profiling import profile, table_text, work
from adabert_core.search_space import deployed_products, random_genotype
from adabert_core.student_graph import StudentGraph
from tests.test_export import CONVOLUTIONS, SEP, rows_of, student
from tests.test_serving import folder  # noqa: F401 - a fixture


def test_work_is_what_the_genotype_needs(tmp_path):
    model = student(CONVOLUTIONS, vocabulary=1000)  # 8 channels, 3 classes
    export_student(model, tmp_path / "model.onnx")
    text = np.full((1, 10), 7), np.ones((1, 10), np.int64)
    operations, moved = work(tmp_path / "model.onnx", *text)
    # cell 1, both inputs the same: 5 taps, then 5 + 3; cells 2 and 3: 3 + 5, then 5 + 3
    taps = 3 * 2 + 5 + 8 + 2 * (8 + 8)  # n-grams: three, twice as many filters as channels
    summary = 2 * 10 * 4 * 8 + 2 * (4 + 4) * 8  # means of four states, which with four maxima are weighted by depth
    assert operations == 2 * 8 * 8 * 10 * taps + 2 * 24 * 3 + summary
    weights, biases = 8 * 8 * taps + 24 * 3, 8 * 8 + 3
    assert moved == 4 * (weights + biases + 10 * 8)
    export_int8(model, tmp_path / "model_int8.onnx", rows_of(pair=False), np.arange(5))
    assert work(tmp_path / "model_int8.onnx", *text)[0] == operations
    kinds = [node.op_type for node in onnx.load(tmp_path / "model_int8.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 7
    assert kinds.count("Gemm") == 1  # the classifier


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("seed", range(6))
def test_products_and_pools_of_the_deployed_graph_are_those_that_the_search_counts(seed, pair, tmp_path):
    genotype = random_genotype(random.Random(seed), 3)
    graph = StudentGraph(student(genotype, SEP if pair else None, alignment=False), Fp32(8))
    built = graph.build().graph
    shapes = {tensor.name: tensor.dims for tensor in built.initializer}
    products = [
        shapes[node.input[1]][0] // 8 for node in built.node if node.name.startswith("cell") and node.name.endswith(".product")
    ]
    assert deployed_products(genotype, pair) == sum(products) + len(graph.pools)


def test_work_on_a_pair_is_that_on_its_longer_text_and_the_comparison(tmp_path):
    ids = np.array([[2, 7, 8, 9, 10, 11, SEP, 12, SEP]])  # texts of 7 and 2 tokens with their marks
    found = []
    for alignment in (False, True):
        export_student(student(CONVOLUTIONS, SEP, alignment=alignment), tmp_path / "model.onnx")
        found.append(work(tmp_path / "model.onnx", ids, np.ones_like(ids))[0])
    compared = 2 * (2 * 7 * 16 * 8)  # both texts: rows of 2 x 8 features by (16, 8) weights
    assert found[1] - found[0] == compared + 3 * 2 * 7 * 7 * 8  # likeness, and what is like the words of each text


def test_profile_has_every_part_and_adds_up(folder):  # noqa: F811
    text = ("a superb film", "a dull film") if folder[3] else "a superb film"
    found = profile(folder[0], text, seconds=0.5)
    assert [p["precision"] for p in found] == ["fp32", "int8"]
    for p in found:
        assert p["tokens"] == (9 if folder[3] else 5)
        assert sum(p["operators_us"].values()) == pytest.approx(p["parts_us"]["session"], abs=2.0)
        assert sum(p["parts_us"].values()) == pytest.approx(p["p50_us"], rel=0.5)
        assert next(iter(p["operators_us"].values())) > 0
        assert 0 < p["floor_us"] < p["p50_us"] <= p["p90_us"]
        assert p["texts_per_second"] > 0
    lines = table_text(json.loads(json.dumps(found))).split("\n")
    assert lines[0].split() == ["us", "fp32", "int8"]
    assert len({len(line) for line in lines}) == 1


def test_profile_takes_the_folder_of_a_run(folder, tmp_path):  # noqa: F811
    (tmp_path / "retrain").symlink_to(folder[0])
    words = ["a superb film", "a dull film"] if folder[3] else ["a superb film"]
    done = CliRunner().invoke(cli, ["profile", "--model", str(tmp_path), "--seconds", "0.2", *words])
    assert done.exit_code == 0, done.output
    assert "text to label" in done.output
