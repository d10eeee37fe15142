"""The rounds of an evaluation: examples -> predictions and their scores, kept in a folder each.

A round whose key is the stored one was done with the same inputs, and is not done again.
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stores import open_store
from train.checkpoint import write_atomically
from train.dist import choose_device
from train.errors import IncompleteError, UsageError
from train.evaluation.clips import require_members
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import Encoders
from train.evaluation.finetune import STATE
from train.evaluation.job import Job
from train.evaluation.labelled import (
    Example,
    LabelledSet,
    few_of_each,
    held_out_groups,
    open_labelled,
)
from train.evaluation.mistakes import draw_mistakes
from train.evaluation.result import MISTAKES, PREDICTIONS, ROUND, Predictions
from train.evaluation.task import Round, Task
from train.loader import default_workers
from train.metrics import Score
from train.plan import shuffled

log = logging.getLogger(__name__)

CARRIED_OUT = ("checkpoint", "run", "name", "rounds", "allow_missing", "overwrite", "device",
               "threads", "workers", "data", "shards", "keep_model")  # fmt: skip
"""Fields that say how, not what: a round is not done again for another value of them."""
OPTIONAL = ("where", "without", "labels")
"""Fields that say something only where they are given: rounds from before they were there count."""


def carry_out(
    config: EvalConfig, task: Task, labelled: LabelledSet, source: Encoders, folder: Path,
    one: Round,
) -> tuple[Predictions, list[Score]]:  # fmt: skip
    """Train and score, or read what was scored before with the same inputs.

    Raises:
        UsageError, IncompleteError: there is nothing to train on, or nothing to score.
    """
    job = job_of(config, task, labelled, source, folder, one)
    key, started = _key(job), time.monotonic()
    stored = job.folder / ROUND
    if not config.overwrite and _stored_key(stored) == key:
        log.info("%s: done before (`eval --overwrite` does it again)", one.name)
        predictions = Predictions.read(job.folder / PREDICTIONS)
        seconds = seconds_of(job.folder)
    else:
        if _stored_key(job.folder / "key.json") != key or config.overwrite:
            (job.folder / STATE).unlink(missing_ok=True)  # of another training
        write_atomically(job.folder / "key.json", json.dumps({"key": key}) + "\n")
        log.info("%s: %d to train on, %d to choose by, %d to score", one.name, len(job.train),
                 len(job.val), len(job.test))  # fmt: skip
        predictions = task.predict(job)
        predictions.write(job.folder / PREDICTIONS)
        draw_mistakes(folder / MISTAKES.replace("*", one.name), job, predictions)
        (job.folder / STATE).unlink(missing_ok=True)
        seconds = time.monotonic() - started
    scores = task.measure(predictions)
    facts = {
        "key": key,
        "round": asdict(one),
        "metrics": [score.as_json() for score in scores],
        "seconds": seconds,
    }
    write_atomically(stored, json.dumps(facts, indent=1) + "\n")
    log.info("%s: %s %.4f", one.name, scores[0].name, scores[0].value)
    return predictions, scores


def seconds_of(folder: Path) -> float:
    """How long a round that is done took; 0 where nothing says so."""
    path = folder / ROUND
    return float(json.loads(path.read_bytes()).get("seconds", 0)) if path.is_file() else 0.0


def job_of(
    config: EvalConfig, task: Task, labelled: LabelledSet, source: Encoders, folder: Path,
    one: Round,
) -> Job:  # fmt: skip
    if config.labels is not None and not one.train:
        raise UsageError(f"--labels {config.labels}: the task {task.name} learns from none")
    train, val, test = (
        _examples(config, task, labelled, names) for names in (one.train, one.val, one.test)
    )
    if not test:
        if config.view():
            raise UsageError(f"{one.name}: {config.view()} lets none of its test clips pass")
        raise IncompleteError(f"{one.name}: none of its test clips is a sample")
    if one.train and not train:
        through = f" that {config.view()} lets pass" if config.view() else ""
        raise UsageError(
            f"{one.name}: no clip of {', '.join(one.train)} is there to train on{through}"
        )
    if config.labels is not None:
        train, val = (few_of_each(part, config.labels, config.seed) for part in (train, val))
    if not val and task.settings.protocol == "finetune" and task.settings.validation:
        train, val = held_out_groups(train, task.settings.validation, config.seed)
    round_folder = folder / one.name
    round_folder.mkdir(parents=True, exist_ok=True)
    train_pool, test_pool = (
        _pool(config, task, labelled, parts)
        for parts in ([r.train for r in task.all_rounds],
                      [splits for r in task.all_rounds for splits in (r.val, r.test)])
    )  # fmt: skip
    job = Job(
        task=task, config=config, round=one, labelled=labelled, train=train, val=val, test=test,
        classes=task.classes or labelled.classes, source=source, train_pool=train_pool,
        test_pool=test_pool, folder=round_folder, frozen=folder.parent / "features",
        device=choose_device(config.device, 0),
        workers=default_workers(1) if config.workers is None else config.workers,
    )  # fmt: skip
    require_members(labelled.shard_set, job.view, task.name)
    _require_known_classes(job)
    return job


def _examples(
    config: EvalConfig, task: Task, labelled: LabelledSet, names: Sequence[str]
) -> list[Example]:
    """Of the splits together, those in the view."""
    if task.examples is None:
        found = labelled.examples(names)
    else:
        found = task.examples(labelled, names, task.settings)
    return _limited([example for example in found if labelled.shows(example.row)], config.limit)


def _pool(
    config: EvalConfig, task: Task, labelled: LabelledSet, parts: Sequence[tuple[str, ...]]
) -> list[Example]:
    """What any round may ask frozen features of, each once."""
    unique = {
        example.name: example
        for splits in dict.fromkeys(parts)
        for example in _examples(config, task, labelled, splits)
    }
    return [unique[name] for name in sorted(unique)]


def _limited(examples: list[Example], limit: int | None) -> list[Example]:
    """At most so many, of all kinds: in an order that does not depend on names."""
    if limit is None or len(examples) <= limit:
        return examples
    return [examples[place] for place in sorted(shuffled(len(examples), 0)[:limit].tolist())]


def _require_known_classes(job: Job) -> None:
    for example in (*job.train, *job.val, *job.test):
        if isinstance(example.target, int) and not 0 <= example.target < len(job.classes):
            raise UsageError(
                f"{example.name} has the class {example.target}; expected 0 to "
                f"{len(job.classes) - 1}, as {job.labelled.shard_set.name} names "
                f"{len(job.classes)} classes"
            )


def _key(job: Job) -> str:
    """Changes with whatever the predictions depend on."""
    config = {
        name: value for name, value in job.config.as_dict().items()
        if name not in CARRIED_OUT and not (name in OPTIONAL and value is None)
    }  # fmt: skip
    facts = {
        "config": config,
        "settings": job.settings.as_dict(),
        "round": asdict(job.round),
        "classes": job.classes,
        "checkpoint": job.source.origin["sha256"] if job.source.origin else None,
        "model": asdict(job.source.config),
        "shards": job.labelled.index_sha256,
        "examples": [list(part) for part in (job.train, job.val, job.test)],
    }
    if job.task.also_reads:
        others = [open_labelled(open_store(path)) for path in job.task.also_reads(job.config)]
        facts["also"] = [one.index_sha256 for one in others]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _stored_key(path: Path) -> str | None:
    try:
        key = json.loads(path.read_bytes())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(key)
