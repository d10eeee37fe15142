"""Opening a file nobody vouches for, and reading its packets.

Nothing here trusts the file: the path is resolved below the root and must be a regular file; libav
may use the `file` protocol and a closed list of formats only (a playlist named `.mp4` would
otherwise open other files); pictures and streams over the limits are refused before memory is
taken for them (distributed.md §5).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from manifests.listing import from_uri
from pipeline.config import Limits
from pipeline.errors import ClipError, Reason

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,ogg,wav,flac,mp3,aac"
SEEK_FROM_SECONDS = 30
"""Earlier windows are reached by reading on, which is exact in any container."""
MARGIN_SECONDS = Fraction(2)
"""Packets are read this far beyond a window: reordered pictures, interleaving, codec warm-up."""

_MAGIC: tuple[tuple[int, bytes], ...] = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"free"), (4, b"wide"), (4, b"skip"),
    (0, b"\x1a\x45\xdf\xa3"), (0, b"RIFF"), (0, b"RF64"), (0, b"FLV"), (0, b"OggS"),
    (0, b"fLaC"), (0, b"ID3"), (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"),
)  # fmt: skip


def resolve(root: Path, uri: str) -> Path:
    """The regular file below `root` that a manifest names.

    Raises:
        ClipError: `bad_path` if it leaves the root or is no regular file, `missing_file` if there
            is none, `empty_file` if it has no bytes.
    """
    if "://" in uri or "\0" in uri or not uri:
        raise ClipError(Reason.BAD_PATH, f"{uri!r} is no path below the root", "path")
    home = Path(os.path.realpath(root))
    path = Path(os.path.realpath(home / from_uri(uri)))
    if not path.is_relative_to(home):
        raise ClipError(Reason.BAD_PATH, f"{uri!r} leads out of the root to {path}", "path")
    try:
        facts = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ClipError(Reason.MISSING_FILE, f"no file {uri!r} below the root", "path") from None
    if not stat.S_ISREG(facts.st_mode):
        raise ClipError(Reason.BAD_PATH, f"{uri!r} is no regular file", "path")
    if facts.st_size == 0:
        raise ClipError(Reason.EMPTY_FILE, f"{uri!r} has zero bytes", "path")
    return path


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


class Media:
    """An open file: its best video and sound stream, and its packets."""

    def __init__(self, container: Any, path: Path, limits: Limits) -> None:
        self.container = container
        self.path = path
        self.limits = limits
        self.video = _best(container, "video")
        self.audio = _best(container, "audio")
        self._touched = False

    @property
    def start(self) -> Fraction:
        """Earliest stream start on the container's clock: what `start_s` counts from."""
        starts = [s.start_time * s.time_base for s in self.streams if s.start_time is not None]
        return Fraction(min(starts, default=Fraction(0)))

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

    def read(self, start: Fraction, end: Fraction | None) -> dict[str, Packets]:
        """The packets needed to decode `[start, end)` seconds, by stream type; end None = all.

        Raises:
            ClipError: `too_large` if they exceed the limit.
        """
        self._go_to(start)
        found = {stream.type: Packets(stream) for stream in self.streams}
        until = None if end is None else end + MARGIN_SECONDS
        waiting = {stream.index for stream in self.streams}
        size = 0
        bad = 0
        try:
            for packet in self.container.demux(self.streams):
                if packet.size == 0:
                    continue
                size += packet.size
                self._check_size(size)
                found[packet.stream.type].packets.append(packet)
                if until is not None and _packet_time(packet) > until:
                    waiting.discard(packet.stream.index)
                    if not waiting:
                        return found
        except av.error.FFmpegError:
            bad = 1  # the container is cut or damaged here; what came before is good
        return {
            kind: Packets(part.stream, part.packets, complete=True, bad=bad)
            for kind, part in found.items()
        }

    def _go_to(self, start: Fraction) -> None:
        """Position the container so that everything from `start` on can be decoded."""
        if not self._touched and start - self.start < SEEK_FROM_SECONDS:
            self._touched = True
            return
        self._touched = True
        target = max(start - MARGIN_SECONDS, self.start)
        self.container.seek(int(target * av.time_base), backward=True)

    def _check_size(self, size: int) -> None:
        if size > self.limits.max_packet_bytes:
            raise ClipError(
                Reason.TOO_LARGE,
                f"more than {self.limits.max_packet_bytes >> 20} MiB of packets in one window; "
                "cut the recording with --window",
                "open",
            )


@contextmanager
def open_media(path: Path, limits: Limits) -> Iterator[Media]:
    """Open one local file for decoding.

    Raises:
        ClipError: `unsupported_format`, `open_error` or `too_large`.
    """
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": "file",
        "max_streams": str(limits.max_streams),
        "max_pixels": str(limits.max_pixels),
    }
    try:
        container = av.open(f"file:{path}", metadata_errors="replace", options=options)
    except av.error.FFmpegError as error:
        raise _open_failure(path, error, limits) from error
    try:
        media = Media(container, path, limits)
        if media.video is not None:
            _check_video(media.video, limits)
        _prepare(media, limits)
        yield media
    finally:
        container.close()


def _best(container: Any, kind: str) -> Any:
    """The default stream of a kind; covers attached as a picture are no video."""
    stream = container.streams.best(kind)
    cover = av.stream.Disposition.attached_pic
    if stream is None or not stream.disposition & cover:
        return stream
    return next((other for other in container.streams.video if not other.disposition & cover), None)


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


def _open_failure(path: Path, error: av.error.FFmpegError, limits: Limits) -> ClipError:
    """Which of the named reasons a failing `av.open` is."""
    text = error.strerror or type(error).__name__
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


def _packet_time(packet: Any) -> Fraction:
    """When a packet is decoded or shown, whichever is known and later; at once if neither is."""
    stamps = [stamp for stamp in (packet.pts, packet.dts) if stamp is not None]
    return Fraction(max(stamps)) * packet.time_base if stamps else Fraction(-1 << 40)
