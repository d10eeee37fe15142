"""The outer join of annotation rows and clip files, shared by the adapters of web videos.

An adapter streams its annotation rows through `Join.row`, which answers with the columns that
depend on the file, then asks `Join.rest` for the files that no row spoke of. The report's counts of
missing, duplicate, replaced and unannotated files are made here and nowhere else.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from manifests.clips import Clip, Files, collect, is_replacement
from manifests.columns import Row
from manifests.dataset import Report, ScanOptions
from manifests.listing import AUDIO_KINDS, to_uri
from manifests.windows import duration_seconds

Segment = tuple[str, float, float]
"""(video id, start, end), times in seconds of the source video."""
_SAMPLES = 7
_ROUNDING_SECONDS = 1.5
"""A cut at keyframes may be this much longer or shorter than the annotation says."""


@dataclass
class Join:
    """Files on one side, annotation rows on the other."""

    root: Path
    files: Files
    report: Report
    whole: bool = True
    """Files named by the id alone are whole videos (False: they are the segment itself)."""
    _seen: set[str] = field(default_factory=set)
    _alone: set[str] = field(default_factory=set)

    @classmethod
    def start(cls, root: Path, options: ScanOptions, report: Report) -> Join:
        """List the root and read the names of its files."""
        return cls(root, collect(options.walk(root), report), report)

    def learn_whole(self, segments: Iterable[Segment]) -> None:
        """Find out whether files named by the id alone are whole videos, from a few durations."""
        alone = {i for i, clips in self.files.by_id.items() if any(c.first is None for c in clips)}
        if not alone:
            return
        votes: Counter[bool] = Counter()
        for video_id, start_s, end_s in islice((s for s in segments if s[0] in alone), _SAMPLES):
            clip = next(c for c in self.files.by_id[video_id] if c.first is None)
            if clip.entry.kind != "file":  # a link may lead out of the root
                continue
            duration = duration_seconds(os.path.join(self.root, clip.entry.path))
            if duration is not None:
                votes[abs(duration - (end_s - start_s)) > _ROUNDING_SECONDS] += 1
        self.whole = votes[True] >= votes[False]
        self.report.notes.append(
            f"Files named by the video's id alone are taken as {self._what()}, "
            + (f"judged by {votes.total()} durations." if votes else "as none could be read.")
            + ("" if self.whole else " Where a video has several segments it is the first one.")
        )

    def row(
        self, key: str, segment: Segment, expected_path: str, *, nth: int | None = None
    ) -> Row | None:
        """Return the columns that a segment's file decides; None: the key was there before.

        Args:
            key: the row's key.
            segment: id and times of the annotation.
            expected_path: where the file was looked for, relative to the root.
            nth: the number that file names count this segment of the video by, if they do.
        """
        video_id, start_s, end_s = segment
        if key in self._seen:
            self.report.duplicate_rows += 1
            return None
        self._seen.add(key)
        clips = self.files.find(video_id, start_s, end_s, nth)
        if clips:
            return self._columns(key, segment, clips, whole=False)
        clips = self.files.whole(video_id)
        whole = self.whole and not any(clip.is_panns for clip in clips)
        if clips and (whole or video_id not in self._alone):
            self._alone.add(video_id)
            return self._columns(key, segment, clips, whole=whole)
        return {**_identity(key, segment), "uri": to_uri(expected_path), "bytes": None}

    def row_of(self, key: str, segment: Segment, clips: list[Clip]) -> Row:
        """Return the columns of a segment for files found in another way."""
        self._seen.add(key)
        return self._columns(key, segment, self.files.take(clips), whole=False)

    def rest(
        self,
        key_of: Callable[[Segment], str],
        keep: Callable[[Clip], bool],
        times_of: Callable[[Clip], tuple[float, float] | None] = Clip.times,
    ) -> Iterator[tuple[Row, Clip]]:
        """Yield rows for files without annotation whose name says id and times.

        Args:
            key_of: makes the key of a segment.
            keep: tells of a file whether it may be a row (its split is known, say).
            times_of: reads (start, end) in seconds off a name; None: the name does not say.
        """
        for clip in self.files.left():
            self.report.files_without_row += 1
            times = times_of(clip)
            if times is None or not keep(clip):
                continue
            segment = (clip.id, *times)
            key = key_of(segment)
            if key in self._seen:
                self.report.duplicate_files += 1
                continue
            self._seen.add(key)
            self.report.kept_without_row += 1
            yield self._columns(key, segment, [clip], whole=False), clip

    def _columns(self, key: str, segment: Segment, clips: list[Clip], *, whole: bool) -> Row:
        best, replaced = clips[0], is_replacement(clips[0])
        self.report.replaced += replaced
        # a corrupt file and its repaired copy are no duplicates
        self.report.duplicate_files += len(clips) - 1 - (replaced and len(clips) > 1)
        row = _identity(key, segment)
        row |= {"uri": to_uri(best.entry.path), "bytes": best.entry.bytes}
        if whole:
            row |= {"source_id": f"yt:{segment[0]}", "pre_trimmed": False}
            row |= {"start_s": segment[1], "end_s": segment[2]}
        if best.entry.suffix in AUDIO_KINDS:
            row["expect"] = {"video": False, "audio": True}
        return row

    def _what(self) -> str:
        return "whole videos, cut by the annotation's times" if self.whole else "cut segments"


def usual_folders(
    files: Files, read_folder: Callable[[str], tuple[str | None, str]]
) -> dict[str | None, str]:
    """Return split -> the folder where most of its files lie, to name missing files by.

    Args:
        files: the clips found.
        read_folder: turns a folder into (its split, its name with the class as `{label}`).
    """
    folders = Counter(os.path.dirname(c.entry.path) for cs in files.by_id.values() for c in cs)
    counts: dict[str | None, Counter[str]] = {}
    for folder, number in sorted(folders.items()):
        split, template = read_folder(folder)
        counts.setdefault(split, Counter())[template] += number
    return {split: counter.most_common(1)[0][0] for split, counter in counts.items()}


def _identity(key: str, segment: Segment) -> Row:
    return {
        "key": key,
        "source_id": f"yt:{key.rpartition('/')[2]}",
        "group_id": f"yt:{segment[0]}",
        "start_s": 0.0,
        # a cut file begins at its own zero; its length is what the annotation says
        "end_s": round(segment[2] - segment[1], 6),
    }
