"""What travels between the shard job and its child process: a file with its rows, and outcomes."""

from dataclasses import dataclass
from typing import Any

from pipeline.errors import ClipError

Row = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A file and the manifest rows that are cut from it."""

    root: str
    """Folder that all paths stay below."""
    rows: tuple[Row, ...]
    """Manifest rows with one `uri`, plus `instance`, each one's number in the set."""

    @property
    def uri(self) -> str:
        """The file, relative to the root."""
        return str(self.rows[0]["uri"])


@dataclass(frozen=True)
class Made:
    """A row that became a sample."""

    index: int
    """Which of the item's rows."""
    members: dict[str, bytes]
    """By extension, in the order of `ShardConfig.members`."""
    facts: dict[str, Any]
    """What the sidecar keeps: frames, seconds, quality, source."""


@dataclass(frozen=True)
class Failed:
    """A row that did not."""

    index: int
    error: ClipError


Outcome = Made | Failed


@dataclass(frozen=True)
class Opened:
    """The file is open; what the caller needs to set a deadline."""

    seconds: float
    """Seconds of media the item asks for, as far as the header tells."""
