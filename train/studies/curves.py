"""The training curves of a study: each row's mean over its seeds, with an interval.

    facts["curves"]["planted/glcm-1"] -> {"steps": [5, 15, ...], "loss_g": [3.43, 3.41, ...], ...}

A study.json holds them, thinned to `BINS` means a run, so that figures can be drawn where the runs
are not, and of seeds that were run on several machines.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt

from train import page
from train.curves import COLOURS, LOSSES, RETRIEVAL, look_of
from train.record import Series, read_metrics
from train.session import METRICS
from train.studies.catalogue import CORPORA, Row, Study
from train.studies.table import Curves, interval

BINS = 30
"""Of a run: each is the mean over so many parts of its steps, a batch's loss jumps."""
DIGITS = 4
"""That are kept of a value."""
ROOM = 0.05
"""Of a panel's height, above and below its curves."""
FEWEST_FOR_A_BAND = 3
"""Of two seeds Student's interval is wider than the picture."""
STEPS, LOSS, LOSS_PART = "steps", "loss", "loss_"
BY_L_G = ("loss_g", "a2v_r1")
"""What is measured of the global embeddings."""
COLUMNS, WIDTH, HEIGHT, LINE = 3, 3.9, 2.7, 0.2
"""Inches, of a panel and of a line of the legend."""
LETTERS = 50
"""Of a line of a panel's title."""
Floats = npt.NDArray[np.float64]


# --- what a run leaves ----------------------------------------------------------------------------


def of_run(folder: Path) -> dict[str, list[float]]:
    """A run's losses and accuracies in training, thinned; empty of one that left none."""
    series = read_metrics(folder / METRICS)
    if LOSS not in series:
        return {}
    names = [name for name in series if look_of(name).group in (LOSSES, RETRIEVAL)
             and np.array_equal(series[name].steps, series[LOSS].steps)]  # fmt: skip
    return {STEPS: _thinned(Series(series[LOSS].steps, series[LOSS].steps.astype(np.float64))),
            **{name: _thinned(series[name]) for name in names}}  # fmt: skip


def _thinned(series: Series) -> list[float]:
    parts = np.array_split(series.values, min(BINS, len(series.values)))
    return [float(f"{part.mean():.{DIGITS}g}") for part in parts]


# --- drawing --------------------------------------------------------------------------------------


def draw(study: Study, curves: Curves) -> Any | None:
    """A matplotlib figure, or None where there are no curves.

    Of a study of one method a panel for each thing measured, a line for each row that is trained
    otherwise; of several methods, whose losses are not alike, a panel for each with its own loss.
    Each corpus begins a line of panels.
    """
    there = {run.partition("/")[0] for run in curves}
    of_corpora = [[(title if len(there) == 1 else f"{title} ({corpus})", unit, lines)
                   for title, unit, lines in _panels(study, corpus, curves)]
                  for corpus in CORPORA if corpus in there]  # fmt: skip
    columns = min(COLUMNS, max(map(len, of_corpora), default=0))
    if not columns:
        return None
    panels = [panel for one in of_corpora for panel in _filled_up(one, columns)]
    shown = {label for panel in panels if panel for label in panel[2]}
    named = [row.label for row in _distinct(study) if row.label in shown]
    below = LINE * (len(named) + 1) if len(named) > 1 and panels[-1] else 0
    rows = len(panels) // columns
    figure, axes = page.figure(rows, WIDTH * columns, HEIGHT * rows + below, columns=columns)
    colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(named or [""])}
    for place, panel in zip(axes, panels, strict=True):
        if panel is None:
            place.set_axis_off()
        else:
            _draw_panel(place, *panel, colours)
    if len(named) > 1:
        _draw_legend(figure if below else axes[-1], colours, "outside lower left" if below else
                     "center left")  # fmt: skip
    return figure


def _draw_legend(on: Any, colours: Mapping[str, str], where: str) -> None:
    """On a figure or in an empty cell of it."""
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=colour, label=label) for label, colour in colours.items()]
    legend = on.legend(handles=marks, loc=where, frameon=False, fontsize=9)
    legend.set_in_layout(where.startswith("outside"))  # a cell is not made wider for long names


Lines = dict[str, list[tuple[Floats, Floats]]]
"""Label -> steps and values of each seed."""
Panel = tuple[str, str, Lines]
"""Title, unit and lines."""


def _filled_up(panels: Sequence[Panel], columns: int) -> list[Panel | None]:
    """Whole lines of panels."""
    return [*panels, *[None] * (-len(panels) % columns)]


def _panels(study: Study, corpus: str, curves: Curves) -> list[Panel]:
    """Those of a corpus."""
    rows = _distinct(study)
    runs = {row.label: _seeds_of(row, corpus, curves) for row in rows}
    if len({row.method for row in rows}) > 1:
        return [(f"{label}, its loss", look_of(LOSS).unit, _lines({"": each}, LOSS))
                for label, each in runs.items() if each]  # fmt: skip
    names = dict.fromkeys(name for each in runs.values() for run in each for name in run)
    has_parts = any(name.startswith(LOSS_PART) for name in names)
    shown = [name for name in names if name != STEPS and not (has_parts and name == LOSS)]
    return [(look_of(name).title, look_of(name).unit, _lines(runs, name))
            for name in shown]  # fmt: skip


def _distinct(study: Study) -> list[Row]:
    """A row of each run: of those that share it the last of the paper's, else the first."""
    found: dict[str, Row] = {}
    for row in filter(lambda row: row.trained, study.rows):
        if row.paper is not None or row.run not in found:
            found[row.run] = row
    return sorted(found.values(), key=study.rows.index)


def _seeds_of(row: Row, corpus: str, curves: Curves) -> list[Mapping[str, list[float]]]:
    """What was measured of its runs, but for what L_l alone says of global embeddings."""
    untrained = BY_L_G if row.model.get("objective") == "l" else ()
    return [{name: values for name, values in curve.items() if name not in untrained}
            for run, curve in curves.items()
            if run.rpartition("-")[0] == f"{corpus}/{row.run}" and curve]  # fmt: skip


def _lines(runs: Mapping[str, Sequence[Mapping[str, list[float]]]], name: str) -> Lines:
    found = {
        label: [(np.array(run[STEPS]), np.array(run[name])) for run in each if name in run]
        for label, each in runs.items()
    }
    return {label: seeds for label, seeds in found.items() if seeds}


def _draw_panel(axes: Any, title: str, unit: str, lines: Lines, colours: Mapping[str, str]) -> None:
    """Thin lines of the seeds, a thick one of their mean, and its interval from three seeds on."""
    for label, seeds in lines.items():
        colour = colours[label]
        for steps, values in seeds:
            axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.5)
        shortest = min(len(steps) for steps, _ in seeds)
        steps = seeds[0][0][:shortest]
        values = np.stack([values[:shortest] for _, values in seeds])
        axes.plot(steps, values.mean(0), color=colour, linewidth=1.8)
        if len(seeds) >= FEWEST_FOR_A_BAND:
            low, high = interval(values)
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(*_limits([values for seeds in lines.values() for _, values in seeds]))
    axes.set_title(fill(title, LETTERS), fontsize=9)
    axes.set(xlabel="step", ylabel=unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)


def _limits(curves: Sequence[Floats]) -> tuple[float, float]:
    """By where curves begin, and their second halves: neither a first jump nor a band sets them."""
    seen = np.concatenate([[values[0], *values[len(values) // 2 :]] for values in curves])
    room = ROOM * float(np.ptp(seen)) or ROOM
    return seen.min() - room, seen.max() + room
