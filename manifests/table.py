"""`table`: one's own list of clips, as CSV, JSONL or Parquet.

Columns are found by name; case, spaces and hyphens do not matter, the first spelling there wins:

| column | spellings (all of them: `ROLES`) |
|---|---|
| path (needed) | path, file, filename, file_path, video, video_path, uri, clip |
| start, end (seconds or h:mm:ss) | start, start_s, start_time, ..., end, end_s, end_time, stop |
| label | label, labels, class, class_name, category, label_name, action |
| split | split, subset, set, partition |
| group | group, group_id, speaker, speaker_id, source, source_id |
| transcript | transcript, transcription, text, sentence, caption |
| face point (0..1) | face_x and face_y, x and y |
| audio (another file) | audio, audio_path, audio_file, audio_uri |
| anchored (true, false) | anchored |

Anchored times are exact, as those of a benchmark: a picture that is missing at an edge is the
nearest one, missing sound is silence, and both are recorded; a clip without sound is kept.

All other columns go into `extra`. Several labels are a list (JSONL, Parquet) or are joined by `|`.
Paths are relative to ROOT, or, where no such file is there, to the table's folder; without ROOT the
root is the lowest folder that holds the table and all files. The key is that of `folder`
plus the start and end in milliseconds where they are given; rows of the same file and times are
duplicates, the first one counts. With a window length rows are cut (manifests/windows.py).

    python -m manifests build --dataset table --table my.csv --root videos
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests import windows
from manifests.annotations import columns_of, finite
from manifests.checks import LONGEST_SECONDS
from manifests.columns import Row, table as table_of
from manifests.dataset import Dataset, Report, ScanOptions
from manifests.errors import UsageError
from manifests.keys import folder_key, slug
from manifests.listing import Listing, to_uri
from manifests.records import Record, read
from manifests.text import one_line

LICENCE = "your own files: their licence is yours to know"
ROLES: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "video"),
        *("video_path", "video_file", "uri", "clip", "clip_path"),
    ),
    "start": (
        "start",
        "start_s",
        "start_time",
        "start_seconds",
        "start_sec",
        "time_start",
        "begin",
    ),
    "end": ("end", "end_s", "end_time", "end_seconds", "end_sec", "time_end", "stop"),
    "label": ("label", "labels", "class", "class_name", "category", "label_name", "action"),
    "split": ("split", "subset", "set", "partition"),
    "group": ("group", "group_id", "speaker", "speaker_id", "source", "source_id"),
    "transcript": ("transcript", "transcription", "text", "sentence", "caption"),
    "x": ("face_x", "x"),
    "y": ("face_y", "y"),
    "audio": ("audio", "audio_path", "audio_file", "audio_uri"),
    "anchored": ("anchored",),
}
"""Role -> spellings of its column, the first one there wins."""


def root_of(path: Path) -> Path:
    """Return the root for a table when none was given: the lowest folder that holds all files."""
    folder = path.absolute().parent
    header, records = read(path)
    name = _columns(header, path)["path"]
    places = {
        os.path.dirname(os.path.normpath(os.path.join(folder, str(record[name]))))
        for record in records
        if record.get(name) and "://" not in str(record[name])
    }
    return Path(os.path.commonpath([folder, *places]))


def scan(root: Path, options: ScanOptions) -> tuple[pa.Table, Report]:
    """Make one row per row of the table, or per window of it."""
    path = options.table
    if path is None:
        raise UsageError(
            "the data set 'table' needs a table; name one with --table my.csv (or .jsonl, "
            ".parquet), with a column 'path' and, if you have them, start, end, label, split."
        )
    report = Report("table", LICENCE)
    rows = list(_Rows(root, path, report, _elsewhere(options)).rows())
    if not rows:
        raise UsageError(f"the table {path} has no rows; expected one row per clip.")
    report.vocabulary = _number_labels(rows)
    if options.window_seconds is not None:
        cut = windows.cut(root, rows, options.window_seconds, options.hop_seconds, report)
        return table_of(cut), report
    return table_of(rows), report


def _elsewhere(options: ScanOptions) -> Listing | None:
    """The listing of a root that is no folder of this machine."""
    return options.listing if options.listing is not None and options.listing.address else None


class _Rows:
    """Turns the table's records into manifest rows."""

    def __init__(
        self, root: Path, path: Path, report: Report, listing: Listing | None = None
    ) -> None:
        self.root, self.path, self.report = root.absolute(), path, report
        header, self.records = read(path)
        self.columns = _columns(header, path)
        self.outside = 0
        self.sizes = None if listing is None else {e.path: e.bytes for e in listing.files}
        """Of the files in a bucket; None: they are here."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows; labels are names still (`_number_labels`)."""
        seen: set[str] = set()
        for number, record in enumerate(self.records, start=1):
            row = self._row(record, number)
            if row["key"] in seen:
                self.report.duplicate_rows += 1
                continue
            seen.add(row["key"])
            yield row
        if self.outside:
            self.report.notes.append(
                f"{self.outside:,} paths lead out of {self.root}; the pipeline refuses them. Give "
                "a ROOT that holds all files."
            )

    def _row(self, record: Record, number: int) -> Row:
        given = self._text(record, "path")
        if given is None:
            raise UsageError(
                f"{self.path} row {number} has no path in column {self.columns['path']!r}; "
                "expected a file relative to ROOT. Fill it in or delete the row."
            )
        # the key comes from the path as written: it must not depend on the other rows' folders
        path, name = self._place(given), folder_key(os.path.normpath(given).lstrip("/"))
        start, end = (self._seconds(record, role, number) for role in ("start", "end"))
        times = "" if start is end is None else f"-{_ms(start or 0.0)}-{_ms(end)}"
        group, split = self._text(record, "group"), self._text(record, "split")
        return {
            "dataset": "table",
            "key": name + times,
            "source_id": name,
            "group_id": f"table:{group or name}",
            "uri": to_uri(path),
            "audio_uri": self._audio(record),
            "start_s": start or 0.0,
            "end_s": end,
            "pre_trimmed": start is None and end is None,
            "splits": [] if split is None else [f"table:{slug(split)}"],
            "label_names": self._labels(record),
            "face_xy": self._point(record, number),
            "transcript": self._text(record, "transcript"),
            "extra": self._extra(record, number),
            "anchored": self._flag(record, "anchored", number),
            "bytes": self._bytes(path),
        }

    def _value(self, record: Record, role: str) -> Any:
        value = record.get(self.columns[role]) if role in self.columns else None
        return None if value == "" else value

    def _text(self, record: Record, role: str) -> str | None:
        value = self._value(record, role)
        return None if value is None or _is_nan(value) else str(value).strip() or None

    def _place(self, given: str) -> str:
        """Return a path relative to the root, or absolute where it leads out of it."""
        if "://" in given:
            return given
        path = os.path.normpath(os.path.join(self.root, given))
        beside = os.path.normpath(os.path.join(self.path.absolute().parent, given))
        if self.sizes is None and not os.path.lexists(path) and os.path.lexists(beside):
            path = beside
        inside = os.path.join(self.root, "")
        self.outside += not path.startswith(inside)
        return path[len(inside) :] if path.startswith(inside) else path

    def _audio(self, record: Record) -> str | None:
        given = self._text(record, "audio")
        return None if given is None else to_uri(self._place(given))

    def _bytes(self, path: str) -> int | None:
        if self.sizes is not None:
            return self.sizes.get(path)
        try:
            return os.stat(os.path.join(self.root, path)).st_size
        except (OSError, ValueError):  # not there; or no name a file can have
            return None

    def _labels(self, record: Record) -> list[str]:
        value = self._value(record, "label")
        if value is None or _is_nan(value):
            return []
        names = value if isinstance(value, list) else str(value).split("|")
        return [str(name).strip() for name in names if str(name).strip()]

    def _point(self, record: Record, number: int) -> tuple[float, float] | None:
        x, y = (self._number(record, role, number) for role in ("x", "y"))
        return None if x is None or y is None else (x, y)

    def _flag(self, record: Record, role: str, number: int) -> bool:
        value = self._value(record, role)
        if value is None or _is_nan(value):
            return False
        text = str(value).strip().lower()
        if text not in ("true", "false", "1", "0"):
            raise self._wrong(role, value, number, "true or false")
        return text in ("true", "1")

    def _number(self, record: Record, role: str, number: int) -> float | None:
        value = self._value(record, role)
        try:
            return None if value is None else finite(value)
        except (TypeError, ValueError) as error:
            raise self._wrong(role, value, number, "a number") from error

    def _seconds(self, record: Record, role: str, number: int) -> float | None:
        """Read seconds, `mm:ss` or `h:mm:ss.s`."""
        value = self._value(record, role)
        try:
            return None if value is None else _clock_seconds(str(value))
        except ValueError as error:
            expected = f"seconds, mm:ss or h:mm:ss, from 0 to {LONGEST_SECONDS:,.0f} s"
            raise self._wrong(role, value, number, expected) from error

    def _wrong(self, role: str, value: Any, number: int, expected: str) -> UsageError:
        return UsageError(
            f"{self.path} row {number}, column {self.columns[role]!r}: {value!r} is not "
            f"{expected}; repair the row, or leave the cell empty."
        )

    def _extra(self, record: Record, number: int) -> str:
        """The other columns as JSON, which has no infinity."""
        used = set(self.columns.values())
        empty = (None, "")
        rest = {n: v for n, v in record.items() if n not in used and v not in empty}
        rest = {name: value for name, value in rest.items() if not _is_nan(value)}
        try:
            return _json(rest)
        except ValueError as error:
            name = next(name for name in rest if not _is_json(rest[name]))
            raise UsageError(
                f"{self.path} row {number}, column {name!r}: {rest[name]!r} is not finite; repair "
                "the row, or leave the cell empty."
            ) from error


def _json(value: Any) -> str:
    """Return a value as JSON; NaN and infinity, which JSON has not, are a ValueError."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)


def _is_json(value: Any) -> bool:
    try:
        _json(value)
    except ValueError:
        return False
    return True


def _is_nan(value: Any) -> bool:
    """Whether a cell holds what some writers of Parquet put where nothing is known."""
    return isinstance(value, float) and math.isnan(value)


def _clock_seconds(text: str) -> float:
    """Seconds of `s`, `mm:ss` or `h:mm:ss`; a sign counts for the whole of it.

    Raises:
        ValueError: it is none of these, or no time in a recording.
    """
    parts = [finite(part) for part in text.split(":")]
    total = sum(part * 60.0**place for place, part in enumerate(reversed(parts)))
    if len(parts) > 3 or any(math.copysign(1, part) < 0 for part in parts):
        raise ValueError(text)
    if total > LONGEST_SECONDS:
        raise ValueError(text)
    return total


def _number_labels(rows: list[Row]) -> list[str]:
    """Fill in the class numbers; return the classes: sorted, as numbers where all are numbers."""
    names = {name for row in rows for name in row["label_names"]}
    numeric = all(name.isdecimal() for name in names)
    vocabulary = sorted(names, key=lambda name: (int(name), name) if numeric else (0, name))
    number = {name: i for i, name in enumerate(vocabulary)}
    for row in rows:
        row["labels"] = [number[name] for name in row["label_names"]]
    return vocabulary


def _columns(header: list[str], path: Path) -> dict[str, str]:
    """Return role -> the table's own name of the column."""
    found = {role: header[place] for role, place in columns_of(header, ROLES).items()}
    if "path" not in found:
        names = one_line(", ".join(header)) or "none"
        raise UsageError(
            f"{path} has no column with paths; its columns are {names}. "
            f"Call one of them 'path' (also understood: {', '.join(ROLES['path'][1:])})."
        )
    return found


def _ms(seconds: float | None) -> str:
    return "end" if seconds is None else str(round(seconds * 1000))


TABLE = Dataset(
    name="table",
    title="a table of clips",
    what="Your own list of clips: one row each, with a path and what you know about it.",
    scale="as many rows as there are",
    licence=LICENCE,
    layouts=(
        "TABLE is CSV, JSONL or Parquet with a column 'path' (relative to ROOT, or to the table);\n"
        "understood besides: start, end, label, split, group, transcript, face_x and face_y,\n"
        "audio, anchored"
    ),
    scan=scan,
    rescan_always=True,
    options=("table", "window_seconds", "hop_seconds"),
)
"""The registry's entry."""
