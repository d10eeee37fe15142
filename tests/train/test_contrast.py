"""The predictive contrast against naive loops written from the temporal-SSL paper's Eq. 1-3."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from train.objectives.contrast import NeighbourContrast
from train.objectives.queues import Queue

TAU = 0.2
CLIPS, WIDTH = 4, 6


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def d(x: Tensor, y: Tensor) -> float:
    """Eq. 2."""
    return math.exp(float(x @ y) / float(x.norm() * y.norm()) / TAU)


def naive(
    x: Tensor, y: Tensor, batch: list[Tensor], held: list[Tensor], k: int, m: int, q: int,
    uniform: bool,
) -> float:  # fmt: skip
    """Eq. 1 for one anchor, sets written out one by one."""
    order = sorted(held, key=lambda vector: -d(y, vector))
    near = order[:k]
    total = sum(d(y, vector) for vector in near)
    weighted = [(y, 1.0)] + [(v, 1.0 if uniform else d(y, v) / total) for v in near]
    negatives = batch + order[q : q + m]
    loss = 0.0
    for positive, weight in weighted:
        below = d(x, positive) + sum(d(x, negative) for negative in negatives)
        loss += -weight * math.log(d(x, positive) / below)
    return loss


def filled(count: int, size: int) -> tuple[Queue, list[Tensor]]:
    queue, vectors = Queue(size, WIDTH), unit(count, WIDTH, seed=9)
    for part in vectors.split(5):
        queue.append(part)
    return queue, list(vectors[-size:])


@pytest.mark.parametrize(("k", "m", "share", "uniform"), [
    (5, 8, 0.5, False),  # the paper's
    (0, 8, 0.5, False),  # Table 1 (a)
    (5, 0, 0.5, False),  # (b)
    (3, 8, 0.1, False),  # (c) hard
    (5, 6, 0.8, False),  # (d) easy
    (5, 8, 0.5, True),  # (e)
])  # fmt: skip
@pytest.mark.parametrize("count", [40, 53, 20])
def test_equals_the_naive_loops(k, m, share, uniform, count):
    """Also while the queue of 40 holds 20 only, and after it has gone around."""
    queue, held = filled(count, 40)
    anchors, views, others = unit(CLIPS, WIDTH), unit(CLIPS, WIDTH, seed=1), unit(7, WIDTH, seed=2)
    foreign = torch.rand(CLIPS, 7, generator=torch.Generator().manual_seed(3)) < 0.6
    contrast = NeighbourContrast(
        tau=TAU, positives=k, negatives=m, negatives_from=share, uniform=uniform
    )
    losses = contrast(anchors, views, others, foreign, queue)
    q = max(int(share * len(held)), k)
    expected = [
        naive(x, y, [o for o, f in zip(others, own, strict=True) if f], held, k, m, q, uniform)
        for x, y, own in zip(anchors, views, foreign, strict=True)
    ]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_without_a_queue_it_is_cross_entropy():
    """One positive against the batch: torch's own cross-entropy is the oracle."""
    anchors, views = unit(CLIPS, WIDTH), unit(CLIPS, WIDTH, seed=1)
    foreign = ~torch.eye(CLIPS, dtype=torch.bool)
    losses = NeighbourContrast(tau=TAU)(anchors, views, views, foreign, None)
    logits = anchors @ views.T / TAU
    expected = F.cross_entropy(logits, torch.arange(CLIPS), reduction="none")
    torch.testing.assert_close(losses, expected)


def test_gradient_reaches_the_anchors_alone_and_is_finite():
    """Also with an empty queue and a single clip, where there is no negative at all."""
    for count, clips in ((0, 1), (3, 1), (40, CLIPS)):
        queue = Queue(40, WIDTH)
        if count:
            queue.append(unit(count, WIDTH, seed=9))
        anchors = unit(clips, WIDTH).requires_grad_()
        views = unit(clips, WIDTH, seed=1)
        foreign = ~torch.eye(clips, dtype=torch.bool)
        contrast = NeighbourContrast(tau=TAU, negatives=8)
        loss = contrast(anchors, views, views, foreign, queue).sum()
        queue.append(unit(clips, WIDTH, seed=8))
        loss.backward()
        assert anchors.grad is not None
        assert anchors.grad.isfinite().all() and loss.isfinite()
        if count == 0:
            assert loss.item() == 0


def test_stable_where_the_naive_form_overflows():
    """exp(1 / 0.005) is beyond float32; the loss is the margin in logits."""
    x = torch.tensor([[1.0, 0.0]])
    others = torch.tensor([[1.0, 0.0]])
    contrast = NeighbourContrast(tau=0.005)
    loss = contrast(x, -x, others, torch.ones(1, 1, dtype=torch.bool), None)
    assert loss.item() == pytest.approx(400.0)
