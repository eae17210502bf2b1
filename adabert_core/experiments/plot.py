"""Test score against latency of all variants, their teacher and BERT-base, a panel per task. Goes out: one SVG file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "adabert", "font.size": 9, "axes.axisbelow": True}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_INK, _TEACHER, _BASE = "#1f6feb", "#d1242f", "#6e7781"
_PLACES = [(x, y, side) for y in (6, -11, 17, -22, 28, -33) for x, side in ((7, "left"), (-7, "right"))]  # of a label, in points


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the picture of what `table.spread` returned; bars are standard deviations."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.2 * len(tasks)), layout="constrained")
        for task, axes in zip(tasks, figure.subplots(len(tasks), squeeze=False)[:, 0], strict=True):
            _panel(axes, task, [row for row in rows if row["task"] == task])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata=_NO_METADATA)


def _panel(axes: Axes, task: str, rows: list[dict[str, Any]]) -> None:
    axes.set_xscale("log")
    axes.grid(linewidth=0.4, color="#d0d7de")
    labels = []
    for row in rows:
        spot = (row["ms"]["mean"], row["score"]["mean"])
        bars = {"xerr": row["ms"]["deviation"], "yerr": row["score"]["deviation"]}
        axes.errorbar(*spot, **bars, fmt="o", color=_INK, elinewidth=0.7, markersize=6)
        labels.append((row["variant"], spot, _INK))
    if rows[0]["teacher_ms"]:  # none of a teacher that no ONNX exporter takes
        teacher = (rows[0]["teacher_ms"]["mean"], rows[0]["teacher_score"]["mean"])
        axes.plot(*teacher, "s", color=_TEACHER, markersize=7)
        labels.append(("teacher", teacher, _TEACHER))
    base = rows[0]["bert-base_ms"]
    if base:
        axes.axvline(base["mean"], color=_BASE, linestyle="--")
        at: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate("BERT-base", (base["mean"], 0.03), (-5, 0), ha="right", color=_BASE, **at)
    axes.margins(x=0.2, y=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(title=task, xlabel="milliseconds, ONNX, one text, one thread", ylabel=f"test {rows[0]['metric'].replace('_', ' ')}")
    label(axes, labels)


def label(axes: Axes, labels: Sequence[tuple[str, tuple[float, float], str]]) -> None:
    """Writes a name beside each spot, at the first of _PLACES where it covers no spot and no other name."""
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]  # until then nothing has its place
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in (axes.transData.transform(spot) for _, spot, _ in labels)]
    for name, spot, colour in labels:
        for x, y, side in _PLACES:
            note = axes.annotate(name, spot, (x, y), textcoords="offset points", ha=side, color=colour)
            box = note.get_window_extent()
            free = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            if (free and not any(box.overlaps(other) for other in taken)) or (x, y, side) == _PLACES[-1]:
                break
            note.remove()
        taken.append(box)
