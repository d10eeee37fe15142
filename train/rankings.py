"""AUC and average precision of many resamples of one test set at once.

A resample is how often each item counts (`train.score`), so both are weighted sums over the
positives of how many items score below each of them. The scores are sorted once; the rest is a
cumulative sum and a look-up a resample. With every count 1 they equal scikit-learn's.
"""

from collections.abc import Callable

import numpy as np

from train.arrays import Flags, Values
from train.score import Counts

Statistic = Callable[[Counts], Values]


def auc_of_counts(scores: Values, positive: Flags) -> Statistic:
    """Share of pairs of a positive and a negative in the right order, ties as half.

    Args:
        scores: (N,).
        positive: (N,).

    Returns:
        (R, N) counts -> (R,); NaN where positives or negatives are missing.
    """
    among_all, among_positives = _ranks_at_positives(scores, positive)

    def statistic(counts: Counts) -> Values:
        drawn = counts[:, positive]
        below, equal = among_all(counts)
        positives_below, positives_equal = among_positives(drawn)
        right = (below - positives_below) + 0.5 * (equal - positives_equal)
        positives = drawn.sum(1)
        pairs = positives.astype(np.float64) * (counts.sum(1) - positives)
        return _divided((drawn * right).sum(1), pairs)

    return statistic


def precision_of_counts(scores: Values, positive: Flags) -> Statistic:
    """Average precision: at each positive the precision of all that score no less.

    Args:
        scores: (N,).
        positive: (N,).

    Returns:
        (R, N) counts -> (R,); NaN where positives are missing.
    """
    among_all, among_positives = _ranks_at_positives(scores, positive)

    def statistic(counts: Counts) -> Values:
        drawn = counts[:, positive]
        positives = drawn.sum(1)
        reached = counts.sum(1)[:, None] - among_all(counts)[0]
        right = positives[:, None] - among_positives(drawn)[0]
        # Where nothing that scores no less was drawn, the positive itself was not: it adds 0.
        return _divided((drawn * right / np.maximum(reached, 1)).sum(1), positives)

    return statistic


Rank = Callable[[Counts], tuple[Values, Values]]
"""(R, N) counts -> (R, P) how much scores less than each positive, and (R, P) the same."""


def _ranks_at_positives(scores: Values, positive: Flags) -> tuple[Rank, Rank]:
    """Among all items, and among the positives."""
    chosen = scores[positive]
    return _rank(scores, chosen), _rank(chosen, chosen)


def _rank(scores: Values, at: Values) -> Rank:
    order = np.argsort(scores)
    ranked = scores[order]
    left, right = np.searchsorted(ranked, at, "left"), np.searchsorted(ranked, at, "right")

    def rank(counts: Counts) -> tuple[Values, Values]:
        sums = np.zeros((len(counts), len(scores) + 1), np.int32)
        np.cumsum(counts[:, order], axis=1, dtype=np.int32, out=sums[:, 1:])
        below = sums[:, left].astype(np.float64)
        return below, sums[:, right] - below

    return rank


def _divided(above: Values, below: Values) -> Values:
    """NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore"):
        found: Values = above / below
    return found
