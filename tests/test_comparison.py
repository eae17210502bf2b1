import json

import pytest

from adabert_core.comparison import case_row, compare, dominates, grouped


def report(score, ms, version="v1"):
    row = {"runtime": "onnx", "threads": 1, "batch": 1, "length": 32}
    return {
        "data_version": version,
        "metric": "accuracy",
        "retention": score / 0.9,
        "student": {
            "metrics": {"test": {"onnx": {"score": score}}},
            "parameters": 4_000_000,
            "genotype": {"depth": 3},
        },
        "teacher": {"metrics": {"test": {"score": 0.9}}},
        "latency": [
            {**row, "model": "student", "p50_ms": ms, "speedup_vs_bert_base": 40 / ms},
            {**row, "model": "bert-base", "p50_ms": 40.0},
        ],
    }


def folders(tmp_path, *reports):
    found = []
    for i, content in enumerate(reports):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "report.json").write_text(json.dumps(content))
        found.append(tmp_path / str(i))
    return found


def test_pareto_set_is_what_nothing_else_beats_on_the_same_data(tmp_path):
    reports = [report(0.85, 1.0), report(0.88, 2.0), report(0.86, 3.0), report(0.80, 9.0, "v2"), report(0.85, 1.0)]
    found = compare([f"case {i}" for i in range(5)], folders(tmp_path, *reports), tmp_path / "out")
    assert [row["pareto"] for row in found["rows"]] == [True, True, False, True, True]
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "4 of 5 students are worth having" in page
    assert "case 2" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("xmlns", "")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == found


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0.9, 1.0), (0.8, 2.0), True),
        ((0.9, 1.0), (0.9, 1.0), False),
        ((0.9, 2.0), (0.8, 1.0), False),
        ((0.9, 1.0), (0.9, 2.0), True),
    ],
)
def test_dominates(one, other, expected):
    assert dominates(case_row("a", report(*one)), case_row("b", report(*other))) is expected


def test_cases_that_differ_in_the_seed_are_one_group_with_its_spread():
    rows = [case_row(f"seed={s} search.beta={b}", report(score, 1.0)) for b, s, score in ((1, 0, 0.8), (1, 1, 0.9), (2, 0, 0.7))]
    first, second = grouped(rows)
    assert (first["name"], first["count"]) == ("search.beta=1", 2)
    assert first["score"] == {"mean": pytest.approx(0.85), "deviation": pytest.approx(0.0707107, abs=1e-6)}
    assert (second["name"], second["score"]) == ("search.beta=2", {"mean": 0.7, "deviation": None})


def test_names_are_escaped(tmp_path):
    compare(["<script>"], folders(tmp_path, report(0.8, 1.0)), tmp_path / "out")
    assert "<script>" not in (tmp_path / "out" / "comparison.html").read_text()
