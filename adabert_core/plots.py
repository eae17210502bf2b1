"""The report's figures: curves, probe accuracies, accuracy against latency. The genotype is drawn here as well.

Comes in: parts of the report. Goes out: inline SVG whose colours are the page's CSS variables, so that one drawing
serves light, dark and print; the same input always gives the same text.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from adabert_core.search_space import INPUTS

# Stand-ins, replaced by var(--name) in the finished SVG; each occurs nowhere else in matplotlib's output.
_COLOURS = ("ink", "muted", "grid", "student", "teacher", "base", "conv", "pool", "plain", "card")
_STAND_INS = {name: f"#0a0b{i:02x}" for i, name in enumerate(_COLOURS)}
INK, MUTED, GRID, STUDENT, TEACHER, BASE, CONV, POOL, PLAIN, CARD = _STAND_INS.values()
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "adabert",
    "font.size": 9,
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), GRID),
    **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), MUTED),
    **dict.fromkeys(("axes.titlecolor", "text.color"), INK),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.linewidth": 0.6,
    "legend.handlelength": 1.2,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_CURVES = (
    ("Error against the labels", {"loss_labels": "labels"}),
    ("Error against the teacher", {"loss_final": "its answer", "loss_probes": "its layers"}),
    ("Temperature", {"tau": "tau"}),
    ("Undecidedness (entropy, nats)", {"alpha_entropy": "operations", "depth_entropy": "depth"}),
    ("Expected depth (cells)", {"expected_depth": "depth"}),
    ("Expected cost (0 to 1)", {"expected_cost": "cost"}),
)
_KINDS = {
    "conv": "convolution, {} wide",
    "dil_conv": "dilated convolution, {} wide",
    "max_pool": "max of {}",
    "avg_pool": "mean of {}",
}
_OTHERS = {"identity": "unchanged", "zero": "nothing"}
_SMOOTHED = 9


def plain_name(operation: str) -> str:
    """'convolution, 5 wide' for conv_5: an operation's name for people who do not know the search space."""
    kind, _, width = operation.rpartition("_")
    return _KINDS[kind].format(width) if kind in _KINDS else _OTHERS.get(operation, operation)


def search_curves(trace: Sequence[dict[str, float]]) -> list[str]:
    """One small SVG for each quantity that the trace holds; none for an empty trace."""
    found = []
    for i, (title, names) in enumerate(_CURVES):
        series = {label: [(p["step"], p[name]) for p in trace if p.get(name) is not None] for name, label in names.items()}
        series = {label: points for label, points in series.items() if points}
        if series:
            draw = partial(_curve, title=title, series=series)
            found.append(_svg(f"curve{i}", (3.2, 2.1), f"{title} over the steps of the search", draw))
    return found


def probe_figure(accuracy: Sequence[float], learnt: Sequence[int], metric: str = "accuracy") -> str:
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

    return _svg("probes", (4.6, 2.7), f"Probe {metric} by teacher layer", draw)


def scatter_figure(points: Sequence[dict[str, Any]], base_ms: float | None, metric: str) -> str:
    """Score against milliseconds of student and teacher (model, runtime, ms, score, perhaps label); BERT-base is a line."""
    colours = {"student": STUDENT, "teacher": TEACHER}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        if base_ms is not None:
            axes.axvline(base_ms, color=BASE, linestyle="--", linewidth=1.4)
            at: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
            axes.annotate("BERT-base", (base_ms, 0.04), (-5, 0), ha="right", color=BASE, **at)
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

    return _svg("scatter", (4.6, 3.0), f"Test {metric} against latency", draw)


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


def _svg(name: str, inches: tuple[float, float], alt: str, draw: Callable[[Figure], None]) -> str:
    """Draws and returns an <svg> element; `name` keeps its ids apart from those of the page's other figures."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # would style the whole page
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for variable, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, f"var(--{variable})")
    view = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :].rstrip()
    return f'<svg {view[0] if view else ""} role="img" aria-label="{escape(alt)}">{body}'.replace("xlink:href", "href")


_WIDTH, _HEIGHT, _CENTRE = 350, 430, 172
_NODES = {2: ("A", 146), 3: ("B", 242), 4: ("C", 338)}  # inner node -> letter, height on the page
_LANES = {("left", 0): 24, ("left", 2): 40, ("right", 2): 304, ("right", 1): 320}  # (side, source) -> x of its way down
_PILLS = {"left": 110, "right": 234}
_BUS = 334


def genotype_figure(genotype: dict[str, Any]) -> str:
    """The cell as a graph: inputs at the top, an operation on every edge, the output at the bottom, times K cells."""
    edges = [(int(e["source"]), int(e["target"]), str(e["operation"])) for e in genotype["edges"]]
    names = {0: "input 1", 1: "input 2", **{node: letter for node, (letter, _) in _NODES.items()}}
    alt = "; ".join(f"{names[s]} to {names[t]}: {plain_name(o)}" for s, t, o in edges)
    return _svg("cell", (_WIDTH / 72, _HEIGHT / 72), alt, lambda figure: _cell(figure, edges, int(genotype["depth"])))


def _cell(figure: Figure, edges: list[tuple[int, int, str]], depth: int) -> None:
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
    axes.axis("off")
    _box(axes, (_WIDTH / 2, 220), (344, 316), "", CARD, GRID)
    axes.text(16, 364, f"\N{MULTIPLICATION SIGN} {depth} cell{'s' if depth != 1 else ''}", weight="bold", size=13, va="center")
    for target, (letter, y) in _NODES.items():
        incoming = sorted((s, o) for s, t, o in edges if t == target)
        sides = ("right", "left") if incoming and incoming[0][0] == 1 else ("left", "right")
        end = (_CENTRE, 396) if target == max(_NODES) else (_CENTRE + 72, 410)
        _line(axes, [(_CENTRE, y), end] if end[0] == _CENTRE else [(_CENTRE, y), (_BUS, y), (_BUS, 410), end], "--")
        for (source, operation), side in zip(incoming, sides, strict=False):
            _edge(axes, source, target, side, operation)
        axes.add_patch(Circle((_CENTRE, y), 13, facecolor=CARD, edgecolor=STUDENT, linewidth=1.8, zorder=2))
        axes.text(_CENTRE, y, letter, ha="center", va="center_baseline", weight="bold", color=STUDENT)
    _box(axes, (92, 28), (150, 34), "input 1\nthe cell before last", CARD, INK)
    _box(axes, (252, 28), (150, 34), "input 2\nthe cell before", CARD, INK)
    _box(axes, (_CENTRE, 411), (144, 30), "output\nweighted sum of A, B, C", CARD, INK)


def _edge(axes: Axes, source: int, target: int, side: str, operation: str) -> None:
    """Source -> operation -> node; a source further up comes down in a lane of its own, past the nodes between."""
    x, y = _PILLS[side], _NODES[target][1] - 48
    outward = -56 if side == "left" else 56
    start = (x, 45) if source < INPUTS else (_CENTRE, _NODES[source][1])
    if target - source == 1 or (source < INPUTS and target == INPUTS):
        _line(axes, [start, (x, start[1]), (x, y - 15)])
    else:
        lane = _LANES[(side, source)]
        _line(axes, [(lane if source < INPUTS else _CENTRE, start[1]), (lane, start[1]), (lane, y), (x + outward, y)])
    _line(axes, [(x, y), (_CENTRE + outward / 7, _NODES[target][1] - 13)])
    fill = CONV if "conv" in operation else POOL if "pool" in operation else PLAIN
    _box(axes, (x, y), (112, 30), plain_name(operation).replace(", ", "\n"), fill, "none")


def _line(axes: Axes, points: list[tuple[float, float]], style: str = "-") -> None:
    """A line through the points with rounded corners and an arrow at its end."""
    points = [p for i, p in enumerate(points) if i == 0 or p != points[i - 1]]
    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_towards(corner, before), corner, _towards(corner, after)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    path = Path([*vertices, points[-1]], [*codes, Path.LINETO])
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=8, color=MUTED, linestyle=style, linewidth=1.2))


def _towards(start: tuple[float, float], end: tuple[float, float], radius: float = 7) -> tuple[float, float]:
    length = math.dist(start, end)
    return (start[0] + (end[0] - start[0]) * radius / length, start[1] + (end[1] - start[1]) * radius / length)


def _box(axes: Axes, centre: tuple[float, float], size: tuple[float, float], words: str, fill: str, edge: str) -> None:
    corner = (centre[0] - size[0] / 2, centre[1] - size[1] / 2)
    axes.add_patch(FancyBboxPatch(corner, *size, "round,pad=0,rounding_size=7", facecolor=fill, edgecolor=edge, linewidth=1))
    axes.text(*centre, words, ha="center", va="center", size=9.5, linespacing=1.15)
