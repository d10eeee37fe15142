"""The page of `pipeline leaks`: counts, and pairs of clips as strips of pictures.

The two strips of a pair show the same moments where it is known by how much one clip is later, else
both from their beginnings; one picture a second.
"""

import base64
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.check import UNREADABLE
from pipeline.errors import plain_text
from pipeline.format import decode_jpeg, decode_meta, encode_jpeg, split_jpegs
from pipeline.leaks import KINDS, Leak, Leaks
from pipeline.outputs import Outputs
from pipeline.pages import render
from pipeline.peek import write_text

SHOWN_OF_A_KIND = 12
PICTURES = 6
HEIGHT_PIXELS = 96
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Strip:
    """Pictures of a clip side by side, or why there are none."""

    jpeg: str = ""
    """In base64."""
    missing: str = ""


@dataclass(frozen=True)
class Shown:
    """A pair on the page."""

    row: dict[str, Any]
    strip: Strip
    other_strip: Strip


def write_page(leaks: Leaks, path: Path) -> None:
    """Write the page: all counts, the first pairs of each kind."""
    shown = []
    for kind in KINDS:
        some = [leak for leak in leaks.found if leak.kind == kind][:SHOWN_OF_A_KIND]
        shown += [_shown(leaks, leak) for leak in some]
    page = render(
        "leaks.html",
        title=f"leaks of {leaks.sets.sets[0].name}",
        lines=leaks.lines(),
        shown=shown,
        most=SHOWN_OF_A_KIND,
    )
    write_text(path, page)


def _shown(leaks: Leaks, leak: Leak) -> Shown:
    row = leaks.row(leak)
    offset = row["offset_seconds"] or 0.0
    return Shown(
        row,
        _strip(leaks, leak.trained, max(0.0, -offset)),
        _strip(leaks, leak.held_out, max(0.0, offset)),
    )


def _strip(leaks: Leaks, clip: int, from_seconds: float) -> Strip:
    """Some pictures of a clip from a moment on, one a second."""
    number, row = leaks.sets.where(clip)
    prints = leaks.sets.sets[number]
    try:
        members = Outputs(prints.out).read_members(prints.place(row))
        meta = decode_meta(members)
        sizes = meta["jpeg_sizes"].get("frames") or []
        jpegs = split_jpegs(members.get("frames.mjpeg", b""), sizes)
        pictures = [_small(jpegs[tick] or b"") for tick in _ticks(meta, len(jpegs), from_seconds)]
    except UNREADABLE as error:
        return Strip(missing=f"cannot be read: {plain_text(str(error))}")
    if not pictures:
        return Strip(missing="no pictures are stored")
    strip = np.concatenate(pictures, axis=1)
    return Strip(base64.b64encode(encode_jpeg(strip, JPEG_QUALITY)).decode())


def _ticks(meta: dict[str, Any], frames: int, from_seconds: float) -> list[int]:
    fps = Fraction(meta["fps"])
    ticks = [int((Fraction(from_seconds) + step) * fps) for step in range(PICTURES)]
    return [tick for tick in ticks if tick < frames] or ([0] if frames else [])


def _small(jpeg: bytes) -> npt.NDArray[np.uint8]:
    picture = decode_jpeg(jpeg)
    width = max(1, round(picture.shape[1] * HEIGHT_PIXELS / picture.shape[0]))
    smaller = cv2.resize(picture, (width, HEIGHT_PIXELS), interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, np.uint8)
