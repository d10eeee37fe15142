"""CPC against loops over clips, times and steps ahead; its config and features."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from train.cuts import Clip
from train.methods import preset_named
from train.methods.cpc import PRESETS, Cpc, CpcConfig

SMALL = CpcConfig(frames=8, blocks=4, crop=32, width=2, hidden=3, steps_ahead=2)
Array = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def clips(config: Any, count: int = 3) -> Any:
    return SimpleNamespace(video=torch.randn(count, *config.input_shapes["video"]))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def naive_contexts(gru: torch.nn.GRU, z: Array) -> Array:
    """c_t of one clip, z (N, C): a GRU written down."""
    w_i, w_h, b_i, b_h = (x.detach().double().numpy() for x in gru.parameters())
    h, found = np.zeros(gru.hidden_size), []
    for block in z:
        given, kept = np.split(w_i @ block + b_i, 3), np.split(w_h @ h + b_h, 3)
        r, u = (sigmoid(given[gate] + kept[gate]) for gate in (0, 1))
        h = (1 - u) * np.tanh(given[2] + r * kept[2]) + u * h
        found.append(h)
    return np.array(found)


def test_loss_and_accuracies_equal_loops():
    model = Cpc(SMALL).eval()  # BatchNorm then treats each block by itself
    torch.nn.init.normal_(model.predict[0].weight)  # type: ignore[arg-type]
    batch = clips(SMALL)
    blocks = range(SMALL.blocks)
    with torch.no_grad():
        facts = model(batch)
        z = np.array([
            [model.encoder(clip[None, :, 2 * t : 2 * t + 2]).double().mean((0, 2, 3, 4)).numpy()
             for t in blocks]
            for clip in batch.video
        ])  # fmt: skip
    losses, hits, within = [], [], []
    for b in range(3):
        context = naive_contexts(model.context, z[b])
        for t in blocks:
            for k in (1, 2):
                if t + k not in blocks:
                    continue
                weight = model.predict[k - 1].weight.detach().double().numpy()  # type: ignore[operator]
                scores = {(o, s): weight @ context[t] @ z[o, s] for o in range(3) for s in blocks}
                own = scores.pop((b, t + k))
                losses.append(np.logaddexp.reduce([own, *scores.values()]) - own)
                hits.append(own > max(scores.values()))
                within.append(own > max(score for (o, _), score in scores.items() if o == b))
    assert len(losses) == 3 * (3 + 2), "three blocks have one after them, two have two"
    assert facts["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert facts["cpc_accuracy"].item() == pytest.approx(np.mean(hits))
    assert facts["cpc_within_accuracy"].item() == pytest.approx(np.mean(within))


def test_no_knowledge_costs_the_logarithm_of_all_blocks():
    model = Cpc(SMALL)
    for w in model.predict:
        torch.nn.init.zeros_(w.weight)  # type: ignore[arg-type]
    facts = model.with_controls(clips(SMALL))
    assert facts["loss"].item() == pytest.approx(math.log(3 * 4), rel=1e-6)
    assert facts["loss_chance"].item() == pytest.approx(math.log(3 * 4), rel=1e-6)
    assert facts["cpc_accuracy"] == facts["cpc_within_accuracy"] == 0
    assert facts["cpc_accuracy_chance"].item() == pytest.approx(1 / 12)
    assert facts["cpc_within_accuracy_chance"].item() == pytest.approx(1 / 4)


@pytest.mark.parametrize(("frames", "side"), [(1, 32), (8, 32), (11, 48)])
def test_features_of_any_clip(frames: int, side: int):
    model = Cpc(SMALL).eval()
    video = torch.randn(2, 3, frames, side, side)
    found = model.features(SimpleNamespace(video=video))
    assert list(found) == list(model.feature_channels) == ["fv"]
    assert found["fv"].shape == (2, model.feature_channels["fv"], frames, side // 8, side // 8)
    assert model.features(SimpleNamespace(video=None)) == {}


def test_presets_fit_the_clips_they_are_for():
    assert PRESETS["cpc"].frames == 32
    assert PRESETS["cpc"].block_frames == 4
    for name in PRESETS:
        config = preset_named("cpc", name)
        assert config.reads.least_frames == config.frames
        assert not config.reads.mel
        if name.endswith("_grid"):
            assert config.frames <= 28


def test_every_third_frame_is_shown_from_a_random_one_on():
    config = replace(SMALL, frame_step=3)
    reads = config.reads
    assert reads.least_frames == 22
    assert reads.cut is not None
    rng = np.random.default_rng(0)
    cuts = [reads.cut(Clip(frames=24, fps=30.0, wave_rate_hz=None), rng) for _ in range(50)]
    expected = {tuple(range(start, start + 22, 3)) for start in range(3)}
    assert {tuple(cut.pictures) for cut in cuts} == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"blocks": 3}, "frames must be a multiple of blocks"),
        ({"steps_ahead": 4}, "at least one block must come before"),
        ({"frame_step": 0}, "frame_step is 0; expected 1 or more"),
        ({"hidden": 0}, "hidden is 0; expected 1 or more"),
    ],
)
def test_what_cannot_be_trained_is_refused(changed: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **changed)


def test_a_batch_without_pictures_is_refused():
    with pytest.raises(ValueError, match="no pictures"):
        Cpc(SMALL)(SimpleNamespace(video=None))
