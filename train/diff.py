"""`python -m train diff RUN RUN`: what two runs do differently, and what came of it.

    python -m train diff runs/glcm-r18 runs/glcm-cosine

Batch, settings, code, data and results, in this order, from what the runs left in their folders:
only what differs, except batch and results, which stand side by side.
"""

import difflib
import json
from typing import Any

from train.config import flat
from train.facts import HELD_OUT, better
from train.record import LAST_STEPS, POINTERS, Record, read_run
from train.session import ORIGIN

NAMES_OF_RUNS = {"run"}
"""Settings that differ by nature."""
MAX_CELL = 48
MAX_DIFF_LINES = 60
NOT_RESULTS = {"epoch", "lr", "time", "mfu", "clips_per_second", "step_seconds",
               "data_wait_share", "memory_bytes"}  # fmt: skip


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
        "BATCH": batch(left, right),
        "SETTINGS": settings(left, right),
        "CODE": code(left, right),
        "DATA": data(left, right),
        f"RESULTS (end: mean of the last {LAST_STEPS} steps)": results(left, right),
    }
    lines = ["RUNS", f"  A  {left.folder}: {left.state}", f"  B  {right.folder}: {right.state}"]
    for title, rows in sections.items():
        lines += ["", title]
        lines += columns([["", "A", "B"], *rows]) if rows else ["  the same"]
        if title == "BATCH":
            lines += incomparable(left, right)
    return lines + changed_code(left, right)


def batch(*runs: Record) -> list[list[str]]:
    """How many clips a step has, and among how many a clip is told apart; always shown."""
    facts = [_batch_facts(run) for run in runs]
    return [[name, *(_text(one[name]) for one in facts)] for name in facts[0]]


def incomparable(left: Record, right: Record) -> list[str]:
    """A sentence where the losses of the two are of tasks that are not equally hard."""
    ours, theirs = left.clips_compared, right.clips_compared
    if ours == theirs:
        return []
    said = [f"{run - 1} negatives" if run else "an unknown number" for run in (ours, theirs)]
    return [
        f"  {said[0]} in A, {said[1]} in B: losses and R@1 over the clips of a batch (loss, "
        "loss_g, a2v_r1) cannot be compared between the two; more negatives are harder"
    ]


def settings(*runs: Record) -> list[list[str]]:
    """Fields of the configs that differ; a cell a run behind the name, as in what follows."""
    return [row for row in _differing([run.config for run in runs]) if row[0] not in NAMES_OF_RUNS]


def code(*runs: Record) -> list[list[str]]:
    """Commit, uncommitted changes, plugins, torch and device, where they differ."""
    return _differing([code_facts(run.origin) for run in runs])


def changed_code(left: Record, right: Record) -> list[str]:
    """How the uncommitted changes differ, as a diff of the two diffs."""
    ours, theirs = (run.origin.get("git", {}).get("diff", "").splitlines() for run in (left, right))
    lines = list(difflib.unified_diff(ours, theirs, "A", "B", lineterm="", n=1))
    if not lines:
        return []
    more = len(lines) - MAX_DIFF_LINES
    rest = [f"... {more} lines more, see git.diff in {ORIGIN} of both"] if more > 0 else []
    return ["", "UNCOMMITTED CHANGES (a diff of the two diffs)", *lines[:MAX_DIFF_LINES], *rest]


def data(left: Record, right: Record) -> list[list[str]]:
    """Sets with their hashes and counts, where they differ, and the clips both have."""
    rows = sets(left, right)
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


def sets(*runs: Record) -> list[list[str]]:
    """Facts of the sets that differ."""
    return _differing([flat(run.origin.get("sets", {})) for run in runs])


def results(*runs: Record) -> list[list[str]]:
    """Final and best values, side by side."""
    found = [_results(run) for run in runs]
    names = dict.fromkeys(name for one in found for name in one)
    return [[name, *(number(one.get(name)) for one in found)] for name in names] + _pointers(runs)


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


def _results(run: Record) -> dict[str, float]:
    """Means of the last training steps; of held-out clips the last value and the best one."""
    found: dict[str, float] = {}
    for name, series in run.series.items():
        if name.startswith(HELD_OUT):
            found[f"{name}, last"] = series.last
            if choose := better(name):
                found[f"{name}, best"] = choose(series.values.tolist())
        elif name not in NOT_RESULTS:
            found[f"{name}, end"] = series.end
    return found


def _pointers(runs: tuple[Record, ...]) -> list[list[str]]:
    """Which checkpoints there are."""
    rows = []
    for pointer in POINTERS:
        names = [run.pointer(pointer) for run in runs]
        if any(names):
            rows.append([f"checkpoint `{pointer}`", *(name or "-" for name in names)])
    return rows


def code_facts(origin: dict[str, Any]) -> dict[str, str]:
    """Which code ran, and where, in words."""
    git = origin.get("git", {})
    changed = git.get("diff", "").count("\ndiff --git ") + git.get("diff", "").startswith("diff ")
    return {
        "commit": git.get("commit") or "not recorded",
        "uncommitted": f"{changed} files" if changed else "nothing",
        "untracked": ", ".join(git.get("untracked", [])) or "nothing",
        **{name: _text(origin.get(name, "-")) for name in ("plugins", "torch", "device")},
    }


def _batch_facts(run: Record) -> dict[str, Any]:
    ranks, accumulated = run.origin.get("ranks"), run.config.get("accumulation", 1)
    compared = run.clips_compared
    return {
        "clips a step": run.clips_on_a_device * ranks * accumulated if ranks else "-",
        "clips a device": run.clips_on_a_device,
        "ranks": ranks or "-",
        "accumulated": accumulated,
        "negatives of a clip": run.config.get("model.negatives", compared - 1 if compared else "-"),
    }


def _differing(facts: list[dict[str, Any]]) -> list[list[str]]:
    """Those that are not the same everywhere: name, and a cell each."""
    names = sorted({name for one in facts for name in one})
    return [
        [name, *(_text(one.get(name, "-")) for one in facts)]
        for name in names
        if any(one.get(name) != facts[0].get(name) for one in facts)
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def number(value: float | None) -> str:
    """Five digits; a dash for nothing."""
    return "-" if value is None else f"{value:.5g}"


def _cut(text: str) -> str:
    half = MAX_CELL // 2 - 1
    return text if len(text) <= MAX_CELL else f"{text[:half]}..{text[-half:]}"
