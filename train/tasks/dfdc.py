"""DFDC: is the face of a clip real or swapped? Area under the ROC curve over videos.

GLCM's protocol: one-second clips of face crops, both visual encoders (and the sound with
`--modality V+A`), a head of two layers, 100 epochs of batches of 16. A video's score is the mean of
p(fake) over its seconds; a rest of less than one is left out, a video shorter than a second is
repeated to it. Windows are a second whatever the shards' frame rate: 30 frames of the profile
`deepfake`.

Three ways to cut the set, three tasks: `dfdc`, the official train, validation and test parts;
`dfdc_mds`, the lists of MDS (Chugh et al. 2020) that the papers are compared on; `dfdc_folds`, five
folds of the training parts that share no original. The epoch is chosen by the AUC on validation
clips, in the latter two on a tenth of the training originals.

A clip without a face is not learned from and gets 0.5: it is counted, not dropped as MDS does. With
two people, one may be swapped: `--tracks 2` takes the larger score of the two faces. Only the first
one, which is seen best, is learned from: the label does not say which of them is swapped.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from train.errors import UsageError
from train.evaluation.classify import classify
from train.evaluation.clips import ClipView
from train.evaluation.job import Job
from train.evaluation.labelled import Example
from train.evaluation.result import Predictions
from train.evaluation.task import Round, Settings, Task
from train.metrics import Score, auc_video, auc_video_hard, average_precision, log_loss

TOLD = 5
"""Clips named in a sentence."""
SECOND_FACE = "#face2"
"""Ending of the name of a clip's second face."""


def predict(job: Job) -> Predictions:
    """Train on a round and score its videos.

    Raises:
        UsageError: training or test clips are of one class, or second faces are asked for that
            the shards do not store.
    """
    fake = fake_class(job.classes)
    for part, examples in (("train", job.train), ("test", job.test)):
        require_both(examples, part, fake, job)
    if job.settings.tracks == 1:
        return classify(job)
    member = ClipView("face").crop_member(1)
    if member not in job.labelled.shard_set.members:
        raise UsageError(f"--tracks 2 reads {member}, which {job.labelled.shard_set.name} does not "
                         "store; make the shards with PROFILE=deepfake")  # fmt: skip
    second = [one._replace(name=one.name + SECOND_FACE, track=1) for one in job.test]
    pool = [one._replace(name=one.name + SECOND_FACE, track=1) for one in job.test_pool]
    both = replace(job, test=[*job.test, *second], test_pool=[*job.test_pool, *pool])
    return larger_of_two(classify(both), fake)


def larger_of_two(faces: Predictions, fake: int) -> Predictions:
    """One row a video from one a face: all first faces, then all second ones in the same order."""
    count = len(faces.names) // 2
    scores, faceless = faces.scores, np.array(faces.faceless)
    assert scores is not None
    first, second = scores[:count], scores[count:]
    takes_second = ~faceless[count:] & (faceless[:count] | (second[:, fake] > first[:, fake]))
    best = np.where(takes_second[:, None], second, first)
    seen = int((~faceless[count:]).sum())
    return replace(
        faces, names=faces.names[:count], groups=faces.groups[:count],
        targets=faces.targets[:count], said=best.argmax(1).tolist(), scores=best,
        faceless=(faceless[:count] & faceless[count:]).tolist(),
        notes=[*faces.notes, f"--tracks 2: the larger score of two faces in {seen} clips that show "
               "a second one"],
    )  # fmt: skip


def measure(predictions: Predictions) -> list[Score]:
    """AUC over videos, that of thresholded scores, average precision, log-loss."""
    scores = predictions.scores
    assert scores is not None
    fake = fake_class(predictions.classes)
    said, truth = scores[:, fake], (predictions.labels == fake).astype(np.int64)
    groups = predictions.groups
    found = [auc_video(said, truth, groups)]
    if scores.min() >= 0 and np.allclose(scores.sum(1), 1, atol=1e-3):  # not of SVMs
        found.append(auc_video_hard(said, truth, groups=groups))
        found.append(average_precision(said, truth, groups))
        return [*found, log_loss(said, truth, groups)]
    return [*found, average_precision(said, truth, groups)]


def auc_or_loss(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """What chooses the epoch: AUC; of one class alone minus the log-loss, which still falls.

    The class is the one with the number 1 of two: an AUC is the same for either.
    """
    if len(set(labels.tolist())) == 2:
        return auc_video(scores[:, 1], labels).value
    return -log_loss(scores, labels).value


def fake_class(classes: Sequence[str]) -> int:
    """Number of the class `fake`, written in any case.

    Raises:
        UsageError: these are not the classes real and fake.
    """
    names = [name.lower() for name in classes]
    if sorted(names) != ["fake", "real"]:
        listed = ", ".join(classes) or "none"
        raise UsageError(f"the classes of these shards are {listed}; expected REAL and FAKE, as "
                         "make shards DATASET=dfdc names them")  # fmt: skip
    return names.index("fake")


def require_both(examples: Sequence[Example], part: str, fake: int, job: Job) -> None:
    """Refuse clips of one class: nothing can be learned from them, and there is no AUC.

    Raises:
        UsageError: says which clips there are and which to add.
    """
    fakes = sum(example.target == fake for example in examples)
    if 0 < fakes < len(examples):
        return
    there, lacking = ("fake", "real") if fakes else ("real", "fake")
    names = ", ".join(example.name for example in examples[:TOLD])
    more = f" and {len(examples) - TOLD} more" if len(examples) > TOLD else ""
    splits = ", ".join(job.round.test if part == "test" else job.round.train)
    why = "has no AUC" if part == "test" else "teaches nothing"
    raise UsageError(
        f"{job.round.name}: all {len(examples)} clips of {splits} are {there} ({names}{more}), "
        f"which {why}. Add {lacking} ones: metadata.json names the original of each fake; unpack "
        "the parts they lie in and run `make shards` again"
        + ("; or raise --limit" if job.config.limit else "")
    )


OBTAIN = (
    "download DFDC from ai.meta.com/datasets/dfdc or Kaggle after accepting its terms, and unpack "
    "its parts with their metadata.json"
)
SETTINGS = Settings(
    pictures="face", window_seconds=1, clips=0, train_clips=10, epochs=100, batch_size=16
)


def _task(name: str, about: str, rounds: tuple[Round, ...], obtain: str = OBTAIN) -> Task:
    return Task(
        name=name,
        about=about,
        dataset="dfdc",
        profile="deepfake",
        obtain=obtain,
        rounds=rounds,
        settings=SETTINGS,
        predict=predict,
        measure=measure,
        faceless="unknown",
        quality=auc_or_loss,
    )


FOLDS = tuple(f"dfdc:fold{number}" for number in range(5))

DFDC = _task(
    "dfdc",
    "deepfakes, official train, validation and test parts, AUC over videos",
    (Round("test", ("dfdc:test",), ("dfdc:train",), ("dfdc:val",)),),
)

DFDC_MDS = _task(
    "dfdc_mds",
    "deepfakes, the lists of MDS that the papers are compared on, AUC over videos",
    (Round("mds", ("mds:test",), ("mds:train",)),),
    f"{OBTAIN} (parts 1-4 and 22-27), with train_list.txt and test_list.txt of MDS beside them",
)

DFDC_FOLDS = _task(
    "dfdc_folds",
    "deepfakes, five folds of the training parts without common originals, mean AUC over videos",
    tuple(
        Round(name.split(":")[1], (name,), tuple(other for other in FOLDS if other != name))
        for name in FOLDS
    ),
)
