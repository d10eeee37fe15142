"""What a method wants of each clip: which pictures, in which order, and which sound with them.

Most methods take one window of pictures and the mel of the same time, which is what `Reads` stands
for by itself. Others show a clip twice, skip or reverse pictures, or listen to waveforms at a time
of their own choice; their config has a property `reads` that gives a `Reads` with a `cut`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor


class Wave(NamedTuple):
    """A stored waveform, as an audio encoder wants it."""

    rate_hz: int
    channels: int


Sound = Literal["mel"] | Wave
"""What an audio encoder hears."""


class Clip(NamedTuple):
    """What a cut is made of."""

    frames: int
    """Length."""
    fps: float
    wave_rate_hz: int | None
    """Of the stored waveform."""


@dataclass(frozen=True)
class Stretch:
    """A piece of waveform: samples first, first + step, ...; zeros outside of the clip."""

    first: int
    count: int
    step: int = 1
    """Negative goes backwards."""


@dataclass(frozen=True)
class Cut:
    """What is read of a clip in one visit."""

    pictures: Sequence[int]
    """Frame numbers in the order shown, view after view."""
    stretches: tuple[Stretch, ...] = ()
    """All of the same count."""
    numbers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """What the method has to know, such as speeds; the same names and lengths for each clip."""
    mel_start: int | None = None
    """First frame of the mel; None reads none."""

    @property
    def start(self) -> int:
        """First frame shown, or heard where none is."""
        return int(min(self.pictures)) if len(self.pictures) else self.mel_start or 0


MakeCut = Callable[[Clip, np.random.Generator], Cut]


@dataclass(frozen=True)
class Reads:
    """What a method wants of the clips of a set."""

    frames: int
    """Pictures of a view."""
    least_frames: int
    """Clips with fewer are left out."""
    views: int = 1
    """Runs of pictures in a cut; each is augmented by itself."""
    mel: bool = True
    """The mel of a view's pictures; only of one view."""
    wave_rate_hz: int | None = None
    """Rate of the stored waveform; None reads none."""
    wave_channels: int = 1
    profile: str = "glcm"
    """Of the pipeline, that stores all this; for advice."""
    cut: MakeCut | None = None
    """Draws a cut; travels to the reading processes. None: one window, anywhere in the clip."""
    fields: tuple[str, ...] = ()
    """Fields of the set that come with each clip, in `Batch.fields`: see train.fields."""
    mel_member: str = "mel.npy"
    """The mel that is read; a field of a set may take the place of the samples' own."""

    def __post_init__(self) -> None:
        """What goes together."""
        if self.views > 1 and self.mel:
            raise ValueError(f"views is {self.views} and mel True; mel belongs to a single view")
        if (self.views > 1 or self.wave_rate_hz) and self.cut is None:
            raise ValueError("several views or a waveform need a `cut` that says which")

    @property
    def members(self) -> tuple[str, ...]:
        """Extensions of a sample that are read."""
        wanted = ["json", "frames.mjpeg"]
        return (
            *wanted,
            *([self.mel_member] if self.mel else []),
            *(["audio.flac"] if self.wave_rate_hz else []),
        )


def seconds_of(frames: int, fps: float) -> str:
    """Such as `28 frames = 1.12 s at 25 fps`."""
    return f"{frames} frames = {frames / fps:.2f} s at {fps:g} fps"


def cut_text(reads: Reads, fps: float) -> str:
    """What is read of a clip, for the log.

    Such as `windows of 28 frames = 1.12 s at 25 fps`; where the method draws cuts of its own, one
    of the shortest clip that it takes, as an example.

    Raises:
        UsageError: the method has no cut for clips of this rate.
    """
    if reads.cut is None:
        return f"windows of {seconds_of(reads.frames, fps)}"
    cut = reads.cut(Clip(reads.least_frames, fps, reads.wave_rate_hz), np.random.default_rng(0))
    views = np.array_split(np.asarray(cut.pictures), reads.views)
    parts = [
        f"{len(np.unique(view))} pictures from {view.min() / fps:.2f} to "
        f"{(view.max() + 1) / fps:.2f} s"
        for view in views
    ]
    rate = reads.wave_rate_hz or 1
    for sound in cut.stretches:
        ends = sorted((sound.first, sound.first + sound.count * sound.step))
        parts.append(f"the sound from {ends[0] / rate:.2f} to {ends[1] / rate:.2f} s")
    return (
        f"the method's own cuts, such as, of a clip of {seconds_of(reads.least_frames, fps)}, "
        f"{', '.join(parts)}"
    )


class PartialMelClips(Protocol):
    """What a method that hears mel is given downstream; one of the two may be missing."""

    @property
    def video(self) -> Tensor | None:
        """Float (B, 3, T, H, W), normalised, of any length T."""

    @property
    def mel(self) -> Tensor | None:
        """Float (B, 80, 3T)."""


class PartialWaveClips(Protocol):
    """What a method that hears waveforms is given downstream; one of the two may be missing."""

    @property
    def video(self) -> Tensor | None:
        """Float (B, 3, T, H, W), normalised, of any length T."""

    @property
    def wave(self) -> Tensor | None:
        """Float (B, 1, channels, samples), in -1 .. 1."""


@dataclass(frozen=True)
class RunFacts:
    """What a module may have to know of its run; see `prepare` in train.methods."""

    instances: int
    """Ids of clips are 0 .. instances - 1."""
    steps: int
    """Of the whole schedule."""
    steps_per_epoch: int
    accumulation: int = 1
    """Batches a step: a module is called so many times between two steps."""
    trained: npt.NDArray[np.int64] | None = field(default=None, compare=False)
    """Ids that batches of the run have, ascending; those between are other splits', or left out of
    a subset. None: all."""


def reads_of(config: Any) -> Reads:
    """What the method with this config wants: its `reads`, or one window with mel."""
    reads: Reads | None = getattr(config, "reads", None)
    return reads or Reads(config.frames, config.frames)


def sound_of(config: Any) -> Sound:
    """What the method with this config hears downstream."""
    reads = reads_of(config)
    if getattr(config, "sound", "mel") == "mel" or reads.wave_rate_hz is None:
        return "mel"
    return Wave(reads.wave_rate_hz, reads.wave_channels)


def window_at(start: int, reads: Reads) -> Cut:
    """One run of pictures, with the mel of its time if mel is wanted."""
    return Cut(range(start, start + reads.frames), mel_start=start if reads.mel else None)
