"""Frozen kNN: are clips of one class neighbours in feature space, without any training on labels?

The features of `module.features`, averaged over time and place, one unit vector a modality, side by
side; a held-out clip takes the label most of its k nearest training clips have (cosine distance;
Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination").
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from train.batch import Batch
from train.errors import UsageError

NEIGHBOURS = 20
"""At most; never more than half of the training clips."""
MAX_TRAINING_CLIPS = 10_000
"""Of which features are taken, over all ranks: more would take longer than they tell."""
LABELS_OF_A_SET = 1 << 32
"""Class 3 of one set is not class 3 of the next."""

Rows = list[tuple[npt.NDArray[np.float32], tuple[int, ...]]]
"""Feature vector and labels of each clip."""


def labelled_rows(
    module: nn.Module, batches: Iterable[Batch], first_instances: Sequence[int] = (0,)
) -> Rows:
    """Features of the clips that have labels.

    Args:
        module: a method's, in evaluation mode.
        batches: prepared for the module.
        first_instances: where each set's instance ids begin; classes of different sets differ.

    Raises:
        UsageError: the method gives no features.
    """
    rows: Rows = []
    for batch in batches:
        vectors = pooled(module, batch).numpy()
        for vector, instance, labels in zip(
            vectors, batch.instance.tolist(), batch.labels, strict=True
        ):
            offset = bisect_right(first_instances, instance) * LABELS_OF_A_SET
            if labels:
                rows.append((vector, tuple(offset + label for label in labels)))
    return rows


def pooled(module: nn.Module, batch: Batch) -> Tensor:
    """(B, sum of channels) on the CPU: each feature averaged to (B, C), scaled to length 1.

    Raises:
        UsageError: the method gives no features.
    """
    features: Callable[[Batch], dict[str, Tensor]] | None = getattr(module, "features", None)
    names = getattr(module, "feature_channels", None)
    if features is None or not names:
        raise UsageError(
            f"--knn: {type(module).__name__} has no `features` with `feature_channels` (see "
            "train.methods), so there is nothing to find neighbours by; leave --knn out"
        )
    with torch.no_grad():
        found = features(batch)
    vectors = [found[name].float().reshape(len(batch), n, -1).mean(2) for name, n in names.items()]
    return torch.cat([nn.functional.normalize(vector, dim=1) for vector in vectors], 1).cpu()


def knn_accuracy(known: Rows, asked: Rows) -> float:
    """Share of the asked clips whose neighbours' commonest label is one of theirs.

    Args:
        known: training clips; one with several labels has a vote for each of them.
        asked: held-out clips.

    Returns:
        NaN where a feature is not finite: such clips have no neighbours.

    Raises:
        UsageError: no clip of one of them has a label.
    """
    from sklearn.neighbors import NearestNeighbors

    for rows, name in ((known, "training"), (asked, "held-out")):
        if not rows:
            raise UsageError(f"--knn: no {name} clip has a label in these shards; leave --knn out")
    if not all(np.isfinite(vector).all() for vector, _ in (*known, *asked)):
        return float("nan")
    classes = sorted({label for _, labels in known for label in labels})
    votes = np.array([[name in labels for name in classes] for _, labels in known], np.uint8)
    count = max(min(NEIGHBOURS, len(known) // 2), 1)
    search: Any = NearestNeighbors(n_neighbors=count, metric="cosine")
    search.fit(np.stack([vector for vector, _ in known]))
    nearest = search.kneighbors(np.stack([vector for vector, _ in asked]), return_distance=False)
    guessed = votes[nearest].sum(1).argmax(1)  # of equal votes the smallest class number
    right = [classes[i] in labels for i, (_, labels) in zip(guessed, asked, strict=True)]
    return float(np.mean(right))
