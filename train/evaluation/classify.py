"""Example -> class scores, by any protocol: fine-tuning, linear layer, SVM, neighbours."""

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.errors import UsageError
from train.evaluation import probes
from train.evaluation.clips import ClipBatch, Look, batched, training_looks
from train.evaluation.finetune import fit
from train.evaluation.frozen import Frozen, mean_by, test_features, train_features
from train.evaluation.heads import Classifier
from train.evaluation.job import Job, Reading
from train.evaluation.kept import keep
from train.evaluation.labelled import Example
from train.evaluation.result import Predictions
from train.metrics import Score, log_loss, top_k

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
TOP_5_FROM = 20
"""Classes from which on top-5 says something."""


def classify(job: Job) -> Predictions:
    """Train and score a round.

    Returns:
        Scores are probabilities, of SVMs mean decision values, of neighbours shares of votes.
    """
    protocol = job.settings.protocol
    if protocol == "finetune":
        return finetuned(job)
    scores, faceless = probed(job)
    return Predictions.of_scores(job, scores, faceless)


def accuracy(predictions: Predictions) -> list[Score]:
    """top-1, top-5 where there are many classes, and log-loss where scores are probabilities."""
    scores, labels = predictions.scores, predictions.labels
    assert scores is not None
    found = [top_k(scores, labels, 1, predictions.groups)]
    if scores.shape[1] >= TOP_5_FROM:
        found.append(top_k(scores, labels, 5, predictions.groups))
    if np.allclose(scores.sum(1), 1, atol=1e-3) and scores.min() >= 0:
        found.append(log_loss(scores, labels, predictions.groups))
    return found


# --- frozen features ----------------------------------------------------------------------------


def probed(job: Job) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Scores of the test examples by a classifier on frozen features."""
    (train, learned), test = (
        _seen(job, train_features(job), job.train),
        test_features(job, job.test),
    )
    labels = targets(learned)
    val = (test_features(job, job.val), targets(job.val)) if job.val else None
    groups = [example.group for example in learned]
    chooser = probes.Chooser(len(job.classes), val, groups)
    protocol = job.settings.protocol
    if protocol == "knn":
        scores = probes.knn(train, labels, test, chooser)
    elif protocol == "svm":
        scores = mean_by(probes.svm(train, labels, test, chooser), test.owner, test.examples)
    else:
        logits = probes.linear(train, labels, test, chooser)
        scores = averaged(logits, test.owner, test.examples, job.settings.average)
    return _undecided(job, scores, test.faceless), test.faceless


def _seen(job: Job, train: Frozen, examples: list[Example]) -> tuple[Frozen, list[Example]]:
    """What is learned from: without clips of which nothing is known, where the task says so."""
    if job.task.faceless == "centre" or not train.faceless.any():
        return train, examples
    kept = np.flatnonzero(~train.faceless)
    if not len(kept):
        raise UsageError(f"none of the {len(examples)} training clips shows a face; look at their "
                         "shards: `python -m pipeline report`")  # fmt: skip
    place = np.full(len(examples), -1)
    place[kept] = np.arange(len(kept))
    rows = np.flatnonzero(place[train.owner] >= 0)
    seen = Frozen(train.vectors[rows], place[train.owner[rows]], len(kept), train.faceless[kept])
    return seen, [examples[number] for number in kept.tolist()]


def _undecided(job: Job, scores: Floats, faceless: npt.NDArray[np.bool_]) -> Floats:
    """The same score for all classes where nothing was seen, and the task does not guess."""
    if job.task.faceless == "unknown":
        middle = 0.0 if job.settings.protocol == "svm" else 1 / scores.shape[1]
        scores[faceless] = middle
    return scores


def targets(examples: list[Example]) -> Ints:
    """Classes of examples."""
    return np.array([example.target for example in examples], np.int64)


# --- fine-tuning --------------------------------------------------------------------------------


def finetuned(job: Job) -> Predictions:
    """Probabilities of the test examples by encoders and head trained together."""
    torch.manual_seed(job.config.seed)
    settings = job.settings
    model = Classifier(
        job.encoders(), settings, len(job.classes), hidden=job.config.hidden,
        dropout=job.config.dropout,
    ).to(job.device)  # fmt: skip
    history = learned(job, model)
    keep(job, model)
    return Predictions.of_scores(job, *scored(job, model, job.test), history)


def learned(job: Job, model: nn.Module) -> list[dict[str, float]]:
    """Train a network on the job's training examples; validation ones choose the epoch."""
    val, labels = job.val, targets(job.val)
    quality = job.task.quality or share_right

    def validate() -> float:
        scores, _ = scored(job, model, val, 1)
        return quality(scores, labels)

    return fit(
        model, job.config, job.settings.epochs, lambda epoch: epoch_of(job, epoch),
        classification_loss(job, model), validate if val else None, job.folder, job.device,
    )  # fmt: skip


def share_right(scores: Floats, labels: Ints) -> float:
    """Top-1 accuracy."""
    return float((scores.argmax(1) == labels).mean())


def epoch_of(job: Job, epoch: int) -> Reading:
    """The training windows of an epoch; a last batch of one, which BatchNorm cannot take, goes."""
    looks = training_looks(job.train, job.window, job.config.seed, epoch)
    batches = list(batched(looks, job.settings.batch_size, equal=False))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches.pop()
    return job.read(job.train, batches)


def classification_loss(job: Job, model: nn.Module) -> Callable[[ClipBatch, int], Tensor]:
    """Cross-entropy of augmented windows; of those that show a face, where the task says so."""
    labels = torch.from_numpy(targets(job.train))
    all_count = job.task.faceless == "centre"

    def loss(batch: ClipBatch, step: int) -> Tensor:
        ready = batch.augmented(job.augment, step)
        logits = model(ready.video, ready.sound).float()
        truth = labels[batch.examples].to(job.device)
        if all_count:
            return functional.cross_entropy(logits, truth)
        seen = (~batch.faceless).to(logits)
        each = functional.cross_entropy(logits, truth, reduction="none")
        return (each * seen).sum() / seen.sum().clamp(min=1)

    return loss


def scored(
    job: Job, model: nn.Module, examples: list[Example], clips: int | None = None
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Probabilities (examples, C) averaged over windows, and which examples show no face."""
    logits, owner, faceless = window_logits(job, model, examples, job.scored(examples, clips))
    shown = np.zeros(len(examples), bool)
    shown[owner[faceless]] = True
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    scores = averaged(log_p, owner, len(examples), job.settings.average)
    return _undecided(job, scores, shown), shown


@torch.no_grad()
def window_logits(
    job: Job, model: nn.Module, examples: list[Example], looks: list[Look]
) -> tuple[Floats, Ints, npt.NDArray[np.bool_]]:
    """Logits (windows, C) of a trained model, and owner and faceless of each window."""
    model.eval()
    logits, owner, faceless = [], [], []
    for raw in job.read(examples, job.in_batches(looks)):
        batch = raw.centred(job.source.crop)
        with job.autocast():
            logits.append(model(batch.video, batch.sound).float().cpu().numpy())
        owner.append(batch.examples.numpy())
        faceless.append(batch.faceless.numpy())
    return np.concatenate(logits), np.concatenate(owner), np.concatenate(faceless)


def averaged(log_p: Floats, owner: Ints, count: int, average: str) -> Floats:
    """Probabilities (count, C) of examples from log-probabilities (windows, C).

    Args:
        log_p: of windows; rows may lack a constant.
        owner: (windows,) whose each is.
        count: examples.
        average: `prob` averages probabilities (AVID), `logit` their logarithms (GDT).
    """
    if average == "prob":
        return mean_by(np.exp(log_p), owner, count)
    finite = np.maximum(log_p, -1e4)  # a class without training examples
    means = mean_by(finite, owner, count)
    odds = np.exp(means - means.max(1, keepdims=True))
    normalised: Floats = odds / odds.sum(1, keepdims=True)
    return normalised
