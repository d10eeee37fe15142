"""What AVID and CMA can be asked to be: one frozen dataclass each, and the presets.

Defaults are the paper's training at scale (§5) where it says, then its released code (methods §3).
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from train.augment import AugmentConfig
from train.cuts import Clip, Cut, Reads, Stretch
from train.models.r2plus1d import STAGE_BLOCKS
from train.objectives.agreement import Agreement

Objective = Literal["cross", "self", "joint"]
Within = Literal["paper", "code"]

CODE_NEGATIVES = 64
"""Negatives of the within-modal term in the released code."""
LEAST_TAU = 0.0125
"""exp(1 / tau) is still a float32."""


@dataclass(frozen=True)
class AvidConfig:
    """AVID: input, networks, objective."""

    frames: int = 8
    """Pictures of a clip, half a second at 16 fps."""
    crop: int = 224
    """Side of the square pictures in pixels."""
    objective: Objective = "cross"
    """Which memories a clip is told apart by: those of the other modality (`cross`, Eq. 4), of the
    same one (`self`, Eq. 3), or both (`joint`, Eq. 5)."""
    depth: int = 18
    """Layers of the video network: 18, or 10 with one block a stage (the paper's analysis)."""
    width: int = 64
    """Channels of both networks' stems; their last stages have 8 times that."""
    hidden: int = 512
    """Width of the two hidden layers of each head."""
    embedding: int = 128
    """D: numbers of an embedding and of a memory."""
    negatives: int = 1024
    """K: memories drawn for each clip and step, >= 1; a few clips are drawn several times."""
    tau: float = 0.07
    """Temperature, 0.0125 or more."""
    momentum: float = 0.5
    """Share of the old memory in the new one, 0 to less than 1."""
    wave_rate_hz: int = 24000
    """Samples a second of the stored waveform."""
    audio_seconds: float = 2.0
    """Length of the sound."""
    offset_seconds: float = 0.5
    """The sound begins at most so much before or after the pictures, as far as the clip lasts."""
    n_fft: int = 1024
    """Samples of an analysis window."""
    hop: int = 240
    """Samples from one step of the spectrogram to the next."""
    bins: int = 257
    """Frequencies of the spectrogram: all n_fft / 2 + 1, or one more than a divisor of n_fft / 2,
    such as n_fft / 4 + 1, where pairs of neighbours are averaged."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained, saying what could."""
        for name, known in (("objective", get_args(Objective)), ("depth", tuple(STAGE_BLOCKS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {known}")
        for name in ("frames", "crop", "width", "hidden", "embedding", "negatives", "wave_rate_hz",
                     "n_fft", "hop", "bins"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not self.tau >= LEAST_TAU:
            raise ValueError(f"tau is {self.tau}; expected a temperature of {LEAST_TAU} or more")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; expected 0 to less than 1")
        if self.offset_seconds < 0 or self.samples < self.hop:
            raise ValueError(
                f"offset_seconds is {self.offset_seconds}, audio_seconds {self.audio_seconds}; "
                f"expected 0 or more, and at least one step of {self.hop} samples"
            )

    sound = "wave"
    """What the audio network eats."""

    @property
    def told_apart_from(self) -> str:
        """What a clip is told apart from, for the log."""
        return f"{self.negatives} memories of other clips are negatives of each clip"

    @property
    def samples(self) -> int:
        """Of the sound."""
        return round(self.audio_seconds * self.wave_rate_hz)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What one clip gives the module, without the batch dimension."""
        return {
            "video": (3, self.frames, self.crop, self.crop),
            "wave": (1, 1, self.samples),
        }

    @property
    def reads(self) -> Reads:
        """What is read of each clip."""
        return Reads(
            frames=self.frames,
            least_frames=self.frames,
            mel=False,
            wave_rate_hz=self.wave_rate_hz,
            profile="avid",
            cut=self.cut,
        )

    def cut(self, clip: Clip, generator: np.random.Generator) -> Cut:
        """Pictures at a random time, and sound that begins near them.

        Near the ends of the clip the sound is moved inside; only of a clip that is shorter than the
        sound there are zeros behind its end.
        """
        start = int(generator.integers(clip.frames - self.frames + 1))
        offset = generator.uniform(-self.offset_seconds, self.offset_seconds)
        first = round((start / clip.fps + offset) * self.wave_rate_hz)
        last = int(clip.frames / clip.fps * self.wave_rate_hz) - self.samples
        first = max(min(first, last), 0)
        return Cut(
            pictures=range(start, start + self.frames), stretches=(Stretch(first, self.samples),)
        )


@dataclass(frozen=True)
class AvidCmaConfig(AvidConfig):
    """AVID with positives by cross-modal agreement."""

    found_positives: int = 32
    """Instances that are found to agree with each one; the paper's scale experiments find 128."""
    used_positives: int = 32
    """K_p: how many of these a step takes, drawn anew each time; at most found_positives."""
    agreement: Agreement = "consensus"
    """What agrees: both modalities (`consensus`, Eq. 6), either (`union`), `video` or `audio`
    (Fig. 4)."""
    refresh_epochs: float = 50.0
    """Epochs between one search for positives and the next, > 0."""
    warmup_epochs: float = 0.0
    """Epochs of Cross-AVID before the first search, for a run that does not start (`--init`) from
    one of AVID."""
    positive_weight: float = 1.0
    """Lambda of Eq. 9: weight of the within-modal term beside the cross-modal one's 1, > 0."""
    within: Within = "paper"
    """Negatives of the within-modal term: those of the cross-modal one (`paper`, Eq. 8), or as in
    the released code 64, among which the clip's own memory may be (`code`)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, saying what could."""
        super().__post_init__()
        for name, known in (("agreement", get_args(Agreement)), ("within", get_args(Within))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {known}")
        if self.objective != "cross":
            raise ValueError(
                f"objective is {self.objective!r}; CMA goes with 'cross' (Eq. 9). The others are "
                "of --method avid"
            )
        if not 1 <= self.used_positives <= self.found_positives:
            raise ValueError(
                f"used_positives is {self.used_positives}, found_positives "
                f"{self.found_positives}; expected 1 or more, and no more used than found"
            )
        if not self.refresh_epochs > 0 or not self.warmup_epochs >= 0:
            raise ValueError(
                f"refresh_epochs is {self.refresh_epochs}, warmup_epochs {self.warmup_epochs}; "
                "expected more than 0, and 0 or more"
            )
        if not self.positive_weight > 0:
            raise ValueError(
                f"positive_weight is {self.positive_weight}; expected more than 0 (without the "
                "within-modal term it is --method avid)"
            )


_ANALYSIS = {"frames": 16, "crop": 112, "depth": 10, "n_fft": 512, "hop": 480, "bins": 129}
_TINY = {
    "crop": 64,
    "depth": 10,
    "width": 8,
    "hidden": 128,
    "embedding": 64,
    "negatives": 128,
    "n_fft": 512,
    "hop": 480,
    "bins": 129,
}

PRESETS: dict[str, AvidConfig] = {
    "avid_r2plus1d18": AvidConfig(),
    "analysis": AvidConfig(**_ANALYSIS),  # type: ignore[arg-type]
    "tiny": AvidConfig(**_TINY),  # type: ignore[arg-type]
}
"""`avid_r2plus1d18` is the paper's Cross-AVID at scale (§5), `analysis` its smaller one (§3.3):
16 frames of 112 pixels in a second, 100 x 129 spectrograms. `tiny` is for two CPU cores."""

CMA_PRESETS: dict[str, AvidCmaConfig] = {
    "avid_cma_r2plus1d18": AvidCmaConfig(),
    "analysis": AvidCmaConfig(**_ANALYSIS),  # type: ignore[arg-type]
    "tiny": AvidCmaConfig(
        **_TINY,  # type: ignore[arg-type]
        found_positives=4,
        used_positives=4,
        refresh_epochs=5,
        warmup_epochs=1,
    ),
}
"""As `PRESETS`, each to start from the run of AVID with the same preset; `tiny` can do without."""

RECIPE: dict[str, Any] = {
    "optimizer": "adam",
    "lr": 2e-4,
    "weight_decay": 1e-5,
    "batch_size": 256,
    "epochs": 300,
    "warmup_steps": 0,
    "clip_norm": 0.0,
    "augment": AugmentConfig(
        crop_area=(0.08, 1.0), grayscale=0.0, colour_jitter=0.4, hue=0.2, volume=0.1
    ),
}
"""AVID on Kinetics in the released code, whose 30 epochs show each clip 10 times; its batch is that
of all devices together. There the rate stays what it is; here it falls along a cosine, as it does
for every method."""

RECIPES: dict[str, dict[str, Any]] = {
    "analysis": {"lr": 1e-4, "epochs": 400},
    "tiny": {
        "lr": 1e-3,
        "batch_size": 4,
        "epochs": 300,
        "augment": AugmentConfig(crop_area=(0.5, 1.0), grayscale=0.0, volume=0.1),
    },
}
"""`tiny` is for sets of a few dozen clips. There all memories of a modality are alike at first, and
the loss stays where equal scores put it: on 27 demo clips, without augmentation, retrieval among
memories was 0.06 in steps 1 to 160, and 0.15 in steps 641 to 800 (chance 0.037)."""
CMA_RECIPE: dict[str, Any] = {**RECIPE, "epochs": 200}
CMA_RECIPES: dict[str, dict[str, Any]] = {**RECIPES, "analysis": {"lr": 1e-4, "epochs": 200}}
"""After a run of AVID: 20 epochs of the released code, and the second 200 of the analysis."""
