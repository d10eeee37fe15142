"""What a shard set contains and how it is made: frozen dataclasses, checked when built.

`ShardConfig` holds everything that changes the bytes of a shard; its hash is in every sidecar.
`Limits` and `job.JobOptions` hold what only changes whether and how fast the bytes come to be.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol, get_args

FORMAT_VERSION = 1
MEL_SLICES_PER_FRAME = 3
N_MELS = 80
N_FFT = 1024

Faces = Literal["auto", "on", "off"]
Executor = Literal["ray", "local"]


class Content(Protocol):
    """What a child makes of an item: samples of a set, a field of them, or sound for a page."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON types, for the child."""


@dataclass(frozen=True)
class ShardConfig:
    """The content of a sample (architecture §5). Two sets with equal configs have equal members."""

    profile: str
    """Name of the profile this started from; flags may have changed single fields."""
    fps: Fraction
    """Frames a second of the time grid, > 0, <= 120."""
    short_side: int | None
    """Pixels of the shorter side of the stored frames; None stores no frames (sound only)."""
    mel_rate_hz: int
    """Rate of the waveform under the mel spectrogram; must be divisible by 3 x fps."""
    waveform_rate_hz: int | None = None
    """Rate of the stored waveform; None stores none. Must be divisible by fps."""
    waveform_channels: int = 0
    """1 or 2 where a waveform is stored, 0 where none is."""
    faces: Faces = "off"
    """`auto` looks once a second and follows what it finds; `on` looks everywhere; `off` never."""
    face_tracks: int = 1
    """How many faces of a clip are stored, 1 or 2."""
    lips: bool = True
    """Whether lip crops are stored beside the face crops."""
    crop_size: int = 112
    """Pixels of the square face and lip crops."""
    jpeg_quality: int = 90
    """JPEG quality of every picture, 1 to 100."""
    min_seconds: Fraction = Fraction(1)
    """Unanchored clips shorter than this are `too_short`."""

    def __post_init__(self) -> None:
        """Refuse values that no shard could have, naming those that would work."""
        if not 0 < self.fps <= 120:
            raise ValueError(f"fps is {self.fps}; expected a rate above 0 and up to 120")
        if self.short_side is not None and not 16 <= self.short_side <= 2160:
            raise ValueError(f"short_side is {self.short_side}; expected 16 to 2160 pixels")
        if self.min_seconds <= 0:
            raise ValueError(f"min_seconds is {self.min_seconds}; expected a length above 0 s")
        if self.faces not in get_args(Faces):
            raise ValueError(f"faces is {self.faces!r}; expected one of {get_args(Faces)}")
        if self.face_tracks not in (1, 2):
            raise ValueError(f"face_tracks is {self.face_tracks}; expected 1 or 2")
        if (self.waveform_rate_hz is None) != (self.waveform_channels == 0):
            raise ValueError("waveform_rate_hz and waveform_channels must be set together")
        self._check_rates()

    def _check_rates(self) -> None:
        _check_divides("mel_rate_hz", self.mel_rate_hz, self.fps * MEL_SLICES_PER_FRAME)
        if self.waveform_rate_hz is not None:
            _check_divides("waveform_rate_hz", self.waveform_rate_hz, self.fps)

    @property
    def hop_samples(self) -> int:
        """Samples between mel slices: three slices tile one frame (architecture §4)."""
        return int(self.mel_rate_hz / (self.fps * MEL_SLICES_PER_FRAME))

    @property
    def stores_frames(self) -> bool:
        """Whether samples hold pictures."""
        return self.short_side is not None

    @property
    def face_suffixes(self) -> tuple[str, ...]:
        """What is appended to a face member's name, one entry a stored track."""
        return ("", "2")[: self.face_tracks] if self.faces != "off" else ()

    @property
    def members(self) -> tuple[str, ...]:
        """The members of every sample of a set with this config, in the order they are written."""
        names = ["json"]
        names += ["frames.mjpeg"] if self.stores_frames else []
        names += ["mel.npy"]
        names += ["audio.flac"] if self.waveform_rate_hz is not None else []
        for suffix in self.face_suffixes:
            names += [f"landmarks{suffix}.npy", f"face{suffix}.mjpeg"]
            names += [f"lip{suffix}.mjpeg"] if self.lips else []
        return tuple(names)

    def as_dict(self) -> dict[str, Any]:
        """The config as JSON types, rationals as `"25/1"`."""
        return {
            name: rational_text(value) if isinstance(value, Fraction) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "ShardConfig":
        """The inverse of `as_dict`; unknown fields are ignored by name, not by accident."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        values["fps"] = Fraction(values["fps"])
        values["min_seconds"] = Fraction(values["min_seconds"])
        return cls(**values)


@dataclass(frozen=True)
class Limits:
    """What one input may cost before it is refused; never part of the bytes."""

    max_pixels: int = 4096 * 2304
    """Largest coded picture, width x height."""
    max_streams: int = 16
    """Most streams in one file."""
    max_clip_seconds: float = 600.0
    """Longest sample; longer recordings want `--window`."""
    max_packet_bytes: int = 1 << 29
    """Most compressed bytes held for the windows decoded together."""
    memory_bytes: int = 4 << 30
    """Address space of the child process (RLIMIT_AS)."""
    base_seconds: float = 30.0
    """Wall-clock time an item may take to open, and the least it gets in all."""
    seconds_per_second: float = 12.0
    """Wall-clock seconds granted for each second of video."""
    items_per_child: int = 200
    """Items after which a child is replaced, which bounds leaks of the codecs."""


def _check_divides(name: str, rate_hz: int, per_second: Fraction) -> None:
    """Refuse a rate that has no whole number of samples for each grid step."""
    if rate_hz > 0 and (Fraction(rate_hz) / per_second).denominator == 1:
        return
    good = [hz for hz in COMMON_RATES_HZ if (Fraction(hz) / per_second).denominator == 1]
    raise ValueError(
        f"{name} is {rate_hz} Hz, which is no whole number of samples at {per_second} steps a "
        f"second; rates that are: {', '.join(map(str, good)) or 'none of the common ones'}"
    )


COMMON_RATES_HZ = (
    8000,
    11025,
    12000,
    16000,
    21000,
    22050,
    24000,
    30000,
    32000,
    44100,
    48000,
    96000,
)


def rational_text(value: Fraction) -> str:
    """`25/1` for 25: how rationals stand in JSON."""
    return f"{value.numerator}/{value.denominator}"


def canonical_hash(value: Any) -> str:
    """The sha256 of a JSON value, independent of key order and white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
