"""AVTS and AVSlowFast: cuts, pairs, losses and turns against loops and pictures made by hand."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from train.cuts import Clip, Cut, RunFacts
from train.errors import UsageError
from train.methods import avslowfast, avts
from train.methods.avslowfast import AvSlowFastConfig, AvSlowFastMethod, turned
from train.methods.avts import Avts, AvtsConfig
from train.methods.sync_pairs import (
    Curriculum,
    Distances,
    Projection,
    SyncConfig,
    contrast,
    distances,
    hard_pairs,
    pair_facts,
    sound_pieces,
)
from train.models.avslowfast import AvSlowFast, SoundEntrance

MINI = AvtsConfig(frames=4, crop=32, width=8, D=6)
MINI_SF = AvSlowFastConfig(frames=8, n_slow=2, crop=32, width=8, beta=4, D=6)
METHODS: list[Any] = [(Avts, MINI), (AvSlowFastMethod, MINI_SF)]
STEPS = 100


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def batch_for(config: SyncConfig, clips: int = 4) -> Any:
    tensors = {name: torch.randn(clips, *shape) for name, shape in config.input_shapes.items()}
    other = config.frames + config.gap_frames
    sounds = torch.tensor([[0, other], [other, 0]] * (clips // 2))
    return SimpleNamespace(**tensors, instance=torch.arange(clips), numbers={"sounds": sounds})


def prepared(method: Any, config: SyncConfig) -> Any:
    model = method(config)
    model.prepare(RunFacts(instances=100, steps=STEPS, steps_per_epoch=10))
    return model


# --- cuts -------------------------------------------------------------------------------------


def drawn_cuts(config: SyncConfig, clip: Clip, count: int = 200) -> list[Cut]:
    return [config.cut(clip, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize(("fps", "gap_frames"), [(10.0, 5), (10.0, 8), (25.0, 13)])
def test_wrong_sounds_are_half_a_second_away_from_the_right_ones(fps: float, gap_frames: int):
    config = replace(MINI, gap_frames=gap_frames)
    clip = Clip(frames=40, fps=fps, wave_rate_hz=None)
    orders, starts = Counter[bool](), set()
    for cut in drawn_cuts(config, clip):
        right, hard = cut.numbers["sounds"]
        assert cut.mel_start is not None
        shown = list(cut.pictures)[: config.frames]
        heard = range(cut.mel_start + right, cut.mel_start + right + config.frames)
        wrong = range(cut.mel_start + hard, cut.mel_start + hard + config.frames)
        assert shown == list(heard)
        silence = max(wrong.start - heard.stop, heard.start - wrong.stop)
        assert silence / fps >= 0.5
        assert min(*heard, *wrong) >= cut.mel_start >= 0
        assert max(*heard, *wrong) < cut.mel_start + config.reads.frames <= clip.frames
        assert len(cut.pictures) == config.reads.frames
        assert set(list(cut.pictures)[config.frames :]) == {shown[-1]}
        orders[right < hard] += 1
        starts.add(cut.mel_start)
    assert min(orders.values()) > 60
    assert starts == set(range(clip.frames - config.reads.least_frames + 1))


def test_a_clip_of_just_the_window_can_be_cut():
    clip = Clip(MINI.pictures_read, 10.0, None)
    assert {cut.mel_start for cut in drawn_cuts(MINI, clip, 20)} == {0}


def test_another_clock_asks_for_another_gap():
    with pytest.raises(UsageError, match=r"0\.20 s at 25 frames .* --model.gap-frames 13"):
        MINI.cut(Clip(100, 25.0, None), np.random.default_rng(0))


def test_sound_pieces_are_the_slices_of_their_frames():
    mel = torch.arange(2 * 80 * 39).view(2, 80, 39).float()
    pieces = sound_pieces(mel, torch.tensor([[0, 9], [9, 2]]), 4)
    assert pieces.shape == (4, 80, 12)
    for piece, (clip, frame) in zip(pieces, [(0, 0), (1, 9), (0, 9), (1, 2)], strict=True):
        for k in range(12):
            assert torch.equal(piece[:, k], mel[clip, :, 3 * frame + k])


# --- pairs ------------------------------------------------------------------------------------


def naive_loss(
    embedded: Sequence[Tensor], is_hard: list[bool], counted: list[bool], eta: float
) -> float:
    """The loss of methods §6, y d^2 + (1 - y) max(0, eta - d)^2, pair by pair."""
    v, a, h = (x.detach().double().numpy() for x in embedded)
    terms = []
    for i in range(len(v)):
        if not counted[i]:
            continue
        wrong = h[i] if is_hard[i] else a[(i + 1) % len(v)]
        for sound, y in ((a[i], 1), (wrong, 0)):
            d = math.sqrt(sum((x - s) ** 2 for x, s in zip(v[i], sound, strict=True)))
            terms.append(y * d**2 + (1 - y) * max(0.0, eta - d) ** 2)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("counted", [[True] * 5, [True, False, True, True, False]])
def test_loss_is_the_papers(counted: list[bool]):
    embedded = [0.3 * torch.randn(5, 3) for _ in range(3)]
    is_hard = [False, True, True, False, False]
    loss = contrast(distances(*embedded), torch.tensor(is_hard), 0.99)[torch.tensor(counted)].mean()
    assert loss.item() == pytest.approx(naive_loss(embedded, is_hard, counted, 0.99), rel=1e-5)


def test_far_wrong_pairs_and_equal_right_ones_cost_nothing():
    pictures = torch.eye(3) * 2
    loss = contrast(distances(pictures, pictures, -pictures), torch.tensor([True] * 3), 0.99)
    assert loss.tolist() == [0, 0, 0]


def test_gradients_are_finite_where_distances_are_zero():
    x = torch.zeros(2, 3, requires_grad=True)
    contrast(distances(x, x * 1, x * 1), torch.tensor([True, False]), 0.99).mean().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_accuracies_count_pairs_by_hand():
    right, easy = torch.tensor([1.0, 1.0, 2.0, 0.5]), torch.tensor([2.0, 1.0, 1.0, 9.0])
    hard = torch.tensor([0.0, 2.0, 3.0, 1.0])
    facts = pair_facts(Distances(right, easy, hard), torch.tensor([True, True, True, False]))
    assert facts["avc_accuracy"].item() == pytest.approx(1 / 3)  # a tie is a miss
    assert facts["avts_accuracy"].item() == pytest.approx(2 / 3)
    assert facts["d_right"].item() == pytest.approx(4 / 3)


@pytest.mark.parametrize("kept_apart", [True, False])
def test_vectors_that_know_nothing_of_each_other_are_eta_apart(kept_apart: bool):
    """Whatever the features' scale and mean are; as means of squares over a batch."""
    head = Projection(5, replace(MINI, kept_apart=kept_apart))
    x, y = (head(30 + 9 * torch.randn(4000, 5)).detach() for _ in range(2))
    apart = (x - y).square().sum(dim=1).mean().sqrt().item()
    assert (apart == pytest.approx(MINI.eta, rel=0.02)) == kept_apart


def test_a_single_clip_has_its_hard_pair_only():
    found = distances(*(torch.randn(1, 3) for _ in range(3)))
    assert torch.equal(found.easy, found.hard)


# --- the curriculum ---------------------------------------------------------------------------


def test_curriculum_is_easy_first_then_a_quarter_is_hard():
    curriculum = Curriculum()
    curriculum.prepare(RunFacts(1000, 200, 50))
    shares = []
    for _ in range(200):
        shares.append(hard_pairs(MINI, curriculum, torch.arange(500), True).float().mean().item())
        curriculum.count()
    assert set(shares[:110]) == {0.0}
    assert sum(shares[110:]) / 90 == pytest.approx(0.25, abs=0.01)
    assert min(shares[110:]) > 0.15
    assert int(curriculum.batches) == 200


def test_the_curriculum_goes_on_where_it_was_with_other_batches():
    """12 of 24 batches, then the half that is left in 6 larger ones."""
    curriculum = Curriculum()
    curriculum.prepare(RunFacts(1000, 24, 12))
    for _ in range(12):
        curriculum.count()
    later = Curriculum()
    later.prepare(RunFacts(1000, 12, 6))
    later.load_state_dict(curriculum.state_dict())
    parts = [float(later.part())]
    for _ in range(6):
        later.count()
        parts.append(float(later.part()))
    assert parts == pytest.approx([0.5 + k / 12 for k in range(7)])


def test_held_out_pairs_do_not_depend_on_the_time():
    curriculum = Curriculum()
    early = hard_pairs(MINI, curriculum, torch.arange(4000), False)
    curriculum.batches += 77
    assert torch.equal(early, hard_pairs(MINI, curriculum, torch.arange(4000), False))
    assert early.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_a_schedule_of_unknown_length_is_refused():
    with pytest.raises(RuntimeError, match="prepare"):
        Avts(MINI)(batch_for(MINI))


@pytest.mark.parametrize(("method", "config"), METHODS)
def test_only_training_counts_batches(method: Any, config: SyncConfig):
    model, batch = prepared(method, config), batch_for(config)
    model(batch)
    model.eval().with_controls(batch)
    assert int(model.memory.batches) == 1
    assert "memory.batches" in model.state_dict()


# --- the methods ------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "config"), METHODS)
def test_loss_comes_first_alone_with_a_gradient(method: Any, config: SyncConfig):
    model, batch = prepared(method, config), batch_for(config)
    facts = model(batch)
    assert next(iter(facts)) == "loss"
    assert [name for name, value in facts.items() if value.requires_grad] == ["loss"]
    assert all(value.ndim == 0 and value.isfinite() for value in facts.values())
    facts["loss"].backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in model.parameters())
    controls = model.eval().with_controls(batch)
    chances = {name for name in controls if name.endswith("_chance")}
    assert set(controls) - chances == set(facts)
    assert {"avc_accuracy_chance", "avts_accuracy_chance"} <= chances


def test_chances_of_a_batch():
    controls = prepared(Avts, MINI).eval().with_controls(batch_for(MINI))
    assert float(controls["a2v_r1_chance"]) == 1 / 4
    turns = prepared(AvSlowFastMethod, MINI_SF).eval().with_controls(batch_for(MINI_SF))
    assert float(turns["loss_rotation_chance"]) == pytest.approx(-math.log(0.25))


def test_avts_loss_of_a_batch_is_the_naive_one():
    """In evaluation, from the embeddings that encoders and heads give when asked one by one."""
    model, batch = prepared(Avts, MINI).eval(), batch_for(MINI)
    embedded: dict[str, list[Tensor]] = {"v": [], "right": [], "hard": []}
    for i, (right, hard) in enumerate(batch.numbers["sounds"].tolist()):
        video = model.encoder(batch.video[i : i + 1, :, :4]).mean(dim=(2, 3, 4))
        embedded["v"].append(model.project_v(video)[0])
        for name, first in (("right", right), ("hard", hard)):
            mel = batch.mel[i : i + 1, :, 3 * first : 3 * first + 12]
            embedded[name].append(model.project_a(model.audio(mel).mean(dim=2))[0])
    found = [torch.stack(x) for x in embedded.values()]
    is_hard = hard_pairs(MINI, model.memory, batch.instance, False).tolist()
    expected = naive_loss(found, is_hard, [True] * 4, MINI.eta)
    assert model(batch)["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_pictures_after_the_clip_are_not_looked_at():
    for method, config in METHODS:
        model, batch = prepared(method, config).eval(), batch_for(config)
        before = model(batch)["loss"]
        batch.video[:, :, config.frames :] = 7
        assert torch.equal(before, model(batch)["loss"])


@pytest.mark.parametrize(("method", "config"), METHODS)
def test_features_of_any_length_and_of_either_sense(method: Any, config: SyncConfig):
    model = prepared(method, config).eval()
    video, mel = torch.randn(2, 3, 7, 40, 40), torch.randn(2, 80, 21)
    both = model.features(SimpleNamespace(video=video, mel=mel))
    assert {name: x.shape[1] for name, x in both.items()} == model.feature_channels
    silent = model.features(SimpleNamespace(video=video, mel=None))
    assert set(silent) == set(both) - {"fa"}
    assert all(torch.equal(x, both[name]) for name, x in silent.items())
    heard = model.features(SimpleNamespace(video=None, mel=mel), wanted=["fa"])
    assert list(heard) == ["fa"] and heard["fa"].shape[2] == 21
    assert set(model.features(SimpleNamespace(video=video, mel=mel), wanted=["fa"])) == {"fa"}


@pytest.mark.parametrize(
    ("presets", "seconds"), [(avts.PRESETS, 4), (avslowfast.PRESETS, 7)], ids=["avts", "avslowfast"]
)
def test_presets_fit_their_clips(presets: dict[str, SyncConfig], seconds: int):
    for name, config in presets.items():
        assert config.reads.least_frames <= (30 if name.endswith("grid") else 10 * seconds)


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (MINI, {"gap_frames": 0}, "gap_frames is 0"),
        (MINI, {"eta": 0.0}, "eta is 0"),
        (MINI, {"hard_share": 1.5}, r"hard_share is 1.5; expected 0 .. 1"),
        (MINI_SF, {"n_slow": 3}, "multiple of n_slow"),
        (MINI_SF, {"beta": 3}, "cannot be divided by beta"),
        (MINI_SF, {"drop_last": -0.1}, "drop_last is -0.1"),
        (MINI_SF, {"w_rotation": 0.0}, "w_rotation is 0"),
    ],
)
def test_configs_refuse_what_cannot_be_trained(config: Any, changes: Any, said: str):
    with pytest.raises(ValueError, match=said):
        replace(config, **changes)


# --- rotation ---------------------------------------------------------------------------------


def test_turns_are_those_of_numpy():
    video = torch.randn(8, 3, 2, 5, 5)
    turns = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    expected = [np.rot90(x.numpy(), k, axes=(2, 3)) for x, k in zip(video, turns, strict=True)]
    assert np.array_equal(turned(video, turns).numpy(), np.stack(expected))


def test_turns_can_be_told_from_the_picture():
    """A bright corner, top left, wanders to the left: down, right, up."""
    video = torch.zeros(4, 1, 1, 6, 6)
    video[..., 0, 0] = 1
    corners = [tuple(x[0, 0].nonzero()[0].tolist()) for x in turned(video, torch.arange(4))]
    assert corners == [(0, 0), (5, 0), (5, 5), (0, 5)]


def test_oblong_pictures_are_refused():
    with pytest.raises(ValueError, match="only squares"):
        turned(torch.zeros(1, 3, 2, 4, 6), torch.zeros(1, dtype=torch.int64))


def test_labels_are_the_turns_of_the_pictures_that_the_network_sees():
    """Recovered from the bright corner, the labels give the same loss and accuracy."""
    model, batch = prepared(AvSlowFastMethod, MINI_SF), batch_for(MINI_SF, clips=16)
    batch.video = torch.zeros_like(batch.video)
    batch.video[..., :8, :8] = 1
    met: dict[str, Tensor] = {}
    model.visual.register_forward_pre_hook(lambda _, given: met.update(video=given[0]))
    model.rotation.register_forward_hook(lambda _, given, found: met.update(logits=found))
    facts = model(batch)
    places = [(0, 0), (-1, 0), (-1, -1), (0, -1)]
    bright = torch.stack([met["video"][:, 0, 0, y, x] for y, x in places], dim=1)
    labels = bright.argmax(dim=1)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    chosen = met["logits"].log_softmax(dim=1)[torch.arange(16), labels]
    assert facts["loss_rotation"].item() == pytest.approx(-chosen.mean().item(), rel=1e-5)
    hits = (met["logits"].argmax(dim=1) == labels).float().mean()
    assert facts["rotation_accuracy"].item() == pytest.approx(hits.item())


def test_turns_are_drawn_evenly_and_anew():
    model = prepared(AvSlowFastMethod, MINI_SF)
    first = model._turns(torch.arange(8000))
    model.memory.count()
    second = model._turns(torch.arange(8000))
    shares = torch.bincount(4 * first + second) / 8000
    assert (shares - 1 / 16).abs().max() < 0.014  # five standard deviations
    held_out = model.eval()._turns(torch.arange(8000))
    model.memory.count()
    assert torch.equal(held_out, model._turns(torch.arange(8000)))


# --- the lateral network ----------------------------------------------------------------------


def small_network() -> AvSlowFast:
    return AvSlowFast(width=8, beta=4, alpha=4, audio_channels=(3, 4, 5)).train()


def sounds_for(clips: int, frames: int) -> list[Tensor]:
    return [torch.randn(clips, channels, 3 * frames) for channels in (3, 4, 5)]


@pytest.mark.parametrize(("frames", "slow_frames"), [(32, 8), (29, 8), (33, 9), (2, 1)])
def test_shapes_at_full_size(frames: int, slow_frames: int):
    with torch.device("meta"):
        network = AvSlowFast()
        sound = [torch.empty(2, channels, 3 * frames) for channels in (128, 256, 512)]
        seen = network(torch.empty(2, 3, frames, 112, 112), sound, torch.ones(2, dtype=torch.bool))
    assert seen.slow.shape == (2, 512, slow_frames, 14, 14)
    assert seen.fast.shape == (2, 64, frames, 14, 14)
    assert [x.shape for x in seen.pooled] == [(2, 160), (2, 320), (2, 576)]
    assert seen.fused.shape == (2, 576)


def test_the_slow_path_sees_frames_between_its_own_through_the_fast_one():
    network = small_network().eval()
    video = torch.randn(1, 3, 8, 32, 32)
    changed = video.clone()
    changed[:, :, 5:7] += 1  # the slow path itself sees frames 0 and 4
    assert not torch.equal(network(video).slow, network(changed).slow)
    laterals: Any = network.lateral
    for lateral in laterals:
        torch.nn.init.zeros_(lateral[0].weight)
    assert torch.equal(network(video).slow, network(changed).slow)


def test_dropped_sound_is_silence_and_the_other_clips_hear():
    network = small_network().eval()
    entrances: Any = network.sound
    for entrance in entrances:
        torch.nn.init.normal_(entrance.norm.bias)
    video, sound = torch.randn(3, 3, 8, 32, 32), sounds_for(3, 8)
    silent = network(video)
    mixed = network(video, sound, torch.tensor([True, False, True]))
    for one, other in ((silent.slow, mixed.slow), (silent.fused, mixed.fused)):
        assert torch.allclose(one[[0, 2]], other[[0, 2]], atol=1e-5)
        assert not torch.allclose(one[1], other[1], atol=1e-3)
    assert torch.equal(silent.fast, mixed.fast)


def test_missing_sound_is_the_mean_sound():
    """After training's statistics, what stands in is what the mean of the features would give."""
    entrance = SoundEntrance(3, 4)
    torch.nn.init.normal_(entrance.norm.bias)
    sound = 5 + torch.randn(6, 3, 7)
    heard = entrance(sound, None)
    assert torch.allclose(heard.mean(dim=(0, 2)), entrance(None, None)[0, :, 0], atol=1e-5)


def test_what_is_compared_with_sounds_has_not_heard_them():
    network = small_network()
    sound = [x.requires_grad_() for x in sounds_for(2, 8)]
    seen = network(torch.randn(2, 3, 8, 32, 32), sound, torch.tensor([True, False]))
    heard = torch.autograd.grad(seen.pooled[0].sum(), sound, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in heard)
    network.eval()  # BatchNorm of training mixes clips
    seen = network(torch.randn(2, 3, 8, 32, 32), sound, torch.tensor([True, False]))
    (of_res3,) = torch.autograd.grad(seen.pooled[2].square().sum(), sound[:1])
    assert not of_res3[0].any() and of_res3[1].any()


def test_share_of_dropped_sound_falls_over_the_schedule():
    model = prepared(AvSlowFastMethod, MINI_SF)
    shares = []
    for _ in range(STEPS + 1):
        dropped, everyone = model._dropped(torch.arange(1000))
        assert torch.equal(dropped, everyone)
        shares.append(dropped.float().mean().item())
        model.memory.count()
    expected = np.linspace(0.8, 0.5, STEPS + 1)
    assert np.abs(np.array(shares) - expected).max() < 0.07
    assert np.mean(shares) == pytest.approx(0.65, abs=0.01)


def test_at_least_one_clip_of_all_ranks_has_its_sound_dropped():
    config = replace(MINI_SF, drop_first=0.0, drop_last=0.0)
    model = prepared(AvSlowFastMethod, config)
    for _ in range(20):
        dropped, _ = model._dropped(torch.arange(4))
        assert dropped.sum() == 1
        model.memory.count()


def test_sync_terms_count_clips_without_sound_only(monkeypatch: Any):
    """With what the network saw: the naive loss of dropped clips, summed over the stages."""
    model, batch = prepared(AvSlowFastMethod, MINI_SF), batch_for(MINI_SF, clips=8)
    model.memory.batches += 90
    model.memory.over += 0.9
    met: list[tuple[Tensor, ...]] = []

    def noted(*embedded: Tensor) -> Distances:
        met.append(embedded)
        return distances(*embedded)

    monkeypatch.setattr(avslowfast, "distances", noted)
    dropped = model._dropped(batch.instance)[0].tolist()
    is_hard = hard_pairs(MINI_SF, model.memory, batch.instance, True).tolist()
    assert set(dropped) == {True, False}
    facts = model(batch)
    expected = [naive_loss(three, is_hard, dropped, 0.99) for three in met]
    assert len(expected) == 3
    assert facts["loss_sync"].item() == pytest.approx(sum(expected), rel=1e-5)
    assert facts["dropped_share"].item() == pytest.approx(sum(dropped) / 8)
    whole = facts["loss_sync"] + facts["loss_rotation"]
    assert facts["loss"].item() == pytest.approx(whole.item(), rel=1e-6)
