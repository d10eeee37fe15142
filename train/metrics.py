"""The numbers of the papers' tables, each with a 95 % interval (`train.score`).

    classes      top_k, log_loss, confusion, segment_accuracy (AVE)
    two classes  auc_video, auc_video_hard (as MDS computes it), average_precision   (DFDC)
    many labels  mean_average_precision, mean_auc, d_prime
    text         wer, cer                                                            (LRS2, GRID)
    neighbours   nearest, ranked_recall                                (retrieval, fingerprint)

What is more than a mean over items comes from scikit-learn and jiwer; its interval from formulas
that take all resamples at once (`train.rankings`). Scores and labels are checked first
(`train.arrays`): what cannot be scored raises a UsageError that says which item and what to do.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from train.arrays import Flags, Integers, Values, classes_of, finite, multi_hot, shown, two_classes
from train.errors import UsageError
from train.rankings import Statistic, auc_of_counts, precision_of_counts
from train.score import (
    Counts,
    Groups,
    Score,
    Unit,
    bootstrap,
    mean_over,
    ratio_of_sums,
)

__all__ = [
    "Score", "auc_video", "auc_video_hard", "average", "average_precision", "cer", "confusion",
    "d_prime", "log_loss", "mean_auc",
    "mean_average_precision", "mean_over", "nearest", "ranked_recall", "segment_accuracy",
    "top_k", "wer",
]  # fmt: skip

HARD_THRESHOLD = 0.6
"""Of MDS (Chugh et al. 2020, test.py)."""
AVE_CLASSES = 29
"""28 events and background."""
SMALLEST_PROBABILITY = 1e-15
"""What log_loss takes a smaller one for; 0 for the true class would cost infinitely much."""


def average(
    name: str,
    values: npt.ArrayLike,
    groups: Groups = None,
    unit: Unit = "fraction",
    higher_is_better: bool = True,
) -> Score:
    """Mean of one value an item, for what has no metric of its own here.

    Args:
        name: of the metric.
        values: (N,), NaN for items that have none: they are left out, and `n` says so.
        groups: see `train.score.bootstrap`.
        unit: of the values.
        higher_is_better: whether it is.

    Raises:
        UsageError: no item has a value.
    """
    given = np.asarray(values, np.float64)
    known = np.flatnonzero(~np.isnan(given))
    if not len(known):
        raise UsageError(f"{name}: none of the {len(given)} items has a value")
    kept = None if groups is None else [groups[place] for place in known.tolist()]
    value, (low, high, draws) = _of_means(given[known], np.ones(len(known)), kept)
    return Score(name, value, low, high, len(known), higher_is_better, unit, draws=draws)


# --- classes ----------------------------------------------------------------------------------


def top_k(scores: npt.ArrayLike, labels: npt.ArrayLike, k: int = 1, groups: Groups = None) -> Score:
    """Share of items whose class is among the k with the highest scores.

    Args:
        scores: (N, C) logits or probabilities. Of equal scores the lower class number comes
            first, as with argmax: who gives all classes the same score guesses class 0.
        labels: (N,) classes.
        k: up to C.
        groups: see `train.score.bootstrap`.

    Raises:
        UsageError: nothing to score, wrong shapes, NaN, a label outside of 0..C-1, k outside of
            1..C.
    """
    values = finite(scores, "scores", 2)
    truth = classes_of(labels, len(values), values.shape[1])
    if not 1 <= k <= values.shape[1]:
        raise UsageError(f"top-{k} of {values.shape[1]} classes: k must be 1 to {values.shape[1]}")
    own = values[np.arange(len(values)), truth][:, None]
    before = np.arange(values.shape[1]) < truth[:, None]
    rank = ((values > own) | ((values == own) & before)).sum(1)
    return _mean(f"top{k}", rank < k, groups)


def log_loss(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: Groups = None) -> Score:
    """Mean of -ln p(true class), nats.

    Args:
        scores: (N, C) probabilities, or (N,) that of class 1 of two.
        labels: (N,) classes.
        groups: see `train.score.bootstrap`.

    Raises:
        UsageError: as `top_k`, and what is no probability or does not sum to 1.
    """
    given = finite(scores, "scores", 1 if np.ndim(scores) == 1 else 2)
    probabilities = np.stack([1 - given, given], 1) if given.ndim == 1 else given
    truth = classes_of(labels, len(given), probabilities.shape[1])
    off = np.abs(probabilities.sum(1) - 1)
    if probabilities.min() < 0 or off.max() > 1e-3:
        row = int(np.argmax(np.maximum(off, -probabilities.min(1))))
        raise UsageError(
            f"log-loss needs probabilities (0 to 1, sum 1); item {row} has "
            f"{shown(probabilities[row])}: apply softmax or sigmoid to logits first"
        )
    likelihood = probabilities[np.arange(len(truth)), truth]
    losses = -np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1))
    value, (low, high, draws) = _of_means(losses, np.ones(len(losses)), groups)
    return Score("log_loss", value, low, high, len(losses), False, "nats", draws=draws)


def confusion(predicted: npt.ArrayLike, labels: npt.ArrayLike, classes: int) -> Integers:
    """(classes, classes) counts: rows are the true class, columns what was said.

    Args:
        predicted: (N,) classes.
        labels: (N,) classes.
        classes: how many there are.

    Raises:
        UsageError: nothing to score, lengths that differ, or a class outside of 0..classes-1.
    """
    from sklearn.metrics import confusion_matrix

    said = classes_of(predicted, None, classes, "predictions")
    truth = classes_of(labels, len(said), classes)
    found: Integers = confusion_matrix(truth, said, labels=np.arange(classes))
    return found


def segment_accuracy(
    predicted: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Groups = None,
    classes: int = AVE_CLASSES,
) -> Score:
    """Share of right segments over all videos (AVE: 10 one-second segments, 29 classes).

    Args:
        predicted: (N, S) classes, a row a video.
        labels: (N, S) classes.
        groups: of the videos; segments of one video are always drawn together.
        classes: background included.

    Raises:
        UsageError: nothing to score, shapes that differ, or a class outside of 0..classes-1.
    """
    said: npt.NDArray[Any] = np.asarray(predicted)
    truth: npt.NDArray[Any] = np.asarray(labels)
    if said.ndim != 2 or said.shape != truth.shape:
        raise UsageError(
            f"segments: predictions have shape {said.shape}, labels {truth.shape}; both must be "
            "(videos, segments)"
        )
    said = classes_of(said.ravel(), None, classes, "predictions").reshape(said.shape)
    truth = classes_of(truth.ravel(), None, classes).reshape(truth.shape)
    right: Integers = (said == truth).sum(1)
    segments = np.full(len(right), said.size // len(right))
    value, (low, high, draws) = _of_means(right, segments, groups)
    return Score("segment_accuracy", value, low, high, len(right), True, draws=draws)


# --- two classes ------------------------------------------------------------------------------


def auc_video(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: Groups = None) -> Score:
    """Area under the ROC curve of one score a video.

    Args:
        scores: (N,) higher means class 1.
        labels: (N,) 0 or 1.
        groups: see `train.score.bootstrap`.

    Raises:
        UsageError: nothing to score, NaN, lengths that differ, labels other than 0 and 1, or
            videos of one class only.
    """
    from sklearn.metrics import roc_auc_score

    values, truth = two_classes(scores, labels)
    statistic = auc_of_counts(values, truth)
    return _binary("auc_video", float(roc_auc_score(truth, values)), statistic, truth, groups)


def auc_video_hard(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    threshold: float = HARD_THRESHOLD,
    groups: Groups = None,
) -> Score:
    """What MDS publishes as "video-wise AUC": that of predictions thresholded to 0 and 1.

    Equal to balanced accuracy, and to be compared with nothing but its like.

    Args:
        scores: (N,) higher means class 1.
        labels: (N,) 0 or 1.
        threshold: scores from here on are class 1.
        groups: see `train.score.bootstrap`.

    Raises:
        UsageError: as `auc_video`.
    """
    hard = (finite(scores, "scores", 1) >= threshold).astype(np.float64)
    found = auc_video(hard, labels, groups)
    name = f"auc_video_hard@{threshold:g}"
    return Score(name, found.value, found.low, found.high, found.n, True, draws=found.draws)


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: Groups = None) -> Score:
    """Mean precision at the positives (no interpolation); chance is the share of positives.

    Args:
        scores: (N,) higher means class 1.
        labels: (N,) 0 or 1.
        groups: see `train.score.bootstrap`.

    Raises:
        UsageError: as `auc_video`.
    """
    from sklearn.metrics import average_precision_score

    values, truth = two_classes(scores, labels)
    value = float(average_precision_score(truth, values))
    return _binary("average_precision", value, precision_of_counts(values, truth), truth, groups)


# --- many labels ------------------------------------------------------------------------------


def mean_average_precision(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: Groups = None
) -> Score:
    """mAP: average precision of each class, averaged over classes (macro).

    Classes without a positive have none; they are left out, and the note says how many.

    Args:
        scores: (N, C) higher means more likely.
        labels: (N, C) 0 or 1, or (N,) classes.
        groups: see `train.score.bootstrap`.

    Raises:
        UsageError: nothing to score, NaN, shapes that differ, labels out of range, or no class
            that can be scored.
    """
    from sklearn.metrics import average_precision_score

    return _macro("mAP", scores, labels, groups, average_precision_score, precision_of_counts)


def mean_auc(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: Groups = None) -> Score:
    """mAUC: area under the ROC curve of each class against the rest, averaged over classes (macro).

    Classes without positives or without negatives have none; see `mean_average_precision`.

    Args:
        scores: (N, C) higher means more likely.
        labels: (N, C) 0 or 1, or (N,) classes.
        groups: see `train.score.bootstrap`.

    Raises:
        UsageError: as `mean_average_precision`.
    """
    from sklearn.metrics import roc_auc_score

    return _macro("mAUC", scores, labels, groups, roc_auc_score, auc_of_counts)


def d_prime(auc: Score) -> Score:
    """D' = sqrt(2) * inverse normal CDF of an AUC: 0 at chance, infinite at 1.

    The distance, in standard deviations, of two normal distributions of equal width that the AUC
    would belong to; of AudioSet's mAUC as Gemmeke et al. 2017 report it.

    Args:
        auc: from `mean_auc` or `auc_video`.

    Raises:
        UsageError: another metric.
    """
    from scipy.special import ndtri

    if auc.name not in ("mAUC", "auc_video"):
        raise UsageError(f"d' is of an AUC (mean_auc, auc_video), not of {auc.name}")
    ends = np.sqrt(2) * ndtri(np.array([auc.value, auc.low, auc.high]))
    draws: Values = np.sqrt(2) * ndtri(auc.draws)
    value, low, high = (float(end) for end in ends)
    unit: Any = "standard deviations"
    return Score("d_prime", value, low, high, auc.n, True, unit, auc.note, draws)


def _macro(
    name: str,
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Groups,
    of_library: Callable[[Any, Any], float],
    of_counts: Callable[[Values, Flags], Statistic],
) -> Score:
    """A two-class metric of each class against the rest, averaged."""
    values = finite(scores, "scores", 2)
    truth = multi_hot(labels, *values.shape)
    usable = np.flatnonzero(truth.any(0) if name == "mAP" else truth.any(0) & ~truth.all(0))
    count = values.shape[1]
    if not len(usable):
        raise UsageError(
            f"{name}: the {len(values)} items allow it for none of the {count} classes"
        )
    value = float(np.mean([of_library(truth[:, c], values[:, c]) for c in usable]))
    statistics = [of_counts(values[:, c], truth[:, c]) for c in usable]

    def statistic(counts: Counts) -> Values:
        # A class none of whose positives was drawn has no value in that resample.
        return _mean_of_defined(np.stack([one(counts) for one in statistics]))

    low, high, draws = bootstrap(statistic, len(values), groups)
    left_out = count - len(usable)
    note = f"{left_out} of {count} classes cannot be scored on these items" if left_out else ""
    return Score(name, value, low, high, len(values), True, note=note, draws=draws)


def _mean_of_defined(rows: Values) -> Values:
    """(classes, R) -> (R,), NaN where no class is defined."""
    defined = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        found: Values = np.where(defined, rows, 0).sum(0) / defined.sum(0)
    return found


# --- text -------------------------------------------------------------------------------------


def wer(references: Sequence[str], hypotheses: Sequence[str], groups: Groups = None) -> Score:
    """Corpus word error rate: all substitutions, deletions and insertions / all reference words.

    Case and the number of spaces make no difference. May be above 1.

    Args:
        references: a text an utterance.
        hypotheses: in the same order; empty where nothing was recognised.
        groups: of the utterances (speakers).

    Raises:
        UsageError: nothing to score, lengths that differ, or references without a word.
    """
    import jiwer

    return _error_rate("wer", references, hypotheses, groups, jiwer.process_words)


def cer(references: Sequence[str], hypotheses: Sequence[str], groups: Groups = None) -> Score:
    """Corpus character error rate; as `wer`, with single spaces counted as characters."""
    import jiwer

    return _error_rate("cer", references, hypotheses, groups, jiwer.process_characters)


def _error_rate(
    name: str,
    references: Sequence[str],
    hypotheses: Sequence[str],
    groups: Groups,
    process: Callable[[list[str], list[str]], Any],
) -> Score:
    if len(references) != len(hypotheses):
        raise UsageError(f"{len(references)} references, but {len(hypotheses)} hypotheses")
    truth, said = ([" ".join(text.upper().split()) for text in texts]
                   for texts in (references, hypotheses))  # fmt: skip
    if not any(truth):
        raise UsageError(f"{name}: {len(truth)} references, and not a word in them; nothing to err")
    found = process(truth, said)
    errors = [sum(_edits(chunk) for chunk in utterance) for utterance in found.alignments]
    lengths = [len(reference) for reference in found.references]
    _, (low, high, draws) = _of_means(errors, lengths, groups)
    value = float(getattr(found, name))
    return Score(name, value, low, high, len(truth), False, draws=draws)


def _edits(chunk: Any) -> int:
    """Words or characters of a piece of jiwer's alignment that are wrong."""
    spans = (chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
    return 0 if chunk.type == "equal" else max(spans)


# --- neighbours -------------------------------------------------------------------------------


def ranked_recall(
    ranked: Sequence[Sequence[Any]], wanted: Sequence[Any], k: int, groups: Groups = None
) -> Score:
    """R@k of neighbours that are known: share of queries with what they want among the first k.

    Args:
        ranked: of each query its neighbours' classes, or names, nearest first.
        wanted: of each query its class, or the name of its original.
        k: up to the shortest list.
        groups: of the queries.

    Raises:
        UsageError: nothing to score, lengths that differ, k outside of 1 .. the shortest list.
    """
    if not ranked or len(ranked) != len(wanted):
        raise UsageError(f"R@k of {len(ranked)} lists for {len(wanted)} queries: expected as many, "
                         "one at least")  # fmt: skip
    fewest = min(map(len, ranked))
    if not 1 <= k <= fewest:
        raise UsageError(f"R@{k} of lists of {fewest} neighbours: k must be 1 to {fewest}")
    hits = [one in said[:k] for said, one in zip(ranked, wanted, strict=True)]
    return _mean(f"R@{k}", np.array(hits), groups)


def nearest(query: npt.ArrayLike, gallery: npt.ArrayLike, k: int) -> Integers:
    """(N, k) positions of the nearest items of a gallery by their cosine, nearest first.

    Args:
        query: (N, D) features.
        gallery: (M, D) features.
        k: up to M.

    Raises:
        UsageError: NaN, a vector of zeros, shapes that differ, k outside of 1..M.
    """
    from sklearn.neighbors import NearestNeighbors

    asked, known = finite(query, "query features", 2), finite(gallery, "gallery features", 2)
    if asked.shape[1] != known.shape[1]:
        raise UsageError(f"features of {asked.shape[1]} and {known.shape[1]} numbers do not match")
    if not 1 <= k <= len(known):
        raise UsageError(f"R@{k} in a gallery of {len(known)}: k must be 1 to {len(known)}")
    # The order of unit vectors by distance is that by cosine, and many times as fast to find.
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(_unit(known, "gallery"))
    found: Integers = search.kneighbors(_unit(asked, "query"), return_distance=False)
    return found


def _unit(vectors: Values, name: str) -> Values:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not length.all():
        raise UsageError(
            f"{name} item {int(np.argmin(length))} has features that are all 0, which have no "
            "cosine distance to anything; look at that item"
        )
    scaled: Values = vectors / length
    return scaled


# --- scores from items ------------------------------------------------------------------------


def _mean(name: str, hits: Flags, groups: Groups) -> Score:
    value, (low, high, draws) = _of_means(hits, np.ones(len(hits)), groups)
    return Score(name, value, low, high, len(hits), True, draws=draws)


def _of_means(
    above: npt.ArrayLike, below: npt.ArrayLike, groups: Groups
) -> tuple[float, tuple[float, float, Values]]:
    """sum(above) / sum(below) over items, and its bootstrap."""
    numerators, denominators = np.asarray(above, np.float64), np.asarray(below, np.float64)
    resampled = bootstrap(ratio_of_sums(numerators, denominators), len(numerators), groups)
    return float(numerators.sum() / denominators.sum()), resampled


def _binary(
    name: str,
    value: float,
    statistic: Statistic,
    truth: Flags,
    groups: Groups,
) -> Score:
    low, high, draws = bootstrap(statistic, len(truth), groups)
    return Score(name, value, low, high, len(truth), True, draws=draws)
