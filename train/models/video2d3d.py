"""The 2D-3D ResNet-18 of DPC: two stages look at single pictures, two at time as well.

As in the released code (methods §6): strides of 2 from the second stage on, in the 3D stages over
time, too, a last stage no wider than the third, and no ReLU at the end.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

STAGE_FRAMES = (1, 1, 3, 3)
"""Kernel of each stage over time; the stages with 3 stride over time as they do over space."""
STAGE_WIDTHS = (1, 2, 4, 4)
STAGE_STRIDES = (1, 2, 2, 2)
SPATIAL_STRIDE = 32
"""Pixels of the picture to a cell of the grid."""


class ResNet2d3d(nn.Module):
    """Stem, max-pool, four stages of two blocks.

    Attributes:
        out_channels: C of the output, 4 x width.
    """

    def __init__(self, width: int = 64) -> None:
        """Build the network and initialise it (Kaiming normal, fan out).

        Args:
            width: channels of the stem and of the first stage.
        """
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_bn(3, width, (1, 7, 7), (1, 2, 2)),
            nn.ReLU(inplace=True),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
        widths = [width, *(width * times for times in STAGE_WIDTHS)]
        stages = zip(pairwise(widths), STAGE_FRAMES, STAGE_STRIDES, strict=True)
        self.res2, self.res3, self.res4, self.res5 = [
            _stage(c_in, c_out, frames, stride, rectified=number < len(STAGE_FRAMES))
            for number, ((c_in, c_out), frames, stride) in enumerate(stages, 1)
        ]
        self.out_channels = widths[-1]
        self.apply(_initialise)

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, 4 width, T/4, H/32, W/32), rounded up; not rectified."""
        features: Tensor = self.res5(self.res4(self.res3(self.res2(self.stem(video)))))
        return features


class _Block(nn.Module):
    """Two convolutions and a shortcut, strided by the first; then ReLU if `rectified`."""

    def __init__(
        self, c_in: int, c_out: int, frames: int, stride: int = 1, rectified: bool = True
    ) -> None:
        super().__init__()
        kernel = (frames, 3, 3)
        strides = (stride if frames > 1 else 1, stride, stride)
        self.residual = nn.Sequential(
            *_conv_bn(c_in, c_out, kernel, strides),
            nn.ReLU(inplace=True),
            *_conv_bn(c_out, c_out, kernel, (1, 1, 1)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(*_conv_bn(c_in, c_out, (1, 1, 1), strides))
        self.rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        both: Tensor = self.residual(x) + self.shortcut(x)
        return torch.relu(both) if self.rectified else both


def _stage(c_in: int, c_out: int, frames: int, stride: int, rectified: bool) -> nn.Sequential:
    """Two blocks; the first one changes width and size, the second one may lack its ReLU."""
    last = _Block(c_out, c_out, frames, rectified=rectified)
    return nn.Sequential(_Block(c_in, c_out, frames, stride), last)


def _conv_bn(
    c_in: int, c_out: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> list[nn.Module]:
    """A convolution padded by half its kernel, and its BatchNorm."""
    frames, height, width = (side // 2 for side in kernel)
    padding = (frames, height, width)
    return [
        nn.Conv3d(c_in, c_out, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm3d(c_out),
    ]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
