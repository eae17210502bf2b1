"""What an experiment comes to: one record per run, their means and spread by task and variant, and a Markdown table.

Comes in: finished run folders. Goes out: records (docs/results/NAME.json) and a part of docs/RESULTS.md between two marks.
"""

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adabert_core.artifacts import read_manifest
from adabert_core.experiments.matrix import Run
from adabert_core.report import headline_latency, load_report, matching
from adabert_core.search_space import Genotype

SPREAD = "± is a standard deviation over runs; a difference is taken seed by seed and has its standard error."
FIGURES = ("score", "validation", "retention", "parameters", "cost", "ms")


def record_of(run: Run, folder: Path, command: str) -> dict[str, Any]:
    """The figures of a finished run."""
    report, _ = load_report(folder)
    student, row = report["student"], headline_latency(report)
    cost = read_manifest(folder / "search", "search").metrics["cost"]
    peer = student["architecture"] != "adabert"
    return {
        "task": run.task,
        "variant": run.variant,
        "seed": run.seed,
        "draw": run.draw + 1 if run.random else None,
        "metric": report["metric"],
        "score": student["metrics"]["test"]["onnx"]["score"],
        "scores": student["metrics"]["test"]["onnx"],
        "validation": student["metrics"]["validation"]["onnx"]["score"],
        "teacher_score": report["teacher"]["metrics"]["test"]["score"],
        "retention": report["retention"],
        "architecture": student["architecture"],
        "genotype": None if peer else str(Genotype.from_dict(student["genotype"])),
        "parameters": student["parameters"],
        "cost": None if peer else cost,
        "ms": row["p50_ms"],
        "latency": [{k: r[k] for k in ("model", "runtime", "threads", "batch", "length", "p50_ms")} for r in report["latency"]],
        "test_rows": report["test_rows"],
        "data_version": report["data_version"],
        "git_sha": read_manifest(folder / "retrain", "retrain").git_sha,
        "seconds": report["cost"]["seconds"],
        "command": command,
    }


def spread(records: Sequence[dict[str, Any]], first: str = "") -> list[dict[str, Any]]:
    """Mean and standard deviation (None for one run) of every figure by task and variant, over seeds and draws, in order.

    `difference` is the mean over seeds of what a variant scores more than the one called `first` with the same task and seed,
    and the standard error of that: teacher, targets and order of the rows are the same then, so their luck cancels.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["task"], record["variant"]), []).append(record)
    return [
        {"task": task, "variant": variant, "metric": part[0]["metric"], "count": len(part)}
        | {figure: _mean([record[figure] for record in part]) for figure in FIGURES}
        | {f"{model}_ms": _mean(_times(part, model)) for model in ("teacher", "bert-base")}
        | {"teacher_score": _mean(list({record["seed"]: record["teacher_score"] for record in part}.values()))}
        | {"difference": None if variant == first else _difference(_by_seed(part), _by_seed(groups.get((task, first), [])))}
        for (task, variant), part in groups.items()
    ]


def _by_seed(records: Sequence[dict[str, Any]]) -> dict[int, float]:
    seeds = dict.fromkeys(record["seed"] for record in records)
    return {seed: statistics.fmean(record["score"] for record in records if record["seed"] == seed) for seed in seeds}


def _difference(scores: dict[int, float], first: dict[int, float]) -> dict[str, float | None] | None:
    pairs = [scores[seed] - first[seed] for seed in scores if seed in first]
    if not pairs:
        return None
    return {"mean": statistics.fmean(pairs), "error": statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else None}


def _mean(values: Sequence[float | None]) -> dict[str, float | None] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"mean": statistics.fmean(known), "deviation": statistics.stdev(known) if len(known) > 1 else None}


def _times(records: Sequence[dict[str, Any]], model: str) -> list[float | None]:
    """A model's ONNX milliseconds in the setting that stands for the student's, in each run that timed it."""
    timed = [matching(record, model, headline_latency(record)) for record in records]
    return [row["p50_ms"] for row in timed if row]


def markdown(records: Sequence[dict[str, Any]], first: str) -> str:
    """The table: a line per task and variant, and one for each task's teacher; differences are against the variant `first`."""
    rows = spread(records, first)
    length = max(headline_latency(record)["length"] for record in records)
    heads = (
        f"task | variant | n | test | against {first} | validation | of teacher | parameters | cost | ms, 1 x {length} | faster"
    )
    lines = [f"| {heads} |", "|---" * len(heads.split("|")) + "|"]
    for task in dict.fromkeys(row["task"] for row in rows):
        name = f"{task} ({next(row['metric'] for row in rows if row['task'] == task)})"
        mine = [record for record in records if record["task"] == task]
        (teacher,) = spread([{**record, "variant": "teacher"} for record in mine])
        shown = [str(len({record["seed"] for record in mine})), _text(teacher["teacher_score"], 4), "", "", "", "", ""]
        lines.append(_line([name, "teacher", *shown, *_speed(teacher, "teacher_ms")]))
        for row in rows:
            if row["task"] == task:
                shown = [str(row["count"]), _text(row["score"], 4), _more(row["difference"]), _text(row["validation"], 4)]
                size = [_text(row["retention"], 3), _text(row["parameters"], 2, 1e6, " M"), _text(row["cost"], 1)]
                lines.append(_line([name, row["variant"], *shown, *size, *_speed(row, "ms")]))
    return "\n".join(lines)


def _text(value: dict[str, float] | None, digits: int, unit: float = 1.0, suffix: str = "") -> str:
    if value is None:
        return "-"
    spread_text = "" if value["deviation"] is None else f" ± {value['deviation'] / unit:.{digits}f}"
    return f"{value['mean'] / unit:.{digits}f}{spread_text}{suffix}"


def _more(value: dict[str, float] | None) -> str:
    if value is None:
        return ""
    return f"{value['mean']:+.4f}" + ("" if value["error"] is None else f" ± {value['error']:.4f}")


def _speed(row: dict[str, Any], key: str) -> list[str]:
    """Milliseconds, and how many times faster than BERT-base that is."""
    base, own = row["bert-base_ms"], row[key]
    return [_text(own, 2), f"{base['mean'] / own['mean']:.1f}" if base and own else "-"]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write_between_marks(page: Path, name: str, text: str) -> None:
    """Puts the text into the page where the experiment's marks are, at its end if there are none."""
    start, end = f"<!-- experiment {name} -->", f"<!-- end of experiment {name} -->"
    before = page.read_text(encoding="utf-8") if page.is_file() else "# Results\n"
    part = f"{start}\n{text}\n{end}"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    after = pattern.sub(lambda _: part, before) if pattern.search(before) else f"{before.rstrip()}\n\n{part}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(after, encoding="utf-8")
