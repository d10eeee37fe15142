"""What a run left in its folder, read again: for `train diff` and `train report`.

    config.json, origin.json, metrics.jsonl, clips.parquet, finished.json, preempted, checkpoints/

Each may be missing but the config: a run that is going on has no end yet.
"""

import json
import logging
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from train.best import Best, best_of
from train.checkpoint import BEST, LAST
from train.config import RUNS, clips_per_batch, flat
from train.errors import UsageError
from train.facts import HELD_OUT
from train.session import CLIPS, CONFIG, FINISHED, METRICS, ORIGIN, PREEMPTED

log = logging.getLogger(__name__)

Row = dict[str, Any]
LAST_STEPS = 20
"""The value at the end is the mean over so many steps: a single batch's loss jumps."""
POINTERS = (LAST, BEST)


class Series(NamedTuple):
    """One number of a run over its steps."""

    steps: npt.NDArray[np.int64]
    """Where it was measured, ascending."""
    values: npt.NDArray[np.float64]
    """Finite."""

    @property
    def last(self) -> float:
        """The newest value."""
        return float(self.values[-1])

    @property
    def end(self) -> float:
        """Mean of the last training steps."""
        return float(self.values[-LAST_STEPS:].mean())


@dataclass(frozen=True)
class Record:
    """A run, as its folder tells it."""

    folder: Path
    config: dict[str, Any]
    """Flat: {"model.tau": 1}."""
    origin: dict[str, Any]
    """Code, ranks, device and sets of the last call; empty where it was not recorded."""
    rows: list[Row]
    """What was measured, a row a step."""

    @cached_property
    def series(self) -> dict[str, Series]:
        """Every number but the step, by name, in the order of their first appearance."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.rows:
            for name, value in row.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    found.setdefault(name, []).append((row["step"], value))
        found.pop("step", None)
        columns = {name: zip(*points, strict=True) for name, points in found.items()}
        return {
            name: Series(np.array(steps, np.int64), np.array(values, np.float64))
            for name, (steps, values) in columns.items()
        }

    @cached_property
    def keys(self) -> set[tuple[str, str]]:
        """(set, key) of each clip it is trained on."""
        path = self.folder / CLIPS
        if not path.is_file():
            return set()
        table = pq.read_table(path, columns=["set", "key"])
        return set(zip(table["set"].to_pylist(), table["key"].to_pylist(), strict=True))

    @property
    def clips_on_a_device(self) -> int:
        """Of a batch, in the last call."""
        return clips_per_batch(self.config.get("batch_size"), self.config.get("preset", ""))

    @property
    def clips_compared(self) -> int | None:
        """Clips among which retrieval in a training batch looks; None where it is not known."""
        if not self.config.get("model.gather", True):
            return self.clips_on_a_device
        ranks: int | None = self.origin.get("ranks")
        return self.clips_on_a_device * ranks if ranks else None

    @property
    def state(self) -> str:
        """A sentence about how far it is."""
        if (self.folder / FINISHED).is_file():
            facts = json.loads((self.folder / FINISHED).read_bytes())
            return f"finished, {facts['step']} steps, {facts['epochs']:.1f} epochs"
        if "loss" not in self.series:
            return "no step was measured yet"
        how = "was told to stop" if (self.folder / PREEMPTED).is_file() else "is not finished"
        return f"{how} after step {self.series['loss'].steps[-1]}: its results are those so far"

    def pointer(self, name: str) -> str:
        """The checkpoint that `last` or `best` names; empty where there is none."""
        path = self.folder / "checkpoints" / name
        return path.read_text().strip() if path.is_file() else ""

    def best(self) -> Best | None:
        """The measurement that chose the checkpoint `best`; None where that is not known."""
        name = self.pointer(BEST)
        row = next((row for row in self.rows if name == f"step-{row['step']:08d}.pt"), {})
        facts = {name.removeprefix(HELD_OUT): value for name, value in row.items()
                 if name.startswith(HELD_OUT)}  # fmt: skip
        return best_of(facts) if "loss" in facts else None


def read_run(name: str) -> Record:
    """What a run left in its folder.

    Args:
        name: of a folder below runs/, or a path.

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
    return Record(
        folder,
        config,
        json.loads(origin.read_bytes()) if origin.is_file() else {},
        read_metrics(folder / METRICS),
    )


def read_metrics(path: Path) -> list[Row]:
    """The rows of metrics.jsonl, one a step, in order.

    A measurement on held-out clips is a line of its own and joins the row of its step. Steps that
    were done again, after a crash, count as they were done last: a line that goes back makes all
    that was measured from its step on void. The last line may be torn while the run goes on.
    """
    if not path.is_file():
        return []
    rows: dict[int, Row] = {}
    left_out = 0
    with path.open(errors="replace") as file:
        for text in file:
            line = _line(text)
            if line is None:
                left_out += 1
                continue
            step = line["step"]
            is_again = bool((rows.get(step, {}).keys() & line.keys()) - {"step"})
            if is_again or (rows and step < next(reversed(rows))):
                rows = {number: row for number, row in rows.items() if number < step}
            rows[step] = {**rows.get(step, {}), **line}
    if left_out:
        log.warning("%s: %d lines that are no JSON were left out", path, left_out)
    return list(rows.values())


def _line(text: str) -> Row | None:
    """One line; None if it is torn or no measurement of a step."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    is_row = isinstance(line, dict) and isinstance(line.get("step"), int)
    return line if is_row else None
