"""Co-attention: is this sound in sync with these pictures? (ACM MM 2020 paper §3, methods §5.)

The way of a clip: pictures -> a cell's vector each (F_v), sound -> a moment's vector each (F_a);
co-attention lets each stream look at the other one; all they then know is joined to one logit. Each
clip is asked about twice in the same batch, with the sound of its window and with its own sound of
another time, and its pictures are encoded once for both, as in the multisensory network whose
sampling the paper follows.
"""

import math
from collections.abc import Callable, Collection
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.cuts import PartialWaveClips
from train.methods.coattention_config import PRESETS, SOUNDS, CoattentionConfig
from train.models.attention import full_precision
from train.models.coattention import CoAttention
from train.models.small3d import SmallVideoNet
from train.models.waveform import WaveNet1d
from train.objectives.global_local import Gather, keep_local

__all__ = ["PRESETS", "Coattention", "CoattentionConfig"]

CHANCE = 0.5
"""Of a decision between in sync and not, for there are as many of either."""


class Clips(Protocol):
    """What of a `train.batch.Batch` the method looks at, after augmentation."""

    @property
    def video(self) -> Tensor:
        """Float (B, 3, T, H, W), normalised."""

    @property
    def wave(self) -> Tensor:
        """Float (B, 2, channels, samples): the sound in sync, and the shifted one."""


class Coattention(nn.Module):
    """Encoders, co-attention, and the decision.

    Attributes:
        visual: E_v, with the linear layer to F_v.
        audio: E_a, with the linear layer to F_a.
        coattention: F_a, F_v -> H_a, H_v.
        decision: H_a, H_v -> a logit, above 0 for "in sync".
    """

    def __init__(self, config: CoattentionConfig, gather: Gather = keep_local) -> None:
        """Build the networks; `gather` is not needed, as no clip is compared with another one."""
        super().__init__()
        self.config = config
        self.visual = SmallVideoNet(
            width=config.visual_width,
            out_channels=config.width,
            conv1_stride=config.conv1_stride,
            strides=config.strides,
        )
        self.audio = WaveNet1d(width=config.audio_width, out_channels=config.width)
        self.coattention = CoAttention(
            depth=config.depth,
            guidance=config.guidance,
            width=config.width,
            heads=config.heads,
            ffn_width=config.ffn_width,
        )
        vectors = 2 if config.fusion == "mean" else sum(self._lengths())
        self.decision = nn.Sequential(
            nn.Linear(vectors * config.width, config.fusion_width),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.fusion_width, 1),
        )

    def _lengths(self) -> tuple[int, int]:
        return self.coattention.lengths(self.config.moments, self.config.grid**2)

    @property
    def feature_channels(self) -> dict[str, int]:
        """C of the features before fusion; those after it have as many."""
        return {"fv": self.visual.out_channels, "fa": self.audio.out_channels}

    @property
    def further_channels(self) -> dict[str, int]:
        """C of what `features` gives only by name: the streams after fusion."""
        width = self.visual.out_channels
        return {"hv": width, "ha": width, "fused": 2 * width}

    def forward(self, batch: Clips) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            loss: binary cross-entropy, mean over both sounds of all clips.
            sync_accuracy: share of right decisions, "in sync" being a logit above 0.
            sync_pair_accuracy: share of clips whose sound in sync has the higher logit; equal ones
                count half.

        Raises:
            ValueError: there are not two sounds for each clip.
        """
        moments, cells = self._look(batch)
        return self._decide(moments, cells)

    def with_controls(self, batch: Clips) -> dict[str, Tensor]:
        """What held-out evaluation measures: also with foreign sound, and what guessing gives.

        Swapped, by one place, each clip has both sounds of another clip, of which one was in sync
        there. A network that tells the two apart by the sounds alone, as by how recordings begin,
        is as good as before; one that compares sound and pictures falls to chance.

        Returns:
            what `forward` returns, and
            loss_swapped, sync_accuracy_swapped, sync_pair_accuracy_swapped: with foreign sound;
                left out for a batch of one clip, which has no other.
            loss_chance, sync_accuracy_chance, sync_pair_accuracy_chance.
        """
        moments, cells = self._look(batch)
        facts = self._decide(moments, cells)
        for name in ("sync_accuracy", "sync_pair_accuracy"):
            facts[f"{name}_chance"] = torch.tensor(CHANCE)
        facts["loss_chance"] = torch.tensor(-math.log(CHANCE))
        if len(cells) > 1:
            swapped = self._decide(moments.roll(1, dims=0), cells)
            facts |= {f"{name}_swapped": value.detach() for name, value in swapped.items()}
        return facts

    def _look(self, batch: Clips) -> tuple[Tensor, Tensor]:
        """F_a of both sounds (B, 2, N_a, d) and F_v (B, N_v, d)."""
        if batch.wave.ndim != 4 or batch.wave.shape[:2] != (len(batch.video), SOUNDS):
            raise ValueError(
                f"waveforms {tuple(batch.wave.shape)} for pictures {tuple(batch.video.shape)}; "
                "expected (clips, 2, channels, samples): the sound in sync and the shifted one"
            )
        moments = as_vectors(self.audio(batch.wave.flatten(0, 1)))
        return moments.view(-1, SOUNDS, *moments.shape[1:]), self._cells(self.visual(batch.video))

    def _decide(self, moments: Tensor, cells: Tensor) -> dict[str, Tensor]:
        """Loss and facts."""
        twice = cells.repeat_interleave(SOUNDS, dim=0)
        logits = self.logit(moments.flatten(0, 1), twice).view(-1, SOUNDS)
        with full_precision(logits):
            logits = logits.float()
            in_sync = torch.zeros_like(logits)
            in_sync[:, 0] = 1
            loss = F.binary_cross_entropy_with_logits(logits, in_sync)
        said = logits.detach()
        higher = (said[:, 0] - said[:, 1]).sign()
        return {
            "loss": loss,
            "sync_accuracy": ((said > 0) == in_sync.bool()).float().mean(),
            "sync_pair_accuracy": (higher + 1).mean() / 2,
        }

    def logit(self, moments: Tensor, cells: Tensor) -> Tensor:
        """How surely a sound is in sync with pictures.

        Args:
            moments: (B, N_a, d) F_a.
            cells: (B, N_v, d) F_v.

        Returns:
            (B,), above 0 for "in sync".

        Raises:
            ValueError: `fusion="flatten"` was built for another length or size.
        """
        fused = self.coattention(moments, cells)
        if self.config.fusion == "mean":
            return self._decision([stream.mean(dim=1) for stream in fused])
        config, (clip_moments, clip_cells) = self.config, (moments.shape[1], cells.shape[1])
        if (clip_moments, clip_cells) != (config.moments, config.grid**2):
            raise ValueError(
                f"{clip_moments} vectors of the sound and {clip_cells} of the pictures; this "
                f"network decides about {config.moments} and {config.grid**2}: windows of "
                f"{config.sound_seconds:g} s and {config.crop} pixels, or train fusion='mean'"
            )
        return self._decision([stream.flatten(1) for stream in fused])

    def _decision(self, streams: list[Tensor]) -> Tensor:
        return self.decision(torch.cat(streams, dim=1)).squeeze(1)  # type: ignore[no-any-return]

    def _cells(self, fv: Tensor) -> Tensor:
        """(B, d, T', H', W') -> F_v (B, H' W', d): the mean over time (paper §3.1)."""
        return as_vectors(fv.mean(dim=2).flatten(2))

    def features(
        self, clips: PartialWaveClips, wanted: Collection[str] = ("fv", "fa")
    ) -> dict[str, Tensor]:
        """What downstream tasks use: features before and after fusion, unpooled.

        Several lengths and sizes are taken, but for `att`; pictures or sound may be None, and what
        needs them is left out, as is what is not wanted. Pictures are all stored ones, of which
        every `frame_step`-th is seen, while those of `forward` are chosen already.

        Returns:
            fv: (B, d, T', H', W'), of which F_v is the mean over T'.
            fa: (B, d, K), F_a.
            hv: (B, d, N) H_v; of pictures alone, with Q_v := F_v, where there is no sound (paper
                §5.2, vision only).
            ha: (B, d, N) H_a.
            fused: (B, 2 d, 1), the means of H_a and H_v side by side; not without sound.
            att: (B, H', W') see `attention`.
            att_heads: (B, heads, H', W') where each head of the first audio-guided block looks,
                mean over the sound's moments, each map sums to 1; not with guidance "vga".
        """
        found: dict[str, Tensor] = {}
        if clips.wave is not None:
            found["fa"] = self.audio(clips.wave.flatten(0, 1))
        if clips.video is not None:
            maps = self.visual.maps(clips.video[:, :, :: self.config.frame_step])
            found["fv"] = self.visual.projected(maps)
            both = clips.wave is not None
            found |= self._fused(found, wanted)
            if both and "att" in wanted:
                found["att"] = self.attention(maps, as_vectors(found["fa"]))
        return {name: value for name, value in found.items() if name in wanted}

    def _fused(self, found: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        """What co-attention makes of fv, and of fa where there is sound."""
        cells, fused = self._cells(found["fv"]), {}
        if "fa" not in found:
            if "hv" in wanted:
                fused["hv"] = as_vectors(self.coattention.pictures_alone(cells))
            return fused
        moments = as_vectors(found["fa"])
        if {"hv", "ha", "fused"} & set(wanted):
            streams = self.coattention(moments, cells)
            fused["ha"], fused["hv"] = (as_vectors(stream) for stream in streams)
            fused["fused"] = torch.cat([fused["ha"].mean(2), fused["hv"].mean(2)], 1).unsqueeze(2)
        if "att_heads" in wanted and self.coattention.sound_guides:
            heads = self.coattention.head_maps(moments, cells).mean(dim=2)
            fused["att_heads"] = heads.view(*heads.shape[:2], *found["fv"].shape[-2:])
        return fused

    def attention(self, maps: Tensor, moments: Tensor) -> Tensor:
        """Where the network sees what makes it say "in sync": a class activation map (paper §4).

        The sum of the last convolution's maps, each weighed by what the logit gains with it. Where
        a linear layer follows the maps' global average, that gain is its weight, as in the CAM that
        the paper names; here, where attention stands between, it is the gradient of the logit,
        averaged over the map (as Selvaraju et al. 2017 generalise it). A map has no scale: it is
        lifted to a smallest value of 0, and divided by its sum.

        Args:
            maps: (B, C, T', H', W') of `visual.maps`.
            moments: (B, N_a, d) F_a.

        Returns:
            (B, H', W') float32, sums to 1; uniform where no place is better than another.
        """
        return class_activation(
            lambda found: self.logit(moments.detach(), self._cells(self.visual.projected(found))),
            maps,
        )


def as_vectors(features: Tensor) -> Tensor:
    """(B, d, N) -> (B, N, d), and back."""
    return features.transpose(1, 2)


def class_activation(logit: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """Class activation maps of a function that gives each clip its logit.

    Args:
        logit: (B, C, T, H, W) -> (B,).
        maps: (B, C, T, H, W).

    Returns:
        (B, H, W) float32, at least 0, sums to 1.
    """
    with torch.enable_grad():
        seen = maps.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(logit(seen).sum(), seen)
    weights = gradient.mean(dim=(2, 3, 4))
    found = torch.einsum("bc,bcthw->bhw", weights, seen.detach()) / maps.shape[2]
    lifted = found - found.amin(dim=(1, 2), keepdim=True)
    total = lifted.sum(dim=(1, 2), keepdim=True)
    uniform = torch.full_like(found, 1 / found[0].numel())
    # Rounding alone must not make a map: of equal values it would point at one of them.
    flat = total <= 1e-6 * found.abs().sum(dim=(1, 2), keepdim=True)
    return torch.where(flat, uniform, lifted / total.clamp(min=torch.finfo(torch.float32).tiny))
