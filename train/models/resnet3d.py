"""R3D and R(2+1)D: video ResNets that stride in time too (temporal-SSL paper, Implementation).

`r3d` has full 3x3x3 convolutions; `r2plus1d` splits each into one of space and one of time with a
ReLU between them, and as many channels in between as keep the number of weights (Tran et al., "A
Closer Look at Spatiotemporal Convolutions", CVPR 2018, §3.5). The stem halves the picture and there
is no max-pool; the last three stages halve time, height and width:

    16 x 112 x 112  ->  (64, 16, 56, 56)  (128, 8, 28, 28)  (256, 4, 14, 14)  (512, 2, 7, 7)

The visual encoders of GLCM never stride in time; they are in `train.models.video`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["r2plus1d", "r3d"]
Sides = tuple[int, int, int]

STAGE_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
STEM_MIDDLE = 45
"""Channels between the two convolutions of R(2+1)D's stem, of 64 at its end."""


def middle_channels(c_in: int, c_out: int) -> int:
    """M of a 3x3x3 kernel that is split in two: the weights of both are those of the whole."""
    return (c_in * c_out * 27) // (c_in * 9 + c_out * 3)


def conv(kind: Kind, c_in: int, c_out: int, middle: int, stride: int = 1) -> nn.Module:
    """A 3x3x3 convolution, or its two parts with BatchNorm and ReLU between them; no bias."""
    if kind == "r3d":
        return nn.Conv3d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
    return _split(c_in, middle, c_out, kernel=3, frames=3, stride=(stride, stride, stride))


def _split(
    c_in: int, middle: int, c_out: int, *, kernel: int, frames: int, stride: Sides
) -> nn.Sequential:
    """1 x k x k, BatchNorm, ReLU, t x 1 x 1."""
    in_time, down, across = stride
    return nn.Sequential(
        nn.Conv3d(
            c_in,
            middle,
            (1, kernel, kernel),
            stride=(1, down, across),
            padding=(0, kernel // 2, kernel // 2),
            bias=False,
        ),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(
            middle,
            c_out,
            (frames, 1, 1),
            stride=(in_time, 1, 1),
            padding=(frames // 2, 0, 0),
            bias=False,
        ),
    )


class Block3d(nn.Module):
    """Two convolutions with BatchNorm, plus the shortcut, then ReLU."""

    def __init__(self, kind: Kind, c_in: int, c_out: int, stride: int) -> None:
        """Build one block.

        Args:
            kind: of convolution.
            c_in: width before.
            c_out: width after.
            stride: of time and space, in the first convolution and in the shortcut.
        """
        super().__init__()
        middle = middle_channels(c_in, c_out)  # of both: so the authors' released networks have it
        self.residual = nn.Sequential(
            conv(kind, c_in, c_out, middle, stride),
            nn.BatchNorm3d(c_out),
            nn.ReLU(inplace=True),
            conv(kind, c_out, c_out, middle),
            nn.BatchNorm3d(c_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv3d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm3d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T/stride, H/stride, W/stride), rounded up."""
        return torch.relu(self.residual(x) + self.shortcut(x))


class ResNet3d(nn.Module):
    """Stem and four stages; no pooling at the end. Any length and size of clip is taken.

    Attributes:
        out_channels: 8 x width.
    """

    def __init__(self, kind: Kind, *, depth: int = 18, width: int = 64) -> None:
        """Build the network and initialise it (Kaiming normal, fan out).

        Args:
            kind: `r2plus1d` or `r3d`.
            depth: 10, 18 or 34.
            width: channels of the stem.
        """
        super().__init__()
        if kind == "r3d":
            stem: nn.Module = nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        else:
            middle = max(1, STEM_MIDDLE * width // 64)
            stem = _split(3, middle, width, kernel=7, frames=3, stride=(1, 2, 2))
        self.stem = nn.Sequential(stem, nn.BatchNorm3d(width), nn.ReLU(inplace=True))
        counts = STAGE_BLOCKS[depth]
        self.res2 = _stage(kind, width, width, counts[0], 1)
        self.res3 = _stage(kind, width, 2 * width, counts[1], 2)
        self.res4 = _stage(kind, 2 * width, 4 * width, counts[2], 2)
        self.res5 = _stage(kind, 4 * width, 8 * width, counts[3], 2)
        self.out_channels = 8 * width
        self.apply(_initialise)

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, out_channels, T/8, H/16, W/16), each rounded up."""
        features: Tensor = self.res5(self.res4(self.res3(self.res2(self.stem(video)))))
        return features


def _stage(kind: Kind, c_in: int, c_out: int, count: int, stride: int) -> nn.Sequential:
    first = Block3d(kind, c_in, c_out, stride)
    return nn.Sequential(first, *(Block3d(kind, c_out, c_out, 1) for _ in range(count - 1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
