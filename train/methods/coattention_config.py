"""What co-attention can be asked to be: a frozen dataclass, how its clips are cut, the presets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from train.augment import AugmentConfig
from train.cuts import Clip, Cut, Reads, Stretch
from train.errors import UsageError
from train.models.coattention import Guidance
from train.models.small3d import Strides, grid_side
from train.models.waveform import LEAST_SAMPLES, steps

Fusion = Literal["flatten", "mean"]

RATE_HZ, CHANNELS = 21_000, 2
"""Of the waveform, which the profile `coattention` stores."""
SOUNDS = 2
"""Of each clip: the one in sync, and the one shifted."""


@dataclass(frozen=True)
class CoattentionConfig:
    """The whole method: input, shifts, encoders, fusion."""

    frames: int = 126
    """Pictures of a window, all of which the network sees."""
    frame_step: int = 1
    """Every so many stored frames is one of them; 4 is the 7.5 Hz of the paper's first phase."""
    crop: int = 224
    """Side of the square pictures in pixels."""
    fps: float = 30.0
    """Frames a second of the clips that `frames` and `frame_step` are meant for."""
    sound_seconds: float = 4.2
    """Length of a sound, which is that of a window."""
    least_shift_seconds: float = 2.0
    """Of the sound that is out of sync; clips in which it does not fit are left out. It is the
    paper's, shorter than a sound: up to 2.2 of 4.2 s are heard in both, at other times of the
    pictures. With 4.2 nothing is, in clips of 8.4 s and more."""
    most_shift_seconds: float = 5.8
    """What a clip of 10 s has room for beside a window of 4.2 s."""
    guidance: Guidance = "cma"
    """`cma`: sound and pictures guide each other; `aga`: the sound guides what is seen; `vga`: the
    pictures guide what is heard (Table 1)."""
    depth: int = 1
    """L: co-attention modules in a row (Table 3)."""
    heads: int = 8
    """A: attention heads (Table 3)."""
    width: int = 512
    """H: d of the features and of all attention; a multiple of `heads`."""
    ffn_width: int = 2048
    """Of the middle of the feed-forward networks."""
    audio_width: int = 64
    """Channels of the waveform encoder's first convolution; others have up to 4 times that."""
    visual_width: int = 64
    """Channels of the visual encoder's convolutions."""
    conv1_stride: int = 2
    """Of the first 3D convolution. The paper writes 1: eight times the cost, and 7 x 7 cells."""
    strides: Strides = (2, 2, 2, 2)
    """Of the other 3D convolutions in space, each 1 or 2; the picture ends as
    crop / (2 conv1_stride x their product) cells a side. In time they halve."""
    fusion: Fusion = "flatten"
    """What the decision sees of H_a and H_v: all their vectors in order (`flatten`, the paper's,
    which ties it to one length of sound and size of pictures), or the `mean` of each."""
    fusion_width: int = 512
    """Of the hidden layer of the decision."""
    dropout: float = 0.5
    """Before the last layer of the decision, 0 .. 1; the paper gives it for fine-tuning only."""

    sound: ClassVar[str] = "wave"

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained, saying what could."""
        object.__setattr__(self, "strides", tuple(self.strides))  # JSON has lists only
        self._check_network()
        self._check_window()
        self._check_shifts()

    def _check_network(self) -> None:
        for name, known in {"guidance": get_args(Guidance), "fusion": get_args(Fusion)}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {known}")
        sizes = ("frames", "frame_step", "crop", "depth", "heads", "width", "ffn_width")
        for name in (*sizes, "audio_width", "visual_width", "fusion_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided by {self.heads} heads")
        given = (self.conv1_stride, *self.strides)
        if len(self.strides) != 4 or not set(given) <= {1, 2}:
            raise ValueError(
                f"conv1_stride is {self.conv1_stride}, strides {self.strides}; expected one number "
                "and four, each 1 or 2"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; expected 0 to below 1")

    def _check_window(self) -> None:
        if self.samples < LEAST_SAMPLES:
            raise ValueError(
                f"sound_seconds is {self.sound_seconds}; the waveform encoder needs "
                f"{LEAST_SAMPLES / RATE_HZ:.2f} s or more"
            )
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps}; expected more than 0")
        expected = _ceil(self.sound_seconds * self.fps / self.frame_step)
        if self.frames != expected:
            raise ValueError(
                f"frames is {self.frames}; a sound of sound_seconds {self.sound_seconds:g} lasts "
                f"as long as {expected} pictures at fps {self.fps:g} and frame_step "
                f"{self.frame_step}: change one of them"
            )

    def _check_shifts(self) -> None:
        if not 0 < self.least_shift_seconds <= self.most_shift_seconds:
            raise ValueError(
                f"least_shift_seconds is {self.least_shift_seconds}, most_shift_seconds "
                f"{self.most_shift_seconds}; expected the smaller first, both above 0"
            )

    @property
    def told_apart_from(self) -> str:
        """What a clip is told apart from, for the log."""
        return "each clip with its sound shifted is the negative of the same clip in sync"

    @property
    def samples(self) -> int:
        """Of a sound."""
        return round(self.sound_seconds * RATE_HZ)

    @property
    def window_frames(self) -> int:
        """Stored frames of a window, of which every `frame_step`-th is seen."""
        return _ceil(self.sound_seconds * self.fps)

    @property
    def grid(self) -> int:
        """Cells along a side of what the visual encoder gives."""
        return grid_side(self.crop, self.conv1_stride, self.strides)

    @property
    def moments(self) -> int:
        """Vectors that the waveform encoder gives."""
        return steps(self.samples)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What one clip gives the module, without the batch dimension."""
        return {
            "video": (3, self.frames, self.crop, self.crop),
            "wave": (SOUNDS, CHANNELS, self.samples),
        }

    @property
    def input_numbers(self) -> dict[str, int]:
        """Widths of what a cut tells beside: by how many samples the second sound is shifted."""
        return {"shift": 1}

    @property
    def reads(self) -> Reads:
        """Pictures of a window and two sounds, of clips in which the least shift fits."""
        # Counted apart, for windows begin at whole frames.
        least = _ceil(self.sound_seconds * self.fps) + _ceil(self.least_shift_seconds * self.fps)
        return Reads(
            frames=self.frames,
            least_frames=least,
            mel=False,
            wave_rate_hz=RATE_HZ,
            wave_channels=CHANNELS,
            profile="coattention",
            cut=self.cut,
        )

    def cut(self, clip: Clip, rng: np.random.Generator) -> Cut:
        """A window with its sound, and the same clip's sound at another time.

        The shift is drawn first, evenly from those that the clip has room for, then whether it is
        earlier or later, then the window from those in which both sounds lie inside of the clip. So
        over many draws a sound in sync begins as often at a place in the clip as one that is
        shifted: how a clip begins or ends does not tell which of them is heard.

        Raises:
            UsageError: the clip has another frame rate.
            ValueError: it is too short.
        """
        if not math.isclose(clip.fps, self.fps, rel_tol=1e-3):
            raise UsageError(
                f"a clip of {clip.fps:g} fps, and the config is for {self.fps:g}; use shards of "
                "PROFILE=coattention, or set fps, frames and frame_step"
            )
        last = self._last_start(clip)
        least = _ceil(self.least_shift_seconds * clip.fps)
        most = math.floor(round(self.most_shift_seconds * clip.fps, 6))
        if last < least:
            raise ValueError(
                f"a clip of {clip.frames / clip.fps:.2f} s has no room for {self.sound_seconds:g} "
                f"s of sound and the same shifted by {self.least_shift_seconds:g} s"
            )
        # In whole frames: else only sounds in sync would ever begin with the clip's very first
        # sample, or in step with its pictures.
        shift = int(rng.integers(least, max(min(most, last), least), endpoint=True))
        start = int(rng.integers(0, last - shift, endpoint=True))
        own, other = (start, start + shift) if rng.random() < 0.5 else (start + shift, start)
        first, shifted = (round(frame * RATE_HZ / clip.fps) for frame in (own, other))
        return Cut(
            pictures=range(own, own + self.frames * self.frame_step, self.frame_step),
            stretches=(Stretch(first, self.samples), Stretch(shifted, self.samples)),
            numbers={"shift": [shifted - first]},
        )

    def _last_start(self, clip: Clip) -> int:
        """The last frame at which a window can begin: its pictures and its sound end in time."""
        heard = clip.frames - _ceil(self.samples / RATE_HZ * clip.fps)
        return min(clip.frames - (self.frames - 1) * self.frame_step - 1, heard)


def _ceil(number: float) -> int:
    """The next whole number, where 4.2 x 30 is 126."""
    return math.ceil(round(number, 6))


_PAPER = CoattentionConfig()
_SLOW = replace(_PAPER, frames=32, frame_step=4)

PRESETS: dict[str, CoattentionConfig] = {
    "coattention": _PAPER,
    "coattention_7hz": _SLOW,
    "tiny": replace(
        _SLOW,
        crop=64,
        strides=(2, 2, 1, 1),
        heads=4,
        width=64,
        ffn_width=128,
        audio_width=8,
        visual_width=16,
        fusion_width=64,
        dropout=0.0,
    ),
}
"""`coattention` is the paper's best model at the full frame rate, `coattention_7hz` its first
phase, in which every fourth frame is seen. `tiny` sees as many pictures and hears as much as that,
with a quarter of the width (an eighth for sound and in attention), the paper's 4 x 4 cells of 64
pixels, and no dropout, with which so few units came to rest at "one half" before they had found
what agrees."""

RECIPE: Mapping[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 1e-5,
    "clip_norm": 5.0,
    # 224 of 256 pixels at a random place, and nothing else: mirrored pictures would contradict
    # stereo sound.
    "augment": AugmentConfig(resized_crop=False, flip=0.0, grayscale=0.0),
}
"""The paper's §3.2; batches of 32, and 100 epochs of 240,000 clips are its 750,000 iterations.
Gradients are clipped as in the multisensory network."""

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "coattention_7hz": {"batch_size": 64, "epochs": 27},
    "tiny": {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "warmup_steps": 50},
}
"""The first phase's 100,000 iterations; its last checkpoint is the other one's --init."""
