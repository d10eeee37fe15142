"""One walk over a folder of raw videos, here or in a bucket, shared by all adapters.

Reads a folder, or what a store lists; gives `Listing` to the adapters. Nothing is opened: names,
sizes and times come from the entries, so a FIFO cannot hang it and a million files take seconds.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from stores.base import Listed

SIDE_KINDS = frozenset({".txt", ".json", ".csv", ".align"})
"""Text files that lie beside media: no rows, but annotations are found among them."""
UNFINISHED = frozenset({".part", ".ytdl"})
"""What an interrupted download leaves."""
VIDEO_KINDS = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".3gp", ".3g2", ".mj2", ".mpg"}
    | {".mpeg", ".ts", ".mts", ".vob", ".ogv"}
)
"""Extensions of video files."""
AUDIO_KINDS = frozenset([".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".mp2"])
"""Extensions of sound files."""
_MEDIA_KINDS = VIDEO_KINDS | AUDIO_KINDS
FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,ogg,wav,flac,mp3,aac"
)
"""The only containers that files are opened as, by their names in ffmpeg, whoever opens them."""
_BYTES_PREFIX = "bytes:"


class Entry(NamedTuple):
    """One directory entry that is not a folder."""

    path: str
    """Relative to the root, with `/`; bytes that are no UTF-8 are surrogates (os.fsdecode)."""
    bytes: int | None
    """Size of the file (of the target, for a link); None: a dangling link."""
    mtime_ns: int
    """Time of the last change, in nanoseconds."""
    kind: str
    """`file`, `link` (to a file or to nothing) or `special` (FIFO, socket, device)."""

    @property
    def suffix(self) -> str:
        """The extension in lower case, with its dot."""
        return _suffix(self.path)

    @property
    def is_media(self) -> bool:
        """True if the extension is one of a video or a sound file."""
        return self.suffix in _MEDIA_KINDS


@dataclass
class Listing:
    """Everything below a root, in the order of the paths."""

    root: Path
    """The folder, or the one with copies of the side files of what lies at `address`."""
    files: list[Entry] = field(default_factory=list)
    """Every entry that may be a row: media, files of unknown kinds, links, FIFOs."""
    side: list[Entry] = field(default_factory=list)
    """Text side files: annotations and alignments are among them."""
    ignored: Counter[str] = field(default_factory=Counter)
    """What is no row, by kind."""
    links_out: int = 0
    """Links to files outside the root; the pipeline refuses them (`bad_path`)."""
    address: str = ""
    """Where the files lie, such as s3://bucket/raw; empty: in `root`."""

    def media(self) -> Iterator[Entry]:
        """Yield the entries whose extension is one of a video or a sound file."""
        return (entry for entry in self.files if entry.is_media)

    def other_kinds(self) -> Counter[str]:
        """Count the files that adapters of known data sets leave alone, by extension."""
        return Counter(f"*{e.suffix or ' (no extension)'}" for e in self.files if not e.is_media)


def walk(root: Path) -> Listing:
    """List everything below `root`, sorted by path, without opening a file.

    Linked folders are followed once, and only where they stay inside the root.
    """
    listing = Listing(root)
    inside = os.path.join(os.path.realpath(root), "")  # "/" stays "/"
    linked: set[str] = set()
    pending = [""]
    while pending:
        pending += _read_folder(listing, pending.pop(), inside, linked)
    listing.files.sort()
    listing.side.sort()
    return listing


def of_store(root: Path, address: str, objects: Iterable[Listed]) -> Listing:
    """What `walk` would give had the objects been files below a folder."""
    listing = Listing(root, address=address)
    for name, size, mtime_ns in objects:
        folders, _, last = name.rpartition("/")
        if any(folder.startswith(".") for folder in folders.split("/")):
            listing.ignored["files in hidden folders"] += 1
        elif (kind := _ignored_kind(last)) is not None:
            listing.ignored[kind] += 1
        else:
            _sort_in(listing, Entry(name, size, mtime_ns, "file"))
    listing.files.sort()
    listing.side.sort()
    return listing


def fingerprint(listing: Listing, outside: Iterable[Path] = ()) -> str:
    """Return the sha1 of all names, sizes and times, and of annotation files kept elsewhere."""
    digest = hashlib.sha1(usedforsecurity=False)
    for entry in [*listing.files, *listing.side]:
        digest.update(os.fsencode(f"{entry.path}\0{entry.bytes}\0{entry.mtime_ns}\n"))
    for path in sorted(outside):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            facts = file.stat()
            digest.update(os.fsencode(f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}\n"))
    return digest.hexdigest()


def to_uri(path: str) -> str:
    """Return the manifest's form of a path: itself, or `bytes:` + percent code if not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _BYTES_PREFIX + quote_from_bytes(os.fsencode(path))
    return _BYTES_PREFIX + quote_from_bytes(path.encode()) if path.startswith("bytes:") else path


def from_uri(uri: str) -> str:
    """Return the path that `open` takes (relative to the manifest's root) for a manifest's uri."""
    if uri.startswith(_BYTES_PREFIX):
        return os.fsdecode(unquote_to_bytes(uri[len(_BYTES_PREFIX) :]))
    return uri


def printable(path: str) -> str:
    """Return a path for people and labels: bytes that are no UTF-8 become the sign for that."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_folder(listing: Listing, folder: str, inside: str, linked: set[str]) -> list[str]:
    """Add one folder's entries to the listing; return its sub-folders."""
    below: list[str] = []
    try:
        entries = os.scandir(os.path.join(listing.root, folder))
    except OSError:  # no permission, or gone since its parent was read
        listing.ignored["folders that cannot be read"] += 1
        return below
    with entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not _is_folder(entry):
                _add(listing, entry, path, inside)
            elif entry.name.startswith("."):
                listing.ignored["hidden folders"] += 1
            elif not entry.is_symlink() or _follow(listing, path, inside, linked):
                below.append(path)
    return below


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link in a circle leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _follow(listing: Listing, path: str, inside: str, linked: set[str]) -> bool:
    """Decide on a linked folder: inside the root, no ancestor of itself, not followed before."""
    place = os.path.join(listing.root, path)
    target = os.path.realpath(place) + os.sep
    parent = os.path.realpath(os.path.dirname(place)) + os.sep
    if not target.startswith(inside):
        listing.ignored["linked folders that leave the root"] += 1
    elif parent.startswith(target) or target in linked:
        listing.ignored["linked folders already listed"] += 1
    else:
        linked.add(target)
        return True
    return False


def _add(listing: Listing, entry: os.DirEntry[str], path: str, inside: str) -> None:
    kind = _ignored_kind(entry.name)
    if kind is not None:
        listing.ignored[kind] += 1
        return
    row = _entry(entry, path)
    if row.kind == "link" and not os.path.realpath(entry.path).startswith(inside):
        listing.links_out += 1
    _sort_in(listing, row)


def _sort_in(listing: Listing, row: Entry) -> None:
    suffix = row.suffix
    if suffix in SIDE_KINDS:
        listing.ignored[f"*{suffix} side files"] += 1
        if row.kind != "special":
            listing.side.append(row)
    else:
        listing.files.append(row)


def _suffix(path: str) -> str:
    """Return the extension in lower case; quicker than os.path.splitext on a million names."""
    dot = path.rfind(".")
    return path[dot:].lower() if dot > path.rfind("/") + 1 else ""


def _ignored_kind(name: str) -> str | None:
    if name.startswith("._"):
        return "._* (macOS metadata)"
    if name.startswith("."):
        return "hidden files"
    suffix = _suffix(name)
    return f"*{suffix} (unfinished downloads)" if suffix in UNFINISHED else None


def _entry(entry: os.DirEntry[str], path: str) -> Entry:
    is_link = entry.is_symlink()
    try:
        facts = entry.stat()
    except OSError:  # a dangling or circular link, or a file deleted while we look
        return Entry(path, None, 0, "link" if is_link else "file")
    if not stat.S_ISREG(facts.st_mode):
        return Entry(path, facts.st_size, facts.st_mtime_ns, "special")
    return Entry(path, facts.st_size, facts.st_mtime_ns, "link" if is_link else "file")
