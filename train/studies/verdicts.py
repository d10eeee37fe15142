"""The picture of all verdicts: a row a comparison, a column a task, coloured by what was found.

The claims' table has a line for each of some 160 comparisons; here they are seen at once, with
their differences in points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from train import page
from train.curves import COLOURS, GREY
from train.studies.catalogue import CORPORA
from train.studies.claims import CLAIMS, DECIDED, FEWEST_SEEDS, STAR, Judged, judged

BLUE, ORANGE, PALE = COLOURS[0], COLOURS[1], "#ececec"
OF_VERDICT = {"held": BLUE, "did not hold": ORANGE, "undecided": PALE}
FAINT = 0.35
"""Opacity of a verdict that does not stand beside all others."""
CELL_WIDTH_INCHES, CELL_HEIGHT_INCHES, HEAD_INCHES, LETTER_INCHES = 0.62, 0.24, 1.9, 0.056
LEGEND = (
    ("held", "held", 1.0),
    ("held; not significant among all *", "held", FAINT),
    ("did not hold", "did not hold", 1.0),
    ("did not hold; not significant among all *", "did not hold", FAINT),
    ("undecided", "undecided", 1.0),
)
"""What is said of a colour, its verdict, its opacity."""


def draw(studies: Mapping[str, dict[str, Any]]) -> Any:
    """A matplotlib figure of what the studies say of all claims; None where nothing was run.

    Args:
        studies: name -> content of its study.json.
    """
    found = compared(studies)
    if not found:
        return None
    rows, tasks = list(dict.fromkeys(map(_row, found))), _tasks(found)
    names_inches = LETTER_INCHES * max(len(text) for _, text in rows)
    width = names_inches + CELL_WIDTH_INCHES * (len(tasks) + 1)
    figure, (axes,) = page.figure(1, width, HEAD_INCHES + CELL_HEIGHT_INCHES * len(rows))
    for one in found:
        _draw_cell(axes, one, tasks.index(one.finding.task), rows.index(_row(one)))
    _draw_names(axes, rows, tasks)
    _draw_legend(figure, any(one.finding.seeds < FEWEST_SEEDS for one in found))
    return figure


def compared(studies: Mapping[str, dict[str, Any]]) -> list[Judged]:
    """Of all comparisons those that were run."""
    return [one for one in judged(studies) if one.finding.difference is not None]


def _row(one: Judged) -> tuple[str, str]:
    """Number of the claim, and what is compared with what."""
    labels = one.finding.comparison
    shared = _shared_ending(labels.better, labels.worse, labels.far or labels.better)
    short = replace(labels, **{name: getattr(labels, name).removesuffix(shared)
                               for name in ("better", "worse", "far")})  # fmt: skip
    also = f"  (both: {shared.removeprefix(', ')})" if shared else ""
    return one.claim.number, f"{short.better}  >  {short.than}{also}"


def _shared_ending(*labels: str) -> str:
    """What rows have in common after a comma, said once; empty: nothing."""
    parts = [label.split(", ")[:0:-1] for label in labels]
    same = takewhile(lambda of_labels: len(set(of_labels)) == 1, zip(*parts, strict=False))
    return "".join(f", {part}" for part, *_ in reversed(list(same)))


def _tasks(found: Sequence[Judged]) -> list[str]:
    """As the claims name them, those of GRID last."""
    there = {one.finding.task for one in found}
    named = [task for claim in CLAIMS for one in claim.comparisons for task in one.tasks]
    return sorted(there, key=lambda task: (task in CORPORA["grid"].tasks, named.index(task)))


def _draw_cell(axes: Any, one: Judged, column: int, row: int) -> None:
    """A box in the verdict's colour with the difference in points."""
    from matplotlib.patches import Rectangle

    verdict = one.finding.verdict
    axes.add_patch(Rectangle(
        (column - 0.5, row - 0.5), 1, 1, facecolor=OF_VERDICT[verdict],
        alpha=FAINT if one.marked else 1, edgecolor="white", linewidth=1.5,
    ))  # fmt: skip
    colour = GREY if verdict not in DECIDED else "black" if one.marked else "white"
    axes.text(column, row, _points(one), ha="center", va="center", fontsize=8, color=colour)


def _points(one: Judged) -> str:
    """The difference, signed; a star where it does not stand, in brackets of one seed."""
    assert one.finding.difference is not None
    points = round(100 * one.finding.difference)
    text = (f"{points:+d}" if points else "0") + STAR.strip() * one.marked
    return f"({text})" if one.finding.seeds < FEWEST_SEEDS else text


def _draw_names(axes: Any, rows: Sequence[tuple[str, str]], tasks: Sequence[str]) -> None:
    """Comparisons at the left, tasks above; a line between two claims."""
    axes.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), [f"{number}.  {text}" for number, text in rows], fontsize=8)
    axes.set_xticks(range(len(tasks)), tasks, fontsize=8, rotation=40, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for place in range(1, len(rows)):
        if rows[place][0] != rows[place - 1][0]:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.8)


def _draw_legend(figure: Any, of_one_seed: bool) -> None:
    """What colours and numbers say, below."""
    from matplotlib.patches import Patch

    marks = [
        Patch(facecolor=OF_VERDICT[verdict], alpha=opacity, label=said)
        for said, verdict, opacity in LEGEND
    ]
    brackets = "; in brackets: of one seed" * of_one_seed
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=8,
                  title=f"Numbers: points{brackets}", title_fontsize=8)  # fmt: skip
