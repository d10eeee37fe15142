"""A clip in a few hundred bytes that survive rescaling, recompression, gain and small crops.

    pictures  two a second: the signs of the 63 lowest frequencies of the cosine transform of the
              32x32 luma inside black borders (Zauner, Implementation and Benchmarking of Perceptual
              Image Hash Functions, 2010; signs instead of the median, so that a mirrored picture
              has the same hash but for every odd horizontal frequency)
    sound     ten a second: the signs of how the energy differences of 33 neighbouring bands between
              300 Hz and 4 kHz change in time (Haitsma, Kalker, A Highly Robust Audio Fingerprinting
              System, ISMIR 2002), from the stored mel instead of a spectrum of their own
    motion    ten a second: how much the 32x32 picture has changed; tells two takes of one scene
              apart, which look alike

A stretch that says nothing (a flat picture, silence) has the hash 0, which takes no part in
anything. Computed from what shards store: no source file is opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from pipeline.format import MEL_SLICES_PER_FRAME, decode_npy, split_jpegs
from pipeline.mel import slaney_centres_mel

PICTURES_PER_SECOND = 2
STEPS_PER_SECOND = 10
"""Of sound and motion."""
SIDE = 32
FREQUENCIES = 8
"""Of the cosine transform, each way; the constant one is left out."""
PICTURE_BITS = FREQUENCIES**2 - 1
SOUND_BITS = 32
BORDER_LUMA = 24
"""A row or column that is never brighter, in any picture, is border."""
LEAST_CONTENT = 0.4
"""Of each side; a clip that is darker than that has no border."""
LEAST_DETAIL = 4.0
"""Standard deviation of luma below which a picture says nothing."""
MEL_RANGE = (4.5, 35.16)
"""300 Hz and 4 kHz in mel (Slaney)."""
SOUND_WINDOW_SECONDS = 0.4
LEAST_LOG_MEL = -9.0
"""Sound all of whose bands are below says nothing; digital silence is log(1e-5) = -11.5."""

Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fingerprint:
    """What is compared of a clip."""

    pictures: Hashes
    """Two a second; 0: flat."""
    sound: Hashes
    """Ten a second; 0: silence. Empty where no mel is stored."""
    motion: Floats
    """Ten a second."""


def fingerprint(meta: Mapping[str, Any], members: Mapping[str, bytes]) -> Fingerprint:
    """Of one sample.

    Args:
        meta: its JSON.
        members: by extension; `frames.mjpeg` and `mel.npy` are looked at.
    """
    lumas = lumas_of(meta, members, STEPS_PER_SECOND)
    every = STEPS_PER_SECOND // PICTURES_PER_SECOND
    mel = members.get("mel.npy")
    return Fingerprint(
        pictures=picture_hashes(lumas[every // 2 :: every]),
        sound=_sound_of(meta, mel) if mel else np.zeros(0, np.uint64),
        motion=np.abs(np.diff(lumas, axis=0)).mean((1, 2)),
    )


# --- pictures ---------------------------------------------------------------------------------


def lumas_of(
    meta: Mapping[str, Any], members: Mapping[str, bytes], steps_per_second: Fraction | int
) -> Floats:
    """(steps, 32, 32): so many pictures a second, small and without black borders."""
    import cv2

    sizes = meta["jpeg_sizes"].get("frames")
    if not sizes:
        return np.zeros((0, SIDE, SIDE), np.float32)
    jpegs = split_jpegs(members["frames.mjpeg"], sizes)
    fps = Fraction(meta["fps"])
    count = max(1, int(len(jpegs) * steps_per_second / fps))
    ticks = [min(int((step + Fraction(1, 2)) * fps / steps_per_second), len(jpegs) - 1)
             for step in range(count)]  # fmt: skip
    gray = {tick: _gray(jpegs[tick] or b"") for tick in set(ticks)}
    box = content_box(np.max(list(gray.values()), axis=0))
    small = {
        tick: cv2.resize(picture[box], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for tick, picture in gray.items()
    }
    return np.stack([small[tick] for tick in ticks]).astype(np.float32)


def _gray(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Luma, at half size where that is large enough: the decoder gives it for less."""
    picture = simplejpeg.decode_jpeg(jpeg, "GRAY", min_height=2 * SIDE, min_width=2 * SIDE)
    return np.asarray(picture[:, :, 0])


def content_box(brightest: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """Rows and columns inside of black borders.

    Args:
        brightest: the largest luma of every pixel over all pictures.
    """
    spans = []
    for axis in (1, 0):
        bright = np.flatnonzero(np.quantile(brightest, 0.9, axis=axis) > BORDER_LUMA)
        length = brightest.shape[1 - axis]
        whole = not len(bright) or bright[-1] + 1 - bright[0] < LEAST_CONTENT * length
        spans.append(slice(0, length) if whole else slice(int(bright[0]), int(bright[-1]) + 1))
    return spans[0], spans[1]


def picture_hashes(lumas: Floats) -> Hashes:
    """One hash a picture (n, 32, 32): bit 8 r + c is the sign of frequency (r, c)."""
    low = _cosines() @ lumas @ _cosines().T
    bits = (low > 0).reshape(len(lumas), FREQUENCIES**2)
    bits[:, 0] = False
    hashes = _packed(bits)
    return np.where(lumas.std((1, 2)) < LEAST_DETAIL, np.uint64(0), hashes)


def _cosines() -> Floats:
    """(8, 32): the lowest rows of the cosine transform (DCT-II)."""
    places = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    return np.cos(np.arange(FREQUENCIES)[:, None] * places).astype(np.float32)


MIRRORED = np.uint64(sum(1 << bit for bit in range(FREQUENCIES**2) if bit % 2))
"""Bits of odd horizontal frequencies, which change their sign when a picture is mirrored."""


def mirrored(hashes: Hashes) -> Hashes:
    """The hashes of the mirrored pictures."""
    return np.where(hashes == 0, np.uint64(0), hashes ^ MIRRORED)


# --- sound ------------------------------------------------------------------------------------


def _sound_of(meta: Mapping[str, Any], mel: bytes) -> Hashes:
    slices_per_second = float(Fraction(meta["fps"])) * MEL_SLICES_PER_FRAME
    return sound_hashes(decode_npy(mel).astype(np.float32), slices_per_second, meta["mel_rate_hz"])


def sound_hashes(mel: Floats, slices_per_second: float, rate_hz: int) -> Hashes:
    """Ten hashes a second.

    Args:
        mel: (80, slices) natural logarithm of power.
        slices_per_second: of `mel`.
        rate_hz: of the waveform that it is of; says where its bands are.
    """
    steps = int(mel.shape[1] * STEPS_PER_SECOND / slices_per_second)
    if steps < 2:
        return np.zeros(0, np.uint64)
    bands = _bands(rate_hz) @ mel
    smooth = _smoothed(bands, slices_per_second, steps)
    slope = np.diff(smooth, axis=0)
    change = np.diff(slope, axis=1, prepend=slope[:, :1])
    change[:, 0] = change[:, 1]
    hashes = _packed((change > 0).T)
    silent = smooth.max(0) < LEAST_LOG_MEL
    return np.where(silent, np.uint64(0), hashes)


def _bands(rate_hz: int) -> Floats:
    """(33, 80): weights that read a log-mel spectrum at 33 places, evenly spaced in mel."""
    centres = slaney_centres_mel(rate_hz)
    places = np.linspace(*MEL_RANGE, SOUND_BITS + 1)
    one_band = np.eye(len(centres))
    return np.stack([np.interp(places, centres, row) for row in one_band], 1).astype(np.float32)


def _smoothed(bands: Floats, slices_per_second: float, steps: int) -> Floats:
    """(33, steps): Hann-weighted means over SOUND_WINDOW_SECONDS around the middle of each step."""
    times = (np.arange(bands.shape[1]) + 0.5) / slices_per_second
    middles = (np.arange(steps) + 0.5) / STEPS_PER_SECOND
    away = (times[:, None] - middles) / SOUND_WINDOW_SECONDS
    weights = np.where(np.abs(away) < 0.5, 0.5 + 0.5 * np.cos(2 * np.pi * away), 0.0)
    return np.asarray(bands @ (weights / weights.sum(0)), np.float32)


def _packed(bits: npt.NDArray[np.bool_]) -> Hashes:
    """(n, up to 64) bits as one number each, the first bit the lowest; never 0."""
    values = np.uint64(1) << np.arange(bits.shape[1], dtype=np.uint64)
    hashes = np.where(bits, values, np.uint64(0)).sum(1, dtype=np.uint64)
    return np.where(hashes == 0, np.uint64(2), hashes)
