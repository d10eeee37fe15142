"""The bootstrap: against scipy, theory, and draws made by hand; means of scores."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from train import score
from train.errors import UsageError
from train.metrics import auc_video, top_k
from train.score import Score, bootstrap, mean_over, ratio_of_sums


def accuracy(hits, groups=None):
    hits = np.asarray(hits)
    return top_k(np.eye(2)[np.where(hits, 1, 0)], np.ones(len(hits), int), groups=groups)


def a_score(value, low, high, name="top1", n=10, note=""):
    return Score(name, value, low, high, n, True, note=note)


def test_interval_of_a_mean_is_that_of_scipy():
    rng = np.random.default_rng(1)
    values = rng.exponential(size=80)
    low, high, draws = bootstrap(ratio_of_sums(values, np.ones(80)), 80)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(low - theirs.low) < 0.1 * width
    assert abs(high - theirs.high) < 0.1 * width
    assert len(draws) == score.RESAMPLES


def test_nineteen_of_twenty_intervals_hold_the_truth():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        found = accuracy(rng.random(150) < 0.7)
        held += found.low <= 0.7 <= found.high
    assert 0.90 <= held / 200 <= 0.985


def test_resamples_are_the_metric_of_the_items_drawn():
    """Each draw, made again item by item from the counts the statistic was given."""
    rng = np.random.default_rng(4)
    values, weights = rng.random(9), rng.integers(1, 5, 9)
    seen = []

    def spy(counts):
        seen.append(counts.copy())
        return ratio_of_sums(values, weights)(counts)

    draws = bootstrap(spy, 9)[2]
    for counts, draw in zip(np.concatenate(seen), draws, strict=True):
        assert counts.sum() == 9
        items = [i for i in range(9) for _ in range(counts[i])]
        assert draw == pytest.approx(sum(values[i] for i in items) / sum(weights[i] for i in items))


def test_items_that_come_in_groups_count_as_often_as_there_are_groups():
    """Every item five times over: the groups' interval stays as it was, the items' shrinks."""
    hits = np.random.default_rng(5).random(60) < 0.5
    alone = accuracy(hits)
    grouped = accuracy(
        np.repeat(hits, 5), groups=[f"video{i}" for i in range(60) for _ in range(5)]
    )
    careless = accuracy(np.repeat(hits, 5))
    assert (grouped.low, grouped.high) == (alone.low, alone.high)
    assert np.array_equal(grouped.draws, alone.draws)
    ratio = (careless.high - careless.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(1 / math.sqrt(5), rel=0.15)


def test_groups_of_different_size_are_drawn_whole():
    groups = np.array([7, 7, 7, 3])
    seen = []

    def spy(counts):
        seen.append(counts)
        return np.zeros(len(counts))

    bootstrap(spy, 4, groups)
    counts = np.concatenate(seen)
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 0] + counts[:, 3] == 2).all()


def test_the_same_items_give_the_same_draws_and_many_items_many_batches(monkeypatch):
    hits = np.random.default_rng(6).random(300) < 0.4
    once = accuracy(hits)
    assert np.array_equal(accuracy(hits).draws, once.draws)
    monkeypatch.setattr(score, "COUNTS_AT_ONCE", 700)
    assert accuracy(hits).low == pytest.approx(once.low, abs=0.02)
    assert len(accuracy(hits).draws) == score.RESAMPLES


def test_one_item_or_one_group_has_no_interval():
    for found in (accuracy([True]), accuracy([True, False, True], groups=["a", "a", "a"])):
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert math.isfinite(found.value)


def test_resamples_without_a_class_do_not_count():
    """One positive among six: a third of the resamples have none, and no AUC."""
    found = auc_video([0.9, 0.1, 0.2, 0.3, 0.95, 0.5], [1, 0, 0, 0, 0, 0])
    missing = np.isnan(found.draws).mean()
    assert missing == pytest.approx((5 / 6) ** 6 + (1 / 6) ** 6, abs=0.05)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_groups_of_another_length():
    with pytest.raises(UsageError, match="2 groups for 3 items"):
        accuracy([True, False, True], groups=["a", "b"])


def test_json_has_null_where_there_is_no_number_and_no_draws():
    found = accuracy([True]).as_json()
    assert found["low"] is None
    assert found["value"] == 1.0
    assert "draws" not in found
    assert json.loads(json.dumps(found, allow_nan=False)) == found


# --- mean_over --------------------------------------------------------------------------------


def test_mean_of_disjoint_folds_has_the_interval_of_all_items_together():
    """Folds of equal size: their mean is the accuracy of all items, and so is the interval."""
    hits = np.random.default_rng(7).random(2000) < 0.6
    folds = [accuracy(part) for part in np.split(hits, 5)]
    mean, whole = mean_over(folds, disjoint=True), accuracy(hits)
    assert mean.value == pytest.approx(hits.mean())
    assert mean.n == 2000
    assert mean.high - mean.low == pytest.approx(whole.high - whole.low, rel=0.1)


def test_mean_of_the_same_items_again_and_again_is_no_surer_than_one():
    one = accuracy(np.random.default_rng(8).random(400) < 0.6)
    mean = mean_over([one, one, one], disjoint=False)
    assert [mean.low, mean.high] == pytest.approx([one.low, one.high])


def test_mean_by_hand():
    parts = [a_score(0.5, 0.4, 0.53, note="a class less"), a_score(0.7, 0.7, 0.74)]
    mean = mean_over(parts, disjoint=True)
    assert mean.value == pytest.approx(0.6)
    assert mean.low == pytest.approx(0.6 - 0.05)  # hypot(0.1, 0) / 2
    assert mean.high == pytest.approx(0.6 + 0.025)  # hypot(0.03, 0.04) / 2
    assert mean.note == "mean of 2; a class less"
    wide = mean_over(parts, disjoint=False)
    assert [wide.low, wide.high] == pytest.approx([0.55, 0.635])


def test_mean_of_one_is_that_one():
    one = a_score(0.5, 0.4, 0.53, note="a class less")
    for disjoint in (True, False):
        mean = mean_over([one], disjoint=disjoint)
        assert [mean.value, mean.low, mean.high] == pytest.approx([0.5, 0.4, 0.53])
        assert (mean.n, mean.note) == (one.n, one.note)


def test_mean_with_a_part_that_has_no_interval_has_none():
    mean = mean_over([a_score(0.5, math.nan, math.nan), a_score(0.7, 0.6, 0.8)], disjoint=True)
    assert mean.value == pytest.approx(0.6)
    assert math.isnan(mean.low)


def test_mean_of_what_does_not_belong_together():
    with pytest.raises(UsageError, match="top1, top5"):
        mean_over([a_score(0.5, 0.4, 0.6), a_score(0.5, 0.4, 0.6, "top5")], disjoint=True)
    with pytest.raises(UsageError, match="of nothing"):
        mean_over([], disjoint=True)
