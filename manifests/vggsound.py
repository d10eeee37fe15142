"""VGG-Sound: ten-second YouTube clips in which the source of one sound is seen, 309 classes.

Where from: vggsound.csv of the authors; the clips from a crawl. About 199,000 rows, 15,446 of them
test, several of some videos (which share a group). About one row in ten is lost by now.

CSV rows: no header, `YouTubeID,start,label,split`, start in seconds; a clip ends 10 s later. The
authors' own lists are read too: test.csv and train.csv with `ID_000300.mp4,label`.
File names: `ID_000300.mp4` (the authors'), `ID_300000_310000.mp4` (milliseconds, or seconds), flat
or in class folders. The class number is the position in the sorted class names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import SPLIT_WORDS, csv_rows, find, split_of
from manifests.clips import Clip
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.join import Join, Segment, usual_folders

LICENCE = (
    "annotations CC BY 4.0; the videos are YouTube users', under YouTube's terms: use them for "
    "research, do not pass them on"
)
_CLIP_SECONDS = 10.0
_NAME = re.compile(r"(?P<id>[\w-]{11})_(?P<start>\d+)\.\w+")


class _Row(NamedTuple):
    id: str
    start_s: float
    label: str
    split: str | None


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Join VGG-Sound's CSV with the files below `root`."""
    report = Report("vggsound", LICENCE)
    join = Join.start(root, options, report)
    annotated: list[_Row] = []
    for path in find(root, options, (".csv",)):
        if rows := list(_csv(path)):
            report.annotations.append(str(path))
            annotated += rows
    report.vocabulary = sorted({row.label for row in annotated})
    if annotated and len(report.vocabulary) != 309:
        report.notes.append(
            f"{len(report.vocabulary)} class names were found, the data set has 309: the class "
            "numbers are not the official ones. Use the whole vggsound.csv."
        )
    join.learn_whole((row.id, row.start_s, row.start_s + _CLIP_SECONDS) for row in annotated)
    return table(_rows(join, annotated)), report


def _rows(join: Join, annotated: list[_Row]) -> Iterator[Row]:
    number = {name: i for i, name in enumerate(join.report.vocabulary)}
    folders = usual_folders(join.files, lambda folder: _read_folder(folder, number))
    for row in annotated:
        segment = (row.id, row.start_s, row.start_s + _CLIP_SECONDS)
        template = folders.get(row.split, folders.get(None, "video"))
        folder = template.replace("{label}", row.label)
        name = f"{_stem(segment)}.mp4"
        columns = join.row(_key(segment), segment, f"{folder}/{name}" if folder else name)
        if columns is not None:
            labels = {"labels": [number[row.label]], "label_names": [row.label]}
            start = extra(csv_start=row.start_s)
            yield {**columns, **labels, **_meaning(row.split), "extra": start}
    for columns, clip in join.rest(
        _key, lambda clip: not annotated or _split(clip) is not None, _times
    ):
        yield {**columns, **_meaning(_split(clip))}


def _csv(path: Path) -> Iterator[_Row]:
    """Read vggsound.csv or the authors' lists; rows of other files are passed over."""
    by_name = split_of(path.stem)
    for fields in csv_rows(path):
        listed = _NAME.fullmatch(fields[0])
        if listed is not None and len(fields) >= 2:
            yield _Row(listed["id"], float(listed["start"]), fields[1], by_name)
        elif len(fields) >= 3 and len(fields[0]) == 11 and _is_number(fields[1]):
            split = SPLIT_WORDS.get(fields[3].lower()) if len(fields) > 3 else by_name
            yield _Row(fields[0], float(fields[1]), fields[2], split)


def _times(clip: Clip) -> tuple[float, float] | None:
    """Return a file's times by its name; the authors' names hold the start alone."""
    if clip.second is None and clip.first is not None:
        return clip.first, clip.first + _CLIP_SECONDS
    return clip.times()


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def _read_folder(folder: str, number: dict[str, int]) -> tuple[str | None, str]:
    outer, _, last = folder.rpartition("/")
    if last in number:
        return split_of(*outer.split("/")), f"{outer}/{{label}}" if outer else "{label}"
    return split_of(*folder.split("/")), folder


def _split(clip: Clip) -> str | None:
    return split_of(*clip.entry.path.split("/")[:-1])


def _stem(segment: Segment) -> str:
    return f"{segment[0]}_{int(segment[1]):06d}"


def _key(segment: Segment) -> str:
    return f"vggsound/{_stem(segment)}"


def _meaning(split: str | None) -> Row:
    return {"dataset": "vggsound", "splits": [] if split is None else [f"vggsound:{split}"]}


VGGSOUND = Dataset(
    name="vggsound",
    title="VGG-Sound",
    what="Ten-second YouTube clips in which the source of one sound is seen, 309 classes.",
    scale="about 199,000 clips, 550 hours",
    licence=LICENCE,
    layouts=(
        "ROOT/video/ID_000300.mp4            the authors' naming: start in seconds\n"
        "ROOT/.../ID_300000_310000.mp4       start and end in milliseconds (or seconds)\n"
        "ROOT/CLASS/ID_000300.mp4            a folder per class\n"
        "ROOT/.../ID.mp4                     whole videos, cut by the CSV's times"
    ),
    scan=scan,
    annotations=(
        "vggsound.csv (or the authors' train.csv and test.csv) in ROOT or ROOT/annotations, or "
        "named by --annotations"
    ),
)
"""The registry's entry."""
