"""`folder`: one's own videos, as they lie.

Every file below ROOT is one row; the first sub-folder is its label; the classes are the sorted
folder names. Text side files (`.txt .json .csv .align`), hidden files, `._*`, `*.part` and `*.ytdl`
are counted, not rows. What is no video becomes an error row of the pipeline. With a window length
long recordings are cut into windows (manifests/windows.py). The files may change from day to day,
so the manifest is made anew every time.

    python -m manifests build --dataset folder --root videos
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from manifests import windows
from manifests.columns import Row, table
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.keys import folder_key
from manifests.listing import Entry, Listing, printable, to_uri

SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
LICENCE = "your own files: their licence is yours to know"


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Make one row per file below `root`, or per window of it."""
    listing = options.walk(root)
    report = Report("folder", LICENCE, ignored=listing.ignored.copy())
    report.vocabulary = sorted({label for e in listing.files if (label := _label(e)) is not None})
    if SPLIT_FOLDERS & {name.lower() for name in report.vocabulary}:
        report.notes.append(
            "the first sub-folder is the label, and some are named like splits "
            f"({', '.join(report.vocabulary[:5])}): name ROOT=.../train, or give a table with "
            "columns path, label, split (DATASET=table)"
        )
    rows = _rows(listing, report.vocabulary)
    if options.window_seconds is not None:
        rows = windows.cut(root, rows, options.window_seconds, options.hop_seconds, report)
    return table(rows), report


def _rows(listing: Listing, vocabulary: list[str]) -> Iterator[Row]:
    number = {name: i for i, name in enumerate(vocabulary)}
    taken: set[str] = set()
    for entry in listing.files:
        key = folder_key(entry.path)
        if key in taken:  # a.mp4 and a file that is really called a_mp4
            key = folder_key(entry.path, always_hash=True)
        taken.add(key)
        label = _label(entry)
        yield {
            "dataset": "folder",
            "key": key,
            "source_id": key,
            "group_id": f"folder:{key}",
            "uri": to_uri(entry.path),
            "labels": [] if label is None else [number[label]],
            "label_names": [] if label is None else [label],
            "bytes": entry.bytes,
        }


def _label(entry: Entry) -> str | None:
    first, slash, _ = entry.path.partition("/")
    return printable(first) if slash else None


FOLDER = Dataset(
    name="folder",
    title="a folder of videos",
    what="Your own videos: every file below ROOT is one sample.",
    scale="as many as there are",
    licence=LICENCE,
    layouts=(
        "ROOT/LABEL/anything/below/file.mp4   the first sub-folder is the label\n"
        "ROOT/file.mp4                        no label\n"
        "any container that ffmpeg knows among mp4 mov mkv webm avi flv mpg ts ogg wav flac mp3"
    ),
    scan=scan,
    rescan_always=True,
    options=("window_seconds", "hop_seconds"),
)
"""The registry's entry."""
