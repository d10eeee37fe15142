"""A number with its 95 % interval: what every metric of `train.metrics` returns.

The interval is a percentile bootstrap over test items (Efron & Tibshirani 1993, ch. 13): the items,
or the groups they come in (videos, speakers), are drawn again with replacement RESAMPLES times and
the metric is computed anew each time. It tells how much the value depends on which items happened
to be in the test set; it does not tell how much another training run would differ. Where every item
scored the same it has no width: a bootstrap knows only what it has seen.

A resample is a vector of counts, one an item, so that a metric over all resamples is a few matrix
operations. The draws depend on SEED and on the number of items alone: two models scored on the same
items are resampled alike, which is what `difference` compares them by.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from train.arrays import Values
from train.errors import UsageError

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95
COUNTS_AT_ONCE = 4_000_000
"""Resampled items held in memory together: 16 MB of counts."""

Counts = npt.NDArray[np.int32]
"""(resamples, items): how often each item was drawn."""
Groups = Sequence[Any] | npt.NDArray[Any] | None
"""The group of each item, in the items' order; None: every item is its own."""
Unit = Literal["fraction", "nats", "standard deviations", "ratio"]


@dataclass(frozen=True)
class Score:
    """One metric's value on one test set."""

    name: str
    """As the field says it, with what has to be said to repeat it: `top1`, `auc_video_hard@0.6`."""
    value: float
    low: float
    """Lower end of the 95 % interval; NaN where there is none (a single item or group)."""
    high: float
    """Upper end of it."""
    n: int
    """Items scored; of WER and CER utterances, of segment accuracy videos."""
    higher_is_better: bool
    unit: Unit = "fraction"
    note: str = ""
    """What a reader has to know, such as classes left out; a sentence, or empty."""
    draws: Values = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    """(RESAMPLES,) the value of each resample; empty where it was read from a file."""

    def as_json(self) -> dict[str, Any]:
        """The fields a `result.json` holds; what is not finite becomes null, as JSON has no NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {
            "name": self.name,
            **{key: x if math.isfinite(x) else None for key, x in numbers.items()},
            "n": self.n,
            "higher_is_better": self.higher_is_better,
            "unit": self.unit,
            "note": self.note,
        }


def bootstrap(
    statistic: Callable[[Counts], Values], items: int, groups: Groups = None
) -> tuple[float, float, Values]:
    """Ends of the 95 % interval, and the statistic of every resample.

    Args:
        statistic: (resamples, items) counts -> (resamples,); NaN where a resample leaves it
            undefined, as an AUC without negatives: such resamples do not count.
        items: how many there are.
        groups: whole groups are drawn where given (cluster bootstrap).

    Raises:
        UsageError: not one group an item.
    """
    kinds, group_of = _groups(items, groups)
    if kinds < 2:
        return math.nan, math.nan, np.full(RESAMPLES, math.nan)
    batches = (statistic(np.ascontiguousarray(c[:, group_of])) for c in _draws(kinds, items))
    draws = np.concatenate(list(batches)).astype(np.float64)
    return *interval(draws), draws


def interval(draws: Values) -> tuple[float, float]:
    """The middle 95 % of what is defined among the draws; NaN where nothing is."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return math.nan, math.nan
    tail = (1 - LEVEL) / 2
    # Of equal infinities (d' of perfect rankings) interpolation would make NaN.
    low, high = np.quantile(defined, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def ratio_of_sums(
    numerators: npt.ArrayLike, denominators: npt.ArrayLike
) -> Callable[[Counts], Values]:
    """The statistic of accuracies (hits, 1), corpus WER (errors, reference words), means.

    Args:
        numerators: (items,).
        denominators: (items,).
    """
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)

    def statistic(counts: Counts) -> Values:
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Values = (counts @ above) / (counts @ below)
        return np.where(np.isfinite(found), found, np.nan)

    return statistic


def mean_over(scores: Sequence[Score], *, disjoint: bool) -> Score:
    """Mean of the scores of folds or splits, each counting the same whatever its size.

    Args:
        scores: of one metric.
        disjoint: whether no item is tested in two of them. Then their errors are independent given
            the models, and the distances from value to interval's end add in quadrature (ESC-50's
            folds, UCF101's test lists). Otherwise they are averaged, as for errors that always go
            together: never too narrow (HMDB51, whose test lists overlap).

    Returns:
        `n` counts predictions, over all scores. The interval holds for these models on these
        items, as that of its parts does.

    Raises:
        UsageError: no scores, or scores of different metrics.
    """
    kinds = {(score.name, score.unit, score.higher_is_better) for score in scores}
    if len(kinds) != 1:
        names = ", ".join(sorted(kind[0] for kind in kinds)) or "nothing"
        raise UsageError(f"a mean needs scores of one metric, these are of {names}")
    first, count = scores[0], len(scores)
    value = math.fsum(score.value for score in scores) / count
    down = [score.value - score.low for score in scores]
    up = [score.high - score.value for score in scores]
    combine = math.hypot if disjoint else lambda *widths: math.fsum(widths)
    notes = list(dict.fromkeys(score.note for score in scores if score.note))
    return Score(
        name=first.name,
        value=value,
        low=value - combine(*down) / count,
        high=value + combine(*up) / count,
        n=sum(score.n for score in scores),
        higher_is_better=first.higher_is_better,
        unit=first.unit,
        note="; ".join([*([f"mean of {count}"] if count > 1 else []), *notes]),
    )


# --- pieces -----------------------------------------------------------------------------------


def _draws(kinds: int, items: int) -> Iterator[Counts]:
    """RESAMPLES rows of counts over the groups, in batches that fit into memory."""
    rng = np.random.default_rng(SEED)
    batch = max(COUNTS_AT_ONCE // max(kinds, items), 1)
    for start in range(0, RESAMPLES, batch):
        rows = min(batch, RESAMPLES - start)
        drawn = rng.integers(0, kinds, (rows, kinds)) + np.arange(rows)[:, None] * kinds
        counts = np.bincount(drawn.ravel(), minlength=rows * kinds)
        yield counts.reshape(rows, kinds).astype(np.int32)


def _groups(items: int, groups: Groups) -> tuple[int, Any]:
    """How many groups there are, and an index that spreads their counts over the items."""
    if groups is None:
        return items, slice(None)
    if len(groups) != items:
        raise UsageError(f"{len(groups)} groups for {items} items; one an item is needed")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    return len(numbers), np.array([numbers[name] for name in groups])
