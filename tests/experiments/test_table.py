"""The arithmetic of an experiment's table, in literal numbers."""

import itertools

import pytest
from matplotlib.figure import Figure

from adabert_core.experiments.plot import draw, label
from adabert_core.experiments.table import markdown, spread, write_between_marks


def record(variant, seed, score, ms, *, draw=None, cost=4.0, teacher=0.9, task="mrpc"):
    row = {"runtime": "onnx", "threads": 1, "batch": 1, "length": 128}
    return {
        "task": task,
        "variant": variant,
        "seed": seed,
        "draw": draw,
        "metric": "f1",
        "score": score,
        "validation": score + 0.01,
        "teacher_score": teacher,
        "retention": score / teacher,
        "parameters": 4_500_000,
        "cost": cost,
        "ms": ms,
        "latency": [
            {**row, "model": "student", "p50_ms": ms},
            {**row, "model": "teacher", "p50_ms": 20.0},
            {**row, "model": "bert-base", "p50_ms": 120.0},
        ],
    }


RECORDS = [
    record("searched", 0, 0.80, 1.0),
    record("searched", 1, 0.84, 2.0, teacher=0.8),
    record("random", 0, 0.70, 2.0, draw=1),
    record("random", 0, 0.73, 2.0, draw=2),
    record("random", 1, 0.76, 2.0, draw=1, teacher=0.8),
    record("BiLSTM", 0, 0.60, 4.0, cost=None),
]


def test_mean_and_spread_over_seeds_and_draws():
    searched, drawn, peer = spread(RECORDS, "searched")
    assert [row["count"] for row in (searched, drawn, peer)] == [2, 3, 1]
    assert searched["score"] == {"mean": pytest.approx(0.82), "deviation": pytest.approx(0.0282843, abs=1e-6)}
    assert drawn["score"] == {"mean": pytest.approx(0.73), "deviation": pytest.approx(0.03)}
    assert searched["teacher_score"] == {"mean": pytest.approx(0.85), "deviation": pytest.approx(0.0707107, abs=1e-6)}
    assert drawn["teacher_score"] == searched["teacher_score"]  # a teacher counts once per seed, however many cells it had
    assert peer["score"] == {"mean": 0.6, "deviation": None}
    assert (peer["cost"], searched["bert-base_ms"]["mean"]) == (None, 120.0)


def test_differences_are_taken_seed_by_seed():
    searched, drawn, peer = spread(RECORDS, "searched")
    assert searched["difference"] is None
    assert drawn["difference"] == {"mean": pytest.approx(-0.0825), "error": pytest.approx(0.0025)}  # 0.715 - 0.80, 0.76 - 0.84
    assert peer["difference"] == {"mean": pytest.approx(-0.2), "error": None}


def test_the_first_variant_is_compared_with_only_where_it_was_run():
    same = record("twin", 0, 0.80, 1.0)
    alone, twin = record("BiLSTM", 0, 0.7, 1.0, task="rte"), spread([*RECORDS, same], "searched")[-1]
    assert twin["difference"] == {"mean": 0.0, "error": None}
    assert spread([*RECORDS, alone], "searched")[-1]["difference"] is None
    assert "against searched" in markdown([alone], "searched")


def test_table_has_a_line_per_variant_and_one_for_the_teacher():
    assert markdown(RECORDS, "searched").splitlines() == [
        "| task | variant | n | test | against searched | validation | of teacher | parameters | cost | ms, 1 x 128 | faster |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        "| mrpc (f1) | teacher | 2 | 0.8500 ± 0.0707 |  |  |  |  |  | 20.00 ± 0.00 | 6.0 |",
        "| mrpc (f1) | searched | 2 | 0.8200 ± 0.0283 |  | 0.8300 ± 0.0283 | 0.969 ± 0.114 | 4.50 ± 0.00 M | 4.0 ± 0.0 "
        "| 1.50 ± 0.71 | 80.0 |",
        "| mrpc (f1) | random | 3 | 0.7300 ± 0.0300 | -0.0825 ± 0.0025 | 0.7400 ± 0.0300 | 0.846 ± 0.091 | 4.50 ± 0.00 M "
        "| 4.0 ± 0.0 | 2.00 ± 0.00 | 60.0 |",
        "| mrpc (f1) | BiLSTM | 1 | 0.6000 | -0.2000 | 0.6100 | 0.667 | 4.50 M | - | 4.00 | 30.0 |",
    ]


def test_text_goes_between_its_marks_and_nothing_else_changes(tmp_path):
    page = tmp_path / "docs" / "RESULTS.md"
    page.parent.mkdir()
    page.write_text("# Results\n\nBefore.\n")
    write_between_marks(page, "peers", "first")
    write_between_marks(page, "control", "other")
    write_between_marks(page, "peers", r"second \1")
    assert page.read_text() == (
        "# Results\n\nBefore.\n\n<!-- experiment peers -->\nsecond \\1\n<!-- end of experiment peers -->\n\n"
        "<!-- experiment control -->\nother\n<!-- end of experiment control -->\n"
    )


def test_picture_names_variants_teacher_and_bert_base_and_is_the_same_every_time(tmp_path):
    for name in ("a.svg", "b.svg"):
        draw(spread([*RECORDS, record("searched", 0, 0.5, 1.0, task="rte")]), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    for word in ("searched", "BiLSTM", "teacher", "BERT-base", "mrpc", "rte"):
        assert word in text


def test_names_in_a_picture_cover_neither_each_other_nor_a_spot():
    axes = Figure(figsize=(6.4, 4.2), layout="constrained").subplots()
    spots = {f"variant {i}": (1.0 + 0.02 * i, 0.84 + 0.001 * (i % 2)) for i in range(5)}
    for spot in [*spots.values(), (3.0, 0.9)]:
        axes.plot(*spot, "o")
    label(axes, [(name, spot, "black") for name, spot in spots.items()])
    names = [note.get_window_extent() for note in axes.texts]
    assert [note.get_text() for note in axes.texts] == list(spots)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(names, 2))
    pixels = axes.transData.transform(list(spots.values()))
    assert not any(name.contains(*spot) for name in names for spot in pixels)


def test_teacher_that_no_exporter_takes_has_a_line_without_times_and_no_dot(tmp_path):
    untimed = record("searched", 0, 0.80, 1.0)
    untimed["latency"] = [row for row in untimed["latency"] if row["model"] != "teacher"]
    assert "| mrpc (f1) | teacher | 1 | 0.9000 |  |  |  |  |  | - | - |" in markdown([untimed], "searched")
    draw(spread([untimed]), tmp_path / "a.svg")
    assert "teacher" not in (tmp_path / "a.svg").read_text()


def test_times_are_of_the_headlines_setting_whatever_else_was_timed():
    plain, more = record("searched", 0, 0.80, 1.0), record("searched", 0, 0.80, 1.0)
    more["latency"] = [{**row, **other, "p50_ms": 7.0} for row in more["latency"] for other in ({"threads": 4}, {"length": 512})]
    more["latency"] += plain["latency"]
    assert markdown([more], "searched") == markdown([plain], "searched")
