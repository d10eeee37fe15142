"""Fingerprinting: is a manipulated clip's original the nearest of all clean ones? (Jenni et al.)

Queries are AugVGG's four sets: manipulated in place (IP), in space (S), in time (T), and combined
(C); the gallery is the clean VGG-Sound test set. Sound and pictures are frozen features side by
side. The paper publishes neither its recipes nor its distance, so numbers are comparable among
users of this program only.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from stores import open_store
from train.errors import UsageError
from train.evaluation.config import EvalConfig
from train.evaluation.frozen import test_features
from train.evaluation.job import Job
from train.evaluation.labelled import Example, LabelledSet, open_labelled
from train.evaluation.result import Predictions
from train.evaluation.retrieval import nearest_of, predictions_of, recall
from train.evaluation.task import Round, Settings, Task
from train.metrics import Score

REFERENCE = "vggsound-glcm"
HELD_OUT = ("test", "val")
"""Splits that are the gallery, the first one there is; else all clips."""


def examples(labelled: LabelledSet, splits: Sequence[str], _settings: Settings) -> list[Example]:
    """Queries, whose target is the key of their original."""
    found = []
    for planned in labelled.planned(splits):
        row = labelled.row_of.get(planned["key"])
        reference = json.loads(planned["extra"] or "{}").get("reference_key")
        if reference is None:
            raise UsageError(
                f"{planned['key']} of {labelled.shard_set.name} names no original; the shards of "
                "the queries are made with `make shards DATASET=augvgg`"
            )
        if row is not None:
            found.append(labelled.whole(planned, row, reference))
    return found


def look_up(job: Job) -> Predictions:
    """For each query the keys of the nearest clean clips, nearest first."""
    (path,) = gallery_of(job.config)
    clean = gallery(open_labelled(open_store(path)))
    _require_originals(job, clean[1], path)
    shelf = replace(job, labelled=clean[0], test=clean[1], train_pool=[], test_pool=clean[1])
    queries = test_features(job, job.test)
    nearest = nearest_of(job, test_features(shelf, clean[1]), queries)
    names = [example.name for example in clean[1]]
    said = [[names[place] for place in row] for row in nearest.tolist()]
    found = predictions_of(job, said, queries)
    return replace(found, notes=[f"the gallery is {len(names):,} clips of {path}"])


def gallery_of(config: EvalConfig) -> tuple[str, ...]:
    """The shards of the clean clips."""
    return (config.gallery or str(config.data / "shards" / REFERENCE),)


def gallery(labelled: LabelledSet) -> tuple[LabelledSet, list[Example]]:
    """The held-out clips of the clean set, or all of one without splits."""
    known = {name.rpartition(":")[2] for name in labelled.split_names()}
    split = next((name for name in HELD_OUT if name in known), None)
    wanted = None if split is None else {row["key"] for row in labelled.planned((split,))}
    return labelled, [
        Example(key, row, key, key, 0, int(labelled.shard_set.frames[row]))
        for key, row in labelled.row_of.items()
        if wanted is None or key in wanted
    ]


def _require_originals(job: Job, clean: list[Example], path: str) -> None:
    """Refuse queries that nobody could find."""
    known = {example.name for example in clean}
    lost = [example.name for example in job.test if example.target not in known]
    if lost and not job.config.allow_missing:
        raise UsageError(
            f"the originals of {len(lost)} of {len(job.test)} queries, such as {lost[0]}, are not "
            f"in the gallery {path}; name the shards they were made from with --gallery, or count "
            "them as not found with --allow-missing"
        )


def measure(predictions: Predictions) -> list[Score]:
    """R@k of the clip itself."""
    return [replace(score, name=f"instance_{score.name}") for score in recall(predictions)]


FINGERPRINT = Task(
    name="fingerprint",
    about="AugVGG IP, S, T, C: manipulated clips among the clean ones, R@k",
    dataset="augvgg",
    profile="glcm",
    obtain="fetch VGG-Sound's test clips, make their shards (make shards DATASET=vggsound) and "
    "those of the manipulated ones from the same folder",
    rounds=tuple(Round(name, (f"augvgg:{name}",)) for name in ("IP", "S", "T", "C")),
    settings=Settings(protocol="frozen", modality="V+A", frames=32, clips=3, train_clips=3),
    predict=look_up,
    measure=measure,
    examples=examples,
    also_reads=gallery_of,
    protocols=("frozen",),
    notes=("the recipes are this program's own: the paper publishes none",),
)
