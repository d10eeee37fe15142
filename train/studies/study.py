"""`python -m train study NAME`: methods or settings, trained and evaluated alike, in one table.

    python -m train study table5 --corpora grid
    python -m train study table6 --steps 2000 --seeds 3     # longer, with intervals over seeds
    python -m train study table9 --size full --minutes 8    # a piece; the same command goes on
    python -m train study all --plan                        # every study: its runs, and how long

Each row of the paper's table is trained on the same clips (where all are long enough for all rows),
as many of them, and evaluated alike, on a generated corpus whose truth is known (`planted`) and on
GRID. What is trained lies in runs/studies/CORPUS/ROW-SEED and is shared by all studies; the table
is runs/studies/NAME/study.md, and study.html beside it has figures, training curves and pictures.
The same command goes on where it was interrupted, and does nothing again that is done.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from train.config import PretrainConfig
from train.errors import UsageError
from train.evaluation.config import EvalConfig
from train.evaluation.driver import evaluate
from train.evaluation.encoders import wanted_features
from train.evaluation.result import EVALUATIONS, PREDICTIONS
from train.evaluation.task import Protocol
from train.methods import method_named, preset_named
from train.mixture import open_mixture, parse_shards
from train.pretrain import COMPLETE, PREEMPTED, pretrain
from train.session import CONFIG, FINISHED, ORIGIN, Stop
from train.studies.catalogue import ALSO, BESIDE, CROP, LOOKS, WHOLE, Corpus, Row, task_of
from train.studies.clock import Clock, OutOfTime, deaf_to_alarms
from train.studies.config import StudyConfig
from train.studies.curves import of_run as curves_of
from train.studies.joined import Joined, joined, other_settings
from train.studies.page import write as write_page
from train.studies.plan import require_shards, require_splits, tell_plans
from train.studies.table import STUDY, Result, facts_of, said, write
from train.tasks import task_named

log = logging.getLogger(__name__)

SAME = ("model", "preset", "shards", "split", "batch_size", "schedule_steps", "seed", "lr",
        "precision")  # fmt: skip
"""What rows must have in common with what the table says of them."""


@dataclass(frozen=True)
class Work:
    """A row on a corpus with a seed: one training, if it is not shared, and its evaluations."""

    row: Row
    corpus_name: str
    corpus: Corpus
    seed: int

    @property
    def name(self) -> str:
        """Of the run, below the folder of all studies; the same for rows that train the same."""
        return f"{self.corpus_name}/{self.row.run}-{self.seed}"

    def folder(self, config: StudyConfig) -> Path:
        """Of the run."""
        return config.folder / self.name


@dataclass
class Matrix:
    """The rows of a study on each corpus with each seed, and what was found of them."""

    config: StudyConfig
    works: list[Work]
    before: dict[str, Any] | None = None
    """What study.json says of other rows and seeds."""
    results: list[Result] = field(default_factory=list)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: StudyConfig) -> "Matrix":
        """The matrix of a study, refused where shards or tasks are missing or runs are others.

        Raises:
            UsageError: with what to do.
        """
        corpora = config.used_corpora()
        require_shards(corpora)
        require_splits(config, corpora)
        works = [
            Work(row, name, corpus, seed)
            for seed in config.all_seeds
            for name, corpus in corpora.items()
            for row in config.rows
            if name in (row.corpora or corpora)
        ]
        matrix = cls(config, works, _written_before(config))
        _require_features(config, works)
        for run in {run.run: run for _, run in matrix.plan() if run is not None}.values():
            _refuse_another_study(run)
        matrix.refuse_other_settings()
        return matrix

    @property
    def folder(self) -> Path:
        """Where its table is written."""
        return self.config.folder / self.config.name

    def refuse_other_settings(self) -> None:
        """What is there already must be of the same settings, or be meant to go.

        Raises:
            UsageError: says what differs.
        """
        before = {} if self.before is None else self.before["said"]
        differ = other_settings(before, said(self.config))
        if differ and not self.config.replace:
            told = "; ".join(f"{corpus} was run {how}" for corpus, how in differ.items())
            raise UsageError(
                f"the table in {self.folder} would be lost: {told}. Repeat its settings, name "
                "another folder with --run, or mean it: --replace"
            )

    def joined(self) -> Joined:
        """What is done now, beside what was done before with the same settings."""
        config = self.config
        now = facts_of(config.of, config.name, said(config), self.results, self.curves)
        return joined(self.before, now)

    def plan(self) -> list[tuple[Row, PretrainConfig[Any] | None]]:
        """Each row with its run, if it is trained."""
        return [(work.row, self.run_of(work)) for work in self.works]

    def run_of(self, work: Work) -> PretrainConfig[Any] | None:
        """The run of a row; None where it has random weights."""
        return run_of(self.config, work) if work.row.trained else None


def _written_before(config: StudyConfig) -> dict[str, Any] | None:
    """What the folder's study.json says.

    Raises:
        UsageError: it cannot be read.
    """
    path = config.folder / config.name / STUDY
    try:
        found: dict[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
    except ValueError as error:
        raise UsageError(f"{path} cannot be read ({error}); remove it, and the same command "
                         "writes it anew from the results beside it")  from error  # fmt: skip
    return found


def _require_features(config: StudyConfig, works: Sequence[Work]) -> None:
    """Every row has what its tasks look at: no training is to be done in vain.

    Raises:
        UsageError: a method of a row lacks a feature; says which.
    """
    asked = {
        (work.row.label, column): work
        for work in works
        for column in config.tasks_for(work.row, work.corpus_name)
        if task_of(column)[0] not in WHOLE
    }
    channels: dict[str, dict[str, int]] = {}
    for (label, column), work in asked.items():
        name = f"{work.corpus_name}/{work.row.method} {work.row.model}"
        if name not in channels:
            channels[name] = _channels_of(config, work)
        look = eval_of(config, work, column)
        settings = task_named(look.task).with_settings(**look.changes).settings
        try:
            wanted_features(channels[name], settings)
        except UsageError as error:
            raise UsageError(f"{column} of the row {label!r}: {error}") from error


def _channels_of(config: StudyConfig, work: Work) -> dict[str, int]:
    """The features of a row's network, and the lengths of their vectors."""
    preset = config.preset_for(work.corpus, work.row.method)
    model = replace(preset_named(work.row.method, preset), **work.row.model)
    with torch.device("meta"):  # its shapes are enough
        module: Any = method_named(work.row.method).module(model)
    channels: dict[str, int] = module.feature_channels
    return channels


def study(config: StudyConfig) -> int:
    """Train and evaluate what is not done yet, writing the table after every row.

    Of several studies the first seed of each comes before the second of any.

    Returns:
        0 when all is done, 85 when told to stop, or when the minutes are over, and saved.

    Raises:
        TrainError: with a sentence.
    """
    matrices = [Matrix.of(one) for one in config.studies()]
    clock = Clock(config.minutes)
    tell_plans([(one.config, one.plan()) for one in matrices], clock.end)
    if config.plan:
        return COMPLETE
    try:
        with deaf_to_alarms():
            return _carried_out(matrices, clock)
    finally:
        for one in matrices:
            if one.results:
                log.info("%s: %s", write_page(one.folder), one.joined().told)


def _carried_out(matrices: list[Matrix], clock: Clock) -> int:
    """Each row trained and looked at, and its table written anew."""
    todo = [
        (matrix, work)
        for seed in matrices[0].config.all_seeds
        for matrix in matrices
        for work in matrix.works
        if work.seed == seed
    ]
    started = time.monotonic()
    for number, (matrix, work) in enumerate(todo, 1):
        code = _row_done(matrix, work, clock)
        if code != COMPLETE:
            return code
        left = (time.monotonic() - started) / number * (len(todo) - number)
        soon = f", at most about {ceil(left / 60)} min left" if left else ""
        log.info("%d of %d rows done%s", number, len(todo), soon)
    return COMPLETE


def _row_done(matrix: Matrix, work: Work, clock: Clock) -> int:
    """Train and look at one row, and write what is known of its study."""
    run = matrix.run_of(work)
    code = _trained(run, clock)
    if code != COMPLETE:
        return code
    result = _result(matrix.config, work, clock)
    if result is None:
        return PREEMPTED
    matrix.results.append(result)
    if run is not None:
        matrix.curves[work.name] = curves_of(run.folder)
    write(matrix.joined().facts, matrix.folder)
    return COMPLETE


def _trained(run: PretrainConfig[Any] | None, clock: Clock) -> int:
    """Train a run to its end, or until the time is over."""
    if clock.is_over():
        return PREEMPTED
    if run is None:
        return COMPLETE
    stop = Stop()
    clock.worked |= not (run.folder / FINISHED).is_file()
    with clock.rings():
        code = pretrain(run, stop)
    if code == PREEMPTED:
        clock.is_over()  # says so, where it was not a signal from elsewhere
    if code == COMPLETE and stop.wanted:  # in its last step: the run is complete, the study is not
        log.info("%s: the run was at its end; the same command goes on", stop.name)
        return PREEMPTED
    return code


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
    _refuse_other_clips(run)


def _refuse_other_clips(run: PretrainConfig[Any]) -> None:
    """A run of a corpus that was made anew since is none of the corpus that it is scored on.

    Raises:
        UsageError: it saw other clips than the shards hold now.
    """
    origin = run.folder / ORIGIN
    if not origin.is_file():
        return
    seen = json.loads(origin.read_bytes()).get("fingerprint")
    sources = parse_shards(run.shards, run.data, allow_http=run.allow_http, cache=run.cache())
    mixture = open_mixture(
        sources, reads=run.reads, split=run.split, subset_seed=run.subset_seed, view=run.view()
    )
    if seen not in (None, mixture.fingerprint()):
        raise UsageError(
            f"{run.folder} was trained on other clips than {run.shards} holds now; name another "
            "folder with --run, or delete the run"
        )


def run_of(config: StudyConfig, work: Work) -> PretrainConfig[Any]:
    """The run of a row: the method's own recipe, but the study's clips, batch and length."""
    assert config.steps is not None
    row, corpus = work.row, work.corpus
    preset = config.preset_for(corpus, row.method)
    recipe = method_named(row.method).recipe_of(preset) | {"batch_size": config.batch_size}
    if row.rate is not None:
        recipe["lr"] = row.rate
    return PretrainConfig(
        model=replace(preset_named(row.method, preset), **row.model), method=row.method,
        preset=preset, shards=corpus.shards, split=config.split, seed=work.seed,
        schedule_steps=config.steps * row.longer, run=str(work.folder(config)),
        precision=config.precision, device=config.device, threads=config.threads,
        workers=config.workers,
        val_every=0,  # the schedule's end is evaluated: choosing `best` differs between methods
        **recipe,
    )  # fmt: skip


# --- evaluations ----------------------------------------------------------------------------------


def _result(config: StudyConfig, work: Work, clock: Clock) -> Result | None:
    """The scores of a row, by task; None where the time is over before the last is done."""
    scores: dict[str, dict[str, Any]] = {}
    for column in config.tasks_for(work.row, work.corpus_name):
        if clock.is_over():
            return None
        begun = time.time()
        try:
            with clock.cuts():
                found = evaluate(eval_of(config, work, column))
        except OutOfTime:
            log.info("the minutes are over within %s of %s; the same command goes on", column,
                     work.name)  # fmt: skip
            return None
        clock.worked |= _is_new(work.folder(config), found, begun)
        scores |= scores_of(column, found, work.name)
    return Result(work.row.label, work.seed, scores)


def _is_new(run: Path, found: dict[str, Any], since: float) -> bool:
    """Whether a result is of now, not read again."""
    said = (run / EVALUATIONS / found["name"]).glob(f"*/{PREDICTIONS}")
    return any(path.stat().st_mtime >= since for path in said)


def scores_of(column: str, found: dict[str, Any], run: str) -> dict[str, dict[str, Any]]:
    """Of a result.json the first metric by the column's name, and `BESIDE` and `ALSO` it."""
    where = {"result": f"{run}/{EVALUATIONS}/{found['name']}"}
    metrics, facts = found["metrics"], {"n": found["n_scored"], **where, **_origin(found)}
    named = {metric["name"]: metric for metric in metrics}
    first = metrics[0]["name"]
    others = {f"{column}:{ending}": f"{first}:{ending}" for ending in BESIDE.get(column, ())}
    others |= {f"{column}:{name}": name for name in ALSO.get(column, ())}
    beside = {other: {**named[name], **facts} for other, name in others.items() if name in named}
    return {column: {**metrics[0], **facts}, **beside}


def _origin(found: dict[str, Any]) -> dict[str, Any]:
    """What a score was measured on and with, from its result.json."""
    checkpoint = found.get("checkpoint") or {}
    return {
        "checkpoint_sha256": checkpoint.get("sha256"),
        "index_sha256": (found.get("shards") or {}).get("index_sha256"),
        "created": found.get("created"),
        "git_commit": found.get("git_commit"),
    }


def eval_of(config: StudyConfig, work: Work, column: str) -> EvalConfig:
    """The evaluation of a row for a column, with the run's weights or without any."""
    row, folder = work.row, work.folder(config)
    task, labels = task_of(column)
    look = {"pictures": config.pictures, "cells": config.cells, "labels": labels,
            **LOOKS.get(task, {}), **row.look}  # fmt: skip
    if look["pictures"] == CROP:
        look["pictures"] = work.corpus.crop
    if task in WHOLE:
        look.pop("features", None)
    weights: dict[str, Any] = {"checkpoint": folder} if row.trained else {
        "scratch": True, "method": row.method,
        "preset": config.preset_for(work.corpus, row.method),
    }  # fmt: skip
    return EvalConfig(
        task=task, shards=work.corpus.task_shards, protocol=protocol_for(task, config.protocol),
        rounds=config.rounds, seed=work.seed, precision=config.precision, device=config.device,
        threads=config.threads, workers=config.workers, run=str(folder),
        allow_missing=config.allow_missing,
        **look, **weights,
    )  # fmt: skip


def protocol_for(task: str, wish: Protocol) -> Protocol:
    """The protocol that is wished for; of tasks without it a linear layer, or their own."""
    known = task_named(task)
    choice: Protocol = next(
        (one for one in (wish, "linear") if one in known.protocols), known.settings.protocol
    )
    return choice
