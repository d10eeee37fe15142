"""One sample in the making: pictures are taken in as they are decoded, then all is put together."""

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pipeline import format as shard_format
from pipeline.augment import Augmentation
from pipeline.clock import Grid, Window
from pipeline.config import ShardConfig, rational_text
from pipeline.errors import ClipError, Reason
from pipeline.frame import Frame
from pipeline.media import Media
from pipeline.mel import log_mel, margin_samples
from pipeline.quality import PictureQuality, sound_facts
from pipeline.rows import stated_facts
from pipeline.sound import Sound
from pipeline.video import Timeline, held_intervals

if TYPE_CHECKING:
    from pipeline.faces import FaceFollower, FaceTrack

LONG_CLIP_FRAMES = 1000
"""From here on the memory of a clip matters; below, giving it back costs more than it is worth."""
MAX_SIDES_RATIO = 8
"""Longer side over shorter one of a picture that is stored."""


@dataclass(frozen=True)
class SourceFacts:
    """What the container says about the file."""

    uri: str
    bytes: int
    container: str
    video_codec: str | None
    audio_codec: str | None
    fps: float | None
    duration: float | None
    """Seconds by the header."""

    @classmethod
    def of(cls, media: Media, path: Path, uri: str) -> "SourceFacts":
        """Read them from an open file."""
        rate = media.video.average_rate if media.video else None
        duration = media.duration_seconds
        return cls(
            uri,
            path.stat().st_size,
            str(media.container.format.name).split(",")[0],
            media.video.codec_context.name if media.video else None,
            media.audio.codec_context.name if media.audio else None,
            round(float(rate), 6) if rate else None,
            round(float(duration), 6) if duration is not None else None,
        )


@dataclass(frozen=True)
class Source:
    """What the clips of one stretch have in common."""

    facts: SourceFacts
    starts: tuple[Fraction | None, Fraction | None]
    """When video and sound of the file start, on the container's clock; None: there is none."""
    sound: Sound | None
    line: Timeline | None


class Clip:
    """One row on its way to a sample. `see` every interval's picture in order, then `finish`."""

    def __init__(
        self,
        config: ShardConfig,
        row: Mapping[str, Any],
        window: Window,
        grid: Grid,
        source: Source,
        augmentation: Augmentation,
    ) -> None:
        self.grid = grid
        """On the sample's clock, which is the source's unless the clip is manipulated."""
        self._config = config
        self._row = row
        self._window = window
        self._source = replace(source, sound=augmentation.sound(source.sound, grid))
        self._augmentation = augmentation
        self._jpegs: list[bytes] = []
        self._times: list[Fraction] = []
        self._last: tuple[Frame, Frame] | None = None
        self._quality = PictureQuality()
        self._size: tuple[int, int] | None = None
        self._displayed: tuple[int, int] | None = None
        self._rotation = 0
        self._follower = _follower(config, row)

    def see(self, k: int, frame: Frame, time: Fraction) -> None:
        """Take in the picture of interval k, which was shown from `time` on (seconds)."""
        self._times.append(time)
        if self._last is not None and frame is self._last[0]:
            self._jpegs.append(self._jpegs[-1])
            self._quality.see(None)
        else:
            self._check_shape(frame)
            self._rotation = frame.rotation if self._last is None else self._rotation
            self._last = frame, self._augmentation.picture(k, frame)
            self._store(self._last[1])
        if self._follower is not None:
            self._follower.see(k, self._last[1])

    @property
    def source_grid(self) -> Grid:
        """The grid on the source's clock: which pictures are shown."""
        return self._augmentation.on_source(self.grid)

    def _check_shape(self, frame: Frame) -> None:
        """Refuse a picture that no sample may hold.

        Raises:
            ClipError: `too_large`.
        """
        if max(frame.width, frame.height) > MAX_SIDES_RATIO * min(frame.width, frame.height):
            detail = (
                f"pictures of {frame.width}x{frame.height}: the longer side of this shape is over "
                f"{MAX_SIDES_RATIO} times the shorter one, which no sample may be; crop the video"
            )
            raise ClipError(Reason.TOO_LARGE, detail, "video")

    def _store(self, frame: Frame) -> None:
        """Shrink and encode one picture; all pictures of a sample have the first one's size."""
        assert self._config.short_side is not None
        picture = frame.resized(self._config.short_side)
        if self._size is None:
            self._size = (picture.shape[1], picture.shape[0])
            self._displayed = (frame.width, frame.height)
        elif self._size != (picture.shape[1], picture.shape[0]):
            shrunk = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
            picture = np.asarray(shrunk, np.uint8)
        self._jpegs.append(shard_format.encode_jpeg(picture, self._config.jpeg_quality))
        self._quality.see(picture)

    def finish(self, bad_packets: int, sha1: str | None) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The members of the sample, and the facts the sidecar keeps.

        Raises:
            ClipError: `too_short` if damage at the end left less than the shortest clip.
        """
        if bad_packets and not self._window.anchored and self._source.line is not None:
            self.grid = self._without_lost_tail(self._source.line)
        tracks, face_rate = self._faces()
        sound = self._sound()
        quality = self._quality.facts(self.grid.frames)
        quality |= {**sound_facts(sound["mono"]), "face_rate": face_rate}
        blobs, sizes = self._blobs(tracks)
        meta = self._meta(tracks, quality, sizes, bad_packets, sha1)
        members = {"json": shard_format.encode_json(meta), **blobs, **sound["members"]}
        facts = {name: meta[name] for name in ("frames", "quality", "source")}
        facts["seconds"] = round(float(self.grid.frames / self.grid.fps), 6)
        return {name: members[name] for name in self._config.members}, facts

    def _without_lost_tail(self, line: Timeline) -> Grid:
        """The grid up to the last interval with its own picture: none stands for lost ones."""
        due = [pts * line.time_base for pts in line.on_screen(self.source_grid)]
        own = [k for k, time in enumerate(self._times) if time >= due[k]]
        frames = own[-1] + 1 if own else 0
        if frames < self._config.min_seconds * self.grid.fps:
            detail = f"pictures are damaged after {float(frames / self.grid.fps):.2f} s"
            raise ClipError(Reason.TOO_SHORT, detail, "video")
        return Grid(self.grid.t0, self.grid.fps, frames)

    def _faces(self) -> "tuple[list[FaceTrack], float | None]":
        """The tracks, and the share of intervals in which the first one has a face."""
        if self._follower is None:
            return [], None
        tracks = self._follower.finish(self.grid.frames)
        self._follower = None  # its pictures are the largest thing in memory
        if self.grid.frames > LONG_CLIP_FRAMES:
            _give_back_memory()
        return tracks, _face_rate(tracks, self.grid.frames)

    def _sound(self) -> dict[str, Any]:
        """Mel and waveform members, and the mono waveform under the mel."""
        config = self._config
        margin = margin_samples(config.hop_samples)
        cut = self._cut(config.mel_rate_hz, margin)
        mono = cut.mean(axis=1)
        mel = log_mel(mono, config.mel_rate_hz, config.hop_samples)
        members = {"mel.npy": shard_format.encode_npy(mel.astype(np.float16))}
        if config.waveform_rate_hz is not None:
            wave = self._cut(config.waveform_rate_hz, 0)
            members["audio.flac"] = shard_format.encode_flac(wave, config.waveform_rate_hz)
        return {"members": members, "mono": mono[margin : len(mono) - margin]}

    def _cut(self, rate_hz: int, margin: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        if self._source.sound is not None:
            return self._source.sound.cut(self.grid, rate_hz, margin)
        samples = int(self.grid.frames * rate_hz / self.grid.fps) + 2 * margin
        return np.zeros((samples, max(1, self._config.waveform_channels)), np.float32)

    def _blobs(self, tracks: "list[FaceTrack]") -> tuple[dict[str, bytes], dict[str, list[int]]]:
        """Picture and landmark members, and the sizes of the pictures in each blob."""
        pictures: dict[str, list[bytes | None]] = {}
        blobs: dict[str, bytes] = {}
        if self._config.stores_frames:
            pictures["frames"] = list(self._jpegs[: self.grid.frames])
        for number, suffix in enumerate(self._config.face_suffixes):
            track = tracks[number] if number < len(tracks) else None
            landmarks = track.landmarks if track else np.empty((0, 68, 2), np.float32)
            blobs[f"landmarks{suffix}.npy"] = shard_format.encode_npy(landmarks.astype(np.float32))
            pictures[f"face{suffix}"] = track.face_jpegs if track else []
            if self._config.lips:
                pictures[f"lip{suffix}"] = track.lip_jpegs if track else []
        sizes = {}
        for name, jpegs in pictures.items():
            blobs[name + shard_format.PICTURE_SUFFIX], sizes[name] = shard_format.join_jpegs(jpegs)
        return blobs, sizes

    def _meta(
        self,
        tracks: "list[FaceTrack]",
        quality: dict[str, Any],
        sizes: dict[str, list[int]],
        bad_packets: int,
        sha1: str | None,
    ) -> dict[str, Any]:
        """The JSON member (architecture §5)."""
        config, grid = self._config, self.grid
        return {
            "schema": shard_format.SCHEMA_VERSION,
            **stated_facts(self._row),
            "fps": rational_text(grid.fps),
            "t0": _seconds(grid.t0),
            "window_start": _seconds(self._window.start),
            "window_end": _seconds(self._window.end) if self._window.end is not None else None,
            "frames": grid.frames,
            "pts": [_seconds(self._augmentation.on_sample(t)) for t in self._times[: grid.frames]],
            "held": self._held(),
            "padded": self._padded(),
            "mel_rate_hz": config.mel_rate_hz,
            "waveform_rate_hz": config.waveform_rate_hz,
            "waveform_channels": config.waveform_channels,
            "source": self._source_meta(bad_packets, sha1),
            "jpeg_sizes": sizes,
            "frame_size": list(self._size) if self._size else None,
            "faces": [_face_meta(number, track) for number, track in enumerate(tracks)],
            "quality": quality,
        }

    def _held(self) -> list[int]:
        line = self._source.line
        return held_intervals(self.source_grid, line.extent, line.time_base) if line else []

    def _padded(self) -> list[list[float]]:
        if self._source.sound is None:
            return [[0.0, _seconds(self.grid.frames / self.grid.fps)]]
        return self._source.sound.missing(self.grid)

    def _source_meta(self, bad_packets: int, sha1: str | None) -> dict[str, Any]:
        """Facts of the file; width and height are displayed pixels, as face coordinates are."""
        facts, line, sound = self._source.facts, self._source.line, self._source.sound
        video_start, audio_start = self._source.starts
        width, height = self._displayed or (None, None)
        return {
            "uri": facts.uri,
            "bytes": facts.bytes,
            "sha1": sha1,
            "container": facts.container,
            "video_codec": facts.video_codec,
            "audio_codec": facts.audio_codec,
            "width": width,
            "height": height,
            "fps": facts.fps,
            "vfr": line.is_variable if line else False,
            "rotation": self._rotation,
            "video_start": _seconds(video_start) if line and video_start is not None else None,
            "audio_start": _seconds(audio_start) if sound and audio_start is not None else None,
            "duration": facts.duration,
            "bad_packets": bad_packets,
        }


def _give_back_memory() -> None:
    """Hand freed memory back to the system: the heap keeps it, and what comes next needs its own.

    Only glibc has a word for it.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _follower(config: ShardConfig, row: Mapping[str, Any]) -> "FaceFollower | None":
    """A follower of faces; dlib is loaded only for sets that look for them."""
    if config.faces == "off":
        return None
    from pipeline.faces import FaceFollower

    return FaceFollower(config, config.fps, row.get("face_xy"))


def _face_meta(number: int, track: "FaceTrack") -> dict[str, Any]:
    """One entry of `faces`."""
    return {
        "track": number,
        "box": track.boxes,
        "score": track.scores,
        "state": track.states,
        "face_transform": track.face_transforms,
        "lip_transform": track.lip_transforms,
        "chosen_by": track.chosen_by,
    }


def _face_rate(tracks: "list[FaceTrack]", frames: int) -> float:
    """Share of the intervals in which the first track has a face."""
    if not tracks:
        return 0.0
    return round(sum(state != "none" for state in tracks[0].states) / frames, 4)


def _seconds(time: Fraction) -> float:
    """To the microsecond, as JSON has it."""
    return round(float(time), 6)
