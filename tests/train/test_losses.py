"""The losses against loops written from the formulas, against closed forms, and across ranks."""

import math
import threading
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from train.objectives.global_local import GlobalLoss, LocalLoss

Array = npt.NDArray[np.float64]

CLIPS, CELLS, FRAMES, WIDTH = 3, 4, 4, 6
COSINE = {"sim": "cosine", "tau": 0.07}
DOT = {"sim": "dot", "tau": 1.0}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def lse(values: list[float]) -> float:
    return float(np.logaddexp.reduce(np.array(values)))


def vectors(x: Tensor, sim: str) -> Array:
    array: Array = x.detach().double().numpy()
    return array / np.linalg.norm(array, axis=-1, keepdims=True) if sim == "cosine" else array


# --- naive forms ------------------------------------------------------------------------------


def naive_global(
    audio: Tensor, grid: Tensor, directions: str, pos_twice: bool, sim: str, tau: float
) -> float:
    """L_g of methods §1.5, term by term."""
    a, v = vectors(audio, sim), vectors(grid, sim)
    clips, cells = range(len(a)), range(v.shape[1])
    terms = []
    for i in clips:
        positive = [a[i] @ v[i, p] / tau for p in cells]
        row = [a[i] @ v[j, p] / tau for j in clips if j != i for p in cells]
        column = [a[j] @ v[i, p] / tau for j in clips if j != i for p in cells]
        negative = row if directions == "a2v" else row + column
        again = positive if pos_twice or directions == "code" else []
        terms.append(lse(positive + negative + again) - lse(positive))
    return float(np.mean(terms))


def naive_windows(n_frames: int, window_M: int) -> list[list[int]]:
    half = (window_M - 1) // 2
    return [
        [c for c in range(3 * t + 1 - half, 3 * t + 2 + half) if 0 <= c < 3 * n_frames]
        for t in range(n_frames)
    ]


def naive_local(
    frames: Tensor,
    slices: Tensor,
    *,
    window_M: int,
    multi_pair: str,
    mask_shared: bool,
    pos_twice: bool,
    cross_video: bool,
    sim: str,
    tau: float,
) -> float:
    """L_l of methods §1.6, term by term."""
    n_clips, n_frames, _ = frames.shape
    windows = naive_windows(n_frames, window_M)
    if multi_pair == "avg_single":
        slices = torch.stack([slices[:, window].mean(dim=1) for window in windows], dim=1)
        windows = [[t] for t in range(n_frames)]
    v, a = vectors(frames, sim), vectors(slices, sim)
    terms = []
    for b, t in product(range(n_clips), range(n_frames)):
        positive = [v[b, t] @ a[b, c] / tau for c in windows[t]]
        negative = []
        for bo, to in product(range(n_clips) if cross_video else [b], range(n_frames)):
            if (bo, to) == (b, t):
                continue
            shared = set(windows[t]) & set(windows[to]) if mask_shared and bo == b else set()
            negative += [v[b, t] @ a[bo, c] / tau for c in windows[to] if c not in shared]
            negative += [v[bo, to] @ a[b, c] / tau for c in windows[t] if c not in shared]
        again = positive if pos_twice else []
        terms.append(lse(positive + negative + again) - lse(positive))
    return float(np.mean(terms))


@pytest.mark.parametrize("directions", ["both", "a2v", "code"])
@pytest.mark.parametrize("pos_twice", [False, True])
@pytest.mark.parametrize("similarity", [DOT, COSINE, {"sim": "dot", "tau": 3.0}])
def test_global_equals_loops(directions: Any, pos_twice: bool, similarity: Any):
    audio, grid = torch.randn(CLIPS, WIDTH), torch.randn(CLIPS, CELLS, WIDTH)
    loss, _ = GlobalLoss(directions=directions, pos_twice=pos_twice, **similarity)(audio, grid)
    expected = naive_global(audio, grid, directions, pos_twice, **similarity)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("window_M", [1, 3, 5, 7])
@pytest.mark.parametrize("multi_pair", ["sum", "avg_single"])
@pytest.mark.parametrize("cross_video", [False, True])
def test_local_equals_loops(window_M: int, multi_pair: Any, cross_video: bool):
    frames, slices = torch.randn(2, FRAMES, WIDTH), torch.randn(2, 3 * FRAMES, WIDTH)
    for mask_shared, pos_twice, similarity in product([0, 1], [0, 1], [DOT, COSINE]):
        options: dict[str, Any] = {
            "window_M": window_M,
            "multi_pair": multi_pair,
            "mask_shared": bool(mask_shared),
            "pos_twice": bool(pos_twice),
            "cross_video": cross_video,
            **similarity,
        }
        loss, _ = LocalLoss(**options)(frames, slices)
        assert loss.item() == pytest.approx(naive_local(frames, slices, **options), rel=1e-5), (
            options
        )


@pytest.mark.parametrize("cross_video", [False, True])
def test_hits_equal_loops(cross_video: bool):
    """R@1 of both directions: an anchor's own score must be above every other one."""
    audio, grid = torch.randn(CLIPS, WIDTH), torch.randn(CLIPS, CELLS, WIDTH)
    a, v = vectors(audio, "dot"), vectors(grid, "dot")
    scores = [
        [lse([a[i] @ v[j, p] for p in range(CELLS)]) for j in range(CLIPS)] for i in range(CLIPS)
    ]
    hits = [row[i] > max(row[:i] + row[i + 1 :]) for i, row in enumerate(scores)]
    assert GlobalLoss()(audio, grid)[1]["a2v_r1"].item() == pytest.approx(np.mean(hits))

    frames, slices = torch.randn(8, FRAMES, WIDTH), torch.randn(8, 3 * FRAMES, WIDTH)
    slices += 0.7 * frames.repeat_interleave(3, dim=1)
    v, a = vectors(frames, "dot"), vectors(slices, "dot")
    hits = []
    for b, t in product(range(8), range(FRAMES)):
        places = product(range(8) if cross_video else [b], range(FRAMES))
        found = {at: lse([v[b, t] @ a[at[0], 3 * at[1] + m] for m in range(3)]) for at in places}
        hits.append(max(found, key=lambda at: found[at]) == (b, t))
    facts = LocalLoss(cross_video=cross_video)(frames, slices)[1]
    assert facts["v2a_r1_l"].item() == pytest.approx(np.mean(hits)) and 0 < np.mean(hits) < 1


# --- closed forms -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directions", "counted"), [("both", 2 * 5 - 1), ("code", 2 * 5), ("a2v", 5)]
)
def test_global_of_equal_logits(directions: Any, counted: int):
    audio, grid = torch.ones(5, WIDTH), torch.ones(5, CELLS, WIDTH)
    loss, _ = GlobalLoss(directions=directions)(audio, grid)
    assert loss.item() == pytest.approx(math.log(counted), rel=1e-6)


@pytest.mark.parametrize("window_M", [1, 3])
@pytest.mark.parametrize("multi_pair", ["sum", "avg_single"])
def test_local_of_equal_logits(window_M: int, multi_pair: Any):
    frames, slices = torch.ones(2, FRAMES, WIDTH), torch.ones(2, 3 * FRAMES, WIDTH)
    loss, _ = LocalLoss(window_M=window_M, multi_pair=multi_pair)(frames, slices)
    assert loss.item() == pytest.approx(math.log(2 * FRAMES - 1), rel=1e-6)


def test_local_of_equal_logits_as_in_the_code():
    frames, slices = torch.ones(5, FRAMES, WIDTH), torch.ones(5, 3 * FRAMES, WIDTH)
    loss, _ = LocalLoss(pos_twice=True, cross_video=True, mask_shared=False)(frames, slices)
    assert loss.item() == pytest.approx(math.log(2 * 5 * FRAMES), rel=1e-6)


def test_the_code_reading_of_32_clips_of_32_frames_starts_where_its_log_does():
    loss, _ = LocalLoss(pos_twice=True, cross_video=True, mask_shared=False)(
        torch.zeros(32, 32, 1), torch.zeros(32, 96, 1)
    )
    assert loss.item() == pytest.approx(7.62, abs=0.01)


def test_global_of_clips_that_agree():
    """Own cells score s, others 0: ln(1 + 2 (B-1) exp(-s))."""
    score = 2.5
    audio = score * torch.eye(CLIPS)
    grid = torch.eye(CLIPS)[:, None].expand(-1, CELLS, -1)
    loss, facts = GlobalLoss()(audio, grid)
    assert loss.item() == pytest.approx(math.log1p(2 * (CLIPS - 1) * math.exp(-score)), rel=1e-5)
    assert facts["a2v_r1"] == 1
    assert (facts["pos_g"] - facts["neg_g"]).item() == pytest.approx(score, rel=1e-5)


def test_local_of_frames_that_agree():
    score = 2.5
    frames = score * torch.eye(FRAMES).expand(2, -1, -1)
    slices = torch.eye(FRAMES).repeat_interleave(3, dim=0).expand(2, -1, -1)
    loss, facts = LocalLoss()(frames, slices)
    assert loss.item() == pytest.approx(math.log1p(2 * (FRAMES - 1) * math.exp(-score)), rel=1e-5)
    assert facts["v2a_r1_l"] == 1
    assert facts["pos_l"].item() == pytest.approx(score) and facts["neg_l"] == 0


def test_facts_of_a_collapsed_model_are_no_success():
    _, facts = GlobalLoss()(torch.ones(CLIPS, WIDTH), torch.ones(CLIPS, CELLS, WIDTH))
    assert facts["a2v_r1"] == 0
    _, facts = LocalLoss()(torch.ones(1, FRAMES, WIDTH), torch.ones(1, 3 * FRAMES, WIDTH))
    assert facts["v2a_r1_l"] == 0


# --- numbers that hold ------------------------------------------------------------------------


@pytest.mark.parametrize("window_M", [1, 3, 5, 7])
@pytest.mark.parametrize("multi_pair", ["sum", "avg_single"])
def test_local_gradients_are_finite_for_large_logits(window_M: int, multi_pair: Any):
    frames = (30 * torch.randn(2, FRAMES, WIDTH)).requires_grad_()
    slices = (30 * torch.randn(2, 3 * FRAMES, WIDTH)).requires_grad_()
    loss, _ = LocalLoss(window_M=window_M, multi_pair=multi_pair)(frames, slices)
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (frames, slices))


def test_a_clip_alone_and_a_frame_alone_have_no_loss():
    audio, grid = torch.randn(1, WIDTH, requires_grad=True), torch.randn(1, CELLS, WIDTH)
    loss, facts = GlobalLoss()(audio, grid)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and facts["neg_g"] == 0
    assert audio.grad is not None and audio.grad.isfinite().all()
    loss, facts = LocalLoss()(torch.randn(2, 1, WIDTH), torch.randn(2, 3, WIDTH))
    assert loss.item() == pytest.approx(0, abs=1e-6) and facts["neg_l"] == 0


def test_autocast_changes_nothing():
    audio, grid = torch.randn(CLIPS, WIDTH), torch.randn(CLIPS, CELLS, WIDTH)
    frames, slices = torch.randn(2, FRAMES, WIDTH), torch.randn(2, 3 * FRAMES, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = GlobalLoss()(audio, grid)[0], LocalLoss()(frames, slices)[0]
    assert torch.equal(cast[0], GlobalLoss()(audio, grid)[0])
    assert torch.equal(cast[1], LocalLoss()(frames, slices)[0])


def test_cosine_does_not_see_lengths():
    audio, grid = torch.randn(CLIPS, WIDTH), torch.randn(CLIPS, CELLS, WIDTH)
    loss = GlobalLoss(sim="cosine", tau=0.07)
    assert loss(audio, grid)[0].item() == pytest.approx(
        loss(7 * audio, 3 * grid)[0].item(), rel=1e-4
    )


def test_facts_carry_no_gradient():
    audio = torch.randn(CLIPS, WIDTH, requires_grad=True)
    _, facts = GlobalLoss()(audio, torch.randn(CLIPS, CELLS, WIDTH))
    assert not any(fact.requires_grad for fact in facts.values())


def test_slices_must_be_three_a_frame():
    with pytest.raises(ValueError, match="11 audio slices for 4 frames"):
        LocalLoss()(torch.randn(1, 4, WIDTH), torch.randn(1, 11, WIDTH))


# --- across ranks -----------------------------------------------------------------------------


def run_ranks(
    world: int, work: Callable[[int, Callable[[Tensor], Tensor]], Tensor]
) -> list[Tensor]:
    """`work(rank, gather)` in one thread a rank.

    The gather concatenates what all ranks hand in, inside one autograd graph, so that gradients of
    all ranks' losses add up in it: what all_gather and its backward do.
    """
    barrier = threading.Barrier(world)
    slots: list[Tensor] = [torch.empty(0)] * world
    results: list[Tensor] = [torch.empty(0)] * world

    def gather_as(rank: int) -> Callable[[Tensor], Tensor]:
        def gather(tensor: Tensor) -> Tensor:
            slots[rank] = tensor
            barrier.wait(280)
            everything = torch.cat(list(slots))
            barrier.wait(280)
            return everything

        return gather

    def run(rank: int) -> None:
        results[rank] = work(rank, gather_as(rank))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("directions", ["both", "a2v", "code"])
def test_ranks_together_are_the_whole_batch(world: int, directions: Any):
    clips = 2 * world
    audio, grid = torch.randn(clips, WIDTH), torch.randn(clips, CELLS, WIDTH)
    weight = torch.randn(WIDTH, WIDTH, requires_grad=True)

    def work(rank: int, gather: Callable[[Tensor], Tensor]) -> Tensor:
        mine = slice(2 * rank, 2 * rank + 2)
        loss = GlobalLoss(directions=directions, gather=gather)
        value: Tensor = loss(audio[mine] @ weight, torch.tanh(grid[mine] @ weight))[0]
        return value

    whole = GlobalLoss(directions=directions)(audio @ weight, torch.tanh(grid @ weight))[0]
    (expected,) = torch.autograd.grad(whole, weight)
    losses = run_ranks(world, work)
    # DDP averages the gradients of the ranks.
    (averaged,) = torch.autograd.grad(torch.stack(losses).sum() / world, weight)
    assert all(loss.item() == pytest.approx(whole.item(), rel=1e-5) for loss in losses)
    assert torch.allclose(averaged, expected, rtol=1e-4, atol=1e-6)


def test_without_gathering_ranks_have_their_own_negatives():
    audio, grid = torch.randn(4, WIDTH), torch.randn(4, CELLS, WIDTH)
    halves = [GlobalLoss()(audio[half], grid[half])[0] for half in (slice(0, 2), slice(2, 4))]
    assert torch.stack(halves).mean() < GlobalLoss()(audio, grid)[0]
