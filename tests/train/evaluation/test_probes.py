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


@pytest.mark.parametrize("make", [probes._logistic, probes._svm])
def test_fewer_channels_that_span_the_rows_give_the_same_classifier(make) -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 4
    rows = (rng.normal(0, 1, (4, 300))[labels] + rng.normal(0, 2, (40, 300))).astype(np.float32)
    asked = rng.normal(0, 1, (25, 300)).astype(np.float32)
    few, few_asked = probes.in_span(rows, asked)
    assert few.shape == (40, 40)
    assert few_asked.shape == (25, 40)
    np.testing.assert_allclose(few_asked @ few.T, asked @ rows.T, rtol=1e-3, atol=1e-2)
    whole = make(0.01).fit(rows, labels).decision_function(asked)
    np.testing.assert_allclose(
        make(0.01).fit(few, labels).decision_function(few_asked), whole, atol=2e-3
    )


def test_more_rows_than_channels_stay_as_they_are() -> None:
    rows = np.zeros((9, 8), np.float32)
    assert probes.in_span(rows, rows[:2])[0] is rows


def test_a_fit_that_ran_out_of_iterations_is_told(caplog, monkeypatch) -> None:
    monkeypatch.setattr(probes, "ITERATIONS", 1)
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 3
    rows = rng.normal(0, 1, (60, 8)).astype(np.float32)
    chooser = probes.Chooser(3, None, [str(number) for number in range(60)])
    with caplog.at_level("INFO"):
        probes.linear(windows(rows, 1), labels, windows(rows, 1), chooser)
    assert "not at its optimum after 1 iterations" in caplog.text
