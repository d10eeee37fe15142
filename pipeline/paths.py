"""From the name of a file in a manifest to a regular file below the root, or why not.

Nothing here trusts the name, and nothing opens the file.
"""

import errno
import os
import re
import stat
from pathlib import Path

from manifests.listing import from_uri
from pipeline.errors import ClipError, Reason

_OTHER_THAN_A_PATH = re.compile(r"[a-z0-9]+(:|,,)|-[^.]*$")
"""What libav or a command line would take for a protocol (`concat:`, `subfile,,`) or a flag."""
_BAD_NAME = (errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)


def resolve(root: Path, uri: str) -> Path:
    """The regular file below `root` that a manifest names.

    Raises:
        ClipError: `bad_path` if it leaves the root or is no regular file, `missing_file` if there
            is none, `empty_file` if it has no bytes.
    """
    if "://" in uri or "\0" in uri or not uri:
        raise ClipError(Reason.BAD_PATH, f"{uri!r} is no path below the root", "path")
    home = Path(os.path.realpath(root))
    path = Path(os.path.realpath(home / from_uri(uri)))
    if not path.is_relative_to(home):
        raise ClipError(Reason.BAD_PATH, f"{uri!r} leads out of the root to {path}", "path")
    try:
        facts = os.stat(path)
    except OSError as error:
        raise _stat_failure(uri, error) from None
    if not stat.S_ISREG(facts.st_mode):
        raise ClipError(Reason.BAD_PATH, f"{uri!r} is no regular file", "path")
    if facts.st_size == 0:
        raise ClipError(Reason.EMPTY_FILE, f"{uri!r} has zero bytes", "path")
    return path


def _stat_failure(uri: str, error: OSError) -> ClipError:
    """Why a path that stays below the root leads to nothing."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if _OTHER_THAN_A_PATH.match(uri):
            return ClipError(Reason.BAD_PATH, f"{uri!r} is no path below the root", "path")
        return ClipError(Reason.MISSING_FILE, f"no file {uri!r} below the root", "path")
    reason = Reason.BAD_PATH if error.errno in _BAD_NAME else Reason.OPEN_ERROR
    return ClipError(reason, f"{uri!r}: {error.strerror}", "path")
