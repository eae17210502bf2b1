"""The genotype as a graph that a reader understands who does not know the search space.

Comes in: a genotype as a dict. Goes out: a picture.
"""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from adabert_core.drawing import CARD, CONV, GRID, INK, MUTED, PLAIN, POOL, STUDENT, Picture
from adabert_core.search_space import INPUTS

_KINDS = {
    "conv": "convolution, {} wide",
    "dil_conv": "dilated convolution, {} wide",
    "max_pool": "max of {}",
    "avg_pool": "mean of {}",
}
_OTHERS = {"identity": "unchanged", "zero": "nothing"}
_WIDTH, _HEIGHT, _CENTRE = 350, 430, 172
_NODES = {2: ("A", 146), 3: ("B", 242), 4: ("C", 338)}  # inner node -> letter, height on the page
_LANES = {("left", 0): 24, ("left", 2): 40, ("right", 2): 304, ("right", 1): 320}  # (side, source) -> x of its way down
_PILLS = {"left": 110, "right": 234}
_BUS = 334


def plain_name(operation: str) -> str:
    """'convolution, 5 wide' for conv_5: an operation's name for people who do not know the search space."""
    kind, _, width = operation.rpartition("_")
    return _KINDS[kind].format(width) if kind in _KINDS else _OTHERS.get(operation, operation)


def genotype_figure(genotype: dict[str, Any]) -> Picture:
    """The cell as a graph: inputs at the top, an operation on every edge, the output at the bottom, times K cells."""
    edges = [(int(e["source"]), int(e["target"]), str(e["operation"])) for e in genotype["edges"]]
    names = {0: "input 1", 1: "input 2", **{node: letter for node, (letter, _) in _NODES.items()}}
    alt = "; ".join(f"{names[s]} to {names[t]}: {plain_name(o)}" for s, t, o in edges)
    return Picture("cell", (_WIDTH / 72, _HEIGHT / 72), alt, lambda figure: _cell(figure, edges, int(genotype["depth"])))


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
