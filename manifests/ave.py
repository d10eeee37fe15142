"""AVE: 4,143 labelled events in 4,097 ten-second clips of AudioSet, in seconds, of 28 kinds.

Where from: the authors' archive AVE_Dataset (`AVE/ID.mp4`, Annotations.txt with a header,
trainSet.txt, valSet.txt, testSet.txt) or their repository AVE-ECCV18 (Annotations.txt without
header; train_order.h5, val_order.h5, test_order.h5 hold row numbers). Rows:
`Church bell&MH3m4AwEcRY&good&6&8`, the event lasts from second 6 to second 8.

A sample is a row, not a file: 45 clips have two or three events, so the key holds the row's number,
`ave/0000_RUhOCu3LNXM`. 3,339 / 402 / 402 rows; 18 videos are in two splits, which the report says.
The event is the row's one segment: second t belongs to it if start <= t < end, all others are
background, which is class `BACKGROUND` of the task's 29. One row says `0&0`: background alone.

The weakly supervised setting adds 178 background videos to train; which ones was never published,
so they are not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from manifests.annotations import find_named, open_text
from manifests.columns import Row, extra, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.listing import VIDEO_KINDS, Entry, to_uri
from manifests.named import below, files_by_name, usual_folder

LICENCE = "none stated; the videos are YouTube users': for research, do not pass them on"
CATEGORIES = [
    *("Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane"),
    *("Race car, auto racing", "Female speech, woman speaking", "Helicopter", "Violin, fiddle"),
    *("Flute", "Ukulele", "Frying (food)", "Truck", "Shofar", "Motorcycle", "Acoustic guitar"),
    *("Train horn", "Clock", "Banjo", "Goat", "Baby cry, infant cry", "Bus", "Chainsaw", "Cat"),
    *("Horse", "Toilet flush", "Rodents, rats, mice", "Accordion", "Mandolin"),
]
"""The vocabulary: in the order of their first appearance in Annotations.txt."""
BACKGROUND = len(CATEGORIES)
"""Class of the seconds in which no event is seen and heard."""
CLIP_SECONDS = 10
_NUMBER = {name: number for number, name in enumerate(CATEGORIES)}
_ID = re.compile(r"[\w-]{11}")
_SPLITS = ("train", "val", "test")


class _Event(NamedTuple):
    line: int
    category: str
    id: str
    quality: str
    start: int
    end: int

    @property
    def name(self) -> tuple[str, str]:
        """What tells a row from all others."""
        return self.category, self.id


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Join Annotations.txt and the lists of the splits with the files below `root`."""
    report = Report("ave", LICENCE, vocabulary=CATEGORIES)
    files = files_by_name(options.walk(root), VIDEO_KINDS, _id, report)
    path = _annotations(root, options, clips=len(files))
    if path is None:
        return table(()), report
    report.annotations.append(str(path))
    events = list(_events(path))
    split_of = _splits(root, options, events, report)
    report.files_without_row = len(files.keys() - {event.id for event in events})
    if empty := sum(event.start == event.end for event in events):
        report.notes.append(
            f"{empty} row{'s' if empty > 1 else ''} without an event (start = end): all seconds "
            "are background, as published."
        )
    folder = usual_folder(files.values(), 1, "AVE")
    rows = (_row(e, files.get(e.id), folder, split_of.get(e.line)) for e in events)
    return table(rows), report


def _row(event: _Event, entry: Entry | None, folder: str, split: str | None) -> Row:
    label = _NUMBER[event.category]
    segment = {"start_s": float(event.start), "end_s": float(event.end), "label": label}
    expected = below(folder, f"{event.id}.mp4")
    return {
        "dataset": "ave",
        "key": f"ave/{event.line:04d}_{event.id}",
        "source_id": f"yt:{event.id}",
        "group_id": f"yt:{event.id}",
        "uri": expected if entry is None else to_uri(entry.path),
        "end_s": float(CLIP_SECONDS),
        "splits": [] if split is None else [f"ave:{split}"],
        "labels": [label],
        "label_names": [event.category],
        "segments": [segment] if event.start < event.end else [],
        "expect": {"video": True, "audio": True, "duration_s": float(CLIP_SECONDS)},
        "extra": extra(line=event.line, quality=event.quality),
        "anchored": True,
        "bytes": None if entry is None else entry.bytes,
    }


def _id(entry: Entry) -> str | None:
    stem = entry.path.rpartition("/")[2].rpartition(".")[0]
    return stem if _ID.fullmatch(stem) else None


def _annotations(root: Path, options: ScanOptions, clips: int) -> Path | None:
    """Return Annotations.txt; None: it is as absent as the clips, the folder is the wrong one.

    Raises:
        UsageError: there are clips, and no labels.
    """
    paths = find_named(root, options, r"annotations\.txt")
    if not paths and clips:
        raise UsageError(
            f"{root} has {clips:,} clips, and there is no Annotations.txt in "
            f"{options.annotations or root}, which holds AVE's labels. Take it from the archive, "
            "where it lies beside AVE/, or from the folder data of the authors' repository "
            "AVE-ECCV18, and name its folder with --annotations."
        )
    return paths[0] if paths else None


def _events(path: Path) -> Iterator[_Event]:
    """Yield the rows of Annotations.txt; a row's number counts from 0 below the header.

    Raises:
        UsageError: a row is wrong.
    """
    for line, row in enumerate(_rows(path)):
        event = _event(row, line)
        if event is None:
            raise UsageError(
                f"{path}: {'&'.join(row)!r} is no event; expected 'CATEGORY&ID&QUALITY&START&"
                f"END' with one of AVE's 28 categories and whole seconds from 0 to {CLIP_SECONDS}, "
                "such as 'Church bell&MH3m4AwEcRY&good&6&8'. Repair the row."
            )
        yield event


def _event(row: list[str], line: int) -> _Event | None:
    if len(row) != 5 or row[0] not in _NUMBER or not (row[3].isdecimal() and row[4].isdecimal()):
        return None
    start, end = int(row[3]), int(row[4])
    if not start <= end <= CLIP_SECONDS:
        return None
    return _Event(line, row[0], row[1], row[2], start, end)


def _rows(path: Path) -> Iterator[list[str]]:
    """Yield the fields of a file's rows; the header of the archive's version is none."""
    with open_text(path) as file:
        for line in file:
            fields = [field.strip() for field in line.split("&")]
            if any(fields) and fields[1:2] != ["VideoID"]:
                yield fields


def _splits(
    root: Path, options: ScanOptions, events: list[_Event], report: Report
) -> dict[int, str]:
    """Return row number -> split, from the lists of the archive or of the repository."""
    names = rf"({'|'.join(_SPLITS)})(set\.txt|_order\.h5)"
    paths = find_named(root, options, names, (".txt", ".h5"))
    lists = [path for path in paths if path.suffix.lower() == ".txt"]
    read = _read_set if lists else _read_order
    split_of: dict[int, str] = {}
    for path in lists or paths:
        split = next(name for name in _SPLITS if path.name.lower().startswith(name))
        report.annotations.append(str(path))
        for line in read(path, events):
            report.duplicate_rows += line in split_of
            split_of.setdefault(line, split)
    if absent := len(events) - len(split_of):
        report.notes.append(
            f"{absent:,} rows of Annotations.txt have no split. The lists are trainSet.txt, "
            "valSet.txt and testSet.txt (archive), or train_order.h5 ... (repository)."
        )
    return split_of


def _read_set(path: Path, events: list[_Event]) -> Iterator[int]:
    """Yield the row numbers of trainSet.txt ..., whose rows repeat those of Annotations.txt."""
    line_of = {event.name: event.line for event in events}
    for row in _rows(path):
        line = line_of.get((row[0], row[1])) if len(row) > 1 else None
        if line is None:
            raise UsageError(
                f"{path}: {'&'.join(row)!r} is not in Annotations.txt; expected a row of it. Take "
                "both files from one archive."
            )
        yield line


def _read_order(path: Path, events: list[_Event]) -> Iterator[int]:
    """Yield the row numbers of train_order.h5 ...

    Raises:
        UsageError: the package that reads HDF5 is not installed, or the file is none of AVE's.
    """
    try:
        import h5py
    except ImportError as error:
        raise UsageError(
            f"{path} is an HDF5 file, which the package h5py reads; it is not installed. Type "
            "`pip install h5py`, or take trainSet.txt, valSet.txt and testSet.txt of the archive."
        ) from error
    try:
        with h5py.File(path, "r") as file:
            lines = [int(line) for line in file["order"][()]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); expected an HDF5 file with row numbers in 'order'."
        ) from error
    wrong = next((line for line in lines if not 0 <= line < len(events)), None)
    if wrong is not None:
        raise UsageError(
            f"{path} names row {wrong}; Annotations.txt has the rows 0 to {len(events) - 1}. Take "
            "both files from one copy of the repository."
        )
    yield from lines


AVE = Dataset(
    name="ave",
    title="AVE",
    what="Ten-second clips in which an event of one of 28 kinds is seen and heard, by the second.",
    scale="4,143 labelled rows of 4,097 clips, 11 hours",
    licence=LICENCE,
    layouts=(
        "ROOT/AVE/ID.mp4                          the archive AVE_Dataset\n"
        "ROOT/.../ID.mp4                          anywhere, by YouTube id"
    ),
    scan=scan,
    annotations=(
        "Annotations.txt, with trainSet.txt, valSet.txt and testSet.txt (archive) or\n"
        "train_order.h5, val_order.h5 and test_order.h5 (repository), below ROOT or named by\n"
        "--annotations"
    ),
    download=(
        "AVE_Dataset.zip, named in the README of the authors' repository AVE-ECCV18 (Tian et al.\n"
        "2018); unpack it"
    ),
    official={"ave:train": 3339, "ave:val": 402, "ave:test": 402},
)
"""The registry's entry."""
