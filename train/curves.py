"""The curves of runs: one panel a number, with its held-out values and controls in it.

Whatever a method calls its facts, each has a panel; names that are known here have a title, a unit
and a place among the others, and the conventions of `train.methods` say what belongs together: NAME
in training, val_NAME on held-out clips, val_NAME_swapped, _shifted and _chance its controls, and
NAME_r1 is retrieval among the clips of a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from train import page
from train.facts import HELD_OUT
from train.record import Record, Series

Role = Literal["training", "held out", "swapped", "shifted", "chance", "chance in training"]
TRAINING: Role = "training"
HELD: Role = "held out"
SWAPPED: Role = "swapped"
SHIFTED: Role = "shifted"
CHANCE: Role = "chance"
TRAINING_CHANCE: Role = "chance in training"
LEVELS = (CHANCE, TRAINING_CHANCE)
"""Roles of one number, not of a curve."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito 2008: told apart by colour-blind readers as well."""
GREY = "#555555"
OF_ROLE = {TRAINING: COLOURS[0], HELD: COLOURS[1], SWAPPED: COLOURS[3],
           SHIFTED: COLOURS[4], CHANCE: GREY, TRAINING_CHANCE: COLOURS[0]}  # fmt: skip
WIDTH, HEIGHT, DPI = 5.8, 2.9, 110
"""Inches: two beside each other on a page of 1200 pixels."""
LEGEND_COLUMNS = 4
SMOOTHED_PARTS = 25
"""Training curves are means over a window of so small a part of the run."""
MAX_POINTS = 2000
"""More are not seen on so many pixels."""
LOG_FROM = 10
"""Ratio of greatest and smallest value from which an axis is logarithmic."""

NOT_FACTS = {"epoch", "time"}
TOLD_BY = {"step_seconds": "clips_per_second", "att_entropy": "att_entropy_share"}
"""The same curve in another unit: left out where the other one is there."""


@dataclass(frozen=True)
class Look:
    """How a number is shown."""

    group: str
    title: str
    unit: str
    """Of the axis."""
    axis: Literal["zero", "free"] = "free"
    """`zero` begins there; `free` shows what there is, on a logarithmic scale where it helps."""
    factor: float = 1.0
    """From what was measured to the unit."""
    smooth: bool = True
    """False for what does not depend on the batch."""


LOSSES, RETRIEVAL, ATTENTION, OTHER, OPTIMISER, SPEED = GROUPS = (
    "Losses", "Retrieval and accuracy", "Attention", "Other facts of the method", "Optimisation",
    "Speed and memory",
)  # fmt: skip
SHARE = "share of clips"
LOOKS = {
    "loss": Look(LOSSES, "Loss", "loss"),
    "loss_g": Look(LOSSES, "L_g, the global term", "nats"),
    "loss_l": Look(LOSSES, "L_l, the local term", "nats"),
    "a2v_r1": Look(RETRIEVAL, "R@1 in the batch: sound finds its clip's picture", SHARE, "zero"),
    "a2v_r1_sync": Look(RETRIEVAL, "R@1 in the batch, by what is in time with the sound", SHARE,
                        "zero"),
    "a2v_r1_memory": Look(RETRIEVAL, "R@1 among memories: sound finds its clip's picture", SHARE,
                          "zero"),
    "v2a_r1_memory": Look(RETRIEVAL, "R@1 among memories: picture finds its clip's sound", SHARE,
                          "zero"),
    "v2a_r1_l": Look(RETRIEVAL, "R@1 in the clip: frame finds its sound", "share of frames",
                     "zero"),
    "knn_accuracy": Look(RETRIEVAL, "kNN accuracy of frozen features", SHARE, "zero"),
    "att_entropy_share": Look(ATTENTION, "Entropy of the attention map",
                              "share of a uniform map's"),
    "pos_g": Look(OTHER, "Score of clips that belong together", "logit"),
    "neg_g": Look(OTHER, "Score of clips that do not", "logit"),
    "pos_l": Look(OTHER, "Similarity of frame and its own sound", "logit"),
    "neg_l": Look(OTHER, "Similarity of frame and other sound", "logit"),
    "lr": Look(OPTIMISER, "Learning rate", "learning rate", "zero", smooth=False),
    "grad_norm": Look(OPTIMISER, "Gradient norm before clipping", "norm"),
    "clips_per_second": Look(SPEED, "Clips a second over all ranks", "clips/s", "zero"),
    "data_wait_share": Look(SPEED, "Waiting for data", "share of a step's time", "zero"),
    "memory_bytes": Look(SPEED, "Memory of the first rank", "GiB", "zero", 2**-30, False),
    "mfu": Look(SPEED, "Model FLOP utilisation", "share of the GPU's peak", "zero"),
    "replaced_clips": Look(SPEED, "Clips that could not be read, replaced", "clips", "zero",
                           smooth=False),
    "bad_shards": Look(SPEED, "Shards with clips that could not be read", "shards", "zero",
                       smooth=False),
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A line of a panel."""

    role: Role
    series: Series
    run: int
    """Which of the runs."""


@dataclass(frozen=True)
class Panel:
    """One number of one or several runs."""

    name: str
    look: Look
    curves: tuple[Curve, ...]


def panels(runs: Sequence[Record]) -> dict[str, list[Panel]]:
    """By group, in the order of reading; groups without a panel are left out."""
    found: dict[str, list[Panel]] = {}
    for name in facts_of(runs):
        curves = tuple(curve for i, run in enumerate(runs) for curve in curves_of(run, name, i))
        panel = Panel(name, look_of(name), curves)
        found.setdefault(panel.look.group, []).append(panel)
    known = list(LOOKS)
    for group in found.values():
        group.sort(key=lambda panel: (panel.name.endswith("_gap"), _place(panel.name, known)))
    return {group: found[group] for group in GROUPS if group in found}


def facts_of(runs: Sequence[Record]) -> list[str]:
    """Names of what was measured, without the prefix of held-out values and without controls."""
    names = dict.fromkeys(name.removeprefix(HELD_OUT) for run in runs for name in run.series)
    return [
        name
        for name in names
        if name not in NOT_FACTS
        and TOLD_BY.get(name) not in names
        and not any(name.removesuffix(end) in names for end in ("_swapped", "_shifted", "_chance")
                    if name.endswith(end))
    ]  # fmt: skip


def curves_of(run: Record, name: str, number: int = 0) -> Iterator[Curve]:
    """A fact's curves: in training, held out, with a wrong sound, and at chance."""
    held = f"{HELD_OUT}{name}"
    roles = {TRAINING: name, HELD: held, SWAPPED: f"{held}_swapped", SHIFTED: f"{held}_shifted"}
    found = {role: run.series[full] for role, full in roles.items() if full in run.series}
    yield from (Curve(role, series, number) for role, series in found.items())
    levels = chances(run, name) if found else {}
    for role, level in levels.items():
        yield Curve(role, Series(np.zeros(1, np.int64), np.array([level])), number)


def chances(run: Record, name: str) -> dict[Role, float]:
    """What no knowledge gives: as measured beside held-out values, and as counted for training."""
    found: dict[Role, float] = {}
    measured = run.series.get(f"{HELD_OUT}{name}_chance") or run.series.get(f"{name}_chance")
    if measured:
        found[CHANCE] = measured.last
    elif name.endswith("_gap"):
        found[CHANCE] = 0.0
    counted = chance_in_training(run, name) if name in run.series else None
    if counted and not np.isclose(found.get(CHANCE, np.nan), counted):
        found[TRAINING_CHANCE if CHANCE in found else CHANCE] = counted
    return found


def chance_in_training(run: Record, name: str) -> float | None:
    """1 / clips among which a clip is looked for; None where that is no question, or not known."""
    compared = run.clips_compared
    return 1 / compared if name.endswith("_r1") and compared else None


def look_of(name: str) -> Look:
    """How a number is shown, by its name; a name nobody knows is its own title."""
    if name in LOOKS:
        return LOOKS[name]
    base = name.removesuffix("_gap")
    if base in LOOKS and base != name:
        return replace(LOOKS[base], title=f"{LOOKS[base].title}: gap", axis="free")
    if "loss" in name:
        return Look(LOSSES, name, "loss")
    if "_r1" in name or "accuracy" in name:
        return Look(RETRIEVAL, name, "share", "zero")
    return Look(ATTENTION if name.startswith("att_") else OTHER, name, name)


def _place(name: str, known: list[str]) -> int:
    base = name.removesuffix("_gap")
    return known.index(base) if base in known else len(known)


# --- drawing --------------------------------------------------------------------------------------


def drawn(panel: Panel, names: Sequence[str], last_step: int) -> str:
    """The panel as base64 PNG.

    Args:
        panel: what to draw; colours tell roles of one run, or runs where there are several.
        names: of the runs.
        last_step: where the axis ends, the same in all panels of a page.
    """
    figure, (axes,) = page.figure(1, WIDTH, HEIGHT, None)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="step", ylabel=panel.look.unit, xlim=(0, last_step * 1.02))
    axes.xaxis.set_major_locator(_whole_numbers())
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    told: set[int] = set()
    for curve in panel.curves:
        if len(names) == 1:
            style = {"color": OF_ROLE[curve.role], "label": _label(curve, panel.look)}
        else:
            name = "" if curve.run in told else names[curve.run]
            style = {"color": COLOURS[curve.run], "label": name}
            told.add(curve.run)
        _plot(axes, curve, panel.look, style, len(names) == 1)
    _scale(axes, panel)
    entries = len(panel.curves) if len(names) == 1 else len(told)
    columns = LEGEND_COLUMNS if entries <= LEGEND_COLUMNS else LEGEND_COLUMNS - 1
    top = 0.99 - 0.09 * -(-entries // columns)
    figure.subplots_adjust(left=0.13, right=0.99, bottom=0.16, top=top)
    figure.legend(loc="upper left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False,
                  fontsize=9, handlelength=1.6, columnspacing=1, borderaxespad=0)  # fmt: skip
    return page.png(figure, DPI)


def _label(curve: Curve, look: Look) -> str:
    """Its role and its value at the end, as the page's table has it."""
    series = curve.series
    at_end = series.end if curve.role == TRAINING and look.smooth else series.last
    return f"{curve.role} {_short(at_end * look.factor)}"


def _plot(axes: Any, curve: Curve, look: Look, style: dict[str, Any], alone: bool) -> None:
    steps, values = curve.series.steps, curve.series.values * look.factor
    if curve.role in LEVELS:
        axes.axhline(values[0], linestyle="--" if curve.role == CHANCE else ":", linewidth=1.2,
                     **style)  # fmt: skip
    elif curve.role == TRAINING:
        window = max(1, len(values) // SMOOTHED_PARTS) if look.smooth else 1
        if window > 1 and alone:
            axes.plot(*envelope(steps, values), linewidth=0.7, alpha=0.3, color=style["color"])
        every = max(1, len(values) // MAX_POINTS)
        thick = smoothed(values, window)[::every]
        axes.plot(steps[::every], thick, linewidth=1.8 if alone else 1.3, **style)
    else:
        is_held = curve.role == HELD
        axes.plot(steps, values, marker="o" if is_held else "s", markersize=4, linewidth=1.5,
                  linestyle="-" if is_held else ":", mfc=style["color"] if is_held else "white",
                  **style)  # fmt: skip


def smoothed(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean over the `window` values around each, over fewer at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first = np.maximum(place - window // 2, 0)
    end = np.minimum(place - window // 2 + window, len(values))
    means: npt.NDArray[np.float64] = (sums[end] - sums[first]) / (end - first)
    return means


def envelope(
    steps: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """All values, or of a long run smallest and greatest of each stretch: the same picture."""
    stretch = -(-len(values) // (MAX_POINTS // 2))
    if stretch <= 2:
        return steps, values
    starts = np.arange(0, len(values), stretch)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return np.repeat(steps[starts], 2), np.stack([low, high], axis=1).ravel()


def _scale(axes: Any, panel: Panel) -> None:
    """Limits that a few outliers do not set."""
    ends = np.concatenate(
        [
            np.percentile(curve.series.values, [1, 99]) if curve.role == TRAINING
            else curve.series.values
            for curve in panel.curves
        ]
    ) * panel.look.factor  # fmt: skip
    low, high = float(ends.min()), float(ends.max())
    if panel.look.axis == "zero":
        low, high = min(low, 0.0), high if high > 0 else 1.0
    elif low > 0 and high / low > LOG_FROM:
        axes.set_yscale("log", subs=[])
        axes.yaxis.set_major_locator(_powers())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(low / 1.2, high * 1.2)
        return
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(low if low == 0 and panel.look.axis == "zero" else low - room, high + room)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=6, integer=True)


def _powers() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=[1, 2, 5])


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
