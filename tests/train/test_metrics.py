"""Metrics against hand-computed cases, loops over items, closed forms, and other libraries."""

import math
from itertools import product
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import sklearn.metrics
import torch

from train import metrics
from train.errors import UsageError
from train.rankings import auc_of_counts, precision_of_counts
from train.score import _draws

AVE = Path(__file__).resolve().parents[3] / "shared" / "lists" / "ave"
RNG = np.random.default_rng(11)
TIED = RNG.integers(0, 5, 40).astype(float)
"""Scores with many ties."""
TRUTH = RNG.integers(0, 2, 40)


def pairs_in_order(scores, labels):
    """AUC by its meaning: every pair of a positive and a negative."""
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (a, x), (b, y) in product(zip(scores, labels, strict=True), repeat=2)
        if x == 1 and y == 0
    ]
    return sum(wins) / len(wins)


def precision_at_positives(scores, labels):
    """AP by its meaning; equal scores are reached together."""
    at = []
    for own, label in zip(scores, labels, strict=True):
        if label == 1:
            reached = [y for s, y in zip(scores, labels, strict=True) if s >= own]
            at.append(sum(reached) / len(reached))
    return sum(at) / len(at)


def edits(said, wanted):
    """Levenshtein's distance by recursion over rows, without a library."""
    row = list(range(len(wanted) + 1))
    for i, a in enumerate(said, 1):
        new = [i]
        for j, b in enumerate(wanted, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (a != b)))
        row = new
    return row[-1]


# --- classes ----------------------------------------------------------------------------------


def test_top_k_by_hand():
    scores = [[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
    labels = [1, 2, 1, 2]
    assert metrics.top_k(scores, labels).value == 0.25
    assert metrics.top_k(scores, labels, 2).value == 0.75
    assert metrics.top_k(scores, labels, 3).value == 1.0
    assert metrics.top_k(torch.tensor(scores), torch.tensor(labels), 2).name == "top2"


@pytest.mark.parametrize("k", [1, 5, 19])
def test_top_k_as_scikit_learn(k):
    scores, labels = RNG.normal(size=(200, 20)), RNG.integers(0, 20, 200)
    theirs = sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(20))
    found = metrics.top_k(scores, labels, k)
    assert found.value == pytest.approx(theirs)
    assert found.n == 200


def test_equal_scores_for_all_classes_are_a_guess_of_the_first():
    labels = [0, 1, 2, 2]
    assert metrics.top_k(np.zeros((4, 3)), labels).value == 0.25
    assert metrics.top_k(np.zeros((4, 3)), labels, 2).value == 0.5


def test_log_loss_by_its_formula_and_as_scikit_learn():
    assert metrics.log_loss([[0.5, 0.25, 0.25]], [1]).value == pytest.approx(math.log(4))
    assert metrics.log_loss([0.8, 0.8], [1, 0]).value == pytest.approx(-math.log(0.16) / 2)
    scores = RNG.dirichlet(np.ones(4), 50)
    labels = RNG.integers(0, 4, 50)
    theirs = sklearn.metrics.log_loss(labels, scores, labels=range(4))
    found = metrics.log_loss(scores, labels)
    assert found.value == pytest.approx(theirs)
    assert (found.unit, found.higher_is_better) == ("nats", False)


def test_a_class_given_no_probability_costs_much_but_not_everything():
    assert metrics.log_loss([[1.0, 0.0]], [1]).value == pytest.approx(15 * math.log(10))


def test_confusion_rows_are_the_truth():
    found = metrics.confusion([1, 1, 0, 3], [1, 0, 0, 1], 4)
    assert found.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_segment_accuracy_by_hand_and_its_interval_by_videos():
    labels = np.array([[0, 0, 28, 28], [3, 3, 3, 28]])
    found = metrics.segment_accuracy([[0, 1, 28, 28], [3, 3, 3, 3]], labels)
    assert found.value == 6 / 8
    assert found.n == 2
    assert set(found.draws) == {0.75}  # both videos have 3 of 4


@pytest.mark.skipif(not AVE.is_dir(), reason="needs ../shared/lists/ave")
def test_all_background_is_17_8_percent_of_aves_test_segments():
    lines = (AVE / "Annotations.txt").read_text().splitlines()
    # One contiguous array at the end of the HDF5 file: the lines that are tested.
    order = np.frombuffer((AVE / "test_order.h5").read_bytes()[-402 * 8 :], "<i8")
    times = [[int(x) for x in lines[number].split("&")[3:]] for number in order]
    labels = np.array([[0 if a <= t < b else 28 for t in range(10)] for a, b in times])
    assert labels.shape == (402, 10)
    found = metrics.segment_accuracy(np.full((402, 10), 28), labels)
    assert round(100 * found.value, 1) == 17.8


# --- two classes ------------------------------------------------------------------------------


def test_auc_by_hand():
    found = metrics.auc_video([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    assert found.value == 0.75
    assert found.name == "auc_video"
    assert metrics.auc_video([0.2, 0.2, 0.2], [0, 1, 1]).value == 0.5


def test_auc_and_precision_by_loops_over_pairs():
    assert metrics.auc_video(TIED, TRUTH).value == pytest.approx(pairs_in_order(TIED, TRUTH))
    found = metrics.average_precision(TIED, TRUTH).value
    assert found == pytest.approx(precision_at_positives(TIED, TRUTH))


def test_average_precision_by_hand():
    found = metrics.average_precision([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0])
    assert found.value == pytest.approx((1 + 2 / 3) / 2)


def test_the_thresholded_auc_is_balanced_accuracy_and_bears_its_threshold():
    scores, labels = np.array([0.7, 0.5, 0.65, 0.1, 0.2, 0.6]), [1, 1, 0, 0, 0, 1]
    found = metrics.auc_video_hard(scores, labels)
    assert found.name == "auc_video_hard@0.6"
    assert found.value == pytest.approx((2 / 3 + 2 / 3) / 2)  # 0.6 itself is called fake
    assert found.value != metrics.auc_video(scores, labels).value
    assert metrics.auc_video_hard(scores, labels, 0.15).name == "auc_video_hard@0.15"


@pytest.mark.parametrize(
    ("of_counts", "library"),
    [
        (auc_of_counts, sklearn.metrics.roc_auc_score),
        (precision_of_counts, sklearn.metrics.average_precision_score),
    ],
)
def test_resampled_rankings_are_the_librarys_value_of_the_items_drawn(of_counts, library):
    counts = RNG.multinomial(40, np.full(40, 1 / 40), 60).astype(np.int32)
    found = of_counts(TIED, TRUTH.astype(bool))(counts)
    for row, value in zip(counts, found, strict=True):
        items = np.repeat(np.arange(40), row)
        assert value == pytest.approx(library(TRUTH[items], TIED[items]))


# --- many labels ------------------------------------------------------------------------------


def test_map_and_mauc_are_means_over_classes():
    scores = RNG.normal(size=(60, 3)).round(1)
    hot = RNG.integers(0, 2, (60, 3))
    precision = np.mean([precision_at_positives(scores[:, c], hot[:, c]) for c in range(3)])
    areas = np.mean([pairs_in_order(scores[:, c], hot[:, c]) for c in range(3)])
    assert metrics.mean_average_precision(scores, hot).value == pytest.approx(precision)
    assert metrics.mean_auc(scores, hot).value == pytest.approx(areas)


def test_classes_may_be_numbers_and_missing_ones_are_left_out_and_said():
    scores, labels = RNG.normal(size=(30, 4)), RNG.integers(0, 3, 30)
    hot = labels[:, None] == np.arange(3)
    whole = metrics.mean_average_precision(scores, labels)
    assert whole.value == pytest.approx(metrics.mean_average_precision(scores[:, :3], hot).value)
    assert whole.note == "1 of 4 classes cannot be scored on these items"
    assert 0 < whole.low < whole.value < whole.high < 1


def test_a_class_every_item_has_counts_for_map_and_not_for_mauc():
    scores, hot = RNG.normal(size=(20, 2)), np.ones((20, 2), int)
    hot[::2, 1] = 0
    assert metrics.mean_average_precision(scores, hot).note == ""
    assert metrics.mean_auc(scores, hot).value == pytest.approx(
        pairs_in_order(scores[:, 1], hot[:, 1])
    )


def test_the_macro_interval_is_that_of_the_items_drawn():
    scores, labels = RNG.normal(size=(25, 3)), np.arange(25) % 3
    seen = []
    found = metrics.mean_auc(scores, labels)
    counts = next(iter(_draws(25, 25)))[:40]
    for row in counts:
        items = np.repeat(np.arange(25), row)
        areas = [
            pairs_in_order(scores[items, c], labels[items] == c)
            for c in range(3)
            if (labels[items] == c).any()
        ]
        seen.append(np.mean(areas))
    assert found.draws[:40] == pytest.approx(seen)


def test_d_prime_of_known_areas():
    area = metrics.mean_auc(RNG.normal(size=(60, 3)), RNG.integers(0, 3, 60))
    found = metrics.d_prime(area)
    for ours, auc in ((found.value, area.value), (found.low, area.low), (found.high, area.high)):
        assert ours == pytest.approx(math.sqrt(2) * NormalDist().inv_cdf(auc))
    assert metrics.d_prime(metrics.auc_video([0, 0], [0, 1])).value == 0
    normal = NormalDist(0, 1), NormalDist(found.value, 1)  # (that far apart, they give that area)
    grid = np.linspace(-8, 8, 4001)
    below = np.array([normal[0].cdf(x) * normal[1].pdf(x) for x in grid])
    assert np.trapezoid(below, grid) == pytest.approx(area.value, abs=1e-6)


def test_d_prime_of_a_perfect_ranking_is_infinite_and_null_in_json():
    found = metrics.d_prime(metrics.auc_video([0, 0, 1, 1], [0, 0, 1, 1]))
    assert math.isinf(found.value)
    assert found.as_json()["value"] is None
    with pytest.raises(UsageError, match="not of top1"):
        metrics.d_prime(metrics.top_k(np.eye(2), [0, 1]))


# --- text -------------------------------------------------------------------------------------


def test_wer_by_hand_is_of_the_corpus_and_not_of_utterances():
    references = ["the cat sat on the mat", "no"]
    hypotheses = ["the cat sit on mat", "yes"]
    found = metrics.wer(references, hypotheses)
    assert found.value == pytest.approx(3 / 7)  # one word wrong, one missing; one wrong
    assert found.value != pytest.approx((2 / 6 + 1 / 1) / 2)
    assert (found.n, found.higher_is_better) == (2, False)


def test_wer_and_cer_by_levenshtein():
    words = ["a", "bb", "c", "dd"]
    references = [" ".join(RNG.choice(words, RNG.integers(1, 7))) for _ in range(40)]
    hypotheses = [" ".join(RNG.choice(words, RNG.integers(0, 7))) for _ in range(40)]
    pairs = list(zip(hypotheses, references, strict=True))
    errors = sum(edits(h.split(), r.split()) for h, r in pairs)
    word_rate = errors / sum(len(r.split()) for r in references)
    letters = sum(edits(h, r) for h, r in pairs) / sum(len(r) for r in references)
    found = metrics.wer(references, hypotheses)
    assert found.value == pytest.approx(word_rate)
    assert metrics.cer(references, hypotheses).value == pytest.approx(letters)
    assert found.low < found.value < found.high
    assert np.nanmean(found.draws) == pytest.approx(found.value, abs=0.02)


def test_case_and_spaces_do_not_matter_and_wer_may_be_above_one():
    assert metrics.wer(["BIN Blue  at"], ["bin blue at "]).value == 0
    assert metrics.cer(["BIN Blue  at"], ["bin blue at "]).value == 0
    assert metrics.wer(["a"], ["b c d"]).value == 3
    assert metrics.wer(["a", ""], ["", "b"]).value == 2  # one missing, one too many, one word


# --- neighbours -------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 30])
def test_recall_by_loops(k):
    query, gallery = RNG.normal(size=(20, 4)), RNG.normal(size=(30, 4)) * RNG.random((30, 1)) * 5
    asked, known = RNG.integers(0, 8, 20), RNG.integers(0, 8, 30)

    def distance(a, b):
        return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    hits = instances = 0
    for number, (vector, label) in enumerate(zip(query, asked, strict=True)):
        order = sorted(range(30), key=[distance(vector, item) for item in gallery].__getitem__)[:k]
        hits += label in known[order]
        instances += number in order
    ranked = metrics.nearest(query, gallery, k)
    found = metrics.ranked_recall(known[ranked].tolist(), asked.tolist(), k)
    assert found.value == pytest.approx(hits / 20)
    assert found.name == f"R@{k}"
    own = metrics.ranked_recall(ranked.tolist(), range(20), k)
    assert own.value == pytest.approx(instances / 20)


def test_length_makes_no_difference():
    ranked = metrics.nearest([[1.0, 0.0]], [[0.5, 0.8], [10.0, 1.0]], 2)
    assert ranked.tolist() == [[1, 0]]


def test_features_that_are_all_the_same_find_their_original_by_chance_only():
    same = np.ones((50, 8))
    assert metrics.ranked_recall(metrics.nearest(same, same, 5).tolist(), range(50), 5).value <= 0.1


# --- what cannot be scored --------------------------------------------------------------------

PAIR = [[0.0, 1.0], [1.0, 0.0]]
NAN = [[0.0, 1.0], [float("nan"), 0.0]]


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (lambda: metrics.auc_video([0.1, 0.2], [1, 1]), "all 2 items are of class 1"),
        (lambda: metrics.average_precision([0.1, 0.2], [0, 0]), "all 2 items are of class 0"),
        (lambda: metrics.auc_video_hard([0.1, 0.2], [0, 0]), "all 2 items are of class 0"),
        (lambda: metrics.auc_video([0.1, 0.2], [0, 2]), r"outside of 0\.\.1, the first is 2"),
        (lambda: metrics.auc_video([0.1, 0.2], [0, 1, 1]), "2 in one dimension"),
        (lambda: metrics.auc_video([], []), "at least one item"),
        (lambda: metrics.auc_video([0.1, math.inf], [0, 1]), "the first is item 1"),
        (lambda: metrics.top_k(PAIR, [0, 2]), r"outside of 0\.\.1, the first is 2 \(item 1\)"),
        (lambda: metrics.top_k(PAIR, [-1, 0]), "the first is -1"),
        (lambda: metrics.top_k(PAIR, [0.0, 1.0]), "integers are needed"),
        (lambda: metrics.top_k(PAIR, [0]), "2 in one dimension"),
        (lambda: metrics.top_k(NAN, [0, 1]), "1 of 2 items hold NaN"),
        (lambda: metrics.top_k(PAIR, [0, 1], 3), "k must be 1 to 2"),
        (lambda: metrics.top_k(PAIR, [0, 1], 0), "k must be 1 to 2"),
        (lambda: metrics.top_k(np.zeros((0, 2)), []), "at least one item"),
        (lambda: metrics.top_k([0.5], [0]), "2 dimensions"),
        (lambda: metrics.log_loss([[2.0, -1.0]], [0]), "apply softmax"),
        (lambda: metrics.log_loss([[3.0, 4.0]], [0]), "item 0 has"),
        (lambda: metrics.log_loss([1.5], [1]), "apply softmax or sigmoid"),
        (lambda: metrics.log_loss(NAN, [0, 1]), "NaN"),
        (lambda: metrics.segment_accuracy([[0, 1]], [[0, 1, 2]]), r"\(1, 2\), labels \(1, 3\)"),
        (lambda: metrics.segment_accuracy([[0, 29]], [[0, 1]]), "predictions: 1 of 2"),
        (lambda: metrics.segment_accuracy([[0, 1]], [[0, 29]]), "labels: 1 of 2"),
        (lambda: metrics.confusion([0, 5], [0, 1], 3), "predictions: 1 of 2"),
        (lambda: metrics.mean_auc(PAIR, [[1, 1], [1, 1]]), "for none of the 2 classes"),
        (lambda: metrics.mean_average_precision(PAIR, [[0, 2], [1, 0]]), "of 0 and 1"),
        (lambda: metrics.mean_average_precision(PAIR, [[0, 1]]), r"\(2, 2\) of 0 and 1"),
        (lambda: metrics.mean_average_precision(PAIR, [[0, 0], [0, 0]]), "for none"),
        (lambda: metrics.wer(["a"], ["a", "b"]), "1 references, but 2"),
        (lambda: metrics.wer([" "], ["a"]), "not a word"),
        (lambda: metrics.cer([], []), "not a word"),
        (lambda: metrics.nearest(PAIR, PAIR, 3), "gallery of 2: k must be"),
        (lambda: metrics.nearest(NAN, PAIR, 1), "query features"),
        (lambda: metrics.nearest(PAIR, np.ones((2, 3)), 1), "2 and 3 numbers"),
        (lambda: metrics.nearest(PAIR, [[1, 1], [0, 0]], 1), "gallery item 1"),
        (lambda: metrics.ranked_recall([[0]], [0, 1], 1), "1 lists for 2 queries"),
        (lambda: metrics.ranked_recall([[0, 1], [0]], [0, 1], 2), "lists of 1 neighbours"),
    ],
)
def test_what_cannot_be_scored_is_said(score, sentence):
    with pytest.raises(UsageError, match=sentence):
        score()


def test_average_leaves_out_what_has_no_value():
    values = [1.0, math.nan, 0.0, 0.5, math.nan, 1.0]
    score = metrics.average("hits", values, unit="ratio", higher_is_better=False)
    assert (score.name, score.value, score.n) == ("hits", 0.625, 4)
    assert (score.unit, score.higher_is_better) == ("ratio", False)
    assert score.low < 0.625 < score.high
    one_group = metrics.average("hits", values, groups=list("axaaxa"))
    assert math.isnan(one_group.low)  # the groups of what was left out do not count
    with pytest.raises(UsageError, match="hits: none of the 2 items has a value"):
        metrics.average("hits", [math.nan] * 2)
