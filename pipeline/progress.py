"""How far a job is: small files that workers leave while at work, and lines for the user.

A worker may sit on another machine, so it tells through a file beside the shards, at most once a
second; the file is gone when the shard is committed.
"""

import contextlib
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import plain_text
from pipeline.shard import Progress
from pipeline.units import time_text

WRITE_EVERY_SECONDS = 1.0
LINE_EVERY_SECONDS = 10.0
PACE_SECONDS = 600.0


class ProgressFile:
    """The progress of one shard as a file; a context manager that removes it."""

    def __init__(self, folder: str, shard: str) -> None:
        self._path = progress_path(Path(folder), shard)
        self._written = 0.0

    def __enter__(self) -> "ProgressFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self._path.unlink(missing_ok=True)

    def update(self, progress: Progress) -> None:
        """Write, if the last time was long enough ago; the disk being full is told elsewhere."""
        if time.monotonic() - self._written < WRITE_EVERY_SECONDS:
            return
        self._written = time.monotonic()
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps(asdict(progress)))


def progress_path(folder: Path, shard: str) -> Path:
    """Where a shard's progress stands; hidden, so that nobody takes it for a sidecar."""
    return folder / f".{shard}.progress"


def read_progress(folder: Path, shard: str) -> Progress:
    """What a worker said last; nothing if it has not said anything, or is just writing."""
    try:
        return Progress(**json.loads(progress_path(folder, shard).read_text()))
    except (OSError, ValueError):
        return Progress()


@dataclass
class Tally:
    """Sums over the shards of a job."""

    shards: int = 0
    rows: int = 0
    samples: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    """Committed shards by the machine that made them."""
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows of committed shards that failed, by reason and machine."""

    def add(self, progress: Progress) -> None:
        """Take in one shard's counts."""
        self.rows += progress.rows
        self.samples += progress.samples
        self.seconds += progress.seconds
        self.reasons.update(progress.reasons)

    def add_sidecar(self, sidecar: dict[str, Any]) -> None:
        """Take in a committed shard."""
        self.shards += 1
        self.rows += sidecar["rows"]
        self.samples += sidecar["nsamples"]
        self.seconds += sidecar["seconds"]
        host = plain_text(str(sidecar["run"]["host"]))
        self.hosts[host] += 1
        for error in sidecar["errors"]:
            self.reasons[error["reason"]] += 1
            self.failures[error["reason"], host] += 1

    def copy(self) -> "Tally":
        """As it is now."""
        return replace(
            self,
            reasons=Counter(self.reasons),
            hosts=Counter(self.hosts),
            failures=Counter(self.failures),
        )

    def with_running(self, running: Iterable[Progress]) -> "Tally":
        """Also what the shards say that are still being made."""
        now = self.copy()
        for progress in running:
            now.add(progress)
        return now


class Pace:
    """Clips a second over the last ten minutes, so that it follows machines that come and go."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def see(self, rows: int) -> None:
        """So many clips are done now."""
        now = time.monotonic()
        if now - self._seen[-1][0] >= WRITE_EVERY_SECONDS or len(self._seen) == 1:
            self._seen.append((now, rows))
        while self._seen[1][0] < now - PACE_SECONDS:
            self._seen.popleft()

    @property
    def clips_per_second(self) -> float:
        """0 while nothing is known."""
        (then, before), (now, rows) = self._seen[0], self._seen[-1]
        return max(0.0, (rows - before) / (now - then)) if now > then else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Until the last clip, at this pace; None while nothing is known."""
        pace = self.clips_per_second
        return max(0, self._rows - self._seen[-1][1]) / pace if pace else None


def note(line: str) -> None:
    """A line for the log, above the bar where there is one."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class Display:
    """Shows a job's progress: one bar on a terminal, a line now and then elsewhere."""

    def __init__(
        self, rows: int, shards: int, pace: Pace, line_seconds: float = LINE_EVERY_SECONDS
    ) -> None:
        self._rows = rows
        self._shards = shards
        self._pace = pace
        self._line_seconds = line_seconds
        self._started = time.monotonic()
        self._last_line = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=rows, unit="clip", dynamic_ncols=True, smoothing=0.1)

    def show(self, tally: Tally) -> None:
        """Bring the display up to date."""
        if self._bar is not None:
            self._bar.n = tally.rows
            self._bar.set_postfix_str(self._facts(tally), refresh=True)
        elif time.monotonic() - self._last_line >= self._line_seconds:
            self._last_line = time.monotonic()
            note(f"{tally.rows}/{self._rows} clips, {self._line(tally)}")

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, tally: Tally) -> str:
        left = self._pace.eta_seconds
        eta = "unknown" if left is None else f"about {time_text(left)}"
        return f"{self._facts(tally)}, ETA {eta}"

    def _facts(self, tally: Tally) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-3)
        reasons = " ".join(f"{reason}={n}" for reason, n in sorted(tally.reasons.items()))
        speed = tally.seconds / elapsed
        facts = (
            f"{tally.shards}/{self._shards} shards, {tally.seconds:.0f} s of video, {speed:.1f}x"
        )
        return f"{facts}, errors: {reasons or 'none'}"
