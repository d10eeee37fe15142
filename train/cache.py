"""--cache-gb: shards of s3, gs or web servers, kept on a local disk for the next epochs.

    CACHE/ID.tar    a whole shard; ID is its SHA-256 from the index, so equal shards are kept once
    CACHE/ID.part   one that is being fetched, locked by the process that does it
    CACHE/ID.json   the receipt: who fetched it, address, bytes. Nothing is ever deleted, used or
                    written over that has no receipt of ours saying just this about it

All processes of a host share the folder: whoever needs a shard first fetches it, the others read
it from afar meanwhile. A shard is renamed to .tar only when bytes and SHA-256 are the index's, and
names appear, change and go only under the lock of the folder: what is seen under it stays so.
Readers hold a shared lock on what they have open, and room is made by deleting what was unused for
longest, but neither what is locked nor what belongs to the sets of this run: an epoch asks for
every shard alike, so throwing one of them out to let another in would only move bytes about. What
finds no room is read from afar.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stores.base import ShardFile, Store
from stores.errors import StoreError
from stores.local import LocalFile
from stores.retry import retried
from train.errors import ShardError, UsageError

log = logging.getLogger(__name__)

LOCK_NAME = "lock"
FULL = (errno.ENOSPC, errno.EDQUOT)
FETCHED_BY = "glav"
FETCHES = 2
"""Of a shard whose bytes are not those of the index; then it is damaged where it comes from."""


class Shard(NamedTuple):
    """What the index says about a tar."""

    url: str
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal; empty where the index has none."""

    @property
    def id(self) -> str:
        """64 hexadecimal digits: its name in the cache."""
        if re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            return self.sha256
        return hashlib.sha256(f"{self.url} {self.size}".encode()).hexdigest()


class NoRoomError(Exception):
    """The disk is full."""


@dataclass
class Cache:
    """A bounded folder of whole shards."""

    folder: Path
    limit_bytes: int
    wanted: set[str] = field(default_factory=set)
    """Ids of the sets that are read now."""
    _said: set[str] = field(default_factory=set)
    _receipts: dict[tuple[str, int, int], Shard | None] = field(default_factory=dict)
    """Read so far, by id, inode and bytes of the file: each is read once."""

    def __post_init__(self) -> None:
        """Make the folder.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                used, free = self._used(), shutil.disk_usage(self.folder).free
        except OSError as error:
            raise UsageError(
                f"--cache-dir {self.folder} cannot be used ({error.strerror}); name a folder on a "
                "local disk that you may write to"
            ) from error
        log.info("cache %s: %.3g of %.3g GB used", self.folder, used / 1e9, self.limit_bytes / 1e9)
        if free < self.limit_bytes - used:
            log.warning(
                "the disk of %s has %.1f GB left, --cache-gb %.4g would need %.1f more; what finds "
                "no room is read from afar",
                self.folder, free / 1e9, self.limit_bytes / 1e9, (self.limit_bytes - used) / 1e9,
            )  # fmt: skip

    def open(self, shard: Shard, source: Callable[[], ShardFile]) -> ShardFile:
        """The shard from this disk, fetched if there is room; else from afar.

        Args:
            shard: what the index says.
            source: opens it where it comes from.

        Raises:
            ShardError: what was fetched is not what the index says.
            StoreError: it cannot be fetched, or must be and does not fit.
        """
        kept = self._kept(shard)
        if kept is not None:
            return kept
        remote = source()
        if remote.size not in (shard.size, -1):
            return remote  # the reader says what is wrong with it
        must = not remote.has_ranges
        try:
            kept = self._fetched(shard, remote, must)
        except NoRoomError as error:
            self._say_once(
                f"the disk of {self.folder} is full ({error}); shards that are not on it yet are "
                "read from afar. Free some space, or give a smaller --cache-gb"
            )
        except OSError as error:
            self._say_once(
                f"cache {self.folder} cannot be used now ({error}); shards are read from afar"
            )
        if kept is None and must:
            raise StoreError(
                f"{shard.url} has {shard.size / 1e9:.3g} GB, for which {self.folder} has no room "
                f"(--cache-gb {self.limit_bytes / 1e9:.4g}), and its server gives no parts of "
                "files; give a larger --cache-gb, free some space, or use a server with Range"
            )
        if kept is None:
            return remote
        remote.close()
        return kept

    def copy_of(self, shard: Shard) -> Path | None:
        """Where its copy is, if there is one of ours."""
        path = self._path(shard.id, "tar")
        return path if path.is_file() and self._receipt(shard.id) else None

    # --- what is there ---

    def _path(self, shard_id: str, kind: str) -> Path:
        return self.folder / f"{shard_id}.{kind}"

    def _kept(self, shard: Shard) -> LocalFile | None:
        """Open and lock it, if it is whole; note that it was used."""
        descriptor = _opened(self._path(shard.id, "tar"))
        if descriptor is None:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for one who is deleting it
        facts = os.fstat(descriptor)
        if not facts.st_nlink or facts.st_size != shard.size or not self._touch(shard):
            os.close(descriptor)
            return None
        return LocalFile(descriptor)

    def _touch(self, shard: Shard) -> bool:
        """False where there is no receipt of ours: then it is somebody else's file."""
        if self._receipt(shard.id) is None:
            return False
        try:
            _mark_used(self._path(shard.id, "json"))
        except OSError:
            return False
        return True

    def _receipt(self, shard_id: str) -> Shard | None:
        """What was fetched under this id; None where no receipt of ours says so."""
        path = self._path(shard_id, "json")
        try:
            facts = path.lstat()
        except OSError:
            return None
        version = (shard_id, facts.st_ino, facts.st_size)
        if version not in self._receipts:
            self._receipts[version] = _read_receipt(path, shard_id)
        return self._receipts[version]

    def _ours(self, kind: str) -> dict[str, os.stat_result]:
        """Files of shards that we fetched, by id: those ending in `.tar`, `.part` or `.json`."""
        with os.scandir(self.folder) as entries:
            files = {entry.name: entry for entry in entries if entry.is_file(follow_symlinks=False)}
        found = {}
        for name, entry in files.items():
            shard_id, _, ending = name.partition(".")
            if ending != kind or not re.fullmatch(r"[0-9a-f]{64}", shard_id):
                continue
            if self._receipt(shard_id) is not None:
                found[shard_id] = entry.stat()
        return found

    def _is_taken(self, shard: Shard) -> bool:
        """Somebody else's file has the name that the shard would get."""
        names = [self._path(shard.id, kind) for kind in ("tar", "part", "json")]
        strange = [
            path for path in names if path.exists() and shard.id not in self._ours(path.suffix[1:])
        ]
        for path in strange:
            self._say_once(f"{path} was not fetched by this cache and stays as it is")
        return bool(strange)

    def _used(self) -> int:
        return sum(facts.st_size for kind in ("tar", "part") for facts in self._ours(kind).values())

    # --- fetching ---

    def _fetched(self, shard: Shard, remote: ShardFile, must: bool) -> LocalFile | None:
        """Fetch it, unless there is no room or another process does."""
        with self._locked():
            self._sweep()
            kept = self._kept(shard)  # another process was quicker
            if kept is not None:
                return kept
            busy = shard.id in self._ours("part")
            if not busy and (self._is_taken(shard) or not self._make_room(shard, must)):
                return None
            part = None if busy else self._begin(shard)
        if part is None:
            return self._waited_for(shard, remote) if must else None
        try:
            self._fill(part, shard, remote)
            with self._locked():
                os.replace(self._path(shard.id, "part"), self._path(shard.id, "tar"))
        except BaseException:
            with self._locked():
                self._forget(shard.id, "part")
            os.close(part)  # unlocks it
            raise
        fcntl.flock(part, fcntl.LOCK_SH)
        return LocalFile(part)

    def _waited_for(self, shard: Shard, remote: ShardFile) -> LocalFile | None:
        """Another process fetches it; it is needed, so wait for that."""
        descriptor = _opened(self._path(shard.id, "part"))
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.close(descriptor)
        return self._kept(shard) or self._fetched(shard, remote, must=True)

    def _begin(self, shard: Shard) -> int:
        """A locked file of full size: other processes count it, and a full disk shows now."""
        receipt = {"url": shard.url, "bytes": shard.size, "sha256": shard.sha256,
                   "fetched_by": FETCHED_BY, "fetched_unix": round(time.time())}  # fmt: skip
        descriptor = None
        try:
            self._write_receipt(shard.id, receipt)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            descriptor = os.open(self._path(shard.id, "part"), flags, 0o664)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, shard.size)
        except OSError as error:
            self._forget(shard.id, "part")
            if descriptor is not None:
                os.close(descriptor)
            raise _no_room(error) from error
        return descriptor

    def _write_receipt(self, shard_id: str, receipt: dict[str, Any]) -> None:
        """Whole or not at all: half a receipt would make the shard somebody else's."""
        temporary = self._path(shard_id, "json.tmp")
        try:
            temporary.write_text(json.dumps(receipt) + "\n")
            _mark_used(temporary)
            os.replace(temporary, self._path(shard_id, "json"))
        finally:
            temporary.unlink(missing_ok=True)

    def _fill(self, part: int, shard: Shard, remote: ShardFile) -> None:
        """Copy and compare.

        Raises:
            ShardError: these are not the bytes that the index means.
        """
        for _ in range(FETCHES):
            size, found = retried(shard.url, lambda: _copied(remote, part))
            if size == shard.size and found == (shard.sha256 or found):
                os.fdatasync(part)  # or after a power cut it may be full of zeros
                return
            log.warning("%s: %d bytes, sha256 %s came; the index says %d, %s",
                        shard.url, size, found, shard.size, shard.sha256)  # fmt: skip
        raise ShardError(
            f"{shard.url}, fetched {FETCHES} times, has {size} bytes and sha256 {found}; expected "
            f"{shard.size} bytes and {shard.sha256}, as the index says. Upload it again from the "
            "set that was verified, or go on without it: --on-bad-shard skip",
            shard.url,
        )

    # --- room ---

    def _make_room(self, shard: Shard, must: bool) -> bool:
        """Delete what was unused for longest until the shard fits; False if it cannot."""
        if shard.size > self.limit_bytes:
            self._say_once(
                f"shards such as {shard.url} ({shard.size / 1e9:.3g} GB) alone are larger than "
                f"--cache-gb {self.limit_bytes / 1e9:.4g}; they are read from afar"
            )
            return False
        used = self._used()
        receipts = self._ours("json")
        kept = self._ours("tar")
        for shard_id in sorted(kept, key=lambda one: receipts[one].st_mtime_ns):
            if used + shard.size <= self.limit_bytes:
                break
            if (must or shard_id not in self.wanted) and self._deleted(shard_id):
                used -= kept[shard_id].st_size
        fits = used + shard.size <= self.limit_bytes
        if not fits:
            self._say_once(
                f"cache {self.folder} is full ({used / 1e9:.1f} of {self.limit_bytes / 1e9:.1f} "
                "GB); the other shards are read from afar"
            )
        return fits

    def _deleted(self, shard_id: str) -> bool:
        """False if a process of this host has it open."""
        descriptor = _opened(self._path(shard_id, "tar"))
        if descriptor is None:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._forget(shard_id, "tar")
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _sweep(self) -> None:
        """Remove what killed processes left half fetched: their locks went with them."""
        for shard_id in self._ours("part"):
            descriptor = _opened(self._path(shard_id, "part"))
            if descriptor is None:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._forget(shard_id, "part")
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)

    def _forget(self, shard_id: str, kind: str) -> None:
        """Remove one of ours, the receipt last."""
        self._path(shard_id, kind).unlink(missing_ok=True)
        self._path(shard_id, "json").unlink(missing_ok=True)

    # --- pieces ---

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all processes that use this folder, for a moment."""
        with (self.folder / LOCK_NAME).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _say_once(self, line: str) -> None:
        if line.partition(" ")[0] not in self._said:
            log.info("%s", line)
        self._said.add(line.partition(" ")[0])


@dataclass(frozen=True)
class CachedStore:
    """A store whose shards are kept on a local disk; indexes and tables are always read anew."""

    store: Store
    cache: Cache
    shards: Mapping[str, Shard] = field(default_factory=dict)
    """By name; filled when the index is known."""
    _damaged: dict[str, ShardError] = field(default_factory=dict)

    is_local = False

    def __str__(self) -> str:
        """The address."""
        return str(self.store)

    @property
    def name(self) -> str:
        """As Store."""
        return self.store.name

    def url(self, name: str) -> str:
        """As Store."""
        return self.store.url(name)

    def read(self, name: str) -> bytes:
        """As Store."""
        return self.store.read(name)

    def expecting(self, shards: Mapping[str, tuple[int, str]]) -> "CachedStore":
        """The same, knowing bytes and SHA-256 of these shards, too."""
        known = {name: Shard(self.url(name), *facts) for name, facts in shards.items()}
        self.cache.wanted.update(shard.id for shard in known.values())
        return CachedStore(self.store, self.cache, {**self.shards, **known})

    def copy_of(self, name: str) -> Path | None:
        """Where a shard's copy is, if there is one."""
        return self.cache.copy_of(self.shards[name]) if name in self.shards else None

    def open(self, name: str) -> ShardFile:
        """As Store; raises ShardError for a shard that is not what the index says."""
        if name in self._damaged:  # or it would be fetched again for every clip
            raise self._damaged[name].with_traceback(None)
        try:
            return self.cache.open(self.shards[name], lambda: self.store.open(name))
        except ShardError as error:
            self._damaged[name] = error
            raise


def _read_receipt(path: Path, shard_id: str) -> Shard | None:
    """None for a file that is not one of our receipts, or is of another shard."""
    try:
        facts = json.loads(path.read_bytes())
        if facts["fetched_by"] != FETCHED_BY:
            return None
        shard = Shard(str(facts["url"]), int(facts["bytes"]), str(facts["sha256"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return shard if shard.id == shard_id else None


def _mark_used(receipt: Path) -> None:
    """Set its time to the nanosecond: the kernel's own stamps are equal for milliseconds."""
    now = time.time_ns()
    os.utime(receipt, ns=(now, now))


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None


def _copied(remote: ShardFile, part: int) -> tuple[int, str]:
    """Bytes and SHA-256 of what was written."""
    digest, size = hashlib.sha256(), 0
    for piece in remote.pieces():
        digest.update(piece)
        try:
            os.pwrite(part, piece, size)
        except OSError as error:
            raise _no_room(error) from error
        size += len(piece)
    return size, digest.hexdigest()


def _no_room(error: OSError) -> Exception:
    return NoRoomError(error.strerror) if error.errno in FULL else error
