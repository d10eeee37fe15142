"""AVTS: is the sound in time with the pictures? (GLCM paper Table 5, there [46]; methods §6)

A clip of pictures and a clip of sound become one vector each, by the mean of their features over
place and time and a head. `train.methods.sync_pairs` has the pairs, their loss and the curriculum.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from train.cuts import PartialMelClips, RunFacts
from train.methods.sync_pairs import (
    Curriculum,
    Projection,
    SyncConfig,
    contrast,
    distances,
    gathered_embeddings,
    hard_pairs,
    pair_chances,
    pair_facts,
    sound_pieces,
)
from train.methods.table5 import seen, stage_channels, video_encoder
from train.models.audio import AudioResNet
from train.objectives.global_local import Gather, keep_local, own_first

EXACT = "donot_use_mm_for_euclid_dist"
"""By matrix products, small distances would lose their digits."""


@dataclass(frozen=True)
class AvtsConfig(SyncConfig):
    """The whole method: input, encoders, objective."""


class SyncClips(Protocol):
    """What of a `train.batch.Batch` the method looks at, after augmentation."""

    @property
    def video(self) -> Tensor:
        """Float (B, 3, W, H, W'), normalised; the first T pictures are looked at."""

    @property
    def mel(self) -> Tensor:
        """Float (B, 80, 3W)."""

    @property
    def instance(self) -> Tensor:
        """int64 (B,): ids of the clips."""

    @property
    def numbers(self) -> dict[str, Tensor]:
        """sounds: int64 (B, 2), see `SyncConfig.input_numbers`."""


class Avts(nn.Module):
    """Encoders, heads and the contrastive loss.

    Attributes:
        encoder: of the pictures.
        audio: of the mel.
        project_v, project_a: heads to the space where distances are taken.
        memory: how far the curriculum is.
    """

    def __init__(self, config: AvtsConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: differentiable gathering over ranks: easy wrong pairs are of any rank's clips.
        """
        super().__init__()
        self.config = config
        self.gather = gather
        self.encoder = video_encoder(config)
        self.audio = AudioResNet(width=config.width, temporal_padding=config.temporal_padding)
        c_v, c_a = self.encoder.out_channels, self.audio.out_channels
        self.project_v = Projection(c_v, config)
        self.project_a = Projection(c_a, config)
        self.memory = Curriculum()

    def prepare(self, facts: RunFacts) -> None:
        """Learn how long the schedule is."""
        self.memory.prepare(facts)

    @property
    def feature_channels(self) -> dict[str, int]:
        """C of each entry of `features`."""
        return {"fv": self.encoder.out_channels, "fa": self.audio.out_channels}

    @property
    def further_channels(self) -> dict[str, int]:
        """C of the maps that `features` gives only by name: the visual encoder's stages."""
        return stage_channels(self.encoder)

    def features(
        self, clips: PartialMelClips, wanted: Collection[str] = ("fv", "fa")
    ) -> dict[str, Tensor]:
        """What downstream tasks use: features before the heads, unpooled.

        Returns:
            fv: (B, C, T, H', W'), and
            fa: (B, C, 3T); what was not given or is not wanted is left out.
            res2 ... res5: the visual encoder's stages, if wanted.
        """
        found = seen(self.encoder, clips.video, wanted)
        if clips.mel is not None and "fa" in wanted:
            found["fa"] = self.audio(clips.mel)
        return found

    def forward(self, batch: SyncClips) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            loss: what to minimise; the only entry with a gradient.
            facts of `pair_facts`, a2v_r1 (share of sounds to which no other pictures are as close
            as their own) and hard_share, of wrong pairs.
        """
        embedded = self.embed(batch)
        found = distances(*embedded)
        own = hard_pairs(self.config, self.memory, batch.instance, self.training)
        is_hard = self.gather(own.float()) > 0
        loss = contrast(found, is_hard, self.config.eta).mean()
        if self.training:
            self.memory.count()
        pictures, sounds = (x.detach() for x in embedded[:2])
        return {
            "loss": loss,
            **pair_facts(found, torch.ones_like(is_hard)),
            "a2v_r1": own_first(-torch.cdist(sounds, pictures, compute_mode=EXACT)),
            "hard_share": is_hard.float().mean(),
        }

    def embed(self, batch: SyncClips) -> tuple[Tensor, ...]:
        """(N, D) of all ranks' clips each: pictures, right sounds, hard wrong sounds."""
        frames = self.config.frames
        pictures = self.encoder(batch.video[:, :, :frames]).mean(dim=(2, 3, 4))
        sounds = self.audio(sound_pieces(batch.mel, batch.numbers["sounds"], frames)).mean(dim=2)
        vectors = self.project_v(pictures), self.project_a(sounds)
        return gathered_embeddings(*vectors, self.gather)

    def with_controls(self, batch: SyncClips) -> dict[str, Tensor]:
        """What held-out evaluation measures: `forward`, and what chance gives."""
        facts = self(batch)
        clips = len(self.gather(batch.instance[:, None].float()))
        return {
            **facts,
            **pair_chances(),
            "a2v_r1_chance": torch.tensor(1 / clips),
        }


_R18 = AvtsConfig()
_TINY = AvtsConfig(frames=8, crop=64, width=16, D=64)

PRESETS: dict[str, AvtsConfig] = {
    "avts_r18": _R18,
    "avts_r18_grid": replace(_R18, frames=12),
    "tiny": _TINY,
    "tiny_grid": replace(_TINY, frames=12),
}
"""`avts_r18` needs clips of 3.7 s; the `_grid` ones use 29 of GRID's 30 frames, `tiny` 21."""
