"""The visual encoders: 3D ResNets for the slow and the fast path (methods §1.2).

`E_v^g` (slow) sees few frames and keeps full width; `E_v^l` (fast) sees every frame with `1/beta`
of the channels. They are SlowFast's two paths without lateral connections (paper §4). Time is
never strided, so each input frame has its own output; `strides` act on the picture only.

Three kinds of residual block are built, all with the same widths:
    hara   3x3x3, 3x3x3: the 3D-ResNet the paper names (default)
    sf     kt x3x3, 1x3x3: SlowFast's, with kt = 1,1,3,3 (slow) or 3,3,3,3 (fast) by stage
    code   3x3x3, 1x1x1 (kt 3) or 1x1x1, 3x3x3 (kt 1): the released code's, for parity
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from train.models.padding import TemporalPadding, repeat_ends

Block = Literal["hara", "sf", "code"]
PathName = Literal["slow", "fast"]
Kernel = tuple[int, int, int]

STEM_KERNEL_FRAMES: dict[PathName, int] = {"slow": 1, "fast": 5}
STAGES = ("res2", "res3", "res4", "res5")
STAGE_KERNEL_FRAMES: dict[PathName, tuple[int, int, int, int]] = {
    "slow": (1, 1, 3, 3),
    "fast": (3, 3, 3, 3),
}
STAGE_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
BOTTLENECK_EXPANSION = 4


def block_kernels(block: Block, depth: int, kernel_frames: int) -> list[Kernel]:
    """The kernels of one residual block, in order.

    Args:
        block: which kind of block.
        depth: 18 (two convolutions) or 50 (bottleneck of three).
        kernel_frames: kt of the stage, 1 or 3; `hara` does not look at it.

    Raises:
        ValueError: the released code has no bottleneck to be equal to.
    """
    if depth == 50:
        if block == "code":
            raise ValueError("block 'code' is defined for depth 18; use 'hara' or 'sf' at depth 50")
        middle: Kernel = (3, 3, 3) if block == "hara" else (1, 3, 3)
        first: Kernel = (1, 1, 1) if block == "hara" else (kernel_frames, 1, 1)
        return [first, middle, (1, 1, 1)]
    if block == "hara":
        return [(3, 3, 3), (3, 3, 3)]
    if block == "sf":
        return [(kernel_frames, 3, 3), (1, 3, 3)]
    full: list[Kernel] = [(3, 3, 3), (1, 1, 1)]
    return full if kernel_frames == 3 else full[::-1]


class ResidualBlock(nn.Module):
    """Convolutions with BatchNorm and ReLU between them, plus the shortcut, then ReLU.

    Attributes:
        rectified: whether the ReLU at the end is there; DPC's last block has none.
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernels: Sequence[Kernel],
        stride: int,
        strided: int,
        padding: TemporalPadding,
    ) -> None:
        """Build one block.

        Args:
            channels: width before the first convolution and after each.
            kernels: one kernel a convolution.
            stride: spatial stride of the block.
            strided: which convolution carries it.
            padding: what stands before the first and after the last frame.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for index, ((c_in, c_out), kernel) in enumerate(
            zip(pairwise(channels), kernels, strict=True)
        ):
            layers += [nn.ReLU(inplace=True)] if index else []
            layers += conv_bn(c_in, c_out, kernel, stride if index == strided else 1, padding)
        self.residual = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels[0] != channels[-1]:
            ends = channels[0], channels[-1]
            self.shortcut = nn.Sequential(*conv_bn(*ends, (1, 1, 1), stride, padding))
        self.rectified = True

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T, H/stride, W/stride)."""
        both: Tensor = self.residual(x) + self.shortcut(x)
        return torch.relu(both) if self.rectified else both


class SameConv3d(nn.Conv3d):
    """A "same" convolution strided in space only, without bias.

    Space is padded with zeros; time as told. Parameters and their names are those of `nn.Conv3d`.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: Kernel, stride: int, padding: TemporalPadding
    ) -> None:
        """Zeros are left to the convolution itself, which then needs no copy of its input."""
        frames, height, width = (side // 2 for side in kernel)
        self.repeated_frames = frames if padding == "replicate" else 0
        super().__init__(
            c_in,
            c_out,
            kernel,
            stride=(1, stride, stride),
            padding=(frames - self.repeated_frames, height, width),
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T, H/stride, W/stride)."""
        return super().forward(repeat_ends(x, self.repeated_frames))


def conv_bn(
    c_in: int, c_out: int, kernel: Kernel, stride: int, padding: TemporalPadding
) -> list[nn.Module]:
    """A "same" convolution and its BatchNorm."""
    return [SameConv3d(c_in, c_out, kernel, stride, padding), nn.BatchNorm3d(c_out)]


class VideoResNet(nn.Module):
    """One path of the pair: stem, max-pool, four stages; no pooling at the end.

    Attributes:
        out_channels: C of the output: 8 x width at depth 18, 32 x width at depth 50.
    """

    def __init__(
        self,
        path: PathName,
        *,
        depth: int = 18,
        width: int = 64,
        block: Block = "hara",
        strides: Sequence[int] = (1, 2, 1, 1),
        temporal_padding: TemporalPadding = "zeros",
        joins: Sequence[int] = (0, 0, 0, 0),
    ) -> None:
        """Build the network and initialise it (Kaiming normal, fan out).

        Args:
            path: `slow` or `fast`; decides the temporal kernels.
            depth: 18 or 50.
            width: channels of the stem and of res2's inner convolutions.
            block: which kind of residual block.
            strides: spatial strides of res2 to res5; stem and max-pool add 2 x 2.
            temporal_padding: what the convolutions find before the first and after the last frame.
            joins: channels of another network that join the input of res2 to res5; whoever asks for
                some runs the stages one by one.
        """
        super().__init__()
        kernel = (STEM_KERNEL_FRAMES[path], 7, 7)
        stem = conv_bn(3, width, kernel, 2, temporal_padding)
        self.stem = nn.Sequential(*stem, nn.ReLU(inplace=True))
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        c_in = width
        stages = []
        for index, (count, stride, more) in enumerate(
            zip(STAGE_BLOCKS[depth], strides, joins, strict=True)
        ):
            kernels = block_kernels(block, depth, STAGE_KERNEL_FRAMES[path][index])
            inner = width << index
            stages.append(_stage(c_in + more, inner, kernels, count, stride, temporal_padding))
            c_in = inner * (BOTTLENECK_EXPANSION if depth == 50 else 1)
        self.res2, self.res3, self.res4, self.res5 = stages
        self.out_channels = c_in
        self.apply(_initialise)

    @property
    def stage_channels(self) -> dict[str, int]:
        """C of each map of `stages`."""
        return {name: self.out_channels >> (3 - index) for index, name in enumerate(STAGES)}

    def forward(self, video: Tensor, collect: dict[str, Tensor] | None = None) -> Tensor:
        """The last stage's map.

        Args:
            video: (B, 3, T, H, W).
            collect: is filled with the map of every stage, by name.

        Returns:
            (B, out_channels, T, H/s, W/s), s = 4 x the product of strides.
        """
        x: Tensor = self.pool(self.stem(video))
        for name in STAGES:
            x = getattr(self, name)(x)
            if collect is not None:
                collect[name] = x
        return x

    def stages(self, video: Tensor) -> dict[str, Tensor]:
        """The maps after res2, res3, res4 and res5: (B, C, T, H/s, W/s), each with its C and s."""
        maps: dict[str, Tensor] = {}
        self(video, maps)
        return maps


def _stage(
    c_in: int,
    inner: int,
    kernels: Sequence[Kernel],
    count: int,
    stride: int,
    padding: TemporalPadding,
) -> nn.Sequential:
    """`count` blocks; the first one changes width and size."""
    bottleneck = len(kernels) == 3
    # The stride sits on the first convolution of a basic block and on the middle one of a
    # bottleneck, where it discards no pixel unseen.
    strided = 1 if bottleneck else 0
    widths = [inner, inner, inner * BOTTLENECK_EXPANSION] if bottleneck else [inner, inner]
    blocks = []
    for index in range(count):
        first = index == 0
        channels = [c_in if first else widths[-1], *widths]
        blocks.append(ResidualBlock(channels, kernels, stride if first else 1, strided, padding))
    return nn.Sequential(*blocks)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
