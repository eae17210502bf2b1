"""What a run comes to, in words: the verdict sentence and the table that the terminal shows.

Comes in: the report as `benchmark` builds it (DESIGN section 8). Goes out: text. The HTML page is report_html's.
"""

from pathlib import Path
from typing import Any

from adabert_core.artifacts import read_json
from adabert_core.errors import UserError

SCHEMA_VERSION = 1
LENGTH = 128  # tokens of the one text whose time the verdict, the gate and `target` speak of, or as many as a teacher reads


def load_report(run: Path) -> tuple[dict[str, Any], Path]:
    """Returns the report of a run folder (or of its benchmark/ folder) and the path of its HTML page.

    Raises:
        UserError: there is no report there.
    """
    for folder in (run / "benchmark", run):
        if (folder / "report.json").is_file():
            decided = run / "register" / "report.html"
            return read_json(folder / "report.json"), decided if decided.is_file() else folder / "report.html"
    raise UserError(f"{run} holds no report: give the --output folder of a finished `adabert run`.")


def headline_latency(report: dict[str, Any], runtime: str = "onnx") -> dict[str, Any]:
    """The student's ONNX row of one text of LENGTH tokens, or of the greatest length, on one thread: the verdict speaks of it."""
    rows = [row for row in report["latency"] if row["model"] == "student" and row["runtime"] == runtime]
    return min(rows, key=lambda row: (row["threads"], row["batch"], row["length"] != LENGTH, -row["length"]))


def matching(report: dict[str, Any], model: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """The row of a model with the same runtime, threads, batch and length, if it was timed."""
    keys = ("runtime", "threads", "batch", "length")
    return next((r for r in report["latency"] if r["model"] == model and all(r[k] == row[k] for k in keys)), None)


def retention(student: float, teacher: float) -> float:
    """A student's share of its teacher's score; 0 where the teacher scores nothing."""
    return student / teacher if teacher > 0 else 0.0


def verdict(report: dict[str, Any]) -> str:
    """One sentence: what was kept, how much smaller, how much faster."""
    metric = report["metric"].replace("_", " ")
    teacher = report["teacher"]["metrics"]["test"]["score"]
    student = report["student"]["metrics"]["test"]["onnx"]["score"]
    row = headline_latency(report)
    base = report["bert_base"]["parameters"]
    smaller, faster = "", f"answers in {row['p50_ms']:.2f} ms"
    if base:
        smaller = f"has {base / report['student']['parameters']:.1f} times fewer parameters than BERT-base and "
    if "speedup_vs_bert_base" in row:
        faster = f"answers {row['speedup_vs_bert_base']:.0f} times faster ({row['p50_ms']:.2f} ms"
        faster += f" at length {row['length']}, one text, {row['threads']} thread{'s' if row['threads'] > 1 else ''})"
    return (
        f"The student keeps {report['retention']:.1%} of its teacher's test {metric} ({student:.3f} against {teacher:.3f} "
        f"on {report['test_rows']:,} texts){', ' if smaller else ' and '}{smaller}{faster}."
    )


def table(report: dict[str, Any]) -> list[list[str]]:
    """Rows of the terminal's table: model, parameters, test metric, milliseconds, speed-up."""
    row = headline_latency(report)
    found = [["", "parameters", f"test {report['metric']}", f"ms (onnx, {row['batch']} x {row['length']})", "speed-up"]]
    student, test = report["student"]["parameters"], report["student"]["metrics"]["test"]
    facts = {
        "bert-base": (report["bert_base"]["parameters"], None, row),
        "teacher": (report["teacher"]["parameters"], report["teacher"]["metrics"]["test"]["score"], row),
        "student": (student, test["onnx"]["score"], row),
        "student, int8": (student, test.get("int8", {}).get("score"), {**row, "runtime": "onnx-int8"}),
    }
    for name, (parameters, score, setting) in facts.items():
        model = name.partition(",")[0]
        timed = matching(report, model, setting)
        if parameters is None or (timed is None and name != "teacher"):  # which may be what no ONNX exporter takes
            continue
        times = timed or {}
        speedup = 1.0 if model == "bert-base" else times.get("speedup_vs_bert_base", times.get("speedup_vs_bert_base_fp32"))
        found.append(
            [
                name,
                f"{parameters / 1e6:.1f} M",
                "-" if score is None else f"{score:.4f}",
                "-" if timed is None else f"{timed['p50_ms']:.2f}",
                "-" if speedup is None else f"{speedup:.1f}x",
            ]
        )
    return found


def table_markdown(report: dict[str, Any]) -> str:
    """The table for a description in MLflow, below the verdict."""
    head, *rows = ("| " + " | ".join(line) + " |" for line in table(report))
    return "\n".join([report["verdict"], "", head, "|---" * len(table(report)[0]) + "|", *rows])


def comparable(report: dict[str, Any]) -> dict[str, float]:
    """The figures by which pipeline runs are compared: the same names and units in every one.

    Milliseconds and speed-ups are of `headline_latency`; `speedup` is against BERT-base and missing where that was not timed.
    """
    row = headline_latency(report)
    found = {
        "test_score": report["student"]["metrics"]["test"]["onnx"]["score"],
        "teacher_test_score": report["teacher"]["metrics"]["test"]["score"],
        "retention": report["retention"],
        "parameters_m": report["student"]["parameters"] / 1e6,
        "student_ms": row["p50_ms"],
    }
    speedups = {"speedup": "speedup_vs_bert_base", "speedup_vs_teacher": "speedup_vs_teacher"}
    return found | {name: row[key] for name, key in speedups.items() if key in row}


def headline(report: dict[str, Any]) -> dict[str, float]:
    """The figures by which runs are compared."""
    found = {
        "teacher_test_score": report["teacher"]["metrics"]["test"]["score"],
        "student_test_score": report["student"]["metrics"]["test"]["onnx"]["score"],
        "retention": report["retention"],
        "student_parameters": report["student"]["parameters"],
    }
    if report["student"]["int8"]:
        found["student_int8_test_score"] = report["student"]["metrics"]["test"]["int8"]["score"]
    threads = headline_latency(report)["threads"]
    for row in report["latency"]:
        alone = (row["batch"], row["threads"]) == (1, threads)
        if row["model"] == "student" and row["runtime"].startswith("onnx") and alone:
            found[f"student_{row['runtime'].replace('-', '_')}_b1_l{row['length']}_ms"] = row["p50_ms"]
            if "speedup_vs_bert_base" in row:
                found[f"speedup_vs_bert_base_l{row['length']}"] = row["speedup_vs_bert_base"]
            if "speedup_vs_bert_base_fp32" in row:
                found[f"int8_speedup_vs_bert_base_fp32_l{row['length']}"] = row["speedup_vs_bert_base_fp32"]
    return found


def findable(report: dict[str, Any]) -> dict[str, str]:
    """The tags by which runs and model versions are found; `timed` is the setting of the milliseconds."""
    row = headline_latency(report)
    return {
        "task": report["task"],
        "metric": report["metric"],
        "data_version": report["data_version"],
        "teacher": report["teacher"]["name"],
        "timed": f"{row['runtime']}, threads {row['threads']}, batch {row['batch']}, length {row['length']}",
    }


def table_text(report: dict[str, Any]) -> str:
    """The table in aligned columns."""
    return aligned(table(report))


def aligned(rows: list[list[str]]) -> str:
    """A table's rows in columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))] for row in rows]
    return "\n".join("  ".join(line) for line in lines)
