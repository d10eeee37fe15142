"""Names that are safe in shards: keys are built from ids or slugged from paths.

WebDataset splits a sample's name at the first dot, so a key has none.
"""

from __future__ import annotations

import hashlib
import os
import re

KEY_PATTERN = r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*"
"""What every key must match, as a whole."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_/-]")


def path_hash(path: str) -> str:
    """Return 8 hex digits of the sha1 of the path's bytes, as they are on the disk."""
    return hashlib.sha1(os.fsencode(path), usedforsecurity=False).hexdigest()[:8]


def slug(text: str) -> str:
    """Replace every character outside ``[A-Za-z0-9_-]`` by `_`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text) or "_"


def folder_key(path: str, *, always_hash: bool = False) -> str:
    """Return the key of a file from its path relative to the root.

    The extension stays, with its dot as `_`. If anything else had to change, 8 hex digits of the
    path's sha1 make the key unique again.

    >>> folder_key("cats/tom.mp4")
    'cats/tom_mp4'
    >>> folder_key("cats/tom 2.mp4")
    'cats/tom_2_mp4-8b16b3e5'
    """
    stem, extension = os.path.splitext(path)
    plain = stem + ("_" + extension[1:] if extension else "")
    key = "/".join(part for part in _UNSAFE.sub("_", plain).split("/") if part) or "_"
    return f"{key}-{path_hash(path)}" if key != plain or always_hash else key
