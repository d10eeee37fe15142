"""AVSpeech: 3 to 10 seconds of one visible person speaking, with the face's place.

Where from: the two CSVs of the Looking-to-Listen project; everybody downloads the videos alone.
About 2.6 M training segments of 290,000 videos (4,700 hours) and 183,000 test segments; these
numbers are from memory of the publication, not counted here.

CSV rows: no header, `youtube_id,start,end,x,y`; times in seconds, x and y the face's centre at the
segment's start as a share of the picture, (0, 0) at the top left. The split is the CSV's name.
File names: `ID_012.345000-018.900000.mp4` (the most copied script; its dots never reach a key), the
same with other separators or in milliseconds, `ID_K.mp4` and `clip_K_ID.mp4` (K counts the video's
segments in the order of the CSV, from 0 or 1), `ID.mp4` (whole video, or the only segment: learnt
from a few durations). Folders may be named after splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import csv_rows, csv_segments, find, finite, split_of
from manifests.clips import Clip, Files, milliseconds
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.join import Join, Segment, usual_folders

LICENCE = (
    "CSV CC BY 4.0 (as far as we know); the videos are YouTube users', under YouTube's terms: use "
    "them for research, do not pass them on"
)


class _Row(NamedTuple):
    id: str
    start_s: float
    end_s: float
    point: tuple[float, ...]
    split: str | None


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Join AVSpeech's CSVs with the files below `root`."""
    report = Report("avspeech", LICENCE)
    join = Join.start(root, options, report)
    paths = [path for path in find(root, options, (".csv",)) if _is_ours(path)]
    report.annotations = [str(path) for path in paths]
    join.learn_whole((row.id, row.start_s, row.end_s) for row in _annotations(paths))
    return table(_rows(join, paths)), report


def _rows(join: Join, paths: list[Path]) -> Iterator[Row]:
    folders = usual_folders(join.files, lambda folder: (split_of(*folder.split("/")), folder))
    first = _first_count(join.files)
    counts: Counter[str] = Counter()
    outside = 0
    for row in _annotations(paths):
        segment = (row.id, row.start_s, row.end_s)
        folder = folders.get(row.split, row.split)
        name = f"{row.id}_{row.start_s:010.6f}-{row.end_s:010.6f}.mp4"
        columns = join.row(
            _key(segment),
            segment,
            f"{folder}/{name}" if folder else name,
            nth=first + counts[row.id],
        )
        if columns is None:
            continue
        counts[row.id] += 1
        facts = extra(csv_start=row.start_s, csv_end=row.end_s)
        face_xy = row.point if _inside(row.point) else None
        outside += bool(row.point) and face_xy is None
        yield {**columns, **_meaning(row.split), "face_xy": face_xy, "extra": facts}
    if outside:
        join.report.notes.append(
            f"{outside:,} rows have a point outside of 0..1; their largest face is taken instead"
        )
    for columns, clip in join.rest(_key, lambda clip: not paths or _split(clip) is not None):
        yield {**columns, **_meaning(_split(clip))}


def _annotations(paths: list[Path]) -> Iterator[_Row]:
    for path in paths:
        parse = partial(_row, split=split_of(path.stem))
        yield from csv_segments(path, parse, "youtube_id,start,end,x,y")


def _row(fields: list[str], split: str | None) -> _Row | None:
    try:
        start_s, end_s = (finite(field) for field in fields[1:3])
        point = [float(field) for field in fields[3:5]]
    except ValueError:
        return None
    return _Row(fields[0], start_s, end_s, tuple(point), split)


def _inside(point: tuple[float, ...]) -> bool:
    """Whether a row's numbers after the times are a point of the picture."""
    return len(point) == 2 and all(0 <= share <= 1 for share in point)


def _is_ours(path: Path) -> bool:
    """Return True for CSVs whose first two rows look like AVSpeech's."""
    rows = csv_rows(path)
    return any(
        len(fields) in (3, 5) and len(fields[0]) == 11 and _row(fields, None) is not None
        for fields in [next(rows, []), next(rows, [])]
    )


def _first_count(files: Files) -> int:
    """Return the number by which file names count a video's first segment: 0 if any has a 0."""
    clips = (clip for clips in files.by_id.values() for clip in clips)
    return 0 if any(clip.first == 0 and clip.second is None for clip in clips) else 1


def _key(segment: Segment) -> str:
    video_id, start_s, end_s = segment
    return f"avspeech/{video_id}_{milliseconds(start_s):07d}-{milliseconds(end_s):07d}"


def _split(clip: Clip) -> str | None:
    return split_of(*clip.entry.path.split("/")[:-1])


def _meaning(split: str | None) -> Row:
    return {"dataset": "avspeech", "splits": [] if split is None else [f"avspeech:{split}"]}


AVSPEECH = Dataset(
    name="avspeech",
    title="AVSpeech",
    what="Segments of YouTube videos in which one visible person speaks, with the face's place.",
    scale="about 2.6 M training segments, 4,700 hours",
    licence=LICENCE,
    layouts=(
        "ROOT/{train,test}/ID_012.345000-018.900000.mp4   start-end in seconds\n"
        "ROOT/.../ID_12345_18900.mp4                      the same in milliseconds\n"
        "ROOT/.../ID_K.mp4, clip_K_ID.mp4                 K-th segment of the video in the CSV\n"
        "ROOT/.../ID.mp4                                  whole video, cut by the CSV's times"
    ),
    scan=scan,
    annotations=(
        "avspeech_train.csv and avspeech_test.csv in ROOT or ROOT/annotations, or named by "
        "--annotations"
    ),
)
"""The registry's entry."""
