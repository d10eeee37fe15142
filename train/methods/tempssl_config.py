"""What the method of the temporal-SSL paper can be asked to be: a frozen dataclass, the presets.

Defaults are the paper's main model, or [D] of methods §4 where it is silent. Its ablations are
fields; video only or audio only is `--model.modalities`:

    Table 1 (video, R3D-18)   a positives 0 | b queue_negatives 0 | c, d negatives_from 0.1, 0.8 |
                              e weights uniform | f, g, h contrast nnclr, simclr, simsiam
    Table 2 (audio, term aa)  a, b, c tasks without speed, direction, order |
                              d sound_speed spectrogram | e and rand_stft_step True
    Table 3 (both)            a terms vv | b terms va av | c terms vv va av aa | d tasks of none |
                              e aligned False | f shared_queue True
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, get_args

from train.augment import AugmentConfig
from train.cuts import Reads
from train.models import resnet2d, resnet3d
from train.models.resnet3d import Kind
from train.objectives.temporal import TwoTransforms

Term = Literal["vv", "va", "av", "aa"]
Task = Literal["speed", "direction", "order"]
Modalities = Literal["both", "video", "audio"]
Contrast = Literal["neighbours", "nnclr", "simclr", "simsiam"]
Weights = Literal["similarity", "uniform"]
SoundSpeed = Literal["waveform", "spectrogram"]

LETTERS: dict[str, str] = {"both": "va", "video": "v", "audio": "a"}
"""Modalities by the letters that terms and heads are named with."""
STFT_STEP_FACTORS = (0.75, 1.0, 1.25)
"""Of `rand_stft_step`, times the step itself."""


@dataclass(frozen=True)
class TempSslConfig:
    """The whole method: views, encoders, heads, losses."""

    frames: int = 16
    """T: pictures of a view, whatever its speed."""
    crop: int = 112
    """Side of the square pictures in pixels."""
    fps: float = 30.0
    """Frames a second of the shards."""
    wave_rate_hz: int = 24_000
    """Of the stored waveform, mono."""
    speeds: tuple[int, ...] = (1, 2, 4, 8)
    """Classes of speed, rising; those a clip is too short for are not drawn."""
    modalities: Modalities = "both"
    """`both`, `video` alone (Table 1) or `audio` alone (Table 2)."""
    encoder: Kind = "r2plus1d"
    """Of the pictures: `r2plus1d` or `r3d`."""
    depth: int = 18
    """Layers of it: 10, 18 or 34."""
    width: int = 64
    """Channels of its stem; the last stage has 8 times that."""
    audio_depth: int = 34
    """Layers of the 2D ResNet over spectrograms: 10, 18 or 34."""
    audio_width: int = 64
    """Channels of its stem."""
    n_fft: int = 512
    """Window of the spectrogram in samples; it has n_fft / 2 + 1 bins."""
    stft_step: int = 128
    """Samples from one spectrum to the next."""
    spectrogram_side: int = 224
    """Spectrograms of a view are resized to this square."""
    hidden: int = 1024
    """Width of the hidden layers of all heads."""
    D: int = 256
    """Width of the embeddings."""
    terms: tuple[Term, ...] = ("vv", "va", "av")
    """Contrastive terms, the predicting modality first; va and av go together."""
    contrast: Contrast = "neighbours"
    """Their form: Eq. 1 with `neighbours`, or as NNCLR, SimCLR or SimSiam have it."""
    tau: float = 0.2
    """Temperature of the similarities, > 0."""
    queue: int = 16_384
    """n_q: vectors of earlier batches, a queue for each modality."""
    positives: int = 5
    """k: nearest neighbours of the queue that are positives too; 0 is none."""
    queue_negatives: int = 2048
    """m: neighbours of the queue that are negatives too; 0 is none."""
    negatives_from: float = 0.5
    """q / n_q: the part of the queue that is nearer than the first negative, 0 .. 1."""
    weights: Weights = "similarity"
    """Of the neighbours among the positives: Eq. 3, or `uniform`: each counts as the view does."""
    aligned: bool = True
    """Whether va and av compare picture and sound of the same view, not of the clip's other one."""
    shared_queue: bool = False
    """One queue of the mean of pictures and sound, instead of two."""
    tasks: tuple[Task, ...] = ("speed", "direction", "order")
    """What of the temporal self-supervision is asked; without any, views are still transformed."""
    w_temp: float = 0.5
    """lambda of Eq. 5: weight of the temporal tasks, > 0."""
    sound_speed: SoundSpeed = "waveform"
    """What is sped up and reversed: the raw `waveform`, or the resized `spectrogram`."""
    rand_stft_step: bool = False
    """Whether each sound has a spectrogram step of its own, 0.75, 1 or 1.25 times stft_step."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained, saying what could."""
        for name in ("speeds", "terms", "tasks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists only
        self._check_choices()
        self._check_sizes()
        self._check_terms()
        self._check_queue()

    def _check_choices(self) -> None:
        choices: dict[str, tuple[Any, ...]] = {
            "modalities": get_args(Modalities),
            "encoder": get_args(Kind),
            "depth": tuple(resnet3d.STAGE_BLOCKS),
            "audio_depth": tuple(resnet2d.STAGE_BLOCKS),
            "contrast": get_args(Contrast),
            "weights": get_args(Weights),
            "sound_speed": get_args(SoundSpeed),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {known}")
        for name, known in (("terms", get_args(Term)), ("tasks", get_args(Task))):
            named = getattr(self, name)
            if not set(named) <= set(known) or len(set(named)) < len(named):
                raise ValueError(f"{name} is {named}; expected each of {known} at most once")

    def _check_sizes(self) -> None:
        for name in ("frames", "crop", "wave_rate_hz", "width", "audio_width", "n_fft", "stft_step",
                     "spectrogram_side", "hidden", "D", "queue"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("fps", "tau", "w_temp"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")
        rising = all(one < other for one, other in pairwise(self.speeds))
        if not self.speeds or self.speeds[0] < 1 or not rising:
            raise ValueError(f"speeds is {self.speeds}; expected rising numbers, the first >= 1")
        if len(self.speeds) == 1 and "speed" in self.tasks:
            raise ValueError("a single speed cannot be told apart; leave speed out of tasks")
        if "a" in self.letters and self.transforms.samples < self.n_fft:
            raise ValueError(
                f"{self.frames} frames at {self.fps:g} fps are {self.transforms.samples} samples, "
                f"less than one window of the spectrogram, n_fft {self.n_fft}"
            )

    def _check_terms(self) -> None:
        foreign = {term for term in self.terms if not set(term) <= set(self.letters)}
        if foreign:
            raise ValueError(
                f"terms has {', '.join(sorted(foreign))} with modalities {self.modalities!r}; "
                "expected vv for video alone, aa for audio alone"
            )
        if ("va" in self.terms) != ("av" in self.terms):
            raise ValueError(f"terms is {self.terms}; expected va and av together")
        idle = set() if self.tasks else set(self.letters) - set("".join(self.terms))
        if idle:
            raise ValueError(
                f"terms is {self.terms} and tasks {self.tasks}: nothing trains the encoder of "
                f"{'pictures' if 'v' in idle else 'sound'}; name a term, a task, or other "
                "modalities"
            )
        if self.rand_stft_step and self.sound_speed == "waveform":
            raise ValueError(
                "rand_stft_step goes with sound_speed 'spectrogram', whose artefacts it hides"
            )

    def _check_queue(self) -> None:
        if min(self.positives, self.queue_negatives) < 0 or not 0 <= self.negatives_from <= 1:
            raise ValueError(
                f"positives is {self.positives}, queue_negatives {self.queue_negatives} and "
                f"negatives_from {self.negatives_from}; expected counts and a part, 0 .. 1"
            )
        first = int(self.negatives_from * self.queue)
        if first + self.queue_negatives > self.queue or (
            self.positives > (first if self.queue_negatives else self.queue)
        ):
            raise ValueError(
                f"{self.positives} positives and {self.queue_negatives} negatives from rank "
                f"{first} on do not fit into a queue of {self.queue}; the paper's easy negatives "
                "need queue_negatives <= 0.2 queue"
            )
        if self.shared_queue and self.modalities != "both":
            raise ValueError("shared_queue is one of pictures and sound; it needs modalities both")

    @property
    def told_apart_from(self) -> str:
        """What a clip is told apart from, for the log."""
        return (
            f"the other clips and {self.queue_negatives} of {self.queue} queued ones are negatives"
        )

    @property
    def letters(self) -> str:
        """The modalities: `v` of them, `a`, or both."""
        return LETTERS[self.modalities]

    @property
    def uses_queue(self) -> bool:
        """Whether any term looks at earlier batches."""
        looks = self.contrast == "nnclr" or (
            self.contrast == "neighbours" and self.positives + self.queue_negatives > 0
        )
        return looks and bool(self.terms)

    @property
    def stft_steps(self) -> tuple[int, ...]:
        """Samples from one spectrum to the next, of each kind of spectrogram."""
        factors = STFT_STEP_FACTORS if self.rand_stft_step else (1.0,)
        return tuple(round(self.stft_step * factor) for factor in factors)

    @property
    def transforms(self) -> TwoTransforms:
        """What draws the views of a clip."""
        return TwoTransforms(
            self.frames,
            self.fps,
            self.wave_rate_hz if "a" in self.letters else None,
            self.speeds,
            whole=self.sound_speed == "spectrogram",
            stft_steps=len(self.stft_steps),
        )

    @property
    def reads(self) -> Reads:
        """Two views of pictures with the waveform of their times; no mel.

        Video alone reads no waveform, audio alone reads pictures all the same.
        """
        return Reads(
            frames=self.frames,
            least_frames=self.transforms.least_frames,
            views=2,
            mel=False,
            wave_rate_hz=self.transforms.wave_rate_hz,
            profile="tempssl",
            cut=self.transforms,
        )

    @property
    def sound(self) -> str:
        """What the audio encoder hears."""
        return "wave"

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What one clip gives the module, without the batch dimension."""
        shapes: dict[str, tuple[int, ...]] = {"video": (2, 3, self.frames, self.crop, self.crop)}
        if "a" in self.letters:
            shapes["wave"] = (2, 1, self.transforms.stretch_samples)
        return shapes

    @property
    def input_numbers(self) -> dict[str, int]:
        """Columns of `TwoTransforms`' numbers."""
        return {"speed": 2, "backward": 2, "order": 1, "open_speeds": 1, "stft_step": 2}


_PAPER = TempSslConfig()
_TINY = TempSslConfig(
    frames=8, crop=64, encoder="r3d", depth=10, width=16, audio_depth=10, audio_width=16,
    spectrogram_side=64, hidden=128, D=64, queue=256, queue_negatives=32,
)  # fmt: skip

PRESETS: dict[str, TempSslConfig] = {
    "r2plus1d_18": _PAPER,
    "r3d_18": replace(_PAPER, encoder="r3d", crop=128),
    "r3d_34": replace(_PAPER, encoder="r3d", depth=34, crop=224),
    "tiny": _TINY,
}
"""The paper's three: R(2+1)D-18 on 16 x 112 x 112 (Tables 3 to 5), R3D-18 on 128 x 128 (Table 1),
R3D-34 on 224 x 224 (Table 4), which wants shards of a short side of 256 or more. All views fit
clips of 8.6 s. `tiny` fits two CPU cores (R(2+1)D would take 2.5 times as long) and clips of 4.3 s;
its queue, too, has room for the paper's easy negatives (0.8 x 256 + 32 <= 256)."""

RECIPE: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 3e-4,
    "weight_decay": 1e-4,
    "batch_size": 256,
    "epochs": 240,
    "warmup_steps": 833,
    "clip_norm": 0.0,
    "augment": AugmentConfig(
        crop_area=(0.2, 1.0), flip=0.5, grayscale=0.0, colour_jitter=0.4, hue=0.1
    ),
}
"""Implementation Details. Epochs of Table 4 for Kinetics-400, whose first one has 200K / 240 = 833
steps: the warm-up. Strengths of crops and colour jitter are unsaid [D]; no gradient is clipped."""

RECIPES: dict[str, dict[str, Any]] = {
    "r3d_34": {"epochs": 300, "warmup_steps": 1333},
    "tiny": {"lr": 1e-3, "batch_size": 4, "epochs": 100, "warmup_steps": 20, "clip_norm": 1.0},
}
"""R3D-34: 400K steps of 300 epochs."""
