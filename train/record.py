"""What a run left in its folder, read again: for `train diff` and `train report`.

    config.json, origin.json, metrics.jsonl, clips.parquet, finished.json, preempted, checkpoints/

Each may be missing but the config: a run that is going on has no end yet.
"""

import json
import logging
import math
import re
from array import array
from bisect import bisect_left
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
Columns = dict[str, tuple["array[int]", "array[float]"]]
"""Steps and values by name, while they are read."""
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

    def at(self, step: int) -> float:
        """The value of a step that it has."""
        return float(self.values[np.searchsorted(self.steps, step)])

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
    series: dict[str, Series]
    """Every number that was measured, by name, in the order of their first appearance."""

    @property
    def last_step(self) -> int:
        """The newest step with a number; 0 before the first."""
        return max((int(series.steps[-1]) for series in self.series.values()), default=0)

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
        match = re.fullmatch(r"step-(\d{8})\.pt", name)
        step = int(match[1]) if match else -1
        facts = {
            name.removeprefix(HELD_OUT): series.at(step)
            for name, series in self.series.items()
            if name.startswith(HELD_OUT) and step in series.steps
        }
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
        inside = ", ".join(sorted(path.parent.name for path in folder.glob("*/study.json")))
        hint = f". It holds studies, which have pages of their own: {inside}" if inside else ""
        raise UsageError(
            f"{folder} is no run, or one that never began: {CONFIG} cannot be read ({error}){hint}"
        ) from error
    origin = folder / ORIGIN
    return Record(
        folder,
        config,
        json.loads(origin.read_bytes()) if origin.is_file() else {},
        read_metrics(folder / METRICS),
    )


def read_metrics(path: Path) -> dict[str, Series]:
    """The finite numbers of metrics.jsonl, a column each; a dict a step took ten times the memory.

    A measurement on held-out clips is a line of its own, of the same step. Steps that were done
    again, after a crash, count as they were done last: a line that goes back makes all that was
    measured from its step on void. The last line may be torn while the run goes on.
    """
    columns: Columns = {}
    newest, names_of_newest, left_out = -1, set[str](), 0
    if not path.is_file():
        return {}
    with path.open(errors="replace") as file:
        for text in file:
            line = _line(text)
            if line is None:
                left_out += 1
                continue
            step = line.pop("step")
            if step < newest or (step == newest and names_of_newest & line.keys()):
                _forget_from(step, columns)
                names_of_newest = set()
            names_of_newest = line.keys() | (names_of_newest if step == newest else set())
            newest = step
            _add(step, line, columns)
    if left_out:
        log.warning("%s: %d lines that are no JSON were left out", path, left_out)
    return {
        name: Series(np.array(steps, np.int64), np.array(values, np.float64))
        for name, (steps, values) in columns.items()
        if steps
    }


def _add(step: int, line: Row, columns: Columns) -> None:
    for name, value in line.items():
        if isinstance(value, int | float) and math.isfinite(value):
            steps, values = columns.setdefault(name, (array("q"), array("d")))
            steps.append(step)
            values.append(value)


def _forget_from(step: int, columns: Columns) -> None:
    for steps, values in columns.values():
        first = bisect_left(steps, step)
        del steps[first:], values[first:]


def _line(text: str) -> Row | None:
    """One line; None if it is torn or no measurement of a step."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    is_row = isinstance(line, dict) and isinstance(line.get("step"), int)
    return line if is_row else None
