"""The video and spectrogram ResNets: shapes of methods §4, sizes of the published networks."""

import pytest
import torch
from torch import Tensor, nn

from train.models.resnet2d import ResNet2d
from train.models.resnet3d import ResNet3d


def weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def stages(net: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """Output shapes of stem and stages, without the batch."""
    shapes = []
    for name, part in net.named_children():
        x = part(x)
        if name != "pool":
            shapes.append(tuple(x.shape[1:]))
    return shapes


def test_stages_of_r2plus1d():
    """Methods §4: 16 pictures of 112 pixels."""
    with torch.device("meta"):
        shapes = stages(ResNet3d("r2plus1d"), torch.empty(1, 3, 16, 112, 112))
    expected = [(64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7)]
    assert shapes == [(64, 16, 56, 56), *expected]


@pytest.mark.parametrize(("kind", "depth", "side", "end"),
                         [("r3d", 18, 128, 8), ("r3d", 34, 224, 14)])  # fmt: skip
def test_ends_of_r3d(kind, depth, side, end):
    with torch.device("meta"):
        shapes = stages(ResNet3d(kind, depth=depth), torch.empty(1, 3, 16, side, side))
    assert shapes[-1] == (512, 2, end, end)


@pytest.mark.parametrize(("kind", "published"), [("r2plus1d", 31_505_325), ("r3d", 33_371_472)])
def test_sizes_are_those_of_the_published_networks(kind, published):
    """Published with a classifier of 400 Kinetics classes."""
    with torch.device("meta"):
        assert weights(ResNet3d(kind)) + 512 * 400 + 400 == published


def test_size_of_r3d_34():
    """Counted by hand: blocks of two 27 C C' kernels, two BatchNorms; three strided shortcuts."""
    widths, counts = (64, 128, 256, 512), (3, 4, 6, 3)
    total, c_in = 3 * 64 * 3 * 49 + 2 * 64, 64
    for width, count in zip(widths, counts, strict=True):
        for _ in range(count):
            total += 27 * (c_in * width + width * width) + 4 * width
            total += c_in * width + 2 * width if c_in != width else 0
            c_in = width
    with torch.device("meta"):
        assert weights(ResNet3d("r3d", depth=34)) == total


def test_audio_resnet_34():
    """The published ResNet-34 has 21,797,672 weights, 1000 classes and three input channels."""
    with torch.device("meta"):
        net = ResNet2d(depth=34)
        shapes = stages(net, torch.empty(1, 1, 224, 224))
    assert weights(net) == 21_797_672 - (512 * 1000 + 1000) - 2 * 64 * 49
    assert shapes == [(64, 112, 112), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]


def test_narrow_and_shallow_nets_take_any_size():
    clips = torch.randn(2, 3, 5, 30, 42)
    for kind in ("r2plus1d", "r3d"):
        net = ResNet3d(kind, depth=10, width=8)
        assert net(clips).shape == (2, net.out_channels, 1, 2, 3)
    audio = ResNet2d(depth=10, width=8)
    assert audio(torch.randn(2, 1, 40, 70)).shape == (2, 64, 2, 3)


def test_kernels_see_time():
    """Changing one picture changes features: nothing averages time away before the stages."""
    torch.manual_seed(0)
    clips = torch.randn(1, 3, 8, 16, 16)
    for kind in ("r2plus1d", "r3d"):
        net = ResNet3d(kind, depth=10, width=8).eval()
        assert not torch.allclose(net(clips), net(clips.flip(2)), atol=1e-3)
