"""Shards in a folder of this machine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stores.base import pieces_of

LOCAL_READ_AHEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class LocalStore:
    """A folder of this machine or of a file system it mounts."""

    folder: Path

    is_local = True

    def __str__(self) -> str:
        """The folder as it was given."""
        return str(self.folder)

    @property
    def name(self) -> str:
        """As Store."""
        return self.folder.name

    def url(self, name: str) -> str:
        """As Store."""
        return str(self.folder / name)

    def read(self, name: str) -> bytes:
        """As Store."""
        return (self.folder / name).read_bytes()

    def open(self, name: str) -> "LocalFile":
        """As Store."""
        return LocalFile(os.open(self.folder / name, os.O_RDONLY))


class LocalFile:
    """An open file of this machine."""

    read_ahead = LOCAL_READ_AHEAD_BYTES
    has_ranges = True

    def __init__(self, descriptor: int) -> None:
        """Closes the descriptor in the end."""
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """As ShardFile."""
        return os.preadv(self._descriptor, [buffer], offset)

    def pieces(self) -> Iterator[bytes]:
        """As ShardFile."""
        return pieces_of(self)

    def close(self) -> None:
        """As ShardFile."""
        os.close(self._descriptor)
