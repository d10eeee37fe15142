"""Linear SVMs one against all, all classes at once.

The objective is LinearSVC's (squared hinge, the intercept penalised like a weight):
    min over w, b of  1/2 (|w|^2 + b^2) + C sum_i max(0, 1 - y_i (<w, x_i> + b))^2
for each class by itself. scikit-learn's solver takes the classes one after the other: 6 s for 1,600
x 512 and 50 classes, where one 2-core minute is meant to do for ten times the rows, eight values of
C and five folds. Here one product serves all classes, and torch's L-BFGS sees their sum; a test
holds the two against each other.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float32]
ITERATIONS = 300
TOLERANCE = 1e-4
"""Largest slope of a weight at the end, in units of C where that is above 1,"""
STEEPNESS = 1e-3
"""and in units of the largest at the start: with few rows and a small C all slopes are small."""


@dataclass
class LinearSvm:
    """With scikit-learn's manners: fit, decision_function, predict, classes_."""

    C: float = 1.0
    """Weight of the errors."""

    def fit(self, rows: Floats, labels: npt.NDArray[np.int64]) -> "LinearSvm":
        """Learn from (N, D) rows with (N,) labels of two or more classes."""
        self.classes_ = np.unique(labels)
        features = torch.from_numpy(_with_one(rows))
        signs = torch.from_numpy(np.where(labels[:, None] == self.classes_, 1, -1)).float()
        weights = torch.zeros(features.shape[1], len(self.classes_), requires_grad=True)
        steepest = 2 * self.C * float((features.T @ signs).abs().max())  # at the start, all zeros
        search = torch.optim.LBFGS(
            [weights], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe",
            tolerance_grad=min(TOLERANCE * max(self.C, 1), STEEPNESS * steepest),
            tolerance_change=0,
        )  # fmt: skip

        def objective() -> Tensor:
            with torch.no_grad():
                slack = (1 - signs * (features @ weights)).clamp(min=0)
                weights.grad = weights - 2 * self.C * (features.T @ (signs * slack))
                value: Tensor = 0.5 * weights.square().sum() + self.C * slack.square().sum()
            return value

        search.step(objective)  # type: ignore[no-untyped-call]
        self.weights = weights.detach().numpy()
        return self

    def decision_function(self, rows: Floats) -> Floats:
        """(N, classes) values; the class with the largest is predicted."""
        values: Floats = _with_one(rows) @ self.weights
        return values

    def predict(self, rows: Floats) -> npt.NDArray[np.int64]:
        """(N,) classes."""
        found: npt.NDArray[np.int64] = self.classes_[self.decision_function(rows).argmax(1)]
        return found


def _with_one(rows: Floats) -> Floats:
    """Rows with a constant at their end, whose weight is the intercept."""
    return np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1, dtype=np.float32)
