"""Fingerprints of two clips -> how far they are apart, and when the one shows what the other does.

Distances are shares of hash bits that differ, 0 for the same and about 0.5 for strangers, at the
best shift of one clip against the other. `sound_distance` is the bit error rate of Haitsma and
Kalker; `motion_correlation`, Pearson's, tells two takes of one scene from one take.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from pipeline.fingerprints import (
    PICTURE_BITS,
    PICTURES_PER_SECOND,
    SOUND_BITS,
    STEPS_PER_SECOND,
    Fingerprint,
    Floats,
    Hashes,
    mirrored,
)

LEAST_OVERLAP = 0.4
"""Of the shorter clip."""
LEAST_PICTURES, LEAST_SOUND_STEPS, LEAST_MOTION_STEPS = 2, 15, 15
"""Fewer that say something are no evidence; that is 1 s, 1.5 s and 1.5 s."""
LEAST_MOTION_OVERLAP = 0.6
"""Of the shorter clip's motion: a second of two people talking may well go together."""
CHANCE_PICTURE, CHANCE_SOUND = 0.3, 0.4
"""Strangers are seldom so close at their best shift; only below does a shift mean something."""
MOTION_SLACK = 3
"""Steps of a tenth of a second by which motion may lie beside the other match."""


@dataclass(frozen=True)
class Distance:
    """Two clips, compared. NaN: one of them has nothing of the kind."""

    picture_distance: float
    """Mean share of the 63 bits of a picture that differ."""
    is_mirrored: bool
    """Whether the pictures are closer when one clip is mirrored."""
    sound_distance: float
    """Share of the sound's bits that differ."""
    motion_correlation: float
    """Of how much the pictures change, by ranks, -1 .. 1. NaN too where it tells nothing more: the
    pictures are not alike, or the sound is."""
    offset_seconds: float
    """What is at time t in the one clip is at t + offset in the other; from the sound, a tenth of
    a second exact, where that is closer than chance, else from the pictures, half a second."""


def distance(one: Fingerprint, other: Fingerprint) -> Distance:
    """Compare two clips at their best shifts."""
    straight = _pictures(one.pictures, other.pictures)
    flipped = _pictures(one.pictures, mirrored(other.pictures))
    pictures, picture_shift = min(straight, flipped)
    sound, sound_shift = _sound(one.sound, other.sound)
    offset = picture_shift / PICTURES_PER_SECOND
    if sound < CHANCE_SOUND:
        offset = sound_shift / STEPS_PER_SECOND
    motion = np.nan
    if pictures < CHANCE_PICTURE and not sound < CHANCE_SOUND:
        motion = _motion(one.motion, other.motion, round(offset * STEPS_PER_SECOND))
    return Distance(
        float(pictures) if np.isfinite(pictures) else np.nan,
        bool(flipped < straight),
        float(sound) if np.isfinite(sound) else np.nan,
        motion,
        float(offset),
    )


def _pictures(one: Hashes, other: Hashes) -> tuple[float, int]:
    """The least mean distance over all shifts, and the shift; infinite where nothing overlaps."""
    if not len(one) or not len(other):
        return np.inf, 0
    differing = np.bitwise_count(one[:, None] ^ other).astype(np.float64) / PICTURE_BITS
    told = (one != 0)[:, None] & (other != 0)
    shifts = np.arange(len(other)) - np.arange(len(one))[:, None] + len(one) - 1
    count = np.bincount(shifts.ravel(), told.ravel())
    total = np.bincount(shifts.ravel(), np.where(told, differing, 0).ravel())
    enough = max(LEAST_PICTURES, LEAST_OVERLAP * min(len(one), len(other)))
    means = np.where(count >= enough, total / np.maximum(count, 1), np.inf)
    best = int(means.argmin())
    return float(means[best]), best - len(one) + 1


def _sound(one: Hashes, other: Hashes) -> tuple[float, int]:
    """The same for sound, all shifts at once by Fourier transforms of the bits as -1 and 1."""
    if not len(one) or not len(other):
        return np.inf, 0
    size = len(one) + len(other) - 1
    a, b = _signs(one), _signs(other)
    agreement = _correlation(a, b, size).sum(0)
    told = _correlation(np.abs(a[:1]), np.abs(b[:1]), size)[0].round()
    enough = max(LEAST_SOUND_STEPS, LEAST_OVERLAP * min(len(one), len(other)))
    rates = np.where(told >= enough, 0.5 - agreement / np.maximum(told, 1) / SOUND_BITS / 2, np.inf)
    best = int(rates.argmin())
    return float(rates[best]), best - len(one) + 1


def _signs(hashes: Hashes) -> Floats:
    """(32, n) of -1 and 1; 0 where a hash says nothing."""
    bits = (hashes >> np.arange(SOUND_BITS, dtype=np.uint64)[:, None]) & np.uint64(1)
    return np.where(hashes == 0, 0, 2.0 * bits - 1).astype(np.float32)


def _correlation(one: Floats, other: Floats, size: int) -> npt.NDArray[np.float64]:
    """Sums of products at every shift of `other`, the most negative first."""
    length = 1 << (size - 1).bit_length()
    spectrum = np.conj(np.fft.rfft(one, length)) * np.fft.rfft(other, length)
    rolled = np.fft.irfft(spectrum, length)
    return np.roll(rolled, one.shape[1] - 1, axis=1)[:, :size]


def _motion(one: Floats, other: Floats, shift: int) -> float:
    """Spearman's correlation near a shift, the highest; NaN where too little moves or overlaps."""
    one, other = rankdata(one), rankdata(other)
    found = []
    enough = max(LEAST_MOTION_STEPS, LEAST_MOTION_OVERLAP * min(len(one), len(other)))
    for near in range(shift - MOTION_SLACK, shift + MOTION_SLACK + 1):
        a = one[max(0, -near) : len(other) - near if near <= len(other) else 0]
        b = other[max(0, near) :]
        length = min(len(a), len(b))
        if length >= enough:
            a, b = a[:length] - a[:length].mean(), b[:length] - b[:length].mean()
            if scale := np.sqrt((a @ a) * (b @ b)):
                found.append(float(a @ b / scale))
    return max(found, default=np.nan)
