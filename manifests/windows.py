"""`--window W --hop H`: long recordings become windows of W seconds, one every H seconds.

Takes rows of `folder` and `table`, gives rows of the same files. Windows lie wholly inside the
file: the last, shorter one is left out, and a file shorter than W stays one row. All windows of a
file keep its `source_id` and `group_id`, so they are never negatives of each other and never in two
splits. A window's key is the file's key, `-`, and its start in milliseconds with at least 8 digits.

Durations come from the ffmpeg program that imageio-ffmpeg brings: this package does not decode.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from manifests.columns import Row
from manifests.dataset import Report
from manifests.listing import FFMPEG_FORMATS, from_uri

_TIMEOUT_SECONDS = 30
_TOLERANCE_SECONDS = 1e-3
"""A file may end this much before a window does: containers round their duration."""
_MIN_BYTES_PER_SECOND = 10
"""Less holds no picture and sound: the duration is wrong, as where the clock jumps."""
_AT_ONCE = 1024


def cut(
    root: Path,
    rows: Iterable[Row],
    window_seconds: float,
    hop_seconds: float | None,
    report: Report,
) -> Iterator[Row]:
    """Yield the windows of every row; a row whose duration is not known stays as it is."""
    hop = window_seconds if hop_seconds is None else hop_seconds
    unknown = short = 0
    for row, end in _with_ends(root, rows):
        starts = [] if end is None else _starts(row.get("start_s", 0.0), end, window_seconds, hop)
        unknown += end is None
        short += end is not None and not starts
        yield from (_window(row, start, window_seconds) for start in starts) if starts else [row]
    if unknown:
        report.notes.append(
            f"{unknown:,} files have no credible duration; each stays one row and the pipeline "
            "says what is wrong with it."
        )
    if short:
        report.notes.append(f"{short:,} files are shorter than {window_seconds:g} s: one row each.")


def duration_seconds(path: str) -> float | None:
    """Return a media file's duration in seconds; None: no regular file, or no duration in it."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        output = _describe(path)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(rb"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", output)
    if found is None:
        return None
    hours, minutes, seconds = (float(part) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def _describe(path: str) -> bytes:
    import imageio_ffmpeg  # here, so that `import manifests` does not look for the program

    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin"),
        *("-protocol_whitelist", "file", "-format_whitelist", FFMPEG_FORMATS),
        *("-i", f"file:{path}"),
    ]
    # it exits with 1 because no output is named; what it says on stderr is what we want
    done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    return done.stderr


def _with_ends(root: Path, rows: Iterable[Row]) -> Iterator[tuple[Row, float | None]]:
    """Pair every row with its end in seconds, in order, probing several files at a time."""
    source = iter(rows)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        while batch := list(islice(source, _AT_ONCE)):
            yield from zip(batch, pool.map(lambda row: _end(root, row), batch), strict=True)


def _end(root: Path, row: Row) -> float | None:
    known = row.get("end_s")
    if known is not None:
        return float(known)
    path = os.path.join(root, from_uri(row["uri"]))
    # a link that leaves the root is the pipeline's to refuse; it is not opened here either
    if row.get("bytes") is None or not _inside(root, path):
        return None
    seconds = duration_seconds(path)
    return seconds if seconds is None or row["bytes"] >= seconds * _MIN_BYTES_PER_SECOND else None


def _inside(root: Path, path: str) -> bool:
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(root), ""))


def _starts(begin: float, end: float, window: float, hop: float) -> list[float]:
    room = end - begin - window + _TOLERANCE_SECONDS
    if room < 0:
        return []
    return [round(begin + k * hop, 6) for k in range(int(room / hop) + 1)]


def _window(row: Row, start: float, window: float) -> Row:
    return {
        **row,
        "key": f"{row['key']}-{round(start * 1000):08d}",
        "start_s": start,
        "end_s": round(start + window, 6),
        "pre_trimmed": False,
    }
