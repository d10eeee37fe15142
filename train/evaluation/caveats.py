"""What keeps a number from being the benchmark's, in sentences that stand in result.json."""

import logging
from collections.abc import Sequence

import pyarrow as pa

from stores import open_store
from train.errors import FOR_PEOPLE
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import Encoders
from train.evaluation.labelled import LabelledSet
from train.evaluation.result import Predictions
from train.evaluation.task import Round, Task
from train.index import open_shards

log = logging.getLogger(__name__)

FACELESS = {"centre": "scored by the middle of their frames",
            "unknown": "scored the same for all classes (of two: 0.5)"}  # fmt: skip


def there(labelled: LabelledSet, rounds: Sequence[Round]) -> int:
    """Test clips that are samples, over all rounds."""
    return sum(len(_rows(labelled, one.test)) for one in rounds)


def in_view(labelled: LabelledSet, rounds: Sequence[Round]) -> int:
    """Those of them that --where and --without let pass."""
    return sum(labelled.shows(row) for one in rounds for row in _rows(labelled, one.test))


def _rows(labelled: LabelledSet, splits: Sequence[str]) -> list[int]:
    rows = (labelled.row_of.get(planned["key"]) for planned in labelled.planned(splits))
    return [row for row in rows if row is not None]


def caveats(
    config: EvalConfig, task: Task, labelled: LabelledSet, source: Encoders,
    rounds: Sequence[Round], done: Sequence[Predictions], expected: dict[str, int],
) -> list[str]:  # fmt: skip
    """What keeps the number from being the benchmark's."""
    notes = []
    lacking = sum(expected.values()) - there(labelled, rounds)
    if lacking:
        notes.append(f"--allow-missing: {lacking} test clips are not there and not scored")
    for one in rounds:
        present = [row["key"] in labelled.row_of for row in labelled.planned(one.train)]
        if absent := present.count(False):
            notes.append(f"{one.name}: {absent:,} of {len(present):,} training clips are not there")
    if view := config.view():
        samples = there(labelled, rounds)
        left_out = samples - in_view(labelled, rounds)
        rest = ": no number of the benchmark" if left_out else ""
        notes.append(f"{view} leaves out {left_out:,} of the {samples:,} test clips that are "
                     f"there{rest}")  # fmt: skip
    if config.limit is not None:
        notes.append(f"--limit {config.limit}: not all examples were trained on and scored")
    if config.labels is not None:
        notes.append(f"--labels {config.labels}: learned from, and where the task has validation "
                     "examples chosen by, at most so many examples of a class")  # fmt: skip
    if len(rounds) < len(task.all_rounds):
        notes.append(f"only {', '.join(one.name for one in rounds)} of the {len(task.all_rounds)} "
                     "rounds of the protocol")  # fmt: skip
    if not labelled.shard_set.complete:
        notes.append(f"{labelled.shard_set.name} is not finished: its index is partial")
    faceless = sum(sum(p.faceless) for p in done)
    if faceless:
        notes.append(f"{faceless} clips without a face were {FACELESS[task.faceless]}")
    notes += [one.note for one in labelled.shard_set.fields.values() if one.note]
    if mute := silent(task, labelled, rounds):
        notes.append(f"{mute} test clips have no sound, or nothing to hear in it; they are "
                     "scored with that silence")  # fmt: skip
    if task.settings.pooling == "full_attention" and "A" not in task.settings.modality:
        notes.append("the sound of each clip chose where in the picture to look, and is not a "
                     "feature itself")  # fmt: skip
    notes += _leaks(labelled, rounds) + _known_before(labelled, rounds, source)
    return notes


def silent(task: Task, labelled: LabelledSet, rounds: Sequence[Round]) -> int:
    """Test clips without sound, over all rounds; 0 where none is listened to."""
    if not task.settings.uses_sound or not labelled.silent:
        return 0
    return sum(
        row["key"] in labelled.silent for one in rounds for row in labelled.planned(one.test)
    )


def _leaks(labelled: LabelledSet, rounds: Sequence[Round]) -> list[str]:
    """Groups (speakers, source videos) that are trained on and scored."""
    found = []
    for one in rounds:
        if not one.train:
            continue
        trained, tested = (
            {row["group_id"] for row in labelled.planned(names)} - {None, ""}
            for names in (one.train, one.test)
        )
        if both := len(trained & tested):
            found.append(f"{one.name}: {both} of {len(tested)} groups of the test split (speakers, "
                         "source videos) are trained on, too")  # fmt: skip
    return found


def _known_before(labelled: LabelledSet, rounds: Sequence[Round], source: Encoders) -> list[str]:
    """Test clips that the checkpoint was pretrained on, as far as its shards are still there."""
    tested = {row["key"] for one in rounds for row in labelled.planned(one.test)}
    seen: set[str] = set()
    for told in str((source.origin or {}).get("shards") or "").split(","):
        path = told.strip().partition("@")[0]
        if not path:
            continue
        try:
            trained = open_shards(open_store(path))
            rows = trained.in_split("train")
        except FOR_PEOPLE as error:
            log.info("whether the checkpoint was pretrained on test clips is not known: %s", error)
            continue
        seen |= tested & set(trained.keys.take(pa.array(rows)).to_pylist())
    if not seen:
        return []
    return [f"{len(seen):,} of {len(tested):,} test clips are in the shards that the checkpoint "
            "was pretrained on, without their labels"]  # fmt: skip
