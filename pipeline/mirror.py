"""How a folder says that it only mirrors a set on a store, whose tars stay there.

    MIRROR/.store                    the address
    MIRROR/shards/NAME.tar.there     an empty file of the size that the tar has there
    MIRROR/fields/FIELD/             mirrors ADDRESS/fields/FIELD: side shards are like shards

`pipeline.remote` makes mirrors and keeps them true; who only looks at a set needs no more than
this.
"""

import contextlib
from pathlib import Path

from stores import open_objects
from stores.objects import ObjectStore

MARK_NAME = ".store"
STAND_IN = ".there"
"""Ending of the file that stands for a tar. It is no tar, so that nobody reads it as one."""
FIELDS = "fields"
"""Folder of a set for the fields that were added to it."""


def store_of(out: Path) -> ObjectStore | None:
    """The store that a set's or a field's folder mirrors; None for any other folder."""
    home = mirror_of(out)
    below = "" if home == out else f"/{FIELDS}/{out.name}"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        address = (home / MARK_NAME).read_text()
        return open_objects(f"{address}{below}", what="the output")
    return None


def mirror_of(out: Path) -> Path:
    """The folder of the set that a field's folder is in; any other folder itself."""
    is_field = out.parent.name == FIELDS and not (out / MARK_NAME).exists()
    return out.parents[1] if is_field else out


def address_of(out: Path) -> str:
    """Where the shards of a folder go, if it is a mirror; else nothing."""
    store = store_of(out)
    return "" if store is None else str(store)


def tar_bytes(tar: Path) -> int | None:
    """Size of a shard's tar, here or where the folder mirrors it from; None where there is none."""
    for path in (tar, tar.with_name(tar.name + STAND_IN)):
        with contextlib.suppress(OSError):
            return path.stat().st_size
    return None
