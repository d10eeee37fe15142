"""Every encoder's forward, written out a second time from the methods' text.

Shapes and parameter counts do not see a missing ReLU or another kind of pooling. Here each network
is computed in eval mode from nothing but its weights, taken in the order in which they are kept,
by the functions of torch; kernels, strides, poolings and activations are those of the papers
(methods §1.2, §3 to §6), not what the modules say of themselves. All weights and BatchNorm
statistics are random, in float64, so that every step shows in the result.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.methods.avid import Avid
from train.methods.avid_config import AvidConfig
from train.methods.tempssl import mlp
from train.models.audio import AudioResNet
from train.models.audio2d import Conv2D10
from train.models.r2plus1d import R2Plus1D, R2Plus1DBlock
from train.models.resnet2d import Block2d, ResNet2d
from train.models.resnet3d import Block3d, ResNet3d
from train.models.small3d import SmallVideoNet
from train.models.video import VideoResNet
from train.models.video2d3d import ResNet2d3d
from train.models.waveform import WaveNet1d

N = TypeVar("N", bound=nn.Module)
CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
OVER_SPACE, OVER_TIME, CUBE = (1, 3, 3), (3, 1, 1), (3, 3, 3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


class Weights:
    """A network's tensors, one after the other, and the steps that use them up."""

    def __init__(self, network: nn.Module) -> None:
        kept = network.state_dict().items()
        self.rest = [x for name, x in kept if not name.endswith("num_batches_tracked")]

    def conv(
        self, x: Tensor, kernel: Sequence[int], stride: Sequence[int] | int = 1, bias: bool = False
    ) -> Tensor:
        """A "same" convolution: padded with zeros by half of its kernel."""
        weight = self.rest.pop(0)
        assert tuple(weight.shape[2:]) == tuple(kernel)
        shift = self.rest.pop(0) if bias else None
        half = [side // 2 for side in kernel]
        return CONVOLUTIONS[len(kernel)](x, weight, shift, stride, half)

    def norm(self, x: Tensor) -> Tensor:
        """BatchNorm by the running statistics."""
        weight, bias, mean, variance = (
            self.rest.pop(0).view(-1, *[1] * (x.ndim - 2)) for _ in range(4)
        )
        normed: Tensor = (x - mean) / (variance + 1e-5).sqrt() * weight + bias
        return normed

    def linear(self, x: Tensor, bias: bool = True) -> Tensor:
        """Of the last dimension."""
        weight = self.rest.pop(0)
        return F.linear(x, weight, self.rest.pop(0) if bias else None)

    def conv_norm_relu(
        self, x: Tensor, kernel: Sequence[int], stride: Sequence[int] | int = 1
    ) -> Tensor:
        return torch.relu(self.norm(self.conv(x, kernel, stride)))


def randomised(network: N) -> N:
    """In eval mode and float64, with signals that keep their size from layer to layer."""
    network = network.double().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None and module.running_var is not None
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
            elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                module.weight.normal_(std=math.sqrt(2 / module.weight[0].numel()))
                if module.bias is not None:
                    module.bias.normal_(std=0.3)
    return network


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@torch.no_grad()
def assert_computes(
    network: nn.Module, by_hand: Callable[[Weights, Tensor], Tensor], x: Tensor
) -> None:
    """The network gives what is written out, and that uses all weights and depends on the input."""
    weights = Weights(network)
    expected = by_hand(weights, x.clone())
    assert not weights.rest
    assert (expected[0] - expected[1]).std() > 0.01
    torch.testing.assert_close(network(x.clone()), expected, rtol=1e-9, atol=1e-9)


# --- co-attention (methods §5) --------------------------------------------------------------------


@pytest.mark.parametrize(("first", "strides"), [(2, (2, 2, 2, 2)), (1, (2, 1, 2, 1))])
def test_small_video_net(first: int, strides: Any):
    def by_hand(weights: Weights, x: Tensor) -> Tensor:
        x = weights.conv_norm_relu(x, (5, 7, 7), first)
        window: dict[str, Any] = {
            "kernel_size": (1, 3, 3),
            "stride": (1, 2, 2),
            "padding": (0, 1, 1),
        }
        # A mean of what lies inside the picture.
        x = F.avg_pool3d(x, **window) / F.avg_pool3d(torch.ones_like(x), **window)
        for stride in strides:
            x = weights.conv_norm_relu(x, CUBE, (2, stride, stride))
        return weights.linear(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)

    network = SmallVideoNet(width=8, out_channels=5, conv1_stride=first, strides=strides)
    sides = (9, 21, 18) if first == 1 else (17, 45, 41)
    assert_computes(randomised(network), by_hand, picture(2, 3, *sides))


@pytest.mark.parametrize(("channels", "samples"), [(2, 22_003), (1, 9_000)])
def test_wave_net(channels: int, samples: int):
    def by_hand(weights: Weights, x: Tensor) -> Tensor:
        x = x.sign() * (1 + 255 * x.abs()).log() / math.log(256)
        x = weights.conv_norm_relu(x, (65,), 4)
        x = F.avg_pool1d(x, 4, 4)
        for _ in range(4):
            x = weights.conv_norm_relu(x, (15,), 4)
        x = F.avg_pool1d(x, 3, 3)
        x = weights.conv_norm_relu(x, (3,))
        return weights.linear(x.transpose(1, 2)).transpose(1, 2)

    network = WaveNet1d(channels=channels, width=3, out_channels=5)
    wave = (picture(2, channels, samples) * 0.1).clamp(-1, 1)
    wave[:, :, 100:200] = 0
    assert_computes(randomised(network), by_hand, wave)


# --- AVID (methods §3) ----------------------------------------------------------------------------


def avid_block(weights: Weights, x: Tensor, stride: int, projected: bool) -> Tensor:
    """BatchNorm behind the sum; the shortcut has none."""
    y = weights.conv_norm_relu(x, OVER_SPACE, (1, stride, stride))
    y = weights.conv_norm_relu(y, OVER_TIME, (stride, 1, 1))
    y = weights.conv_norm_relu(y, OVER_SPACE)
    y = weights.conv(y, OVER_TIME)
    x = weights.conv(x, (1, 1, 1), stride) if projected else x
    return torch.relu(weights.norm(y + x))


def avid_video(weights: Weights, x: Tensor, blocks: int) -> Tensor:
    x = weights.conv_norm_relu(x, (3, 7, 7), (1, 2, 2))
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage in range(4):
        for block in range(blocks):
            enters = block == 0 and stage > 0
            x = avid_block(weights, x, 2 if enters else 1, projected=enters)
    return x


def avid_audio(weights: Weights, x: Tensor) -> Tensor:
    x = weights.conv_norm_relu(x, (7, 7), 2)
    for stride in (2, 2, 2, 1):
        x = weights.conv_norm_relu(x, (3, 3), stride)
        x = weights.conv_norm_relu(x, (3, 3))
    return x


def avid_head(weights: Weights, x: Tensor) -> Tensor:
    x = torch.relu(weights.linear(x))
    x = torch.relu(weights.linear(x))
    return weights.linear(x)


@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(4, 4, 1), (3, 5, 1), (4, 4, 2), (3, 5, 2)])
def test_avid_block(c_in: int, c_out: int, stride: int):
    projected = stride > 1 or c_in != c_out
    assert_computes(
        randomised(R2Plus1DBlock(c_in, c_out, stride)),
        lambda weights, x: avid_block(weights, x, stride, projected),
        picture(2, c_in, 5, 7, 6),
    )


@pytest.mark.parametrize(("depth", "blocks"), [(18, 2), (10, 1)])
def test_avid_video(depth: int, blocks: int):
    assert_computes(
        randomised(R2Plus1D(depth=depth, width=3)),
        lambda weights, x: avid_video(weights, x, blocks),
        picture(2, 3, 9, 41, 36),
    )


def test_avid_audio():
    assert_computes(randomised(Conv2D10(width=3)), avid_audio, picture(2, 1, 39, 50))


@torch.no_grad()
def test_avid_vectors():
    """Heads behind the largest of each map; vectors of length 1. In float32, as the sound is."""
    config = AvidConfig(
        frames=4, crop=32, depth=10, width=3, hidden=16, embedding=6, negatives=5,
        wave_rate_hz=1000, audio_seconds=0.5, n_fft=32, hop=16, bins=17,
    )  # fmt: skip
    model = randomised(Avid(config)).float()
    for head in (model.project_video, model.project_audio):
        weights, x = Weights(head), torch.randn(5, 24)
        torch.testing.assert_close(head(x.clone()), avid_head(weights, x))
        assert not weights.rest
    video = torch.randn(3, *config.input_shapes["video"])
    wave = torch.rand(3, *config.input_shapes["wave"]) * 2 - 1
    seen = avid_video(Weights(model.video), video, 1).flatten(2).amax(2)
    heard = avid_audio(Weights(model.audio), model.heard(wave)).flatten(2).amax(2)
    vectors = model.embed(video, wave)
    for x, head, name in [
        (seen, model.project_video, "video"),
        (heard, model.project_audio, "audio"),
    ]:
        expected = avid_head(Weights(head), x)
        expected = expected / expected.square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(vectors[name], expected, rtol=1e-3, atol=1e-4)


# --- temporal SSL (methods §4) --------------------------------------------------------------------


def conv_of(weights: Weights, kind: str, x: Tensor, stride: int = 1) -> Tensor:
    """3x3x3, or space, BatchNorm, ReLU, time."""
    if kind == "r3d":
        return weights.conv(x, CUBE, stride)
    x = weights.conv_norm_relu(x, OVER_SPACE, (1, stride, stride))
    return weights.conv(x, OVER_TIME, (stride, 1, 1))


def block3d(weights: Weights, kind: str, x: Tensor, stride: int, projected: bool) -> Tensor:
    y = torch.relu(weights.norm(conv_of(weights, kind, x, stride)))
    y = weights.norm(conv_of(weights, kind, y))
    x = weights.norm(weights.conv(x, (1, 1, 1), stride)) if projected else x
    return torch.relu(y + x)


def resnet3d(weights: Weights, kind: str, x: Tensor, counts: Sequence[int]) -> Tensor:
    """No max-pool behind the stem."""
    if kind == "r3d":
        x = weights.conv_norm_relu(x, (3, 7, 7), (1, 2, 2))
    else:
        x = weights.conv_norm_relu(x, (1, 7, 7), (1, 2, 2))
        x = weights.conv_norm_relu(x, OVER_TIME)
    for stage, count in enumerate(counts):
        for block in range(count):
            enters = block == 0 and stage > 0
            x = block3d(weights, kind, x, 2 if enters else 1, projected=enters)
    return x


@pytest.mark.parametrize("kind", ["r3d", "r2plus1d"])
@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(4, 4, 1), (3, 5, 1), (4, 4, 2), (3, 5, 2)])
def test_block3d(kind: Any, c_in: int, c_out: int, stride: int):
    projected = stride > 1 or c_in != c_out
    assert_computes(
        randomised(Block3d(kind, c_in, c_out, stride)),
        lambda weights, x: block3d(weights, kind, x, stride, projected),
        picture(2, c_in, 5, 7, 6),
    )


@pytest.mark.parametrize(
    ("kind", "depth", "counts"),
    [("r3d", 18, (2, 2, 2, 2)), ("r3d", 34, (3, 4, 6, 3)), ("r2plus1d", 18, (2, 2, 2, 2))],
)
def test_resnet3d(kind: Any, depth: int, counts: tuple[int, ...]):
    assert_computes(
        randomised(ResNet3d(kind, depth=depth, width=3)),
        lambda weights, x: resnet3d(weights, kind, x, counts),
        picture(2, 3, 9, 21, 18),
    )


def block2d(weights: Weights, x: Tensor, stride: int, projected: bool) -> Tensor:
    y = weights.conv_norm_relu(x, (3, 3), stride)
    y = weights.norm(weights.conv(y, (3, 3)))
    x = weights.norm(weights.conv(x, (1, 1), stride)) if projected else x
    return torch.relu(y + x)


@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(4, 4, 1), (3, 5, 1), (4, 4, 2), (3, 5, 2)])
def test_block2d(c_in: int, c_out: int, stride: int):
    projected = stride > 1 or c_in != c_out
    assert_computes(
        randomised(Block2d(c_in, c_out, stride)),
        lambda weights, x: block2d(weights, x, stride, projected),
        picture(2, c_in, 7, 6),
    )


@pytest.mark.parametrize(("depth", "counts"), [(18, (2, 2, 2, 2)), (34, (3, 4, 6, 3))])
def test_resnet2d(depth: int, counts: tuple[int, ...]):
    def by_hand(weights: Weights, x: Tensor) -> Tensor:
        x = weights.conv_norm_relu(x, (7, 7), 2)
        x = F.max_pool2d(x, 3, 2, 1)
        for stage, count in enumerate(counts):
            for block in range(count):
                enters = block == 0 and stage > 0
                x = block2d(weights, x, 2 if enters else 1, projected=enters)
        return x

    assert_computes(randomised(ResNet2d(depth=depth, width=3)), by_hand, picture(2, 1, 41, 66))


@pytest.mark.parametrize("norm_out", [False, True])
def test_heads_of_temporal_ssl(norm_out: bool):
    """No bias before a BatchNorm; nothing behind the last layer but the BatchNorm asked for."""

    def by_hand(weights: Weights, x: Tensor) -> Tensor:
        for _ in range(2):
            x = torch.relu(weights.norm(weights.linear(x, bias=False)))
        return weights.norm(weights.linear(x, bias=False)) if norm_out else weights.linear(x)

    assert_computes(randomised(mlp(6, [8, 7], 4, norm_out=norm_out)), by_hand, picture(5, 6))


# --- DPC (methods §6) -----------------------------------------------------------------------------


def test_resnet2d3d():
    """Two stages over pictures, two over time as well, which stride in it; no ReLU at the end."""

    def by_hand(weights: Weights, x: Tensor) -> Tensor:
        x = weights.conv_norm_relu(x, (1, 7, 7), (1, 2, 2))
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for stage, frames in enumerate((1, 1, 3, 3)):
            for block in range(2):
                enters = block == 0 and stage > 0
                space = 2 if enters else 1
                stride = (space if frames == 3 else 1, space, space)
                y = weights.conv_norm_relu(x, (frames, 3, 3), stride)
                y = weights.norm(weights.conv(y, (frames, 3, 3)))
                x = y + (weights.norm(weights.conv(x, (1, 1, 1), stride)) if enters else x)
                x = x if (stage, block) == (3, 1) else torch.relu(x)
        return x

    assert_computes(randomised(ResNet2d3d(width=3)), by_hand, picture(2, 3, 5, 41, 66))


# --- GLCM (methods §1.2), padded with zeros -------------------------------------------------------


@pytest.mark.parametrize(("path", "frames"), [("slow", 1), ("fast", 5)])
@pytest.mark.parametrize("block", ["hara", "sf"])
def test_video_resnet(path: Any, frames: int, block: Any):
    """Nothing is strided in time."""
    strides = (1, 2, 1, 2)

    def kernels(stage: int) -> tuple[Sequence[int], Sequence[int]]:
        if block == "hara":
            return CUBE, CUBE
        return (1 if path == "slow" and stage < 2 else 3, 3, 3), OVER_SPACE

    def by_hand(weights: Weights, x: Tensor) -> Tensor:
        x = weights.conv_norm_relu(x, (frames, 7, 7), (1, 2, 2))
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for stage in range(4):
            first, second = kernels(stage)
            for number in range(2):
                enters = number == 0 and stage > 0
                stride = (1, *[strides[stage] if enters else 1] * 2)
                y = weights.conv_norm_relu(x, first, stride)
                y = weights.norm(weights.conv(y, second))
                x = weights.norm(weights.conv(x, (1, 1, 1), stride)) if enters else x
                x = torch.relu(y + x)
        return x

    network = VideoResNet(path, width=3, block=block, strides=strides)
    assert_computes(randomised(network), by_hand, picture(2, 3, 5, 25, 18))


def test_audio_resnet():
    """Biases in all convolutions but the shortcuts, which every first block has; leaky ReLU."""

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.01 * x)

    def by_hand(weights: Weights, x: Tensor) -> Tensor:
        x = leaky(weights.norm(weights.conv(x, (7,), bias=True)))
        for _ in range(4):
            for block in range(2):
                y = leaky(weights.norm(weights.conv(x, (3,), bias=True)))
                y = weights.norm(weights.conv(y, (3,), bias=True))
                x = weights.norm(weights.conv(x, (1,))) if block == 0 else x
                x = leaky(y + x)
        return x

    assert_computes(randomised(AudioResNet(width=3)), by_hand, picture(2, 80, 12))
