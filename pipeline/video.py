"""Pictures by timestamps: packets -> the picture on screen at the middle of each grid interval.

The times of all pictures are known from the packets before anything is decoded, so a decoder may
skip the pictures that nothing refers to and no interval wants: bit-equal to decoding everything,
and about a quarter cheaper on H.264 with B-frames (measurements.md §0).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import ceil
from statistics import median_low
from typing import Any

import av.error

from pipeline.clock import Extent, Grid
from pipeline.errors import ClipError, Reason
from pipeline.frame import Frame, Orientation, display_orientation
from pipeline.media import Packets

SKIPPING_CODECS = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"})
"""Codecs whose decoders skip non-reference pictures exactly."""

_FIELD_ORDER_UNKNOWN, _PROGRESSIVE = 0, 1  # AVFieldOrder


@dataclass(frozen=True)
class Timeline:
    """When each picture of a stretch is on screen, before decoding it."""

    time_base: Fraction
    """Seconds of one pts unit."""
    pts: list[int]
    """Sorted pts of all pictures, in units of the time base."""
    last_duration: int
    """How long the last picture stays, in units of the time base."""
    by_order: bool
    """True if the decoder's own timestamps cannot be trusted: picture n then has `pts[n]`."""

    @property
    def extent(self) -> Extent:
        """From the first picture to the end of the last."""
        end = (self.pts[-1] + self.last_duration) * self.time_base
        return Extent(self.pts[0] * self.time_base, end)

    @cached_property
    def times(self) -> list[Fraction]:
        """`pts` in seconds."""
        return [pts * self.time_base for pts in self.pts]

    @property
    def is_variable(self) -> bool:
        """Whether the intervals between pictures differ by more than rounding of the container."""
        steps = [b - a for a, b in pairwise(self.pts)]
        return bool(steps) and (max(steps) - min(steps)) * self.time_base > Fraction(1, 400)

    def wanted(self, grids: Sequence[Grid]) -> set[int] | None:
        """The pts of the pictures that are on screen at the middle of some interval.

        None if packets cannot be told apart by their pts: then all must be decoded.
        """
        if self.by_order:
            return None
        return {pts for grid in grids for pts in self.on_screen(grid)}

    def since(self, pts: int) -> "Timeline":
        """Without the pictures before `pts`."""
        return replace(self, pts=self.pts[bisect_left(self.pts, pts) :] or self.pts[-1:])

    def on_screen(self, grid: Grid) -> list[int]:
        """The pts of the picture at the middle of each interval, if all can be decoded."""
        deadlines = grid.deadlines(self.time_base)
        return [self.pts[max(bisect_right(self.pts, last) - 1, 0)] for last in deadlines]


class LostHeadError(Exception):
    """Pictures before the first one that could be decoded are needed.

    A recording that was begun, or cut without decoding, between two key pictures has packets of
    pictures that nobody can decode; so has one whose first key picture is damaged.
    """

    def __init__(self, pts: int) -> None:
        """`pts` of the first decoded picture, in units of the time base."""
        super().__init__(pts)
        self.pts = pts


@dataclass(frozen=True)
class Shown:
    """One interval's picture."""

    grid: int
    """Which of the grids."""
    k: int
    """Which interval."""
    frame: Frame
    """The picture; the same object while it stays on screen."""
    pts: int
    """Its pts, in units of the time base."""


def timeline(packets: Packets) -> Timeline:
    """When the pictures of a stretch are shown.

    Containers that store no presentation times per picture (AVI, and program streams that give one
    a few pictures) are decoded once to learn them.

    Raises:
        ClipError: `decode_error` if there is no picture at all.
    """
    kept = [packet for packet in packets.packets if not packet.is_discard]
    stamps = [packet.pts for packet in kept]
    avi = packets.stream.container.format.name == "avi"
    if not stamps:
        raise ClipError(Reason.DECODE_ERROR, "the video stream has no packets", "video")
    if avi or None in stamps or len(set(stamps)) < len(stamps):
        return _timeline_by_decoding(packets)
    last = max(kept, key=lambda packet: packet.pts)
    ordered = sorted(stamps)
    duration = last.duration or _median_step(ordered)
    return Timeline(packets.stream.time_base, ordered, duration, by_order=False)


def _timeline_by_decoding(packets: Packets) -> Timeline:
    """Decode everything for its times; dts order where pts go backwards (packed B-frames)."""
    decoder = Decoder(packets)
    frames = [(frame.pts, frame.dts) for frame in decoder.frames()]
    if not frames:
        raise nothing_decoded(decoder)
    pts = [stamp for stamp, _ in frames]
    if None in pts or any(b <= a for a, b in pairwise(pts)):
        pts = _rising([dts if dts is not None else stamp for stamp, dts in frames], packets.stream)
    return Timeline(packets.stream.time_base, pts, _median_step(pts), by_order=True)


def _rising(stamps: list[int | None], stream: Any) -> list[int]:
    """Strictly rising times from imperfect ones; a missing one follows at the nominal rate."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = max(1, round(1 / (rate * stream.time_base)))
    rising: list[int] = []
    for stamp in stamps:
        least = rising[-1] + 1 if rising else None
        follow = rising[-1] + step if rising else stream.start_time or 0
        value = stamp if stamp is not None else follow
        rising.append(value if least is None or value >= least else follow)
    return rising


def _median_step(ordered: list[int]) -> int:
    """The usual time a picture stays, in units of the time base."""
    steps = [b - a for a, b in pairwise(ordered)]
    return median_low(steps) if steps else 0


class Decoder:
    """Decodes packets one by one, past bad ones, skipping what is not wanted."""

    def __init__(
        self,
        packets: Packets,
        wanted: set[int] | None = None,
        *,
        max_pixels: int | None = None,
        uses_up: bool = False,
    ) -> None:
        """Set up one pass over the packets.

        Args:
            packets: what to decode.
            wanted: pts of the pictures needed; None = all.
            max_pixels: largest picture accepted, as sizes may change in mid-stream; None = any.
            uses_up: let go of each packet once it is decoded, so that the memory of a long stretch
                does not hold both what goes in and what comes out.
        """
        self.decoded = 0
        """Pictures that came out so far."""
        self.bad = packets.bad
        """Packets that could not be decoded so far, and pictures that came out damaged."""
        self.given = len(packets.packets)
        """Packets there were to decode."""
        self._packets = packets
        self._uses_up = uses_up
        self._context = packets.stream.codec_context
        self._wanted = wanted if self._skips_exactly() else None
        self._max_pixels = max_pixels

    def _skips_exactly(self) -> bool:
        """Fields of interlaced video are packets of their own but no pictures of their own."""
        progressive = int(self._context.field_order) in (_FIELD_ORDER_UNKNOWN, _PROGRESSIVE)
        return self._context.name in SKIPPING_CODECS and progressive

    @property
    def sample_aspect_ratio(self) -> Fraction | None:
        """Width over height of a coded pixel; the container's word counts before the codec's."""
        ratio: Fraction | None = self._packets.stream.sample_aspect_ratio
        return ratio or self._context.sample_aspect_ratio

    def frames(self) -> Iterator[Any]:
        """Decoded av frames in display order.

        Raises:
            ClipError: `too_large` for a picture over the limit.
        """
        if self._context.is_open:
            self._context.flush_buffers()
        for packet in self._fed():
            if self._wanted is not None and packet is not None:
                skip = packet.pts not in self._wanted
                self._context.skip_frame = "NONREF" if skip else "DEFAULT"
            for picture in self._decode(packet):
                self._check_size(picture)
                self.decoded += 1
                self.bad += picture.is_corrupt
                yield picture

    def _fed(self) -> Iterator[Any]:
        """The packets in order, then None, which asks for the last pictures."""
        packets = self._packets.packets
        for number in range(self.given):
            yield packets[number]
            if self._uses_up:
                packets[number] = None
        yield None

    def _decode(self, packet: Any) -> list[Any]:
        try:
            pictures: list[Any] = self._context.decode(packet)
            return pictures
        except av.error.MemoryError:
            raise
        except av.error.ArgumentError as error:
            if not self._context.width:  # libav forgets the size of pictures over its limit
                raise self._refused_size() from error
            self.bad += packet is not None
            return []
        except av.error.FFmpegError:
            self.bad += packet is not None
            return []

    def _refused_size(self) -> ClipError:
        detail = "the decoder refuses the size of its pictures as over the limit"
        return ClipError(Reason.TOO_LARGE, detail, "video")

    def _check_size(self, picture: Any) -> None:
        if self._max_pixels is not None and picture.width * picture.height > self._max_pixels:
            size = f"{picture.width}x{picture.height}"
            raise ClipError(Reason.TOO_LARGE, f"a picture of {size} in the stream", "video")


def show(decoder: Decoder, line: Timeline, grids: Sequence[Grid]) -> Iterator[Shown]:
    """The picture of every interval of every grid, in order of time.

    An interval before the first picture shows the first one, an interval after the last one the
    last; whether that is `held` is the caller's to say (`held_intervals`).

    Args:
        decoder: a fresh pass over the stretch of video.
        line: its timeline.
        grids: the windows' grids.

    Raises:
        LostHeadError: before anything is shown; lay the grids again, on `line.since(pts)`.
    """
    aspect = decoder.sample_aspect_ratio
    waiting = [_Waiting(index, grid.deadlines(line.time_base)) for index, grid in enumerate(grids)]
    current: tuple[Frame, int] | None = None
    orientation: Orientation | None = None
    for count, picture in enumerate(decoder.frames()):
        pts = line.pts[min(count, len(line.pts) - 1)] if line.by_order else picture.pts
        orientation = orientation or display_orientation(picture)
        frame = Frame(picture, aspect, orientation)
        if current is None:
            _check_head(pts, line, grids)
            current = (frame, pts)
        for queue in waiting:
            yield from queue.before(pts, *current)
        current = (frame, pts)
    if current is not None:
        for queue in waiting:
            yield from queue.before(None, *current)


def _check_head(pts: int, line: Timeline, grids: Sequence[Grid]) -> None:
    if not line.by_order and pts > min(line.on_screen(grid)[0] for grid in grids):
        raise LostHeadError(pts)


class _Waiting:
    """The intervals of one grid that have no picture yet."""

    def __init__(self, grid: int, deadlines: list[int]) -> None:
        self._grid = grid
        self._deadlines = deadlines
        self._next = 0

    def before(self, pts: int | None, frame: Frame, frame_pts: int) -> Iterator[Shown]:
        """The intervals whose middle passes before the next picture's pts (None = no more)."""
        while self._next < len(self._deadlines):
            if pts is not None and self._deadlines[self._next] >= pts:
                return
            yield Shown(self._grid, self._next, frame, frame_pts)
            self._next += 1


def held_intervals(grid: Grid, extent: Extent, time_base: Fraction) -> list[int]:
    """The intervals of a grid that lie before the first or after the last picture."""
    first = extent.start // time_base
    ended = ceil((extent.end - grid.t0) * grid.fps)
    deadlines = enumerate(grid.deadlines(time_base))
    return [k for k, last in deadlines if last < first or k >= ended]


def nothing_decoded(decoder: Decoder) -> ClipError:
    """The error of a stream of which not one picture came out."""
    detail = f"not one of {decoder.given} video packets could be decoded ({decoder.bad} refused)"
    return ClipError(Reason.DECODE_ERROR, detail, "video")
