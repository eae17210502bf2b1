"""The figures of docs/guide/method.md, drawn from the code they explain: python docs/figures/draw.py [FOLDER]."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from adabert_core.cell_figure import genotype_figure
from adabert_core.drawing import COLOURS
from adabert_core.search_space import PRIMITIVES, Genotype, matched_layer, size_flops_costs
from adabert_core.stages import STAGES

BLUE, ORANGE, INK = "#0f6fb8", "#b8540d", "#1a2029"
STYLE = {"svg.hashsalt": "adabert", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK}
CELL = "4 x 0>2 conv_3, 1>2 identity, 0>3 max_pool_3, 2>3 conv_5, 2>4 identity, 3>4 dil_conv_3"


def svg(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """A drawing as SVG text; the same drawing gives the same text."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def cell() -> str:
    """A derived cell, as the report draws it."""
    text = genotype_figure(json.loads(Genotype.parse(CELL).to_json())).svg
    for name, colour in COLOURS.items():
        text = text.replace(f"var(--{name})", colour)
    start = '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff;font-family:sans-serif"'
    return re.sub("^<svg", start, text) + "\n"


def way(figure: Figure) -> None:
    """The seven stages and the directories between them."""
    axes = figure.add_subplot(xlim=(0, 7), ylim=(0, 1))
    axes.axis("off")
    for i, name in enumerate(STAGES):
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#d6e8f7", "edgecolor": BLUE}
        axes.text(i + 0.5, 0.5, name.replace("_", "\n"), ha="center", va="center", bbox=box)
        if i:
            axes.annotate("", (i + 0.1, 0.5), (i - 0.1, 0.5), arrowprops={"arrowstyle": "->", "color": INK})


def layers(figure: Figure) -> None:
    """Which teacher layer each layer of a student of four cells learns from."""
    axes = figure.add_subplot(xlim=(-0.5, 12.5), ylim=(-0.4, 1.4))
    axes.axis("off")
    for j in range(13):
        axes.text(
            j, 1, str(j), ha="center", va="center", bbox={"boxstyle": "circle", "facecolor": "#fbe3cc", "edgecolor": ORANGE}
        )
    for m in range(5):
        j, x = matched_layer(m, 4, 12), 1.5 + 2.25 * m
        axes.annotate("", (x, 0.17), (j, 0.83), arrowprops={"arrowstyle": "->", "color": INK})
        axes.text(x, 0, str(m), ha="center", va="center", bbox={"boxstyle": "circle", "facecolor": "#d6e8f7", "edgecolor": BLUE})
    axes.text(-0.4, 1.3, "teacher layers, a probe each (0: embedding)")
    axes.text(-0.4, -0.3, "student layers")


def temperature(figure: Figure) -> None:
    """How sure a Gumbel sample is of its operation while tau falls: mean of the largest soft weight."""
    axes = figure.add_subplot(xlabel="tau", ylabel="mean largest weight of ten", xlim=(1, 0.1), ylim=(0, 1))
    noise = np.random.default_rng(0).gumbel(size=(4000, len(PRIMITIVES)))
    for label, alpha in {"alpha undecided": 0.0, "alpha at 90 % for one": np.log(81.0)}.items():
        logits = noise + alpha * (np.arange(len(PRIMITIVES)) == 0)
        taus = np.linspace(1, 0.1, 40)
        soft = [np.exp((logits - logits.max(1, keepdims=True)) / tau) for tau in taus]
        axes.plot(taus, [(s.max(1) / s.sum(1)).mean() for s in soft], label=label)
    axes.legend(frameon=False)


def costs(figure: Figure) -> None:
    """What the efficiency loss charges for each operation."""
    axes = figure.add_subplot(xlabel="cost, in units of the dearest operation (128 channels)")
    axes.barh(PRIMITIVES[::-1], size_flops_costs(128)[::-1], color=BLUE)


def main(folder: Path) -> None:
    """Writes every figure."""
    drawn = {"cell": cell(), "way": svg(8, 1, way), "layers": svg(6, 2, layers)}
    drawn |= {"temperature": svg(5, 2.6, temperature), "costs": svg(5, 2.6, costs)}
    for name, text in drawn.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
