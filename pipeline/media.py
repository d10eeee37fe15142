"""Opening a file nobody vouches for, and reading its packets.

Nothing here trusts the file: libav may use the `file` protocol and a closed list of formats only (a
playlist named `.mp4` would otherwise open other files); pictures and streams over the limits are
refused before memory is taken for them (distributed.md §5).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from math import floor
from pathlib import Path
from typing import Any

import av
import av.error

from manifests.listing import FFMPEG_FORMATS
from pipeline.config import Limits
from pipeline.errors import ClipError, Reason

SEEK_FROM_SECONDS = 30
"""Earlier windows are reached by reading on, which is exact in any container."""
MARGIN_SECONDS = Fraction(2)
"""Packets are read this far beyond a window: reordered pictures, interleaving, codec warm-up."""
STRAY_SECONDS = Fraction(60)
"""A stream this far ahead of the others ends the reading: the others have stopped or pause."""
JUMP_BACK_SECONDS = 1
"""Time stamps that go back further are those of another recording."""
SEEK_BACK_SECONDS = (MARGIN_SECONDS, Fraction(15))
"""How far before a window to look for a key picture, before reading from the very start instead:
transport and program streams have no index, and a seek lands between key pictures."""

_MAGIC: tuple[tuple[int, bytes], ...] = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"free"), (4, b"wide"), (4, b"skip"),
    (0, b"\x1a\x45\xdf\xa3"), (0, b"RIFF"), (0, b"RF64"), (0, b"FLV"), (0, b"OggS"),
    (0, b"fLaC"), (0, b"ID3"), (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"),
)  # fmt: skip


@dataclass(frozen=True)
class Packets:
    """Compressed packets of one stream over a stretch of time, in file order."""

    stream: Any
    """The av stream; its codec context decodes the packets."""
    packets: list[Any] = field(default_factory=list)
    complete: bool = False
    """Whether the stretch reaches the end of the stream."""
    bad: int = 0
    """Times the container could not be read any further."""
    from_start: bool = True
    """Whether the first packet is the stream's first."""


class Media:
    """An open file: its best video and sound stream, and its packets."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self._open()

    def _open(self) -> None:
        """Open the file, refusing what is over the limits."""
        self.container = _open_container(self.path, self.limits)
        self._touched = False
        try:
            _check_streams(self.container, self.limits)
            self.video = _best(self.container, "video")
            self.audio = _best(self.container, "audio")
            if self.video is not None:
                _check_video(self.video, self.limits)
            _prepare(self, self.limits)
        except ClipError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    @property
    def start(self) -> Fraction:
        """Earliest stream start on the container's clock: what `start_s` counts from."""
        starts = [self.first_time(stream) for stream in self.streams]
        return min((start for start in starts if start is not None), default=Fraction(0))

    def first_time(self, stream: Any) -> Fraction | None:
        """When a stream starts on the container's clock, by the header; None if it does not say."""
        if stream is None or stream.start_time is None:
            return None
        return Fraction(stream.start_time * stream.time_base)

    @property
    def streams(self) -> list[Any]:
        """The streams in use."""
        return [stream for stream in (self.video, self.audio) if stream is not None]

    @property
    def duration_seconds(self) -> Fraction | None:
        """What the header promises, None if nothing."""
        if self.container.duration is None:
            return None
        return Fraction(self.container.duration, 1_000_000)

    @property
    def promised_seconds(self) -> Fraction | None:
        """Where the streams in use end by the header, after `start`; None if it does not say.

        Another language or subtitles may last longer, and then the file's length is theirs.
        """
        if len(self.streams) == len(self.container.streams):
            return self.duration_seconds
        ends = []
        for stream in self.streams:
            begin, length = self.first_time(stream), _stated_seconds(stream)
            if begin is None or length is None:
                return self.duration_seconds
            ends.append(begin + length)
        return max(ends) - self.start

    def read(self, start: Fraction, end: Fraction | None) -> dict[str, Packets]:
        """The packets needed to decode `[start, end)` seconds, by stream type; end None = all.

        Raises:
            ClipError: `too_large` or `too_long` if they exceed the limit.
        """
        if start - self.start >= SEEK_FROM_SECONDS:
            for back in SEEK_BACK_SECONDS:
                found = self._read_from(start - back, start, end)
                if found is not None:
                    return found
        if self._touched:
            self.close()
            self._open()
        return self._demux(start, end)

    def _read_from(
        self, target: Fraction, start: Fraction, end: Fraction | None
    ) -> dict[str, Packets] | None:
        """The packets after a seek; None if the pictures at `start` cannot be decoded from them."""
        try:
            self.container.seek(int(target * av.time_base), backward=True)
        except av.error.FFmpegError:
            return None
        finally:
            self._touched = True
        found = {kind: _decodable(part) for kind, part in self._demux(start, end).items()}
        return found if _reaches_back(found, start) else None

    def _demux(self, start: Fraction, end: Fraction | None) -> dict[str, Packets]:
        """The packets from here on, up to a margin behind `end`, by stream type."""
        self._touched = True
        found = {stream.type: Packets(stream) for stream in self.streams}
        reached = _Reached(start, end, self.streams, self.limits)
        size, bad, complete = 0, 0, True
        try:
            for packet in self.container.demux(self.streams):
                if packet.size == 0:
                    continue
                size += packet.size
                self._check_size(size)
                packets = found[packet.stream.type].packets
                packets.append(packet)
                if reached.end_with(packets):
                    complete = False
                    break
        except av.error.FFmpegError:
            bad = 1  # the container is cut or damaged here; what came before is good
        for part in found.values():
            _check_no_jump_back(part)
        return {kind: replace(part, complete=complete, bad=bad) for kind, part in found.items()}

    def _check_size(self, size: int) -> None:
        if size > self.limits.max_packet_bytes:
            raise ClipError(
                Reason.TOO_LARGE,
                f"more than {self.limits.max_packet_bytes >> 20} MiB of packets in one window; "
                "cut the recording with --window",
                "open",
            )


def _check_no_jump_back(part: Packets) -> None:
    """Refuse recordings that were joined as they are: what is shown when cannot be told any more.

    Raises:
        ClipError: `decode_error`.
    """
    stamps = [packet.pts if packet.dts is None else packet.dts for packet in part.packets]
    known = [stamp for stamp in stamps if stamp is not None]
    most = JUMP_BACK_SECONDS / part.stream.time_base
    for before, after in pairwise(known):
        if before - after > most:
            unit = part.stream.time_base
            raise _jump(part.stream, before * unit, after * unit)


def _jump(stream: Any, before: Fraction, after: Fraction) -> ClipError:
    detail = (
        f"the time stamps jump from {float(before):.2f} to {float(after):.2f} s: recordings joined "
        "as they are. Write it anew with one clock: ffmpeg -i IN -c copy OUT"
    )
    return ClipError(Reason.DECODE_ERROR, detail, stream.type)


class _Reached:
    """Tells when enough packets of a window are read."""

    def __init__(
        self, start: Fraction, end: Fraction | None, streams: Sequence[Any], limits: Limits
    ) -> None:
        self._until = None if end is None else end + MARGIN_SECONDS
        self._longest = limits.max_clip_seconds
        self._too_late = start + Fraction(limits.max_clip_seconds) + MARGIN_SECONDS
        self._waiting = {stream.index for stream in streams}
        soonest = self._too_late if self._until is None else min(self._until, self._too_late)
        self._surely_needed = {s.index: floor(soonest / s.time_base) for s in streams}

    def end_with(self, packets: list[Any]) -> bool:
        """Whether no packet after the last of these, which are one stream's, is needed.

        Raises:
            ClipError: `too_long`: the window goes on beyond the longest clip; `decode_error`: one
                leap of the clock is longer than that.
        """
        packet = packets[-1]
        if (_packet_stamp(packet) or 0) <= self._surely_needed[packet.stream.index]:
            return False  # whole numbers first: rationals for every packet would cost 2 %
        time = _packet_time(packet)
        if self._until is not None and time > self._until:
            self._waiting.discard(packet.stream.index)
            return not self._waiting or time > self._until + STRAY_SECONDS
        if time > self._too_late:
            if len(packets) > 1 and time - _packet_time(packets[-2]) > self._longest:
                raise _jump(packet.stream, _packet_time(packets[-2]), time)
            detail = f"more than {self._longest:g} s; cut the recording with --window"
            raise ClipError(Reason.TOO_LONG, detail, "open")
        return False


@contextmanager
def open_media(path: Path, limits: Limits) -> Iterator[Media]:
    """Open one local file for decoding.

    Raises:
        ClipError: `unsupported_format`, `open_error` or `too_large`.
    """
    media = Media(path, limits)
    try:
        yield media
    finally:
        media.close()


def _open_container(path: Path, limits: Limits) -> Any:
    """Open a file with libav's own limits set.

    Raises:
        ClipError: `unsupported_format` or `open_error`.
    """
    options = {
        "format_whitelist": FFMPEG_FORMATS,
        "protocol_whitelist": "file",
        "max_streams": str(limits.max_streams + 1),
        "max_pixels": str(limits.max_pixels),
    }
    try:
        return av.open(f"file:{path}", metadata_errors="replace", options=options)
    except av.error.FFmpegError as error:
        raise _open_failure(path, error) from error


def _check_streams(container: Any, limits: Limits) -> None:
    if len(container.streams) > limits.max_streams:
        detail = f"more than {limits.max_streams} streams"
        raise ClipError(Reason.TOO_LARGE, detail, "open")


def _best(container: Any, kind: str) -> Any:
    """The default stream of a kind; covers attached as a picture are no video."""
    stream = container.streams.best(kind)
    cover = av.stream.Disposition.attached_pic
    if stream is None or not stream.disposition & cover:
        return stream
    return next((other for other in container.streams.video if not other.disposition & cover), None)


def _stated_seconds(stream: Any) -> Fraction | None:
    """A stream's length by the header; Matroska has it as a tag, if at all."""
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    said = stream.metadata.get("DURATION", "")
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", said.strip())
    if tag is None:
        return None
    hours, minutes, seconds = (Fraction(part) for part in tag.groups())
    return hours * 3600 + minutes * 60 + seconds


def _prepare(media: Media, limits: Limits) -> None:
    """One thread a decoder (skipping by packet relies on it), and limits while decoding too."""
    for stream in media.streams:
        if stream.codec_context is not None:
            stream.codec_context.thread_count = 1
    if media.video is not None:
        media.video.codec_context.options = {"max_pixels": str(limits.max_pixels)}


def _check_video(video: Any, limits: Limits) -> None:
    """Refuse a picture that is too large, or whose size libav would not tell."""
    context = video.codec_context
    if context is None:
        raise ClipError(Reason.UNSUPPORTED_FORMAT, "no decoder for its video codec", "open")
    if context.width * context.height > limits.max_pixels:
        raise ClipError(
            Reason.TOO_LARGE,
            f"pictures of {context.width}x{context.height}; at most {limits.max_pixels} pixels",
            "open",
        )


def _open_failure(path: Path, error: av.error.FFmpegError) -> ClipError:
    """Which of the named reasons a failing `av.open` is."""
    text = error.strerror or type(error).__name__
    if isinstance(error, av.error.PermissionError):
        return ClipError(Reason.OPEN_ERROR, text, "open")
    if isinstance(error, av.error.ArgumentError):
        return ClipError(Reason.UNSUPPORTED_FORMAT, "its format is not on the whitelist", "open")
    if not _looks_like_media(path):
        detail = "no media file: it starts with none of the known signatures"
        return ClipError(Reason.UNSUPPORTED_FORMAT, detail, "open")
    return ClipError(Reason.OPEN_ERROR, f"{text} (cut short, or its index is missing)", "open")


def _looks_like_media(path: Path) -> bool:
    """Whether the first bytes are those of a format on the whitelist."""
    with open(path, "rb") as file:
        head = file.read(1024)
    known = any(head[at : at + len(magic)] == magic for at, magic in _MAGIC)
    mpeg_audio = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    transport_stream = len(head) > 188 and head[0] == 0x47 and head[188] == 0x47
    return known or mpeg_audio or transport_stream


def _decodable(part: Packets) -> Packets:
    """After a seek: pictures from the first key picture on, and all of the sound."""
    first = 0
    if part.stream.type == "video":
        keys = (n for n, packet in enumerate(part.packets) if packet.is_keyframe)
        first = next(keys, len(part.packets))
    return replace(part, packets=part.packets[first:], from_start=False)


def _reaches_back(found: dict[str, Packets], start: Fraction) -> bool:
    """Whether the pictures can be decoded from `start` on; sound needs no more than the margin."""
    video = found.get("video")
    if video is None:
        return True
    first = video.packets[0] if video.packets else None
    return first is not None and _packet_time(first) <= start


def _packet_time(packet: Any) -> Fraction:
    """When a packet is decoded or shown, whichever is known and later; at once if neither is."""
    stamp = _packet_stamp(packet)
    return stamp * packet.time_base if stamp is not None else Fraction(-1 << 40)


def _packet_stamp(packet: Any) -> int | None:
    """The later of pts and dts, in units of the stream's time base; None if it has neither."""
    stamps = [stamp for stamp in (packet.pts, packet.dts) if stamp is not None]
    return max(stamps, default=None)
