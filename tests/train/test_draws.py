"""Draws by hash: against the same hash in Python's integers, and against a uniform distribution."""

import torch
from torch import Tensor

from train.objectives.draws import uniform

MASK = 2**64 - 1


def mixed(x: int) -> int:
    """SplitMix64's finaliser on unsigned integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def naive(instance: int, count: int, purpose: int) -> float:
    first = mixed((instance + 0x9E3779B97F4A7C15) & MASK)
    return (mixed((mixed((first + count) & MASK) + purpose) & MASK) >> 40) / 2**24


def drawn(instance: Tensor, count: int, purpose: int = 0) -> Tensor:
    return uniform(instance, torch.tensor(count), purpose)


def test_wrapping_integers_hash_as_unsigned_ones():
    ids = torch.tensor([0, 1, 2, 12345, 2**40 + 7])
    for count, purpose in ((0, 0), (7, 1), (10**9, 3)):
        expected = [naive(i, count, purpose) for i in ids.tolist()]
        assert drawn(ids, count, purpose).tolist() == expected


def test_numbers_are_uniform_and_uses_have_nothing_to_do_with_each_other():
    ids = torch.arange(40_000)
    one, other, later = drawn(ids, 3), drawn(ids, 3, 1), drawn(ids, 4)
    shares = torch.histc(one, 20, 0, 1) / len(ids)
    assert (shares - 0.05).abs().max() < 0.006  # five standard deviations
    assert one.min() >= 0 and one.max() < 1
    for further in (other, later, one.roll(1)):
        assert torch.corrcoef(torch.stack([one, further]))[0, 1].abs() < 0.025


def test_a_clip_keeps_its_number_in_another_batch():
    ids = torch.tensor([5, 9, 13])
    assert torch.equal(drawn(ids, 2)[1:], drawn(ids[1:], 2))
