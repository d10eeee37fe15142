"""Histograms and bars of a report, as inline SVG that follows the page's colours.

Figures are matplotlib objects without pyplot, so nothing is global but the settings inside `_svg`.
Colours are placeholders that the SVG text exchanges for CSS variables: a page in the dark has light
axes without a second drawing.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from pipeline.fonts import told_once

INK, BARS, LINES = "#010203", "#010204", "#010205"
CSS_COLOURS = {INK: "var(--soft)", BARS: "var(--accent)", LINES: "var(--line)"}
SIZE_INCHES = (4.3, 2.0)
BINS = 40
LABEL_CHARACTERS = 22
FEWEST_BARS = 5


@dataclass(frozen=True)
class Chart:
    """A picture with its title and a sentence of numbers."""

    title: str
    said: str
    svg: Markup


def histogram(
    title: str,
    values: npt.NDArray[Any],
    unit: str,
    edges: Sequence[float] | None = None,
) -> Chart | None:
    """How a number is distributed over the samples; None where it is known for none.

    Args:
        title: what is counted, in words.
        values: one a sample; NaN where unknown.
        unit: of the values, with a space before it if there should be one.
        edges: of the bins; 40 up to the greatest where None. Values outside of them
            are counted in the outer bins.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return None
    low, middle, high = (_short(value) for value in np.percentile(known, [5, 50, 95]))
    said = f"median {middle}{unit}; 90 % between {low} and {high}{unit}"
    bins = np.asarray(edges) if edges is not None else _edges(known)
    counts, bins = np.histogram(np.clip(known, bins[0], bins[-1]), bins)
    return Chart(title, said, _histogram_svg(counts, bins))


def _short(value: float) -> str:
    """Three digits that matter, never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _edges(known: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = min(0.0, float(known.min())), float(known.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def bars(title: str, counts: dict[str, int], most: int = 8) -> Chart | None:
    """The most frequent values of something, as horizontal bars."""
    if not counts:
        return None
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    left = sum(count for _, count in ranked[most:])
    said = f"{len(ranked):,} different" + (f"; {left:,} are of rarer ones" if left else "")
    return Chart(title, said, _bars_svg(ranked[:most][::-1]))


def _histogram_svg(counts: npt.NDArray[Any], edges: npt.NDArray[np.float64]) -> Markup:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.bar(edges[:-1], counts, np.diff(edges) * 0.92, align="edge", color=BARS, linewidth=0)
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.grid(axis="y", color=LINES, linewidth=0.6)
    return _svg(figure, axes)


def _bars_svg(ranked: Sequence[tuple[str, int]]) -> Markup:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    places = range(len(ranked))
    axes.barh(places, [count for _, count in ranked], 0.7, color=BARS, linewidth=0)
    # A single bar is as thick as one of many.
    axes.set_ylim(len(ranked) - max(len(ranked), FEWEST_BARS) - 0.5, len(ranked) - 0.5)
    axes.set_yticks(places, [_label(name) for name, _ in ranked], parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.grid(axis="x", color=LINES, linewidth=0.6)
    return _svg(figure, axes)


def _label(name: str) -> str:
    return name if len(name) <= LABEL_CHARACTERS else name[: LABEL_CHARACTERS - 1] + "…"


def _svg(figure: Any, axes: Any) -> Markup:
    """The figure as SVG text, coloured by the page."""
    from matplotlib import rc_context

    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set(color=LINES)
    buffer = io.StringIO()
    # Text stays text: it takes the reader's fonts, which have other characters than the one here,
    # and a fifth of the bytes of outlines.
    with (
        rc_context({"svg.fonttype": "none", "svg.hashsalt": "glav", "font.family": "sans-serif"}),
        told_once(),
    ):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for placeholder, colour in CSS_COLOURS.items():
        text = text.replace(placeholder, colour)
    return Markup(text)
