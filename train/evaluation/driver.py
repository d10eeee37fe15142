"""One evaluation from flags to result.json; rounds that are done are not done again."""

import fcntl
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stores import open_store
from train.checkpoint import git_state, write_atomically
from train.config import RUNS
from train.cores import limit_threads
from train.cuts import reads_of
from train.errors import LockedError, UsageError
from train.evaluation.caveats import caveats, in_view, silent
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import Encoders, from_scratch, load_checkpoint
from train.evaluation.job import members_of
from train.evaluation.labelled import LabelledSet, open_labelled, require_whole, with_stored
from train.evaluation.result import (
    ATTENTION_PICTURES,
    EVALUATIONS,
    RESULT,
    Predictions,
    draw_confusion,
)
from train.evaluation.rounds import CARRIED_OUT, carry_out, seconds_of
from train.evaluation.task import Round, Task
from train.livepage import LivePage
from train.metrics import Score, mean_over
from train.tasks import task_named

log = logging.getLogger(__name__)

USUAL_PROFILE = "glcm"
"""The profile of tasks that need no crops, nor sound alone; methods may bring another one."""
NAMING = ("protocol", "modality", "pictures", "features", "pooling", "layer", "cells",
          "cell_pool", "context", "boxes")  # fmt: skip
"""Settings that stand in the name of a result's folder where they are not the task's own."""


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Carry out an evaluation, or what of it is not done yet.

    Returns:
        The content of result.json.

    Raises:
        UsageError: unknown task, no shards, an incomplete test split, unfitting encoders.
        LockedError: another process writes the same result.
    """
    task = task_named(config.task).with_settings(**config.changes)
    source = _encoders_or_why(config)
    labelled = open_labelled(open_store(_shards(task, config, source)))
    task = task.for_set(labelled)
    task = task.on_split(config.split) if config.split else task
    limit_threads(config.threads)
    if isinstance(source, UsageError):
        raise source
    labelled = with_stored(labelled, members_of(task, source))
    labelled = labelled.seen_through(config.view())
    folder = _folder(config, task, source, labelled)
    rounds = task.rounds_named(config.rounds)
    expected = {one.name: require_whole(labelled, one.test, config.allow_missing) for one in rounds}
    with _locked(folder):
        _tell_replaced(folder, config, task, labelled, source)
        done = [carry_out(config, task, labelled, source, folder, one) for one in rounds]
        result = _result(config, task, labelled, source, rounds, done, expected)
        result["name"] = folder.name
        result["seconds"] = round(sum(seconds_of(folder / one.name) for one in rounds), 1)
        result["confusion"] = draw_confusion(folder / "confusion.png", [p for p, _ in done])
        write_atomically(folder / RESULT, json.dumps(result, indent=1) + "\n")
    page = LivePage(folder.parent.parent)
    if page.exists and any(folder.glob(ATTENTION_PICTURES)):
        page.write()  # with the attention maps in it
    log.info("%s", folder / RESULT)
    return result


def told(result: dict[str, Any]) -> str:
    """A result in lines for people."""
    rounds = result["rounds"]
    lines = [
        f"{result['task']}, {result['protocol']}, "
        + (f"mean of {', '.join(one['name'] for one in rounds)}" if len(rounds) > 1
           else rounds[0]["name"])
        + f": {result['n_scored']:,} of {result['n_expected']:,} clips scored"
    ]  # fmt: skip
    for metric in result["metrics"]:
        interval = (
            f" [{metric['low']:.4f}, {metric['high']:.4f}]" if metric["low"] is not None else ""
        )
        lines.append(f"  {metric['name']:<22} {metric['value']:.4f}{interval}")
    lines += [f"  note: {note}" for note in result["notes"]]
    return "\n".join(lines)


# --- where things are ---------------------------------------------------------------------------


def _shards(task: Task, config: EvalConfig, source: Encoders | UsageError) -> str:
    """The task's shard set, of the profile that the encoders' method wants.

    Raises:
        UsageError: it is not where it would be; says how to get it.
    """
    if config.shards:
        return config.shards
    if not task.dataset:
        raise UsageError(f"task {task.name} reads any labelled shard set; name it: SHARDS=path. "
                         f"{task.obtain}")  # fmt: skip
    profile = task.profile
    if isinstance(source, Encoders) and profile == USUAL_PROFILE:
        profile = reads_of(source.config).profile
    wish = "" if profile == task.profile else f" PROFILE={profile}"
    path = config.data / "shards" / f"{task.dataset}-{profile}"
    if path.is_dir():
        return str(path)
    raw = config.data / "raw" / task.dataset
    raise UsageError(
        f"task {task.name} reads {path}, which is not there.\n"
        f"  1. {task.obtain}; put it into {raw}\n"
        f"  2. make shards DATASET={task.dataset} ROOT={raw}{wish}\n"
        f"  3. make eval TASK={task.name}\n"
        "Shards that lie elsewhere: SHARDS=path"
    )


def _encoders_or_why(config: EvalConfig) -> Encoders | UsageError:
    """The encoders, or why there are none: who has no data either wants to hear of that first."""
    try:
        return _encoders(config)
    except UsageError as error:
        return error


def _encoders(config: EvalConfig) -> Encoders:
    if config.scratch:
        return from_scratch(config.method, config.preset, config.seed)
    path = config.checkpoint or newest_finished_run()
    source = load_checkpoint(path)
    assert source.origin is not None
    why = "" if config.checkpoint else "; the newest finished run's, as none was named"
    log.info("checkpoint %s (%s, %s, step %d%s)", source.origin["path"], source.method,
             source.preset, source.origin["step"], why)  # fmt: skip
    return source


def newest_finished_run() -> Path:
    """What is evaluated when nobody names a checkpoint.

    Raises:
        UsageError: no run is finished, or several are being trained now.
    """
    active = [path.parent for path in RUNS.glob("*/lock") if _is_locked(path)]
    if len(active) > 1:
        names = ", ".join(sorted(map(str, active)))
        raise UsageError(f"several runs are being trained ({names}); say which one is evaluated: "
                         "CHECKPOINT=runs/NAME")  # fmt: skip
    finished = sorted(RUNS.glob("*/finished.json"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UsageError(
            f"no run below {RUNS}/ has finished. Train one (`make pretrain`), name a checkpoint "
            "(CHECKPOINT=runs/NAME), or see what labels alone can teach: ARGS=--scratch"
        )
    return finished[-1].parent


def _is_locked(path: Path) -> bool:
    with path.open("a") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def _run_folder(config: EvalConfig, source: Encoders) -> Path:
    if config.run:
        return Path(config.run) if "/" in config.run else RUNS / config.run
    if source.origin is None:
        return RUNS / f"scratch-{source.preset}"
    file = Path(source.origin["path"])
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def _folder(config: EvalConfig, task: Task, source: Encoders, labelled: LabelledSet) -> Path:
    """RUN/eval/NAME; a set of other data than the task's own stands in the name, too."""
    usual = task_named(task.name).settings
    pairs = [(getattr(task.settings, name), getattr(usual, name)) for name in NAMING]
    other = [
        "x".join(map(str, ours)) if isinstance(ours, tuple) else str(ours)
        for ours, theirs in pairs
        if ours != theirs
    ]
    tuned = task.settings.protocol == "finetune" and config.lr_encoder is not None
    rate = [f"lr_encoder{config.lr_encoder:g}"] if tuned else []
    split = [config.split.replace(":", "-")] if config.split else []
    few = [] if config.labels is None else [f"labels{config.labels}"]
    strange = config.shards and labelled.dataset and labelled.dataset != task.dataset
    data = [Path(config.shards).name] if strange else []
    name = config.name or "-".join([task.name, *other, *few, *rate, *split, *data])
    return _run_folder(config, source) / EVALUATIONS / name


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockedError(f"another process writes {folder}; give another --name") from error
        yield


def _tell_replaced(
    folder: Path, config: EvalConfig, task: Task, labelled: LabelledSet, source: Encoders
) -> None:
    """Say that a result of something else is going to be replaced: not all stands in the name."""
    try:
        old = json.loads((folder / RESULT).read_bytes())
        known = {**old["config"], **old["settings"], "shards": old["shards"]["index_sha256"],
                 "checkpoint": (old["checkpoint"] or {}).get("sha256")}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return
    ours = {**config.as_dict(), **task.settings.as_dict()}
    for name in CARRIED_OUT:
        ours.pop(name, None)
    ours |= {"shards": labelled.index_sha256, "checkpoint": (source.origin or {}).get("sha256")}
    other = sorted(name for name in ours if name in known and known[name] != ours[name])
    if other:
        log.warning("the result in %s is of another %s and is going to be replaced; --name NAME "
                    "keeps both", folder, ", ".join(other))  # fmt: skip


# --- the result ---------------------------------------------------------------------------------


def _result(
    config: EvalConfig, task: Task, labelled: LabelledSet, source: Encoders,
    rounds: Sequence[Round], done: list[tuple[Predictions, list[Score]]], expected: dict[str, int],
) -> dict[str, Any]:  # fmt: skip
    missing = {key: reason for one in rounds for key, reason in labelled.missing(one.test).items()}
    names = [name for predictions, _ in done for name in predictions.names]
    metrics = _means([scores for _, scores in done], disjoint=len(set(names)) == len(names))
    planned = sum(expected.values())
    scored = in_view(labelled, rounds)
    if config.limit is not None:
        scored = sum(len(predictions.names) for predictions, _ in done)
    return {
        "task": task.name,
        "dataset": labelled.dataset or task.dataset,
        "protocol": task.settings.protocol,
        "metric": metrics[0].as_json(),
        "metrics": [score.as_json() for score in metrics],
        "rounds": [
            {"name": one.name, "n": len(p.names), "metrics": [s.as_json() for s in scores],
             "history": p.history}
            for one, (p, scores) in zip(rounds, done, strict=True)
        ],
        "n_scored": scored,
        "n_expected": planned,
        "coverage": scored / planned,
        "missing": dict(sorted(missing.items())),
        "faceless": sum(sum(p.faceless) for p, _ in done),
        "silent": silent(task, labelled, rounds),
        "splits": [name for one in rounds for name in one.test],
        "settings": task.settings.as_dict(),
        "config": config.as_dict(),
        "model": {"method": source.method, "preset": source.preset},
        "checkpoint": source.origin,
        "shards": {
            "path": str(labelled.shard_set.store),
            "name": labelled.shard_set.name,
            "index_sha256": labelled.index_sha256,
        },
        "notes": [*task.notes, *dict.fromkeys(note for p, _ in done for note in p.notes),
                  *caveats(config, task, labelled, source, rounds,
                           [predictions for predictions, _ in done], expected)],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_state()["commit"],
    }  # fmt: skip


def _means(rounds: Sequence[list[Score]], disjoint: bool) -> list[Score]:
    """Each metric that all rounds have, over them: a small gallery has no R@50, say."""
    named = [{score.name: score for score in scores} for scores in rounds]
    return [
        mean_over([scores[name] for scores in named], disjoint=disjoint)
        for name in named[0]
        if all(name in scores for scores in named)
    ]
