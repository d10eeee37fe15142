"""What a place of files can do, and the files in it."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
"""Time limits of one request: until there is a connection, and between two pieces of an answer."""
REMOTE_READ_AHEAD_BYTES = 4 << 20
"""A request's round trip costs as much as megabytes do, so most clips come in one."""
FETCHED_BYTES = 8 << 20
"""A request of a whole tar's copy."""


class Listed(NamedTuple):
    """An object as a listing tells it."""

    name: str
    """Relative to the store's address, with `/`."""
    size: int
    """Bytes."""
    mtime_ns: int
    """When it was written, by the store's clock, in nanoseconds; stores know seconds."""


class ShardFile(Protocol):
    """An open file that is read in any order."""

    @property
    def size(self) -> int:
        """Bytes; -1 where a server does not say."""

    @property
    def read_ahead(self) -> int:
        """Bytes that are worth reading at once."""

    @property
    def has_ranges(self) -> bool:
        """False where only the whole file can be had."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from a place; gives the number of bytes, fewer only at the end."""

    def pieces(self) -> Iterator[bytes]:
        """The whole file, piece after piece."""

    def close(self) -> None:
        """Give back what is held."""


class Store(Protocol):
    """A folder of files somewhere. `str()` is its address; it never holds a secret."""

    @property
    def is_local(self) -> bool:
        """A folder of this machine."""

    @property
    def name(self) -> str:
        """The last part of the address."""

    def url(self, name: str) -> str:
        """The address of one of its files, for messages."""

    def read(self, name: str) -> bytes:
        """A small file.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: it cannot be read.
        """

    def open(self, name: str) -> ShardFile:
        """A large file; raises as `read`."""


def pieces_of(file: ShardFile) -> Iterator[bytes]:
    """The whole file by `read_into`, piece after piece."""
    buffer = bytearray(min(FETCHED_BYTES, max(file.size, 1)))
    position = 0
    while count := file.read_into(memoryview(buffer), position):
        position += count
        yield bytes(memoryview(buffer)[:count])
