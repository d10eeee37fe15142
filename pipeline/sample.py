"""One file and its windows -> samples. What a sample contains is decided here and nowhere else.

    Item (file, rows) -> packets -> sound and pictures on one grid a window -> members as bytes

A file is opened once however many windows are cut from it. Every row comes back exactly once, as
`Made` or as `Failed`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from pipeline.augment import Augmentation, shortened
from pipeline.clip import Clip, Source, SourceFacts
from pipeline.clock import Window, grid_for
from pipeline.config import Limits, ShardConfig
from pipeline.errors import ClipError, Reason
from pipeline.item import Failed, Item, Made, Opened, Outcome, Row
from pipeline.media import Packets, open_media
from pipeline.paths import resolve
from pipeline.rows import stated_recipe
from pipeline.sound import MARGIN_SECONDS, Sound, decode_sound
from pipeline.video import Decoder, LostHeadError, Timeline, nothing_decoded, show, timeline

GROUP_SECONDS = 120
"""Windows are decoded together while they span no more than this, which bounds memory."""
HASHED_BYTES = 1 << 30
"""Larger files are not hashed: reading all of a long recording for one window costs too much."""


def outcomes(item: Item, config: ShardConfig, limits: Limits) -> Iterator[Outcome | Opened]:
    """Cut one file into samples: first `Opened`, if it opens, then one outcome a row."""
    left = set(range(len(item.rows)))
    try:
        with ExitStack() as stack:
            file = stack.enter_context(_open(item, config, limits))
            yield Opened(file.seconds_wanted)
            for group in file.groups():
                for outcome in _group_outcomes(file, group):
                    left.discard(outcome.index)
                    yield outcome
    except ClipError as error:
        yield from (Failed(index, error) for index in sorted(left))
    except MemoryError:
        starved = ClipError(Reason.OUT_OF_MEMORY, "memory limit of the child reached", "child")
        yield from (Failed(index, starved) for index in sorted(left))


def _open(item: Item, config: ShardConfig, limits: Limits) -> "_File":
    """Open the item's file, and its separate sound file if it has one.

    Raises:
        ClipError: it cannot be opened, or lacks a stream that every one of its rows needs.
    """
    row = item.rows[0]
    if row.get("container"):
        raise ClipError(
            Reason.UNSUPPORTED_FORMAT, f"{row['container']}: unpack the archive first", "path"
        )
    return _File(item, config, limits)


class _File:
    """An open file with the grids of its rows; a context manager."""

    def __init__(self, item: Item, config: ShardConfig, limits: Limits) -> None:
        self.item = item
        self.config = config
        self.limits = limits
        self.path = resolve(Path(item.root), item.uri)
        self._stack = ExitStack()

    def __enter__(self) -> "_File":
        self.media = self._stack.enter_context(open_media(self.path, self.limits))
        self.sound_media = self.media
        if audio_uri := self.item.rows[0].get("audio_uri"):
            path = resolve(Path(self.item.root), audio_uri)
            self.sound_media = self._stack.enter_context(open_media(path, self.limits))
        if self.config.stores_frames and self.media.video is None:
            raise ClipError(Reason.NO_VIDEO, "there is no video stream", "open")
        if self.media.video is None and self.sound_media.audio is None:
            raise ClipError(Reason.NO_AUDIO, "there is neither picture nor sound", "open")
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @cached_property
    def start(self) -> Fraction:
        """Earliest stream start: the zero of the rows' times."""
        return self.media.start

    def window(self, row: Row) -> Window:
        """A row's window on the container's clock."""
        end = None if row["end_s"] is None else self.start + _micros(row["end_s"])
        return Window(self.start + _micros(row["start_s"] or 0), end, bool(row["anchored"]))

    @property
    def seconds_wanted(self) -> float:
        """Media seconds the rows ask for; the header's word where a row is open-ended."""
        whole = float(self.media.duration_seconds or 0)
        return sum(
            whole if row["end_s"] is None else row["end_s"] - (row["start_s"] or 0)
            for row in self.item.rows
        )

    def groups(self) -> list[list[int]]:
        """Row indices decoded together, in order of time."""
        windows = [self.window(row) for row in self.item.rows]
        groups: list[list[int]] = []
        for index in sorted(range(len(windows)), key=lambda i: windows[i].start):
            window = windows[index]
            first = windows[groups[-1][0]] if groups else None
            joins = first is not None and window.end is not None and first.end is not None
            if joins and window.end - first.start <= GROUP_SECONDS:  # type: ignore[operator,union-attr]
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    @cached_property
    def starts(self) -> tuple[Fraction | None, Fraction | None]:
        """When video and sound start: the header's word, until they are decoded."""
        sound = self.sound_media
        return self.media.first_time(self.media.video), sound.first_time(sound.audio)

    @cached_property
    def sha1(self) -> str | None:
        """Hash of the whole file."""
        if self.path.stat().st_size > HASHED_BYTES:
            return None
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha1").hexdigest()


def _micros(seconds: float) -> Fraction:
    """Manifest times are doubles; what they mean is whole microseconds."""
    return Fraction(round(seconds * 1_000_000), 1_000_000)


def _last_end(parts: Iterable[Packets]) -> Fraction | None:
    """Where the last packet ends, in seconds on the container's clock; None if none says."""
    ends = [
        max(stamps) * part.stream.time_base
        for part in parts
        if (stamps := [p.pts + (p.duration or 0) for p in part.packets if p.pts is not None])
    ]
    return max(ends, default=None)


def _group_outcomes(file: _File, group: Sequence[int]) -> Iterator[Outcome]:
    """The outcomes of rows that are decoded together."""
    windows = [file.window(file.item.rows[index]) for index in group]
    ends = [window.end for window in windows]
    start = min(window.start for window in windows)
    end = None if None in ends else max(end for end in ends if end is not None)
    head: int | None = None
    while True:
        stretch = _Stretch(file, start, end, head)
        clips, failed = stretch.clips(dict(zip(group, windows, strict=True)))
        rendered = stretch.render(clips)
        try:
            first = next(rendered, None)
        except LostHeadError as lost:  # rare: all is read again, without what cannot be decoded
            head = lost.pts
            del stretch, clips, rendered  # their memory first
            continue
        except (ClipError, MemoryError):  # what all rows share: these have reasons of their own
            yield from failed
            raise
        yield from failed
        if first is not None:
            yield first
        yield from rendered
        return


class _Stretch:
    """The packets, sound and timeline of the windows that are decoded together."""

    def __init__(
        self, file: _File, start: Fraction, end: Fraction | None, head: int | None
    ) -> None:
        """Read, and decode the sound.

        Args:
            file: the open file.
            start: seconds on the container's clock.
            end: the same; None = to the end.
            head: pts of the first picture that can be decoded, where that is known not to be the
                first one there is.
        """
        self._file = file
        self._start = start
        parts = file.media.read(start, end)
        self._until = _last_end(parts.values())
        self._check_not_cut_short(parts, start, end)
        self._sound_packets = self._read_sound(parts, start, end)
        self.sound = self._decode_sound(start, end)
        self.video: Packets | None = parts.get("video") if file.config.stores_frames else None
        self.line: Timeline | None = timeline(self.video) if self.video else None
        self._lost = 0
        if self.line is not None and head is not None:
            whole, self.line = self.line, self.line.since(head)
            self._lost = len(whole.pts) - len(self.line.pts)

    def _read_sound(
        self, parts: dict[str, Packets], start: Fraction, end: Fraction | None
    ) -> tuple[Packets | None, Fraction]:
        """The packets of the sound, and how much later its own file's clock is, if it has one."""
        file = self._file
        if file.sound_media is file.media:
            return parts.get("audio"), Fraction(0)
        shift = file.sound_media.start - file.start
        until = None if end is None else end + MARGIN_SECONDS + shift
        return file.sound_media.read(start + shift, until).get("audio"), shift

    def _decode_sound(self, start: Fraction, end: Fraction | None) -> Sound | None:
        part, shift = self._sound_packets
        if part is None:
            return None
        channels = max(1, self._file.config.waveform_channels)
        until = None if end is None else end + MARGIN_SECONDS + shift
        sound = decode_sound(part, channels, start - MARGIN_SECONDS + shift, until)
        return sound and replace(sound, first=sound.first - round(shift * sound.rate_hz))

    def _check_not_cut_short(
        self, parts: dict[str, Packets], start: Fraction, end: Fraction | None
    ) -> None:
        """Refuse a file whose header promises more than twice what is there, and a second more."""
        promised = self._file.media.promised_seconds
        if promised is None or not all(part.complete for part in parts.values()):
            return
        covered = self._until - self._file.start if self._until is not None else Fraction(0)
        wanted = promised if end is None else min(end - self._file.start, promised)
        if covered < min(promised / 2, promised - 1) and covered < wanted:
            detail = (
                f"the header promises {float(promised):.1f} s, packets cover {float(covered):.1f} s"
            )
            raise ClipError(Reason.TRUNCATED, detail, "open")

    def clips(self, windows: Mapping[int, Window]) -> tuple[list[tuple[int, Clip]], list[Failed]]:
        """The clips of rows (by their number), and those that cannot become a sample."""
        clips, failed = [], []
        for index, window in windows.items():
            try:
                clips.append((index, self._clip(self._file.item.rows[index], window)))
            except ClipError as error:
                failed.append(Failed(index, error))
        return clips, failed

    def _clip(self, row: Row, window: Window) -> Clip:
        """The clip of one row, its grid laid.

        Raises:
            ClipError: the row cannot become a sample.
        """
        config, limits = self._file.config, self._file.limits
        if self.sound is None and (self.line is None or not window.anchored):
            raise self._mute(window)
        recipe = stated_recipe(row)
        whole = grid_for(
            window,
            config.fps,
            video=self.line.extent if self.line else None,
            audio=self.sound.extent if self.sound else None,
            picture_times=self.line.times if self.line else (),
            time_base=self.line.time_base if self.line else Fraction(1, self.sound.rate_hz),  # type: ignore[union-attr]
        )
        grid = shortened(recipe, whole)
        seconds = grid.frames / grid.fps
        if not window.anchored and seconds < config.min_seconds:
            least = f"at least {float(config.min_seconds):g} s, see --min-seconds"
            detail = f"{float(seconds):.2f} s of picture and sound; {least}"
            raise ClipError(Reason.TOO_SHORT, detail, "sample")
        if seconds > limits.max_clip_seconds:
            detail = f"{float(seconds):.0f} s; at most {limits.max_clip_seconds:g} s, see --window"
            raise ClipError(Reason.TOO_LONG, detail, "sample")
        return Clip(config, row, window, grid, self._source(), Augmentation(recipe, grid.t0))

    def _mute(self, window: Window) -> ClipError:
        """Why a window has no sound."""
        if self._file.sound_media.audio is None:
            return ClipError(Reason.NO_AUDIO, "there is no sound stream", "audio")
        part, shift = self._sound_packets
        times = [p.pts * p.time_base - shift for p in part.packets if p.pts is not None]  # type: ignore[union-attr]
        ends = max(times if self._until is None else [self._until, *times], default=None)
        if ends is not None and window.start >= ends:
            begin, end = (float(time - self._file.start) for time in (window.start, ends))
            detail = f"the window starts at {begin:.2f} s, the file ends at {end:.2f} s"
            return ClipError(Reason.TOO_SHORT, detail, "sample")
        if not any(window.start <= t and (window.end is None or t < window.end) for t in times):
            return ClipError(Reason.NO_AUDIO, "the sound pauses in all of the window", "audio")
        return ClipError(Reason.DECODE_ERROR, "no block of the sound could be decoded", "audio")

    def _source(self) -> Source:
        facts = SourceFacts.of(self._file.media, self._file.path, self._file.item.uri)
        return Source(facts, self._starts(), self.sound, self.line)

    def _starts(self) -> tuple[Fraction | None, Fraction | None]:
        """Where the file's streams begin: what was decoded says it, if that was the beginning."""
        file = self._file
        if self._start <= file.start:
            found = [part.extent.start if part else None for part in (self.line, self.sound)]
            file.starts = found[0], found[1]
        return file.starts

    def render(self, clips: Sequence[tuple[int, Clip]]) -> Iterator[Outcome]:
        """Decode the pictures of all clips in one pass; clips come out as they are complete."""
        if not clips:
            return
        if self.video is None or self.line is None:
            yield from (self._finish(index, clip, 0) for index, clip in clips)
            return
        grids = [clip.source_grid for _, clip in clips]
        decoder = Decoder(
            self.video,
            self.line.wanted(grids),
            max_pixels=self._file.limits.max_pixels,
            uses_up=True,
        )
        for shown in show(decoder, self.line, grids):
            index, clip = clips[shown.grid]
            clip.see(shown.k, shown.frame, shown.pts * self.line.time_base)
            if shown.k == clip.grid.frames - 1:
                yield self._finish(index, clip, max(decoder.bad, self._lost))
        if decoder.decoded == 0:
            raise nothing_decoded(decoder)

    def _finish(self, index: int, clip: Clip, bad_packets: int) -> Outcome:
        bad_sound = self.sound.bad_packets if self.sound else 0
        try:
            members, facts = clip.finish(bad_packets + bad_sound, self._file.sha1)
        except ClipError as error:
            return Failed(index, error)
        return Made(index, members, facts)
