"""Linear probes on frozen sound, pictures, and both side by side (Jenni et al., Table 6)."""

from dataclasses import replace

import numpy as np

from train.evaluation import probes
from train.evaluation.classify import accuracy, averaged, targets
from train.evaluation.encoders import SOUND
from train.evaluation.frozen import Frozen, test_features, train_features
from train.evaluation.job import Job
from train.evaluation.result import Predictions
from train.metrics import Score

PARTS = ("A", "V")
"""Scored alone, too."""


def fused(job: Job) -> Predictions:
    """Probabilities by both modalities, and beside them by each alone."""
    train, test = train_features(job), test_features(job, job.test)
    val = test_features(job, job.val) if job.val else None
    scores = {}
    for part in ("V+A", *PARTS):
        chosen = [_columns(job, one, part) for one in (train, test, val) if one is not None]
        scores[part] = _probed(job, *chosen)
    predictions = Predictions.of_scores(job, scores["V+A"], test.faceless)
    return replace(predictions, others={part: scores[part] for part in PARTS})


def accuracy_of_parts(predictions: Predictions) -> list[Score]:
    """top-1 of both together, then of each modality alone."""
    found = accuracy(predictions)
    for part, scores in predictions.others.items():
        alone = accuracy(replace(predictions, scores=scores, others={}))
        found += [replace(score, name=f"{score.name}_{part}") for score in alone]
    return found


def _columns(job: Job, features: Frozen, part: str) -> Frozen:
    """Only the channels of a modality."""
    channels = job.source.wanted(job.settings)
    names = [name for name in channels if part == "V+A" or (name == SOUND) == (part == "A")]
    first, chosen = 0, []
    for name, count in channels.items():
        if name in names:
            chosen.append(features.vectors[:, first : first + count])
        first += count
    return replace(features, vectors=np.concatenate(chosen, axis=1))


def _probed(job: Job, train: Frozen, test: Frozen, val: Frozen | None = None) -> probes.Floats:
    groups = [example.group for example in job.train]
    held = None if val is None else (val, targets(job.val))
    chooser = probes.Chooser(len(job.classes), held, groups)
    logits = probes.linear(train, targets(job.train), test, chooser)
    return averaged(logits, test.owner, test.examples, job.settings.average)
