"""The report's figures: search curves, trials, probe accuracies, accuracy against latency.

Comes in: parts of the report. Goes out: pictures.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from adabert_core.drawing import BASE, CARD, MUTED, STUDENT, TEACHER, Picture

_CURVES = (
    ("Error against the labels", {"loss_labels": "labels"}),
    ("Error against the teacher", {"loss_final": "its answer", "loss_probes": "its layers"}),
    ("Temperature", {"tau": "tau"}),
    ("Undecidedness (entropy, nats)", {"alpha_entropy": "operations", "depth_entropy": "depth"}),
    ("Expected depth (cells)", {"expected_depth": "depth"}),
    ("Expected cost (0 to 1)", {"expected_cost": "cost"}),
)
_SMOOTHED = 9


def search_curves(trace: Sequence[dict[str, float]]) -> list[Picture]:
    """One small picture for each quantity that the trace holds; none for an empty trace."""
    found = []
    for title, names in _CURVES:
        series = {label: [(p["step"], p[name]) for p in trace if p.get(name) is not None] for name, label in names.items()}
        series = {label: points for label, points in series.items() if points}
        if series:
            draw = partial(_curve, title=title, series=series)
            found.append(Picture(f"search_{next(iter(names))}", (3.2, 2.1), f"{title} over the steps of the search", draw))
    return found


def probe_figure(accuracy: Sequence[float], learnt: Sequence[int], metric: str = "accuracy") -> Picture:
    """Probe accuracy, or another metric, by teacher layer (0: embedding), the layers that the student learns from filled."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(range(len(accuracy)), accuracy, color=TEACHER, marker="o", markersize=6, markerfacecolor=CARD)
        axes.plot(learnt, [accuracy[j] for j in learnt], "o", color=TEACHER, markersize=7)
        for spot in ((0, accuracy[0]), (len(accuracy) - 1, accuracy[-1])):
            axes.annotate(f"{spot[1]:.1%}", spot, (0, 8), textcoords="offset points", ha="center")
        axes.xaxis.set_major_locator(MaxNLocator(13, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.margins(x=0.08, y=0.2)
        _padded(axes, accuracy, 0.02)
        axes.set(xlabel="teacher layer (0: word vectors)", ylabel=f"validation {metric}")

    return Picture("probes", (4.6, 2.7), f"Probe {metric} by teacher layer", draw)


def scatter_figure(points: Sequence[dict[str, Any]], base_ms: float | None, metric: str, joined: bool = False) -> Picture:
    """Score against milliseconds of student and teacher (model, runtime, ms, score, perhaps label); BERT-base is a line.

    Points of the first one's runtime are filled; where they are a frontier, `joined` draws it.
    """
    colours = {"student": STUDENT, "teacher": TEACHER}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        if base_ms is not None:
            axes.axvline(base_ms, color=BASE, linestyle="--", linewidth=1.4)
            at: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
            axes.annotate("BERT-base", (base_ms, 0.04), (-5, 0), ha="right", color=BASE, **at)
        if joined:
            frontier = sorted((p["ms"], p["score"]) for p in points if p["runtime"] == points[0]["runtime"])
            axes.step(*zip(*frontier, strict=True), where="post", color=STUDENT, linewidth=1)
        for point in points:
            main, colour = point["runtime"] == points[0]["runtime"], colours[point["model"]]
            spot = (point["ms"], point["score"])
            axes.plot(*spot, "o", color=colour, markersize=11 if main else 8, markerfacecolor=colour if main else "none")
            if main:
                axes.annotate(
                    point.get("label", point["model"]),
                    spot,
                    (0, 10),
                    textcoords="offset points",
                    ha="center",
                    weight="bold",
                    color=colour,
                )
        times = [p["ms"] for p in points] + ([] if base_ms is None else [base_ms])
        axes.set_xlim(min(times) / 2, max(times) * 2)
        _padded(axes, [p["score"] for p in points], 0.02)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel="milliseconds (\N{LEFTWARDS ARROW} faster)", ylabel=f"test {metric} (better \N{RIGHTWARDS ARROW})")

    return Picture("scatter", (4.6, 3.0), f"Test {metric} against latency", draw)


def trials_figure(trials: Sequence[dict[str, Any]]) -> Picture:
    """Validation loss against cost of the structures that the search tried: the longest trials filled, the frontier a line.

    The frontier is of the first trials, the only ones that all had the same steps. A number is a structure's cells.
    """
    longest = max(trial["steps"] for trial in trials)
    first = sorted((t["products"], t["log_loss"]) for t in trials if t["steps"] == trials[0]["steps"])
    frontier = [spot for i, spot in enumerate(first) if all(spot[1] < other[1] for other in first[:i])]
    taken = min((t for t in trials if t["steps"] == longest), key=lambda t: t["objective"])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.step(*zip(*frontier, strict=True), where="post", color=MUTED, linewidth=1)
        for trial in trials:
            spot, colour = (trial["products"], trial["log_loss"]), TEACHER if trial is taken else STUDENT
            face = colour if trial["steps"] == longest else CARD
            axes.plot(*spot, "o", color=colour, markersize=8, markerfacecolor=face)
            axes.annotate(str(trial["depth"]), spot, (7, 4), textcoords="offset points", color=colour)
        at: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "weight": "bold", "color": TEACHER}
        axes.annotate("taken", (taken["products"], taken["log_loss"]), (0, -16), **at)
        axes.margins(x=0.12, y=0.2)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set(
            xlabel="products of a position (\N{LEFTWARDS ARROW} cheaper)",
            ylabel="validation log loss (\N{LEFTWARDS ARROW} better)",
        )

    return Picture("trials", (4.6, 3.0), "Validation loss of the structures tried against their cost", draw)


def _curve(figure: Figure, title: str, series: dict[str, list[tuple[float, float]]]) -> None:
    axes = figure.subplots()
    axes.set_title(title)
    for (label, points), colour in zip(series.items(), (STUDENT, TEACHER), strict=False):
        steps, values = zip(*points, strict=True)
        if title.startswith("Error") and len(values) > 2 * _SMOOTHED:
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
            values = _smooth(values)
        axes.plot(steps, values, color=colour, label=label, linewidth=1.8, marker="o" if len(values) == 1 else "")
    if len(series) > 1:
        axes.legend(loc="best", labelcolor="linecolor")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylim(bottom=min(0, *axes.get_ylim()))
    axes.set_xlabel("step")


def _smooth(values: Sequence[float]) -> tuple[float, ...]:
    """Centred running mean; the window is narrower at the ends."""
    half = _SMOOTHED // 2
    windows = [values[max(i - half, 0) : i + half + 1] for i in range(len(values))]
    return tuple(sum(window) / len(window) for window in windows)


def _padded(axes: Axes, values: Sequence[float], least: float) -> None:
    low, high = min(values), max(values)
    pad = max((high - low) * 0.3, least)
    axes.set_ylim(low - pad, high + pad)
