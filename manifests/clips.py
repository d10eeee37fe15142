"""Clips cut from web videos: what their file names say, and which annotation row they belong to.

Kinetics, AVSpeech, AudioSet and VGG-Sound are all lists of (video id, start, end); whoever
downloaded them chose the file names. This module reads the names (`parse`), finds the file of an
annotation row (`Files.find`) and says which files were left over. Ids are the first 11 characters
and never split at `_`, which they may hold; they may start with `-`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from manifests.dataset import Report
from manifests.listing import AUDIO_KINDS, Entry, Listing

_NAME = re.compile(
    r"(?:clip_(?P<nth>\d+)_|Y(?=[\w-]{11}$))?"
    r"(?P<id>[A-Za-z0-9_-]{11})"
    r"(?:[_-](?P<a>\d+(?:\.\d+)?)(?:[_-](?P<b>\d+(?:\.\d+)?))?)?"
)
_CLOSE_SECONDS = 0.05
"""Names round the times of the annotations; two segments of a video are never this close."""
_LONGEST_CLIP_SECONDS = 60.0
"""No annotated clip is longer; a larger difference of two numbers means milliseconds."""


class Clip(NamedTuple):
    """A file, and what its name says."""

    entry: Entry
    id: str
    """YouTube id, 11 characters."""
    first: float | None
    """First number of the name: a start time, or a count of segments."""
    second: float | None
    """Second number of the name: an end time."""

    @property
    def is_panns(self) -> bool:
        """True for `Y` + id, the naming of cut AudioSet sounds (PANNs)."""
        return len(_stem(self)) == 12 and self.first is None

    def is_at(self, start_s: float, end_s: float, within_s: float = _CLOSE_SECONDS) -> bool:
        """Return True if the name's numbers are these times, in seconds or in milliseconds."""
        if self.first is None:
            return False
        last = end_s if self.second is not None else start_s
        second = self.first if self.second is None else self.second
        return any(
            abs(self.first - start_s * unit) <= within_s * unit
            and abs(second - last * unit) <= within_s * unit
            for unit in (1.0, 1000.0)
        )

    def times(self) -> tuple[float, float] | None:
        """Return (start, end) in seconds if the name holds both; the unit from their distance."""
        if self.first is None or self.second is None or self.second <= self.first:
            return None
        unit = 1.0 if self.second - self.first <= _LONGEST_CLIP_SECONDS else 1000.0
        return self.first / unit, self.second / unit


@dataclass
class Files:
    """The clips of a listing, by video id."""

    by_id: dict[str, list[Clip]] = field(default_factory=dict)
    strange: int = 0
    """Media files whose name says no video id."""
    sounds_beside: int = 0
    """Sound files left out because the same clip is there as a video."""
    taken: set[str] = field(default_factory=set)
    """Paths that belong to a row, or are further copies of one that does."""

    def find(
        self, video_id: str, start_s: float, end_s: float, nth: int | None = None
    ) -> list[Clip]:
        """Return the files of a segment, the best first, and mark them as taken.

        Args:
            video_id: YouTube id.
            start_s: start in the video, in seconds.
            end_s: end in the video, in seconds.
            nth: the number that names count this segment of the video by, if they do.
        """
        clips = self.by_id.get(video_id, ())
        if nth is not None:  # then a single number is a count and no time
            counted = [clip for clip in clips if clip.second is None and clip.first == nth]
            clips = [clip for clip in clips if clip.second is not None]
        else:
            counted = []
        found = [clip for clip in clips if clip.is_at(start_s, end_s)]
        if not (found or counted) and start_s % 1:  # the name may hold whole seconds
            whole = [clip for clip in clips if clip.is_at(start_s, end_s, within_s=1.0)]
            found = whole if len({clip.first for clip in whole}) == 1 else []
        return self.take(found or counted)

    def whole(self, video_id: str) -> list[Clip]:
        """Return the files named by the id alone, the best first, and mark them as taken."""
        return self.take([c for c in self.by_id.get(video_id, ()) if c.first is None])

    def take(self, clips: Iterable[Clip]) -> list[Clip]:
        """Mark files as belonging to a row; return them, the best copy first."""
        found = list(clips)
        if len(found) > 1:
            found.sort(key=_rank)
        self.taken.update(clip.entry.path for clip in found)
        return found

    def left(self) -> Iterator[Clip]:
        """Yield the files that belong to no annotation row, in the order of their paths."""
        rest = [c for clips in self.by_id.values() for c in clips if c.entry.path not in self.taken]
        return iter(sorted(rest, key=lambda clip: clip.entry.path))


def collect(listing: Listing, report: Report) -> Files:
    """Read the names of all media files; what is none is counted in the report."""
    files = Files()
    sounds: list[Clip] = []
    report.ignored.update(listing.ignored)
    report.ignored.update(listing.other_kinds())
    for entry in listing.media():
        clip = parse(entry)
        if clip is None:
            files.strange += 1
        elif entry.suffix in AUDIO_KINDS:
            sounds.append(clip)
        else:
            files.by_id.setdefault(clip.id, []).append(clip)
    _add_sounds(files, sounds)
    _say(files, listing, report)
    return files


def parse(entry: Entry) -> Clip | None:
    """Read a file's name; None: it holds no video id where names of clips have it."""
    stem = os.path.splitext(os.path.basename(entry.path))[0]
    found = _NAME.fullmatch(stem)
    if found is None:
        return None
    first = found["a"] if found["nth"] is None else found["nth"]
    return Clip(
        entry,
        found["id"],
        None if first is None else float(first),
        None if found["b"] is None else float(found["b"]),
    )


def milliseconds(seconds: float) -> int:
    """Return a time in whole milliseconds."""
    return round(seconds * 1000)


def _rank(clip: Clip) -> tuple[bool, bool, bool, str]:
    """Order copies of a clip: repaired ones, files with content, real files, then by path."""
    entry = clip.entry
    return (not is_replacement(clip), not entry.bytes, entry.kind != "file", entry.path)


def is_replacement(clip: Clip) -> bool:
    """Return True for a file in a folder of replacements for corrupt ones."""
    folders = clip.entry.path.lower().split("/")[:-1]
    return any(folder.startswith("replacement") for folder in folders)


def _add_sounds(files: Files, sounds: list[Clip]) -> None:
    """Keep a sound file where there is no video of the same name (a set of sounds only)."""
    names = {_stem(clip) for clips in files.by_id.values() for clip in clips}
    for clip in sounds:
        if _stem(clip) in names:
            files.sounds_beside += 1
        else:
            files.by_id.setdefault(clip.id, []).append(clip)


def _stem(clip: Clip) -> str:
    return os.path.splitext(os.path.basename(clip.entry.path))[0]


def _say(files: Files, listing: Listing, report: Report) -> None:
    if files.strange:
        report.ignored["media files whose name holds no video id"] += files.strange
    if files.sounds_beside:
        report.ignored["sound files beside a video of the same name"] += files.sounds_beside
        report.notes.append("Where a clip has a video and a sound file, the video's sound is used.")
    if listing.links_out:
        report.notes.append(
            f"{listing.links_out:,} links lead out of {listing.root}; the pipeline refuses them. "
            "Give a ROOT that holds the files too."
        )
