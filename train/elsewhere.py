"""Runs on stores: checkpoints read from s3:// and gs://, and a run's copy kept there.

    --checkpoint s3://bucket/runs/first, --init s3://bucket/runs/first/checkpoints/step-00000500.pt
    --copy-to s3://bucket/runs/first     after every checkpoint; a fresh machine goes on from there

A checkpoint is uploaded whole before `best` and `last` name it, so the copy is as good as the
folder at any moment, only some steps older. An outage stops no training: it is said in the log, the
next checkpoint brings everything, and the end of the run is an error if the copy is behind.
"""

import fcntl
import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from stores import open_objects
from stores.base import Listed
from stores.copies import Copies
from stores.errors import StoreError
from stores.objects import ObjectStore
from stores.scratch import LOCK_NAME, folder_for, scratch_folder
from train.errors import UsageError

log = logging.getLogger(__name__)

POINTERS = ("checkpoints/best", "checkpoints/last")
SMALL = ("config.json", "origin.json", "clips.parquet", "metrics.jsonl", "preempted",
         "finished.json", "report.html")  # fmt: skip
"""What else a copy has of a run's folder."""
_CHECKPOINT = re.compile(r"checkpoints/step-\d+\.pt")
_FOLDED = re.compile(r"(s3|gs):/+(.+)")
"""An address that has been a Path, which folds its slashes."""


def address_of(path: Path | str) -> str | None:
    """The address that a path was meant to be; None for one of this machine."""
    match = _FOLDED.fullmatch(str(path))
    return match and f"{match[1]}://{match[2].rstrip('/')}"


def local(path: Path) -> Path:
    """A checkpoint, run or exported folder on this machine; what is on a store is fetched.

    Raises:
        UsageError: it is not there.
        StoreError, AddressError: the store cannot be reached, or the address is wrong.
    """
    address = address_of(path)
    if address is None:
        return path
    home, _, name = address.rpartition("/") if address.endswith(".pt") else (address, "", "")
    store = open_objects(home, what="the checkpoint")
    folder = folder_for(scratch_folder(), "runs", str(store))
    with _alone(folder):
        found = [store.facts(name)] if name else _worth_fetching(store)
        there = [entry for entry in found if entry]
        if not there:
            raise UsageError(f"there is no checkpoint {address}; name a file, or the copy of a run")
        # Beside one checkpoint others of the run may lie.
        Copies(store, folder).refresh(there, lambda _: bool(name))
    return folder / name


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this machine at a time: the ranks of a run ask for the same copy together."""
    with (folder.parent / LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _worth_fetching(store: ObjectStore) -> list[Listed]:
    """Of a run the checkpoints that are pointed at and what tells about them; of an export all."""
    there = store.list()
    names = {entry.name for entry in there}
    pointed = {f"checkpoints/{store.read(p).decode().strip()}" for p in POINTERS if p in names}
    wanted = {*pointed, *POINTERS}
    return [one for one in there if one.name in wanted or "checkpoints/" not in one.name]


class RunCopy:
    """A run's copy on a store; only the first rank has one."""

    def __init__(self, address: str, folder: Path) -> None:
        """Of the run in `folder`; nothing is read yet."""
        self._store = open_objects(address, what="--copy-to")
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="copy")
        self._pending: Future[None] | None = None
        self._behind: StoreError | None = None

    def fetch(self) -> None:
        """Bring the copy here, if this folder has no checkpoint of its own as new as the copy's.

        Raises:
            StoreError: it cannot be read.
            OSError: this folder cannot be written.
        """
        if self._has_begun():
            return
        there = _worth_fetching(self._store)
        newest_last = sorted(one for one in there if _CHECKPOINT.fullmatch(one.name))
        copies = Copies(self._store, self._folder)
        # Checkpoints come after all that tells about them, so that what is killed meanwhile leaves
        # none that a run could go on from without its measurements.
        small = [one for one in there if one not in newest_last]
        for wanted in (small, *([one] for one in newest_last)):
            copies.refresh(wanted, lambda _: True)
        if there:
            log.info("fetched %d files of the run from %s", len(there), self._store)

    def _has_begun(self) -> bool:
        """Whether a checkpoint is here, unless `last` names a newer one: a fetch was killed."""
        steps = sorted(path.name for path in self._folder.glob("checkpoints/step-*.pt"))
        last = (self._text("checkpoints/last") or b"").decode().strip()
        return bool(steps) and steps[-1] >= last

    def update(self) -> None:
        """Upload what is new, while training goes on; an upload under way is waited for."""
        self._wait()
        self._pending = self._pool.submit(self._push)

    def close(self) -> None:
        """Bring the copy up to date, and wait for it.

        Raises:
            StoreError: the copy is behind.
        """
        self.update()
        self._wait()
        self._pool.shutdown()
        if self._behind is not None:
            raise StoreError(
                f"the run in {self._folder} is complete here, but its copy is behind: "
                f"{self._behind}. The same command brings it up to date"
            )

    def _wait(self) -> None:
        if self._pending is None:
            return
        try:
            self._pending.result()
            self._behind = None
        except StoreError as error:
            self._behind = error
            log.warning("the copy of the run is behind: %s", error)

    def _push(self) -> None:
        copies = Copies(self._store, self._folder)
        pointers = {name: self._text(name) for name in POINTERS}  # before what they name is there
        steps = sorted(self._folder.glob("checkpoints/step-*.pt"))
        for name in [*(f"checkpoints/{path.name}" for path in steps), *SMALL]:
            with suppress(FileNotFoundError):  # not there, or no longer: an update follows then
                copies.push(name)
        for name, text in pointers.items():
            if text is not None:
                self._store.write(name, text)
        kept = {f"checkpoints/{path.name}" for path in steps} | {
            f"checkpoints/{text.decode().strip()}" for text in pointers.values() if text
        }
        for entry in self._store.list():
            gone = entry.name in SMALL and not (self._folder / entry.name).exists()
            if gone or (_CHECKPOINT.fullmatch(entry.name) and entry.name not in kept):
                self._store.delete(entry.name)

    def _text(self, name: str) -> bytes | None:
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None
