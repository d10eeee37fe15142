"""AVSlowFast: two paths for the pictures with lateral connections, and sound that joins them.

The slow path sees every alpha-th frame at full width, the fast path all frames with 1/beta of it;
time is never strided inside a path. Before each stage of the slow path the fast path's features
join it, brought to its frame rate (SlowFast, Feichtenhofer et al. 2019 §3.4). The audio encoder's
features join both after res3, res4 and res5 (A -> FS; Xiao et al. 2020 §3.2; methods §6).

    res2   slow, lateral(fast)               -> res3 of slow
    res3   slow, lateral(fast) + sound       -> res4 of slow
    res4   slow, lateral(fast) + sound       -> res5 of slow
    res5   means of slow, of fast  + sound   -> `fused`

DropPathway: sound may be missing, for some clips of a batch or for all. Where it is, its share is
what the mean sound of training would contribute: sound comes in through a BatchNorm, whose shift is
exactly that. A network without sound is thus no other than one with, and downstream tasks whose
clips are silent use the same weights.

Of each stage the visual features are given as they are before this stage's sound has joined them.
From res4 on they know of the sound that joined before; who compares them with sounds must use clips
whose sound was dropped, or the answer is in the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.padding import TemporalPadding
from train.models.video import Block, VideoResNet
from train.objectives.global_local import SLICES_PER_FRAME

LATERAL_FRAMES = 5
LATERAL_RATIO = 2
"""A lateral connection has this many times the channels of the fast path."""


@dataclass(frozen=True)
class Seen:
    """What the network finds in pictures."""

    slow: Tensor
    """(B, C_s, ceil(T / alpha), H, W)."""
    fast: Tensor
    """(B, C_f, T, H, W)."""
    pooled: tuple[Tensor, Tensor, Tensor]
    """Of res3, res4 and res5 the visual features before their sound joined: (B, C) means over
    place and time; C as in `AvSlowFast.pooled_channels`."""
    fused: Tensor
    """(B, C) of res5, with sound where there was some."""


class AvSlowFast(nn.Module):
    """Slow path, fast path, lateral connections, and the entrances of sound.

    Attributes:
        slow, fast: the paths.
        lateral: from the fast path into res2 to res5 of the slow one.
        sound: entrances after res3, res4 and res5.
        pooled_channels: C of `Seen.pooled`.
        out_channels: C of `Seen.fused`.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        beta: int = 8,
        alpha: int = 4,
        depth: int = 18,
        block: Block = "sf",
        strides: Sequence[int] = (1, 2, 1, 1),
        temporal_padding: TemporalPadding = "zeros",
        audio_channels: Sequence[int] = (128, 256, 512),
    ) -> None:
        """Build the network; arguments as in `VideoResNet` but for these.

        Args:
            width: of the slow path.
            beta: the fast path has width / beta channels.
            alpha: the slow path sees every alpha-th frame.
            depth: of both paths.
            block: of both paths.
            strides: of both paths.
            temporal_padding: of both paths.
            audio_channels: of the audio features that join after res3, res4 and res5.
        """
        super().__init__()
        self.alpha = alpha
        path = partial(VideoResNet, depth=depth, block=block, strides=strides,
                       temporal_padding=temporal_padding)  # fmt: skip
        self.fast = path("fast", width=width // beta)
        of_fast = [width // beta, *self.fast.stage_channels.values()]
        joins = [LATERAL_RATIO * channels for channels in of_fast[:4]]
        self.slow = path("slow", width=width, joins=joins)
        of_slow = list(self.slow.stage_channels.values())
        self.lateral = nn.ModuleList(Lateral(channels, alpha) for channels in of_fast[:4])
        self.pooled_channels = (
            of_slow[1] + joins[2], of_slow[2] + joins[3], of_slow[3] + of_fast[4]
        )  # fmt: skip
        self.out_channels = self.pooled_channels[-1]
        self.sound = nn.ModuleList(
            SoundEntrance(c_in, c_out)
            for c_in, c_out in zip(audio_channels, self.pooled_channels, strict=True)
        )

    def forward(
        self,
        video: Tensor,
        sound: Sequence[Tensor] | None = None,
        dropped: Tensor | None = None,
    ) -> Seen:
        """Look at clips.

        Args:
            video: (B, 3, T, H, W).
            sound: audio features (B, C, 3T) of res3, res4 and res5; None for silent clips.
            dropped: bool (B,), whose sound is left out; None leaves out none.
        """
        at3, at4, at5 = self._entering(sound, dropped)
        slow = self.slow.pool(self.slow.stem(video[:, :, :: self.alpha]))
        fast = self.fast.pool(self.fast.stem(video))
        slow, fast = self.slow.res2(self._joined(0, slow, fast)), self.fast.res2(fast)
        slow, fast = self.slow.res3(self._joined(1, slow, fast)), self.fast.res3(fast)
        both3 = self._joined(2, slow, fast)
        slow, fast = self.slow.res4(both3 + at3), self.fast.res4(fast)
        both4 = self._joined(3, slow, fast)
        slow, fast = self.slow.res5(both4 + at4), self.fast.res5(fast)
        end = torch.cat([_mean(slow), _mean(fast)], dim=1)
        return Seen(slow, fast, (_mean(both3), _mean(both4), end), end + at5.mean(dim=(2, 3, 4)))

    def _joined(self, stage: int, slow: Tensor, fast: Tensor) -> Tensor:
        """The slow path's features and, at its frame rate, the fast path's."""
        return torch.cat([slow, self.lateral[stage](fast)], dim=1)

    def _entering(
        self, sound: Sequence[Tensor] | None, dropped: Tensor | None
    ) -> tuple[Tensor, ...]:
        """What joins after res3, res4 and res5: (B or 1, C, T' or 1, 1, 1) each."""
        rated: Sequence[Tensor | None] = (
            (None, None, None) if sound is None else [_at_slow_rate(x, self.alpha) for x in sound]
        )
        return tuple(
            entrance(heard, dropped) for entrance, heard in zip(self.sound, rated, strict=True)
        )


class Lateral(nn.Sequential):
    """From the fast path to the frame rate of the slow one, time-strided (SlowFast §3.4)."""

    def __init__(self, channels: int, alpha: int) -> None:
        """A convolution of 5 frames to twice the channels, BatchNorm, ReLU."""
        convolution = nn.Conv3d(
            channels, LATERAL_RATIO * channels, (LATERAL_FRAMES, 1, 1), stride=(alpha, 1, 1),
            padding=(LATERAL_FRAMES // 2, 0, 0), bias=False,
        )  # fmt: skip
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        norm = nn.BatchNorm3d(LATERAL_RATIO * channels)
        super().__init__(convolution, norm, nn.ReLU(inplace=True))


class SoundEntrance(nn.Module):
    """Audio features to the channels that they join; every cell of a frame gets the same."""

    def __init__(self, c_in: int, c_out: int) -> None:
        """A linear map of each time step, and the BatchNorm that stands in for missing sound."""
        super().__init__()
        self.project = nn.Conv1d(c_in, c_out, 1, bias=False)
        self.norm = nn.BatchNorm1d(c_out)

    def forward(self, sound: Tensor | None, dropped: Tensor | None) -> Tensor:
        """(B, C_in, T), or None for no sound at all -> (B or 1, C_out, T or 1, 1, 1)."""
        missing = self.norm.bias[None, :, None]
        if sound is None:
            return missing[..., None, None]
        heard: Tensor = self.norm(self.project(sound))
        if dropped is not None:
            heard = torch.where(dropped[:, None, None], missing, heard)
        return heard[..., None, None]


def _at_slow_rate(sound: Tensor, alpha: int) -> Tensor:
    """(B, C, 3T) -> (B, C, ceil(T / alpha)): means over the time until the next slow frame."""
    return F.avg_pool1d(sound, SLICES_PER_FRAME * alpha, ceil_mode=True)


def _mean(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3, 4))
