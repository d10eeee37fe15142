"""AVID and CMA: networks as counted, losses against loops over the banks, cuts, held-out facts."""

import math
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from train.cuts import Clip, RunFacts
from train.errors import UsageError
from train.evaluation.encoders import pooled
from train.evaluation.task import Settings
from train.methods.avid import Avid, loss_of_equal_scores
from train.methods.avid_cma import OWN_AMONG_NEGATIVES, SUBSET, AvidCma
from train.methods.avid_config import CMA_PRESETS, PRESETS, AvidCmaConfig, AvidConfig
from train.models.audio2d import Conv2D10
from train.models.r2plus1d import R2Plus1D, R2Plus1DBlock
from train.models.standard import RunningStandard
from train.objectives.global_local import keep_local
from train.objectives.memory_bank import draw_outside, draw_some, expected_normalisation, hashed
from train.restart import load_weights, weights_to_start_from
from train.session import Run

SMALL: dict[str, Any] = {
    "frames": 4, "crop": 32, "depth": 10, "width": 2, "hidden": 8, "embedding": 6, "negatives": 5,
    "wave_rate_hz": 1000, "audio_seconds": 0.5, "n_fft": 32, "hop": 16, "bins": 17,
}  # fmt: skip
INSTANCES, CLIPS = 9, 4
RUN = RunFacts(INSTANCES, 100, 2)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def batch_of(config: AvidConfig, clips: int = CLIPS) -> Any:
    return SimpleNamespace(
        video=torch.randn(clips, *config.input_shapes["video"]),
        wave=torch.rand(clips, *config.input_shapes["wave"]) * 2 - 1,
        instance=torch.tensor([3, 8, 0, 5])[:clips],
    )


def small(objective: Any = "cross", **options: Any) -> Avid:
    model = Avid(AvidConfig(objective=objective, **{**SMALL, **options}))
    model.prepare(RUN)
    return model.train()


def small_cma(**options: Any) -> AvidCma:
    chosen = {"found_positives": 3, "used_positives": 2, "refresh_epochs": 2, **SMALL, **options}
    model = AvidCma(AvidCmaConfig(**chosen))
    model.prepare(RUN)
    return model.train()


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "shape", "millions", "gflop"),
    [
        (R2Plus1D, (1, 3, 8, 224, 224), 15.38, 24.3),
        (Conv2D10, (1, 1, 200, 257), 4.73, 2.9),
    ],
)
def test_networks_have_the_size_of_the_released_code(
    network: Any, shape: tuple[int, ...], millions: float, gflop: float
):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = network()
        model(torch.empty(shape))
    assert round(sum(w.numel() for w in model.parameters()) / 1e6, 2) == millions
    assert round(counter.get_total_flops() / 1e9, 1) == gflop


def probed(maps: dict[str, Tensor], name: str, side: int) -> Tensor:
    """As `train eval --layer NAME --cells 1 SIDE SIDE --cell-pool max` looks at a stage."""
    settings = Settings(layer=name, cells=(1, side, side), cell_pool="max")
    return pooled(maps, [name], settings)[name]


def test_stages_have_the_shapes_of_methods_3():
    with torch.device("meta"):
        video = R2Plus1D().stages(torch.empty(2, 3, 8, 224, 224))
        audio = Conv2D10().stages(torch.empty(2, 1, 200, 257))
    assert [tuple(x.shape[1:]) for x in video.values()] == [
        (64, 8, 56, 56), (128, 4, 28, 28), (256, 2, 14, 14), (512, 1, 7, 7)
    ]  # fmt: skip
    assert [tuple(x.shape[1:]) for x in audio.values()] == [
        (64, 50, 65), (128, 25, 33), (256, 13, 17), (512, 13, 17)
    ]  # fmt: skip
    sides = {"conv2x": 12, "conv3x": 8, "conv4x": 6, "conv5x": 4}
    widths = {name: probed(video, name, side).shape[1] for name, side in sides.items()}
    assert widths == {"conv2x": 9216, "conv3x": 8192, "conv4x": 9216, "conv5x": 8192}


def test_probes_see_the_largest_of_each_part():
    """32 x 32 places to 4 x 4: each number is the largest of 8 x 8 and all frames."""
    x = torch.randn(2, 3, 2, 32, 32)
    expected = x.view(2, 3, 2, 4, 8, 4, 8).amax(dim=(2, 4, 6)).flatten(1)
    assert torch.equal(probed({"conv5x": x}, "conv5x", 4), expected)


def test_block_normalises_behind_the_sum():
    """Of a block's output before the ReLU, mean and variance are those that its last BN gives."""
    block = R2Plus1DBlock(4, 8, 2)
    seen = []
    block.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.randn(3, 4, 4, 8, 8)
    block(x)
    variance, mean = torch.var_mean(seen[0], dim=(0, 2, 3, 4), correction=0)
    assert torch.allclose(mean, torch.zeros(8), atol=1e-5)
    assert torch.allclose(variance, torch.ones(8), atol=1e-3)
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in block.shortcut.modules())


@pytest.mark.parametrize(("frames", "side", "samples"), [(4, 32, 500), (9, 48, 800), (16, 64, 90)])
def test_features_of_any_length(frames: int, side: int, samples: int):
    model = small().eval()
    clips = SimpleNamespace(
        video=torch.randn(2, 3, frames, side, side), wave=torch.rand(2, 1, 1, samples)
    )
    wanted = ("fv", "fa", "conv3x", "audio_conv5x")
    found = model.features(clips, wanted)
    assert set(found) == set(wanted)
    assert found["fv"].shape == (2, 16, -(-frames // 8), side // 32 + (side % 32 > 0),
                                 side // 32 + (side % 32 > 0))  # fmt: skip
    assert found["conv3x"].shape[:3] == (2, 4, -(-frames // 2))
    assert torch.equal(found["fa"], found["audio_conv5x"].amax(dim=3))
    assert model.feature_channels == {name: found[name].shape[1] for name in ("fv", "fa")}
    clips.wave = None
    assert set(model.features(clips)) == {"fv"}
    clips.video, clips.wave = None, torch.rand(2, 1, 1, samples)
    assert set(model.features(clips)) == {"fa"}


# --- losses ---------------------------------------------------------------------------------------


def naive(
    x: Tensor, bank: Tensor, positives: list[list[int]], negatives: list[list[int]], z: float
) -> float:
    """Mean over clips of Eq. 2, with Eq. 8's mean over positives, in float64."""
    total = 0.0
    for row in range(len(x)):
        e = (bank.double() @ x[row].double() / 0.07).exp()
        level = len(negatives[row]) * z
        found = [-math.log(e[p] / (e[p] + level)) for p in positives[row]]
        refused = [-math.log(level / (e[n] + level)) for n in negatives[row]]
        total += sum(found) / len(found) + sum(refused)
    return total / len(x)


def run_with(model: Avid, batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """Vectors, facts and the banks as they were before."""
    assert model.memory is not None
    before = SimpleNamespace(**{name: x.clone() for name, x in model.memory.named_buffers()})
    vectors: list[dict[str, Tensor]] = []
    embed = model.embed

    def noted(video: Tensor, wave: Tensor) -> dict[str, Tensor]:
        vectors.append(embed(video, wave))
        return vectors[-1]

    model.embed = noted  # type: ignore[method-assign]
    facts = model(batch)
    model.embed = embed  # type: ignore[method-assign]
    return {name: x.detach() for name, x in vectors[0].items()}, facts, before


@pytest.mark.parametrize(
    ("objective", "terms"),
    [("cross", ["v2a", "a2v"]), ("self", ["v2v", "a2a"]), ("joint", ["v2a", "a2v", "v2v", "a2a"])],
)
def test_avid_equals_loops(objective: Any, terms: list[str]):
    model, banks = small(objective), {}
    batch = batch_of(model.config)
    model(batch)  # the second batch: memories have moved, Z is that of the first
    vectors, facts, before = run_with(model, batch)
    instance = batch.instance
    bits = hashed(instance, torch.tensor(1), 5)
    drawn = draw_outside(instance[:, None], bits, INSTANCES).tolist()
    assert all(own not in row for own, row in zip(instance.tolist(), drawn, strict=True))
    banks = {"v": before.video, "a": before.audio}
    x = {"v": vectors["video"], "a": vectors["audio"]}
    losses = []
    for name in terms:
        own = [[i] for i in instance.tolist()]
        bank = banks[name[2]]
        losses += [naive(x[name[0]], bank, own, drawn, before.z.item())]
        assert facts[f"loss_{name}"].item() == pytest.approx(losses[-1], rel=1e-4)
        scores = x[name[0]] @ bank.T
        hits = [scores[b, i] > max(scores[b, drawn[b]]) for b, i in enumerate(instance.tolist())]
        assert facts[f"{name}_r1_memory"].item() == pytest.approx(np.mean(hits))
        chance = np.mean([1 / (1 + len(set(row))) for row in drawn])
        assert facts[f"{name}_r1_memory_chance"].item() == pytest.approx(chance)
    assert facts["loss"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert facts["loss"].requires_grad
    found = [f"{t}_r1_memory{end}" for t in terms for end in ("", "_chance")]
    assert set(facts) == {"loss", *(f"loss_{t}" for t in terms), *found}


def test_normalisation_is_the_mean_over_the_first_batch():
    model = small("joint")
    batch = batch_of(model.config)
    vectors, _, before = run_with(model, batch)
    drawn = draw_outside(
        batch.instance[:, None], hashed(batch.instance, torch.tensor(0), 5), INSTANCES
    )
    e = [
        math.exp(vectors[x][b] @ getattr(before, y)[n] / 0.07)
        for x in ("video", "audio") for y in ("video", "audio")
        for b in range(CLIPS) for n in drawn[b].tolist()
    ]  # fmt: skip
    assert model.memory is not None
    assert model.memory.z.item() == pytest.approx(np.mean(e), rel=1e-4)


@pytest.mark.parametrize("within", ["paper", "code"])
def test_cma_equals_loops(within: Any):
    model = small_cma(within=within, positive_weight=0.5)
    batch = batch_of(model.config)
    model(batch)
    vectors, facts, before = run_with(model, batch)
    instance, step = batch.instance, torch.tensor(1)
    positives = before.positives[instance].long()
    assert not torch.equal(positives, torch.zeros_like(positives))
    family = torch.cat([instance[:, None], positives], dim=1).sort(dim=1).values
    drawn = draw_outside(family, hashed(instance, step, 5), INSTANCES).tolist()
    for own, found, row in zip(instance.tolist(), positives.tolist(), drawn, strict=True):
        assert not set(row) & {own, *found}
    used = draw_some(positives, hashed(instance, step, 3, SUBSET), 2).tolist()
    within_drawn = drawn
    if within == "code":
        bits = hashed(instance, step, 64, OWN_AMONG_NEGATIVES)
        within_drawn = draw_outside(positives, bits, INSTANCES).tolist()
        assert any(own in row for own, row in zip(instance.tolist(), within_drawn, strict=True))
    z, own = before.z.item(), [[i] for i in instance.tolist()]
    expected = {
        "v2a": naive(vectors["video"], before.audio, own, drawn, z),
        "a2v": naive(vectors["audio"], before.video, own, drawn, z),
        "v2v_positives": naive(vectors["video"], before.video, used, within_drawn, z),
        "a2a_positives": naive(vectors["audio"], before.audio, used, within_drawn, z),
    }
    for name, value in expected.items():
        assert facts[f"loss_{name}"].item() == pytest.approx(value, rel=1e-4)
    v2a, a2v, v2v, a2a = expected.values()
    mean = ((v2a + a2v) / 2 + 0.5 * (v2v + a2a) / 2) / 1.5  # Eq. 9, coefficients summing to 1
    assert facts["loss"].item() == pytest.approx(mean, rel=1e-4)


def test_cma_warms_up_as_avid():
    model, batch = small_cma(warmup_epochs=1), None
    avid = small()
    avid.load_state_dict({n: x for n, x in model.state_dict().items() if n in avid.state_dict()})
    for step in range(4):
        batch = batch or batch_of(model.config)
        facts = model(batch)
        assert ("loss_v2v_positives" in facts) == (step >= 2)
        if step < 2:
            assert torch.equal(facts["loss"], avid(batch)["loss"])


def test_positives_are_looked_for_between_steps_not_within():
    """Counted in batches, of which accumulation takes several a step."""
    model = small_cma(warmup_epochs=1.5, refresh_epochs=2)
    assert model.memory is not None
    assert (model.memory.first, model.memory.every) == (3, 4)
    model.prepare(RunFacts(INSTANCES, 100, 2, accumulation=3))
    assert (model.memory.first, model.memory.every) == (9, 12)


def test_banks_learn_after_the_scores_and_only_in_training():
    model = small()
    batch = batch_of(model.config)
    vectors, _, before = run_with(model, batch)
    assert model.memory is not None
    for name in ("video", "audio"):
        bank, new = getattr(model.memory, name), vectors[name]
        mixed = functional.normalize(getattr(before, name)[batch.instance] + new, dim=1)
        assert torch.allclose(bank[batch.instance], mixed, atol=1e-5)
    state = {name: x.clone() for name, x in model.state_dict().items()}
    model.eval()
    model(batch)
    model.with_controls(batch)
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())


def test_without_banks_there_is_no_training():
    model = Avid(AvidConfig(**SMALL)).train()
    with pytest.raises(ValueError, match="prepare"):
        model(batch_of(model.config))


# --- held out -------------------------------------------------------------------------------------


def test_held_out_clips_are_told_apart_from_each_other():
    model = small().eval()
    a = functional.normalize(torch.randn(CLIPS, 6), dim=1)
    v = functional.normalize(a + 0.7 * torch.randn(CLIPS, 6), dim=1)
    model.embed = lambda *_: {"video": v, "audio": a}  # type: ignore[method-assign]
    found = model.with_controls(batch_of(model.config))
    z = expected_normalisation(6, 0.07)  # nothing was trained on
    v, a = v.double(), a.double()
    for name, x, y in (("v2a", v, a), ("a2v", a, v)):
        e = (x @ y.T / 0.07).exp()
        losses: list[float] = []
        swapped: list[float] = []
        for i in range(CLIPS):
            for target, into in ((i, losses), ((i - 1) % CLIPS, swapped)):
                missed = -math.log(e[i, target] / (e[i, target] + 5 * z))
                others = [-math.log(5 * z / (e[i, j] + 5 * z)) for j in range(CLIPS) if j != target]
                into.append(missed + 5 * sum(others) / len(others))
        assert found[f"loss_{name}"].item() == pytest.approx(np.mean(losses), rel=1e-4)
        assert found[f"loss_{name}_swapped"].item() == pytest.approx(np.mean(swapped), rel=1e-4)
        hits = [e[i, i] > max(e[i, j] for j in range(CLIPS) if j != i) for i in range(CLIPS)]
        assert found[f"{name}_r1"].item() == pytest.approx(np.mean(hits)) and np.mean(hits) > 0
        assert found[f"{name}_r1_chance"].item() == 1 / CLIPS
    assert found["loss"].item() == pytest.approx(
        (found["loss_v2a"].item() + found["loss_a2v"].item()) / 2
    )


def test_chance_of_the_loss_is_the_best_of_equal_scores():
    for draws in (5, 1024):
        scores = np.linspace(-10, 20, 30_001)
        level = math.log(draws * 2.2)
        losses = np.logaddexp(0, level - scores) + draws * np.logaddexp(0, scores - level)
        assert loss_of_equal_scores(draws) == pytest.approx(losses.min(), rel=1e-6)
        assert scores[losses.argmin()] == pytest.approx(math.log(2.2), abs=1e-3)


def test_one_clip_alone_can_be_measured():
    model = small().eval()
    found = model.with_controls(batch_of(model.config, 1))
    assert found["v2a_r1_chance"] == 1 and "loss_v2a_swapped" not in found
    assert all(x.isfinite() for x in found.values())


# --- input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [10.0, 3.0, 2.0])
def test_sound_is_near_the_pictures_and_inside_the_clip(seconds: float):
    config = PRESETS["avid_r2plus1d18"]
    clip, offsets = Clip(round(16 * seconds), 16.0, 24000), []
    generator = np.random.default_rng(0)
    for _ in range(500):
        cut = pickle.loads(pickle.dumps(config.cut))(clip, generator)
        (stretch,) = cut.stretches
        assert list(cut.pictures) == list(range(cut.pictures[0], cut.pictures[0] + 8))
        assert 0 <= cut.pictures[0] <= clip.frames - 8
        assert stretch.count == 48000 and stretch.step == 1
        assert 0 <= stretch.first <= seconds * 24000 - 48000
        offset = stretch.first / 24000 - cut.pictures[0] / 16
        moved = stretch.first in (0, round(seconds * 24000) - 48000)
        assert moved or abs(offset) <= 0.5 + 1e-4
        offsets += [] if moved else [offset]
    if seconds == 10:
        assert np.mean(offsets) == pytest.approx(0, abs=0.05)
        assert np.std(offsets) == pytest.approx(0.5 / math.sqrt(3), abs=0.03)  # uniform


def test_a_short_clip_ends_in_zeros():
    cut = PRESETS["avid_r2plus1d18"].cut(Clip(8, 16.0, 24000), np.random.default_rng(0))
    assert list(cut.pictures) == list(range(8)) and cut.stretches[0].first == 0


def test_presets_have_the_papers_shapes():
    shapes = {name: config.input_shapes for name, config in PRESETS.items()}
    assert shapes["avid_r2plus1d18"] == {"video": (3, 8, 224, 224), "wave": (1, 1, 48000)}
    assert shapes["analysis"] == {"video": (3, 16, 112, 112), "wave": (1, 1, 48000)}
    with torch.device("meta"):
        for name, steps_and_bins in {"avid_r2plus1d18": (200, 257), "analysis": (100, 129)}.items():
            heard = Avid(PRESETS[name]).heard(torch.empty(2, 1, 1, 48000))
            assert heard.shape == (2, 1, *steps_and_bins)
    for ours, avid in zip(CMA_PRESETS.values(), PRESETS.values(), strict=True):
        assert ours.input_shapes == avid.input_shapes


def test_spectrograms_are_standardised_by_all_that_was_heard():
    standard = RunningStandard(3, keep_local)
    batches = [torch.randn(4, 1, 5, 3) * torch.tensor([9.0, 0.01, 3]) - 40 + n for n in range(3)]
    for batch in batches:
        last = standard(batch)
    everything = torch.cat(batches).double().flatten(0, 2).numpy()
    assert standard.mean.numpy() == pytest.approx(everything.mean(axis=0))
    assert standard.variance.numpy() == pytest.approx(everything.var(axis=0))
    deviation = np.maximum(everything.std(axis=0), 1)
    expected = (batches[-1].numpy() - everything.mean(axis=0)) / deviation
    assert last.numpy() == pytest.approx(expected, abs=1e-4)
    standard.eval()
    standard(torch.zeros(4, 1, 5, 3))
    assert standard.clips == 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "both"}, "objective is 'both'"),
        ({"depth": 34}, "depth is 34"),
        ({"negatives": 0}, "negatives is 0"),
        ({"tau": 0.001}, "tau is 0.001"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"audio_seconds": 0.001}, "at least one step"),
    ],
)
def test_configs_that_cannot_be_trained_are_refused(options: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        replace(AvidConfig(), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "self"}, "--method avid"),
        ({"used_positives": 64}, "no more used than found"),
        ({"refresh_epochs": 0}, "refresh_epochs is 0"),
        ({"positive_weight": 0.0}, "positive_weight is 0"),
        ({"agreement": "both"}, "agreement is 'both'"),
    ],
)
def test_cma_configs_that_cannot_be_trained_are_refused(options: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        replace(AvidCmaConfig(), **options)


def test_memories_are_carried_over_to_the_same_clips_only():
    """--init: banks and Z, not the schedule; and nothing of clips that have other numbers."""
    old, new = small_cma(warmup_epochs=0), small_cma(warmup_epochs=0)
    assert old.memory is not None
    old.memory.z.fill_(2.0)
    old.memory.scheduled.fill_(37)
    saved = {"model": old.state_dict(), "first_instances": {"demo": 0}}
    same = weights_to_start_from(saved, new, {"demo": 0})
    carried = {name for name in same if name.startswith("memory.")}
    assert carried == {"memory.video", "memory.audio", "memory.z", "memory.seen"}
    other = weights_to_start_from(saved, new, {"demo": 6})
    assert not any(name.startswith("memory.") for name in other)
    assert same.keys() - carried == other.keys() == {
        name for name in old.state_dict() if not name.startswith("memory.")
    }  # fmt: skip


def test_a_set_that_has_grown_is_told_in_a_sentence(tmp_path: Path):
    old, new = small_cma(), small_cma()
    new.prepare(RunFacts(INSTANCES + 2, 100, 2))
    with pytest.raises(UsageError, match=r"memory\.video .*another number of clips.*--init"):
        load_weights(new, old.state_dict(), Run(tmp_path))
