"""The verdict and the table, word for word, for a report written out by hand."""

from typing import Any

import pytest

from adabert_core.artifacts import write_json
from adabert_core.errors import UserError
from adabert_core.report import (
    comparable,
    headline,
    headline_latency,
    load_report,
    matching,
    table,
    table_markdown,
    table_text,
    verdict,
)


def row(model: str, length: int, ms: float, **speedups: float) -> dict[str, Any]:
    setting = {"runtime": "onnx", "threads": 1, "batch": 1, "length": length}
    return {"model": model, **setting, "p50_ms": ms, "p90_ms": ms, "throughput": 1000 / ms, **speedups}


def small_report(bert_base: bool = True) -> dict[str, Any]:
    rows = [
        row("student", 32, 0.5),
        row("student", 128, 2.0, speedup_vs_bert_base=30.0, speedup_vs_teacher=5.0),
        row("teacher", 128, 10.0, speedup_vs_bert_base=6.0),
        row("bert-base", 128, 60.0),
        row("student", 128, 1.0, speedup_vs_bert_base_fp32=60.0) | {"runtime": "onnx-int8"},
    ]
    if not bert_base:
        rows = [{k: v for k, v in r.items() if "bert_base" not in k} for r in rows if r["model"] != "bert-base"]
    return {
        "metric": "macro_f1",
        "test_rows": 1234,
        "retention": 0.96,
        "teacher": {"parameters": 20_000_000, "metrics": {"test": {"score": 0.9}}},
        "student": {"parameters": 4_000_000, "metrics": {"test": {"onnx": {"score": 0.864}, "int8": {"score": 0.862}}}},
        "bert_base": {"parameters": 110_000_000 if bert_base else None},
        "latency": rows,
    }


def test_verdict_says_what_was_kept_how_much_smaller_and_how_much_faster() -> None:
    assert verdict(small_report()) == (
        "The student keeps 96.0% of its teacher's test macro f1 (0.864 against 0.900 on 1,234 texts), has 27.5 times fewer "
        "parameters than BERT-base and answers 30 times faster (2.00 ms at length 128, one text, 1 thread)."
    )


def test_verdict_without_bert_base_claims_no_ratio() -> None:
    assert verdict(small_report(bert_base=False)) == (
        "The student keeps 96.0% of its teacher's test macro f1 (0.864 against 0.900 on 1,234 texts) and answers in 2.00 ms."
    )


def test_table_compares_the_three_models_on_the_headline_setting() -> None:
    assert table(small_report()) == [
        ["", "parameters", "test macro_f1", "ms (onnx, 1 x 128)", "speed-up"],
        ["bert-base", "110.0 M", "-", "60.00", "1.0x"],
        ["teacher", "20.0 M", "0.9000", "10.00", "6.0x"],
        ["student", "4.0 M", "0.8640", "2.00", "30.0x"],
        ["student, int8", "4.0 M", "0.8620", "1.00", "60.0x"],
    ]


def test_table_of_a_run_without_int8_leaves_it_out() -> None:
    report = small_report()
    del report["student"]["metrics"]["test"]["int8"]
    report["latency"] = [r for r in report["latency"] if r["runtime"] != "onnx-int8"]
    assert [line[0] for line in table(report)] == ["", "bert-base", "teacher", "student"]


def test_table_leaves_out_bert_base_when_it_was_not_timed() -> None:
    assert table(small_report(bert_base=False))[1:] == [
        ["teacher", "20.0 M", "0.9000", "10.00", "-"],
        ["student", "4.0 M", "0.8640", "2.00", "-"],
        ["student, int8", "4.0 M", "0.8620", "1.00", "-"],
    ]


def test_teacher_that_no_exporter_takes_keeps_its_line_without_a_time() -> None:
    report = small_report()
    report["latency"] = [r for r in report["latency"] if r["model"] != "teacher"]
    assert table(report)[2] == ["teacher", "20.0 M", "0.9000", "-", "-"]
    assert "30 times faster" in verdict(report)


def test_table_text_aligns_numbers_to_the_right() -> None:
    lines = table_text(small_report()).split("\n")
    assert lines[1] == "bert-base         110.0 M              -               60.00      1.0x"
    assert len({len(line) for line in lines}) == 1


def test_comparable_figures_have_the_same_names_and_units_in_every_run() -> None:
    found = {"test_score": 0.864, "teacher_test_score": 0.9, "retention": 0.96, "parameters_m": 4.0, "student_ms": 2.0}
    assert comparable(small_report()) == {**found, "speedup": 30.0, "speedup_vs_teacher": 5.0}
    assert comparable(small_report(bert_base=False)) == {**found, "speedup_vs_teacher": 5.0}


def test_description_holds_the_verdict_and_the_table_as_markdown() -> None:
    lines = table_markdown({**small_report(), "verdict": "It is small."}).split("\n")
    assert lines[:2] == ["It is small.", ""]
    assert lines[3] == "|---|---|---|---|---|"
    assert lines[6] == "| student | 4.0 M | 0.8640 | 2.00 | 30.0x |"


def test_headline_is_the_student_in_onnx_for_one_text_of_128_tokens_on_one_thread() -> None:
    report = small_report()
    report["student"]["int8"] = None
    expected = headline(report)
    others = [{**row("student", 128, 1.0), **other} for other in ({"batch": 8}, {"threads": 4}, {"runtime": "torch"})]
    report["latency"] = [*others, row("student", 512, 9.0), *report["latency"]]
    assert headline_latency(report)["p50_ms"] == 2.0
    assert headline(report) == {**expected, "student_onnx_b1_l512_ms": 9.0}
    shorter = {"latency": [row("student", 32, 1.0), row("student", 64, 1.5)]}
    assert headline_latency(shorter)["p50_ms"] == 1.5
    assert table({**report, "latency": others[:1]})[0][3] == "ms (onnx, 8 x 128)"  # as older versions left them


def test_figures_that_runs_are_compared_by_are_of_onnx_wherever_else_the_models_were_timed() -> None:
    report = small_report()
    report["student"]["int8"] = None
    expected = headline(report)
    assert expected["speedup_vs_bert_base_l128"] == 30
    elsewhere = {"p50_ms": 7.0, "speedup_vs_bert_base": 2.0}
    report["latency"] += [
        line | elsewhere | {"runtime": runtime} for line in report["latency"] for runtime in ("torch", "torch-cuda")
    ]
    assert headline(report) == expected


def test_matching_needs_the_same_setting() -> None:
    report = small_report()
    assert matching(report, "teacher", report["latency"][1]) == report["latency"][2]
    assert matching(report, "teacher", report["latency"][0]) is None


def test_load_report_finds_a_run_folder_and_refuses_an_empty_one(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="holds no report"):
        load_report(tmp_path)
    (tmp_path / "benchmark").mkdir()
    write_json(tmp_path / "benchmark" / "report.json", {"seed": 7})
    assert load_report(tmp_path) == ({"seed": 7}, tmp_path / "benchmark" / "report.html")
