"""Worker children, as the shard job uses them: what a second one adds, what memory one takes."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench import ours
from bench.goals import Measured
from bench.media import Media
from bench.memory import peak_mib
from pipeline.config import Limits
from pipeline.item import Failed
from pipeline.sandbox import Sandbox

CLIPS_A_ROUND = 4


def second_core(media: Media, repeats: int) -> list[Measured]:
    """Throughput of two children over that of one; nothing on a machine with one core.

    Clips a CPU second count, in the quickest rounds: children that work at the same time slow each
    other down by sharing caches and memory, and CPU time shows it. The ratio of wall times, which
    needs a machine with nothing else to do, is among the facts.
    """
    with _all_cores() as cores, one_sandbox() as first, one_sandbox() as second:
        if cores < 2:
            return []
        pair = [first, second]
        for sandbox in pair:  # from this thread: a child ends with the thread that started it
            make(sandbox, media.path)
        rounds = [_round(pair, media.path) for _ in range(repeats)]
    quickest = [min(column) for column in zip(*rounds, strict=True)]
    cpu_alone, wall_alone, cpu_together, wall_together = quickest
    facts = {
        "by_wall": round(2 * wall_alone / wall_together, 3),
        "load": os.getloadavg()[0],
        "cpu_seconds_a_clip": {"alone": cpu_alone, "together": cpu_together},
    }
    return [Measured("second core", media.name, 2 * cpu_alone / cpu_together, None, facts)]


def memory(media: Media) -> list[Measured]:
    """The most memory a fresh child had resident while it made one sample."""
    with one_sandbox() as sandbox:
        known = {child.pid for child in psutil.Process().children()}
        make(sandbox, media.path)
        fresh = [child.pid for child in psutil.Process().children() if child.pid not in known]
        return [Measured("child memory", media.name, peak_mib(pid)) for pid in fresh]


def one_sandbox() -> Sandbox:
    """A worker child as it looks for faces."""
    return Sandbox(ours.config("auto"), Limits())


def _round(pair: list[Sandbox], path: Path) -> tuple[float, ...]:
    """Seconds a clip of one child (CPU, wall), then of each of two that work at the same time."""
    alone = work(pair[:1], path, CLIPS_A_ROUND)
    cpu, wall = work(pair, path, CLIPS_A_ROUND)
    return tuple(seconds / CLIPS_A_ROUND for seconds in (*alone, cpu / 2, wall))


def work(sandboxes: list[Sandbox], path: Path, clips: int) -> tuple[float, float]:
    """CPU seconds of all children, and wall seconds, for so many clips in each sandbox."""
    cpu, wall = _children_cpu_seconds(), time.monotonic()
    with ThreadPoolExecutor(len(sandboxes)) as pool:
        list(pool.map(make, sandboxes, [path] * len(sandboxes), [clips] * len(sandboxes)))
    return _children_cpu_seconds() - cpu, time.monotonic() - wall


def make(sandbox: Sandbox, path: Path, times: int = 1) -> None:
    """One sample several times."""
    for _ in range(times):
        for outcome, _tries in sandbox.run(ours.item(path)):
            if isinstance(outcome, Failed):
                raise outcome.error


def _children_cpu_seconds() -> float:
    times = [child.cpu_times() for child in psutil.Process().children()]
    return float(sum(time.user + time.system for time in times))


@contextmanager
def _all_cores() -> Iterator[int]:
    """Lift the pin for a while; how many cores there are."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield len(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, pinned)
