"""What a study would do, and about how long that takes: told before it begins."""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores import open_store
from train.config import PretrainConfig
from train.describe import example_batch
from train.dist import choose_device
from train.errors import UsageError
from train.evaluation.labelled import open_labelled, require_whole
from train.index import INDEX_NAME
from train.session import FINISHED
from train.studies.catalogue import CORPORA, LOOKS, Corpus, Row, task_of
from train.studies.config import StudyConfig
from train.tasks import task_named

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

TIMED_STEPS = 2
TIMED_CLIPS = 4
"""Of a step on a CPU, which takes as much longer as it has more of them; a GPU gets a whole one."""
Run = PretrainConfig[Any]
Plan = tuple[StudyConfig, Sequence[tuple[Row, Run | None]]]


def require_shards(corpora: Mapping[str, Corpus]) -> None:
    """All of them are there; of stores that is found out when they are opened.

    Raises:
        UsageError: one is not; says what makes it.
    """
    for name, corpus in corpora.items():
        for path in (corpus.shards, corpus.task_shards):
            if "://" not in path and not (Path(path) / INDEX_NAME).is_file():
                own = path in (CORPORA[name].shards, CORPORA[name].task_shards)
                how = f"`{corpus.make}` makes them, " * own
                uses = "train on" if path == corpus.shards else "score"
                raise UsageError(f"the corpus {name} has no shards to {uses} in {path}: {how}"
                                 "--shards (to train on) and --task-shards (to score) name others"
                                 )  # fmt: skip


def require_splits(config: StudyConfig, corpora: Mapping[str, Corpus]) -> None:
    """Every task's test clips are there: no training is to be done in vain.

    Raises:
        UsageError: a split has no clip, or, unless that is allowed, not all of them.
    """
    for name, corpus in corpora.items():
        labelled = open_labelled(open_store(corpus.task_shards))
        for task in dict.fromkeys(task_of(column)[0] for column in config.tasks_of(name)):
            known, split = task_named(task).for_set(labelled), LOOKS.get(task, {}).get("split")
            known = known.on_split(split) if split else known
            for one in known.rounds_named(config.rounds):
                try:
                    require_whole(labelled, one.test, config.allow_missing)
                except UsageError as error:
                    raise UsageError(f"the task {task} of {name}: {error}") from error


def tell_plans(plans: Sequence[Plan], deadline: float | None) -> None:
    """Say what is going to be done, and about how long the trainings take.

    Args:
        plans: of each study its config, and each row of each seed and corpus with its run if it
            has one; with the config's `plan` every row is named.
        deadline: by the monotonic clock; the estimate is given up there.
    """
    waiting: dict[str, Run] = {}
    for config, rows in plans:
        new = {run.run: run for _, run in rows if run is not None and _is_waiting(run)}
        _tell_study(config, new.values(), len(new.keys() & waiting.keys()))
        if config.plan:
            _tell_rows(rows, waiting.keys())
        waiting |= new
    if len(plans) > 1:
        log.info("all %d studies: %s to train", len(plans), _count(len(waiting), "run"))
    if waiting:
        _tell_minutes(plans[0][0], list(waiting.values()), deadline)


def _is_waiting(run: Run) -> bool:
    return not (run.folder / FINISHED).is_file()


def _tell_study(config: StudyConfig, runs: Collection[Run], shared: int) -> None:
    longer = sum((run.schedule_steps or 0) > (config.steps or 0) for run in runs)
    corpora = config.used_corpora()
    columns = [task for name in corpora for task in config.tasks_of(name)]
    counts = [sum(len(config.tasks_for(row, name)) for name in corpora) for row in config.rows]
    scored = [count for count in counts if count]
    few = sum(count < len(columns) for count in scored)
    log.info(
        "%s, %s: %s with %s, %s to train of %s steps of %s clips%s%s; then %s on %s",
        config.name, config.of.about, _count(len(scored), "row"), _seeds(config),
        _count(len(runs), "run"), config.steps, config.batch_size,
        f", {longer} of them longer" * bool(longer),
        f", {shared} of them for studies above" * bool(shared), ", ".join(columns),
        f"the rows, fewer of these on {few}" if few else "every row",
    )  # fmt: skip


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _seeds(config: StudyConfig) -> str:
    first, last = config.all_seeds[0], config.all_seeds[-1]
    return f"the seed {last}" if first == last else f"the seeds {first} to {last}"


def _tell_rows(rows: Sequence[tuple[Row, Run | None]], above: Collection[str]) -> None:
    """Rows that share their runs on a line, and how many of these are to train.

    Args:
        rows: each with its run, if it has one.
        above: folders of runs that were counted with studies above.
    """
    labels: dict[str, dict[str, None]] = {}
    runs: dict[str, dict[str, Run]] = {}
    for row, run in rows:
        labels.setdefault(row.run, {})[row.label] = None
        runs.setdefault(row.run, {}).update({run.run: run} if run else {})
    for name, sharing in labels.items():
        log.info("  %s: %s", "; ".join(sharing), _waits(name, runs[name], above))


def _waits(name: str, runs: Mapping[str, Run], above: Collection[str]) -> str:
    """How many of the runs of one name, a seed each, are to train."""
    waiting = [folder for folder, run in runs.items() if _is_waiting(run)]
    if not runs:
        return "nothing to train"
    counted = waiting and all(folder in above for folder in waiting)
    told = ", counted above" if counted else ""
    return f"{name}, {len(waiting)} of {len(runs)} runs to train{told}"


def _tell_minutes(config: StudyConfig, runs: Sequence[Run], deadline: float | None) -> None:
    device = choose_device(config.device, 0)
    kinds = {(run.method, repr(run.model)): run for run in runs}
    log.info("timing %d steps of each of %s on %s", TIMED_STEPS,
             _count(len(kinds), "kind") + " of runs", device)  # fmt: skip
    spent = {}
    for kind, run in kinds.items():
        if deadline is not None and time.monotonic() >= deadline:
            log.info("the minutes are over before all were timed: no estimate")
            return
        spent[kind] = step_seconds(run, device)
    seconds = sum(spent[run.method, repr(run.model)] * (run.schedule_steps or 0) for run in runs)
    log.info("training them takes about %d min on this machine; evaluations come on top: once a "
             "row is done, the time left is told with them",
             ceil(seconds / 60))  # fmt: skip


def step_seconds(run: Run, device: "torch.device") -> float:
    """Seconds of a step of an empty batch, without reading; the best of two."""
    import torch

    from train.cuts import RunFacts
    from train.pretrain import build_model

    clips = min(run.clips_per_batch, TIMED_CLIPS) if device.type == "cpu" else run.clips_per_batch
    model: Any = build_model(run, device, RunFacts(1000, run.schedule_steps or 1, 100))
    with device:
        batch = example_batch(run.model, clips)
    for name in ("video", "mel", "wave"):
        if getattr(batch, name, None) is not None:
            getattr(batch, name).normal_()
    seconds = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, run.uses_bf16(device)):
            loss = model(batch)["loss"]
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds) * run.clips_per_batch / clips
