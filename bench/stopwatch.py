"""CPU seconds of this process and its children: what other work on the machine changes least."""

import os
import resource
from collections.abc import Callable, Collection, Mapping

Way = Callable[[], object]


def cpu_seconds() -> float:
    """User and system time so far of this process and of the children it waited for."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usages = [resource.getrusage(one) for one in who]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(way: Way) -> float:
    """CPU seconds of one run."""
    before = cpu_seconds()
    way()
    return cpu_seconds() - before


def interleaved(
    ways: Mapping[str, Way],
    repeats: int,
    *,
    once: Collection[str] = (),
    timer: Callable[[Way], float] = timed,
) -> dict[str, list[float]]:
    """Seconds of every way, in rounds, so that a busy minute hits all of them.

    Args:
        ways: what to run, by name; each is run once before, to warm caches and models.
        repeats: rounds that count.
        once: those that take so long that one run has to do, in the first round.
        timer: what measures a run; CPU seconds if nothing else is said.
    """
    for name, way in ways.items():
        if name not in once:
            way()
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats):
        for name, way in ways.items():
            if number == 0 or name not in once:
                spent[name].append(timer(way))
    return spent


def ratio(spent: Mapping[str, list[float]], way: str, to: str) -> float:
    """One way's least disturbed round over another's: other work only ever adds to CPU time."""
    return min(spent[way]) / min(spent[to])


def pin_to_one_core() -> int:
    """Bind this process and its future children to one of its cores; which one."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core
