"""The page: complete, self-contained, well-formed, escaped, the same bytes for the same report, and robust to odd reports."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from adabert_core.plots import search_curves
from adabert_core.report import verdict
from adabert_core.report_html import (
    bytes_text,
    chance,
    confusions,
    seconds_text,
    shortened,
    stage_costs,
    tiles,
    write_html,
    write_pictures,
)

VOID = {"meta", "br", "link", "img"}
EVIL = '<img src="http://evil.example/x" onerror=alert(1)> & "quoted"'


class Balanced(HTMLParser):
    """Collects open tags, attributes and the text of everything that is not style."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def latency(bert_base: bool) -> list[dict[str, Any]]:
    found = []
    times = {"student": 2.0, "teacher": 10.0, "bert-base": 60.0}
    for runtime, (model, ms) in itertools.product(("onnx", "torch"), times.items()):
        line: dict[str, Any] = {"model": model, "runtime": runtime, "threads": 2, "batch": 1, "length": 128}
        line |= {"p50_ms": ms, "p90_ms": ms * 1.25, "throughput": 1000 / ms}
        if model != "teacher":
            line["speedup_vs_teacher"] = 10 / ms
        if model != "bert-base" and bert_base:
            line["speedup_vs_bert_base"] = 60 / ms
        if model != "bert-base" or bert_base:
            found.append(line)
    return found


def trace_point(step: int) -> dict[str, float]:
    losses = ("loss_labels", "loss_probes", "loss_final", "loss_efficiency")
    names = ("tau", "alpha_entropy", "depth_entropy", "expected_depth", "expected_cost", *losses)
    return {"step": float(step), **{name: 1.0 / (step + i + 1) for i, name in enumerate(names)}}


def edges(*kept: tuple[int, int, str]) -> list[dict[str, Any]]:
    return [{"source": s, "target": t, "operation": o} for s, t, o in kept]


def make_report(classes: int = 2, bert_base: bool = True, **changes: Any) -> dict[str, Any]:
    matrix = [[9 if i == j else (i + j) % 3 for j in range(classes)] for i in range(classes)]
    kept = [(0, 2, "conv_3"), (1, 2, "dil_conv_5"), (0, 3, "max_pool_3"), (2, 3, "identity"), (1, 4, "avg_pool_3")]
    cell = edges(*kept, (2, 4, "conv_7"))
    report = {
        "schema_version": 1,
        "task": "reviews",
        "metric": "accuracy",
        "labels": ["bad <b>", "good"] if classes == 2 else [f"class {i} <i>" for i in range(classes)],
        "data_version": "v-4711",
        "seed": 42,
        "test_rows": 1234,
        "teacher": {"name": "builtin:minilm", "parameters": 20_000_000, "metrics": {"test": {"score": 0.9}}},
        "student": {
            "parameters": 4_000_000,
            "bytes_on_disk": {"fp32": 16_000_000},
            "genotype": {"schema_version": 1, "depth": 3, "edges": cell},
            "metrics": {"test": {"onnx": {"score": 0.864}, "torch": {"score": 0.864}}},
        },
        "bert_base": {"parameters": 110_000_000 if bert_base else None, "weights": "random"},
        "retention": 0.96,
        "latency": latency(bert_base),
        "cost": {
            "seconds": {"search": 4000, "prepare_data": 1.5},
            "peak_memory_bytes": {"search": 2.5e9, "prepare_data": 3e8, "benchmark": 1e9},
        },
        "reproduction": {
            "settings": {"seed": 42, "search": {"k_max": 4}, "data": {"source": "rows.csv"}},
            "version": "1.2.3",
            "git_sha": "abc1234",
            "packages": {"torch": "2.0"},
            "machine": "Some processor, 2 cores",
        },
        "probe_accuracy": [0.5, 0.6, 0.7],
        "search_trace": [trace_point(step) for step in range(30)],
        "confusion": {"teacher": matrix, "student": matrix},
        "student_errors": [{"text": f"fine ||| {EVIL}", "label": "good", "student": "bad <b>", "confidence": 0.93}],
        **changes,
    }
    return {**report, "verdict": verdict(report)}


def page_of(report: dict[str, Any], folder: Path) -> tuple[str, Balanced]:
    write_html(report, folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return page, parser


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Balanced]:
    return page_of(make_report(), tmp_path_factory.mktemp("usual"))


def test_page_holds_every_part_of_the_report(usual: tuple[str, Balanced]) -> None:
    page, parser = usual
    words = " ".join(" ".join(parser.words).split())
    assert f"<h1>{make_report()['verdict']}</h1>".replace("'", "&#39;") in page
    tiles_shown, details = (
        ("96.0%", "30.0×", "27.5×", "2.00 ms"),
        ("v-4711", "42", "1,234", "110.0 M", "1 h 06 min", "2.5 GB", "search: {k_max: 4}"),
    )
    for expected in (*tiles_shown, *details, "16.0 MB on disk (fp32)"):
        assert expected in words
    assert parser.tags.count("svg") == 9  # genotype, probes, scatter, six curves


def test_trials_are_shown_best_first_and_drawn(tmp_path: Path) -> None:
    trials = [
        {"depth": depth, "cell": f"0>2 conv_{depth}", "steps": 250, "log_loss": loss, "products": 12, "objective": loss + 0.01}
        for depth, loss in ((3, 0.5), (5, 0.25))
    ]
    _, parser = page_of({**make_report(search_trace=[]), "trials": trials}, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.index("0.2500") < page.index("0.5000")
    assert "The last word on depth and cell" in page
    assert "taken" in parser.words


def test_same_report_gives_the_same_bytes(usual: tuple[str, Balanced], tmp_path: Path) -> None:
    write_html(make_report(), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == usual[0].encode("utf-8")


def test_every_figure_is_a_picture_too_of_the_same_bytes_each_time(tmp_path: Path) -> None:
    report = make_report(search_trace=[{"step": 0.0, "tau": 1.0}])
    first, second = (write_pictures(report, tmp_path / name) for name in ("first", "second"))
    assert sorted(path.name for path in first) == ["cell.png", "probes.png", "scatter.png", "search_tau.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in first)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_chance_is_told_for_accuracy_only() -> None:
    assert chance(make_report()) == pytest.approx(1.96 * (0.864 * 0.136 / 1234) ** 0.5)
    assert chance({**make_report(), "metric": "macro_f1"}) is None


def test_warnings_stand_under_the_verdict_and_only_if_there_are_any(usual: tuple[str, Balanced], tmp_path: Path) -> None:
    page, _ = page_of(make_report(warnings=["the teacher is < chance"]), tmp_path)
    assert page.index("<h1>") < page.index("<li>the teacher is &lt; chance</li>") < page.index("At a glance")
    assert "What looks wrong" not in usual[0]


def test_page_is_self_contained(usual: tuple[str, Balanced]) -> None:
    page, parser = usual
    assert "script" not in parser.tags
    assert not {"link", "img", "iframe", "object", "embed"} & set(parser.tags)
    assert [v for n, v in parser.attributes if n.endswith(("src", "href")) and not v.startswith("#")] == []
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_page_escapes_texts_and_labels(usual: tuple[str, Balanced]) -> None:
    page, parser = usual
    assert EVIL not in page
    assert EVIL in parser.words
    assert "bad <b>" in parser.words
    assert parser.tags.count("b") == 4  # the tiles' figures


def test_figure_ids_are_unique_and_every_reference_is_met(usual: tuple[str, Balanced]) -> None:
    _, parser = usual
    ids = [value for name, value in parser.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    references = {v[1:] for n, v in parser.attributes if n == "href"}
    references |= {m for _, v in parser.attributes for m in re.findall(r"url\(#([^)]*)\)", v)}
    assert references <= set(ids)


def test_figures_take_their_colours_from_the_page(usual: tuple[str, Balanced]) -> None:
    page, _ = usual
    used, defined = set(re.findall(r"var\((--[a-z]+)\)", page)), set(re.findall(r"(--[a-z]+):", page))
    assert used <= defined
    assert re.findall(r"#[0-9a-f]{6}\b", page[page.index("<body>") :]) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"bert_base": False, "search_trace": []}, "BERT-base was not timed in this run."),
        ({"search_trace": []}, "The search left no trace to draw."),
        ({"search_trace": [trace_point(0)]}, "Expected depth (cells)"),
        (
            {"student_errors": [], "search_trace": []},
            "None: on the test split the student is wrong only where the teacher is wrong too.",
        ),
        ({"probe_accuracy": [], "search_trace": []}, "Quality against speed"),
        ({"classes": 20, "search_trace": []}, "the blue diagonal is right"),
        ({"classes": 21, "search_trace": []}, "The most frequent of all confusions between 21 classes"),
    ],
)
def test_odd_reports_have_a_page_too(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    _, parser = page_of(make_report(**changes), tmp_path)
    assert expected in " ".join(" ".join(parser.words).split())


def test_page_without_bert_base_compares_with_the_teacher() -> None:
    shown = [(tile["value"], tile["name"]) for tile in tiles(make_report(bert_base=False))]
    assert shown == [
        ("96.0%", "of the teacher's accuracy kept"),
        ("5.0×", "faster than its teacher"),
        ("5.0×", "smaller than its teacher"),
        ("2.00 ms", "for one text"),
    ]


def test_many_classes_show_their_largest_confusions() -> None:
    size = 25
    teacher, student = ([[0] * size for _ in range(size)] for _ in range(2))
    student[3][7], teacher[1][2], student[5][5] = 6, 4, 100
    found = confusions([str(i) for i in range(size)], {"teacher": teacher, "student": student})
    assert found["matrices"] == []
    assert found["largest"] == [
        {"true": "3", "answer": "7", "teacher": 0, "student": 6, "of": 6},
        {"true": "1", "answer": "2", "teacher": 4, "student": 0, "of": 0},
    ]


def test_confusion_shares_are_of_the_row_and_survive_an_empty_class() -> None:
    found = confusions(["a", "b"], {"teacher": [[3, 1], [0, 0]], "student": [[4, 0], [0, 0]]})
    assert found["matrices"][0]["rows"] == [[(3, 0.75), (1, 0.25)], [(0, 0.0), (0, 0.0)]]


def test_long_texts_are_cut_and_say_so() -> None:
    assert shortened("a ||| b") == {"parts": ["a", "b"], "left_out": 0}
    assert shortened("x" * 1000) == {"parts": ["x" * 400], "left_out": 600}


def test_untimed_stage_keeps_its_memory() -> None:
    assert stage_costs({"seconds": {"search": 2.0}, "peak_memory_bytes": {"benchmark": 7, "search": 5}}) == [
        {"stage": "search", "seconds": 2.0, "share": 1.0, "bytes": 5},
        {"stage": "benchmark", "seconds": None, "share": 0.0, "bytes": 7},
    ]


def test_times_and_sizes_read_as_people_say_them() -> None:
    assert [seconds_text(s) for s in (4.23, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 05 min"]
    assert [bytes_text(b) for b in (1.25e9, 9_600_000)] == ["1.2 GB", "9.6 MB"]


def test_curves_are_drawn_only_for_what_the_trace_holds() -> None:
    assert len(search_curves([{"step": 0.0, "tau": 1.0}, {"step": 1.0, "tau": 0.5}])) == 1
    assert search_curves([]) == []
