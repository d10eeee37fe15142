"""Co-attention as a method: cuts, the loss, what it learns, where it looks."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from train.cuts import Clip, cut_text
from train.errors import UsageError
from train.evaluation.encoders import Encoders
from train.evaluation.maps import attention_maps, require_attention
from train.methods.coattention import PRESETS, Coattention, CoattentionConfig, class_activation
from train.methods.coattention_config import RATE_HZ

MINI = CoattentionConfig(
    frames=4,
    frame_step=4,
    crop=32,
    sound_seconds=0.5,
    least_shift_seconds=0.25,
    most_shift_seconds=1.0,
    strides=(2, 2, 1, 1),
    heads=2,
    width=8,
    ffn_width=12,
    audio_width=4,
    visual_width=4,
    fusion_width=32,
    dropout=0.0,
)
CLIPS = 3


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def batch_for(config: CoattentionConfig, clips: int = CLIPS) -> Any:
    tensors = {name: torch.randn(clips, *shape) for name, shape in config.input_shapes.items()}
    return SimpleNamespace(**tensors)


# --- cuts -------------------------------------------------------------------------------------

WINDOW = PRESETS["coattention"]


def test_the_log_says_what_is_cut():
    said = cut_text(PRESETS["tiny"].reads, 30.0)
    assert "of a clip of 186 frames = 6.20 s at 30 fps, 32 pictures from " in said
    times = [
        [float(word) for word in part.split() if "." in word] for part in said.split(", ")[-3:]
    ]
    (first, last), *sounds = times
    assert last - first == pytest.approx(125 / 30, abs=0.01)  # every fourth of 125 frames
    assert [end - start for start, end in sounds] == pytest.approx([4.2, 4.2], abs=0.01)
    assert sounds[0][0] == pytest.approx(first, abs=0.01)
    assert abs(sounds[1][0] - first) == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("frames", [186, 187, 200, 299, 300, 301, 900])
@pytest.mark.parametrize("fps", [30.0, 30_000 / 1001])
def test_both_sounds_lie_inside_and_hardly_overlap(preset: str, frames: int, fps: float):
    config = PRESETS[preset]
    clip = Clip(frames, fps, RATE_HZ)
    samples = math.floor(frames / fps * RATE_HZ)
    rng = np.random.default_rng(frames)
    for _ in range(200):
        cut = config.cut(clip, rng)
        pictures = list(cut.pictures)
        assert len(pictures) == config.frames
        assert set(np.diff(pictures)) == {config.frame_step}
        assert pictures[0] >= 0 and pictures[-1] < frames
        assert len(cut.stretches) == 2 and cut.mel_start is None
        for stretch in cut.stretches:
            assert (stretch.count, stretch.step) == (88_200, 1)
            assert stretch.first >= 0 and stretch.first + stretch.count <= samples
        own, other = (stretch.first for stretch in cut.stretches)
        assert abs(own / RATE_HZ - pictures[0] / fps) <= 0.501 / RATE_HZ
        assert list(cut.numbers["shift"]) == [other - own]
        assert 2.0 * RATE_HZ <= abs(other - own) <= 5.8 * RATE_HZ
        overlap = set(range(own, own + 88_200, 100)) & set(range(other, other + 88_200, 100))
        assert len(overlap) * 100 <= 2.2 * RATE_HZ


def test_with_a_least_shift_of_a_sounds_length_the_two_never_overlap():
    """By the paper's own 2.0 s they may, see above."""
    config = replace(WINDOW, least_shift_seconds=WINDOW.sound_seconds)
    assert config.reads.least_frames == round(8.4 * 30)
    rng = np.random.default_rng(0)
    for frames in (252, 260, 300, 900):
        for _ in range(200):
            own, other = config.cut(Clip(frames, 30.0, RATE_HZ), rng).stretches
            assert abs(own.first - other.first) >= own.count == 88_200


def test_shifts_use_what_a_clip_has_room_for():
    """A clip of 10 s has room for all of 2.0 .. 5.8 s, one of 6.2 s for 2.0 s alone."""
    rng = np.random.default_rng(0)
    for frames, longest in ((300, 5.8), (240, 3.8), (186, 2.0), (600, 5.8)):
        clip = Clip(frames, 30.0, RATE_HZ)
        shifts = [WINDOW.cut(clip, rng).numbers["shift"][0] / RATE_HZ for _ in range(2000)]
        sizes = np.abs(shifts)
        assert sizes.min() == pytest.approx(2.0, abs=0.01)
        assert sizes.max() == pytest.approx(longest, abs=0.02)
        assert sizes.mean() == pytest.approx((2.0 + longest) / 2, abs=0.1)
        assert np.mean(np.array(shifts) > 0) == pytest.approx(0.5, abs=0.05)


def test_where_a_sound_begins_does_not_tell_whether_it_is_in_sync():
    """In sync and shifted, sounds begin equally often in each part of the clip."""
    rng = np.random.default_rng(1)
    clip = Clip(300, 30.0, RATE_HZ)
    begins = np.array([[s.first for s in WINDOW.cut(clip, rng).stretches] for _ in range(6000)])
    edges = np.linspace(0, 5.8 * RATE_HZ + 1, 7)
    own, other = (np.histogram(column, edges)[0] / 6000 for column in begins.T)
    np.testing.assert_allclose(own, other, atol=0.03)
    assert own.max() > 0.25  # not so by being the same everywhere: the middle is rarer


def test_cuts_repeat_with_their_generator():
    clip = Clip(300, 30.0, RATE_HZ)
    one, two = (WINDOW.cut(clip, np.random.default_rng(5)) for _ in range(2))
    assert one == two != WINDOW.cut(clip, np.random.default_rng(6))


def test_what_cannot_be_cut_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"6\.17 s has no room"):
        WINDOW.cut(Clip(185, 30.0, RATE_HZ), rng)
    with pytest.raises(UsageError, match="10 fps, and the config is for 30"):
        WINDOW.cut(Clip(300, 10.0, RATE_HZ), rng)


def test_reads():
    reads = WINDOW.reads
    assert (reads.frames, reads.least_frames, reads.mel, reads.views) == (126, 186, False, 1)
    assert (reads.wave_rate_hz, reads.wave_channels) == (21_000, 2)
    assert PRESETS["coattention_7hz"].reads.least_frames == 186
    # the shortest clip that is let in can be cut, also where nothing is a whole number
    for window, shift in ((4.2, 2.0), (4.21, 2.01), (1.03, 0.77)):
        frames = math.ceil(round(window * 30 / 4, 6))
        config = replace(MINI, sound_seconds=window, frames=frames, least_shift_seconds=shift,
                         most_shift_seconds=5.0)  # fmt: skip
        config.cut(Clip(config.reads.least_frames, 30.0, RATE_HZ), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames": 5}, "as long as 4 pictures"),
        ({"frame_step": 1}, "as long as 15 pictures"),
        ({"guidance": "both"}, "guidance is 'both'"),
        ({"fusion": "sum"}, "fusion is 'sum'"),
        ({"heads": 3}, "3 heads"),
        ({"depth": 0}, "depth is 0"),
        ({"strides": (2, 2, 2)}, "strides"),
        ({"conv1_stride": 3}, "conv1_stride is 3"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"sound_seconds": 0.1, "frames": 1}, r"0\.39 s or more"),
        ({"least_shift_seconds": 2.0}, "smaller first"),
        ({"fps": 0.0}, "fps is 0.0"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        replace(MINI, **changes)


# --- the loss ---------------------------------------------------------------------------------


def naive(model: Coattention, batch: Any) -> tuple[list[float], list[float]]:
    """The logits of each clip with its own and with its shifted sound, asked one by one."""
    logits: tuple[list[float], list[float]] = ([], [])
    for clip in range(len(batch.video)):
        cells = model.visual(batch.video[clip : clip + 1]).mean(2).flatten(2).mT
        for sound in range(2):
            moments = model.audio(batch.wave[clip : clip + 1, sound]).mT
            h_a, h_v = model.coattention(moments, cells)
            joined = torch.cat([h_a.flatten(1), h_v.flatten(1)], dim=1)
            logits[sound].append(model.decision(joined).item())
    return logits


def test_the_loss_is_binary_cross_entropy():
    model, batch = Coattention(MINI).eval(), batch_for(MINI)
    facts = model(batch)
    assert list(facts) == ["loss", "sync_accuracy", "sync_pair_accuracy"]
    assert [name for name, value in facts.items() if value.requires_grad] == ["loss"]
    right, shifted = naive(model, batch)
    terms = [-math.log(1 / (1 + math.exp(-x))) for x in right]
    terms += [-math.log(1 - 1 / (1 + math.exp(-x))) for x in shifted]
    assert facts["loss"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    decisions = [x > 0 for x in right] + [x <= 0 for x in shifted]
    assert facts["sync_accuracy"].item() == pytest.approx(sum(decisions) / len(decisions))
    pairs = [one > other for one, other in zip(right, shifted, strict=True)]
    assert facts["sync_pair_accuracy"].item() == pytest.approx(sum(pairs) / len(pairs))


def test_a_network_that_cannot_decide_is_at_chance():
    model, batch = Coattention(MINI), batch_for(MINI)
    last: Any = model.decision[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    facts = model.with_controls(batch)
    for name in ("loss", "sync_accuracy", "sync_pair_accuracy"):
        assert facts[name].item() == pytest.approx(facts[f"{name}_chance"].item())
        assert facts[f"{name}_swapped"].item() == pytest.approx(facts[name].item())
    assert facts["loss_chance"].item() == pytest.approx(math.log(2))


def test_decisions_of_known_logits(monkeypatch: pytest.MonkeyPatch):
    """Two right decisions of four, one pair in order and one tied, by hand."""
    model, batch = Coattention(MINI), batch_for(MINI, clips=2)
    known = torch.tensor([2.0, 1.0, -1.0, -1.0])  # own, shifted; own, shifted
    monkeypatch.setattr(model, "logit", lambda moments, cells: known)
    facts = model(batch)
    assert facts["sync_accuracy"].item() == 0.5
    assert facts["sync_pair_accuracy"].item() == 0.75
    log1p = [math.log1p(math.exp(x)) for x in (-2.0, 1.0, 1.0, -1.0)]
    assert facts["loss"].item() == pytest.approx(sum(log1p) / 4)


def test_swapped_is_another_clips_sound():
    model, batch = Coattention(MINI).eval(), batch_for(MINI)
    facts = model.with_controls(batch)
    wrong = SimpleNamespace(video=batch.video, wave=batch.wave.roll(1, dims=0))
    assert facts["loss_swapped"].item() == pytest.approx(model(wrong)["loss"].item(), rel=1e-5)
    assert facts["loss"].item() == pytest.approx(model(batch)["loss"].item(), rel=1e-5)
    assert "loss_swapped" not in model.with_controls(batch_for(MINI, clips=1))


def test_one_sound_a_clip_is_refused():
    batch = batch_for(MINI)
    batch.wave = batch.wave[:, :1]
    with pytest.raises(ValueError, match="the sound in sync and the shifted one"):
        Coattention(MINI)(batch)


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": "aga"},
        {"guidance": "vga"},
        {"depth": 2},
        {"depth": 2, "guidance": "aga"},
        {"fusion": "mean"},
        {"conv1_stride": 1},
        {"strides": (2, 2, 2, 1)},
        {"dropout": 0.5},
        {"heads": 8},
    ],
)
def test_every_switch_trains(changes: dict[str, Any]):
    config = replace(MINI, **changes)
    model = Coattention(config)
    model(batch_for(config))["loss"].backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in gradients.values())


def test_learns_which_sound_goes_with_the_pictures():
    """Bright pictures and loud sounds belong together: clips that it has not seen tell."""
    config = replace(MINI, fusion="mean")
    model = Coattention(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def clips(count: int) -> Any:
        batch = batch_for(config, count)
        bright = torch.randint(0, 2, (count,)).float()
        batch.video = 0.1 * batch.video + bright.view(-1, 1, 1, 1, 1)
        loud = torch.stack([bright, 1 - bright], dim=1).view(-1, 2, 1, 1)
        batch.wave = batch.wave.clamp(-1, 1) * (0.01 + 0.5 * loud)
        return batch

    for _ in range(25):
        optimizer.zero_grad()
        model(clips(8))["loss"].backward()
        optimizer.step()
    facts = model.eval().with_controls(clips(32))
    assert facts["sync_accuracy"] > 0.9 and facts["sync_pair_accuracy"] > 0.9
    assert abs(facts["sync_pair_accuracy_swapped"] - 0.5) < 0.35


def test_the_papers_model_on_meta_tensors():
    with torch.device("meta"):
        model = Coattention(PRESETS["coattention"])
        facts = model(batch_for(PRESETS["coattention"], 2))
    facts["loss"].backward()
    sizes = {
        name: sum(weight.numel() for weight in part.parameters())
        for name, part in model.named_children()
    }
    known = [round(sizes[name] / 1e6, 2) for name in ("coattention", "audio", "visual")]
    assert known == [12.61, 2.02, 0.52]
    assert sizes["decision"] == (16 + 7) * 512 * 512 + 512 + 512 + 1


# --- features and maps ------------------------------------------------------------------------


def downstream(config: CoattentionConfig, *, video: bool = True, wave: bool = True) -> Any:
    clips = batch_for(config)
    stored = clips.video.repeat_interleave(config.frame_step, dim=2)
    return SimpleNamespace(
        video=stored if video else None, wave=clips.wave[:, :1] if wave else None
    )


def test_features():
    model, clips = Coattention(MINI).eval(), downstream(MINI)
    every = ("fv", "fa", "hv", "ha", "att", "att_heads")
    found = model.features(clips, every)
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    assert shapes == {
        "fv": (CLIPS, 8, 1, 2, 2),
        "fa": (CLIPS, 8, 1),
        "hv": (CLIPS, 8, 1),
        "ha": (CLIPS, 8, 4),
        "att": (CLIPS, 2, 2),
        "att_heads": (CLIPS, 2, 2, 2),
    }
    assert {name: found[name].shape[1] for name in ("fv", "fa")} == model.feature_channels
    h_a, h_v = model.coattention(found["fa"].mT, found["fv"].mean(2).flatten(2).mT)
    torch.testing.assert_close(found["ha"], h_a.mT)
    torch.testing.assert_close(found["hv"], h_v.mT)
    for name in ("att", "att_heads"):
        assert (found[name] >= 0).all()
        torch.testing.assert_close(found[name].sum((-2, -1)), torch.ones(found[name].shape[:-2]))
    assert set(model.features(clips)) == {"fv", "fa"}


def test_what_both_streams_say_side_by_side():
    model = Coattention(MINI).eval()
    found = model.features(downstream(MINI), ("ha", "hv", "fused"))
    expected = torch.cat([found["ha"].mean(2), found["hv"].mean(2)], 1)
    torch.testing.assert_close(found["fused"].squeeze(2), expected)
    assert found["fused"].shape[1] == model.further_channels["fused"]
    assert "fused" not in model.features(downstream(MINI, wave=False), ("hv", "fused"))


def test_every_sound_begins_in_step_with_the_pictures():
    """Else only those in sync would, and a network could tell them by that."""
    rng = np.random.default_rng(2)
    for frames in (186, 200, 300):
        for _ in range(200):
            cut = WINDOW.cut(Clip(frames, 30.0, RATE_HZ), rng)
            assert all(sound.first % (RATE_HZ // 30) == 0 for sound in cut.stretches)


def test_features_see_every_so_many_pictures():
    """Those that a cut of the same window has."""
    model = Coattention(MINI).eval()
    stored = torch.randn(2, 3, MINI.window_frames, 32, 32)
    cut = MINI.cut(Clip(MINI.window_frames + 8, 30.0, RATE_HZ), np.random.default_rng(0))
    seen = [number - cut.start for number in cut.pictures]
    found = model.features(SimpleNamespace(video=stored, wave=None))["fv"]
    torch.testing.assert_close(found, model.visual(stored[:, :, seen]))


def test_what_is_missing_is_left_out():
    model = Coattention(MINI).eval()
    every = ("fv", "fa", "hv", "ha", "att", "att_heads")
    seen = model.features(downstream(MINI, wave=False), every)
    assert set(seen) == {"fv", "hv"}
    cells = seen["fv"].mean(2).flatten(2).mT
    torch.testing.assert_close(seen["hv"], model.coattention.pictures_alone(cells).mT)
    assert set(model.features(downstream(MINI, video=False), every)) == {"fa"}
    blind = Coattention(replace(MINI, guidance="vga")).eval()
    assert "att_heads" not in blind.features(downstream(MINI), every)


def test_features_of_other_lengths_and_sizes():
    model = Coattention(MINI).eval()
    clips = SimpleNamespace(video=torch.randn(2, 3, 9, 64, 48), wave=torch.randn(2, 1, 2, 30_000))
    found = model.features(clips, ("fv", "fa", "hv", "ha"))
    assert found["fv"].shape[-2:] == (4, 3) and found["fa"].shape[2] == 2
    with pytest.raises(ValueError, match=r"windows of 0\.5 s and 32 pixels"):
        model.features(clips, ("att",))
    flexible = Coattention(replace(MINI, fusion="mean")).eval()
    assert flexible.features(clips, ("att",))["att"].shape == (2, 4, 3)


def test_map_of_a_linear_decision_is_the_cam_of_zhou():
    """Global average, then a linear layer: weights x maps, summed; lifted to 0 .. and sum 1."""
    maps, weight = torch.randn(2, 3, 4, 5, 6), torch.randn(3)
    found = class_activation(lambda seen: seen.mean(dim=(2, 3, 4)) @ weight, maps)
    for clip in range(2):
        cam = np.zeros((5, 6))
        for channel in range(3):
            cam += weight[channel].item() * maps[clip, channel].mean(0).double().numpy()
        lifted = cam - cam.min()
        np.testing.assert_allclose(found[clip], lifted / lifted.sum(), atol=1e-5)


def test_a_map_with_nothing_in_it_is_uniform():
    maps = torch.ones(2, 3, 1, 2, 4)
    found = class_activation(lambda seen: seen.sum(dim=(1, 2, 3, 4)), maps)
    torch.testing.assert_close(found, torch.full((2, 2, 4), 1 / 8))
    nothing = class_activation(lambda seen: 0 * seen.sum(dim=(1, 2, 3, 4)), torch.randn_like(maps))
    torch.testing.assert_close(nothing, torch.full((2, 2, 4), 1 / 8))


def logit_of(model: Coattention, maps: Tensor, moments: Tensor) -> Tensor:
    cells = model.visual.projected(maps).mean(2).flatten(2).mT
    return model.logit(moments, cells)


@torch.no_grad()
def test_weights_of_the_map_are_the_gain_of_the_logit():
    """By finite differences in float64, channel by channel."""
    model, clips = Coattention(MINI).eval().double(), downstream(MINI)
    maps = model.visual.maps(clips.video[:, :, :: MINI.frame_step].double())
    moments = model.audio(clips.wave[:, 0].double()).mT
    gains = []
    for channel in range(maps.shape[1]):
        step = torch.zeros_like(maps)
        step[:, channel] = 1e-6
        gain = logit_of(model, maps + step, moments) - logit_of(model, maps - step, moments)
        gains.append(gain / 2e-6)
    cam = torch.einsum("cb,bcthw->bhw", torch.stack(gains), maps)
    lifted = cam - cam.amin((1, 2), keepdim=True)
    expected = (lifted / lifted.sum((1, 2), keepdim=True)).float()
    clips = SimpleNamespace(video=clips.video, wave=clips.wave)
    found = model.float().features(clips, ("att",))["att"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_maps_of_evaluation_hear_the_foreign_sound():
    """What the task `localization` compares: the same pictures with their own and another sound."""
    model, clips = Coattention(MINI).eval(), downstream(MINI)
    encoders = Encoders(model, MINI, "coattention", "mini", None)
    assert encoders.frames == 15 and encoders.sound == (21_000, 2)
    require_attention(encoders)
    sound = clips.wave[:, 0]
    own, foreign = attention_maps(encoders, clips.video, sound, [sound.roll(1, dims=0)])
    wanted = model.features(clips, ("att",))["att"].numpy()
    np.testing.assert_allclose(own, wanted, atol=1e-6)
    (again,) = attention_maps(encoders, clips.video, sound.roll(1, dims=0))
    np.testing.assert_allclose(foreign, again, atol=1e-6)
    assert not np.allclose(own, foreign, atol=1e-6)


def test_a_map_leaves_no_trace():
    model, clips = Coattention(MINI).eval(), downstream(MINI)
    with torch.no_grad():
        att = model.features(clips, ("att",))["att"]
    assert not att.requires_grad
    assert all(weight.grad is None for weight in model.parameters())
