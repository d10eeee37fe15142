"""Classifiers on frozen features: linear layer, linear SVM, neighbours.

Features are standardised with the training set's mean and deviation. What has to be chosen is
chosen on validation examples, or, without any, on whole groups of the training examples.
"""

import logging
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from train.errors import UsageError
from train.evaluation.frozen import Frozen
from train.evaluation.svm import LinearSvm

log = logging.getLogger(__name__)

SVM_C = tuple(10.0**power for power in range(-5, 3))
"""AVTS/AVID's linear SVM says nothing about C; these are tried (methods §7)."""
LINEAR_C = tuple(10.0**power for power in range(-4, 3))
ITERATIONS = 1000
"""Of logistic regression at most."""
NEIGHBOURS = 20
"""At most, and never more than half of the training examples."""
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def standardised(train: Floats, *others: Floats) -> tuple[Floats, ...]:
    """All with the mean 0 and deviation 1 of the first; constant channels become 0."""
    mean, deviation = train.mean(0), train.std(0)
    deviation = np.where(deviation > 1e-8, deviation, 1).astype(np.float32)
    return tuple((rows - mean) / deviation for rows in (train, *others))


def compact(train: Floats, *others: Floats) -> tuple[npt.NDArray[np.floating], ...]:
    """All in an orthonormal basis of the training rows, where those are fewer than the channels.

    Inner products stay, and a linear classifier whose weights are kept small has them in that span
    (representer theorem): it says the same of every row, but is fitted in fewer channels. They are
    of double precision, in which L-BFGS does not end early where errors cost much.
    """
    if len(train) >= train.shape[1]:
        return (train, *others)
    basis, coordinates = np.linalg.qr(train.T)
    return tuple(rows.astype(np.float64) for rows in (coordinates.T, *(o @ basis for o in others)))


def linear(train: Frozen, labels: Ints, test: Frozen, chooser: "Chooser") -> Floats:
    """A linear layer with softmax (logistic regression): log-probabilities of test windows."""
    fitted, known, rows = _fitted(_logistic, LINEAR_C, train, labels, test, chooser)
    logits = fitted.decision_function(rows)
    if logits.ndim == 1:  # two classes: one value, the second's over the first's
        logits = np.stack([np.zeros_like(logits), logits], 1)
    scores = np.full((len(rows), chooser.classes), -np.inf, np.float32)
    scores[:, known] = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return scores


def svm(train: Frozen, labels: Ints, test: Frozen, chooser: "Chooser") -> Floats:
    """One-against-all linear SVMs: decision values of test windows."""
    fitted, known, rows = _fitted(_svm, SVM_C, train, labels, test, chooser)
    values = fitted.decision_function(rows)
    # A class without training examples is behind all others; metrics take no infinity.
    scores = np.full((len(rows), chooser.classes), values.min() - 1, np.float32)
    scores[:, known] = values
    return scores


def knn(train: Frozen, labels: Ints, test: Frozen, chooser: "Chooser") -> Floats:
    """Share of the nearest training examples' votes, one vector an example: (examples, C)."""
    from sklearn.neighbors import NearestNeighbors

    known, asked = standardised(train.mean(), test.mean())
    count = max(min(NEIGHBOURS, len(known) // 2), 1)
    search = NearestNeighbors(n_neighbors=count, metric="cosine").fit(known)
    nearest = search.kneighbors(asked, return_distance=False)
    votes = np.zeros((len(asked), chooser.classes), np.float32)
    for column in nearest.T:
        votes[np.arange(len(asked)), labels[column]] += 1 / count
    return votes


class Chooser:
    """Which strength of regularisation: the one with the best accuracy on examples held out."""

    def __init__(self, classes: int, val: tuple[Frozen, Ints] | None, groups: list[str]) -> None:
        """Remember what to choose by.

        Args:
            classes: of the task.
            val: validation examples and their labels; None holds groups of training examples out.
            groups: of each training example.
        """
        self.classes = classes
        self._val = val
        self._groups = groups

    def choose(self, make: Any, values: tuple[float, ...], train: Floats, labels: Ints) -> float:
        """The best of some values, by accuracy on one vector an example.

        Args:
            make: value -> unfitted classifier.
            values: to try; of equally good ones the smallest.
            train: (examples, channels).
            labels: (examples,).
        """
        fit, held, fit_labels, held_labels = self._parts(train, labels)
        fit, held = compact(*standardised(fit, held))
        found = []
        for value in values:
            model = _fit(make(value), fit, fit_labels)
            found.append(float((model.predict(held) == held_labels).mean()))
        best = values[int(np.argmax(found))]
        tried = ", ".join(f"{v:g}: {x:.3f}" for v, x in zip(values, found, strict=True))
        log.info("C = %g, by accuracy on %d held-out examples (%s)", best, len(held), tried)
        return best

    def _parts(self, train: Floats, labels: Ints) -> tuple[Floats, Floats, Ints, Ints]:
        if self._val is not None:
            val, val_labels = self._val
            return train, val.mean(), labels, val_labels
        from sklearn.model_selection import StratifiedGroupKFold

        count = min(4, int(np.bincount(labels).max()), len(set(self._groups)))
        if count < 2:
            return train, train, labels, labels
        split = StratifiedGroupKFold(count, shuffle=True, random_state=0)
        with warnings.catch_warnings():
            # A class of fewer examples than parts is spread as far as it goes.
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            fit, held = next(iter(split.split(train, labels, self._groups)))
        if len(np.unique(labels[fit])) < 2 or not len(held):
            return train, train, labels, labels
        return train[fit], train[held], labels[fit], labels[held]


def _fitted(
    make: Any, values: tuple[float, ...], train: Frozen, labels: Ints, test: Frozen,
    chooser: Chooser,
) -> tuple[Any, Ints, Floats]:  # fmt: skip
    """The fitted classifier, the classes it knows, and the test windows as it wants them.

    Raises:
        UsageError: all training examples are of one class.
    """
    if len(np.unique(labels)) < 2:
        raise UsageError(
            f"all {len(labels)} training examples are of the class {labels[0]}; expected two "
            "classes at least: train on more, or raise --limit"
        )
    strength = chooser.choose(make, values, train.mean(), labels)
    rows, asked = compact(*standardised(train.vectors, test.vectors))
    # C was chosen with one vector an example; with several windows each weighs as much less.
    model = _fit(make(strength * train.examples / len(rows)), rows, labels[train.owner])
    return model, np.asarray(model.classes_, np.int64), asked


def _fit(model: Any, rows: Floats, labels: Ints) -> Any:
    """Fit it; one that was not done when its iterations were is used as it is, and told."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        model.fit(rows, labels)
    for one in heard:
        if not issubclass(one.category, ConvergenceWarning):
            warnings.warn(one.message, one.category, stacklevel=2)
            continue
        log.info("C = %g: not at its optimum after %d iterations, used as it is",
                 model.C, np.max(model.n_iter_))  # fmt: skip
    return model


def _logistic(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=ITERATIONS)


def _svm(strength: float) -> Any:
    return LinearSvm(strength)
