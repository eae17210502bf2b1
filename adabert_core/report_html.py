"""The report as one HTML page that needs nothing else: no script, no request, readable on a phone and in print.

Comes in: the report as `benchmark` builds it (DESIGN section 8). Goes out: report.html and its figures as pictures/*.png; the
same report gives the same bytes.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from adabert_core import plots
from adabert_core.cell_figure import genotype_figure
from adabert_core.drawing import COLOURS, Picture
from adabert_core.pages import rendered
from adabert_core.report import headline_latency, matching, table
from adabert_core.reproduce import settings_text
from adabert_core.search_space import matched_layer
from adabert_core.stages import STAGES
from adabert_core.tasks.classification import MATRIX_CLASSES

_CLASSES_SHOWN = 20
_CONFUSIONS = 10
_TEXT_SHOWN = 400


def write_html(report: dict[str, Any], folder: Path, decision: dict[str, Any] | None = None) -> None:
    """Writes report.html into the folder, with what the gate decided once that is known."""
    values = {
        "report": report,
        "colours": COLOURS,
        "decision": decision,
        "metric": report["metric"].replace("_", " "),
        "row": headline_latency(report),
        "tiles": tiles(report),
        "table": table(report),
        "chance": chance(report),
        "figures": figures(report),
        "latency": latency_rows(report),
        "confusion": confusions(report["labels"], report["confusion"]),
        "errors": [{**error, **shortened(error["text"])} for error in report["student_errors"]],
        "cost": stage_costs(report["cost"]),
        "settings": settings_text(report["reproduction"]["settings"]) if "reproduction" in report else "",
    }
    page = rendered("report.html.j2", values, {"seconds": seconds_text, "bytes": bytes_text, "count": "{:,}".format})
    (folder / "report.html").write_text(page, encoding="utf-8", newline="\n")


def write_pictures(report: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the page's figures as PNG files into the folder and returns them."""
    drawn = figures(report)
    pictures = [*drawn["curves"], *(part for part in drawn.values() if isinstance(part, Picture))]
    folder.mkdir()
    return [picture.save(folder) for picture in pictures]


def tiles(report: dict[str, Any]) -> list[dict[str, str]]:
    """The headline figures: value, what it is, and against what."""
    row, student, base = headline_latency(report), report["student"], report["bert_base"]["parameters"]
    peer, parameters = ("BERT-base", base) if base else ("its teacher", report["teacher"]["parameters"])
    scores = report["teacher"]["metrics"]["test"]["score"], student["metrics"]["test"]["onnx"]["score"]
    found = [
        {
            "value": f"{report['retention']:.1%}",
            "name": f"of the teacher's {report['metric'].replace('_', ' ')} kept",
            "detail": f"{scores[1]:.3f} against {scores[0]:.3f}",
        }
    ]
    for key, name in (("speedup_vs_bert_base", "BERT-base"), ("speedup_vs_teacher", "its teacher")):
        if key in row:
            against = matching(report, name.lower().removeprefix("its "), row)
            detail = f"{row['p50_ms']:.2f} against {against['p50_ms']:.2f} ms" if against else ""
            found.append({"value": f"{row[key]:.1f}\N{MULTIPLICATION SIGN}", "name": f"faster than {name}", "detail": detail})
            break
    found.append(
        {
            "value": f"{parameters / student['parameters']:.1f}\N{MULTIPLICATION SIGN}",
            "name": f"smaller than {peer}",
            "detail": f"{student['parameters'] / 1e6:.1f} against {parameters / 1e6:.1f} million parameters",
        }
    )
    found.append(
        {
            "value": f"{row['p50_ms']:.2f} ms",
            "name": "for one text" if row["batch"] == 1 else f"for {row['batch']} texts",
            "detail": f"{row['length']} tokens, {row['threads']} CPU thread{'s' if row['threads'] > 1 else ''}, ONNX",
        }
    )
    return found


def chance(report: dict[str, Any]) -> float | None:
    """Half of the 95 % interval of the student's test accuracy as an estimate for other such texts; None of other metrics."""
    if report["metric"] != "accuracy":
        return None
    score = report["student"]["metrics"]["test"]["onnx"]["score"]
    return 1.96 * math.sqrt(score * (1 - score) / report["test_rows"])


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """The pictures by what they show, None where there is nothing to draw; curves are a list, learnt the layers imitated."""
    genotype, accuracy, trials = report["student"]["genotype"], report["probe_accuracy"], report.get("trials")
    layers = {matched_layer(m, genotype["depth"], len(accuracy) - 1) for m in range(genotype["depth"] + 1)} if accuracy else set()
    learnt = sorted(layers)
    return {
        "genotype": genotype_figure(genotype) if genotype["depth"] else None,
        "curves": plots.search_curves(report["search_trace"]),
        "trials": plots.trials_figure(trials) if trials else None,
        "probes": plots.probe_figure(accuracy, learnt, report.get("probe_metric", "accuracy").replace("_", " "))
        if accuracy
        else None,
        "learnt": learnt,
        "scatter": _scatter(report),
    }


def _scatter(report: dict[str, Any]) -> Picture:
    row = headline_latency(report)
    teacher, student = report["teacher"]["metrics"]["test"]["score"], report["student"]["metrics"]["test"]
    points = []
    for runtime in ("onnx", "torch"):
        for model in ("student", "teacher"):
            timed = matching(report, model, {**row, "runtime": runtime})
            score = teacher if model == "teacher" else student.get(runtime, student["onnx"])["score"]
            if timed:
                points.append({"model": model, "runtime": runtime, "ms": timed["p50_ms"], "score": score})
    base = matching(report, "bert-base", row)
    return plots.scatter_figure(points, base["p50_ms"] if base else None, report["metric"].replace("_", " "))


def latency_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every latency row, the models of one setting next to each other, the fastest first."""
    return sorted(report["latency"], key=lambda r: (r["runtime"], r["threads"], r["batch"], r["length"], r["p50_ms"]))


def confusions(labels: list[str], matrices: dict[str, list[list[int]]]) -> dict[str, Any]:
    """Teacher's and student's matrices with each row's shares, or their largest confusions when there are many classes.

    Nothing where a task has no classes; of more than MATRIX_CLASSES the report holds [class, answer, count] only.
    """
    if not any(matrices.values()):
        return {}
    if len(labels) <= _CLASSES_SHOWN:
        shown = [
            {"model": model, "rows": [[(count, count / max(sum(row), 1)) for count in row] for row in matrices[model]]}
            for model in ("teacher", "student")
        ]
        return {"labels": labels, "matrices": shown, "largest": []}
    teacher, student = (_counted(matrices[model], len(labels)) for model in ("teacher", "student"))
    totals = Counter({i: 0 for i in range(len(labels))})
    for (i, _), count in student.items():
        totals[i] += count
    pairs = sorted(((i, j) for i, j in {*teacher, *student} if i != j), key=lambda p: (-max(student[p], teacher[p]), p))
    largest = [
        {"true": labels[i], "answer": labels[j], "teacher": teacher[i, j], "student": student[i, j], "of": totals[i]}
        for i, j in pairs[:_CONFUSIONS]
    ]
    return {"labels": labels, "matrices": [], "largest": largest}


def _counted(matrix: list[list[int]], classes: int) -> Counter[tuple[int, int]]:
    """Counts by (class, answer), without zeros, of either form of a matrix."""
    if classes > MATRIX_CLASSES:
        return Counter({(i, j): count for i, j, count in matrix})
    return Counter({(i, j): count for i, row in enumerate(matrix) for j, count in enumerate(row) if count})


def shortened(text: str) -> dict[str, Any]:
    """The beginning of a text, as one part or two for a pair, and how many characters are left out."""
    shown = text[:_TEXT_SHOWN]
    return {"parts": shown.split(" ||| ", 1), "left_out": len(text) - len(shown)}


def stage_costs(cost: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """One row per stage, in their order, with its share of all seconds; a stage that was not timed has None."""
    seconds, memory = cost["seconds"], cost["peak_memory_bytes"]
    total = sum(seconds.values()) or 1.0
    return [
        {"stage": s, "seconds": seconds.get(s), "share": seconds.get(s, 0) / total, "bytes": memory.get(s)}
        for s in dict.fromkeys([*STAGES, *seconds, *memory])
        if s in seconds or s in memory
    ]


def seconds_text(seconds: float) -> str:
    """'2 h 05 min', '3 min 20 s' or '4.2 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def bytes_text(count: float) -> str:
    """'1.2 GB' or '9.6 MB'."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
