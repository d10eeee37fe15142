"""Classifiers on frozen features: what several windows of an example weigh."""

import numpy as np
import pytest

from train.evaluation import probes
from train.evaluation.frozen import Frozen


def windows(rows: np.ndarray, each: int) -> Frozen:
    """Every example seen so many times, always the same."""
    owner = np.repeat(np.arange(len(rows)), each)
    return Frozen(rows[owner], owner, len(rows), np.zeros(len(rows), bool))


@pytest.mark.parametrize("probe", [probes.linear, probes.svm])
def test_the_same_window_ten_times_weighs_as_one(probe) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    rows = (rng.normal(0, 1, (3, 8))[labels] + rng.normal(0, 1, (60, 8))).astype(np.float32)
    chooser = probes.Chooser(3, None, [str(number) for number in range(60)])
    one = probe(windows(rows, 1), labels, windows(rows, 1), chooser)
    ten = probe(windows(rows, 10), labels, windows(rows, 1), chooser)
    assert np.abs(ten - one).max() < 0.02 * np.abs(one).max()


@pytest.mark.filterwarnings("error")
def test_a_rare_class_is_scored_without_a_librarys_warning() -> None:
    """One's own videos may have a class of one clip."""
    rng = np.random.default_rng(4)
    labels = np.array([0] * 12 + [1])
    rows = (3 * labels[:, None] + rng.normal(0, 0.1, (13, 4))).astype(np.float32)
    chooser = probes.Chooser(2, None, [str(number) for number in range(13)])
    assert probes.linear(windows(rows, 1), labels, windows(rows, 1), chooser).shape == (13, 2)


def test_a_fit_that_ran_out_of_iterations_is_told(caplog, monkeypatch) -> None:
    monkeypatch.setattr(probes, "ITERATIONS", 1)
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 3
    rows = rng.normal(0, 1, (60, 8)).astype(np.float32)
    chooser = probes.Chooser(3, None, [str(number) for number in range(60)])
    with caplog.at_level("INFO"):
        probes.linear(windows(rows, 1), labels, windows(rows, 1), chooser)
    assert "not at its optimum after 1 iterations" in caplog.text


@pytest.mark.parametrize("each", [1, 3])
def test_more_channels_than_rows_are_fitted_as_by_scikit_learn(each, monkeypatch) -> None:
    """Its logistic regression on all channels is the oracle; ours sees as many as rows."""
    from sklearn.linear_model import LogisticRegression

    seen: list[tuple[int, ...]] = []
    fit = probes._fit

    def noted(model, rows, labels):
        seen.append(rows.shape)
        return fit(model, rows, labels)

    monkeypatch.setattr(probes, "_fit", noted)
    monkeypatch.setattr(probes, "LINEAR_C", (0.1,))
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 4
    centres = rng.normal(0, 0.3, (4, 500))
    rows, asked = (
        (centres[labels] + rng.normal(0, 1, (40, 500))).astype(np.float32) for _ in range(2)
    )
    chooser = probes.Chooser(4, (windows(asked, 1), labels), [str(n) for n in range(40)])
    ours = probes.linear(windows(rows, each), labels, windows(asked, 1), chooser)

    train, test = probes.standardised(rows, asked)
    reference = LogisticRegression(C=0.1, max_iter=1000, tol=1e-6).fit(train, labels)
    np.testing.assert_allclose(ours, reference.predict_log_proba(test), atol=2e-3)
    assert seen == [(40, 40), (40 * each, min(40 * each, 500))]


def test_compact_rows_have_the_same_inner_products() -> None:
    rng = np.random.default_rng(4)
    train, test = (rng.normal(0, 1, (count, 50)).astype(np.float32) for count in (12, 7))
    train[3] = train[5]  # the span of fewer rows
    few, asked = probes.compact(train, test)
    assert few.shape == (12, 12) and asked.shape == (7, 12)
    np.testing.assert_allclose(few @ few.T, train @ train.T, atol=1e-4)
    np.testing.assert_allclose(asked @ few.T, test @ train.T, atol=1e-4)
    wide = rng.normal(0, 1, (60, 50)).astype(np.float32)
    assert probes.compact(wide, test)[0] is wide
