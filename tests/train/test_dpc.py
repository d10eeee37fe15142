"""DPC against loops over clips, predicted blocks and cells; backbones, config and features."""

import math
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from train.methods import preset_named
from train.methods.dpc import PRESETS, Dpc, DpcConfig

SMALL = DpcConfig(frames=10, blocks=5, crop=32, width=2, hidden=3, steps_ahead=2, grid_out=2)
BACKBONES = [SMALL, replace(SMALL, backbone="2d3d", grid_out=None, crop=64)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def clips(config: Any, count: int = 3) -> Any:
    return SimpleNamespace(video=torch.randn(count, *config.input_shapes["video"]))


def weights(layer: Any) -> tuple[Any, Any]:
    weight, bias = layer.weight[..., 0, 0].detach().double(), layer.bias.detach().double()
    return weight.numpy(), bias.numpy()


def naive_step(model: Dpc, given: Any, state: Any) -> Any:
    """The GRU of one cell."""
    gru = model.context
    (w_z, b_z), (w_r, b_r), (w_o, b_o) = map(weights, (gru.update, gru.reset, gru.out))
    both = np.concatenate([given, state])
    z, r = (1 / (1 + np.exp(-(w @ both + b))) for w, b in ((w_z, b_z), (w_r, b_r)))
    return (1 - z) * state + z * np.tanh(w_o @ np.concatenate([given, r * state]) + b_o)


def naive_prediction(model: Dpc, state: Any) -> Any:
    (w_1, b_1), (w_2, b_2) = weights(model.predict[0]), weights(model.predict[2])
    return w_2 @ np.maximum(w_1 @ state + b_1, 0) + b_2


def block_cells(model: Dpc, config: DpcConfig, clip: Tensor, t: int) -> Any:
    """(C, H', W') before the ReLU: the mean over the block's time, then over cells of the grid."""
    found = model.encoder(clip[None, :, 2 * t : 2 * t + 2]).mean(dim=2)[0].double()
    if config.grid_out is not None:
        side = found.shape[-1] // config.grid_out
        found = found.unfold(1, side, side).unfold(2, side, side).mean(dim=(-1, -2))
    return found.numpy()


@pytest.mark.parametrize("config", BACKBONES, ids=lambda config: config.backbone)
def test_loss_and_accuracies_equal_loops(config: DpcConfig):
    model = Dpc(config).eval()  # BatchNorm then treats each block by itself
    for layer in (model.predict[0], model.predict[2]):
        nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    batch = clips(config)
    with torch.no_grad():
        facts = model(batch)
        feat = np.array(
            [[block_cells(model, config, clip, t) for t in range(5)] for clip in batch.video]
        )
    assert (feat < 0).any(), "targets are not rectified"
    side, predicted = feat.shape[-1], (3, 4)
    cells = list(product(range(side), range(side)))
    losses, hits, within = [], [], []
    for b, (i, j) in product(range(3), cells):
        state = np.zeros(config.hidden)
        for t in range(3):
            state = naive_step(model, np.maximum(feat[b, t, :, i, j], 0), state)
        for t in predicted:
            guess = naive_prediction(model, state)
            scores = {
                (o, u, cell): guess @ feat[o, u, :, cell[0], cell[1]]
                for o, u, cell in product(range(3), predicted, cells)
            }
            own = scores.pop((b, t, (i, j)))
            losses.append(np.logaddexp.reduce([own, *scores.values()]) - own)
            hits.append(own > max(scores.values()))
            within.append(own > max(score for (o, *_), score in scores.items() if o == b))
            state = naive_step(model, np.maximum(guess, 0), state)
    assert len(losses) == 3 * 2 * side * side
    assert facts["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert facts["dpc_accuracy"].item() == pytest.approx(np.mean(hits))
    assert facts["dpc_within_accuracy"].item() == pytest.approx(np.mean(within))


def test_no_knowledge_costs_the_logarithm_of_all_cells():
    model = Dpc(SMALL)
    nn.init.zeros_(model.predict[2].weight)  # type: ignore[arg-type]
    facts = model.with_controls(clips(SMALL))
    candidates = 3 * 2 * 2 * 2
    assert facts["loss"].item() == pytest.approx(math.log(candidates), rel=1e-6)
    assert facts["loss_chance"].item() == pytest.approx(math.log(candidates), rel=1e-6)
    assert facts["dpc_accuracy_chance"].item() == pytest.approx(1 / candidates)
    assert facts["dpc_within_accuracy_chance"].item() == pytest.approx(3 / candidates)


@pytest.mark.parametrize("config", BACKBONES, ids=lambda config: config.backbone)
def test_the_context_does_not_see_what_is_predicted(config: DpcConfig):
    model = Dpc(config).eval()
    seen: list[Tensor] = []
    model.predict.register_forward_hook(lambda *call: seen.append(call[2]))
    batch = clips(config, 2)
    with torch.no_grad():
        model(batch)
        batch.video[:, :, 6:] += 1
        model(batch)
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])


@pytest.mark.parametrize(("frames", "side"), [(1, 64), (10, 64), (11, 96)])
def test_features_of_any_clip_are_rectified(frames: int, side: int):
    for config in BACKBONES:
        model = Dpc(config).eval()
        video = torch.randn(2, 3, frames, side, side)
        with torch.no_grad():
            found = model.features(SimpleNamespace(video=video))["fv"]
            before = model.encoder(video)
        common = config.backbone == "common"
        steps, grid = (frames, side // 8) if common else (-(-frames // 4), side // 32)
        assert found.shape == (2, model.feature_channels["fv"], steps, grid, grid)
        assert torch.equal(found, before.clamp(min=0))
        assert before.min() < 0


def test_presets_fit_the_clips_they_are_for():
    assert next(iter(PRESETS.values())).backbone == "common"
    assert PRESETS["dpc"].block_frames == PRESETS["dpc_2d3d"].block_frames == 4
    for name in PRESETS:
        config = preset_named("dpc", name)
        assert not config.reads.mel
        if name.endswith("_grid"):
            assert config.reads.least_frames <= 28


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"backbone": "3d"}, "backbone is '3d'; expected one of"),
        ({"grid_out": 0}, "grid_out is 0; expected 1 or more"),
        ({"blocks": 4}, "frames must be a multiple of blocks"),
    ],
)
def test_what_cannot_be_trained_is_refused(changed: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **changed)
