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


def test_a_fit_that_ran_out_of_iterations_is_told(caplog, monkeypatch) -> None:
    monkeypatch.setattr(probes, "ITERATIONS", 1)
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 3
    rows = rng.normal(0, 1, (60, 8)).astype(np.float32)
    chooser = probes.Chooser(3, None, [str(number) for number in range(60)])
    with caplog.at_level("INFO"):
        probes.linear(windows(rows, 1), labels, windows(rows, 1), chooser)
    assert "not at its optimum after 1 iterations" in caplog.text
