"""Memory banks, NCE, drawing and agreement against loops, counts and cases done by hand."""

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from train.checkpoint import copy_weights
from train.objectives import agreement as agreement_module
from train.objectives.agreement import AgreementBanks, agreeing
from train.objectives.memory_bank import (
    MemoryBanks,
    draw_outside,
    draw_some,
    expected_normalisation,
    hashed,
    nce,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def unit(*shape: int) -> Tensor:
    return functional.normalize(torch.randn(*shape), dim=-1)


def naive_nce(positives: list[float], negatives: list[float], z: float, k: int) -> float:
    """Eq. 1 and 2 for one clip, with N in place: it cancels out."""
    n = 1000

    def probability_of_data(score: float) -> float:
        p = math.exp(score) / (n * z)
        return p / (p + k / n)

    found = sum(math.log(probability_of_data(s)) for s in positives) / len(positives)
    refused = sum(math.log(1 - probability_of_data(s)) for s in negatives)
    return -found - refused * k / len(negatives)


# --- NCE ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("positives", "draws"), [(1, None), (3, None), (1, 40)])
def test_nce_equals_loops(positives: int, draws: int | None):
    positive, negative = 3 * torch.randn(4, positives), 3 * torch.randn(4, 7)
    found = nce(positive, negative, torch.tensor(2.2), draws)
    for row in range(4):
        pair = positive[row].tolist(), negative[row].tolist()
        assert found[row].item() == pytest.approx(naive_nce(*pair, 2.2, draws or 7), rel=1e-5)


def test_nce_of_extreme_scores_is_finite_where_exponentials_are_not():
    positive = torch.tensor([[-800.0]], requires_grad=True)
    negative = torch.tensor([[900.0, -900.0]], requires_grad=True)
    loss = nce(positive, negative, torch.tensor(2.2)).sum()
    loss.backward()
    level = math.log(2 * 2.2)  # softplus(x) is x for such x, and 0 for -x
    assert loss.item() == pytest.approx((level + 800) + (900 - level))
    assert positive.grad is not None and negative.grad is not None
    assert positive.grad.tolist() == [[-1]] and negative.grad.tolist() == [[1, 0]]


def test_normalisation_of_random_banks_is_the_papers():
    """2.219 in theory, 2.2045 in the paper: the mean over the first batch's negatives."""
    banks = MemoryBanks(20_000, 128)
    instance = torch.arange(256)
    bits = hashed(instance, banks.batches, 1024)
    memories = banks.video[draw_outside(instance[:, None], bits, 20_000)]
    scores = torch.einsum("bd,bkd->bk", unit(256, 128), memories) / 0.07
    level = scores.exp().mean(dim=1)
    assert banks.normalisation(level, keep=False).item() == pytest.approx(2.219, abs=0.03)
    assert expected_normalisation(128, 0.07) == pytest.approx(2.219, abs=5e-4)


def test_normalisation_is_that_of_the_first_batch_for_good():
    banks = MemoryBanks(8, 4)
    assert banks.normalisation(torch.tensor([9.0]), keep=False) == 9 and banks.z == 0
    assert banks.normalisation(torch.tensor([1.0, 3.0]), keep=True) == 2
    assert banks.normalisation(torch.tensor([9.0]), keep=True) == 2 and banks.z == 2


# --- banks ----------------------------------------------------------------------------------------


def test_update_moves_half_way_and_nothing_else():
    banks = MemoryBanks(5, 6, momentum=0.5)
    video, audio = banks.video.clone(), banks.audio.clone()
    new_video, new_audio = unit(2, 6), unit(2, 6)
    banks.update(torch.tensor([4, 1]), new_video, new_audio)
    for bank, before, new in ((banks.video, video, new_video), (banks.audio, audio, new_audio)):
        for row, instance in enumerate((4, 1)):
            mixed = 0.5 * before[instance] + 0.5 * new[row]
            assert torch.allclose(bank[instance], mixed / mixed.norm(), atol=1e-6)
        assert torch.equal(bank[[0, 2, 3]], before[[0, 2, 3]])
    assert banks.seen.tolist() == [False, True, False, False, True]
    assert banks.batches == 1


def test_momentum_is_the_share_of_the_old():
    banks = MemoryBanks(3, 6, momentum=0.9)
    before, new = banks.video[0].clone(), unit(1, 6)
    banks.update(torch.tensor([0]), new, new)
    mixed = 0.9 * before + 0.1 * new[0]
    assert torch.allclose(banks.video[0], mixed / mixed.norm(), atol=1e-6)


def test_an_instance_twice_in_a_batch_counts_once_with_the_mean():
    banks, other = MemoryBanks(4, 6), MemoryBanks(4, 6)
    other.load_state_dict(banks.state_dict())
    new = unit(3, 6)
    banks.update(torch.tensor([2, 0, 2]), new, new)
    mean = torch.stack([(new[0] + new[2]) / 2, new[1]])
    other.update(torch.tensor([2, 0]), mean, mean)
    assert torch.allclose(banks.video, other.video, atol=1e-6)


def test_one_clip_makes_no_bank():
    with pytest.raises(ValueError, match="2 clips or more"):
        MemoryBanks(1, 4)


# --- drawing --------------------------------------------------------------------------------------


def chi_square(counts: Tensor) -> float:
    """Over its degrees of freedom: 1 on average for uniform draws."""
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum() / (len(counts) - 1))


def test_places_outside_are_met_once_each():
    """As many places as instances that may be drawn: every one of them, and no other."""
    excluded = torch.tensor([[0, 1, 11], [3, 4, 9], [9, 10, 11]])
    drawn = draw_outside(excluded, torch.arange(9).repeat(3, 1), 12)
    for row, out in zip(drawn.tolist(), excluded.tolist(), strict=True):
        assert row == [i for i in range(12) if i not in out]


def test_draws_are_uniform_and_never_of_the_excluded():
    instance = torch.tensor([0, 7, 19])
    excluded = torch.stack([instance, (instance + 3) % 20, (instance + 4) % 20], 1).sort(1).values
    drawn = draw_outside(excluded, hashed(instance, torch.tensor(5), 17_000), 20)
    for row, out in zip(drawn, excluded, strict=True):
        counts = torch.bincount(row, minlength=20)
        assert counts[out].sum() == 0
        others = [i for i in range(20) if i not in out.tolist()]
        assert chi_square(counts[others].double()) < 2.2  # p < 0.005 for 16 degrees of freedom


def test_bits_hang_on_instance_step_draw_and_purpose_alone():
    instance = torch.arange(1000)
    bits = hashed(instance, torch.tensor(3), 64)
    assert bits.dtype == torch.int64 and bits.min() >= 0
    assert torch.equal(bits[17:40], hashed(instance[17:40], torch.tensor(3), 64))
    assert torch.equal(bits[:, :8], hashed(instance, torch.tensor(3), 8))
    others = (
        hashed(instance, torch.tensor(4), 64),
        hashed(instance, torch.tensor(3), 64, purpose=1),
        hashed(instance + 1000, torch.tensor(3), 64),
    )
    everything = torch.cat([bits, *others]).flatten()
    assert len(everything.unique()) == len(everything)
    assert 0.49 < ((everything[:, None] >> torch.arange(63)) & 1).double().mean() < 0.51


def test_steps_and_instances_are_independent():
    """No two rows of neighbouring instances or steps are like each other, bit by bit."""
    bits = torch.stack([hashed(torch.arange(30), torch.tensor(step), 64) for step in range(4)])
    rows = ((bits.flatten(0, 1)[..., None] >> torch.arange(62)) & 1).flatten(1).double() - 0.5
    correlation = np.corrcoef(rows.numpy())
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 6 / math.sqrt(rows.shape[1])


def test_some_of_the_found_are_different_and_uniform():
    found = torch.arange(10, 18).repeat(4000, 1)
    some = draw_some(found, hashed(torch.arange(4000), torch.tensor(0), 8), 3)
    assert all(len(set(row)) == 3 for row in some.tolist())
    assert chi_square(torch.bincount(some.flatten() - 10, minlength=8).double()) < 2.9
    assert torch.equal(draw_some(found, hashed(torch.arange(4000), torch.tensor(0), 8), 8), found)


def test_only_what_is_trained_on_is_drawn():
    """Ids of another split, or outside of a subset, lie between."""
    trained = torch.tensor([2, 3, 7, 8, 11, 19])
    banks = MemoryBanks(20, 4, trained=trained)
    drawn = banks.draw(torch.tensor([[3], [19], [2]]), torch.arange(5).repeat(3, 1))
    assert drawn.tolist() == [[2, 7, 8, 11, 19], [2, 3, 7, 8, 11], [3, 7, 8, 11, 19]]
    assert banks.draw(torch.tensor([[2, 8, 11]]), torch.arange(3)[None]).tolist() == [[3, 7, 19]]
    assert "trained" not in banks.state_dict()


def test_positives_are_trained_on():
    trained = torch.tensor([1, 4, 5, 9, 10, 11])
    banks = banks_of(count=2, trained=trained)
    banks.search()
    video, audio = banks.video[trained], banks.audio[trained]
    expected = trained[agreeing(video, audio, 2, "consensus")]
    assert torch.equal(banks.positives[trained].long(), expected)
    with pytest.raises(ValueError, match="found_positives is 5 with 6 clips"):
        banks_of(count=5, trained=trained)


# --- agreement ------------------------------------------------------------------------------------


def at(degrees: list[float]) -> Tensor:
    angle = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angle.cos(), angle.sin()], dim=1)


TOY_VIDEO, TOY_AUDIO = at([0, 10, 25, 100, 180]), at([0, 90, 35, 5, 182])
"""Nearest by angle, read off by hand. Consensus goes by the larger of both angles: that of 0 is 90
to 1, 35 to 2, 100 to 3. Union goes by the smaller: 10 to 1, 25 to 2, 5 to 3."""


@pytest.mark.parametrize(
    ("agreement", "nearest", "degrees"),
    [
        ("video", [1, 0, 1, 2, 3], [10, 10, 15, 75, 80]),
        ("audio", [3, 2, 3, 0, 1], [5, 55, 30, 5, 92]),
        ("consensus", [2, 2, 0, 2, 2], [35, 55, 35, 75, 155]),
        ("union", [3, 0, 1, 0, 3], [5, 10, 15, 5, 80]),
    ],
)
def test_positives_of_a_toy_bank(agreement: Any, nearest: list[int], degrees: list[int]):
    assert agreeing(TOY_VIDEO, TOY_AUDIO, 1, agreement)[:, 0].tolist() == nearest
    for i, j in enumerate(nearest):
        video, audio = TOY_VIDEO[i] @ TOY_VIDEO[j], TOY_AUDIO[i] @ TOY_AUDIO[j]
        cosines = {"video": video, "audio": audio,
                   "consensus": min(video, audio), "union": max(video, audio)}  # fmt: skip
        assert math.degrees(math.acos(cosines[agreement])) == pytest.approx(degrees[i], abs=0.1)


def test_positives_equal_loops_in_any_chunks(monkeypatch: pytest.MonkeyPatch):
    video, audio = unit(40, 8), unit(40, 8)
    whole = agreeing(video, audio, 5, "consensus")
    monkeypatch.setattr(agreement_module, "CHUNK_NUMBERS", 7 * 40)
    assert torch.equal(agreeing(video, audio, 5, "consensus"), whole)
    for i in range(40):
        rho = {j: min(video[i] @ video[j], audio[i] @ audio[j]) for j in range(40) if j != i}
        best = sorted(rho, key=lambda j: -rho[j])[:5]
        assert whole[i].tolist() == sorted(best)


def test_an_instance_among_equals_is_not_its_own_positive():
    same = torch.ones(6, 1)
    found = agreeing(same, same, 5, "consensus")
    assert found.tolist() == [[j for j in range(6) if j != i] for i in range(6)]


def banks_of(instances: int = 12, **options: Any) -> AgreementBanks:
    return AgreementBanks(instances, 4, **{"count": 3, "first": 2, "every": 4, **options})


def test_positives_are_found_on_schedule(monkeypatch: pytest.MonkeyPatch):
    """After 2 batches and every 4 from there; also where a checkpoint is loaded between."""
    banks, searched = banks_of(), []
    monkeypatch.setattr(AgreementBanks, "search", lambda self: searched.append(int(self.scheduled)))
    usable = []
    for batch in range(12):
        if batch in (1, 5, 6):
            resumed = banks_of()
            resumed.load_state_dict(banks.state_dict())
            banks = resumed
        usable.append(banks.ready())
        banks.update(torch.tensor([batch]), unit(1, 4), unit(1, 4))
    assert searched == [2, 6, 10]
    assert usable == [False, False] + 10 * [True]


def test_the_schedule_begins_anew_after_init_from_avid(caplog: pytest.LogCaptureFixture):
    avid = MemoryBanks(12, 4)
    for _ in range(5):
        avid.update(torch.arange(12), unit(12, 4), unit(12, 4))
    banks = banks_of(first=0)
    assert copy_weights(banks, avid.state_dict()) == [
        "positives: not in the checkpoint",
        "scheduled: not in the checkpoint",
    ]
    with caplog.at_level(logging.WARNING):
        assert banks.ready()
    assert torch.equal(banks.positives, agreeing(avid.video, avid.audio, 3, "consensus"))
    assert not caplog.records


def test_positives_of_random_memories_are_doubted(caplog: pytest.LogCaptureFixture):
    banks = banks_of(first=0)
    banks.update(torch.arange(3), unit(3, 4), unit(3, 4))
    with caplog.at_level(logging.WARNING):
        banks.search()
    assert "75% are still random" in caplog.text and "--init" in caplog.text


def test_too_many_positives_are_refused():
    with pytest.raises(ValueError, match="found_positives is 3 with 4 clips"):
        banks_of(4)
    assert banks_of(5).positives.shape == (5, 3)
