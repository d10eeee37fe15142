"""OUT on a store (s3://, gs://): a local mirror of its small files, made true before it is used.

    MIRROR/plan.json, manifest.parquet, labels/, shards/NAME.json, ...    as they are there
    MIRROR/fields/FIELD/field.json, shards/NAME.json, ...                 likewise
    MIRROR/.store, shards/NAME.tar.there                                  see `pipeline.mirror`

Everything that works on a folder works on the mirror. Under `alone` it is pulled, changed and
pushed, so that two processes of this machine never undo each other's work; a tar goes to the store
from the worker that made it, followed by its sidecar, the commit mark. Nothing is known here that
the store does not know: a mirror may be deleted whenever no job runs.

For a folder that is no mirror pull, push, clear, take and lease do nothing, and forget deletes.
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from manifests.errors import UsageError
from pipeline.errors import ShardError
from pipeline.lock import LEASE_SECONDS, LOCK_NAME, LockedError, owner_of, renewed, sentence
from pipeline.mirror import FIELDS, MARK_NAME, STAND_IN, mirror_of, store_of
from pipeline.shard import sync_folder, write_atomically
from stores import is_remote, open_objects
from stores.copies import Copies
from stores.errors import AddressError, RefusedStoreError, StoreError
from stores.objects import ObjectStore
from stores.scratch import folder_for, scratch_folder

ALONE_NAME = "plan.lock"
FIRST = ("manifest.parquet", "config.json", "labels/", "plan.json")
"""What is uploaded before any shard, the plan last, because it says that the others are there."""
LAST = ("samples.parquet", "errors.parquet", "report.html", "shardindex.json")
"""What is uploaded when the shards are there, the index last. They are made from the others, so
that one which is no longer here may go there, too."""
INDEXED, INDEX = LAST[:2], LAST[-1]
OF_A_FIELD = (*INDEXED, "table.parquet")
"""What the index of a field speaks of."""
OWN = (MARK_NAME, ALONE_NAME, LOCK_NAME)
"""Files of the mirror that are no copies."""
FOLDERS = ("shards", FIELDS, "labels", "quality")
"""Of a set; others below its address are somebody else's: raw media, other sets."""
SKEW_SECONDS = 1800.0
"""By so much the clocks of two machines may differ: stores refuse who is off by fifteen minutes."""


def home_of(place: str, scratch: str | None = None) -> Path:
    """The folder to work on: the one that was named, or the mirror of an address.

    Raises:
        UsageError: the address or the scratch folder cannot be used.
    """
    if not is_remote(place):
        return Path(place)
    try:
        store = open_objects(place, what="the output")
        folder = folder_for(scratch_folder(scratch), "sets", str(store))
    except AddressError as error:
        raise UsageError(str(error)) from error
    write_atomically(folder / MARK_NAME, str(store).encode())
    return folder


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """One process of this machine at a time: the tasks of a job array start together."""
    with open(out / ALONE_NAME, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """A bucket that is not there, or not ours, is the caller's mistake; an outage is nobody's."""
    try:
        yield
    except RefusedStoreError as error:
        raise UsageError(str(error)) from error


# --- the mirror ---------------------------------------------------------------------------------


def pull(out: Path) -> None:
    """Make the mirror true; call it under `alone`.

    Raises:
        UsageError: the store refuses.
        StoreError: it cannot be reached.
    """
    if (store := store_of(out)) is None:
        return
    with _refusals():
        listed = [entry for entry in store.list() if _is_of_the_set(entry.name)]
        tars = {entry.name: entry.size for entry in listed if entry.name.endswith(".tar")}
        small = [entry for entry in listed if entry.name not in tars]
        Copies(store, out).refresh(small, _is_own)
    there = {f"{name}{STAND_IN}": size for name, size in tars.items()}
    for stand_in in out.rglob(f"*{STAND_IN}"):
        if str(stand_in.relative_to(out)) not in there:
            stand_in.unlink()
    (out / "shards").mkdir(exist_ok=True)
    for name, size in there.items():
        _stand_in(out / name, size)


def push(out: Path) -> None:
    """Upload what was changed in the mirror; call it under `alone`.

    Raises:
        UsageError: the store refuses.
        StoreError: it cannot be reached.
    """
    if (store := store_of(out)) is None:
        return
    copies = Copies(store, out)
    with _refusals():
        copies.forget(name for name in LAST if not (out / name).exists() and copies.knows(name))
        if not all(copies.is_unchanged(name) for name in INDEXED):
            copies.retract(INDEX)  # beside other tables it would lend them what is known of its own
        for folder in sorted((out / FIELDS).glob("*")):
            _retract_field(copies, f"{FIELDS}/{folder.name}")
        names = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
        for name in sorted(filter(_is_pushed, names), key=_turn):
            copies.push(name)


def _retract_field(copies: Copies, field: str) -> None:
    """Delete the index of a field, where its tables are other ones here."""
    tables = [f"{field}/{name}" for name in OF_A_FIELD]
    told = [name for name in tables if (copies.folder / name).exists()]
    if not all(copies.is_unchanged(name) for name in told):
        copies.retract(f"{field}/{INDEX}")


def forget(out: Path, *names: str) -> None:
    """Delete some of the files of a set or field, in the mirror and where it is mirrored from."""
    store = store_of(out)
    for name in names:
        (out / name).unlink(missing_ok=True)
        (out / f"{name}{STAND_IN}").unlink(missing_ok=True)
    if store is not None:
        with _refusals():
            Copies(store, out).forget(names)


def forget_folder(out: Path) -> None:
    """Delete all files of a field, the index first."""
    files = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
    forget(out, INDEX, *(name.removesuffix(STAND_IN) for name in files))
    shutil.rmtree(out)


def put(out: Path, tar: Path, shard: str) -> None:
    """Replace the tar of a shard by a complete one, here or where the folder mirrors it from."""
    if (store := store_of(out)) is None:
        os.replace(tar, out / "shards" / f"{shard}.tar")
        sync_folder(out / "shards")
        return
    with _refusals():
        facts = store.put(tar, f"shards/{shard}.tar")
    _stand_in(out / "shards" / f"{shard}.tar{STAND_IN}", facts.size)


def write(out: Path, name: str, data: bytes) -> None:
    """Write a small file whole, there first if the folder is a mirror."""
    if (store := store_of(out)) is not None:
        with _refusals():
            store.write(name, data)
    write_atomically(out / name, data)


def clear(out: Path) -> None:
    """Delete what the mirror has lost: index and plan first, then the sidecars, then the tars."""
    if (store := store_of(out)) is None:
        return
    with _refusals():
        gone = [
            entry.name
            for entry in store.list()
            if _is_of_the_set(entry.name) and not (out / entry.name).exists()
        ]
        first = [*reversed(LAST), "plan.json"]
        gone.sort(key=lambda name: (_place(name, first), name.endswith(".tar")))
        Copies(store, out).forget(gone)


def take(out: Path, shard: str) -> None:
    """Take over into the mirror what a worker has committed.

    Not through `Copies`, whose record is written whole: that would be once a shard, while jobs run.
    The next pull compares the sidecars with the store and notes them. A pull under way is waited
    for: what is committed after its listing it would take for litter of an older version.

    Raises:
        ShardError: it cannot be read back.
    """
    if (store := store_of(out)) is None:
        return
    name = f"shards/{shard}"
    try:
        with alone(mirror_of(out)):
            facts = store.facts(f"{name}.tar")
            store.fetch(f"{name}.json", out / f"{name}.json")
            if facts is not None:
                _stand_in(out / f"{name}.tar{STAND_IN}", facts.size)
    except (StoreError, OSError) as error:
        raise ShardError(
            f"shard {shard} was committed, but cannot be read back: {error}"
        ) from error


def _stand_in(path: Path, size: int) -> None:
    """A file that takes no room and has the size of the tar."""
    path.parent.mkdir(parents=True, exist_ok=True)  # a tar may have come before its sidecar
    if not path.exists() or path.stat().st_size != size:
        with open(path, "wb") as file:
            file.truncate(size)


def _is_of_the_set(name: str) -> bool:
    """Whether an object below the address is for the mirror."""
    folder, slash, _ = name.partition("/")
    return not _is_own(name) and (folder in FOLDERS if slash else not name.endswith(".tar"))


def _is_own(name: str) -> bool:
    """Whether a file of the mirror is no copy: locks, what the scan makes, what workers say."""
    last = name.rpartition("/")[2]
    return name in OWN or name.startswith("scan/") or last.startswith(".") or STAND_IN in last


def _is_pushed(name: str) -> bool:
    """Sidecars go to the store from who commits them; other files of the mirror from here."""
    return not _is_own(name) and "/shards/" not in f"/{name}" and ".tmp" not in name


def _turn(name: str) -> tuple[int, bool, str]:
    """The index of a field comes behind all of its files."""
    return _place(name, [*FIRST, "", *LAST]), name.endswith(f"/{INDEX}"), name


def _place(name: str, order: list[str]) -> int:
    """Position of a file in a list of names and folders; others are where the empty name is."""
    for place, known in enumerate(order):
        if known and (name == known or (known.endswith("/") and name.startswith(known))):
            return place
    return order.index("") if "" in order else len(order)


# --- one job on one address -----------------------------------------------------------------------


@contextlib.contextmanager
def lease(out: Path, *, shared: bool) -> Iterator[None]:
    """Hold the lease object OUT/run.lock, renewed while the job runs; array tasks hold none.

    Advisory: stores that pyarrow knows cannot say "write only if nobody has". Two jobs that start
    in the same second may both go on; they write the same bytes, so only work is lost.

    Raises:
        LockedError: a living job on another host, or process of this one, holds it.
        UsageError: the address cannot be written.
    """
    if (store := store_of(out)) is None:
        yield
        return
    with _refusals():
        _check_lease(store)
        if shared:
            store.write(LOCK_NAME, b"{}")  # whether it can be written must be known now
        else:
            _renew(store)
    if shared:
        yield
        return
    try:
        with renewed(partial(_keep, store)):
            yield
    finally:
        with contextlib.suppress(StoreError):
            store.write(LOCK_NAME, b"{}")


def _check_lease(store: ObjectStore) -> None:
    owner = _owner(store)
    alive = owner.get("host") != platform.node() or Path("/proc", str(owner.get("pid"))).exists()
    mine = owner.get("host") == platform.node() and owner.get("pid") == os.getpid()
    if not owner.get("host") or not alive or mine:
        return
    renewed = owner.get("renewed_unix")
    age_seconds = time.time() - renewed if isinstance(renewed, int | float) else LEASE_SECONDS
    if -SKEW_SECONDS < age_seconds < LEASE_SECONDS:
        raise LockedError(
            f"{sentence(str(store), owner)} If that job is dead, its lease ends "
            f"{LEASE_SECONDS / 60:.0f} min after its last renewal: run the same command again then."
        )


def _owner(store: ObjectStore) -> dict[str, Any]:
    try:
        owner = json.loads(store.read(LOCK_NAME))
    except FileNotFoundError:
        store.facts(LOCK_NAME)  # tells a missing bucket from a free address
        return {}
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _renew(store: ObjectStore) -> None:
    owner = {**owner_of(shared=False), "renewed_unix": round(time.time())}
    store.write(LOCK_NAME, json.dumps(owner).encode())


def _keep(store: ObjectStore) -> None:
    with contextlib.suppress(StoreError):  # an outage is the shards' to report
        _renew(store)


# --- for the commands ---------------------------------------------------------------------------


@contextlib.contextmanager
def reading(place: str, scratch: str | None = None) -> Iterator[Path]:
    """The folder of a set for a command that only looks, made true if it is a mirror."""
    out = home_of(place, scratch)
    if store_of(out) is not None:
        with alone(out):
            pull(out)
    yield out
