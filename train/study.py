"""`python -m train study NAME`: methods or settings, trained and evaluated alike, in one table.

    python -m train study table5 --corpora grid
    python -m train study table6 --steps 2000 --seeds 3     # longer, with intervals over seeds
    python -m train study table9 --size full --minutes 8    # a piece; the same command goes on

Each row of the paper's table is trained on the same clips (where all are long enough for all rows),
as many of them, and evaluated alike, on a generated corpus whose truth is known (`planted`) and on
GRID. What is trained lies in runs/studies/CORPUS/ROW-SEED and is shared by all studies; the table
is runs/studies/NAME/study.md, and a section of `make report`. The same command goes on where it was
interrupted, and does nothing again that is done.
"""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from train.config import RUNS, PretrainConfig
from train.describe import example_batch
from train.dist import choose_device
from train.errors import UsageError
from train.evaluation.config import EvalConfig
from train.evaluation.driver import evaluate
from train.evaluation.task import Pictures, Protocol
from train.index import INDEX_NAME
from train.methods import method_named, preset_named
from train.pretrain import COMPLETE, PREEMPTED, pretrain
from train.session import CONFIG, FINISHED
from train.studies import CORPORA, CROP, LOOKS, STUDIES, Corpus, Row, Study
from train.studytable import MARKDOWN, Result, write
from train.tasks import task_named

log = logging.getLogger(__name__)

SAME = ("model", "preset", "shards", "split", "batch_size", "schedule_steps", "seed")
"""What rows must have in common with what the table says of them."""
TIMED_STEPS = 2


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    steps: int
    batch_size: int
    seeds: int


SIZES = {"small": Size(300, 8, 3), "full": Size(3000, 32, 3)}
"""For two CPU cores and an evening, with the corpora's small presets; for a GPU, with the full."""


@dataclass(frozen=True)
class StudyConfig:
    """One study."""

    name: tyro.conf.Positional[str]
    """A name of `train.studies.STUDIES`: table5 ... table9, localization."""
    size: Literal["small", "full"] = "small"
    """small: tiny networks, for two CPU cores; full: the paper's networks, for a GPU."""
    corpora: str = ""
    """planted, grid, or both with a comma between; empty: those of the study whose shards are
    there."""
    shards: str = ""
    """What is trained on, without labels, in place of the corpus's own shards."""
    task_shards: str = ""
    """What the tasks are scored on, in place of the corpus's own shards."""
    tasks: str = ""
    """Other tasks than the study's own, with commas between."""
    methods: str = ""
    """Only these methods, with commas between; the table says so."""
    preset: str = ""
    """Of every method: tiny_grid, tiny, `grid` or `full` for the paper's sizes; empty is the
    corpus's for the size."""
    steps: int | None = None
    """Of each run; None is the size's, as for the two below."""
    batch_size: int | None = None
    """Clips a step, the same for every method."""
    seeds: int | None = None
    """Runs of each row; with several the interval is over seeds, else over test items."""
    protocol: Protocol = "linear"
    """Of the evaluations; tasks that do not have it take the nearest they have."""
    pictures: Pictures | None = None
    """What they look at; None is the task's own."""
    cells: tuple[int, int, int] | None = None
    """Parts of time, rows and columns in which features are averaged; None is the task's own."""
    rounds: str = ""
    """Only these folds."""
    split: str = "train"
    """Of the shards that are trained on."""
    minutes: float | None = None
    """Stop after so long, saved, with exit code 85: for queues and pieces."""
    run: str = ""
    """Folder of all studies; empty is runs/studies."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU."""
    workers: int | None = None
    """Reading processes; None is the usable cores less one."""

    def __post_init__(self) -> None:
        """Ranges and names; what is None becomes the size's."""
        if self.name not in STUDIES:
            raise UsageError(f"unknown study {self.name!r}; known: {', '.join(STUDIES)}")
        for name in ("steps", "batch_size", "seeds"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(SIZES[self.size], name))
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more")
        unknown = set(_listed(self.methods)) - {row.method for row in self.of.rows}
        if unknown:
            known = ", ".join(dict.fromkeys(row.method for row in self.of.rows))
            raise UsageError(
                f"--methods {', '.join(sorted(unknown))}; the study {self.name} has {known}"
            )
        self._check_corpora()

    def _check_corpora(self) -> None:
        known = [name for name in CORPORA if self.of.tasks_on(name)]
        unknown = set(_listed(self.corpora)) - set(known)
        if unknown:
            raise UsageError(
                f"--corpora {', '.join(sorted(unknown))}; the study {self.name} has "
                f"{', '.join(known)}"
            )
        if (self.shards or self.task_shards or self.tasks) and len(_listed(self.corpora)) != 1:
            raise UsageError(
                "--shards, --task-shards and --tasks stand for one corpus's own; say which one: "
                f"--corpora {known[0]}" + "".join(f" or {name}" for name in known[1:])
            )

    @property
    def of(self) -> Study:
        """What is compared."""
        return STUDIES[self.name]

    @property
    def rows(self) -> list[Row]:
        """The rows that are asked for; random weights always."""
        asked = set(_listed(self.methods))
        return [
            row for row in self.of.all_rows if not (asked and row.trained) or row.method in asked
        ]

    @property
    def folder(self) -> Path:
        """Where runs and tables go."""
        return Path(self.run) if "/" in self.run else RUNS / (self.run or "studies")

    def used_corpora(self) -> dict[str, Corpus]:
        """Those that are asked for, or whose shards are there.

        Raises:
            UsageError: none is there; says which commands make them.
        """
        asked = {name: CORPORA[name] for name in _listed(self.corpora)}
        if asked:
            given = {"shards": self.shards, "task_shards": self.task_shards}
            changes: dict[str, Any] = {name: value for name, value in given.items() if value}
            return {name: replace(corpus, **changes) for name, corpus in asked.items()}
        known = {name: CORPORA[name] for name in CORPORA if self.of.tasks_on(name)}
        there = {
            name: corpus
            for name, corpus in known.items()
            if all((Path(p) / INDEX_NAME).is_file() for p in (corpus.shards, corpus.task_shards))
        }
        if not there:
            ways = "".join(f"\n  {name}: {corpus.make}" for name, corpus in known.items())
            raise UsageError(f"the study {self.name} finds no shards. These make them:{ways}")
        return there

    def tasks_of(self, corpus: str) -> tuple[str, ...]:
        """The columns that a corpus gives."""
        return tuple(_listed(self.tasks)) or self.of.tasks_on(corpus)

    def preset_for(self, corpus: Corpus, method: str) -> str:
        """The preset of a method."""
        own = corpus.full if self.size == "full" else corpus.small
        return preset_of(self.preset or own, method)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@dataclass(frozen=True)
class Work:
    """A row on a corpus with a seed: one training, if it is not shared, and its evaluations."""

    row: Row
    corpus_name: str
    corpus: Corpus
    seed: int

    def folder(self, config: StudyConfig) -> Path:
        """Of the run; the same for rows that train the same."""
        return config.folder / self.corpus_name / f"{self.row.run}-{self.seed}"


def study(config: StudyConfig) -> int:
    """Train and evaluate what is not done yet, writing the table after every row.

    Returns:
        0 when all is done, 85 when told to stop, or when the minutes are over, and saved.

    Raises:
        TrainError: with a sentence.
    """
    assert config.seeds is not None
    corpora = config.used_corpora()
    works = [
        Work(row, name, corpus, seed)
        for seed in range(config.seeds)
        for name, corpus in corpora.items()
        for row in config.rows
    ]
    runs = [run_of(config, work) if work.row.trained else None for work in works]
    trained = [run for run in runs if run is not None]
    for one in trained:
        _refuse_another_study(one)
    _tell_plan(config, works, trained)
    deadline = None if config.minutes is None else time.monotonic() + 60 * config.minutes
    started, results = time.monotonic(), []
    with _deaf_to_alarms():
        for number, (work, run) in enumerate(zip(works, runs, strict=True), 1):
            code = _trained(run, deadline)
            if code != COMPLETE:
                return code
            results.append(_result(config, work))
            write(config, results)
            left = (time.monotonic() - started) / number * (len(works) - number)
            log.info("%d of %d rows done, at most about %.0f min left", number, len(works),
                     left / 60)  # fmt: skip
    log.info("%s", config.folder / config.name / MARKDOWN)
    return COMPLETE


def _trained(run: PretrainConfig[Any] | None, deadline: float | None) -> int:
    """Train a run to its end, or until the time is over."""
    left = None if deadline is None else deadline - time.monotonic()
    if left is not None and left <= 0:
        log.info("the minutes are over; the same command goes on")
        return PREEMPTED
    if run is None:
        return COMPLETE
    if left is None:
        return pretrain(run)
    alarm = threading.Timer(left, os.kill, (os.getpid(), signal.SIGUSR1))
    alarm.start()
    try:
        return pretrain(run)
    finally:
        alarm.cancel()


@contextmanager
def _deaf_to_alarms() -> Iterator[None]:
    """An alarm that rings beside the training loop, which hears it, must not end the process."""
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _refuse_another_study(run: PretrainConfig[Any]) -> None:
    """A run that stands there already must be the one that would be made.

    Raises:
        UsageError: it was made with other settings; says which.
    """
    path = run.folder / CONFIG
    if not path.is_file():
        return
    stored, ours = json.loads(path.read_bytes()), run.as_dict()
    other = [
        f"{name} was {stored.get(name)!r}, is {ours[name]!r}"
        for name in SAME
        if stored.get(name) != ours[name]
    ]
    if other:
        raise UsageError(
            f"{run.folder} belongs to another study: {'; '.join(other)}. Repeat its settings, or "
            "name another folder with --run"
        )


def run_of(config: StudyConfig, work: Work) -> PretrainConfig[Any]:
    """The run of a row: the method's own recipe, but the study's clips, batch and length."""
    row, corpus = work.row, work.corpus
    preset = config.preset_for(corpus, row.method)
    recipe = method_named(row.method).recipe_of(preset) | {"batch_size": config.batch_size}
    return PretrainConfig(
        model=replace(preset_named(row.method, preset), **row.model), method=row.method,
        preset=preset, shards=corpus.shards, split=config.split, seed=work.seed,
        schedule_steps=config.steps, run=str(work.folder(config)), device=config.device,
        threads=config.threads, workers=config.workers,
        val_every=0,  # the schedule's end is evaluated: choosing `best` differs between methods
        **recipe,
    )  # fmt: skip


def preset_of(wish: str, method: str) -> str:
    """A method's preset: its first one for `full`, the large one for GRID for `grid`."""
    entry = method_named(method)
    large = [name for name in entry.presets if not name.startswith("tiny")]
    if wish == "full":
        return entry.default_preset
    return next((n for n in large if n.endswith("_grid")), wish) if wish == "grid" else wish


# --- how long it takes ----------------------------------------------------------------------------


def _tell_plan(config: StudyConfig, works: list[Work], runs: list[PretrainConfig[Any]]) -> None:
    """Say what is going to be done, and about how long the trainings take."""
    waiting = {run.run: run for run in runs if not (run.folder / FINISHED).is_file()}
    corpora = dict.fromkeys(work.corpus_name for work in works)
    columns = [task for name in corpora for task in config.tasks_of(name)]
    log.info(
        "%s: %d rows, %d runs to train of %s steps with %s clips each; then %s on every row",
        config.of.about, len(works), len(waiting), config.steps, config.batch_size,
        ", ".join(columns),
    )  # fmt: skip
    if not waiting:
        return
    if choose_device(config.device, 0).type != "cpu":
        log.info("how long that takes is not estimated: steps are timed on a CPU only")
        return
    kinds = {(run.method, repr(run.model)): run for run in waiting.values()}
    spent = {kind: step_seconds(run) for kind, run in kinds.items()}
    total = sum(spent[run.method, repr(run.model)] for run in waiting.values())
    log.info("training them takes about %.0f min on this machine, by %d steps of each kind; "
             "evaluations come on top", total * (config.steps or 0) / 60, TIMED_STEPS)  # fmt: skip


def step_seconds(run: PretrainConfig[Any]) -> float:
    """Seconds of a step of an empty batch on a CPU, without reading; the best of two."""
    import torch

    from train.cuts import RunFacts
    from train.pretrain import build_model

    model: Any = build_model(run, torch.device("cpu"), RunFacts(1000, run.schedule_steps or 1, 100))
    batch = example_batch(run.model, run.clips_per_batch)
    for name in ("video", "mel", "wave"):
        if getattr(batch, name, None) is not None:
            getattr(batch, name).normal_()
    seconds = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        model(batch)["loss"].backward()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


# --- evaluations ----------------------------------------------------------------------------------


def _result(config: StudyConfig, work: Work) -> Result:
    """The scores of a row, by task."""
    scores = {}
    for task in config.tasks_of(work.corpus_name):
        found = evaluate(eval_of(config, work, task))
        scores[task] = {**found["metrics"][0], "n": found["n_scored"]}
    return Result(work.row.label, work.seed, scores)


def eval_of(config: StudyConfig, work: Work, task: str) -> EvalConfig:
    """The evaluation of a row, with the run's weights or without any."""
    row, folder = work.row, work.folder(config)
    look = {"pictures": config.pictures, "cells": config.cells, **LOOKS.get(task, {}), **row.look}
    if look["pictures"] == CROP:
        look["pictures"] = work.corpus.crop
    return EvalConfig(
        task=task, shards=work.corpus.task_shards, protocol=protocol_for(task, config.protocol),
        rounds=config.rounds, seed=work.seed, device=config.device, threads=config.threads,
        workers=config.workers, run=str(folder),
        preset="" if row.trained else config.preset_for(work.corpus, row.method),
        checkpoint=folder if row.trained else None, scratch=not row.trained, **look,
    )  # fmt: skip


def protocol_for(task: str, wish: Protocol) -> Protocol:
    """The protocol that is wished for; of tasks without it a linear layer, or their own."""
    known = task_named(task)
    choice: Protocol = next(
        (one for one in (wish, "linear") if one in known.protocols), known.settings.protocol
    )
    return choice
