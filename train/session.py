"""What surrounds the loop: the run's folder, its lock, metrics, and signals.

RUN/config.json      the resolved configuration          RUN/checkpoints/   see checkpoint.py
RUN/origin.json      code and sets of the last call      RUN/metrics.jsonl  one line a step
RUN/clips.parquet    the clips that are trained on       RUN/tensorboard/   the same, as curves
RUN/preempted        the last call was told to stop      RUN/finished.json  the schedule's end
RUN/report.html      all of it to look at
"""

import fcntl
import json
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from train.best import Best
from train.checkpoint import write_atomically
from train.elsewhere import RunCopy
from train.errors import LockedError, UsageError
from train.livepage import LivePage
from train.trackers import Tracker, open_trackers

log = logging.getLogger(__name__)

PREEMPTED, FINISHED, METRICS, CONFIG = "preempted", "finished.json", "metrics.jsonl", "config.json"
ORIGIN, CLIPS = "origin.json", "clips.parquet"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
ECHO_SECONDS = 0.5
"""A Ctrl-C may come twice, from the terminal and from a launcher; these are one."""


STDERR = 2
STOPPING = (
    b"\nCtrl-C: finishing this step, then saving; a second Ctrl-C stops at once, without saving\n"
)


@dataclass
class Stop:
    """Set by a signal; the loop looks at it after every step. A second Ctrl-C stops at once."""

    wanted: bool = False
    name: str = ""
    speaks: bool = True
    """Says what a Ctrl-C does; the first rank's."""
    saved_step: int | None = None
    """The step a resumption would go on from; None before the loop, where nothing can be lost."""
    _asked: float = float("-inf")
    """When the first signal came, by the monotonic clock."""

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """The handler.

        Raises:
            KeyboardInterrupt: Ctrl-C before the loop, or after a first signal; says what is lost.
        """
        now = time.monotonic()
        by_hand = number == signal.SIGINT
        if by_hand and self.saved_step is None:
            raise KeyboardInterrupt
        if by_hand and self.wanted:
            if now - self._asked < ECHO_SECONDS:
                return
            raise KeyboardInterrupt(
                f"stopped at once: nothing saved since step {self.saved_step}; the same command "
                "goes on from there"
            )
        self.wanted, self.name, self._asked = True, signal.Signals(number).name, now
        if by_hand and self.speaks:
            # Not through logging: the signal may have come while a line was being written.
            os.write(STDERR, STOPPING)


@contextmanager
def stop_on_signals(stop: Stop | None = None) -> Iterator[Stop]:
    """SIGTERM, SIGUSR1 and Ctrl-C ask for a stop instead of ending the process.

    Args:
        stop: what they set, of a caller that goes on with other things; None makes one.
    """
    stop = stop or Stop()
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    """Finished optimiser steps."""
    batches: int = 0
    """Used batches of each rank since the first epoch; with accumulation several a step."""
    best: Best | None = None
    """The held-out measurement that `best` points to."""
    unmeasured: bool = False
    """Whether a measurement on held-out clips was due after this step, and gave way to a stop."""


@dataclass
class Run:
    """The folder of a run. Only the first rank's writes anything."""

    folder: Path
    writes: bool = True
    _metrics: TextIO | None = None
    _trackers: list[Tracker] = field(default_factory=list)
    _page: LivePage | None = None
    copy: RunCopy | None = None
    """Where the run is copied to."""

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.folder / "checkpoints"

    @property
    def finished(self) -> dict[str, Any] | None:
        """Facts of a run whose schedule has ended."""
        path = self.folder / FINISHED
        return json.loads(path.read_bytes()) if path.is_file() else None

    def begin(self, config: dict[str, Any], origin: dict[str, Any], step: int) -> None:
        """Note config and origin, forget what was measured after `step`, and the last call's end.

        Args:
            config: the resolved configuration.
            origin: which code and which sets, see `restart.origin_of`.
            step: finished steps.
        """
        if not self.writes:
            return
        self._trackers = open_trackers(self.folder, config, step)
        write_atomically(self.folder / CONFIG, json.dumps(config, indent=1) + "\n")
        write_atomically(self.folder / ORIGIN, json.dumps(origin, indent=1) + "\n")
        (self.folder / PREEMPTED).unlink(missing_ok=True)
        (self.folder / FINISHED).unlink(missing_ok=True)
        self._forget_after(step)
        self._metrics = (self.folder / METRICS).open("a")
        self._page = LivePage(self.folder) if config.get("page") else None

    def record(self, facts: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl, and its numbers to the trackers; null for NaN and inf."""
        if self._metrics is None:
            return
        facts = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in facts.items()
        }
        self._metrics.write(json.dumps(facts, allow_nan=False) + "\n")
        self._metrics.flush()
        numbers = {name: x for name, x in facts.items() if isinstance(x, int | float)}
        step = int(numbers.pop("step"))
        for tracker in self._trackers:
            tracker.record(step, numbers)

    def show(self) -> None:
        """Bring report.html up to date, after a measurement."""
        if self._page is not None:
            self._page.update()

    def saved(self) -> None:
        """After a checkpoint: bring the copy up to date, while training goes on."""
        if self.copy is not None:
            self.copy.update()

    def end(self, name: str, facts: dict[str, Any]) -> None:
        """Leave a note: `preempted` or `finished.json`."""
        if self.writes:
            write_atomically(self.folder / name, json.dumps(facts) + "\n")

    def close(self) -> None:
        """Close what is open, and leave the page as things ended."""
        if self._metrics is not None:
            with suppress(OSError):  # on a full disk `record` has raised it already
                self._metrics.close()
        for tracker in self._trackers:
            try:
                tracker.close()
            except OSError as error:  # nor must a view of the numbers hide what ended the run
                log.warning(
                    "%s could not write its last numbers: %s", type(tracker).__name__, error
                )
        if self._page is not None:
            self._page.write()

    def _forget_after(self, step: int) -> None:
        """Steps that will be done again are measured again; a torn last line goes, too."""
        path = self.folder / METRICS
        if not path.is_file():
            return
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        write_atomically(path, "".join(line + "\n" for line in kept))


def record_clips(folder: Path, clips: pa.Table) -> None:
    """RUN/clips.parquet: what is trained on, and what was before the run was resumed.

    A clip that was dropped since stays listed: the run saw it.
    """
    path = folder / CLIPS
    with suppress(OSError, pa.ArrowException):  # there is none, or it is damaged
        clips = pa.concat_tables([pq.read_table(path).select(clips.column_names), clips])
        clips = clips.group_by(clips.column_names, use_threads=False).aggregate([])
    write_table(path, clips)


def write_table(path: Path, table: pa.Table) -> None:
    """A Parquet file that is either whole or not there."""
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


@contextmanager
def opened(folder: Path, writes: bool, copy_to: str = "") -> Iterator[Run]:
    """The run's folder, locked against a second process by the rank that writes.

    Args:
        folder: of the run.
        writes: whether this is the first rank.
        copy_to: address of its copy, from which an empty folder is filled; empty is none.

    Raises:
        StoreError: the copy cannot be reached, or is behind in the end.
        LockedError: another process trains in it.
        UsageError: it cannot be made.
    """
    run = Run(folder, writes)
    if not writes:
        yield run
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the run's folder {folder} cannot be made ({error.strerror}); name another RUN, or a "
            "path that you may write to"
        ) from error
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by workers
        except OSError as error:
            raise LockedError(
                f"another process trains in {folder}; wait for it, or name another RUN"
            ) from error
        try:
            if copy_to:
                run.copy = RunCopy(copy_to, folder)
                run.copy.fetch()
            yield run
        finally:
            run.close()
            if [path.name for path in folder.iterdir()] == ["lock"]:
                (folder / "lock").unlink()  # a refusal leaves no empty run behind
                folder.rmdir()
        if run.copy is not None:
            run.copy.close()


@dataclass
class Stopwatch:
    """Seconds a step takes, and how much of them the loop waits for data."""

    _last: float = field(default_factory=time.perf_counter)
    _waited: float = 0.0

    def waiting(self, seconds: float) -> None:
        """Add time spent waiting for a batch."""
        self._waited += seconds

    def lap(self) -> tuple[float, float]:
        """Seconds since the last lap, and the share of them spent waiting."""
        now = time.perf_counter()
        seconds, waited = now - self._last, self._waited
        self._last, self._waited = now, 0.0
        return seconds, waited / max(seconds, 1e-9)
