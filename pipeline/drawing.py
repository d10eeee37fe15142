"""Arrays as pictures for the pages: a mel spectrogram as PNG, marks along a clip's time axis.

Stored JPEGs go into the pages as they are. What is drawn here is only what no file holds.
"""

import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import N_FFT
from pipeline.mel import slaney_filterbank

MEL_RANGE_NEPERS = 14.0
"""What is shown below the loudest slice: 14 in the natural log of power is 61 dB."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE_COLOUR = 3


@dataclass(frozen=True)
class Span:
    """A stretch of a lane, in percent of its length."""

    left: float
    width: float
    text: str
    start_seconds: float
    """From t0."""
    end_seconds: float


@dataclass(frozen=True)
class Mark:
    """A labelled point of an axis, in percent of its length."""

    at: float
    text: str


def mel_png(mel: npt.NDArray[Any]) -> bytes:
    """A log-mel spectrogram (bands, slices), low bands at the bottom, as PNG."""
    shown = np.asarray(mel, np.float32)[::-1]
    top = float(shown.max(initial=-math.inf))
    bottom = max(top - MEL_RANGE_NEPERS, float(shown.min(initial=top)))
    scaled = (shown - bottom) / max(top - bottom, 1e-6)
    return palette_png((np.clip(scaled, 0, 1) * 255).astype(np.uint8), _magma())


def palette_png(indices: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]) -> bytes:
    """A picture of (H, W) indices into up to 256 RGB colours, as PNG, a third of RGB's size."""
    height, width = indices.shape
    header = struct.pack(">IIBBBBB", width, height, 8, PALETTE_COLOUR, 0, 0, 0)
    # Each row is preceded by its filter type; 0 stores it as it is.
    rows = np.hstack([np.zeros((height, 1), np.uint8), indices])
    chunks = [
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    return PNG_SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _magma() -> npt.NDArray[np.uint8]:
    """256 colours from black over red to pale yellow, even to the eye and in grey."""
    import matplotlib

    colours = matplotlib.colormaps["magma"](np.arange(256))[:, :3]
    return np.asarray(np.round(colours * 255), np.uint8)


# --- along the axes ---------------------------------------------------------------------------


def time_marks(seconds: float) -> list[Mark]:
    """About ten labelled seconds along an axis of this length."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60) if seconds / s <= 12), 120)
    count = int(seconds / step + 1e-6) + 1
    # A label at the very end would stand outside of the lane.
    times = [k * step for k in range(count) if k * step <= seconds * 0.985]
    return [Mark(100 * time / seconds, f"{time:g} s") for time in times]


def band_marks(rate_hz: int) -> list[Mark]:
    """Frequencies along the mel axis, in percent from the bottom."""
    filters = slaney_filterbank(rate_hz)
    marks = []
    for hz, text in ((250, "250 Hz"), (1000, "1 kHz"), (4000, "4 kHz")):
        if hz < rate_hz / 2:
            band = int(filters[:, round(hz * N_FFT / rate_hz)].argmax())
            marks.append(Mark(100 * (band + 0.5) / len(filters), text))
    return marks


def spans(items: Iterable[tuple[float, float, str]], seconds: float) -> list[Span]:
    """Stretches (start, end, text) in seconds from t0, clipped to the axis; empty ones left out."""
    drawn = []
    for start, end, text in items:
        first, last = max(0.0, start), min(seconds, end)
        if last > first:
            width = 100 * (last - first) / seconds
            drawn.append(Span(100 * first / seconds, width, text, start, end))
    return drawn


def runs(values: Sequence[str], fps: float, seconds: float) -> list[Span]:
    """One span for each run of equal values, one value a frame."""
    stretches, first = [], 0
    for value, group in groupby(values):
        last = first + len(list(group))
        stretches.append((first / fps, last / fps, value))
        first = last
    return spans(stretches, seconds)
