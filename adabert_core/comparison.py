"""Several runs side by side: a sweep's table, its Pareto set, and the spread over seeds.

Comes in: names of cases and the directories their benchmarks wrote. Goes out: comparison.json, comparison.html and its picture.
"""

import re
import statistics
from pathlib import Path
from typing import Any

from adabert_core import plots
from adabert_core.artifacts import write_json
from adabert_core.drawing import COLOURS
from adabert_core.pages import rendered
from adabert_core.report import comparable, findable, headline_latency, load_report, matching
from adabert_core.tracking import Tracker

_SEED = re.compile(r"\s*\bseed=\S+")


def compare(names: list[str], benchmarks: list[Path], output: Path) -> dict[str, Any]:
    """Returns rows (one per case), groups (cases that differ in nothing but the seed) and the metric; writes them all."""
    reports = [load_report(path)[0] for path in benchmarks]
    rows = [case_row(name, report) for name, report in zip(names, reports, strict=True)]
    for row in rows:
        row["pareto"] = not any(dominates(other, row) for other in rows)
    found = {"rows": rows, "groups": grouped(rows)}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "comparison.json", found)
    base = matching(reports[0], "bert-base", headline_latency(reports[0]))
    points = [
        {
            "model": "student",
            "runtime": "onnx" if row["pareto"] else "",
            "ms": row["p50_ms"],
            "score": row["score"],
            "label": row["name"],
        }
        for row in sorted(rows, key=lambda row: not row["pareto"])
    ]
    metric = reports[0]["metric"].replace("_", " ")
    scatter = plots.scatter_figure(points, base["p50_ms"] if base else None, metric, joined=True)
    page = rendered("comparison.html.j2", {"metric": metric, "colours": COLOURS, "scatter": scatter.svg, **found})
    (output / "comparison.html").write_text(page, encoding="utf-8", newline="\n")
    scatter.save(output)
    return found


def case_row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """The figures by which cases are compared."""
    row = headline_latency(report)
    return {
        "name": name,
        "data_version": report["data_version"],
        "score": report["student"]["metrics"]["test"]["onnx"]["score"],
        "teacher_score": report["teacher"]["metrics"]["test"]["score"],
        "retention": report["retention"],
        "parameters": report["student"]["parameters"],
        "depth": report["student"]["genotype"]["depth"],
        "p50_ms": row["p50_ms"],
        "speedup_vs_bert_base": row.get("speedup_vs_bert_base"),
        "figures": comparable(report),
        "tags": findable(report),
    }


def track_cases(tracker: Tracker, rows: list[dict[str, Any]], folder: Path) -> None:
    """Writes a child run per case, with the figures of a pipeline run and the tag pareto, and the comparison itself.

    The cases share one parent, which ends with the figures of the case that scores best.
    """
    best = max(rows, key=lambda row: row["score"])
    tracker.start("compare_cases", {"cases": len(rows)})
    for path in sorted(folder.iterdir()):
        tracker.artifact(path, parent=True)
    worth = ", ".join(row["name"] for row in rows if row["pareto"])
    tracker.headline(
        best["figures"], best["tags"], f"A sweep of {len(rows)} cases; Pareto set: {worth}. The figures are of {best['name']}."
    )
    tracker.finish("FINISHED")
    for row in rows:
        tracker.start(f"case {row['name']}", {}, {**row["tags"], "case": row["name"], "pareto": str(row["pareto"]).lower()})
        tracker.metrics(row["figures"])
        tracker.finish("FINISHED")


def dominates(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """True where `one` is at least as good and as fast on the same data, and better in one of both."""
    if one["data_version"] != other["data_version"]:
        return False
    at_least = one["score"] >= other["score"] and one["p50_ms"] <= other["p50_ms"]
    return at_least and (one["score"] > other["score"] or one["p50_ms"] < other["p50_ms"])


def grouped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation of score, retention and milliseconds over the seeds of a setting, settings in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(_SEED.sub("", row["name"]).strip() or "all", []).append(row)
    return [
        {"name": name, "count": len(part)}
        | {
            key: {
                "mean": statistics.fmean(row[key] for row in part),
                "deviation": statistics.stdev(row[key] for row in part) if len(part) > 1 else None,
            }
            for key in ("score", "retention", "p50_ms")
        }
        for name, part in found.items()
    ]
