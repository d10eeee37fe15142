"""All classes at once give what scikit-learn gives one after the other."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from train.evaluation.svm import LinearSvm


@pytest.mark.parametrize("strength", [1e-5, 1e-3, 1.0])
def test_few_rows_teach_something(strength: float) -> None:
    rows = np.array([[1.0, 0.2], [-1.0, 0.1], [-0.8, -0.3]], np.float32)
    labels = np.array([1, 0, 0])
    ours = LinearSvm(strength).fit(rows, labels).decision_function(rows)[:, 1]
    theirs = LinearSVC(C=strength, tol=1e-8, max_iter=100_000, dual=False).fit(rows, labels)
    assert ours == pytest.approx(theirs.decision_function(rows), rel=0.02)


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_same_as_one_after_the_other(strength: float, classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 300) * 3  # numbers with gaps
    centres = rng.normal(0, 1, (3 * classes, 12))
    rows = (centres[labels] + rng.normal(0, 1.5, (300, 12))).astype(np.float32)
    ours = LinearSvm(strength).fit(rows[:200], labels[:200])
    theirs = LinearSVC(C=strength, tol=1e-6, max_iter=100_000, dual=False)
    theirs.fit(rows[:200], labels[:200])
    expected = theirs.decision_function(rows[200:])
    values = ours.decision_function(rows[200:])
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    scale = np.abs(expected).max()
    assert np.abs((values[:, 1] if classes == 2 else values) - expected).max() < 0.01 * scale
    agree = (ours.predict(rows[200:]) == theirs.predict(rows[200:])).mean()
    assert agree >= 0.99
