"""Is this the sound of these pictures? What AVTS and AVSlowFast share (methods §6).

A clip's pictures belong to the sound of their own time. Wrong sounds are another clip's (easy), or
the same clip's of another time (hard), which begins or ends at least half a second from the right
one, so that the two do not overlap. Pictures and sounds become vectors, and of their distances d

    L = mean over pairs of  y d^2 + (1 - y) max(0, eta - d)^2

is taken, each clip giving its right pair (y = 1) and one wrong pair (y = 0). The first part of the
schedule has easy wrong pairs only, then a share of them is hard.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from train.cuts import Clip, Cut, Reads, RunFacts
from train.errors import UsageError
from train.methods.table5 import EncoderConfig, require_above, require_at_least
from train.models.attention import full_precision
from train.models.audio import N_MELS
from train.objectives.draws import uniform
from train.objectives.global_local import SLICES_PER_FRAME, Gather

APART_SECONDS = 0.5
"""Least silence between the right sound of a clip and its wrong one."""
ROUNDING = 1e-6
"""Of parts of the schedule that have been added up."""
HARD = 0
"""What `draws.uniform` is asked for here; the methods have numbers of their own above."""


@dataclass(frozen=True)
class SyncConfig(EncoderConfig):
    """Encoder, pairs and their loss; the methods add their own fields."""

    gap_frames: int = 5
    """Frames between the right sound of a clip and its wrong one; 0.5 s or more."""
    eta: float = 0.99
    """Distance that wrong pairs are pushed apart to, > 0."""
    easy_part: float = 0.55
    """The first part of the schedule, 0 .. 1, with easy wrong pairs only."""
    hard_share: float = 0.25
    """Share of wrong pairs, 0 .. 1, that are hard in the rest of the schedule."""
    D: int = 128
    """Width of the embeddings that are compared."""
    kept_apart: bool = True
    """Whether a BatchNorm ends the heads, see `Projection`. `tiny` at 32 pixels and width 8, 12 of
    27 demo clips a step, had after 150 steps an a2v_r1 of 0.22 with it and 0.16 without (chance
    0.08; one run each, schedules of 300 and 150 steps). On GRID neither left chance in 250."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, saying what could."""
        super().__post_init__()
        for name in ("gap_frames", "D"):
            require_at_least(name, getattr(self, name), 1)
        require_above("eta", self.eta, 0)
        for name in ("easy_part", "hard_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 .. 1")

    @property
    def pictures_read(self) -> int:
        """Frames of a clip that both sounds and the gap between them take."""
        return 2 * self.frames + self.gap_frames

    @property
    def reads(self) -> Reads:
        """Mel of the whole window, pictures of its first or of its last `frames` frames."""
        return Reads(self.pictures_read, self.pictures_read, cut=self.cut)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What one clip gives the module, without the batch dimension."""
        return {
            "video": (3, self.pictures_read, self.crop, self.crop),
            "mel": (N_MELS, SLICES_PER_FRAME * self.pictures_read),
        }

    @property
    def input_numbers(self) -> dict[str, int]:
        """sounds: first frame, in the window, of the right sound and of the hard wrong one."""
        return {"sounds": 2}

    def cut(self, clip: Clip, generator: np.random.Generator) -> Cut:
        """A window anywhere in the clip, its pictures first and its wrong sound last, or reversed.

        There are as many pictures as the mel is long, so after those that are looked at the last
        one is repeated, which costs no decoding.

        Raises:
            UsageError: at the clip's rate the sounds are less than half a second apart.
        """
        if self.gap_frames < APART_SECONDS * clip.fps:
            raise UsageError(
                f"gap_frames is {self.gap_frames}, {self.gap_frames / clip.fps:.2f} s at "
                f"{clip.fps:g} frames a second; right and wrong sound of a clip must be "
                f"{APART_SECONDS} s apart: --model.gap-frames {math.ceil(APART_SECONDS * clip.fps)}"
            )
        start = int(generator.integers(clip.frames - self.pictures_read + 1))
        ends = (0, self.frames + self.gap_frames)
        right, hard = ends if generator.integers(2) else ends[::-1]
        last = start + right + self.frames - 1
        pictures = [*range(last - self.frames + 1, last), *[last] * (1 + ends[1])]
        return Cut(pictures, numbers={"sounds": (right, hard)}, mel_start=start)


class Curriculum(nn.Module):
    """How far training is in its schedule; counts batches, and is checkpointed.

    Attributes:
        batches: int64 scalar, training batches seen.
        over: float64 scalar, the part of the schedule that is over. Not `batches` over those of the
            schedule, of which there are others where a run goes on with another batch size.
        schedule_batches: of the whole schedule; None before `prepare`.
    """

    batches: Tensor
    over: Tensor

    def __init__(self) -> None:
        """At the beginning."""
        super().__init__()
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("over", torch.zeros((), dtype=torch.float64))
        self.schedule_batches: int | None = None

    def prepare(self, facts: RunFacts) -> None:
        """Learn how long the schedule is."""
        self.schedule_batches = max(facts.steps * facts.accumulation, 1)

    def part(self) -> Tensor:
        """Part of the schedule that is over, 0 .. 1, a scalar on the device.

        Raises:
            RuntimeError: `prepare` was not called.
        """
        if self.schedule_batches is None:
            raise RuntimeError(
                "the curriculum does not know how long the schedule is; call "
                "module.prepare(RunFacts(...)) before training"
            )
        return self.over.clamp(max=1).float()

    def count(self) -> None:
        """One more batch was learnt from."""
        self.batches += 1
        if self.schedule_batches is not None:
            self.over += 1 / self.schedule_batches


def hard_pairs(
    config: SyncConfig, curriculum: Curriculum, instance: Tensor, training: bool
) -> Tensor:
    """Which clips of a batch have a hard wrong pair: bool (B,).

    In evaluation the share is that of the end of the schedule, and the draw depends on the clip
    alone: losses of different times, of which the smallest chooses `best`, are then comparable.
    """
    if not training:
        return uniform(instance, torch.zeros_like(curriculum.batches), HARD) < config.hard_share
    easy = curriculum.part() + ROUNDING < config.easy_part
    share = torch.where(easy, 0.0, config.hard_share)
    return uniform(instance, curriculum.batches, HARD) < share


def sound_pieces(mel: Tensor, sounds: Tensor, frames: int) -> Tensor:
    """Cut the right and the wrong sound of each clip out of the mel of its window.

    Encoding them apart keeps each from hearing the other through the convolutions.

    Args:
        mel: (B, 80, 3W).
        sounds: int64 (B, 2), first frame of the right and of the wrong one.
        frames: T.

    Returns:
        (2B, 80, 3T): the right ones of all clips, then the wrong ones.
    """
    first = SLICES_PER_FRAME * sounds.T.reshape(-1, 1, 1)
    places = first + torch.arange(SLICES_PER_FRAME * frames, device=mel.device)
    return mel.repeat(2, 1, 1).gather(2, places.expand(-1, mel.shape[1], -1))


class Distances(NamedTuple):
    """Of the pictures of N clips to three sounds each, (N,) float32."""

    right: Tensor
    easy: Tensor
    """To the sound of the next clip; with a single clip there is none, and the hard one counts."""
    hard: Tensor


def distances(pictures: Tensor, right: Tensor, hard: Tensor) -> Distances:
    """Euclidean distances of float32 embeddings (N, D), those of all ranks."""
    easy = right.roll(-1, dims=0) if len(right) > 1 else hard
    with full_precision(pictures):
        norms = [torch.linalg.vector_norm(pictures - x, dim=1) for x in (right, easy, hard)]
    return Distances(*norms)


def gathered_embeddings(pictures: Tensor, sounds: Tensor, gather: Gather) -> tuple[Tensor, ...]:
    """Embeddings of the clips of all ranks, the same on each of them.

    Args:
        pictures: float32 (B, D) of this rank.
        sounds: float32 (2B, D), right ones, then hard ones.
        gather: differentiable, see `train.objectives.global_local`.

    Returns:
        (N, D) each: pictures, right sounds, hard wrong sounds.
    """
    return gather(torch.stack([pictures, *sounds.chunk(2)], dim=1)).unbind(dim=1)


def contrast(found: Distances, is_hard: Tensor, eta: float) -> Tensor:
    """The loss of each clip's two pairs, (N,): a mean over them is one over all pairs.

    Args:
        found: distances.
        is_hard: bool (N,), which clips have a hard wrong pair.
        eta: margin.
    """
    wrong = torch.where(is_hard, found.hard, found.easy)
    return (found.right.square() + (eta - wrong).clamp(min=0).square()) / 2


def pair_facts(found: Distances, counted: Tensor) -> dict[str, Tensor]:
    """Are right pairs closer than wrong ones?

    Args:
        found: distances of N clips.
        counted: bool (N,), which clips count; at least one.

    Returns:
        avc_accuracy: share of clips whose pictures are closer to their sound than to another
            clip's (a tie is a miss); avts_accuracy: than to their own clip's of another time.
        d_right, d_easy, d_hard: mean distances.
    """
    weights = counted.float() / counted.sum()
    right, easy, hard = (x.detach() for x in found)
    values = {
        "avc_accuracy": (right < easy).float(),
        "avts_accuracy": (right < hard).float(),
        "d_right": right,
        "d_easy": easy,
        "d_hard": hard,
    }
    return {name: (weights * value).sum() for name, value in values.items()}


def pair_chances() -> dict[str, Tensor]:
    """What no knowledge gives."""
    return {
        "avc_accuracy_chance": torch.tensor(0.5),
        "avts_accuracy_chance": torch.tensor(0.5),
    }


class Projection(nn.Module):
    """The head before a comparison [D]: two layers, and a BatchNorm that keeps vectors apart.

    Its outputs have mean 0 and, over a batch, a mean square length of eta^2 / 2, so that vectors
    which have nothing to do with each other are eta apart. Without that, vectors are far more than
    eta apart at first, so that only right pairs pull, and all vectors become alike, eta / 2 away
    from those of the other sense: the least loss that needs no knowledge (0.245 at eta 0.99), at
    which GRID clips stayed from step 100 to 300, while demo clips got away from there.
    """

    def __init__(self, channels: int, config: SyncConfig) -> None:
        """Build the head.

        Args:
            channels: of the features.
            config: has D, eta and whether vectors are kept apart.
        """
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, config.D, bias=not config.kept_apart),
        )
        norm = nn.BatchNorm1d(config.D, affine=False)
        self.apart = norm if config.kept_apart else nn.Identity()
        self.scale = config.eta / math.sqrt(2 * config.D) if config.kept_apart else 1.0

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels) -> (B, D) float32.

        Raises:
            ValueError: there is a single clip to learn from.
        """
        if self.training and len(features) == 1:
            raise ValueError("a contrast learns from 2 clips or more; raise --batch-size")
        vectors = self.layers(features)
        with full_precision(vectors):
            found: Tensor = self.scale * self.apart(vectors.float())
        return found
