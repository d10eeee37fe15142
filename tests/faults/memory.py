"""Memory of a job's processes over time, and whether it grows.

Resident memory (RSS) is sampled once a second for every process below this one. A leak shows as a
slope within the life of a process, so the slope of a role is fitted over all its processes at once,
each about its own mean: processes that were killed young weigh little, and that some hold more than
others does not matter. Caches and pools that fill are a slope, too, which ends: so the later halves
of long lives are fitted once more on their own, where a leak goes on and warming up does not.
"""

import contextlib
import math
import os
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

SAMPLE_SECONDS = 1.0
WARM_UP_SECONDS = 10.0
"""Loading libraries and the first clips are growth, but no leak."""
LEAST_SECONDS = 120.0
"""Time after the warm-up, over all processes of a role, below which a slope says nothing."""
LEAST_LIFE_SECONDS = 60.0
"""The longest life of a role after its warm-up below which its slope is that of youth: caches and
pools fill in the first minute, the more so where many processes share two cores."""
COURSE_POINTS = 60
"""Of the longest life, kept to be looked at: a slope hides what shape it is the slope of."""
LEAST_LIVES = 3
"""Processes of a role below which their maxima say nothing about the soak as a whole."""
BLOCK_SAMPLES = 30
"""What follows within half a minute is no news: the standard error of a slope counts such blocks of
samples as one each, or noise that lasts would pass for certainty."""
LEAST_BLOCKS = 3
MIB = 1 << 20


@dataclass
class Life:
    """What one process held, from its warm-up on."""

    seconds: list[float] = field(default_factory=list)
    """Its age."""
    mib: list[float] = field(default_factory=list)
    clips: list[float] = field(default_factory=list)
    """What it was through with by then."""
    born: float = 0.0
    """Seconds since the epoch."""

    @property
    def span_seconds(self) -> float:
        """Time between the first sample and the last."""
        return self.seconds[-1] - self.seconds[0] if self.seconds else 0.0

    def later_half(self) -> "Life":
        """What it held in the second half of the time it was watched."""
        middle = bisect_left(self.seconds, self.seconds[0] + self.span_seconds / 2)
        parts = (self.seconds[middle:], self.mib[middle:], self.clips[middle:])
        return Life(*parts, born=self.born)

    def course(self) -> list[tuple[float, float]]:
        """Age in seconds and MiB at some moments, the first and the last among them."""
        last = len(self.seconds) - 1
        count = min(COURSE_POINTS, last + 1)
        places = [round(step * last / max(1, count - 1)) for step in range(count)]
        return [(round(self.seconds[place]), round(self.mib[place], 1)) for place in places]


@dataclass(frozen=True)
class Slope:
    """How much more memory for one more of something."""

    value: float
    error: float
    """Standard error of the value; infinite where there are too few samples to know."""

    def __str__(self) -> str:
        """`0.12 ± 0.05`."""
        return f"{self.value:.2f} ± {self.error:.2f}"


@dataclass(frozen=True)
class Growth:
    """What the processes of one role held."""

    processes: int
    longest_seconds: float
    """Of one process after its warm-up."""
    watched_seconds: float
    """Of all of them together."""
    peak_mib: float
    mib_per_minute: Slope | None
    """Within the lives of the processes; None where they were watched for too short a time."""
    late_mib_per_minute: Slope | None
    """Within the later halves of those lives that were watched for two minutes and more: what is
    left of growth when caches are full. None where there is too little of them."""
    mib_per_1000_clips: Slope | None
    """The same over the clips that they made."""
    most_clips: float
    """That one process made while it was watched."""
    peaks_mib_per_minute: Slope | None
    """Of the most that each process held, over the time of the soak; None with a few processes."""
    course: list[tuple[float, float]]
    """Of the process that was watched longest: age in seconds and MiB."""


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
    """How the processes of a role grew."""
    known = [life for life in lives if len(life.seconds) > 1]
    longest = max(known, key=lambda life: life.span_seconds, default=Life())
    late = [life.later_half() for life in known if life.span_seconds >= 2 * LEAST_LIFE_SECONDS]
    enough = _watched(known) >= LEAST_SECONDS and longest.span_seconds >= LEAST_LIFE_SECONDS
    by_clips = [([clips / 1000 for clips in life.clips], life.mib) for life in known]
    peaks = ([life.born / 60 for life in known], [max(life.mib) for life in known])
    return Growth(
        len(known),
        longest.span_seconds,
        _watched(known),
        peak_mib,
        slope(_by_minutes(known)) if enough else None,
        slope(_by_minutes(late)) if _watched(late) >= LEAST_SECONDS else None,
        slope(by_clips) if enough else None,
        max((life.clips[-1] - life.clips[0] for life in known), default=0.0),
        slope([peaks], block=1) if len(known) >= LEAST_LIVES else None,
        longest.course(),
    )


def _watched(lives: Iterable[Life]) -> float:
    return sum(life.span_seconds for life in lives)


def _by_minutes(lives: Iterable[Life]) -> list[tuple[list[float], list[float]]]:
    return [([second / 60 for second in life.seconds], life.mib) for life in lives]


def slope(
    series: Sequence[tuple[list[float], list[float]]], block: int = BLOCK_SAMPLES
) -> Slope | None:
    """The common slope of y over x (least squares, a mean for each series).

    Args:
        series: x and y of each.
        block: samples in a row that count as one for the error.

    Returns:
        None where x stands still.
    """
    centred = [(_about_mean(xs), _about_mean(ys)) for xs, ys in series]
    squares = sum(x * x for xs, _ in centred for x in xs)
    if not squares:
        return None
    value = sum(x * y for xs, ys in centred for x, y in zip(xs, ys, strict=True)) / squares
    sums = [
        sum(x * (y - value * x) for x, y in zip(xs[at : at + block], ys[at : at + block]))  # noqa: B905
        for xs, ys in centred
        for at in range(0, len(xs), block)
    ]
    if len(sums) < LEAST_BLOCKS:
        return Slope(value, math.inf)
    spread = len(sums) / (len(sums) - 2)
    return Slope(value, math.sqrt(spread * sum(one * one for one in sums)) / squares)


def _about_mean(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value - mean for value in values]


class Watch:
    """Samples the processes below this one while it is open; a context manager."""

    def __init__(self) -> None:
        self.driver: int | None = None
        """Process id of the job under way."""
        self.at_work: Callable[[], bool] = lambda: True
        """Whether shards are being made, rather than planned or indexed: only then should memory
        be flat."""
        self.clips: Callable[[psutil.Process, str], float] = lambda process, role: 0.0
        """How many clips a process is through with, by its role."""
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
        born = process.create_time()
        age = time.time() - born
        if at_work and age >= WARM_UP_SECONDS:
            life = lives[process.pid, born]
            life.born = born
            life.seconds.append(age)
            life.mib.append(mib)
            life.clips.append(self.clips(process, role))
