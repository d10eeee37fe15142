"""AVSlowFast: synchrony at several stages, and rotation (GLCM paper Table 5, there [81]).

A slow and a fast path with lateral connections look at a clip that is turned by 0, 90, 180 or 270
degrees; sound joins them on the way (`train.models.avslowfast`), except for clips whose sound is
dropped (DropPathway). The loss is the sum of

    L_sync      of res3, res4 and res5: AVTS's contrast of what is seen, before sound joins at that
                stage, with the audio features of the stage; of clips without sound only, because
                the others' visual features have heard the answer
    L_rotation  cross-entropy of the four turns, from res5 of both paths and the sound

Downstream tasks use both paths without sound, as DropPathway has accustomed them to be. Methods §6
says what is our decision; the pairs and the curriculum are those of `train.methods.sync_pairs`.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.cuts import PartialMelClips, RunFacts
from train.methods.avts import SyncClips
from train.methods.sync_pairs import (
    HARD,
    Curriculum,
    Distances,
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
from train.methods.table5 import require_at_least
from train.models.audio import AudioResNet
from train.models.avslowfast import AvSlowFast
from train.objectives.draws import uniform
from train.objectives.global_local import Gather, keep_local

STAGES = ("res3", "res4", "res5")
TURNS = 4
ROTATION, DROP = HARD + 1, HARD + 2
"""What `train.objectives.draws.uniform` is asked for."""


@dataclass(frozen=True)
class AvSlowFastConfig(SyncConfig):
    """The whole method: input, encoders, objectives."""

    frames: int = 32
    """T: frames that the fast path sees; a multiple of n_slow."""
    n_slow: int = 8
    """Frames the slow path sees: every (frames / n_slow)-th, also in longer clips downstream."""
    beta: int = 8
    """The fast path has width / beta channels."""
    drop_first: float = 0.8
    """Share of clips, 0 .. 1, whose sound is dropped at the start of the schedule; it changes
    linearly to drop_last."""
    drop_last: float = 0.5
    """The share at the end, 0 .. 1."""
    w_sync: float = 1.0
    """Weight of the sum of the stages' L_sync, > 0."""
    w_rotation: float = 1.0
    """Weight of L_rotation, > 0."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, saying what could."""
        super().__post_init__()
        for name in ("n_slow", "beta"):
            require_at_least(name, getattr(self, name), 1)
        if self.frames % self.n_slow:
            raise ValueError(
                f"frames is {self.frames} and n_slow {self.n_slow}; every k-th frame goes to the "
                "slow path, so frames must be a multiple of n_slow"
            )
        if self.width % self.beta:
            raise ValueError(f"width {self.width} cannot be divided by beta {self.beta}")
        for name in ("drop_first", "drop_last"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 .. 1")
        for name in ("w_sync", "w_rotation"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a weight above 0")

    @property
    def alpha(self) -> int:
        """The slow path sees every alpha-th frame."""
        return self.frames // self.n_slow


class AvSlowFastMethod(nn.Module):
    """Network, audio encoder, heads and both objectives.

    Attributes:
        visual: slow and fast path, lateral connections, entrances of sound.
        audio: of the mel.
        project_v, project_a: for each stage, heads to the space where distances are taken.
        rotation: linear, to the four turns.
        memory: how far curriculum and DropPathway are.
    """

    def __init__(self, config: AvSlowFastConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: differentiable gathering over ranks: easy wrong pairs are of any rank's clips.
        """
        super().__init__()
        self.config = config
        self.gather = gather
        padding = config.temporal_padding
        self.audio = AudioResNet(width=config.width, temporal_padding=padding)
        audio_channels = [self.audio.stage_channels[stage] for stage in STAGES]
        self.visual = AvSlowFast(
            width=config.width,
            beta=config.beta,
            alpha=config.alpha,
            depth=config.depth,
            block=config.block,
            strides=config.strides,
            temporal_padding=padding,
            audio_channels=audio_channels,
        )
        seen = self.visual.pooled_channels
        self.project_v = nn.ModuleList(Projection(c, config) for c in seen)
        self.project_a = nn.ModuleList(Projection(c, config) for c in audio_channels)
        self.rotation = nn.Linear(seen[-1], TURNS)
        self.memory = Curriculum()

    def prepare(self, facts: RunFacts) -> None:
        """Learn how long the schedule is."""
        self.memory.prepare(facts)

    @property
    def feature_channels(self) -> dict[str, int]:
        """C of each entry of `features`."""
        slow, fast = self.visual.slow.out_channels, self.visual.fast.out_channels
        return {"fg": slow, "fl": fast, "fa": self.audio.out_channels}

    def features(
        self, clips: PartialMelClips, wanted: Collection[str] = ("fg", "fl", "fa")
    ) -> dict[str, Tensor]:
        """What downstream tasks use: features before the heads, unpooled.

        The visual ones never have heard the sound, also where there is some: a task that asks
        whether picture and sound belong together must not find the answer in the picture.

        Returns:
            fg: (B, C_g, ceil(T / alpha), H, W) of the slow path,
            fl: (B, C_l, T, H, W) of the fast one, and
            fa: (B, C_a, 3T); what was not given or is not wanted is left out.
        """
        found = {}
        if clips.video is not None and {"fg", "fl"} & set(wanted):
            seen = self.visual(clips.video)
            found = {"fg": seen.slow, "fl": seen.fast}
        if clips.mel is not None and "fa" in wanted:
            found["fa"] = self.audio(clips.mel)
        return {name: feature for name, feature in found.items() if name in wanted}

    def forward(self, batch: SyncClips) -> dict[str, Tensor]:
        """The loss of a batch; in evaluation without sound in the pictures' paths, as downstream.

        Returns:
            loss: what to minimise; the only entry with a gradient.
            loss_sync, loss_rotation: its terms; loss_sync is the sum of the stages'.
            rotation_accuracy, and the facts of `pair_facts` of res5.
            hard_share of wrong pairs; dropped_share of clips whose sound did not join.
        """
        config = self.config
        frames = config.frames
        dropped, everyone = self._dropped(batch.instance)
        turns = self._turns(batch.instance)
        heard = self.audio.stages(sound_pieces(batch.mel, batch.numbers["sounds"], frames))
        sounds = [heard[stage] for stage in STAGES]
        own = [stage.chunk(2)[0] for stage in sounds] if self.training else None
        seen = self.visual(turned(batch.video[:, :, :frames], turns), own, dropped)
        found = self._distances(seen.pooled, sounds)
        is_hard = self._gathered(hard_pairs(config, self.memory, batch.instance, self.training))
        weights = everyone.float() / everyone.sum()
        losses = [(weights * contrast(stage, is_hard, config.eta)).sum() for stage in found]
        loss_sync = torch.stack(losses).sum()
        logits = self.rotation(seen.fused)
        loss_rotation = F.cross_entropy(logits.float(), turns)
        if self.training:
            self.memory.count()
        return {
            "loss": config.w_sync * loss_sync + config.w_rotation * loss_rotation,
            "loss_sync": loss_sync.detach(),
            "loss_rotation": loss_rotation.detach(),
            "rotation_accuracy": (logits.argmax(dim=1) == turns).float().mean(),
            **pair_facts(found[-1], everyone),
            "hard_share": is_hard.float().mean(),
            "dropped_share": everyone.float().mean(),
        }

    def with_controls(self, batch: SyncClips) -> dict[str, Tensor]:
        """What held-out evaluation measures: `forward`, and what chance gives."""
        return {
            **self(batch),
            **pair_chances(),
            "loss_rotation_chance": torch.tensor(math.log(TURNS)),
            "rotation_accuracy_chance": torch.tensor(1 / TURNS),
        }

    def _dropped(self, instance: Tensor) -> tuple[Tensor, Tensor]:
        """Whose sound does not join: bool of this rank's clips, and of all ranks'.

        Of small batches none might be left for L_sync, so the clip with the smallest draw is
        always among them.
        """
        if not self.training:
            everyone = self._gathered(torch.ones_like(instance, dtype=torch.bool))
            return torch.ones_like(instance, dtype=torch.bool), everyone
        config = self.config
        share = config.drop_first + (config.drop_last - config.drop_first) * self.memory.part()
        draws = uniform(instance, self.memory.batches, DROP)
        everyone = self.gather(draws)
        lowest = everyone.min()
        return (draws < share) | (draws == lowest), (everyone < share) | (everyone == lowest)

    def _turns(self, instance: Tensor) -> Tensor:
        """int64 (B,), quarter turns; in evaluation always the same ones of a clip."""
        count = self.memory.batches if self.training else torch.zeros_like(self.memory.batches)
        return (TURNS * uniform(instance, count, ROTATION)).long()

    def _distances(self, seen: tuple[Tensor, ...], sounds: list[Tensor]) -> list[Distances]:
        """Of each stage, among the clips of all ranks."""
        heads = zip(self.project_v, self.project_a, strict=True)
        return [
            distances(*gathered_embeddings(see(picture), hear(sound.mean(dim=2)), self.gather))
            for (see, hear), picture, sound in zip(heads, seen, sounds, strict=True)
        ]

    def _gathered(self, own: Tensor) -> Tensor:
        return self.gather(own.float()) > 0


def turned(video: Tensor, turns: Tensor) -> Tensor:
    """Turn each clip to the left by its number of quarter turns.

    By flips and a transposition that all clips go through, chosen clip by clip: no more memory
    than a few copies, and no question to the device which clip is turned how.

    Args:
        video: (B, C, T, H, H).
        turns: int64 (B,), 0 .. 3.

    Raises:
        ValueError: the pictures are no squares.
    """
    if video.shape[-1] != video.shape[-2]:
        raise ValueError(f"pictures are {tuple(video.shape[-2:])}; only squares can be turned")
    turns = turns.view(-1, 1, 1, 1, 1)
    video = torch.where(turns % 2 == 1, video.transpose(3, 4), video)
    video = torch.where((turns == 1) | (turns == 2), video.flip(3), video)
    return torch.where(turns >= 2, video.flip(4), video)


_R18 = AvSlowFastConfig()
_TINY = AvSlowFastConfig(frames=16, n_slow=4, crop=64, width=16, D=64)

PRESETS: dict[str, AvSlowFastConfig] = {
    "avslowfast_r18": _R18,
    "avslowfast_r18_grid": replace(_R18, frames=12, n_slow=3),
    "tiny": _TINY,
    "tiny_grid": replace(_TINY, frames=12, n_slow=3),
}
"""`avslowfast_r18` needs clips of 6.9 s, `tiny` of 3.7 s; the `_grid` ones use 29 of GRID's 30
frames."""
