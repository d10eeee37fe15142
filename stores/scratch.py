"""A folder on a disk of this machine for copies of what lies elsewhere.

    SCRATCH/sets/ID/NAME, roots/...  copies that are kept, one folder a remote address
    SCRATCH/live/HOST-PID-...        what one process has fetched for the moment, gone with it

SCRATCH is what was named, else GLAV_SCRATCH, else a folder of this user below TMPDIR. What a killed
process left is known by its lock, which the kernel took back: whoever comes next removes it.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from stores.errors import AddressError

LOCK_NAME = ".lock"


def scratch_folder(named: str | Path | None = None) -> Path:
    """The scratch folder, made if it is not there.

    Raises:
        AddressError: it cannot be made or written, or belongs to somebody else.
    """
    chosen = str(named or os.environ.get("GLAV_SCRATCH") or "")
    folder = Path(chosen or Path(tempfile.gettempdir()) / f"glav-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not chosen and folder.lstat().st_uid != os.getuid():
            raise AddressError(
                f"{folder} belongs to somebody else; name a folder of your own on a local disk "
                "with --scratch"
            )
    except OSError as error:
        raise AddressError(
            f"the scratch folder {folder} cannot be made ({error.strerror}); name one on a local "
            "disk with --scratch"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AddressError(
            f"the scratch folder {folder} cannot be written by this user; name one on a local disk "
            "with --scratch"
        )
    return folder.absolute()


def folder_for(scratch: Path, kind: str, address: str) -> Path:
    """Where the copies of one address are kept: the same in every process of this machine.

    It has the last name of the address, from which some data sets know a speaker or a part.
    """
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    last = re.sub(r"[^\w.-]|^\.+", "_", address.rpartition("/")[2])[:60]
    folder = scratch / kind / digest / (last or "_")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def workplace(scratch: Path) -> Iterator[Path]:
    """A folder of this process alone, removed at the end; those of dead processes are, too."""
    home = scratch / "live"
    home.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(home):
        _sweep(home)
        folder = home / f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        lock = open(folder / LOCK_NAME, "xb")  # noqa: SIM115 - closed below
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """Nobody sweeps while a folder is made: without its lock it looks like a dead process's."""
    turn = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
    finally:
        os.close(turn)


def _sweep(home: Path) -> None:
    """Remove the folders whose owner died; call it under `_one_at_a_time`.

    One without a lock file is what a kill left in the middle of its making or removal; where
    machines share a scratch folder, that of another one may be just being made.
    """
    for folder in home.iterdir():
        try:
            with open(folder / LOCK_NAME, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            if re.fullmatch(rf"{re.escape(platform.node())}-\d+-\w{{8}}", folder.name):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # its owner lives
