"""Blocks, recurrent state and the choice among candidates, against loops and torch's own GRU."""

import math
import threading
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from train.methods import predictive
from train.methods.predictive import choose, in_blocks
from train.models.recurrent import ConvGru
from train.models.video2d3d import ResNet2d3d

CLIPS, ANCHORS, EACH, WIDTH = 3, 4, 5, 6
POSITIVE = torch.tensor([2, 0, 4, 4])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# --- the choice ---------------------------------------------------------------------------------


def naive_choice(predicted: Tensor, candidates: Tensor) -> tuple[float, float, float]:
    """Loss, accuracy, accuracy within the own clip: -log softmax of the positive, one by one."""
    p, c = predicted.double().numpy(), candidates.double().numpy()
    losses, hits, within = [], [], []
    for b, a in product(range(len(p)), range(p.shape[1])):
        scores = {(o, k): p[b, a] @ c[o, k] for o in range(len(c)) for k in range(c.shape[1])}
        own = (b, int(POSITIVE[a]))
        losses.append(np.logaddexp.reduce(list(scores.values())) - scores[own])
        others = [score for where, score in scores.items() if where != own]
        hits.append(scores[own] > max(others))
        inside = [score for where, score in scores.items() if where != own and where[0] == b]
        within.append(scores[own] > max(inside))
    return float(np.mean(losses)), float(np.mean(hits)), float(np.mean(within))


def vectors() -> tuple[Tensor, Tensor]:
    """Predictions of which most resemble their own candidate."""
    candidates = torch.randn(CLIPS, EACH, WIDTH)
    return candidates[:, POSITIVE] + 0.8 * torch.randn(CLIPS, ANCHORS, WIDTH), candidates


@pytest.mark.parametrize("at_once", [2**26, 40, 1])
def test_choice_equals_loops_also_in_parts(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(predictive, "SCORES_AT_ONCE", at_once)
    predicted, candidates = vectors()
    chosen = choose(predicted, candidates, POSITIVE)
    loss, accuracy, within = naive_choice(predicted, candidates)
    assert chosen.loss.item() == pytest.approx(loss, rel=1e-5)
    assert chosen.accuracy.item() == pytest.approx(accuracy)
    assert chosen.within.item() == pytest.approx(within)
    assert 0 < accuracy < within < 1, "the case must tell the two apart"
    assert chosen.candidates == CLIPS * EACH


def test_parts_have_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch):
    given = tuple(x.requires_grad_() for x in vectors())
    whole = torch.autograd.grad(choose(given[0], given[1], POSITIVE).loss, given)
    monkeypatch.setattr(predictive, "SCORES_AT_ONCE", 40)
    parts = torch.autograd.grad(choose(given[0], given[1], POSITIVE).loss, given)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_equal_scores_cost_the_logarithm_of_the_candidates_and_hit_nothing():
    chosen = choose(torch.zeros(2, 3, 4), torch.randn(2, 5, 4), torch.tensor([0, 1, 2]))
    assert chosen.loss.item() == pytest.approx(math.log(10))
    assert chosen.accuracy == chosen.within == 0
    chances = chosen.chances("cpc")
    assert chances["loss_chance"].item() == pytest.approx(math.log(10))
    assert chances["cpc_accuracy_chance"].item() == pytest.approx(1 / 10)
    assert chances["cpc_within_accuracy_chance"].item() == pytest.approx(1 / 5)


def test_two_ranks_together_are_the_whole_batch(monkeypatch: pytest.MonkeyPatch):
    predicted, candidates = torch.randn(4, ANCHORS, WIDTH), torch.randn(4, EACH, WIDTH)
    weight = torch.randn(WIDTH, WIDTH, requires_grad=True)
    place = threading.local()
    monkeypatch.setattr(predictive, "own_rank", lambda: place.rank)
    everyone = torch.tanh(candidates @ weight)

    def share(rank: int) -> predictive.Choice:
        place.rank = rank
        own = slice(2 * rank, 2 * rank + 2)
        gather: Callable[[Tensor], Tensor] = lambda _: everyone  # noqa: E731
        return choose(predicted[own] @ weight, everyone[own], POSITIVE, gather)

    shares = [share(0), share(1)]
    whole = choose(predicted @ weight, everyone, POSITIVE)
    both = torch.stack([one.loss for one in shares]).mean()
    assert both.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    for fact in ("accuracy", "within"):
        halves = [getattr(one, fact).item() for one in shares]
        assert np.mean(halves) == pytest.approx(getattr(whole, fact).item())
    expected = torch.autograd.grad(whole.loss, weight, retain_graph=True)[0]
    assert torch.allclose(torch.autograd.grad(both, weight)[0], expected, atol=1e-5)


# --- blocks -------------------------------------------------------------------------------------


def test_blocks_are_the_clips_pictures_in_order():
    video = torch.arange(2 * 3 * 6 * 2 * 2).view(2, 3, 6, 2, 2)
    blocks = in_blocks(video, 2)
    assert blocks.shape == (6, 3, 2, 2, 2)
    for clip, block in product(range(2), range(3)):
        expected = video[clip, :, 2 * block : 2 * block + 2]
        assert torch.equal(blocks[3 * clip + block], expected)


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="7 frames cannot be cut into blocks of 4"):
        in_blocks(torch.zeros(1, 3, 7, 2, 2), 4)


# --- networks -----------------------------------------------------------------------------------


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def matrix(gate: nn.Conv2d) -> tuple[Any, Any]:
    """Weight and bias of a 1x1 convolution."""
    assert gate.bias is not None
    weight, bias = (x.detach().double().numpy() for x in (gate.weight[..., 0, 0], gate.bias))
    return weight, bias


def test_convgru_equals_its_formula_cell_by_cell():
    net, x = ConvGru(3, 2), torch.randn(2, 4, 3, 2, 2)
    with torch.no_grad():
        for gate in (net.update, net.reset, net.out):
            assert gate.bias is not None
            gate.bias.uniform_()
        state = None
        for step in range(4):
            state = net(x[:, step], state)
    assert state is not None
    weights = {"z": matrix(net.update), "r": matrix(net.reset), "o": matrix(net.out)}
    for b, i, j in product(range(2), range(2), range(2)):
        h = np.zeros(2)
        for step in range(4):
            given = x[b, step, :, i, j].double().numpy()
            z, r = (
                sigmoid(weights[gate][0] @ np.concatenate([given, h]) + weights[gate][1])
                for gate in "zr"
            )
            new = np.tanh(weights["o"][0] @ np.concatenate([given, r * h]) + weights["o"][1])
            h = (1 - z) * h + z * new
        assert np.allclose(state[b, :, i, j].numpy(), h, atol=1e-6)


def test_convgru_is_torchs_gru_where_the_reset_commutes():
    """A diagonal matrix on the state makes no difference between W (r h) and r (W h)."""
    channels, hidden = 3, 2
    net, theirs = ConvGru(channels, hidden), nn.GRU(channels, hidden, batch_first=True)
    with torch.no_grad():
        net.out.weight[:, channels:, 0, 0] = torch.diag(torch.tensor([0.7, -1.3]))
        # torch's gates stand in the order r, z, n, and its z keeps the old state.
        ordered = [net.reset.weight, -net.update.weight, net.out.weight]
        both = torch.cat([weight[..., 0, 0] for weight in ordered])
        theirs.get_parameter("weight_ih_l0").copy_(both[:, :channels])
        theirs.get_parameter("weight_hh_l0").copy_(both[:, channels:])
        theirs.get_parameter("bias_ih_l0").zero_()
        theirs.get_parameter("bias_hh_l0").zero_()
        x = torch.randn(5, 7, channels)
        state = None
        for step in range(7):
            state = net(x[:, step, :, None, None], state)
    assert state is not None
    assert torch.allclose(state[..., 0, 0], theirs(x)[1][0], atol=1e-6)


@pytest.mark.parametrize(("frames", "steps"), [(4, 1), (5, 2), (8, 2), (1, 1)])
def test_the_2d3d_resnet_has_the_released_shapes(frames: int, steps: int):
    net = ResNet2d3d(width=8)
    found = net(torch.randn(1, 3, frames, 112, 112))
    assert found.shape == (1, 32, steps, 4, 4)
    assert found.min() < 0 < found.max(), "the last stage is not rectified"


def test_the_2d3d_resnet_looks_at_single_pictures_in_its_first_stages():
    net = ResNet2d3d(width=4).eval()
    video = torch.randn(1, 3, 4, 32, 32)
    changed = video.clone()
    changed[:, :, 3] += 1

    def early(x: Tensor) -> Tensor:
        found: Tensor = net.res3(net.res2(net.stem(x)))
        return found

    with torch.no_grad():
        same = early(video) == early(changed)
    assert same[:, :, :3].all()
    assert not same[:, :, 3].all()


def test_the_2d3d_resnet_18_has_its_parameters():
    """Counted by hand: convolutions k·c_in·c_out, and two numbers a channel of each BatchNorm."""
    stem = 3 * 49 * 64 + 2 * 64
    two = [(9, 64, 64)] * 4 + [(9, 64, 128), (1, 64, 128)] + [(9, 128, 128)] * 3
    three = [(27, 128, 256), (1, 128, 256)] + [(27, 256, 256)] * 7 + [(1, 256, 256)]
    layers = sum(k * c_in * c_out + 2 * c_out for k, c_in, c_out in two + three)
    assert sum(weight.numel() for weight in ResNet2d3d().parameters()) == stem + layers
