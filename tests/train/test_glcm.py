"""GLCM as a whole: every switch runs, trains what it should, and equals the unpooled form."""

import dataclasses
import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from train.dist import gather_with_grad
from train.methods import METHODS, glcm, method_named, preset_named
from train.methods.glcm import PRESETS, Glcm, GlcmConfig

MINI = GlcmConfig(frames=4, crop=32, n_slow=2, width=8, beta=4, D_g=12, D_l=6)
CLIPS = 3


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def batch_for(config: GlcmConfig, clips: int = CLIPS) -> Any:
    tensors = {name: torch.randn(clips, *shape) for name, shape in config.input_shapes.items()}
    return SimpleNamespace(**tensors)


def run(**changes: Any) -> tuple[Glcm, dict[str, Tensor]]:
    config = replace(MINI, **changes)
    model = Glcm(config)
    return model, model(batch_for(config))


def learnt(model: Glcm, batch: Any, steps: int) -> dict[str, Tensor]:
    """Train on one batch; what the last step says."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        result: dict[str, Tensor] = model(batch)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
    return result


# --- the loss ---------------------------------------------------------------------------------


def test_loss_comes_first_and_facts_follow():
    _, result = run()
    assert list(result) == [
        "loss",
        "loss_g",
        "loss_l",
        "a2v_r1",
        "pos_g",
        "neg_g",
        "v2a_r1_l",
        "pos_l",
        "neg_l",
        "a2v_r1_sync",
        "att_entropy",
        "att_entropy_share",
    ]
    assert all(value.ndim == 0 and value.isfinite() for value in result.values())
    assert [name for name, value in result.items() if value.requires_grad] == ["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"block": "sf"},
        {"block": "code", "strides": (1, 2, 2, 1)},
        {"depth": 50},
        {"beta": 1},
        {"grid_out": 6},
        {"grid_out": 3},
        {"audio_stride": 4},
        {"temporal_padding": "zeros"},
        {"att_pool": "avg"},
        {"att_tau": 3.0, "detach_att": True},
        {"directions": "a2v"},
        {"directions": "code", "pos_twice": True, "cross_video": True, "mask_shared": False},
        {"window_M": 1},
        {"window_M": 5},
        {"window_M": 7, "mask_shared": False},
        {"multi_pair": "avg_single"},
        {"sim": "cosine"},
        {"encoders": "l_only"},
        {"w_g": 0.5, "w_l": 2.0},
    ],
)
def test_every_switch_trains(changes: dict[str, Any]):
    model, result = run(**changes)
    result["loss"].backward()
    config = model.config
    weighed = config.w_g * result["loss_g"] + config.w_l * result["loss_l"]
    assert result["loss"].item() == pytest.approx(weighed.item(), rel=1e-5)
    gradients = [p.grad for p in model.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in gradients)


@pytest.mark.parametrize(
    ("objective", "encoders", "att_pool", "detach_att"),
    list(product(["both", "g", "l"], ["both", "l_only"], ["attention", "avg"], [False, True])),
)
def test_exactly_what_the_loss_reaches_is_trained(
    objective: Any, encoders: Any, att_pool: Any, detach_att: bool
):
    """DDP waits for a gradient of every parameter that asks for one."""
    model, result = run(
        objective=objective, encoders=encoders, att_pool=att_pool, detach_att=detach_att
    )
    result["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert all(parameter.requires_grad for parameter in model.audio.parameters())


def test_one_objective_leaves_the_other_out():
    _, only_g = run(objective="g")
    assert only_g["loss"] == only_g["loss_g"] and "loss_l" not in only_g
    _, only_l = run(objective="l")
    assert only_l["loss"] == only_l["loss_l"] and "loss_g" in only_l
    assert "loss_l" not in run(w_l=0.0)[1]


def test_pooling_first_equals_projecting_first():
    """The form of methods §1.2, with every cell and slice projected before it is averaged."""
    model = Glcm(MINI).eval()
    batch = batch_for(MINI)
    assert model.slow is not None
    fg, fl, fa = model.slow(batch.video[:, :, ::2]), model.fast(batch.video), model.audio(batch.mel)

    def project(layer: torch.nn.Linear, features: Tensor) -> Tensor:
        return torch.einsum("bc...,dc->bd...", features, layer.weight) + layer.bias.view(
            1, -1, *[1] * (features.ndim - 2)
        )

    grid = project(model.project_vg, fg).mean(dim=2).flatten(2).transpose(1, 2)
    audio = project(model.project_ag, fa).mean(dim=2)
    att = torch.einsum("bd,bpd->bp", audio, grid).softmax(dim=1)
    frames = torch.einsum("bdtp,bp->btd", project(model.project_vl, fl).flatten(3), att)
    slices = project(model.project_al, fa).transpose(1, 2)
    expected = model.loss_g(audio, grid)[0] + model.loss_l(frames, slices)[0]
    assert model(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_attention_guides_the_fast_features():
    model = Glcm(MINI).eval()
    fl, fa = torch.zeros(1, 16, 4, 4, 4), torch.zeros(1, 64, 12)
    fl[:, :, :, 1, 2] = 1
    there, elsewhere = torch.zeros(1, 16), torch.zeros(1, 16)
    there[0, 1 * 4 + 2] = elsewhere[0, 0] = 1
    seen = model.embed_local(fl, fa, there)[0]
    unseen = model.embed_local(fl, fa, elsewhere)[0]
    bias = model.project_vl.bias
    assert torch.allclose(seen - bias, model.project_vl.weight.sum(dim=1).expand(1, 4, -1))
    assert torch.allclose(unseen - bias, torch.zeros(1))


def test_gathering_follows_the_config():
    calls = []

    def gather(tensor: Tensor) -> Tensor:
        calls.append(tensor.shape)
        return tensor

    Glcm(MINI, gather)(batch_for(MINI))
    assert len(calls) == 2
    Glcm(replace(MINI, gather=False), gather)(batch_for(MINI))
    assert len(calls) == 2


def test_bfloat16_autocast_gives_float32_losses():
    model, batch = Glcm(MINI), batch_for(MINI)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(batch)
    assert all(value.dtype == torch.float32 for value in result.values())
    result["loss"].backward()


def test_a_batch_can_be_learnt_by_heart():
    model, batch = Glcm(MINI), batch_for(MINI, clips=4)
    result = learnt(model, batch, steps=40)
    assert result["loss_g"] < 0.2 * math.log(7) and result["a2v_r1"] == 1
    assert result["loss_l"] < 0.5 * math.log(7) and result["v2a_r1_l"] > 0.75


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sim": "cosine", "tau": 0.3},
        {"window_M": 5},
        {"multi_pair": "avg_single"},
        {"att_pool": "avg"},
        {"encoders": "l_only", "grid_out": 3},
    ],
)
@torch.no_grad()
def test_sound_and_pictures_in_time_against_a_loop(changes: dict[str, Any]):
    """A score of clips a and b is the mean positive of L_l if b's pictures had a's sound."""
    model = Glcm(replace(MINI, **changes)).eval()
    config, batch = model.config, batch_for(model.config)
    features = {k: v.detach() for k, v in model.features(batch).items() if k != "att"}
    fa, fl = features["fa"], features["fl"]
    audio, grid = model.embed_global(features.get("fg", fl), fa)
    found = model.in_time(fl, fa, audio, grid)
    half = config.window_M // 2
    for a, b in product(range(CLIPS), range(CLIPS)):
        foreign = SimpleNamespace(video=batch.video[[b]], mel=batch.mel[[a]])
        att = model.features(foreign)["att"].flatten(1)
        frames, slices = (x[0] for x in model.embed_local(fl[[b]], fa[[a]], att))
        scores = []
        for t in range(config.frames):
            window = [slices[k] for k in range(3 * t + 1 - half, 3 * t + 2 + half)
                      if 0 <= k < len(slices)]  # fmt: skip
            if config.multi_pair == "avg_single":
                window = [torch.stack(window).mean(0)]
            pairs = [(x / x.norm(), frames[t] / frames[t].norm()) if config.sim == "cosine"
                     else (x, frames[t]) for x in window]  # fmt: skip
            logits = [float(x @ y) / config.temperature for x, y in pairs]
            scores.append(math.log(sum(math.exp(logit) for logit in logits)))
        assert found[a, b].item() == pytest.approx(fmean(scores), rel=1e-4, abs=1e-5)


@torch.no_grad()
def test_large_batches_are_compared_in_part(monkeypatch: pytest.MonkeyPatch):
    model, batch = Glcm(MINI).eval(), batch_for(MINI, clips=5)
    features = model.features(batch)
    fg, fl, fa = (features[name] for name in ("fg", "fl", "fa"))
    whole = model.in_time(fl, fa, *model.embed_global(fg, fa))
    monkeypatch.setattr(glcm, "COMPARED_CLIPS", 3)
    assert model.in_time(fl, fa, *model.embed_global(fg, fa)).equal(whole[:3, :3])
    assert model.with_controls(batch)["a2v_r1_sync_chance"].item() == pytest.approx(1 / 3)


def test_clips_are_found_by_their_timing():
    """The same picture in every clip; only when it is bright, and when it is loud, differs."""
    model, batch = Glcm(replace(MINI, sim="cosine")), batch_for(MINI, clips=4)
    loud = torch.rand(4, MINI.frames) > 0.5
    batch.video = torch.randn(1, *batch.video.shape[1:]) * 0.1 + loud[:, None, :, None, None]
    batch.mel = batch.mel * 0.1 + loud.repeat_interleave(3, dim=1)[:, None]
    result = learnt(model, batch, steps=60)
    assert result["a2v_r1_sync"] == 1
    with torch.no_grad():
        found = model.with_controls(batch)
    assert found["loss_l"] < found["loss_l_chance"] < found["loss_l_shifted"]
    assert found["a2v_r1_sync"] == 1 and found["a2v_r1_sync_shifted"] < 1


@torch.no_grad()
def test_shifted_sound_is_the_same_sound_at_another_time():
    """Where each audio feature is one slice of mel alone, rolling one is rolling the other."""
    model, batch = Glcm(MINI).eval(), batch_for(MINI)
    weight = torch.randn(model.audio.out_channels, batch.mel.shape[1])
    model.audio.forward = lambda mel, collect=None: weight @ mel  # type: ignore[method-assign]
    found = model.with_controls(batch)
    late = 3 * (MINI.frames // 4)
    mel = torch.cat([batch.mel[:, :, -late:], batch.mel[:, :, :-late]], dim=2)
    shifted = model(SimpleNamespace(video=batch.video, mel=mel))
    for name in ("loss_l", "a2v_r1_sync"):
        assert found[f"{name}_shifted"].item() == pytest.approx(shifted[name].item(), rel=1e-5)
    for name in ("loss_g", "att_entropy", "a2v_r1"):  # time is averaged: nothing else changes
        assert found[name].item() == pytest.approx(shifted[name].item(), rel=1e-5)


# --- controls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"cross_video": True}, {"encoders": "l_only"}, {"sim": "cosine"}, {"window_M": 5}],
)
def test_controls_equal_a_batch_with_its_sounds_swapped(changes: dict[str, Any]):
    model = Glcm(replace(MINI, **changes)).eval()
    batch = batch_for(MINI)
    found = model.with_controls(batch)
    right = model(batch)
    foreign = [batch.mel[(clip - 1) % CLIPS] for clip in range(CLIPS)]
    swapped = model(SimpleNamespace(video=batch.video, mel=torch.stack(foreign)))
    for name, value in right.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6)
    for name in ("loss_l", "v2a_r1_l"):
        assert found[f"{name}_swapped"].item() == pytest.approx(swapped[name].item(), rel=1e-5)
    evidence = {name for name in found if name.endswith(("_swapped", "_gap", "_shifted"))}
    assert evidence == {"loss_l_swapped", "v2a_r1_l_swapped", "loss_l_gap", "loss_l_shifted",
                        "a2v_r1_sync_shifted"}  # fmt: skip
    gap = swapped["loss_l"] - right["loss_l"]
    assert found["loss_l_gap"].item() == pytest.approx(gap.item(), abs=1e-5)


def test_chances_are_those_of_the_closed_forms():
    found = Glcm(MINI).eval().with_controls(batch_for(MINI))
    assert found["loss_g_chance"].item() == pytest.approx(math.log(2 * CLIPS - 1))
    assert found["loss_l_chance"].item() == pytest.approx(math.log(2 * MINI.frames - 1))
    assert found["a2v_r1_chance"].item() == pytest.approx(1 / CLIPS)
    assert found["v2a_r1_l_chance"].item() == pytest.approx(1 / MINI.frames)
    assert found["a2v_r1_sync_chance"].item() == pytest.approx(1 / CLIPS)
    across = Glcm(replace(MINI, cross_video=True)).eval().with_controls(batch_for(MINI))
    assert across["v2a_r1_l_chance"].item() == pytest.approx(1 / MINI.frames / CLIPS)


def test_a_clip_alone_has_no_other_sound():
    found = Glcm(MINI).eval().with_controls(batch_for(MINI, clips=1))
    assert not [name for name in found if name.endswith(("_swapped", "_gap"))]
    only_g = Glcm(replace(MINI, objective="g")).eval().with_controls(batch_for(MINI))
    assert "loss_g_chance" in only_g
    assert not [name for name in only_g if name.startswith(("loss_l", "v2a_r1_l", "a2v_r1_sync"))]
    assert not [name for name in only_g if name.endswith(("_swapped", "_gap", "_shifted"))]


def test_controls_tell_position_from_synchrony():
    """Slice k of every clip sounds "k"; frame t of every clip looks "t": no sound is needed."""
    model = Glcm(MINI).eval()
    place = 9 * torch.eye(MINI.frames)[:, : MINI.D_l]
    frames, slices = (
        place.expand(CLIPS, -1, -1),
        place.repeat_interleave(3, 0).expand(CLIPS, -1, -1),
    )
    model.embed_local = lambda *_: (frames, slices)  # type: ignore[method-assign]
    found = model.with_controls(batch_for(MINI))
    assert found["loss_l"] < 0.1 and abs(found["loss_l_gap"]) < 1e-5
    assert found["v2a_r1_l_swapped"] == 1


# --- two processes ----------------------------------------------------------------------------


def train_rank(rank: int, world: int, folder: Path, batch: dict[str, Tensor]) -> None:
    """One rank of a DDP step over gloo; the first one leaves losses and gradients behind."""
    torch.set_num_threads(1)
    meet = f"file://{folder / 'meet'}"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=world)
    torch.manual_seed(0)
    model = Glcm(MINI, gather_with_grad).eval()
    parallel = DistributedDataParallel(model)
    clips = len(batch["mel"]) // world
    mine = {name: x[rank * clips : (rank + 1) * clips] for name, x in batch.items()}
    result = parallel(SimpleNamespace(**mine))
    result["loss"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    torch.save({"loss_g": result["loss_g"], "gradients": gradients}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_the_whole_batch(tmp_path: Path):
    """BatchNorm in eval mode: it is the only thing that would see half a batch."""
    batch = batch_for(MINI, clips=4)
    torch.manual_seed(0)
    model = Glcm(MINI).eval()
    whole = model(batch)
    whole["loss"].backward()
    start_processes(train_rank, (2, tmp_path, vars(batch)), nprocs=2, start_method="spawn")
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["loss_g"].item() == pytest.approx(whole["loss_g"].item(), rel=1e-5)
        for name, parameter in model.named_parameters():
            expected = parameter.grad
            assert expected is not None
            close = torch.allclose(found["gradients"][name], expected, rtol=1e-4, atol=1e-5)
            assert close, name


# --- features ---------------------------------------------------------------------------------


def test_features_of_a_lipreading_clip():
    """29 frames: all go to the fast path, every fourth (ceil) to the slow one (methods §7)."""
    with torch.device("meta"):
        model = Glcm(PRESETS["glcm_r18"])
        video, mel = torch.empty(2, 3, 29, 112, 112), torch.empty(2, 80, 87)
        features = model.features(SimpleNamespace(video=video, mel=mel))
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in features.items()}
    assert shapes == {
        "fl": (64, 29, 14, 14),
        "fg": (512, 8, 14, 14),
        "fa": (512, 87),
        "att": (14, 14),
    }
    assert model.feature_channels == {"fg": 512, "fl": 64, "fa": 512}


def test_features_without_sound_or_pictures():
    model = Glcm(replace(MINI, grid_out=6)).eval()
    batch = batch_for(MINI)
    assert set(model.features(SimpleNamespace(video=batch.video, mel=None))) == {"fg", "fl"}
    assert set(model.features(SimpleNamespace(video=None, mel=batch.mel))) == {"fa"}
    att = model.features(batch)["att"]
    assert att.shape == (CLIPS, 6, 6)
    assert torch.allclose(att.sum(dim=(1, 2)), torch.ones(CLIPS))


def test_features_of_the_fast_encoder_alone():
    model = Glcm(replace(MINI, encoders="l_only"))
    assert set(model.features(batch_for(MINI))) == {"fl", "fa", "att"}
    assert model.feature_channels == {"fl": 16, "fa": 64}


# --- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 30}, "frames is 30 and n_slow 8"),
        ({"window_M": 4}, "window_M is 4"),
        ({"objective": "global"}, "objective is 'global'; expected one of"),
        ({"depth": 34}, r"depth is 34; expected one of \(18, 50\)"),
        ({"depth": 50, "block": "code"}, "depth 18 only"),
        ({"width": 60}, "width 60 cannot be divided by beta 8"),
        ({"strides": (1, 2, 1)}, "four numbers"),
        ({"audio_stride": 2}, "audio_stride is 2"),
        ({"temporal_padding": "same"}, "temporal_padding is 'same'; expected one of"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"w_g": 0.0, "objective": "g"}, "w_g is 0.0"),
        ({"w_l": -1.0}, "w_l -1.0"),
        ({"grid_out": 0}, "grid_out is 0"),
        ({"D_g": 0}, "D_g is 0"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(PRESETS["glcm_r18"], **changes)


def test_a_config_survives_json():
    config = replace(PRESETS["tiny"], window_M=5, tau=0.5)
    assert GlcmConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_temperature_follows_the_similarity():
    assert MINI.temperature == 1
    assert replace(MINI, sim="cosine").temperature == 0.07
    assert replace(MINI, sim="cosine", tau=0.2).temperature == 0.2


def test_mel_of_another_length_is_refused():
    batch = batch_for(MINI)
    batch.mel = batch.mel[..., :-1]
    with pytest.raises(ValueError, match="3 mel slices a frame, 12 in all"):
        Glcm(MINI)(batch)


def test_presets_of_the_contract():
    """Architecture §7: tiny and GRID; methods §1.1: the code column."""
    tiny = PRESETS["tiny"]
    assert (tiny.frames, tiny.n_slow, tiny.crop, tiny.width) == (16, 4, 64, 16)
    assert (tiny.D_g, tiny.D_l) == (128, 32)
    for name in ("glcm_r18_grid", "tiny_grid"):
        assert (PRESETS[name].frames, PRESETS[name].n_slow) == (28, 7)
    assert PRESETS["exact16"].crop == 128
    assert not PRESETS["glcm_code"].gather
    assert PRESETS["glcm_code"].temporal_padding == "zeros"
    assert {PRESETS[name].temporal_padding for name in ("glcm_r18", "tiny")} == {"replicate"}
    assert preset_named("glcm") is PRESETS["glcm_r18"]
    assert method_named("glcm") is METHODS["glcm"]
