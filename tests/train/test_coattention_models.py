"""Encoders and blocks of co-attention: the paper's sizes, and attention written out by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from train.models.coattention import AttentionBlock, CoAttention, Guidance
from train.models.small3d import SmallVideoNet, grid_side
from train.models.waveform import LEAST_SAMPLES, WaveNet1d, compress, steps


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


# --- encoders ---------------------------------------------------------------------------------


def test_the_papers_sizes():
    """15.15 M = 12.61 + 2.02 + 0.52, each counted layer by layer from the paper's text."""
    kernels = [(2, 64, 65), (64, 128, 15), (128, 128, 15), (128, 256, 15), (256, 256, 15)]
    kernels += [(256, 128, 3)]
    audio = sum(i * o * k + 2 * o for i, o, k in kernels) + 128 * 512 + 512
    visual = 3 * 64 * 5 * 7 * 7 + 4 * 64 * 64 * 27 + 5 * 2 * 64 + 64 * 512 + 512
    block = 4 * (512 * 512 + 512) + (512 * 2048 + 2048) + (2048 * 512 + 512) + 2 * 2 * 512
    assert parameters(WaveNet1d()) == audio
    assert parameters(SmallVideoNet()) == visual
    assert parameters(CoAttention()) == 4 * block
    assert [round(n / 1e6, 2) for n in (4 * block, audio, visual)] == [12.61, 2.02, 0.52]
    assert round((4 * block + audio + visual) / 1e6, 2) == 15.15


@pytest.mark.parametrize("guidance", ["aga", "vga"])
def test_one_way_guidance_is_as_large(guidance: Guidance):
    """Table 1 gives 15 M for all three."""
    assert parameters(CoAttention(guidance=guidance)) == parameters(CoAttention())


def test_lengths_of_the_waveform_encoder():
    encoder = WaveNet1d(width=2, out_channels=8)
    wave, seen = torch.randn(1, 2, 88_200), []
    for layer in encoder.convolutions:
        wave = layer(wave)
        seen += [wave.shape[2]]
    assert seen == [22_050, 5_512, 1_378, 345, 87, 22, 7, 7]


@pytest.mark.parametrize("samples", [LEAST_SAMPLES, 12_345, 24_577, 53_760, 88_200, 91_111])
def test_steps_tell_the_length(samples: int):
    encoder = WaveNet1d(width=1, out_channels=4)
    assert encoder(torch.zeros(2, 2, samples)).shape == (2, 4, steps(samples))


def test_too_short_or_mono_is_refused():
    encoder = WaveNet1d(width=1, out_channels=4)
    assert steps(LEAST_SAMPLES) == 1 and steps(LEAST_SAMPLES - 1) == 0
    with pytest.raises(ValueError, match="samples or more"):
        encoder(torch.zeros(2, 2, LEAST_SAMPLES - 1))
    with pytest.raises(ValueError, match="stereo"):
        encoder(torch.zeros(2, 1, 88_200))


def test_compression():
    loud = [-1.0, -0.1, 0.0, 1e-3, 0.5, 1.0]
    expected = [math.copysign(math.log(1 + 255 * abs(x)) / math.log(256), x) for x in loud]
    assert compress(torch.tensor(loud)).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("crop", "stride", "cells"), [(224, 2, 4), (224, 1, 7), (64, 1, 2)])
def test_grid_of_the_visual_encoder(crop: int, stride: int, cells: int):
    with torch.device("meta"):
        encoder = SmallVideoNet(conv1_stride=stride)
        features = encoder(torch.empty(2, 3, 32, crop, crop))
    assert features.shape == (2, 512, 1 if stride == 2 else 2, cells, cells)
    assert grid_side(crop, stride, (2, 2, 2, 2)) == cells


def test_fewer_strides_keep_more_cells():
    encoder = SmallVideoNet(width=2, out_channels=3, strides=(2, 2, 1, 1))
    assert encoder(torch.randn(1, 3, 9, 50, 66)).shape == (1, 3, 1, 4, 5)
    assert grid_side(66, 2, (2, 2, 1, 1)) == 5


def test_features_are_the_projected_maps():
    encoder = SmallVideoNet(width=2, out_channels=3).eval()
    video = torch.randn(2, 3, 8, 70, 70)
    maps, features = encoder.maps(video), encoder(video)
    weight, bias = encoder.project.weight, encoder.project.bias
    for cell in np.ndindex(*maps.shape[2:]):
        place = (slice(None), slice(None), *cell)
        torch.testing.assert_close(features[place], maps[place] @ weight.T + bias)


# --- blocks -----------------------------------------------------------------------------------


def numbers(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()


def through(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    weight, bias = numbers(layer)
    return np.array([weight @ row + bias for row in x])


def normed(layer: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    weight, bias = numbers(layer)
    return np.array([(r - r.mean()) / np.sqrt(r.var() + layer.eps) * weight + bias for r in x])


def by_hand(block: AttentionBlock, query: Tensor, source: Tensor) -> tuple[Any, Any]:
    """Eq. 1 and 2 for one clip, head by head and query by query; output and weights."""
    asked, looked_at = (x.detach().double().numpy() for x in (query, source))
    q, k, v = (
        through(layer, x)
        for layer, x in (
            (block.to_query, asked),
            (block.to_key, looked_at),
            (block.to_value, looked_at),
        )
    )
    size = q.shape[1] // block.heads
    joined, weights = np.zeros_like(q), np.zeros((block.heads, len(q), len(k)))
    for head in range(block.heads):
        own = slice(head * size, (head + 1) * size)
        for i in range(len(q)):
            scores = [math.exp(q[i, own] @ k[j, own] / math.sqrt(size)) for j in range(len(k))]
            weights[head, i] = np.array(scores) / sum(scores)
            joined[i, own] = sum(weights[head, i, j] * v[j, own] for j in range(len(k)))
    attended = normed(block.norm_attended, asked + through(block.to_output, joined))
    middle = np.maximum(through(block.ffn[0], attended), 0)  # type: ignore[arg-type]
    fed = through(block.ffn[2], middle)  # type: ignore[arg-type]
    return normed(block.norm_output, attended + fed), weights


def test_a_block_is_the_papers_formula():
    block = AttentionBlock(width=12, heads=3, ffn_width=20)
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.5)
    query, source = torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    output, weights = block(query, source), block.weights(query, source)
    assert weights.shape == (2, 3, 5, 4)
    for clip in range(2):
        expected, looked = by_hand(block, query[clip], source[clip])
        np.testing.assert_allclose(output[clip].detach(), expected, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(weights[clip].detach(), looked, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("guidance", ["cma", "aga", "vga"])
def test_streams(guidance: Guidance, depth: int):
    """Who asks whom, written out; and how many vectors each stream has in the end."""
    net = CoAttention(depth=depth, guidance=guidance, width=8, heads=2, ffn_width=12)
    audio, visual = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    h_a, h_v = net(audio, visual)
    a, v = audio, visual
    for n in range(depth):
        asks_sound = a if guidance == "aga" else v
        asks_pictures = v if guidance == "vga" else a
        a, v = net.audio_cross[n](asks_sound, a), net.visual_cross[n](asks_pictures, v)
        a, v = net.audio_self[n](a, a), net.visual_self[n](v, v)
    torch.testing.assert_close(h_a, a)
    torch.testing.assert_close(h_v, v)
    assert net.lengths(3, 5) == (h_a.shape[1], h_v.shape[1])
    if depth == 1:
        assert net.lengths(3, 5) == {"cma": (5, 3), "aga": (3, 3), "vga": (5, 5)}[guidance]


def test_pictures_alone_is_self_attention_with_the_same_weights():
    net = CoAttention(width=8, heads=2, ffn_width=12)
    visual = torch.randn(2, 5, 8)
    alone = net.pictures_alone(visual)
    expected = net.visual_cross[0](visual, visual)
    torch.testing.assert_close(alone, net.visual_self[0](expected, expected))


def test_maps_of_heads():
    net = CoAttention(width=8, heads=2, ffn_width=12)
    audio, visual = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    maps = net.head_maps(audio, visual)
    assert maps.shape == (2, 2, 3, 5)
    torch.testing.assert_close(maps.sum(3), torch.ones(2, 2, 3))
    with pytest.raises(ValueError, match="aga"):
        CoAttention(guidance="vga", width=8, heads=2, ffn_width=12).head_maps(audio, visual)
