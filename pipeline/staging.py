"""Raw media in a bucket, brought to this machine one file ahead of the decoder.

libav opens local files only, and so does whoever checks what a file is. While a file is decoded,
the next one comes: never more than two are here, and each goes when its rows are through. A file
that is not there is its rows' fault (`missing_file`); a store that does not answer is nobody's, and
fails the shard.
"""

import contextlib
import errno
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Protocol

from manifests.listing import from_uri
from pipeline.errors import ShardError, disk_sentence
from pipeline.item import Item
from stores import is_remote, open_objects
from stores.objects import ObjectStore
from stores.scratch import scratch_folder, workplace

AHEAD = 1
"""Files fetched while another one is decoded."""
_NO_NAME_HERE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR)
"""What making a file says of a name that no file can have; who looks for it there says so, too."""


class Stoppable(Protocol):
    """Who decodes."""

    @property
    def stopped(self) -> bool:
        """Whether the work was ended from another thread."""


@contextlib.contextmanager
def staged(
    root: str, items: Iterator[Item], scratch: str, decoder: Stoppable
) -> Iterator[Iterator[Item]]:
    """The items with their files on this machine: themselves, or with a root below SCRATCH.

    Raises:
        StoreError: the store cannot be reached, or refuses.
        ShardError: the disk of SCRATCH is full.
    """
    if not is_remote(root):
        yield items
        return
    store = open_objects(root, what="the root")
    with workplace(scratch_folder(scratch)) as home, ThreadPoolExecutor(AHEAD) as pool:
        try:
            yield _in_turn(_Fetcher(store, home, decoder), items, pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_turn(
    fetcher: "_Fetcher", items: Iterator[Item], pool: ThreadPoolExecutor
) -> Iterator[Item]:
    coming: deque[tuple[Item, Future[Path]]] = deque()
    for item in items:
        coming.append((item, pool.submit(fetcher.fetch, item)))
        if len(coming) > AHEAD:
            yield from _here(*coming.popleft())
    while coming:
        yield from _here(*coming.popleft())


def _here(item: Item, future: "Future[Path]") -> Iterator[Item]:
    """The item while its files are here."""
    folder = future.result()
    yield Item(str(folder), item.rows)
    shutil.rmtree(folder, ignore_errors=True)


class _Fetcher:
    """Fetches the files of an item into a folder of their own."""

    def __init__(self, store: ObjectStore, home: Path, decoder: Stoppable) -> None:
        self._store = store
        self._home = home
        self._decoder = decoder
        self._numbers = count()

    def fetch(self, item: Item) -> Path:
        """The folder that is the item's root now; what cannot be had is not in it.

        Raises:
            StoreError: the store cannot be reached, or refuses.
            ShardError: a file cannot be written here.
        """
        folder = self._home / str(next(self._numbers))
        folder.mkdir()
        row = item.rows[0]
        if not row["container"]:  # an archive is refused unread
            for uri in filter(None, (item.uri, row.get("audio_uri"))):
                self._fetch_one(str(uri), folder)
        return folder

    def _fetch_one(self, uri: str, folder: Path) -> None:
        name = from_uri(uri)
        if not _is_below(uri, name):
            return  # `resolve` refuses it by name, as below any root
        try:
            self._store.fetch(name, folder / name, lambda: not self._decoder.stopped)
        except FileNotFoundError:
            self._store.facts(name)  # raises if it is the bucket that is not there
        except OSError as error:
            if error.errno in _NO_NAME_HERE:
                return
            raise ShardError(disk_sentence(f"{uri!r} below {self._home}", error)) from error


def _is_below(uri: str, name: str) -> bool:
    """Whether a name may be asked for: relative, downwards, and text."""
    with contextlib.suppress(UnicodeEncodeError):
        name.encode()
        return "://" not in uri and "\0" not in uri and not {"", ".", ".."} & set(name.split("/"))
    return False
