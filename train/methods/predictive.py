"""What CPC and DPC share: clips cut into blocks, and the loss of a prediction among candidates.

Both look at a clip as a row of short blocks, sum up the blocks so far in a recurrent state and say
what a later one will be like. How good that is they measure as a choice: the score of what was
predicted with what came against its scores with everything else (InfoNCE), which is the cross
entropy of a softmax over all candidates with the one positive.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from train.cuts import Clip, Cut, Reads
from train.dist import own_rank
from train.methods.table5 import (
    EncoderConfig,
    Pictures,
    require_at_least,
    seen,
    stage_channels,
)
from train.models.attention import full_precision
from train.objectives.global_local import Gather, keep_local

SCORES_AT_ONCE = 2**26
"""Float32 scores, 256 MiB, that exist at a time: of more, rows are done in parts, and their scores
computed anew for the gradient."""


@dataclass(frozen=True)
class BlockConfig(EncoderConfig):
    """A clip as a row of blocks; configs of the methods add their own fields."""

    frames: int = 32
    """T: pictures of a clip, all blocks together; a multiple of `blocks`."""
    blocks: int = 8
    """N: blocks one after the other, without overlap; more than steps_ahead."""
    frame_step: int = 1
    """Every so many-th frame is shown in training, >= 1; 3 of 30 frames a second in DPC's released
    code, 1 of 10."""
    hidden: int = 256
    """Width of the recurrent state."""
    steps_ahead: int = 3
    """K: how many blocks are predicted after the context."""
    gather: bool = True
    """Whether clips of other ranks are negatives."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained, saying what could."""
        super().__post_init__()
        for name in ("blocks", "frame_step", "hidden", "steps_ahead"):
            require_at_least(name, getattr(self, name), 1)
        if self.frames % self.blocks:
            raise ValueError(
                f"frames is {self.frames} and blocks {self.blocks}; all blocks are equally long, "
                "so frames must be a multiple of blocks (32 and 8; GRID: 28 and 7)"
            )
        if self.blocks <= self.steps_ahead:
            raise ValueError(
                f"blocks is {self.blocks} and steps_ahead {self.steps_ahead}; at least one block "
                "must come before those that are predicted"
            )

    @property
    def block_frames(self) -> int:
        """L: pictures of a block."""
        return self.frames // self.blocks

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What one clip gives the module, without the batch dimension."""
        return self.views(1)

    @property
    def reads(self) -> Reads:
        """One window of pictures, no sound."""
        skips = self.frame_step > 1
        return Reads(
            frames=self.frames,
            least_frames=self.span,
            mel=False,
            cut=self.cut if skips else None,
        )

    @property
    def span(self) -> int:
        """Frames of the clip from the first picture to the last."""
        return (self.frames - 1) * self.frame_step + 1

    def cut(self, clip: Clip, rng: np.random.Generator) -> Cut:
        """Every frame_step-th frame from a random one on."""
        start = int(rng.integers(clip.frames - self.span + 1))
        return Cut(range(start, start + self.span, self.frame_step))


# --- blocks -------------------------------------------------------------------------------------


def in_blocks(video: Tensor, block_frames: int) -> Tensor:
    """(B, 3, N * L, H, W) -> (B * N, 3, L, H, W): the blocks of a clip one after the other.

    Raises:
        ValueError: the frames are no whole number of blocks.
    """
    clips, channels, frames, height, width = video.shape
    if frames % block_frames:
        raise ValueError(
            f"{frames} frames cannot be cut into blocks of {block_frames}; expected a multiple"
        )
    blocks = video.view(clips, channels, -1, block_frames, height, width)
    flat: Tensor = blocks.transpose(1, 2).flatten(0, 1)
    return flat


# --- the loss -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """How well candidates were chosen."""

    loss: Tensor
    """Mean over this rank's predictions, with gradient."""
    accuracy: Tensor
    """Share of predictions that score their own candidate above all others; a tie is a miss."""
    within: Tensor
    """The same among the candidates of the prediction's own clip: what knowing the clip alone does
    not give."""
    candidates: int
    """Of each prediction, the positive among them; over all ranks if gathered."""
    candidates_per_clip: int

    def facts(self, name: str) -> dict[str, Tensor]:
        """For `forward`: loss, NAME_accuracy and NAME_within_accuracy."""
        return {
            "loss": self.loss,
            f"{name}_accuracy": self.accuracy,
            f"{name}_within_accuracy": self.within,
        }

    def chances(self, name: str) -> dict[str, Tensor]:
        """For held-out evaluation: what equal scores cost, and drawing at random hits."""
        return {
            "loss_chance": torch.tensor(math.log(self.candidates)),
            f"{name}_accuracy_chance": torch.tensor(1 / self.candidates),
            f"{name}_within_accuracy_chance": torch.tensor(1 / self.candidates_per_clip),
        }


def choose(
    predicted: Tensor, candidates: Tensor, positive: Tensor, gather: Gather = keep_local
) -> Choice:
    """The loss of predictions, each with one positive among the candidates of all clips.

    Scores are dot products in float32. Candidates of all ranks are gathered; predictions stay where
    they are, and so does the score matrix, of which each rank has its own rows. The mean over ranks
    of the losses, and of their gradients, is that of the whole batch.

    Args:
        predicted: (B, A, D) of this rank.
        candidates: (B, K, D) of this rank.
        positive: int64 (A,): which of its own clip's K candidates each prediction is to meet.
        gather: (B, ...) -> (R * B, ...) with gradient, ranks in order.
    """
    clips, each = candidates.shape[:2]
    with full_precision(candidates):
        everyone = gather(candidates.float()).flatten(0, 1)
        first = own_rank() * clips if len(everyone) > clips * each else 0
        own = first + torch.arange(clips, device=candidates.device)
        targets = (own[:, None] * each + positive).flatten()
        losses, hits, hits_within = _in_parts(
            predicted.float().flatten(0, 1), everyone, targets, each
        )
    return Choice(losses.mean(), hits.mean(), hits_within.mean(), len(everyone), each)


def _in_parts(rows: Tensor, everyone: Tensor, targets: Tensor, each: int) -> list[Tensor]:
    """`_choose_rows`, with no more than SCORES_AT_ONCE scores at a time."""
    at_once = max(1, SCORES_AT_ONCE // len(everyone))
    if len(rows) <= at_once:
        return list(_choose_rows(rows, everyone, targets, each))
    parts = [
        checkpoint(
            _choose_rows, some, everyone, their, each, use_reentrant=False, preserve_rng_state=False
        )
        for some, their in zip(
            torch.split(rows, at_once), torch.split(targets, at_once), strict=True
        )
    ]
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]


def _choose_rows(
    rows: Tensor, everyone: Tensor, targets: Tensor, each: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, hit and hit within the own clip of each row, (A,) each.

    Args:
        rows: (A, D) predictions.
        everyone: (M, D) candidates, `each` of every clip one after the other.
        targets: int64 (A,) below M.
        each: candidates a clip.
    """
    scores = rows @ everyone.T
    losses = F.cross_entropy(scores, targets, reduction="none")
    with torch.no_grad():
        clip = (targets // each)[:, None, None].expand(-1, 1, each)
        own = scores.view(len(rows), -1, each).gather(1, clip).squeeze(1)
        return losses, _hits(scores, targets), _hits(own, targets % each)


def _hits(scores: Tensor, targets: Tensor) -> Tensor:
    """1.0 for each row whose target alone has the largest score."""
    target = targets[:, None]
    others = scores.scatter(1, target, -torch.inf).amax(dim=1)
    return (scores.gather(1, target).squeeze(1) > others).float()


# --- module -------------------------------------------------------------------------------------


class PredictiveMethod(nn.Module, ABC):
    """Encoder of blocks, facts and features; methods add context and predictions.

    Attributes:
        encoder: what is trained for, and used downstream.
    """

    name: ClassVar[str]
    """What the facts' names begin with."""

    def __init__(self, config: BlockConfig, encoder: nn.Module, gather: Gather) -> None:
        """Take the encoder.

        Args:
            config: of the method.
            encoder: has `out_channels`.
            gather: differentiable gathering of candidates over ranks, used if the config says so.
        """
        super().__init__()
        self.blocks, self.block_frames = config.blocks, config.block_frames
        self.steps_ahead = config.steps_ahead
        self.gather = gather if config.gather else keep_local
        self.encoder = encoder

    @abstractmethod
    def contrast(self, video: Tensor) -> Choice:
        """What is predicted of (B, 3, T, H, W) among all candidates."""

    def forward(self, batch: Pictures) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            loss: what to minimise.
            NAME_accuracy: share of predictions that score their own candidate above all others.
            NAME_within_accuracy: the same among the candidates of the own clip.
        """
        return self.contrast(_video(batch)).facts(self.name)

    def with_controls(self, batch: Pictures) -> dict[str, Tensor]:
        """What held-out evaluation measures: also loss_chance and NAME_accuracy_chance."""
        chosen = self.contrast(_video(batch))
        return chosen.facts(self.name) | chosen.chances(self.name)

    @property
    def feature_channels(self) -> dict[str, int]:
        """C of `features`."""
        return {"fv": cast(int, self.encoder.out_channels)}

    @property
    def further_channels(self) -> dict[str, int]:
        """C of the maps that `features` gives only by name: the encoder's stages."""
        return stage_channels(self.encoder)

    def features(self, clips: Pictures, wanted: Collection[str] = ("fv",)) -> dict[str, Tensor]:
        """What downstream tasks use: the encoder's features before any head, unpooled.

        Of the clip in one piece, although training shows blocks: the encoders are convolutions that
        take any length, all objectives of Table 5 are compared in the same way, and a network that
        is fine-tuned can see more than a block. With the ends of blocks padded by repetition the
        features are nearly the same: those of GRID clips, of encoders trained for 120 steps, were
        0.03 (CPC) and 0.04 (DPC) standard deviations off those computed block by block.

        Returns:
            fv: (B, C, T', H', W'); absent without pictures.
            res2 ... res5: stages of the encoder, if it has any and they are wanted.
        """
        return seen(self.encoder, clips.video, wanted)


def _video(batch: Pictures) -> Tensor:
    if batch.video is None:
        raise ValueError("the batch has no pictures; CPC and DPC learn from nothing else")
    return batch.video
