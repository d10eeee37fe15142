"""One job on one output folder.

On one host the lock is the kernel's (flock) and gone with its owner, so a rerun after `kill -9`
starts at once. Across hosts, where flock may not reach, the lock file is a lease: its owner renews
it, and it is stale ten minutes after the last renewal. The tasks of one job array share it.
"""

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

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
            raise LockedError(_sentence(out, _read(file))) from None
        _check_lease(out, _read(file), shared)
        _write(file, shared)
        done = threading.Event()
        renewal = threading.Thread(target=_renew, args=(file, done), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            done.set()
            renewal.join()
            if not shared or _is_last(file):
                file.truncate(0)


def _is_last(file: IO[bytes]) -> bool:
    """Whether nobody shares the lock any more: then the lease ends with this task."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_lease(out: Path, owner: dict[str, Any], shared: bool) -> None:
    """Refuse while a job on another host renews its lease."""
    elsewhere = owner.get("host") not in (None, platform.node())
    fresh = time.time() - (out / LOCK_NAME).stat().st_mtime < LEASE_SECONDS
    if elsewhere and fresh and not (shared and owner.get("shared")):
        raise LockedError(_sentence(out, owner))


def _renew(file: IO[bytes], done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        os.utime(file.fileno())


def _read(file: IO[bytes]) -> dict[str, Any]:
    file.seek(0)
    try:
        owner = json.loads(file.read() or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _write(file: IO[bytes], shared: bool) -> None:
    owner = {
        "host": platform.node(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "shared": shared,
    }
    file.truncate(0)
    file.write(json.dumps(owner).encode())
    file.flush()


def _sentence(out: Path, owner: dict[str, Any]) -> str:
    pid, host, started = (owner.get(name, "?") for name in ("pid", "host", "started"))
    who = f"process {pid} on {host}, started {started}"
    return (
        f"{out} is being written by another job ({who}). Wait for it, stop it, or choose another "
        "output with --out."
    )
