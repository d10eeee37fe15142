"""What the processes of a job hold after so many clips or shards, one kind of them at a time.

    python -m tests.faults.flat ROLE OUT ROUNDS [LEAK]    a line of JSON: MiB after each round

ROLE is `child` (decodes, and is never renewed here), `worker` (what it does beside: shards are
written) or `driver` (its loop, with a pool that makes nothing). OUT is a finished set, made again
and again; a round goes through all of it. LEAK is bytes that this process loses on purpose with
each clip or shard, to see that it would be seen. A child loses them by a plugin.

A soak sees the same in anger, but there nothing lives for long, and caches that fill look like
leaks.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil

from pipeline.config import Limits
from pipeline.executors import Finished, make
from pipeline.job import JobOptions, Result, _Run
from pipeline.prepare import Prepared, load
from pipeline.sandbox import Sandbox
from pipeline.shard import ShardTask
from tests.faults.memory import MIB

LIMITS = Limits(items_per_child=1 << 40, base_seconds=300)
HOARD: list[bytes] = []


def child(prepared: Prepared, rounds: int, leak: int) -> Iterator[float]:
    """Every clip of the set, decoded by one child."""
    tasks = [prepared.task(shard, LIMITS) for shard in prepared.plan.shards]
    items = [item for task in tasks for item in task.items()]
    pids = set()
    with Sandbox(prepared.config, LIMITS) as sandbox:
        for _ in range(rounds):
            for item in items:
                for _ in sandbox.run(item):
                    pass
            [process] = psutil.Process().children()
            pids.add(process.pid)
            yield process.memory_info().rss / MIB
    if len(pids) != 1 or leak:
        raise SystemExit(f"{len(pids)} children, expected 1; leak {leak} is a plugin's")


def worker(prepared: Prepared, rounds: int, leak: int) -> Iterator[float]:
    """Every shard of the set, made and committed, the decoding left to one child."""
    with tempfile.TemporaryDirectory() as folder, Sandbox(prepared.config, LIMITS) as sandbox:
        for _ in range(rounds):
            for shard in prepared.plan.shards:
                make(replace(prepared.task(shard, LIMITS), folder=folder), sandbox)
                HOARD.append(b"x" * leak)
            yield _own_mib()


class _Idle:
    """A pool that says at once that a shard is made, and sees what this process holds then."""

    capacity = 4

    def __init__(self, shards_a_round: int, leak: int) -> None:
        self.levels: list[float] = []
        self._shards_a_round = shards_a_round
        self._leak = leak
        self._names: list[str] = []
        self._through = 0

    def submit(self, task: ShardTask) -> None:
        """Note it."""
        HOARD.append(b"x" * self._leak)
        self._names.append(task.name)

    def poll(self) -> list[Finished]:
        """All that was noted."""
        self._through += len(self._names)
        if self._through // self._shards_a_round > len(self.levels):
            self.levels.append(_own_mib())
        names, self._names = self._names, []
        return [Finished(name) for name in names]

    def stop(self) -> None:
        """Nothing runs."""


def driver(prepared: Prepared, rounds: int, leak: int) -> Iterator[float]:
    """The loop of a job over a set that is so many times as long."""
    shards, options = prepared.plan.shards, JobOptions(max_error_rate=1)
    pool = _Idle(len(shards), leak)
    _Run(prepared, options, shards * rounds, Result()).work(pool)
    yield from pool.levels


def _own_mib() -> float:
    return float(psutil.Process().memory_info().rss / MIB)


def drift(levels: list[float]) -> float:
    """By how much the level of the last third is above that of the third before it.

    What fills and is then full does so in the first third, or the passes are too few.
    """
    third = len(levels) // 3
    return median(levels[-third:]) - median(levels[-2 * third : -third])


if __name__ == "__main__":
    role = {"child": child, "worker": worker, "driver": driver}[sys.argv[1]]
    numbers = [*map(int, sys.argv[3:]), 0]
    found = role(load(Path(sys.argv[2])), numbers[0], numbers[1])
    print(json.dumps([round(mib, 2) for mib in found]))
