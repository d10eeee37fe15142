"""`python -m train diff RUN RUN`: what two runs do differently, and what came of it.

    python -m train diff runs/glcm-r18 runs/glcm-cosine

Settings, code, data and results, in this order, from what the runs left in their folders: only what
differs, except results, which stand side by side.
"""

import difflib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from train.checkpoint import BEST, LAST
from train.config import RUNS, flat
from train.errors import UsageError
from train.session import CLIPS, CONFIG, FINISHED, METRICS, ORIGIN, PREEMPTED

log = logging.getLogger(__name__)

NAMES_OF_RUNS = {"run"}
"""Settings that differ by nature."""
MAX_CELL = 48
MAX_DIFF_LINES = 60
NOT_RESULTS = {"step", "epoch", "lr", "time", "mfu", "clips_per_second", "step_seconds",
               "data_wait_share", "memory_bytes"}  # fmt: skip
LAST_STEPS = 20
"""The value at the end is the mean over so many steps: a single batch's loss jumps."""
BETTER: dict[str, Callable[[list[float]], float]] = {"loss": min, "_r1": max, "accuracy": max}
"""Which direction is better, where there is one."""


@dataclass(frozen=True)
class Left:
    """What a run left."""

    folder: Path
    config: dict[str, Any]
    """Flat."""
    origin: dict[str, Any]
    metrics: list[dict[str, Any]]
    keys: set[tuple[str, str]] = field(default_factory=set)
    """(set, key) of each clip."""

    @property
    def state(self) -> str:
        """A sentence about how far it is."""
        steps = [line["step"] for line in self.metrics if "loss" in line]
        if (self.folder / FINISHED).is_file():
            facts = json.loads((self.folder / FINISHED).read_bytes())
            return f"finished, {facts['step']} steps, {facts['epochs']:.1f} epochs"
        if not steps:
            return "no step was measured yet"
        how = "was told to stop" if (self.folder / PREEMPTED).is_file() else "is not finished"
        return f"{how} after step {steps[-1]}: its results are those so far"


def diff(run: str, other: str) -> list[str]:
    """The whole comparison, as lines.

    Args:
        run: name below runs/, or a path.
        other: another one.

    Raises:
        UsageError: one of them is no run.
    """
    left, right = read_run(run), read_run(other)
    sections = {
        "SETTINGS": settings(left, right),
        "CODE": code(left, right),
        "DATA": data(left, right),
        f"RESULTS (end: mean of the last {LAST_STEPS} steps)": results(left, right),
    }
    lines = ["RUNS", f"  A  {left.folder}: {left.state}", f"  B  {right.folder}: {right.state}"]
    for title, rows in sections.items():
        lines += ["", title]
        lines += columns([["", "A", "B"], *rows]) if rows else ["  the same"]
    return lines + changed_code(left, right)


def read_run(name: str) -> Left:
    """What a run left in its folder.

    Raises:
        UsageError: there is no such run, or it never began.
    """
    folder = Path(name) if "/" in name or Path(name).is_dir() else RUNS / name
    if not folder.is_dir():
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{CONFIG}"))
        raise UsageError(
            f"there is no run {folder}; below {folder.parent}: {', '.join(known) or 'no run yet'}"
        )
    try:
        config = flat(json.loads((folder / CONFIG).read_bytes()))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} is no run, or one that never began: {CONFIG} cannot be read ({error})"
        ) from error
    origin = folder / ORIGIN
    clips = folder / CLIPS
    return Left(
        folder,
        config,
        json.loads(origin.read_bytes()) if origin.is_file() else {},
        _metrics(folder / METRICS),
        _keys(clips) if clips.is_file() else set(),
    )


def settings(left: Left, right: Left) -> list[list[str]]:
    """Fields of the configs that differ."""
    return [
        [name, _text(left.config.get(name, "-")), _text(right.config.get(name, "-"))]
        for name in sorted(left.config.keys() | right.config.keys())
        if name not in NAMES_OF_RUNS and left.config.get(name) != right.config.get(name)
    ]


def code(left: Left, right: Left) -> list[list[str]]:
    """Commit, uncommitted changes, plugins, torch and ranks, where they differ."""
    facts = [_code_facts(run.origin) for run in (left, right)]
    return [[name, facts[0][name], facts[1][name]] for name in facts[0]
            if facts[0][name] != facts[1][name]]  # fmt: skip


def changed_code(left: Left, right: Left) -> list[str]:
    """How the uncommitted changes differ, as a diff of the two diffs."""
    ours, theirs = (run.origin.get("git", {}).get("diff", "").splitlines() for run in (left, right))
    lines = list(difflib.unified_diff(ours, theirs, "A", "B", lineterm="", n=1))
    if not lines:
        return []
    more = len(lines) - MAX_DIFF_LINES
    rest = [f"... {more} lines more, see git.diff in {ORIGIN} of both"] if more > 0 else []
    return ["", "UNCOMMITTED CHANGES (a diff of the two diffs)", *lines[:MAX_DIFF_LINES], *rest]


def data(left: Left, right: Left) -> list[list[str]]:
    """Sets with their hashes and counts, where they differ, and the clips both have."""
    sets = [run.origin.get("sets", {}) for run in (left, right)]
    facts = [flat(one) for one in sets]
    rows = [
        [name, _text(facts[0].get(name, "-")), _text(facts[1].get(name, "-"))]
        for name in sorted(facts[0].keys() | facts[1].keys())
        if facts[0].get(name) != facts[1].get(name)
    ]
    if left.keys != right.keys:
        both = len(left.keys & right.keys)
        rows += [
            ["clips", str(len(left.keys)), str(len(right.keys))],
            ["clips of this run only", str(len(left.keys) - both), str(len(right.keys) - both)],
        ]
    elif not rows and left.origin.get("fingerprint") != right.origin.get("fingerprint"):
        rows.append(
            ["fingerprint", *(_text(run.origin.get("fingerprint")) for run in (left, right))]
        )
    return rows


def results(left: Left, right: Left) -> list[list[str]]:
    """Final and best values, side by side."""
    found = [_results(run.metrics) for run in (left, right)]
    names = dict.fromkeys([*found[0], *found[1]])
    return [[name, *(_number(one.get(name)) for one in found)] for name in names] + _pointers(
        left, right
    )


def columns(rows: list[list[str]]) -> list[str]:
    """Three columns as wide as what stands in them; long values are cut in the middle."""
    cells = [[_cut(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


# --- pieces -----------------------------------------------------------------------------------


def _results(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Means of the last training steps; of held-out clips the last value and the best one."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for line in metrics for name in line if name not in NOT_RESULTS):
        values = [line[name] for line in metrics if isinstance(line.get(name), int | float)]
        if values and name.startswith("val_"):
            found[f"{name}, last"] = values[-1]
            if any(word in name for word in BETTER):
                better = next(BETTER[word] for word in BETTER if word in name)
                found[f"{name}, best"] = better(values)
        elif values:
            last = values[-LAST_STEPS:]
            found[f"{name}, end"] = sum(last) / len(last)
    return found


def _pointers(left: Left, right: Left) -> list[list[str]]:
    """Which checkpoints there are."""
    rows = []
    for pointer in (LAST, BEST):
        names = [_pointer(run.folder / "checkpoints" / pointer) for run in (left, right)]
        if any(names):
            rows.append([f"checkpoint `{pointer}`", *(name or "-" for name in names)])
    return rows


def _pointer(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _code_facts(origin: dict[str, Any]) -> dict[str, str]:
    git = origin.get("git", {})
    changed = git.get("diff", "").count("\ndiff --git ") + git.get("diff", "").startswith("diff ")
    return {
        "commit": git.get("commit") or "not recorded",
        "uncommitted": f"{changed} files" if changed else "nothing",
        **{name: _text(origin.get(name, "-")) for name in ("plugins", "torch", "ranks", "device")},
    }


def _metrics(path: Path) -> list[dict[str, Any]]:
    """Lines that can be read; the last one may be torn while the run goes on."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            log.warning("%s: a line that is no JSON was left out", path)
    return lines


def _keys(path: Path) -> set[tuple[str, str]]:
    table = pq.read_table(path, columns=["set", "key"])
    return set(zip(table["set"].to_pylist(), table["key"].to_pylist(), strict=True))


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _cut(text: str) -> str:
    half = MAX_CELL // 2 - 1
    return text if len(text) <= MAX_CELL else f"{text[:half]}..{text[-half:]}"
