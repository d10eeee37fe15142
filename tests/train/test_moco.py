"""MoCo: the loss against a loop, key network and queue by hand, what changes when and what not."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.cuts import Clip
from train.methods.moco import (
    COPIED_BATCHES,
    NO_CLIP,
    PRESETS,
    KeyMemory,
    KeyNorm,
    Moco,
    MocoConfig,
    momentum_contrast,
    two_windows,
)

CLIPS, KEYS = 3, 7
CONFIG = MocoConfig(frames=2, crop=16, width=2, queue=KEYS, width_out=5)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def clips(count: int = CLIPS, first: int = 0) -> Any:
    side = CONFIG.crop
    video = torch.randn(count, 2, 3, CONFIG.frames, side, side)
    return SimpleNamespace(video=video, instance=torch.arange(first, first + count))


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def first_norm(encoder: Any) -> Any:
    return encoder.stem[1]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


# --- the loss ---------------------------------------------------------------------------------


def test_loss_and_facts_are_those_of_a_loop():
    queries, keys, queue = unit(CLIPS, 5), unit(CLIPS, 5), unit(KEYS, 5)
    own = torch.zeros(CLIPS, KEYS, dtype=torch.bool)
    own[0, 2] = own[2, 5] = own[2, 6] = True
    facts = momentum_contrast(queries, keys, queries @ queue.T, own, temperature=0.3)
    losses, hits = [], []
    for i in range(CLIPS):
        positive = float(queries[i] @ keys[i]) / 0.3
        negatives = [float(queries[i] @ queue[k]) / 0.3 for k in range(KEYS) if not own[i, k]]
        total = math.exp(positive) + sum(math.exp(x) for x in negatives)
        losses.append(-math.log(math.exp(positive) / total))
        hits.append(positive > max(negatives))
    assert facts["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert facts["queue_accuracy"].item() == pytest.approx(np.mean(hits))


def test_equal_logits_give_the_chance_that_is_recorded():
    same, model = torch.ones(CLIPS, 5) / 5**0.5, Moco(CONFIG)
    model(clips())
    chances = model.eval().with_controls(clips(2))
    facts = momentum_contrast(same, same, torch.ones(CLIPS, CLIPS), None, temperature=0.07)
    assert facts["loss"].item() == pytest.approx(math.log(1 + CLIPS), rel=1e-5)
    assert chances["loss_chance"].item() == pytest.approx(math.log(1 + CLIPS), rel=1e-5)
    assert chances["queue_accuracy_chance"].item() == pytest.approx(1 / (1 + CLIPS))
    assert chances["views_r1_chance"].item() == pytest.approx(1 / 2)
    assert facts["queue_accuracy"] == 0  # a tie is a miss: a collapsed network knows nothing


def by_hand(model: Moco, batch: Any) -> tuple[Tensor, Tensor]:
    """Queries of the first views and keys of the second ones."""
    query, key = (
        F.normalize(head(net(batch.video[:, view]).mean((2, 3, 4))), dim=1)
        for view, net, head in (
            (0, model.encoder, model.project),
            (1, model.memory.encoder, model.memory.head),
        )
    )
    return query.detach(), key


def test_held_out_clips_are_compared_with_the_queue():
    model = Moco(CONFIG)
    for _ in range(3):
        model(clips())
    batch = clips()  # of the same ids, which mean other clips here
    query, key = by_hand(model.eval(), batch)
    logits = torch.cat(
        [(query * key).sum(1, keepdim=True), query @ model.memory.queue.entries.T], 1
    )
    expected = F.cross_entropy(logits / 0.07, torch.zeros(CLIPS, dtype=torch.int64))
    assert model(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_in_training_negatives_are_other_clips_keys_old_and_new():
    """Three batches of clips that overlap; statistics stand still, so that keys can be redone."""
    model = Moco(replace(CONFIG, queue=8, momentum=1.0))
    held: list[tuple[int, Tensor]] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()
    for first in (0, 1, 0):
        batch = clips(3, first)
        query, key = by_hand(model, batch)
        held = [*held, *zip(batch.instance.tolist(), key, strict=True)][-8:]
        losses = []
        for i, clip in enumerate(batch.instance.tolist()):
            positive = math.exp(float(query[i] @ key[i]) / 0.07)
            others = [math.exp(float(query[i] @ k) / 0.07) for owner, k in held if owner != clip]
            losses.append(-math.log(positive / (positive + sum(others))))
        assert model(batch)["loss"].item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_clip_that_has_met_no_other_has_nothing_to_lose():
    model, batch = Moco(CONFIG), clips(1, first=5)
    for _ in range(2):
        facts = model(batch)
        assert facts["loss"].item() == pytest.approx(0, abs=1e-6)
        facts["loss"].backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in model.project.parameters())


# --- what is trained, and what follows --------------------------------------------------------


def test_the_gradient_reaches_the_query_network_only():
    model = Moco(CONFIG)
    model(clips())["loss"].backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained == {n for n, _ in model.named_parameters() if not n.startswith("memory.")}
    assert all(x.grad is not None and x.grad.any() for x in model.project.parameters())


def test_the_key_network_follows_by_hand():
    """Weights: taken over in the first batch, then m k + (1 - m) q."""
    model = Moco(replace(CONFIG, momentum=0.9))
    with torch.no_grad():
        for weight in model.memory.parameters():
            weight.add_(1.0)  # as after --init from something else
    model(clips())
    for name, weight in model.encoder.named_parameters():
        assert torch.equal(dict(model.memory.encoder.named_parameters())[name], weight), name
    expected = {n: w.clone() for n, w in model.memory.named_parameters()}
    for _ in range(3):
        with torch.no_grad():
            for weight in (*model.encoder.parameters(), *model.project.parameters()):
                weight.add_(torch.randn_like(weight))
        model(clips())
        for part, net in (("encoder", model.encoder), ("head", model.project)):
            for name, weight in net.named_parameters():
                key = f"{part}.{name}"
                expected[key] = 0.9 * expected[key] + 0.1 * weight.detach()
    for name, weight in model.memory.named_parameters():
        assert torch.allclose(weight, expected[name], rtol=1e-5, atol=1e-6), name


def test_running_statistics_are_copied_at_first_and_then_follow():
    model = Moco(replace(CONFIG, momentum=0.9))
    model(clips())
    norm, key_norm = first_norm(model.encoder), first_norm(model.memory.encoder)
    assert torch.equal(norm.running_mean, key_norm.running_mean)
    model.memory.batches.fill_(COPIED_BATCHES)
    before = key_norm.running_var.clone()
    model(clips())
    expected = 0.9 * before + 0.1 * norm.running_var
    assert torch.allclose(key_norm.running_var, expected, rtol=1e-6)
    assert not torch.allclose(before, norm.running_var, rtol=1e-3)


def test_a_key_does_not_tell_its_batch():
    """With running statistics it depends on its clip alone; with those of the batch it does not."""
    together = clips(4)
    start = state(Moco(CONFIG))
    found = {}
    choices: tuple[KeyNorm, ...] = ("running", "batch")
    for key_norm in choices:
        keys = []
        for part in (slice(0, 4), slice(0, 2)):
            model = Moco(replace(CONFIG, key_norm=key_norm))
            model.load_state_dict(start)
            model.memory.batches.fill_(COPIED_BATCHES)
            model.memory.momentum = 1.0
            model(SimpleNamespace(video=together.video[part], instance=together.instance[part]))
            keys.append(model.memory.queue.entries[:2].clone())
        found[key_norm] = (keys[0] - keys[1]).abs().max()
    assert found["running"] < 1e-6
    assert found["batch"] > 1e-3


def test_the_queue_keeps_the_newest_keys():
    """The newest keys replace the oldest, round and round, with their clips' ids."""
    model = Moco(CONFIG)
    ids = [NO_CLIP] * KEYS
    place = 0
    for number in range(4):
        before = model.memory.queue.entries.clone()
        batch = clips(CLIPS, first=10 * number)
        model(batch)
        changed = (model.memory.queue.entries != before).any(dim=1)
        for clip in batch.instance.tolist():
            ids[place % KEYS] = clip
            assert changed[place % KEYS]
            place += 1
        assert int(changed.sum()) == CLIPS
        assert model.memory.instance.tolist() == ids
    lengths = model.memory.queue.entries.norm(dim=1)
    assert torch.allclose(lengths, torch.ones(KEYS))


def test_a_batch_longer_than_the_queue_leaves_its_last_keys():
    model = Moco(replace(CONFIG, queue=2))
    model(clips(5))
    assert sorted(model.memory.instance.tolist()) == [3, 4]


def test_evaluation_leaves_no_trace():
    model = Moco(CONFIG)
    model(clips())
    model.eval()
    before = state(model)
    model(clips())
    model.with_controls(clips())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# --- clips, features, configs -----------------------------------------------------------------


def test_two_cuts_lie_anywhere_in_the_clip():
    rng = np.random.default_rng(0)
    cuts = [two_windows(Clip(10, 10.0, None), rng, frames=8) for _ in range(200)]
    starts = {(cut.pictures[0], cut.pictures[8]) for cut in cuts}
    assert starts == {(a, b) for a in range(3) for b in range(3)}
    one, other = cuts[0].pictures[:8], cuts[0].pictures[8:]
    assert all(list(view) == list(range(view[0], view[0] + 8)) for view in (one, other))


def test_reads_and_shapes_agree():
    for config in PRESETS.values():
        reads = config.reads
        assert (reads.frames, reads.views, reads.mel) == (config.frames, 2, False)
        assert config.input_shapes["video"] == (2, 3, config.frames, config.crop, config.crop)
        assert reads.cut is not None
        cut = reads.cut(Clip(reads.least_frames, 10.0, None), np.random.default_rng(0))
        assert list(cut.pictures) == [*range(config.frames)] * 2


def test_features_are_the_encoders_own():
    model = Moco(CONFIG).eval()
    video = torch.randn(2, 3, 5, 24, 24)
    found = model.features(SimpleNamespace(video=video, mel=None))
    assert torch.equal(found["fv"], model.encoder(video))
    assert found["fv"].shape[1] == model.feature_channels["fv"]
    assert model.features(SimpleNamespace(video=None, mel=None)) == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"queue": 0}, "queue is 0; expected 1 or more"),
        ({"temperature": 0.0}, "temperature is 0.0; expected more than 0"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"key_norm": "none"}, "key_norm is 'none'; expected one of"),
        ({"frames": 0}, "frames is 0"),
        ({"strides": (1, 2, 3, 1)}, "strides is"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        MocoConfig(**fields)


def test_one_view_is_refused():
    batch = SimpleNamespace(video=torch.randn(2, 3, 2, 16, 16), instance=torch.arange(2))
    with pytest.raises(ValueError, match="expected two views"):
        Moco(CONFIG)(batch)


def test_the_key_network_is_built_as_the_query_network():
    model = Moco(replace(CONFIG, head="mlp"))
    assert isinstance(model.memory, KeyMemory)
    assert not any(weight.requires_grad for weight in model.memory.parameters())
    for name, weight in model.project.state_dict().items():
        assert torch.equal(model.memory.head.state_dict()[name], weight)
