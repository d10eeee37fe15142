"""What may be scored: arrays as numbers or classes, or a sentence that says which item is wrong."""

import numpy as np
import numpy.typing as npt

from train.errors import UsageError

Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def finite(values: npt.ArrayLike, name: str, dimensions: int) -> Values:
    """As an array of numbers that are all finite, with something in it."""
    found = np.asarray(values)
    if found.ndim != dimensions or not found.size:
        raise UsageError(
            f"{name} have shape {found.shape}; {dimensions} dimensions and at least one item are "
            "needed"
        )
    found = found.astype(np.float64, copy=False)
    bad = ~np.isfinite(found).reshape(len(found), -1).all(1)
    if bad.any():
        raise UsageError(
            f"{name}: {int(bad.sum())} of {len(found)} items hold NaN or infinity, the first is "
            f"item {int(np.argmax(bad))}; the model has diverged or an item was not scored"
        )
    return found


def classes_of(
    labels: npt.ArrayLike, items: int | None, classes: int | None, name: str = "labels"
) -> Integers:
    """(N,) integers, each a class."""
    found = np.asarray(labels)
    if found.ndim != 1 or not found.size or (items is not None and len(found) != items):
        wanted = "at least one" if items is None else items
        raise UsageError(f"{name} have shape {found.shape}; {wanted} in one dimension are needed")
    if found.dtype != bool and not np.issubdtype(found.dtype, np.integer):
        raise UsageError(f"{name} are {found.dtype}; integers are needed, one class an item")
    wrong = (found < 0) | (found >= classes) if classes is not None else np.zeros(len(found), bool)
    if wrong.any():
        item = int(np.argmax(wrong))
        raise UsageError(
            f"{name}: {int(wrong.sum())} of {len(found)} are outside of 0..{(classes or 0) - 1}, "
            f"the first is {int(found[item])} (item {item}); count classes from 0, and compare "
            "the number of classes of the data set with that of the model"
        )
    return found.astype(np.int64)


def two_classes(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Values, Flags]:
    """(N,) scores and which are of class 1, with items of both."""
    values = finite(scores, "scores", 1)
    truth = classes_of(labels, len(values), 2).astype(bool)
    if truth.all() or not truth.any():
        raise UsageError(
            f"all {len(truth)} items are of class {int(truth[0])}: a ranking of two classes needs "
            "items of both; take more of the test set (--limit?) or another split"
        )
    return values, truth


def multi_hot(labels: npt.ArrayLike, items: int, classes: int) -> Flags:
    """(N, C) from the same, or from (N,) classes."""
    found = np.asarray(labels)
    if found.ndim == 1:
        of_item = classes_of(found, items, classes)
        flags: Flags = of_item[:, None] == np.arange(classes)
        return flags
    if found.shape != (items, classes) or not np.isin(found, (0, 1)).all():
        raise UsageError(
            f"labels have shape {found.shape}; ({items}, {classes}) of 0 and 1, or ({items},) "
            "classes are needed"
        )
    return found.astype(bool)


def shown(values: Values) -> str:
    """The first numbers of a row."""
    more = ", ..." if len(values) > 4 else ""
    return "[" + ", ".join(f"{value:.4g}" for value in values[:4]) + more + "]"
