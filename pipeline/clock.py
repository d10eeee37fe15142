"""One clock for picture, sound and mel: the rational time grid of a sample (architecture §4).

Interval k of a sample is `[t0 + k/fps, t0 + (k+1)/fps)`. Its picture is the frame on screen at the
middle of the interval, its sound three mel slices that tile it. All times are Fractions in seconds
on the container's clock, so nothing drifts and nothing depends on the machine.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, lcm

from pipeline.errors import ClipError, Reason

TOLERANCE_SECONDS = Fraction(1, 1000)


@dataclass(frozen=True)
class Window:
    """One row's stretch of its file, on the container's clock."""

    start: Fraction
    """Seconds; the file's earliest stream start plus the row's `start_s`."""
    end: Fraction | None
    """Seconds; None = to the end of the streams."""
    anchored: bool
    """Whether the grid starts exactly at `start` (labels in time, benchmarks)."""


@dataclass(frozen=True)
class Extent:
    """Where a stream begins and ends, in seconds on the container's clock."""

    start: Fraction
    end: Fraction


@dataclass(frozen=True)
class Grid:
    """The time grid of one sample."""

    t0: Fraction
    """Seconds on the container's clock."""
    fps: Fraction
    """Intervals a second."""
    frames: int
    """T, the number of intervals."""

    @property
    def end(self) -> Fraction:
        """Where the last interval ends."""
        return self.t0 + self.frames / self.fps

    def deadlines(self, time_base: Fraction) -> list[int]:
        """For each interval the last pts, in units of `time_base`, its picture may have."""
        first = (self.t0 + 1 / (2 * self.fps)) / time_base
        step = 1 / (self.fps * time_base)
        unit = lcm(first.denominator, step.denominator)  # whole numbers are 20 times faster
        begin, increment = int(first * unit), int(step * unit)
        return [(begin + k * increment) // unit for k in range(self.frames)]


def grid_for(
    window: Window,
    fps: Fraction,
    *,
    video: Extent | None,
    audio: Extent | None,
    picture_times: Sequence[Fraction] = (),
    time_base: Fraction,
) -> Grid:
    """Lay the grid of a window over the streams that are there.

    An unanchored grid starts at the first picture that is not before either stream and ends with
    the earlier stream; an anchored one is the window itself, or ends with the video (the sound
    where there is no video) if the window is open.

    Args:
        window: the row's window.
        fps: intervals a second.
        video: the video's extent, None if the clip has none.
        audio: the sound's extent, None if the clip has none.
        picture_times: sorted times of all pictures, seconds.
        time_base: unit of the pts; a grid may overhang the end by the rounding of one unit.

    Raises:
        ClipError: `too_short` if not even one interval fits.
    """
    t0 = window.start if window.anchored else _unanchored_start(window, video, audio, picture_times)
    ends = [extent.end for extent in (video, audio) if extent is not None]
    if window.anchored:
        end = window.end if window.end is not None else ends[0]
    else:
        end = min([*ends, *([window.end] if window.end is not None else [])])
    if all(extent.end <= t0 or extent.start >= end for extent in (video, audio) if extent):
        detail = f"the window from {float(t0):.2f} to {float(end):.2f} s lies outside of the file"
        raise ClipError(Reason.TOO_SHORT, detail, "sample")
    frames = floor((end - t0) * fps + max(TOLERANCE_SECONDS, fps * time_base))
    if frames < 1:
        raise ClipError(
            Reason.TOO_SHORT, f"{max(float(end - t0), 0.0):.3f} s of picture and sound", "sample"
        )
    return Grid(t0, fps, frames)


def _unanchored_start(
    window: Window, video: Extent | None, audio: Extent | None, picture_times: Sequence[Fraction]
) -> Fraction:
    """The first picture at or after both stream starts and the window's start."""
    earliest = max([window.start, *(e.start for e in (video, audio) if e is not None)])
    if video is None:
        return earliest
    first = bisect_left(picture_times, earliest)
    if first == len(picture_times):
        seen = f"the last picture is at {float(video.end):.2f} s of the container's clock"
        detail = f"no picture from {float(earliest):.2f} s on: {seen}"
        raise ClipError(Reason.TOO_SHORT, detail, "sample")
    return picture_times[first]
