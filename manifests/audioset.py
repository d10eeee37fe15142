"""AudioSet: ten-second YouTube clips with the sounds heard in them (527 classes, several a clip).

Where from: the three segment CSVs of AudioSet; everybody downloads the clips alone. Rows as
published: balanced_train 22,160, eval 20,371, unbalanced_train 2,041,789 (0.4 % are shorter than
10 s; some end after their video does).

CSV rows: `#` comments, then `YTID, 30.000, 40.000, "/m/09x0r,/t/dd00088"`. Class numbers and names
come from class_labels_indices.csv (`index,mid,display_name`); without it the sorted ids are the
classes, and the report says so.
File names: `ID_30000_40000.mp4` in `{balanced_train,unbalanced_train,eval}_segments/video/` (the
CSV's times decide whether numbers are milliseconds or seconds, never their digits),
`YID.wav`, `ID.mp4`, and folders per label, in which one clip lies several times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import csv_rows, csv_segments, find, finite
from manifests.clips import Clip, milliseconds
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.join import Join, Segment, usual_folders

LICENCE = (
    "labels CC BY 4.0, ontology CC BY-SA 4.0 (as far as we know); the videos are YouTube users', "
    "under YouTube's terms: use them for research, do not pass them on"
)
_SUBSETS = {
    "unbalanced": "unbalanced_train",
    "balanced": "balanced_train",
    "eval": "eval",
    "evaluation": "eval",
}
"""Words in names of files and folders -> split."""


class _Row(NamedTuple):
    id: str
    start_s: float
    end_s: float
    mids: list[str]
    split: str | None


class _Classes:
    """AudioSet's class ids (`/m/09x0r`), their numbers and names."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.number = {mid: i for i, mid in enumerate(names)}

    def columns(self, mids: list[str], report: Report) -> Row:
        """Return the label columns of a row; ids without a class are counted as unknown."""
        known = [mid for mid in mids if mid in self.number]
        report.unknown_labels.update(mid for mid in mids if mid not in self.number)
        return {
            "labels": [self.number[mid] for mid in known],
            "label_names": [self.names[mid] for mid in known],
        }


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Join AudioSet's segment CSVs with the files below `root`."""
    report = Report("audioset", LICENCE)
    join = Join.start(root, options, report)
    paths = find(root, options, (".csv",))
    segments = [path for path in paths if _is_segments(path)]
    report.annotations = [str(path) for path in segments]
    classes = _classes(paths, segments, report)
    report.vocabulary = list(classes.names.values())
    join.learn_whole((row.id, row.start_s, row.end_s) for row in _annotations(segments))
    return table(_rows(join, segments, classes)), report


def _rows(join: Join, segments: list[Path], classes: _Classes) -> Iterator[Row]:
    folders = usual_folders(join.files, lambda folder: (_subset(folder), folder))
    for row in _annotations(segments):
        segment = (row.id, row.start_s, row.end_s)
        folder = folders.get(row.split, f"{row.split}_segments/video" if row.split else "video")
        expected = f"{folder}/{_stem(segment)}.mp4" if folder else f"{_stem(segment)}.mp4"
        columns = join.row(_key(segment), segment, expected)
        if columns is not None:
            labels = classes.columns(row.mids, join.report)
            yield {**columns, **labels, **_meaning(row.split), "extra": extra(mids=row.mids)}
    for columns, clip in join.rest(_key, lambda clip: not segments or _split(clip) is not None):
        yield {**columns, **_meaning(_split(clip))}


def _annotations(paths: list[Path]) -> Iterator[_Row]:
    for path in paths:
        parse = partial(_row, split=_subset(path.stem))
        yield from csv_segments(path, parse, 'YTID, start, end, "labels"')


def _row(fields: list[str], split: str | None) -> _Row | None:
    try:
        start_s, end_s = (finite(field) for field in fields[1:3])
    except ValueError:
        return None
    # unquoted labels have spilt into columns of their own: put them together again
    mids = [mid.strip() for field in fields[3:] for mid in field.split(",") if mid.strip()]
    return _Row(fields[0], start_s, end_s, mids, split)


def _is_segments(path: Path) -> bool:
    rows = csv_rows(path)
    return any(
        len(fields) >= 4
        and len(fields[0]) == 11
        and fields[3].startswith("/")
        and _row(fields, None)
        for fields in [next(rows, []), next(rows, [])]
    )


def _classes(paths: list[Path], segments: list[Path], report: Report) -> _Classes:
    for path in paths:
        rows = csv_rows(path)
        if next(rows, [])[:3] == ["index", "mid", "display_name"]:
            report.annotations.append(str(path))
            return _Classes({fields[1]: fields[2] for fields in rows})
    mids = sorted({mid for row in _annotations(segments) for mid in row.mids})
    if mids:
        report.notes.append(
            "class_labels_indices.csv was not found: the sorted class ids are the classes, and "
            "their numbers are not the official ones. Put the file into ROOT/annotations."
        )
    return _Classes({mid: mid for mid in mids})


def _subset(name: str) -> str | None:
    """Return the split that a file or folder name speaks of."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((split for word, split in _SUBSETS.items() if word in words), None)


def _split(clip: Clip) -> str | None:
    return _subset(clip.entry.path.rpartition("/")[0])


def _stem(segment: Segment) -> str:
    return f"{segment[0]}_{milliseconds(segment[1])}_{milliseconds(segment[2])}"


def _key(segment: Segment) -> str:
    return f"audioset/{_stem(segment)}"


def _meaning(split: str | None) -> Row:
    return {"dataset": "audioset", "splits": [] if split is None else [f"audioset:{split}"]}


AUDIOSET = Dataset(
    name="audioset",
    title="AudioSet",
    what="Ten-second YouTube clips labelled with the sounds heard in them, 527 classes.",
    scale="22,160 balanced, 2,041,789 unbalanced, 20,371 evaluation clips; 5,800 hours",
    licence=LICENCE,
    layouts=(
        "ROOT/{balanced_train,unbalanced_train,eval}_segments/video/ID_30000_40000.mp4\n"
        "ROOT/.../ID_30_40.mp4        seconds instead of milliseconds\n"
        "ROOT/.../YID.wav             cut sounds\n"
        "ROOT/LABEL/...               a folder per label; copies of a clip are one row\n"
        "ROOT/.../ID.mp4              whole videos, cut by the CSV's times"
    ),
    scan=scan,
    annotations=(
        "balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv and "
        "class_labels_indices.csv in ROOT or ROOT/annotations, or named by --annotations"
    ),
)
"""The registry's entry."""
