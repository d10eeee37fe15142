"""Finding and reading the annotation files that people have, in their many spellings."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from manifests.dataset import Report, ScanOptions
from manifests.errors import UsageError
from manifests.listing import from_uri

T = TypeVar("T")

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Spellings of split names in columns, folders and file names -> ours."""
_FOLDER_WORDS = SPLIT_WORDS.keys() - {"training", "testing"}  # 'training dog' is a class
_PLACES = re.compile(r"(annotations?(/[^/]+)?|[^/]*|[^/]*/annotations?(/[^/]+)?)")


def find(root: Path, options: ScanOptions, suffixes: tuple[str, ...]) -> list[Path]:
    """Return annotation files: those of --annotations, else in ROOT and its annotation folders.

    Looked into are ROOT, ROOT/annotations, ROOT/annotations/*, and both of these one folder
    further down, where an extracted archive often ends up.
    """
    if options.annotations is not None:
        return _given(options.annotations, suffixes)
    files = [
        root / from_uri(entry.path)
        for entry in options.walk(root).side
        if entry.suffix in suffixes and _PLACES.fullmatch(entry.path.rpartition("/")[0])
    ]
    # ROOT's own files first, then by depth and name, so that the nearest spelling wins
    return sorted(files, key=lambda path: (len(path.parts), str(path)))


def find_named(
    root: Path, options: ScanOptions, name: str, suffixes: tuple[str, ...] = (".txt", ".csv")
) -> list[Path]:
    """Return the annotation files whose whole name matches a pattern, one of each name.

    Looked for in --annotations or, without it, everywhere below ROOT; of several copies the one
    nearest to the top counts.

    Args:
        root: the data set's folder.
        options: `annotations` is read.
        name: regular expression; case does not matter.
        suffixes: extensions of such files, in lower case.
    """
    if options.annotations is not None:
        files = _given(options.annotations, suffixes)
    else:
        listing = options.walk(root)
        entries = [e for e in (*listing.side, *listing.files) if e.suffix in suffixes]
        files = [root / from_uri(entry.path) for entry in entries]
    nearest: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: (len(path.parts), str(path))):
        if re.fullmatch(name, path.name, re.IGNORECASE):
            nearest.setdefault(path.name.lower(), path)
    return [nearest[key] for key in sorted(nearest)]


def refuse_unread(options: ScanOptions, report: Report, expected: str) -> None:
    """Refuse annotations that were named and of which nothing could be used.

    Raises:
        UsageError: no file that was read is in --annotations.
    """
    place = options.annotations
    if place is None:
        return
    target = place.resolve()
    if not any(Path(path).resolve().is_relative_to(target) for path in report.annotations):
        raise UsageError(
            f"--annotations {place} holds nothing that {report.dataset} can use; expected "
            f"{expected}. Leave it out to search ROOT."
        )


def split_of(*names: str) -> str | None:
    """Return the split that the first telling name speaks of: 'videos_val' -> 'val'."""
    for name in names:
        for token in re.split(r"[^a-z]+", name.lower()):
            if token in _FOLDER_WORDS:
                return SPLIT_WORDS[token]
    return None


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file: UTF-8 with or without BOM, any line end; other encodings are an error."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); "
            "save it as CSV in UTF-8 and try again."
        ) from error
    except csv.Error as error:
        raise UsageError(f"{path} is no readable CSV: {error}.") from error


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[list[str]]:
    """Yield the stripped fields of every row that is neither empty nor a `#` comment.

    A space after the delimiter does not hide the quotes behind it (AudioSet writes them so).
    """
    with open_text(path) as file:
        lines = (line for line in file if not line.lstrip().startswith("#"))
        for fields in csv.reader(lines, skipinitialspace=True, delimiter=delimiter):
            if any(fields):
                yield [field.strip() for field in fields]


def csv_segments(path: Path, parse: Callable[[list[str]], T | None], expected: str) -> Iterator[T]:
    """Yield what `parse` makes of a CSV's rows; only the first one may be a header it declines.

    Args:
        path: the file.
        parse: fields -> a row, or None if they are none.
        expected: the columns, for the sentence about a row that is none.

    Raises:
        UsageError: a row beyond the first is none.
    """
    for number, fields in enumerate(csv_rows(path), start=1):
        row = parse(fields)
        if row is not None:
            yield row
        elif number > 1:
            raise UsageError(
                f"{path} row {number} is {','.join(fields)!r}; expected {expected} with times in "
                "seconds. Download the CSV again."
            )


def plain(name: str) -> str:
    """Return a column's name for comparison: lower case, `_` for every run of other signs."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def columns_of(header: Iterable[str], wanted: dict[str, tuple[str, ...]]) -> dict[str, int]:
    """Return role -> column number, by the first spelling of each role that the header has."""
    places: dict[str, int] = {}
    for number, name in enumerate(header):
        places.setdefault(plain(name), number)
    found: dict[str, int] = {}
    for role, spellings in wanted.items():
        for spelling in spellings:
            if spelling in places:
                found[role] = places[spelling]
                break
    return found


def finite(value: str | float) -> float:
    """Return a number; `nan` and `inf`, which `float` takes too, are a ValueError like words."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no finite number")
    return number


def seconds(text: str, path: Path, field: str) -> float:
    """Return a time in seconds; the sentence of a bad one names the file and the field."""
    try:
        return finite(text)
    except ValueError as error:
        raise UsageError(
            f"{path}: {field} is {text!r}; expected seconds as a number. Repair the row."
        ) from error


def _given(place: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UsageError(
            f"--annotations {place} does not exist; expected an annotation file or a folder "
            "with annotation files. Leave it out to search ROOT."
        )
    files = [
        path
        for path in [*sorted(place.iterdir()), *sorted(place.glob("*/*"))]
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
    ]
    if not files:
        raise UsageError(
            f"--annotations {place} holds no {' or '.join(suffixes)} file; "
            "give the folder with the official annotation files."
        )
    return files
