"""The standard 2D ResNet, here over spectrograms: 7x7 stem, max-pool, four stages of basic blocks.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1. The audio encoder of
the temporal-SSL paper is the one of 34 layers with one input channel: 224 x 224 -> (512, 7, 7).
"""

import torch
from torch import Tensor, nn

STAGE_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class Block2d(nn.Module):
    """Two 3x3 convolutions with BatchNorm, plus the shortcut, then ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        """Build one block; the stride is the first convolution's and the shortcut's."""
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H/stride, W/stride), rounded up."""
        return torch.relu(self.residual(x) + self.shortcut(x))


class ResNet2d(nn.Module):
    """Stem, max-pool and four stages; no pooling at the end. Any size of input is taken.

    Attributes:
        out_channels: 8 x width.
    """

    def __init__(self, *, depth: int = 34, width: int = 64, in_channels: int = 1) -> None:
        """Build the network and initialise it (Kaiming normal, fan out).

        Args:
            depth: 10, 18 or 34.
            width: channels of the stem.
            in_channels: of the input.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        counts = STAGE_BLOCKS[depth]
        self.res2 = _stage(width, width, counts[0], 1)
        self.res3 = _stage(width, 2 * width, counts[1], 2)
        self.res4 = _stage(2 * width, 4 * width, counts[2], 2)
        self.res5 = _stage(4 * width, 8 * width, counts[3], 2)
        self.out_channels = 8 * width
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H/32, W/32), each rounded up."""
        x = self.pool(self.stem(x))
        features: Tensor = self.res5(self.res4(self.res3(self.res2(x))))
        return features


def _stage(c_in: int, c_out: int, count: int, stride: int) -> nn.Sequential:
    blocks = [Block2d(c_in, c_out, stride)]
    return nn.Sequential(*blocks, *(Block2d(c_out, c_out, 1) for _ in range(count - 1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
