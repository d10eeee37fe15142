"""Memory of a job's processes over time, and whether it grows.

Resident memory (RSS) is sampled once a second for every process below this one. A leak shows as a
slope within the life of a process, so the slope of a role is fitted over all its processes at once,
each about its own mean: processes that were killed young weigh little, and that some hold more than
others does not matter.
"""

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

SAMPLE_SECONDS = 1.0
WARM_UP_SECONDS = 10.0
"""Loading libraries and the first clips are growth, but no leak."""
LEAST_SECONDS = 120.0
"""Time after the warm-up, over all processes of a role, below which a slope says nothing."""
MIB = 1 << 20


@dataclass
class Life:
    """What one process held, from its warm-up on."""

    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    @property
    def span_seconds(self) -> float:
        """Time between the first sample and the last."""
        return self.seconds[-1] - self.seconds[0] if self.seconds else 0.0


@dataclass(frozen=True)
class Growth:
    """What the processes of one role held."""

    processes: int
    longest_seconds: float
    """Of one process after its warm-up."""
    watched_seconds: float
    """Of all of them together."""
    peak_mib: float
    slope_mib_per_minute: float | None
    """None where they were watched for too short a time."""


def role_of(process: psutil.Process, driver: int | None) -> str:
    """What a process does in a job: driver, child, worker, or one of Ray's own."""
    if process.pid == driver:
        return "driver"
    if "pipeline.child" in process.cmdline():
        return "child"
    name = process.name()
    if name.startswith("ray::") and not name.endswith("Agent"):
        return "worker"
    return name if name in ("raylet", "gcs_server") else "other"


def growth(lives: Iterable[Life], peak_mib: float) -> Growth:
    """The common slope within the lives of some processes (least squares, a mean for each)."""
    known = [life for life in lives if len(life.seconds) > 1]
    watched = sum(life.span_seconds for life in known)
    products = squares = 0.0
    for life in known:
        middle, level = _mean(life.seconds), _mean(life.mib)
        times = [second - middle for second in life.seconds]
        products += sum(t * (mib - level) for t, mib in zip(times, life.mib, strict=True))
        squares += sum(t * t for t in times)
    enough = watched >= LEAST_SECONDS and squares > 0
    longest = max((life.span_seconds for life in known), default=0.0)
    slope = 60 * products / squares if enough else None
    return Growth(len(known), longest, watched, peak_mib, slope)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


class Watch:
    """Samples the processes below this one while it is open; a context manager."""

    def __init__(self) -> None:
        self.driver: int | None = None
        """Process id of the job under way."""
        self.at_work: Callable[[], bool] = lambda: True
        """Whether shards are being made, rather than planned or indexed: only then should memory
        be flat."""
        self._lives: dict[str, dict[Any, Life]] = defaultdict(lambda: defaultdict(Life))
        self._peaks: dict[str, float] = defaultdict(float)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def growth(self) -> Mapping[str, Growth]:
        """By role."""
        return {
            role: growth(lives.values(), self._peaks[role]) for role, lives in self._lives.items()
        }

    def _sample(self) -> None:
        own = psutil.Process(os.getpid())
        while not self._done.wait(SAMPLE_SECONDS):
            at_work = self.at_work()
            for process in own.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    self._take(process, at_work)

    def _take(self, process: psutil.Process, at_work: bool) -> None:
        role = role_of(process, self.driver)
        lives = self._lives[role]
        mib = process.memory_info().rss / MIB
        self._peaks[role] = max(self._peaks[role], mib)
        age = time.time() - process.create_time()
        if at_work and age >= WARM_UP_SECONDS:
            life = lives[process.pid, process.create_time()]
            life.seconds.append(age)
            life.mib.append(mib)
