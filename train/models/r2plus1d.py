"""R(2+1)D: 3D convolutions taken apart into one over space and one over time (methods §3).

The form that AVID trains: a full 3D stem, as many channels between the two halves of a convolution
as behind them, and the last BatchNorm of a block behind the sum with the shortcut, which has none
of its own. Time is strided as space is from conv3x on: 8 frames of 224 pixels end as one map of
7 x 7. The last map is not pooled; how to is the head's business.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from train.models.stages import run_stages

STAGE_BLOCKS = {10: 1, 18: 2}
"""Blocks in each of the four stages, by depth; 10 is the "9 layers" of AVID's analysis."""
STAGES = ("conv2x", "conv3x", "conv4x", "conv5x")


class R2Plus1DBlock(nn.Module):
    """Space, time, space, time, with BatchNorm and ReLU between; plus the shortcut; BN; ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        """Build one block.

        Args:
            c_in: width before.
            c_out: width after, and everywhere inside.
            stride: of the first two convolutions, one in space and one in time.
        """
        super().__init__()
        self.residual = nn.Sequential(
            _over_space(c_in, c_out, stride),
            nn.BatchNorm3d(c_out),
            nn.ReLU(inplace=True),
            _over_time(c_out, stride),
            nn.BatchNorm3d(c_out),
            nn.ReLU(inplace=True),
            _over_space(c_out, c_out, 1),
            nn.BatchNorm3d(c_out),
            nn.ReLU(inplace=True),
            _over_time(c_out, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Conv3d(c_in, c_out, 1, stride=stride, bias=False)
        self.norm = nn.BatchNorm3d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T/stride, H/stride, W/stride)."""
        return torch.relu(self.norm(self.residual(x) + self.shortcut(x)))


class R2Plus1D(nn.Module):
    """Stem and four stages; no pooling at the end.

    Attributes:
        out_channels: 8 x width.
    """

    def __init__(self, *, depth: int = 18, width: int = 64) -> None:
        """Build the network, with torch's default initialisation as in AVID's code.

        Args:
            depth: 18, or 10 with one block a stage.
            width: channels of the stem and of conv2x.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
        blocks = STAGE_BLOCKS[depth]
        self.conv2x = _stage(width, width, 1, blocks)
        self.conv3x = _stage(width, 2 * width, 2, blocks)
        self.conv4x = _stage(2 * width, 4 * width, 2, blocks)
        self.conv5x = _stage(4 * width, 8 * width, 2, blocks)
        self.out_channels = 8 * width

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, out_channels, ceil(T/8), ceil(H/32), ceil(W/32))."""
        return self.stages(video, ("conv5x",))["conv5x"]

    def stages(self, video: Tensor, wanted: Collection[str] = STAGES) -> dict[str, Tensor]:
        """The maps of the wanted stages, by name; what comes behind the last one is not computed.

        Returns:
            conv2x: (B, width, T, H/4, W/4); from there on every stage has twice the channels and
                half the frames, rows and columns, rounded up.
        """
        return run_stages(self, self.stem(video), STAGES, wanted)


def _over_space(c_in: int, c_out: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(
        c_in, c_out, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
    )


def _over_time(channels: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(
        channels, channels, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False
    )


def _stage(c_in: int, c_out: int, stride: int, blocks: int) -> nn.Sequential:
    """The first block changes width and size."""
    rest = (R2Plus1DBlock(c_out, c_out, 1) for _ in range(blocks - 1))
    return nn.Sequential(R2Plus1DBlock(c_in, c_out, stride), *rest)
