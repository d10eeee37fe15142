"""Does a held-out clip's sound find its pictures among those of all clips, and the other way round?

Nothing is trained. Clips are compared by what the method's objectives compare, see
`train.evaluation.matching`: `local`, the score of L_l, knows what happens when; `global`, that of
L_g, what a clip is like.

    a2v_r1:local      share of sounds whose own pictures come first among all clips' (R@1); v2a:
                      pictures whose own sound does. R@1, 5 and 10 of either score. Ties are misses;
                      chance is K over the clips
    class_auc:global  where clips have labels: does a sound rank the pictures of *other* clips of
                      its (first) class above the rest, and pictures the sounds? Area under the
                      ROC curve, mean over queries and both directions; chance 0.5. Random weights
                      cannot do it, whatever colours and timbres they let through: nothing has
                      told them which sound belongs to which picture

One window of each clip, its middle, or with --clips several, whose scores are averaged: the first
with the first, the second with the second. Clips with fewer windows give their last one again.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from train.errors import UsageError
from train.evaluation.clips import Look
from train.evaluation.job import Job
from train.evaluation.labelled import any_clips
from train.evaluation.matching import KINDS, auc_of_class, embed, match, ranks_of_own
from train.evaluation.result import Predictions
from train.evaluation.task import Round, Settings, Task
from train.metrics import Score, average

RECALLS = (1, 5, 10)
MOST_CLIPS = 1000
"""All pairs are compared, and the features of all clips kept in memory meanwhile, in float32: of
GLCM with 32 frames of 14 x 14 places some 6 MB a clip."""
DIRECTIONS = ("a2v", "v2a")
CLASS_AUC = "class_auc"
Floats = npt.NDArray[np.float64]


def predict(job: Job) -> Predictions:
    """Compare every sound with all pictures.

    Raises:
        UsageError: the method has no such scores, too few or too many clips, settings without a
            meaning here.
    """
    _check(job)
    encoders = job.encoders()
    encoders.module.eval()
    sums = {kind: np.zeros((len(job.test),) * 2) for kind in KINDS}
    for looks in windows(job.scored(job.test), job.settings.clips):
        embedded = embed(encoders, job.read(job.test, job.in_batches(looks)), job.autocast())
        for kind, scores in match(encoders, embedded, job.device).items():
            sums[kind] += scores
    labels = labels_of(job)
    classes = np.array([of[0] if of else -1 for of in labels], np.int64)
    numbers = {
        name: values for kind in KINDS for name, values in measured(kind, sums[kind], classes)
    }
    return Predictions.of_numbers(job, numbers, notes(job, labels))


def _check(job: Job) -> None:
    settings, clips = job.settings, len(job.test)
    if settings.modality != "V+A" or settings.crops != 1 or settings.clips < 1 or not job.window:
        raise UsageError("sound is compared with pictures, window by window: leave --modality, "
                         "--crops and --frames as they are, and --clips at 1 or more")  # fmt: skip
    if not 2 <= clips <= MOST_CLIPS:
        hint = f": --limit {MOST_CLIPS} takes so many" if clips > MOST_CLIPS else ""
        raise UsageError(f"{clips} clips in the split; expected 2 to {MOST_CLIPS:,}, as all pairs "
                         f"are compared{hint}")  # fmt: skip


def windows(looks: Sequence[Look], count: int) -> Iterator[list[Look]]:
    """A window of every clip, another one of every clip, ...; the last again of clips with fewer.

    Args:
        looks: of one clip after the other.
        count: windows of a clip.
    """
    of_clips = [list(of) for _, of in groupby(looks, key=lambda look: look.example)]
    for number in range(count):
        yield [of[min(number, len(of) - 1)] for of in of_clips]


def notes(job: Job, labels: list[list[int]]) -> list[str]:
    """Chance, and what a reader must know of the clips."""
    count = len(job.test)
    said = [f"{count} clips, windows of {job.window / job.labelled.fps:g} s; chance: R@K "
            f"K/{count}, class_auc 0.5"]  # fmt: skip
    if short := sum(example.frames < job.window for example in job.test):
        said.append(f"{short} clips are shorter than the window and repeated in it, pictures and "
                    "sound alike, which may tell clips apart")  # fmt: skip
    if several := sum(len(of) > 1 for of in labels):
        said.append(f"{several} clips have several labels, of which class_auc takes the first")
    return said


def labels_of(job: Job) -> list[list[int]]:
    """Of each test clip."""
    table = job.labelled.manifest.select(["key", "labels"]).to_pylist()
    known = {row["key"]: row["labels"] or [] for row in table}
    return [known[example.name] for example in job.test]


def measured(
    kind: str, scores: Floats, classes: npt.NDArray[np.int64]
) -> Iterator[tuple[str, list[float]]]:
    """What is known of each clip.

    Args:
        kind: of the score.
        scores: (N, N), sounds by pictures.
        classes: (N,), -1 where unknown.

    Yields:
        Name and one value a clip: `a2v_rank:KIND`, `v2a_rank:KIND` (1 is first), and
        `class_auc:KIND`, the mean of both directions, NaN where there is none.
    """
    both = dict(zip(DIRECTIONS, (scores, scores.T), strict=True))
    for direction, queries in both.items():
        yield f"{direction}_rank:{kind}", ranks_of_own(queries).astype(float).tolist()
    aucs = [auc_of_class(queries, classes) for queries in both.values()]
    yield f"{CLASS_AUC}:{kind}", np.mean(aucs, axis=0).tolist()


def measure(predictions: Predictions) -> list[Score]:
    """R@K of both scores and directions, and what is known of classes; intervals by clip."""
    numbers = {name: np.array(values) for name, values in predictions.numbers.items()}
    found = [
        average(f"{direction}_r{k}:{kind}", numbers[f"{direction}_rank:{kind}"] <= k)
        for kind in reversed(KINDS)
        for direction in DIRECTIONS
        for k in RECALLS
        if k < len(predictions.names)
    ]
    names = [f"{CLASS_AUC}:{kind}" for kind in KINDS]
    return found + [
        average(name, numbers[name]) for name in names if np.isfinite(numbers[name]).any()
    ]


AV_RETRIEVAL = Task(
    name="av_retrieval",
    about="does a sound find its own pictures among all clips', and those of its class: R@K, AUC",
    dataset="demo",
    profile="glcm",
    obtain="make demo, or name other shards with held-out clips (SHARDS=path)",
    rounds=(Round("val", ("val",)),),
    settings=Settings(protocol="frozen", modality="V+A", clips=1),
    predict=predict,
    measure=measure,
    examples=any_clips,
    protocols=("frozen",),
)
