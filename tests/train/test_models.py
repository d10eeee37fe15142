"""Encoders and attention: shapes on the meta device, numbers on small tensors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from train.models.attention import (
    AttentionMap,
    attention_facts,
    pool_cells,
    resize_attention,
    resize_grid,
    uniform_attention,
)
from train.models.audio import AudioResNet, SameConv1d
from train.models.padding import repeat_ends
from train.models.video import SameConv3d, VideoResNet, block_kernels

CODE_STRIDES = (1, 2, 2, 1)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- video ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "frames", "options", "expected"),
    [
        ("slow", 8, {}, (512, 8, 14, 14)),
        ("fast", 32, {"width": 8}, (64, 32, 14, 14)),
        ("slow", 4, {"block": "code", "strides": CODE_STRIDES}, (512, 4, 7, 7)),
        ("fast", 32, {"block": "code", "width": 8, "strides": CODE_STRIDES}, (64, 32, 7, 7)),
        ("slow", 8, {"depth": 50}, (2048, 8, 14, 14)),
        ("fast", 32, {"depth": 50, "block": "sf", "width": 8}, (256, 32, 14, 14)),
        ("fast", 29, {"block": "sf"}, (512, 29, 14, 14)),
    ],
)
def test_video_shapes(path: Any, frames: int, options: dict[str, Any], expected: tuple[int, ...]):
    with torch.device("meta"):
        encoder = VideoResNet(path, **options)
        features = encoder(torch.empty(2, 3, frames, 112, 112))
    assert features.shape[1:] == expected
    assert encoder.out_channels == expected[0]


@pytest.mark.parametrize(("side", "grid"), [(64, 8), (112, 14), (128, 16), (192, 24)])
def test_default_strides_divide_by_eight(side: int, grid: int):
    with torch.device("meta"):
        assert VideoResNet("fast", width=8)(torch.empty(1, 3, 1, side, side)).shape[-1] == grid


@pytest.mark.parametrize("options", [{}, {"depth": 50, "block": "sf"}])
def test_stages_are_the_maps_on_the_way(options: Any):
    encoder = VideoResNet("fast", width=2, **options).eval()
    video = torch.randn(1, 3, 2, 32, 32)
    maps = encoder.stages(video)
    x = encoder.pool(encoder.stem(video))
    for name in ("res2", "res3", "res4", "res5"):
        x = getattr(encoder, name)(x)
        assert torch.equal(maps[name], x)
    assert torch.equal(encoder(video), x)
    assert {name: m.shape[1] for name, m in maps.items()} == encoder.stage_channels


def test_kernels_of_every_block():
    assert block_kernels("hara", 18, 1) == [(3, 3, 3), (3, 3, 3)]
    assert block_kernels("sf", 18, 1) == [(1, 3, 3), (1, 3, 3)]
    assert block_kernels("sf", 18, 3) == [(3, 3, 3), (1, 3, 3)]
    assert block_kernels("code", 18, 3) == [(3, 3, 3), (1, 1, 1)]
    assert block_kernels("code", 18, 1) == [(1, 1, 1), (3, 3, 3)]
    assert block_kernels("hara", 50, 1) == [(1, 1, 1), (3, 3, 3), (1, 1, 1)]
    assert block_kernels("sf", 50, 3) == [(3, 1, 1), (1, 3, 3), (1, 1, 1)]
    with pytest.raises(ValueError, match="depth 18"):
        block_kernels("code", 50, 1)


def test_early_slow_stages_of_sf_see_one_frame_at_a_time():
    """With kt = 1 in stem, res2 and res3, features of a frame know nothing of its neighbours."""
    encoder = VideoResNet("slow", width=4, block="sf").eval()
    video = torch.randn(1, 3, 3, 32, 32)
    changed = video.clone()
    changed[:, :, 2] += 1
    features = [encoder.res3(encoder.res2(encoder.pool(encoder.stem(x)))) for x in (video, changed)]
    assert torch.equal(features[0][:, :, 1], features[1][:, :, 1])
    assert not torch.equal(encoder(video)[:, :, 1], encoder(changed)[:, :, 1])


# --- time's ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3])
def test_ends_are_repeated(count: int):
    x = torch.randn(2, 3, 4, 5, 6)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (count, count), (0, 0), (0, 0)), mode="edge")
    assert np.array_equal(repeat_ends(x, count).numpy(), expected)
    assert repeat_ends(x[..., 0, 0], count).shape == (2, 3, 4 + 2 * count)


def test_repeated_ends_keep_channels_last():
    x = torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    assert repeat_ends(x, 1).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
def test_convolutions_see_the_padding(padding: Any):
    """Against a valid convolution over an input that is padded by hand."""
    mode: Any = {"replicate": "edge", "zeros": "constant"}[padding]
    conv = SameConv3d(2, 3, (5, 3, 3), 2, padding)
    x = torch.randn(1, 2, 4, 6, 6)
    long = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (0, 0), (0, 0)), mode=mode)
    wide = nn.functional.pad(torch.from_numpy(long), (1, 1, 1, 1))
    expected = nn.functional.conv3d(wide, conv.weight, stride=(1, 2, 2))
    assert torch.allclose(conv(x), expected, atol=1e-5)
    line = SameConv1d(2, 3, 7, padding)
    mel = torch.randn(1, 2, 5)
    long = np.pad(mel.numpy(), ((0, 0), (0, 0), (3, 3)), mode=mode)
    expected = nn.functional.conv1d(torch.from_numpy(long), line.weight, line.bias)
    assert torch.allclose(line(mel), expected, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("block", ["hara", "sf"])
def test_what_stands_still_looks_the_same_at_every_time(depth: int, block: Any):
    """With zeros around it, a still clip's frames would know their place in the window."""
    spread = {}
    for padding in ("replicate", "zeros"):
        options: dict[str, Any] = {"width": 8, "temporal_padding": padding}
        video = VideoResNet("fast", depth=depth, block=block, **options).eval()
        features = video(torch.randn(1, 3, 1, 32, 32).expand(-1, -1, 9, -1, -1))
        sounds = AudioResNet(**options).eval()(torch.randn(1, 80, 1).expand(-1, -1, 27))
        found = [x.detach() for x in (features, sounds)]
        spread[padding] = [float(x.std(dim=2).max() / x.abs().max()) for x in found]
    assert max(spread["replicate"]) < 1e-4 < 1e-2 < min(spread["zeros"])


def test_padding_changes_no_parameter():
    for network in (lambda p: VideoResNet("fast", temporal_padding=p),
                    lambda p: AudioResNet(temporal_padding=p)):  # fmt: skip
        shapes = [
            {name: tuple(x.shape) for name, x in network(padding).state_dict().items()}
            for padding in ("replicate", "zeros")
        ]
        assert shapes[0] == shapes[1]


# --- audio ------------------------------------------------------------------------------------


def test_audio_keeps_every_slice():
    with torch.device("meta"):
        encoder = AudioResNet()
        assert encoder(torch.empty(2, 80, 96)).shape == (2, 512, 96)
    assert parameters(encoder) == 3_887_424


def test_audio_stride_gives_the_same_slices_from_four_times_the_mel():
    with torch.device("meta"):
        encoder = AudioResNet(audio_stride=4)
        assert encoder(torch.empty(2, 80, 4 * 84)).shape == (2, 512, 84)
    assert parameters(encoder) == 3_887_424


# --- attention --------------------------------------------------------------------------------


def test_attention_sums_to_one_and_finds_the_cell():
    audio = torch.tensor([[5.0, 0.0], [0.0, 5.0]])
    grid = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]).expand(2, -1, -1)
    att = AttentionMap()(audio, grid)
    assert att.argmax(dim=1).tolist() == [0, 1]
    assert torch.allclose(att.sum(dim=1), torch.ones(2))


def test_attention_is_float32_under_autocast():
    audio, grid = torch.randn(2, 8), torch.randn(2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        att = AttentionMap()(audio, grid)
    assert att.dtype == torch.float32
    assert torch.equal(att, AttentionMap()(audio, grid))


def test_attention_temperatures_and_similarity():
    audio, grid = torch.randn(2, 8), torch.randn(2, 5, 8)
    logits = torch.einsum("bd,bpd->bp", audio, grid)
    assert torch.allclose(AttentionMap(att_tau=2)(audio, grid), (logits / 2).softmax(1))
    cosines = nn.functional.cosine_similarity(audio[:, None], grid, dim=2)
    scaled = AttentionMap(sim="cosine", tau=0.07, att_tau=2)(audio, grid)
    assert torch.allclose(scaled, (cosines / 0.14).softmax(1), atol=1e-6)


def test_detached_attention_has_no_gradient():
    audio, grid = torch.randn(2, 8, requires_grad=True), torch.randn(2, 5, 8)
    assert AttentionMap()(audio, grid).requires_grad
    assert not AttentionMap(detach=True)(audio, grid).requires_grad


def test_pooling_is_the_weighted_sum_of_cells():
    features, att = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 30)
    att = att / att.sum(dim=1, keepdim=True)
    expected = torch.einsum("bchwp,bp->bhc", features.flatten(3)[:, :, :, None], att)
    assert torch.allclose(pool_cells(features, att), expected, atol=1e-6)


def test_uniform_attention_is_average_pooling():
    features = torch.randn(2, 3, 4, 5, 6)
    pooled = pool_cells(features, uniform_attention(features))
    assert torch.allclose(pooled, features.mean(dim=(3, 4)).transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize("side", [14, 24, 16])
def test_resized_grids(side: int):
    features = torch.randn(2, 3, 4, side, side)
    resized = resize_grid(features, 16)
    assert resized.shape == (2, 3, 4, 16, 16)
    if side == 16:
        assert resized is features
    if side == 24:
        frame = nn.functional.adaptive_avg_pool2d(features[:, :, 2], 16)
    else:
        frame = nn.functional.interpolate(features[:, :, 2], (16, 16), mode="bilinear")
    assert torch.allclose(resized[:, :, 2], frame)
    assert torch.allclose(resize_grid(torch.ones(1, 1, 1, side, side), 16), torch.ones(1))


def test_resized_attention_sums_to_one():
    att = torch.rand(2, 14, 14)
    resized = resize_attention(att, (112, 96))
    assert resized.shape == (2, 112, 96)
    assert torch.allclose(resized.sum(dim=(1, 2)), torch.ones(2))


def test_entropy_of_known_maps():
    uniform = attention_facts(torch.full((2, 9), 1 / 9))
    assert uniform["att_entropy"].item() == pytest.approx(math.log(9), rel=1e-5)
    assert uniform["att_entropy_share"].item() == pytest.approx(1, rel=1e-5)
    assert attention_facts(torch.eye(3))["att_entropy"] == 0
    assert attention_facts(torch.ones(2, 1))["att_entropy_share"] == 0
