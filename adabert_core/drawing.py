"""How all of the report's figures are drawn: one palette, one style, and a figure as inline SVG and as a PNG file.

The SVG's colours are the page's CSS variables, so that one drawing serves light, dark and print; the PNG is the light one. The
same input always gives the same text and bytes.
"""

import io
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# The light palette. In an SVG each colour becomes var(--name); none occurs in matplotlib's output for another reason.
COLOURS = {
    "ink": "#1a2029",
    "muted": "#5b6675",
    "grid": "#d5dae1",
    "student": "#0f6fb8",
    "teacher": "#b8540d",
    "base": "#77808c",
    "conv": "#d6e8f7",
    "pool": "#fbe3cc",
    "plain": "#e6e9ed",
    "card": "#ffffff",
}
INK, MUTED, GRID, STUDENT, TEACHER, BASE, CONV, POOL, PLAIN, CARD = COLOURS.values()
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
_DOTS_PER_INCH = 200


class Picture:
    """A drawn figure. `name` keeps its ids apart from those of the page's other figures, and is its file's name."""

    def __init__(self, name: str, inches: tuple[float, float], alt: str, draw: Callable[[Figure], None]) -> None:
        self.name, self.alt = name, alt
        with mpl.rc_context(_STYLE):
            self._figure = Figure(figsize=inches, layout="constrained")
            draw(self._figure)

    @property
    def svg(self) -> str:
        """An <svg> element."""
        buffer = io.StringIO()
        with mpl.rc_context(_STYLE):
            self._figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
        text = buffer.getvalue()
        text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # would style the whole page
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", text)
        for variable, colour in COLOURS.items():
            text = text.replace(colour, f"var(--{variable})")
        view = re.search(r'viewBox="[^"]*"', text)
        body = text[text.index(">", text.index("<svg")) + 1 :].rstrip()
        return f'<svg {view[0] if view else ""} role="img" aria-label="{escape(self.alt)}">{body}'.replace("xlink:href", "href")

    def save(self, folder: Path) -> Path:
        """Writes NAME.png, on white, and returns its path."""
        path = folder / f"{self.name}.png"
        with mpl.rc_context(_STYLE):
            self._figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
        return path
