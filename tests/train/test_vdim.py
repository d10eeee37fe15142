"""VDIM: the contrast against loops, over ranks, and what of a clip is looked at."""

import math
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.test_losses import run_ranks
from train.cuts import Clip
from train.methods.vdim import PRESETS, GlobalLocalContrast, Vdim, VdimConfig, two_rates

CLIPS, CELLS, WIDTH = 3, 4, 6
CONFIG = VdimConfig(frames=2, crop=16, width=2, D=4)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def clips(count: int = CLIPS) -> Any:
    return SimpleNamespace(video=torch.randn(count, 2, 3, CONFIG.frames, CONFIG.crop, CONFIG.crop))


def naive(vectors: Tensor, cells: Tensor, clip_score: float) -> tuple[float, float, float]:
    """Contrast, mean squared score and retrieval, score by score."""
    g, local = vectors.double().numpy(), cells.double().numpy()
    n, places, width = local.shape
    raw = {
        (i, j, q): float(g[i] @ local[j, q]) / math.sqrt(width)
        for i, j, q in product(range(n), range(n), range(places))
    }
    bent = {key: clip_score * math.tanh(s / clip_score) for key, s in raw.items()}
    losses = []
    for i, p in product(range(n), range(places)):
        others = sum(math.exp(bent[i, j, q]) for j in range(n) if j != i for q in range(places))
        own = math.exp(bent[i, i, p])
        losses.append(-math.log(own / (own + others)))
    means = [[np.mean([bent[i, j, q] for q in range(places)]) for j in range(n)] for i in range(n)]
    found = [row[i] > max(row[:i] + row[i + 1 :]) for i, row in enumerate(means)]
    squares = [s**2 for s in raw.values()]
    return float(np.mean(losses)), float(np.mean(squares)), float(np.mean(found))


@pytest.mark.parametrize("clip_score", [20.0, 1.5])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_contrast_is_that_of_a_loop(clip_score: float, scale: float) -> None:
    vectors, cells = torch.randn(CLIPS, WIDTH) * scale, torch.randn(CLIPS, CELLS, WIDTH) * scale
    found = GlobalLocalContrast(clip_score)(vectors, cells)
    assert [x.item() for x in found] == pytest.approx(naive(vectors, cells, clip_score), rel=1e-5)


def test_the_module_goes_both_ways_over_both_maps():
    """From embeddings that are taken step by step, one view at a time, to the loss by loops."""
    model, batch = Vdim(CONFIG).eval(), clips()
    views = []
    with torch.no_grad():
        for video in batch.video.unbind(1):
            maps = model.encoder.stages(video)
            vector = model.project_global(maps["res5"].mean(dim=(2, 3, 4)))
            cells = {}
            for name in ("res3", "res4"):
                columns = maps[name].movedim(1, -1).reshape(CLIPS, -1, maps[name].shape[1])
                cells[name] = model.project_local[name](columns)
            views.append((vector, cells))
        facts = model(batch)
    (g1, l1), (g2, l2) = views
    pairs = [(g1, l2["res3"]), (g1, l2["res4"]), (g2, l1["res3"]), (g2, l1["res4"])]
    nce, square, first = np.mean([naive(g, cells, 20.0) for g, cells in pairs], axis=0)
    assert facts["loss"].item() == pytest.approx(nce + 0.04 * square, rel=1e-4)
    assert facts["loss_nce"].item() == pytest.approx(nce, rel=1e-4)
    assert facts["g2l_r1"].item() == pytest.approx(first)


def test_chance_is_that_of_equal_scores():
    model = Vdim(CONFIG).eval()
    facts = model.with_controls(clips())
    cells = CONFIG.frames * 2 * 2  # 16 pixels, strides 2 x 2 x 2
    chance = math.log(1 + (CLIPS - 1) * cells)
    assert facts["loss_chance"].item() == pytest.approx(chance, rel=1e-5)
    assert facts["loss_nce_chance"].item() == pytest.approx(chance, rel=1e-5)
    assert facts["g2l_r1_chance"].item() == pytest.approx(1 / CLIPS)
    assert not facts["loss_chance"].requires_grad


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_are_the_whole_batch(world: int) -> None:
    vectors, cells = torch.randn(2 * world, WIDTH), torch.randn(2 * world, CELLS, WIDTH)
    weight = torch.randn(WIDTH, WIDTH, requires_grad=True)

    def loss(contrast: GlobalLocalContrast, part: slice) -> Tensor:
        own, maps = vectors[part] @ weight, torch.tanh(cells[part] @ weight)
        nce, square, _ = contrast(own, maps)
        return nce + 0.04 * square

    def work(rank: int, gather: Any) -> Tensor:
        return loss(GlobalLocalContrast(gather=gather), slice(2 * rank, 2 * rank + 2))

    whole = loss(GlobalLocalContrast(), slice(None))
    (expected,) = torch.autograd.grad(whole, weight)
    losses = torch.stack(run_ranks(world, work))
    # DDP averages the gradients of the ranks.
    (averaged,) = torch.autograd.grad(losses.mean(), weight)
    assert losses.mean().item() == pytest.approx(whole.item(), rel=1e-5)
    assert torch.allclose(averaged, expected, rtol=1e-4, atol=1e-6)


def test_every_weight_is_trained_by_finite_gradients():
    model = Vdim(CONFIG)
    model(clips())["loss"].backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in model.parameters())


def test_one_clip_is_refused_in_training_and_measured_otherwise():
    model = Vdim(CONFIG)
    with pytest.raises(ValueError, match="1 clip has no negatives"):
        model(clips(1))
    with torch.no_grad():
        assert model.eval()(clips(1))["loss_nce"] == 0


def test_the_views_are_a_natural_run_inside_one_that_skips():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        cut = two_rates(Clip(10, 10.0, None), rng, frames=4, skip=2)
        natural, skipping = list(cut.pictures[:4]), list(cut.pictures[4:])
        assert natural == list(range(natural[0], natural[0] + 4))
        assert skipping == list(range(skipping[0], skipping[0] + 7, 2))
        assert skipping[0] <= natural[0]
        assert natural[-1] <= skipping[-1] <= 9
        seen.add((skipping[0], natural[0] - skipping[0]))
    assert seen == {(a, b) for a in range(4) for b in range(4)}


def test_the_shortest_clip_is_enough():
    for config in PRESETS.values():
        reads = config.reads
        assert reads.least_frames == config.skip * (config.frames - 1) + 1
        assert config.input_shapes["video"] == (2, 3, config.frames, config.crop, config.crop)
        assert reads.cut is not None
        cut = reads.cut(Clip(reads.least_frames, 10.0, None), np.random.default_rng(0))
        assert len(cut.pictures) == 2 * config.frames
        assert max(cut.pictures) == reads.least_frames - 1
    assert PRESETS["vdim_grid"].reads.least_frames <= 30
    assert PRESETS["tiny_grid"].reads.least_frames <= 30


def test_features_are_the_encoders_own():
    model = Vdim(CONFIG).eval()
    video = torch.randn(2, 3, 5, 24, 24)
    found = model.features(SimpleNamespace(video=video, mel=None))
    assert torch.equal(found["fv"], model.encoder(video))
    assert found["fv"].shape[1] == model.feature_channels["fv"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"skip": 0}, "skip is 0; expected 1 or more"),
        ({"locals": ("res6",)}, r"locals is \('res6',\); expected one or more of"),
        ({"locals": ()}, "locals is"),
        ({"clip_score": 0.0}, "clip_score is 0.0; expected more than 0"),
        ({"penalty": -1.0}, "penalty is -1.0; expected 0 or more"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VdimConfig(**fields)


def test_a_skip_of_one_is_the_natural_rate_twice():
    config = replace(CONFIG, skip=1)
    assert config.span == config.frames
