"""Kinetics-400, -600 and -700(-2020): ten-second YouTube clips of one human action each.

Where from: the annotation CSVs of DeepMind or CVDF; the clips from the CVDF archives or a crawler.
Rows as published: K400 246,534 train, 19,906 val, 39,805 test; K600 383,393 train, 27,910 val; K700
542,357 train, 34,824 val. About 6 % of the clips are lost or have no sound.

Layouts: `{train,val,test}/` flat (CVDF), with class folders (K600 tars), `videos_{split}/{class}/`
(mmaction2, spaces as `_`), `replacement/…/` with repaired copies that win by id, and whole videos
`ID.mp4`, which are cut by the CSV's times. Files are `ID_SSSSSS_EEEEEE.mp4`.
Annotations: `{train,val,validate,test}.csv` in any of the published headers, and lists
(`train.txt`: `class/ID_000059_000069.mp4 LABEL`); rows of several files are united.

The class number is the position in the sorted class names, compared with their case: K600 has
'passing American football (in game)' and 'passing american football (not in game)'.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import (
    SPLIT_WORDS,
    columns_of,
    csv_rows,
    find,
    open_text,
    seconds,
    split_of,
)
from manifests.clips import Clip
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.join import Join, Segment, usual_folders
from manifests.listing import printable

LICENCE = (
    "annotations CC BY 4.0 (as far as we know); the videos are YouTube users', under YouTube's "
    "terms: use them for research, do not pass them on"
)
_COLUMNS = {
    "id": ("youtube_id", "video_id", "ytid", "id"),
    "start": ("time_start", "start_time", "start"),
    "end": ("time_end", "end_time", "end"),
    "label": ("label", "label_name", "class"),
    "split": ("split", "subset"),
    "is_cc": ("is_cc",),
}
_LISTED = re.compile(
    r"(?:(?P<folder>[^/]+)/)?(?P<id>[\w-]{11})_(?P<start>\d+)_(?P<end>\d+)(?:\.\w+)?"
    r"(?:\s+(?P<number>\d+))?\s*"
)
_NO_CLASS = re.compile(r"videos?|clips?|replacement.*|part_\d+|k(inetics)?[-_]?\d+.*")


class _Row(NamedTuple):
    id: str
    start_s: int
    end_s: int
    split: str | None
    label: str | None
    is_cc: int | None = None


class _Classes:
    """The vocabulary, and the ways folders spell it."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.number = {name: i for i, name in enumerate(names)}
        self._spaced = {name.replace("_", " "): name for name in names}
        self._alike: dict[str, list[str]] = {}
        for spaced, name in self._spaced.items():
            self._alike.setdefault(spaced.casefold(), []).append(name)

    def find(self, folder: str) -> str | None:
        """Return the class of a folder: spaces may be `_`; another case only if that is clear."""
        spaced = folder.replace("_", " ")
        alike = self._alike.get(spaced.casefold(), [])
        return self._spaced.get(spaced) or (alike[0] if len(alike) == 1 else None)

    def columns(self, label: str | None) -> Row:
        """Return the label columns of a row."""
        if label is None:
            return {"labels": [], "label_names": []}
        return {"labels": [self.number[label]], "label_names": [label]}


def scan(
    name: str, prefix: str, class_count: int, root: Path, options: ScanOptions
) -> tuple[pa.Table, Report]:
    """Join the files and annotations of one Kinetics version.

    Args:
        name: canonical name, `kinetics400`.
        prefix: of keys and splits, `k400`.
        class_count: classes of the official data set.
        root: folder with the clips.
        options: `annotations` is read.
    """
    report = Report(name, LICENCE)
    join = Join.start(root, options, report)
    annotated = list(_annotations(find(root, options, (".csv", ".txt")), report))
    classes = _vocabulary(join, annotated, class_count)
    report.vocabulary = classes.names
    job = _Job(prefix, join, classes, annotated)
    rows = ({"dataset": name, **row} for row in job.rows())
    return table(rows), report


class _Job:
    """One scan: turns annotations and left-over files into rows."""

    def __init__(self, prefix: str, join: Join, classes: _Classes, annotated: list[_Row]) -> None:
        self.prefix, self.join, self.classes, self.annotated = prefix, join, classes, annotated
        self.root_split = SPLIT_WORDS.get(join.root.name.lower())
        self.folders = usual_folders(join.files, self._read_folder)
        self.joined_by_id = 0

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the annotations, then those of files without annotation."""
        self.join.learn_whole((row.id, row.start_s, row.end_s) for row in self.annotated)
        distinct = {(row.id, row.start_s, row.end_s) for row in self.annotated}
        per_id = Counter(video_id for video_id, _, _ in distinct)
        for row in self.annotated:
            columns = self._annotated(row, alone=per_id[row.id] == 1)
            if columns is not None:
                yield columns
        for columns, clip in self.join.rest(self._key, self._is_kept):
            split, label = self._place(clip)
            self._note_unknown(clip, label)
            yield {**columns, **self._meaning(split, label)}
        if self.joined_by_id:
            self.join.report.notes.append(
                f"{self.joined_by_id:,} files were joined by id alone: their names' times differ "
                "from the annotation's."
            )

    def _annotated(self, row: _Row, *, alone: bool) -> Row | None:
        segment = (row.id, float(row.start_s), float(row.end_s))
        key = self._key(segment)
        columns = self.join.row(key, segment, self._expected(row))
        if columns is None:
            return None
        if columns["bytes"] is None and alone:
            columns = self._by_id(key, segment) or columns
        facts = extra(csv_start=row.start_s, csv_end=row.end_s, is_cc=row.is_cc)
        return {**columns, **self._meaning(row.split, row.label), "extra": facts}

    def _by_id(self, key: str, segment: Segment) -> Row | None:
        """Join by the id alone, as CVDF does, where one annotation and one clip have it."""
        clips = [c for c in self.join.files.by_id.get(segment[0], ()) if c.times() is not None]
        if len({clip.times() for clip in clips}) != 1:
            return None
        self.joined_by_id += 1
        return self.join.row_of(key, segment, clips)

    def _meaning(self, split: str | None, label: str | None) -> Row:
        return {
            "splits": [] if split is None else [f"{self.prefix}:{split}"],
            "anchored": split in ("val", "test"),
            **self.classes.columns(label),
        }

    def _key(self, segment: Segment) -> str:
        return f"{self.prefix}/{_stem(segment)}"

    def _is_kept(self, clip: Clip) -> bool:
        """A file without annotation is a row if its split is known, or if nothing is annotated."""
        return not self.annotated or self._place(clip)[0] is not None

    def _place(self, clip: Clip) -> tuple[str | None, str | None]:
        """Return (split, class) of a file by its folders."""
        folders = clip.entry.path.split("/")[:-1]
        label = self.classes.find(folders[-1]) if folders else None
        return split_of(*(folders[:-1] if label else folders)) or self.root_split, label

    def _note_unknown(self, clip: Clip, label: str | None) -> None:
        folder = os.path.basename(os.path.dirname(clip.entry.path))
        if label is None and folder and not _is_container(folder):
            self.join.report.unknown_labels[printable(folder)] += 1

    def _read_folder(self, folder: str) -> tuple[str | None, str]:
        """Return a folder's split, and its name with the class as `{label}`."""
        outer, _, last = folder.rpartition("/")
        label = self.classes.find(last) if last else None
        if label is None:
            return split_of(*folder.split("/")) or self.root_split, _escape(folder)
        spelling = "{label_}" if "_" in last and "_" not in label else "{label}"
        template = f"{_escape(outer)}/{spelling}" if outer else spelling
        return split_of(*outer.split("/")) or self.root_split, template

    def _expected(self, row: _Row) -> str:
        """Return where the file of an annotation would lie, from where its neighbours do."""
        default = f"{row.split}/{{label}}" if row.split else "{label}"
        template = self.folders.get(row.split, default)
        label = row.label or ""
        folder = template.format(label=label, label_=label.replace(" ", "_")).rstrip("/")
        stem = _stem((row.id, row.start_s, row.end_s))
        return f"{folder}/{stem}.mp4" if folder else f"{stem}.mp4"


def _stem(segment: Segment) -> str:
    return f"{segment[0]}_{int(segment[1]):06d}_{int(segment[2]):06d}"


def _escape(folder: str) -> str:
    return folder.replace("{", "{{").replace("}", "}}")


def _is_container(folder: str) -> bool:
    """Return True for folders that are no class: splits, replacements, parts of archives."""
    return split_of(folder) is not None or _NO_CLASS.fullmatch(folder.lower()) is not None


def _vocabulary(join: Join, annotated: list[_Row], class_count: int) -> _Classes:
    """Take the class names from the annotations, else from the folders."""
    names = {row.label for row in annotated if row.label is not None}
    if not names:
        paths = (clip.entry.path for clips in join.files.by_id.values() for clip in clips)
        folders = {os.path.basename(os.path.dirname(path)) for path in paths}
        names = {printable(f).replace("_", " ") for f in folders if f and not _is_container(f)}
        if names:
            join.report.notes.append("No annotation names a class: class folders are the labels.")
    if len(names) != class_count:
        join.report.notes.append(
            f"{len(names)} class names were found, the data set has {class_count}: the class "
            "numbers are not the official ones. Put the official train CSV beside the clips."
        )
    return _Classes(sorted(names))


def _annotations(paths: list[Path], report: Report) -> Iterator[_Row]:
    for path in paths:
        rows = _csv(path) if path.suffix.lower() == ".csv" else _list(path)
        for number, row in enumerate(rows):
            if number == 0:
                report.annotations.append(str(path))
            yield row


def _csv(path: Path) -> Iterator[_Row]:
    """Read a CSV with any of the published headers; files with other columns are passed over."""
    rows = csv_rows(path)
    places = columns_of(next(rows, []), _COLUMNS)
    if not {"id", "start", "end"} <= places.keys():
        return
    by_name = split_of(path.stem)
    for number, fields in enumerate(rows, start=2):
        if len(fields) <= max(places[role] for role in ("id", "start", "end")):
            raise UsageError(
                f"{path} row {number} has {len(fields)} fields, fewer than its header; "
                "download the annotation file again."
            )
        found = {role: fields[place] for role, place in places.items() if place < len(fields)}
        yield _Row(
            id=found["id"],
            start_s=int(seconds(found["start"], path, "start")),
            end_s=int(seconds(found["end"], path, "end")),
            split=SPLIT_WORDS.get(found.get("split", "").lower(), by_name),
            label=found.get("label") or None,
            is_cc=int(found["is_cc"]) if found.get("is_cc", "").isdigit() else None,
        )


def _list(path: Path) -> Iterator[_Row]:
    """Read a list of files, `class/ID_000059_000069.mp4 LABEL`; other lines are passed over."""
    split = split_of(path.stem)
    with open_text(path) as file:
        for line in file:
            found = _LISTED.fullmatch(line.strip().removeprefix("./"))
            if found is not None:
                folder = found["folder"]
                label = None if folder is None or _is_container(folder) else folder
                label = None if label is None else label.replace("_", " ")
                yield _Row(found["id"], int(found["start"]), int(found["end"]), split, label)


_LAYOUTS = (
    "ROOT/{train,val,test}/ID_SSSSSS_EEEEEE.mp4           CVDF archives, flat\n"
    "ROOT/{train,val,test}/CLASS/ID_SSSSSS_EEEEEE.mp4     with class folders\n"
    "ROOT/videos_{train,val}/CLASS/ID_SSSSSS_EEEEEE.mp4   mmaction2, spaces may be _\n"
    "ROOT/replacement/.../ID_SSSSSS_EEEEEE.mp4            repaired copies, taken first\n"
    "ROOT/.../ID.mp4                                      whole videos, cut by the CSV's times"
)


def _version(number: int, scale: str) -> Dataset:
    name, prefix = f"kinetics{number}", f"k{number}"
    return Dataset(
        name=name,
        title=f"Kinetics-{number}",
        what=f"Ten-second YouTube clips, each of one of {number} human actions.",
        scale=scale,
        licence=LICENCE,
        layouts=_LAYOUTS,
        scan=partial(scan, name, prefix, number),
        annotations=(
            "train.csv, val.csv (or validate.csv), test.csv of DeepMind or CVDF, or lists such as "
            "train.txt, in ROOT or ROOT/annotations, or named by --annotations"
        ),
    )


KINETICS400 = _version(400, "about 306,000 clips, 830 hours")
"""The registry's entry for Kinetics-400."""
KINETICS600 = _version(600, "about 411,000 clips, 1,143 hours")
"""The registry's entry for Kinetics-600."""
KINETICS700 = _version(700, "about 577,000 clips, 1,603 hours")
"""The registry's entry for Kinetics-700 and 700-2020."""
