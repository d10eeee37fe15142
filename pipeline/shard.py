"""One shard: manifest rows -> a tar and its sidecar, committed so that no half shard can be seen.

The tar is written under a temporary name, flushed to disk and renamed, or, where OUT is on a store,
uploaded whole; then the sidecar likewise.
The sidecar is the commit mark: whoever finds it may trust the tar (distributed.md §2). Equal rows,
configuration and library versions give equal bytes, whichever worker wrote them and however often
it was interrupted.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from pipeline import format as shard_format
from pipeline.config import Content, Limits
from pipeline.errors import ClipError, ShardError, disk_sentence
from pipeline.item import Failed, Item, Made, Outcome, Row
from pipeline.mirror import tar_bytes
from pipeline.outputs import without_samples
from pipeline.paths import resolve
from pipeline.sandbox import Sandbox
from pipeline.staging import Stoppable, staged
from stores import open_objects
from stores.errors import AddressError, StoreError
from stores.scratch import scratch_folder, workplace

SIDECAR_SCHEMA = 1
FILE_MODE = 0o644
TAR_BLOCK_BYTES = 512


@dataclass(frozen=True)
class ShardTask:
    """All a worker needs to make one shard; a pure function of it, apart from times and hosts."""

    name: str
    """Shard name, `train-000012`."""
    rows: tuple[Row, ...]
    """Its manifest rows in plan order, with `instance`."""
    root: str
    """Folder that the rows' paths stay below."""
    folder: str
    """Where the tar and the sidecar go, and how far the work is."""
    config: Content
    config_hash: str
    fingerprint: str
    """Hash of the rows and the config: what makes a committed shard still the right one."""
    limits: Limits
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that the bytes depend on."""
    store: str = ""
    """Address of OUT where that is no folder; tar and sidecar go there."""
    scratch: str = ""
    """A folder for what is fetched and what is to be uploaded; empty: see `stores.scratch`."""
    left_out: frozenset[str] = frozenset()
    """Keys of rows that are not made here: a patch has them, or they were taken back."""

    @property
    def made_rows(self) -> tuple[Row, ...]:
        """The rows that are tried."""
        return tuple(row for row in self.rows if row["key"] not in self.left_out)

    @property
    def sidecar(self) -> Path:
        """The commit mark."""
        return Path(self.folder) / f"{self.name}.json"

    @property
    def stated(self) -> dict[str, Any]:
        """What the sidecar says beside what all sidecars say."""
        return {}

    def items(self) -> Iterator[Item]:
        """The files of the shard; rows of one file are adjacent in the plan."""
        for _, rows in groupby(self.made_rows, key=lambda row: (row["uri"], row["audio_uri"])):
            yield Item(self.root, tuple(rows))

    def staged(self, decoder: Stoppable) -> AbstractContextManager[Iterator[Item]]:
        """The files with a root on this machine, as `pipeline.staging` has it."""
        return staged(self.root, self.items(), self.scratch, decoder)

    def listed(self, row: Row) -> dict[str, Any]:
        """What the sidecar repeats of a row that became a sample."""
        repeated = {name: row[name] for name in ("key", "instance", "splits", "labels")}
        return {**repeated, "group": row["group_id"]}


@dataclass
class Progress:
    """How far a shard is: counts that only grow."""

    rows: int = 0
    samples: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> None:
        """Take in one row's outcome."""
        self.rows += 1
        if isinstance(outcome, Made):
            self.samples += 1
            self.seconds += outcome.facts["seconds"]
        else:
            reason = str(outcome.error.reason)
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


Watcher = Callable[[Progress], None]


def write_shard(
    task: ShardTask, sandbox: Sandbox, watch: Watcher, decoded: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Make and commit one shard.

    Args:
        task: what to make.
        sandbox: the child to decode in.
        watch: called after each row.
        decoded: called when the sandbox is not needed any more; what is left is to commit.

    Returns:
        The sidecar.

    Raises:
        ShardError: it could not be written; nothing of it is left behind.
    """
    started = time.time()
    try:
        Path(task.folder).mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            folder = stack.enter_context(_folder_of(task))
            temporary = folder / f"{task.name}.tar.tmp-{uuid.uuid4().hex}"
            stack.callback(temporary.unlink, missing_ok=True)
            with open_new(temporary) as file:
                writer = TarWriter(file, task)
                _fill(task, sandbox, writer, watch)
                decoded()
                writer.close()
                to_disk(file)
            sidecar = writer.sidecar(started)
            _commit(task, temporary, json.dumps(sidecar, separators=(",", ":")).encode())
    except (StoreError, AddressError) as error:
        raise ShardError(f"shard {task.name}: {error}") from error
    except OSError as error:
        where = f"shard {task.name} in {task.folder}"
        need = sum(row.get("bytes") or 0 for row in task.made_rows)
        raise ShardError(disk_sentence(where, error, need)) from error
    return sidecar


def _folder_of(task: ShardTask) -> AbstractContextManager[Path]:
    """Where the tar is written: where it will stay, or on the way to a store."""
    return workplace(scratch_folder(task.scratch)) if task.store else nullcontext(Path(task.folder))


def _commit(task: ShardTask, tar: Path, sidecar: bytes) -> None:
    """Give the finished tar its name, then the sidecar, which says that the tar is there."""
    if task.store:
        store = open_objects(task.store, what="the output")
        store.put(tar, f"shards/{task.name}.tar")
        store.write(f"shards/{task.name}.json", sidecar)
        return
    os.replace(tar, Path(task.folder) / f"{task.name}.tar")
    sync_folder(Path(task.folder))
    write_atomically(task.sidecar, sidecar)


def _fill(task: ShardTask, sandbox: Sandbox, writer: "TarWriter", watch: Watcher) -> None:
    """Run every file of the shard through the sandbox, rows staying in plan order."""
    progress = Progress()
    with task.staged(sandbox) as here:
        for item in here:
            started = time.monotonic()
            for outcome, tries in _outcomes(item, sandbox):
                row = item.rows[outcome.index]
                if isinstance(outcome, Made):
                    writer.add(row, outcome)
                else:
                    writer.fail(row, outcome, tries, time.monotonic() - started)
                progress.count(outcome)
                watch(progress)


def _outcomes(item: Item, sandbox: Sandbox) -> Iterator[tuple[Outcome, int]]:
    """Every row's outcome with its tries; a file that is not there troubles no child."""
    try:
        resolve(Path(item.root), item.uri)
    except ClipError as error:
        if not item.rows[0]["container"]:  # of archives the child has more to say
            return iter([(Failed(index, error), 1) for index in range(len(item.rows))])
    return _in_order(sandbox.run(item))


def _in_order(
    outcomes: Iterator[tuple[Outcome, int]],
) -> Iterator[tuple[Outcome, int]]:
    """Outcomes by row number; a retried row comes late, and the tar must not show it."""
    early: dict[int, tuple[Outcome, int]] = {}
    following = 0
    for outcome, tries in outcomes:
        early[outcome.index] = (outcome, tries)
        while following in early:
            yield early.pop(following)
            following += 1
    if early:
        raise ShardError(f"internal: no outcome for row {following} of a file")


class TarWriter:
    """Writes samples into a tar and notes what the sidecar has to say about them."""

    def __init__(self, file: IO[bytes], task: ShardTask) -> None:
        self._task = task
        self._stream = HashedStream(file)
        self._tar = tarfile.TarFile(None, "w", self._stream, tarfile.USTAR_FORMAT)  # type: ignore[arg-type]
        self._samples: list[dict[str, Any]] = []
        self._errors: list[dict[str, Any]] = []

    def add(self, row: Row, made: Made) -> None:
        """Append one sample's members."""
        base = shard_format.base_name(row["key"])
        offset = self._tar.offset
        members = {}
        for extension, data in made.members.items():
            entry = tarfile.TarInfo(f"{base}.{extension}")
            entry.size, entry.mode, entry.mtime = len(data), FILE_MODE, 0
            members[extension] = [self._tar.offset + TAR_BLOCK_BYTES, len(data)]
            self._tar.addfile(entry, io.BytesIO(data))
        self._samples.append(
            {
                **self._task.listed(row),
                "base": base,
                "offset": offset,
                "size": self._tar.offset - offset,
                "members": members,
                **made.facts,
            }
        )

    def fail(self, row: Row, failed: Failed, tries: int, seconds: float) -> None:
        """Note one row that has no sample."""
        error = failed.error
        self._errors.append(
            {
                "key": row["key"],
                "uri": row["uri"],
                "stage": error.stage,
                "reason": str(error.reason),
                "detail": error.detail,
                "seconds": round(seconds, 3),
                "tries": tries,
            }
        )

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()

    def sidecar(self, started: float) -> dict[str, Any]:
        """What is in the tar, what is not and why, and how to check it."""
        task = self._task
        return {
            "schema": SIDECAR_SCHEMA,
            "shard": task.name,
            "url": f"{task.name}.tar",
            "rows": len(task.rows),
            "nsamples": len(self._samples),
            "filesize": self._stream.written,
            "md5": self._stream.md5.hexdigest(),
            "sha256": self._stream.sha256.hexdigest(),
            "fingerprint": task.fingerprint,
            "config_hash": task.config_hash,
            "versions": task.versions,
            **task.stated,
            "run": {
                "host": platform.node(),
                "pid": os.getpid(),
                "started_unix": round(started, 3),
                "work_seconds": round(time.time() - started, 3),
            },
            "seconds": round(sum(sample["seconds"] for sample in self._samples), 6),
            "samples": self._samples,
            "errors": self._errors,
            "left_out": [row["key"] for row in task.rows if row["key"] in task.left_out],
        }


class HashedStream:
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.written = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def write(self, data: bytes) -> int:
        """Pass on and hash."""
        self.sha256.update(data)
        self.md5.update(data)
        self.written += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.written


# --- files that are there whole or not at all ----------------------------------------------------


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old bytes or the new ones, never a part."""
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        with open_new(temporary) as file:
            file.write(data)
            to_disk(file)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def open_new(path: Path) -> Iterator[IO[bytes]]:
    """A file that must not be there yet, readable by the group."""
    with open(path, "xb") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        yield file


def to_disk(file: IO[bytes]) -> None:
    """Make what was written survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_committed(sidecar: Path, fingerprint: str, may_lack: frozenset[str] = frozenset()) -> bool:
    """Whether a shard is there, made from these rows and this config, with its tar complete.

    A listing, no hashing; `verify` reads the bytes.

    Args:
        sidecar: the commit mark.
        fingerprint: of the rows and the config.
        may_lack: keys of rows that need not be there; a shard that left out others is made again.
    """
    try:
        facts = json.loads(without_samples(sidecar.read_bytes()))
        size = tar_bytes(sidecar.with_suffix(".tar"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(facts, dict)
        and facts.get("fingerprint") == fingerprint
        and facts.get("filesize") == size
        and isinstance(left_out := facts.get("left_out", []), list)
        and may_lack.issuperset(map(str, left_out))
    )
