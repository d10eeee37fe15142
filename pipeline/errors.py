"""Why an input row did not become a sample: one exception, a closed set of reasons.

Every planned row ends either in a committed shard or as one row of `errors.parquet` that carries
one of these reasons (architecture §6). Whatever else is worth telling goes into the detail.

    ClipError       one clip cannot be used; the others go on
    ShardError      a shard cannot be written (disk, permissions); the job stops
    LostError       a shard lost its worker or node too often; the job goes on without it
"""

import errno
import re
from enum import StrEnum

from manifests.text import one_line

MAX_DETAIL_CHARACTERS = 300


class Reason(StrEnum):
    """Why a row has no sample. The names are part of the ledger's format."""

    MISSING_FILE = "missing_file"
    EMPTY_FILE = "empty_file"
    BAD_PATH = "bad_path"
    UNSUPPORTED_FORMAT = "unsupported_format"
    OPEN_ERROR = "open_error"
    NO_VIDEO = "no_video"
    NO_AUDIO = "no_audio"
    TRUNCATED = "truncated"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    DECODE_ERROR = "decode_error"
    TIMEOUT = "timeout"
    CRASH = "crash"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_RUN = "not_run"


FAULTS = frozenset(
    {Reason.CRASH, Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.OPEN_ERROR, Reason.DECODE_ERROR}
)
"""Reasons that count towards `--max-error-rate`: they may mean a broken machine or codec. A file
that is missing, mute or short says nothing about the machine."""

RETRIED = frozenset({Reason.CRASH, Reason.TIMEOUT, Reason.OUT_OF_MEMORY})
"""Reasons tried once more in a fresh child, because load on the machine can cause them."""


class ClipError(Exception):
    """One row cannot become a sample.

    Attributes:
        reason: one of the closed set.
        detail: a sentence: what was found, which value, what was expected.
        stage: where on the road it happened: `path`, `open`, `audio`, `video`, `sample`, `child`.
    """

    def __init__(self, reason: Reason, detail: str, stage: str) -> None:
        self.reason = reason
        self.detail = plain_text(detail)
        self.stage = stage
        super().__init__(f"{reason}: {self.detail}")

    def __reduce__(self) -> tuple[type["ClipError"], tuple[Reason, str, str]]:
        """Let the error travel between processes."""
        return type(self), (self.reason, self.detail, self.stage)


class ShardError(Exception):
    """A shard cannot be written or read; the message says what to do."""


class LostError(ShardError):
    """The workers that made a shard were lost again and again; other shards may fare better."""


_DISK_REMEDIES = {
    errno.EROFS: "Make the disk writable (mount -o remount,rw)",
    errno.EFBIG: "Allow larger files (ulimit -f unlimited; FAT disks end at 4 GiB)",
    errno.EACCES: "Give yourself the right to write there",
    errno.EPERM: "Give yourself the right to write there",
}
"""What to do first, by error number."""


def disk_sentence(where: str, error: OSError, need_bytes: int | None = None) -> str:
    """Why something could not be written, and what to do."""
    again = "then run the same command again: committed shards are kept."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        need = "" if need_bytes is None else f" (its source files have {need_bytes >> 20} MiB)"
        return f"No space left on the disk for {where}{need}. Make room, {again}"
    remedy = _DISK_REMEDIES.get(error.errno or 0, "Put that right")
    return f"Cannot write {where}: {error.strerror or error}. {remedy}, {again}"


def plain_text(text: str) -> str:
    """One line of printable text, at most 300 characters.

    Error texts of libav quote bytes of the file; they must reach neither a terminal nor JSON raw.
    """
    printable = one_line(re.sub(r"[^\S ]+", " ", text).strip())
    if len(printable) <= MAX_DETAIL_CHARACTERS:
        return printable
    return printable[: MAX_DETAIL_CHARACTERS - 1] + "…"
