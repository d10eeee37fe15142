"""The figure of a study: each row's mean, interval and seeds; of few labels, curves over them."""

from math import ceil
from typing import Any

from train import page
from train.curves import COLOURS, GREY
from train.studies.catalogue import BESIDE, CONTROL, STUDIES, Row, Study

WIDTH_OF_TASK, WIDTH_OF_LABELS, ROW_HEIGHT = 3.4, 2.6, 0.34
CURVE_WIDTH, CURVE_HEIGHT, LEGEND_WIDTH = 3.9, 3.4, 1.8
"""Inches."""
BESIDE_EACH_OTHER = 4
"""Panels at most; others stand below them."""
ALL = "all"
CONTROLS = frozenset(ending for endings in BESIDE.values() for ending in endings)
"""Endings of columns that are lines in another one's panel."""
STYLES, MARKS = ("-", "--", ":", "-."), ("x", "+", "1", "2")
"""Of the controls: lines of those that are the same in all rows, marks of others."""


def draw(facts: dict[str, Any]) -> Any:
    """A matplotlib figure of a study.json, a panel a score; scores in percent."""
    study = STUDIES[facts["name"]]
    if any("labels" in row.look for row in study.rows):
        return _draw_labels(study, facts)
    shown = panels_of(facts["columns"])
    columns = min(len(shown), BESIDE_EACH_OTHER)
    lines = ceil(len(shown) / columns)
    width = WIDTH_OF_LABELS + WIDTH_OF_TASK * columns
    height = lines * (1 + ROW_HEIGHT * len(facts["rows"]))
    figure, panels = page.figure(lines, width, height, columns=columns)
    for place, (column, axes) in enumerate(zip(shown, panels, strict=False)):
        _name(axes, column)
        _draw_intervals(axes, facts, column, named=place % columns == 0)
    for empty in panels[len(shown) :]:
        empty.remove()
    return figure


def panels_of(columns: list[str]) -> list[str]:
    """Those of a study's columns that have a panel: all but controls, which are lines in one."""
    return [column for column in columns if column.rpartition(CONTROL)[2] not in CONTROLS]


def _name(axes: Any, column: str) -> None:
    axes.set_title(column, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def percent(score: dict[str, Any]) -> float:
    """What a score is multiplied with to be shown."""
    return 100.0 if score.get("unit") in (None, "fraction") else 1.0


# --- rows -----------------------------------------------------------------------------------------


def _draw_intervals(axes: Any, facts: dict[str, Any], task: str, named: bool) -> None:
    """A line a row from the top: the mean a stroke, its interval a bar, the seeds hollow dots."""
    labels = [row["row"] for row in facts["rows"]]
    for place, row in enumerate(facts["rows"]):
        if task not in row:
            continue
        score, factor = row[task], percent(row[task])
        colour = GREY if "random weights" in row["row"] else COLOURS[0]
        axes.plot(factor * score["value"], place, "|", color=colour, markersize=13, mew=2.5)
        if score["low"] is not None:
            ends = [factor * score["low"], factor * score["high"]]
            axes.plot(ends, [place, place], color=colour, linewidth=2, alpha=0.55)
        seeds = [factor * value for value in _values(facts, row["row"], task)]
        axes.plot(seeds, [place] * len(seeds), "o", markersize=5, mfc="white", mec=colour, zorder=3,
                  clip_on=False, in_layout=False)  # fmt: skip
    _draw_controls(axes, facts, task)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set(xlabel=_unit(facts, task), ylim=(len(labels) - 0.5, -0.5))
    axes.set_yticks(range(len(labels)), labels if named else [""] * len(labels), fontsize=9)
    axes.set_xlim(left=0)  # no score of a study can be below
    if _is_share(facts, task):
        axes.set_xlim(right=100 if _is_gain(facts, task) else max(100, axes.get_xlim()[1]))


def _draw_controls(axes: Any, facts: dict[str, Any], task: str) -> None:
    """A line for each control that does not depend on the row, marks in the rows of others."""
    styles, marks = iter(STYLES), iter(MARKS)
    for column in _controls_of(task, facts["columns"]):
        name = column.rpartition(CONTROL)[2].replace("_", " ")
        there = {place: percent(row[column]) * row[column]["value"]
                 for place, row in enumerate(facts["rows"]) if column in row}  # fmt: skip
        every = len(there) == sum(task in row for row in facts["rows"])
        if every and len({round(value, 6) for value in there.values()}) == 1:
            value = next(iter(there.values()))
            axes.axvline(value, color=COLOURS[1], linewidth=1.2, linestyle=next(styles),
                         label=f"{name} {value:.1f}")  # fmt: skip
        else:
            axes.plot(list(there.values()), list(there), next(marks), color=COLOURS[1],
                      markersize=8, mew=1.6, zorder=4, label=name)  # fmt: skip
    if axes.get_legend_handles_labels()[1]:
        # Below the axis: inside, a row's points may be anywhere.
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center",
                    bbox_to_anchor=(0.5, -0.3))  # fmt: skip


def _values(facts: dict[str, Any], row: str, task: str) -> list[float]:
    """Of the seeds, where there are several."""
    found = [one["scores"][task]["value"] for one in facts["results"]
             if one["row"] == row and task in one["scores"]]  # fmt: skip
    return found if len(found) > 1 else []


def _controls_of(column: str, columns: list[str]) -> list[str]:
    """What stands beside a score: `localization:centre`, `localization:iou:centre`."""
    beside = [f"{column}{CONTROL}{ending}" for ending in CONTROLS]
    return [other for other in columns if other in beside]


def _unit(facts: dict[str, Any], task: str) -> str:
    unit = "%" if _is_share(facts, task) else ""
    return unit if _is_gain(facts, task) else f"{unit} (lower is better)".lstrip()


def _is_share(facts: dict[str, Any], task: str) -> bool:
    return all(percent(row[task]) == 100 for row in facts["rows"] if task in row)


def _is_gain(facts: dict[str, Any], task: str) -> bool:
    """Not an error rate, which may also be above 1."""
    scores = (row[task] for row in facts["rows"] if task in row)
    return all(score.get("higher_is_better", True) for score in scores)


# --- few labels -----------------------------------------------------------------------------------


def _draw_labels(study: Study, facts: dict[str, Any]) -> Any:
    """Panels beside each other, with one legend for all of them."""
    tasks = panels_of(facts["columns"])
    width = CURVE_WIDTH * len(tasks) + LEGEND_WIDTH
    figure, panels = page.figure(1, width, CURVE_HEIGHT, columns=len(tasks))
    marks: dict[str, Any] = {}
    for task, axes in zip(tasks, panels, strict=True):
        _name(axes, task)
        _draw_curves(axes, study, facts, task)
        marks |= {line.get_label(): line for line in axes.get_lines()}
    figure.legend(marks.values(), marks, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _draw_curves(axes: Any, study: Study, facts: dict[str, Any], task: str) -> None:
    """A curve for each kind of pictures, dashed of random weights, over labels a class."""
    found = {row["row"]: row[task] for row in facts["rows"] if task in row}
    counts = list(dict.fromkeys(_count(row) for row in study.all_rows))
    kinds = list(dict.fromkeys(_kind(row) for row in study.all_rows))
    for kind in kinds:
        for trained in (True, False):
            rows = [row for row in study.all_rows if _kind(row) == kind and row.trained == trained]
            known = [(counts.index(_count(row)), found[row.label]) for row in rows
                     if row.label in found]  # fmt: skip
            if known:
                _draw_curve(axes, known, kind, COLOURS[kinds.index(kind)], trained)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_xticks(range(len(counts)), counts)
    axes.set(xlabel="labels a class", ylabel="%", ylim=(0, 100))


def _draw_curve(
    axes: Any, known: list[tuple[int, dict[str, Any]]], kind: str, colour: str, trained: bool
) -> None:
    places = [place for place, _ in known]
    values, low, high = ([percent(score) * score[name] for _, score in known]
                         for name in ("value", "low", "high"))  # fmt: skip
    style = (
        {"ls": "-", "mfc": colour, "label": kind} if trained
        else {"ls": "--", "mfc": "white", "label": f"{kind}, random"}
    )  # fmt: skip
    axes.plot(places, values, marker="o", markersize=4, color=colour, **style)
    axes.fill_between(places, low, high, color=colour, alpha=0.1, linewidth=0)


def _count(row: Row) -> str:
    count = row.look.get("labels")
    return ALL if count is None else str(count)


def _kind(row: Row) -> str:
    """Crops, faces, or frames with attention: the label's first words."""
    return row.label.partition(",")[0]
