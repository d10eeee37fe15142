"""Who is killed in a soak, by what, how often, and how a driver may end after it."""

import random
from collections.abc import Iterable

import psutil

from tests.faults.memory import role_of
from tests.faults.outages import KINDS, LONG

LOCAL = {"driver SIGKILL": 3, "driver SIGTERM": 1, "driver SIGINT": 1, "child SIGKILL": 8}
EMBEDDED = {**LOCAL, "worker SIGKILL": 6, "raylet SIGKILL": 2}
"""With a Ray of the driver's own, which is lost with its node daemon."""
CLUSTER = {**LOCAL, "worker SIGKILL": 6, "node": 5}
"""A node is killed, or joins where one is missing."""
STORE = dict.fromkeys(KINDS, 2)
EXPECTED_CODES = {
    "driver SIGKILL": {-9}, "driver SIGTERM": {143, -15, -2}, "driver SIGINT": {130, -2},
}  # fmt: skip
"""Exit codes of a driver that was killed so. Before its handlers are set it dies of the signal, and
CPython ends as by SIGINT whatever code is asked for if an interruption met it within `exec`, where
dataclasses are made while modules are loaded."""
STARTED_CPU_SECONDS = 0.1
"""What Python itself needs to start; a signal that meets it there has nothing to do with us."""
MANY_OUTAGES = 3
"""In the time of one driver: every try of the same request may meet another one of them."""


def targets(*, ray: bool, cluster: bool, store: bool, spared: bool) -> dict[str, int]:
    """Who may be hit, and how often relative to the others.

    Args:
        ray: whether the job runs on Ray.
        cluster: on nodes of ours.
        store: whether the set lies on a store of ours.
        spared: nothing that ends a driver.
    """
    found = CLUSTER if cluster else EMBEDDED if ray else LOCAL
    found = {**found, **(STORE if store else {})}
    fatal = ("driver", "raylet")
    return {name: w for name, w in found.items() if not (spared and name.startswith(fatal))}


def drawn(chance: random.Random, weights: dict[str, int]) -> str:
    """One of them."""
    [target] = chance.choices(list(weights), list(weights.values()))
    return target


def expected_codes(done: Iterable[str], *, ray: bool) -> set[int]:
    """How a driver may end after these faults."""
    done = list(done)
    codes = {0}.union(*(EXPECTED_CODES.get(target, set()) for target in done))
    # 1: a raylet that dies while the driver joins it makes Ray's own code end the driver.
    codes |= {1, 3} if any(t.startswith(("worker", "raylet", "node")) for t in done) else set()
    codes |= {3} if LONG in done or sum(t in KINDS for t in done) >= MANY_OUTAGES else set()
    # Ray's native code may crash or abort when a signal meets it while it starts.
    return codes | ({-6, -11} if ray and any(t.startswith("driver") for t in done) else set())


def victims(role: str, driver: int) -> list[int]:
    """Process ids of the driver, or of those below this process that play a role, sorted."""
    if role == "driver":
        times = psutil.Process(driver).cpu_times()
        return [driver] if times.user + times.system >= STARTED_CPU_SECONDS else []
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if role_of(process, driver) == role:
                found.append(process.pid)
        except psutil.Error:
            continue  # it has just ended
    return sorted(found)


def left_running(mark: str, value: str) -> list[str]:
    """Processes that work for a driver that is gone, in words: by their environment, or by role.

    Args:
        mark: an environment variable that a driver and all it starts have.
        value: its value.
    """
    found = []
    for process in psutil.process_iter(["environ", "name"]):
        if (process.info["environ"] or {}).get(mark) == value:
            found.append(f"{process.pid} {process.info['name']}")
    for process in psutil.Process().children(recursive=True):
        try:
            words = f"{process.pid} {process.name()}"
            at_work = role_of(process, None) == "child" or "_make_in_ray_worker" in words
        except psutil.Error:
            continue
        if at_work and words not in found:
            found.append(words)
    return found
