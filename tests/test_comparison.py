import json

import pytest

from adabert_core.comparison import case_row, compare, dominates, grouped, track_cases


def report(score, ms, version="v1"):
    row = {"runtime": "onnx", "threads": 1, "batch": 1, "length": 32}
    return {
        "task": "classification",
        "data_version": version,
        "metric": "accuracy",
        "retention": score / 0.9,
        "student": {
            "metrics": {"test": {"onnx": {"score": score}}},
            "parameters": 4_000_000,
            "genotype": {"depth": 3},
        },
        "teacher": {"name": "t", "metrics": {"test": {"score": 0.9}}},
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


class Kept:
    """A tracker's interface that keeps what it is told."""

    def __init__(self):
        self.runs, self.parent = [], {}

    def start(self, stage, config, tags=None):
        self.runs.append({"name": stage, "tags": tags or {}, "files": []})

    def metrics(self, values):
        self.runs[-1]["metrics"] = values

    def artifact(self, path, parent=False):
        self.runs[-1]["files"].append((path.name, parent))

    def headline(self, figures, tags, description):
        self.parent = {"figures": figures, "tags": tags, "description": description}

    def finish(self, status):
        self.runs[-1]["status"] = status


def test_cases_are_tracked_with_comparable_figures_and_their_pareto_set(tmp_path):
    found = compare(
        ["a", "b", "c"], folders(tmp_path, *(report(*r) for r in ((0.85, 1.0), (0.88, 2.0), (0.86, 3.0)))), tmp_path / "o"
    )
    tracker = Kept()
    track_cases(tracker, found["rows"], tmp_path / "o")
    first, *cases = tracker.runs
    assert first["files"] == [(name, True) for name in ("comparison.html", "comparison.json", "scatter.png")]
    assert [(run["name"], run["tags"]["pareto"]) for run in cases] == [
        ("case a", "true"),
        ("case b", "true"),
        ("case c", "false"),
    ]
    assert cases[1]["metrics"] == {
        "test_score": 0.88,
        "teacher_test_score": 0.9,
        "retention": pytest.approx(0.88 / 0.9),
        "parameters_m": 4.0,
        "student_ms": 2.0,
        "speedup": 20.0,
    }
    assert tracker.parent["figures"] == cases[1]["metrics"]
    assert "Pareto set: a, b. The figures are of b." in tracker.parent["description"]
    assert {run["status"] for run in tracker.runs} == {"FINISHED"}
