"""`pipeline offsets OUT`: by how much sound and picture of each clip are apart, as an estimate.

Cross-correlation of what is seen with what is heard, at shifts of up to a second:

    mouth    how far the lips are open against the loudness of the voice, where landmarks are stored
    motion   how much the picture changes against how much the sound does (spectral flux)

    OUT/quality/av_offsets.parquet, columns for `--where`:
    av_offset_seconds        positive: the sound is late
    av_offset_correlation    of the two at that shift, -1 .. 1
    av_offset_peak_ratio     the highest peak over the next one; near 1 the estimate says nothing
    av_offset_from           mouth or motion; null where there is nothing to compare

It is a fact with an error, and where nothing moves with the sound (music over a landscape, a voice
off screen) a wrong one: `abs(av_offset_seconds) > 0.2 and av_offset_peak_ratio > 1.5` looks for
clips that are out of step, not `av_offset_seconds != 0`. Measured on 120 GRID sentences of 3 s with
sound shifted by 0, 0.2 and -0.32 s: within 0.12 s of the truth for 59, 69 and 50 % of them by mouth
(74, 84 and 69 % of those with a ratio of 1.5 or more), for 25 to 29 % by motion; chance is 12 %. A
single clip's estimate is a hint; the median over a source's clips is worth more.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.check import UNREADABLE
from pipeline.fingerprints import lumas_of
from pipeline.format import MEL_SLICES_PER_FRAME, FormatError, decode_meta, decode_npy
from pipeline.mel import slaney_centres_mel
from pipeline.outputs import Outputs, Place
from pipeline.prints import write_quality
from pipeline.units import counted
from pipeline.view import facts_of
from selection.facts import shard_hashes

FILE = "av_offsets.parquet"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("av_offset_seconds", pa.float32()),
        ("av_offset_correlation", pa.float32()),
        ("av_offset_peak_ratio", pa.float32()),
        ("av_offset_from", pa.string()),
    ]
)
MAX_OFFSET_SECONDS = 1.0
LEAST_SECONDS = 2.0
"""Of clips that are estimated."""
TREND_SECONDS = 1.0
"""What changes more slowly than this is taken away: light, loudness of a phrase."""
BLUR_SECONDS = 0.08
PEAK_SECONDS = 0.2
"""The next peak is looked for so far from the highest one."""
LEAST_FACES = 0.8
"""Share of pictures with landmarks for `mouth`."""
VOICE_MEL = (3.0, 33.0)
"""200 Hz to 3.4 kHz in Slaney's mel."""
UPPER_LIP, LOWER_LIP, NOSE_BRIDGE, CHIN = 62, 66, 27, 8
"""Of the 68 landmarks."""

Signal = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Of one clip."""

    seconds: float
    correlation: float
    peak_ratio: float


def offsets(out: Path) -> list[str]:
    """Estimate all clips of a finished set, write the table, and say what came out.

    Raises:
        NotFinishedError, UsageError, FormatError: the set is not finished, cannot be written to, or
            cannot be read.
    """
    outputs = Outputs(out)
    bases = shard_hashes(outputs.index())
    places = facts_of(out, ("shard", "offset", "size")).table.to_pylist()
    rows = [_row(outputs, Place(**place)) for place in places]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    write_quality(out, FILE, table, bases, SCHEMA.names[1:])
    ways = Counter(row["av_offset_from"] or "nothing to compare" for row in rows)
    told = ", ".join(f"{count:,} by {way}" for way, count in ways.most_common())
    return [f"{out}: {counted(len(rows), 'clip')}: {told}", f"Table: {out / 'quality' / FILE}"]


def _row(outputs: Outputs, place: Place) -> dict[str, Any]:
    try:
        members = outputs.read_members(place)
        found, way = estimate(decode_meta(members), members)
    except UNREADABLE as error:
        raise FormatError(
            f"{place.key} in {outputs.tar_path(place.shard)} cannot be read ({error}); `python -m "
            f"pipeline verify {outputs.out}` says what to do"
        ) from error
    if found is None:
        return {"key": place.key, "av_offset_from": None}
    return {
        "key": place.key,
        "av_offset_seconds": found.seconds,
        "av_offset_correlation": found.correlation,
        "av_offset_peak_ratio": found.peak_ratio,
        "av_offset_from": way,
    }


def estimate(meta: Mapping[str, Any], members: Mapping[str, bytes]) -> tuple[Estimate | None, str]:
    """By how much the sound of a sample is late, and what says so; None where nothing does."""
    if not members.get("mel.npy") or not meta["jpeg_sizes"].get("frames"):
        return None, ""
    fps = Fraction(meta["fps"])
    rate = float(fps) * MEL_SLICES_PER_FRAME
    mel = decode_npy(members["mel.npy"]).astype(np.float64)
    times = (np.arange(mel.shape[1]) + 0.5) / rate
    opening = _opening(members)
    if opening is not None:
        seen = np.interp(times, (np.arange(len(opening)) + 0.5) / float(fps), opening)
        return shift_of(seen, _voice(mel, meta["mel_rate_hz"]), rate), "mouth"
    change = np.abs(np.diff(lumas_of(meta, members, fps), axis=0)).mean((1, 2))
    if not len(change):
        return None, ""
    seen = np.interp(times, (np.arange(len(change)) + 1) / float(fps), np.sqrt(change))
    return shift_of(seen, _flux(mel), rate), "motion"


def shift_of(seen: Signal, heard: Signal, rate: float) -> Estimate | None:
    """The shift at which two signals go together best.

    Args:
        seen: what the picture does.
        heard: what the sound does, of the same length.
        rate: values a second.

    Returns:
        The estimate; None where a signal is too short, or constant.
    """
    if len(seen) < LEAST_SECONDS * rate:
        return None
    a, b = (_without_trend(_blurred(signal, rate), rate) for signal in (seen, heard))
    if not a.std() > 1e-9 or not b.std() > 1e-9:
        return None
    most = min(int(MAX_OFFSET_SECONDS * rate), len(a) // 2)
    curve = np.array([_correlation(a, b, lag) for lag in range(-most, most + 1)])
    best = int(curve.argmax())
    near = round(PEAK_SECONDS * rate)
    others = np.concatenate([curve[: max(0, best - near)], curve[best + near + 1 :]])
    next_peak = max(float(others.max(initial=0.0)), 1e-3)
    seconds = (best - most + _between(curve, best)) / rate
    return Estimate(seconds, float(curve[best]), float(max(curve[best], 0.0) / next_peak))


def _correlation(seen: Signal, heard: Signal, lag: int) -> float:
    """Pearson's, of what is seen and what is heard `lag` values later."""
    a = seen[max(0, -lag) : len(seen) - max(0, lag)]
    b = heard[max(0, lag) : len(heard) - max(0, -lag)]
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 1e-12 else 0.0


def _between(curve: Signal, best: int) -> float:
    """Where the top of a parabola through the highest value and its neighbours is, -0.5 .. 0.5."""
    if not 0 < best < len(curve) - 1:
        return 0.0
    left, top, right = curve[best - 1 : best + 2]
    bend = left - 2 * top + right
    return float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _blurred(signal: Signal, rate: float) -> Signal:
    width = max(1, round(BLUR_SECONDS * rate))
    window = np.hanning(width + 2)[1:-1]
    return np.asarray(np.convolve(signal, window / window.sum(), "same"), np.float64)


def _without_trend(signal: Signal, rate: float) -> Signal:
    width = max(3, round(TREND_SECONDS * rate))
    ones = np.ones(width)
    trend = np.convolve(signal, ones, "same") / np.convolve(np.ones(len(signal)), ones, "same")
    rest = signal - trend
    limit = 4 * rest.std()
    return np.asarray(
        np.clip(rest, -limit, limit)
    )  # a cut to another scene is one change among many


def _opening(members: Mapping[str, bytes]) -> Signal | None:
    """How far the lips are open, of the length of the face; None where no face is followed."""
    if not members.get("landmarks.npy"):
        return None
    points = decode_npy(members["landmarks.npy"]).astype(np.float64)
    seen = np.isfinite(points).all((1, 2))
    if not len(points) or seen.mean() < LEAST_FACES:
        return None
    lips = np.linalg.norm(points[:, UPPER_LIP] - points[:, LOWER_LIP], axis=1)
    face = np.linalg.norm(points[:, NOSE_BRIDGE] - points[:, CHIN], axis=1)
    ticks = np.arange(len(points))
    return np.asarray(np.interp(ticks, ticks[seen], (lips / np.maximum(face, 1.0))[seen]))


def _voice(mel: Signal, rate_hz: int) -> Signal:
    """Loudness of the bands of the voice, in log power."""
    centres = slaney_centres_mel(rate_hz)
    inside = (centres >= VOICE_MEL[0]) & (centres <= VOICE_MEL[1])
    return np.asarray(mel[inside].mean(0))


def _flux(mel: Signal) -> Signal:
    """How much the bands change from the slice before and to the one after, as pictures do."""
    change = np.abs(np.diff(mel, axis=1)).mean(0)
    return np.asarray(0.5 * (np.append(change, 0.0) + np.insert(change, 0, 0.0)))
