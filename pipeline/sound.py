"""Sound by timestamps: packets -> one waveform on the container's clock -> windows of it.

Blocks are placed where their timestamps say; gaps are zeros and are remembered. Only then is the
whole stretch resampled, so that a window is exact to half a source sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, inf
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
import soxr

from pipeline.clock import Extent, Grid
from pipeline.errors import ClipError, Reason
from pipeline.media import Packets

JUMP_SECONDS = 0.020
"""A block this far from where the last one ended starts anew; nearer it is timestamp rounding
(Matroska rounds to 1 ms, and following that would click)."""
DRIFT_SECONDS = 0.002
"""A lasting offset above this is followed too."""
DRIFT_BLOCKS = 16
"""Blocks over which an offset counts as lasting."""
MIN_GAP_SECONDS = 0.001
MARGIN_SECONDS = Fraction(1, 4)
"""Sound read before and after a window: the outer mel slices and filters look at some of it."""

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sound:
    """A waveform on the container's clock."""

    rate_hz: int
    """Source samples a second."""
    first: int
    """Index of the first sample: its time is `first / rate_hz` seconds."""
    samples: Wave
    """(samples, channels) in -1 .. 1, zeros in the gaps."""
    gaps: tuple[tuple[int, int], ...]
    """Sample ranges [a, b), in the same count as `first`, where there is no sound."""
    bad_packets: int
    """Packets that could not be decoded."""

    @property
    def extent(self) -> Extent:
        """From the first to the last sample."""
        last = self.first + len(self.samples)
        return Extent(Fraction(self.first, self.rate_hz), Fraction(last, self.rate_hz))

    def cut(self, grid: Grid, rate_hz: int, margin: int) -> Wave:
        """The sound under a grid at another rate, with `margin` samples more on either side.

        Returns:
            (margin + T x rate / fps + margin, channels); real sound where the file has it, zeros
            elsewhere. Sample `margin` is at t0, to half a source sample.
        """
        wanted = int(grid.frames * rate_hz / grid.fps) + 2 * margin
        begin = round((grid.t0 - Fraction(margin, rate_hz)) * self.rate_hz)
        source = self.piece(begin, begin + ceil(Fraction(wanted * self.rate_hz, rate_hz)) + 1)
        if rate_hz != self.rate_hz:
            source = soxr.resample(source, self.rate_hz, rate_hz, quality="HQ")
        cut = np.zeros((wanted, source.shape[1]), np.float32)
        cut[: len(source)] = source[:wanted]
        return cut

    def missing(self, grid: Grid) -> list[list[float]]:
        """Stretches of the grid without sound, as [start, end] seconds from t0."""
        begin, end = (floor(t * self.rate_hz) for t in (grid.t0, grid.end))
        last = self.first + len(self.samples)
        holes = [(begin, min(self.first, end)), *self.gaps, (max(last, begin), end)]
        clipped = [(max(a, begin), min(b, end)) for a, b in holes]
        shortest = MIN_GAP_SECONDS * self.rate_hz
        return [
            [round((a - begin) / self.rate_hz, 6), round((b - begin) / self.rate_hz, 6)]
            for a, b in clipped
            if b - a >= shortest
        ]

    def piece(self, begin: int, end: int) -> Wave:
        """Samples [begin, end), zeros outside of what there is."""
        piece = np.zeros((end - begin, self.samples.shape[1]), np.float32)
        a, b = max(begin, self.first), min(end, self.first + len(self.samples))
        if b > a:
            piece[a - begin : b - begin] = self.samples[a - self.first : b - self.first]
        return piece


def decode_sound(
    packets: Packets, channels: int, start: Fraction, end: Fraction | None
) -> Sound | None:
    """Decode a stretch of sound; None if not a single block could be decoded.

    Args:
        packets: the stream's packets, from before `start` on.
        channels: 1 = the mean of all channels, 2 = stereo.
        start: seconds on the container's clock; blocks that end before are dropped.
        end: blocks that start after are dropped; None keeps all.

    Raises:
        ClipError: `decode_error` if the sampling rate changes or the timestamps run backwards.
    """
    blocks = _Blocks(packets, channels, start)
    placed: list[tuple[int, Wave]] = []
    rate_hz = 0
    for at, rate, wave in blocks:
        if rate_hz and rate != rate_hz:
            raise ClipError(
                Reason.DECODE_ERROR, f"the sampling rate changes from {rate_hz} to {rate}", "audio"
            )
        rate_hz = rate
        placed.append((at, wave))
    begin, until = floor(start * rate_hz), inf if end is None else ceil(end * rate_hz)
    placed = [(at, wave) for at, wave in placed if at + len(wave) > begin and at < until]
    return _join(placed, rate_hz, blocks.bad) if placed else None


class _Blocks:
    """Decoded blocks as (index of the first sample, rate, waveform), placed by timestamp."""

    def __init__(self, packets: Packets, channels: int, start: Fraction) -> None:
        self.bad = packets.bad
        self._packets = packets
        self._start = start
        self._channels = channels
        self._to_stereo: Any = None
        self._expected: int | None = None
        self._drift = 0.0

    def __iter__(self) -> Iterator[tuple[int, int, Wave]]:
        """Decode the packets in order."""
        for frame in self._frames():
            at = self._place(frame)
            if at is None:
                self.bad += 1  # a first block without a time can be placed nowhere
                continue
            wave = self._waveform(frame)
            self._expected = at + len(wave)
            yield at, frame.sample_rate, wave

    def _place(self, frame: Any) -> int | None:
        """Index of a block's first sample: behind the last one, unless its time says otherwise."""
        if frame.pts is None:
            return self._expected
        unit = frame.time_base
        stamp: int = round(frame.pts * unit.numerator * frame.sample_rate / unit.denominator)
        if self._expected is None:
            return stamp
        off = stamp - self._expected
        self._drift += (off - self._drift) / DRIFT_BLOCKS
        jumps = abs(off) > JUMP_SECONDS * frame.sample_rate
        if not jumps and abs(self._drift) <= DRIFT_SECONDS * frame.sample_rate:
            return self._expected
        self._drift = 0.0
        return stamp

    def _frames(self) -> Iterator[Any]:
        context = self._packets.stream.codec_context
        if context.is_open:
            context.flush_buffers()
        for packet in [*self._packets.packets, None]:
            try:
                yield from context.decode(packet)
            except av.error.FFmpegError:
                self.bad += packet is not None and not self._is_before(packet)

    def _is_before(self, packet: Any) -> bool:
        """Whether a packet lies before the stretch; a seek tears the first one apart."""
        return packet.pts is not None and packet.pts * packet.time_base < self._start

    def _waveform(self, frame: Any) -> Wave:
        """(samples, channels) in -1 .. 1."""
        if self._channels == 2 and frame.layout.nb_channels > 2:
            frame = self._stereo(frame)
        n_channels = frame.layout.nb_channels
        array = frame.to_ndarray()
        planar = array if frame.format.is_planar else array.reshape(-1, n_channels).T
        wave = _as_float(planar)
        if self._channels == 1:
            wave = wave.sum(axis=0, keepdims=True) / np.float32(n_channels)
        elif n_channels == 1:
            wave = np.repeat(wave, 2, axis=0)
        return np.ascontiguousarray(wave.T, np.float32)

    def _stereo(self, frame: Any) -> Any:
        """Surround sound mixed down by libswresample's standard matrix."""
        if self._to_stereo is None:
            self._to_stereo = av.AudioResampler("s16p", "stereo", frame.sample_rate)
        mixed = self._to_stereo.resample(frame)
        return mixed[0] if mixed else frame


def _as_float(array: npt.NDArray[Any]) -> Wave:
    """Integer samples scaled to -1 .. 1."""
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype == np.uint8:
        return np.asarray((array.astype(np.float32) - 128) / 128, np.float32)
    scale = np.float32(1 / (np.iinfo(array.dtype).max + 1))
    scaled: Wave = array.astype(np.float32) * scale
    return scaled


def _join(placed: list[tuple[int, Wave]], rate_hz: int, bad: int) -> Sound:
    """Lay blocks on one line; a later block wins where two overlap."""
    first = min(at for at, _ in placed)
    last = max(at + len(wave) for at, wave in placed)
    samples = np.zeros((last - first, placed[0][1].shape[1]), np.float32)
    covered, gaps = first, []
    for at, wave in sorted(placed, key=lambda block: block[0]):
        if at > covered:
            gaps.append((covered, at))
        samples[at - first : at - first + len(wave)] = wave
        covered = max(covered, at + len(wave))
    return Sound(rate_hz, first, samples, tuple(gaps), bad)
