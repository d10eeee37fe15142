"""One job on one output folder.

On one host the lock is the kernel's (flock) and gone with its owner, so a rerun after `kill -9`
starts at once. Across hosts, where flock may not reach, the lock file is a lease: its owner renews
it, and it is stale ten minutes after the last renewal. Where clocks differ, a renewal may lie in
the future; whoever sees that sets it to now, so that a lease nobody renews lasts ten minutes more.
The tasks of one job array share it.
"""

import contextlib
import fcntl
import json
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.errors import plain_text

LEASE_SECONDS = 600.0
RENEW_SECONDS = 60.0
LOCK_NAME = "run.lock"


class LockedError(Exception):
    """Another job works on this output; the message says which."""


@contextlib.contextmanager
def lock(out: Path, *, shared: bool) -> Iterator[None]:
    """Hold the output's lock.

    Args:
        out: the output folder; it exists.
        shared: True for a task of a job array, which works beside the other tasks.

    Raises:
        LockedError: another job holds it.
    """
    with open(out / LOCK_NAME, "a+b") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(sentence(out, _read(file))) from None
        _check_lease(file, out, shared)
        _write(file, shared)
        try:
            with renewed(lambda: os.utime(file.fileno())):
                yield
        finally:
            if not shared or _is_last(file):
                file.truncate(0)


@contextlib.contextmanager
def renewed(renew: Callable[[], None]) -> Iterator[None]:
    """Call it every minute, from a thread of its own, until the end."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(RENEW_SECONDS):
            renew()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_last(file: IO[bytes]) -> bool:
    """Whether nobody shares the lock any more: then the lease ends with this task."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_lease(file: IO[bytes], out: Path, shared: bool) -> None:
    """Refuse while a job on another host renews its lease."""
    owner = _read(file)
    if owner.get("host") in (None, platform.node()) or (shared and owner.get("shared")):
        return
    age_seconds = time.time() - os.fstat(file.fileno()).st_mtime
    if age_seconds < 0:
        os.utime(file.fileno())
        age_seconds = 0.0
    if age_seconds < LEASE_SECONDS:
        minutes = math.ceil((LEASE_SECONDS - age_seconds) / 60)
        advice = (
            f"If that job is dead, its lease ends by itself: run the same command again in "
            f"{minutes} min."
        )
        raise LockedError(f"{sentence(out, owner)} {advice}")


def _read(file: IO[bytes]) -> dict[str, Any]:
    file.seek(0)
    try:
        owner = json.loads(file.read() or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _write(file: IO[bytes], shared: bool) -> None:
    file.truncate(0)
    file.write(json.dumps(owner_of(shared=shared)).encode())
    file.flush()


def owner_of(*, shared: bool) -> dict[str, Any]:
    """What a lock says about its owner: this process."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "shared": shared,
    }


def sentence(out: Path | str, owner: dict[str, Any]) -> str:
    """Who works on an output, and what to do."""
    pid, host, started = (owner.get(name, "?") for name in ("pid", "host", "started"))
    who = plain_text(f"process {pid} on {host}, started {started}")
    return (
        f"{out} is being written by another job ({who}). Wait for it, stop it, or choose another "
        "output with --out."
    )
