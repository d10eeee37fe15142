"""When things happen in a file, read by the ffmpeg program and nothing of our own decoding.

Times are those of the container (``-copyts``): start offsets and edit lists stay in them, frames
that an edit list hides are not shown, the priming of AAC, MP3 and Opus that the file declares is
skipped. Pictures are read one by one with their own pts, sound block by block, each block at the
pts of its first sample, so that gaps stay gaps.
"""

import re
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from manifests.render.encode import run

BRIGHT_LUMA = 150
"""Mean luma above which a picture counts as a flash (white is 235, the rest about 40)."""
BEEP_HZ = 1000
_START = re.compile(rb"Duration: [^,]+, start: (-?[0-9.]+)")
_PICTURE = re.compile(rb"n: *\d+ pts: *(-?\d+) .*?mean:\[(\d+)")
_TIME_BASE = re.compile(rb"config in time_base: (\d+)/(\d+)")
_BLOCK = re.compile(rb"n:\d+ pts:(-?\d+) .*?rate:(\d+) nb_samples:(\d+)")


def start_seconds(path: Path) -> float:
    """The earliest stream start of a file on the container's clock."""
    return _start(path, _showinfo(path, limit=1))


def picture_offset_seconds(path: Path, fps: Fraction) -> float:
    """How much later than the earliest stream start the pictures come.

    The AVI muxer leaves the first picture at zero when it moves the others to make room for the
    priming of the sound: hence the median of the first three.

    Args:
        path: Video file whose first three pictures follow each other at `fps`.
        fps: Pictures a second.

    Returns:
        Seconds.
    """
    log = _showinfo(path, limit=3)
    shifts = [float(time - n / fps) for n, (time, _) in enumerate(_pictures(path, log))]
    return median(shifts) - _start(path, log)


def pictures(path: Path) -> list[tuple[Fraction, int]]:
    """Each picture's pts in seconds and its mean luma, in the order of the screen.

    Args:
        path: Video file.

    Returns:
        Exact times (pts times the stream's time base) and luma 16..235.
    """
    return _pictures(path, _showinfo(path))


def _showinfo(path: Path, limit: int | None = None) -> bytes:
    """What ffmpeg says about a file and each of its pictures."""
    stop = [] if limit is None else ["-frames:v", str(limit)]
    return run(["-copyts", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough",
                "-vf", "scale=32:32:flags=area,showinfo", *stop, "-f", "null",
                "-"]).stderr  # fmt: skip


def _start(path: Path, log: bytes) -> float:
    found = _START.search(log)
    if found is None:
        raise ValueError(f"{path}: ffmpeg names no start time")
    return float(found[1])


def _pictures(path: Path, log: bytes) -> list[tuple[Fraction, int]]:
    base = _TIME_BASE.search(log)
    if base is None:
        raise ValueError(f"{path}: ffmpeg shows no picture")
    unit = Fraction(int(base[1]), int(base[2]))
    return [(int(pts) * unit, int(luma)) for pts, luma in _PICTURE.findall(log)]


def flash_times(path: Path) -> list[Fraction]:
    """The pts of the first bright picture of each flash, in seconds on the container's clock."""
    times, was_bright = [], False
    for time, luma in pictures(path):
        if luma > BRIGHT_LUMA and not was_bright:
            times.append(time)
        was_bright = luma > BRIGHT_LUMA
    return times


def sound(path: Path) -> tuple[list[tuple[int, NDArray[np.float32]]], int]:
    """The decoded sound in blocks, mixed to mono.

    Args:
        path: File with sound.

    Returns:
        Blocks of (pts of the first sample counted in samples, samples), and the sample rate.
    """
    done = run(["-copyts", "-i", str(path), "-map", "0:a:0",
                "-af", "aformat=sample_fmts=flt:channel_layouts=mono,ashowinfo",
                "-f", "f32le", "-"])  # fmt: skip
    samples = np.frombuffer(done.stdout, np.float32)
    blocks, rate_hz, at = [], 0, 0
    for match in _BLOCK.findall(done.stderr):
        pts, rate_hz, count = (int(value) for value in match)
        blocks.append((pts, samples[at : at + count]))
        at += count
    return blocks, rate_hz


def beep_times(path: Path) -> list[float]:
    """The onset of each 1 kHz beep, in seconds on the container's clock.

    The sound is laid on the container's clock block by block. The onset is where the strength of
    1 kHz, averaged over one period around each sample, rises through half of its maximum: half of
    that period is silence there and half is beep. Codecs smear the edge evenly, which leaves this
    point where it was (within 1 ms for all codecs of the matrix).
    """
    blocks, rate_hz = sound(path)
    first = min(pts for pts, _ in blocks)
    wave = np.zeros(max(pts + len(block) for pts, block in blocks) - first, np.float32)
    for pts, block in blocks:
        wave[pts - first : pts - first + len(block)] = block
    onsets = _rises(envelope(wave, rate_hz))
    return [float((first + onset) / rate_hz) for onset in onsets]


def envelope(wave: NDArray[np.float32], rate_hz: int) -> NDArray[np.float64]:
    """Strength of 1 kHz around each sample, averaged over one period about it."""
    turn = np.exp(-2j * np.pi * BEEP_HZ * np.arange(len(wave)) / rate_hz)
    window = np.ones(round(rate_hz / BEEP_HZ))
    return np.abs(np.convolve(wave * turn, window / window.sum(), mode="same"))


def _rises(strength: NDArray[np.float64]) -> list[int]:
    """Samples at which the strength rises through half of its maximum after a real silence."""
    peak = strength.max()
    crossings = np.flatnonzero(np.diff((strength > 0.5 * peak).astype(np.int8), prepend=0) == 1)
    silences = np.flatnonzero(strength < 0.1 * peak)
    rises, last = [], -1
    for at in crossings.tolist():
        # A ripple on the edge of a beep crosses twice without a silence between.
        if last < 0 or np.any((silences > last) & (silences < at)):
            rises.append(int(at))
        last = at
    return rises
