"""Nearest neighbours of frozen features: retrieval of clips of a class, and of the clip itself.

Features are averaged over a clip's windows and crops, standardised with mean and deviation of the
gallery, each modality scaled to length 1, and compared by their cosine (Jenni et al. §4: "mean over
crops, then standardise"; the distance is not stated there, the cosine is ours).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from train.evaluation.encoders import SOUND
from train.evaluation.frozen import Floats, Frozen, Ints, test_features, train_features
from train.evaluation.job import Job
from train.evaluation.probes import standardised
from train.evaluation.result import Predictions
from train.metrics import Score, nearest, ranked_recall

KEPT = 50
"""Nearest neighbours that are written down."""
RANKS = (1, 5, 10, 20, 50)


def retrieve(job: Job) -> Predictions:
    """For each test clip the classes of its nearest training clips, nearest first."""
    test = test_features(job, job.test)
    gallery = train_features(job)
    found = nearest_of(job, gallery, test)
    classes = [example.target for example in job.train]
    return predictions_of(job, [[classes[place] for place in row] for row in found.tolist()],
                          test)  # fmt: skip


def predictions_of(job: Job, said: list[list[Any]], test: Frozen) -> Predictions:
    """What each test example's neighbours are."""
    return Predictions(
        names=[example.name for example in job.test],
        groups=[example.group for example in job.test],
        targets=[example.target for example in job.test],
        said=said,
        classes=(),
        faceless=test.faceless.tolist(),
    )


def recall(predictions: Predictions) -> list[Score]:
    """R@k: a hit is any of the k nearest with the query's class, or name."""
    fewest = min(len(said) for said in predictions.said)
    return [
        ranked_recall(predictions.said, predictions.targets, k, predictions.groups)
        for k in RANKS
        if k <= fewest
    ]


def nearest_of(job: Job, gallery: Frozen, queries: Frozen) -> Ints:
    """(queries, KEPT or fewer) positions in the gallery, nearest first."""
    channels = job.source.wanted(job.settings)
    sound = channels.get(SOUND, 0)
    known, asked = standardised(gallery.mean(), queries.mean())
    known, asked = (_unit_parts(rows, rows.shape[1] - sound) for rows in (known, asked))
    return nearest(asked, known, min(KEPT, len(known)))


def _unit_parts(rows: Floats, visual: int) -> Floats:
    """Pictures' and sound's channels scaled to length 1 each, so that neither outweighs."""
    parts: Sequence[Floats] = [part for part in np.split(rows, [visual], axis=1) if part.size]
    norms = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    scaled = [part / np.maximum(norm, 1e-12) for part, norm in zip(parts, norms, strict=True)]
    return np.concatenate(scaled, axis=1)
