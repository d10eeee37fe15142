"""Anybody's labelled shards: classify (fine-tuning, linear, SVM, kNN) and retrieve.

A set with the splits train and test (or val) is scored on the latter; one without is cut into five
parts of whole groups (source videos), each scored by the other four. Rows that became no sample
are in no part.
"""

import logging

from train.errors import UsageError
from train.evaluation.classify import accuracy, classify
from train.evaluation.labelled import LabelledSet
from train.evaluation.retrieval import recall, retrieve
from train.evaluation.task import Round, Settings, Task

log = logging.getLogger(__name__)
PARTS = 5
OBTAIN = "Make one with `make shards DATASET=folder ROOT=...`: first sub-folder = label"


def rounds(labelled: LabelledSet) -> tuple[Round, ...]:
    """Train against test where there are such splits, else five parts."""
    known = {name.rpartition(":")[2] for name in labelled.split_names()}
    if not labelled.classes:
        raise UsageError(f"{labelled.shard_set.name} names no classes; its clips have no labels")
    if "train" in known and known & {"test", "val"}:
        test = "test" if "test" in known else "val"
        val = ("val",) if test == "test" and "val" in known else ()
        return (Round(test, (test,), ("train",), val),)
    count = min(PARTS, len(labelled.groups))
    if count < 2:
        one = ", ".join(labelled.groups) or "none"
        raise UsageError(f"the samples of {labelled.shard_set.name} are of one source or none "
                         f"({one}), so none can be held out; add others")  # fmt: skip
    if lost := labelled.manifest.num_rows - len(labelled.row_of):
        log.warning("%d of the %d clips of %s are no samples, and in no part; `python -m pipeline "
                    "errors %s` says why", lost, labelled.manifest.num_rows,
                    labelled.shard_set.name, labelled.shard_set.store)  # fmt: skip
    parts = [f"part{number}of{count}" for number in range(1, count + 1)]
    return tuple(
        Round(part, (part,), tuple(other for other in parts if other != part)) for part in parts
    )


CLASSIFY = Task(
    name="classify",
    about="any labelled shards: fine-tuning, linear, SVM, kNN; top-1",
    dataset="",
    profile="glcm",
    obtain=OBTAIN,
    rounds=rounds,
    settings=Settings(protocol="linear", modality="V", clips=3, train_clips=3),
    predict=classify,
    measure=accuracy,
)

RETRIEVE = Task(
    name="retrieve",
    about="any labelled shards: which of the nearest clips are of the same class, R@k",
    dataset="",
    profile="glcm",
    obtain=OBTAIN,
    rounds=rounds,
    settings=Settings(protocol="frozen", modality="V", clips=3, train_clips=3),
    predict=retrieve,
    measure=recall,
    protocols=("frozen",),
)
