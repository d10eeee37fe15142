"""The flags of `train study`: which study, how large, on which shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from train.config import RUNS, Precision
from train.errors import UsageError
from train.evaluation.task import Pictures, Protocol
from train.index import INDEX_NAME
from train.methods import method_named
from train.studies.catalogue import CORPORA, STUDIES, Corpus, Row, Study

ALL = "all"
"""In place of a study's name."""


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    steps: int
    batch_size: int
    seeds: int


SIZES = {"small": Size(300, 16, 3), "full": Size(3000, 32, 3)}
"""For two CPU cores and an evening, with the corpora's small presets; for a GPU, with the full."""


@dataclass(frozen=True)
class StudyConfig:
    """One study."""

    name: tyro.conf.Positional[str]
    """A name of `train.studies.catalogue.STUDIES`: table5 ... table9, localization, longer,
    events, rates, labels; or all."""
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
    """Other tasks than the study's own, with commas between; grid_digits@5 learns from five labels
    of each class."""
    methods: str = ""
    """Only these methods, with commas between; the table says so. Random weights stay."""
    only: tuple[str, ...] = ()
    """Only these rows, as the table names them or up to the colon, or all that begin so:
    --only a f, --only "crop, 5"."""
    preset: str = ""
    """Of every method: tiny_grid, tiny, `grid` or `full` for the paper's sizes; empty is the
    corpus's for the size."""
    steps: int | None = None
    """Of each run; None is the size's: 300 of small, 3000 of full."""
    batch_size: int | None = None
    """Clips a step, the same for every method; None is the size's: 16 of small, 32 of full."""
    seeds: int | None = None
    """Runs of each row, None is 3; of several the interval is over seeds, else over test items."""
    first_seed: int = 0
    """The runs' seeds are this and those after it. Further ones on another day stand beside those
    that are done; those of another machine `python -m train evidence` puts together."""
    replace: bool = False
    """Let a table that was made with other settings go. Without it that is refused."""
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
    allow_missing: bool = False
    """Score test splits of which clips are missing, as in a set that was made with --limit, for
    trying things out: no number of a benchmark. The table says so."""
    plan: bool = False
    """Only say which rows would be trained and looked at, and about how long that takes."""
    minutes: float | None = None
    """Stop after so long, saved, with exit code 85: for queues and pieces. An evaluation is cut,
    and begun again by the next piece, unless it is the first thing that the piece does."""
    run: str = ""
    """Folder of all studies; empty is runs/studies."""
    precision: Precision = "auto"
    """Of networks, trained and looked at: bf16 autocast or fp32; auto is bf16 on a GPU. On a CPU
    with AMX bf16 takes about half the time; runs of the other precision need another --run."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU."""
    workers: int | None = None
    """Reading processes; None is the usable cores less one."""

    def __post_init__(self) -> None:
        """Ranges and names; what is None becomes the size's."""
        if self.name not in (*STUDIES, ALL):
            which = f"unknown study {self.name!r}" if self.name else "no study is named (NAME=...)"
            raise UsageError(f"{which}; known: {', '.join((*STUDIES, ALL))}")
        self._check_numbers()
        if self.name == ALL:
            self._check_all()
            self._check_corpora("all studies have", list(CORPORA))
        else:
            self._check_names()
            known = [name for name in CORPORA if self.of.tasks_on(name)]
            self._check_corpora(f"the study {self.name} has", known)

    def _check_numbers(self) -> None:
        for name in ("steps", "batch_size", "seeds"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(SIZES[self.size], name))
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.first_seed < 0:
            raise UsageError(f"first_seed is {self.first_seed}; expected 0 or more")
        if self.minutes is not None and self.minutes < 0:
            raise UsageError(f"minutes is {self.minutes:g}; expected 0 or more")

    def _check_all(self) -> None:
        """What belongs to one study is not for all of them."""
        given = [f"--{name}" for name in ("only", "methods", "tasks") if getattr(self, name)]
        if given:
            raise UsageError(
                f"{', '.join(given)}: which rows and columns there are differs between "
                "studies; name one of them"
            )

    def _check_names(self) -> None:
        known = dict.fromkeys(row.method for row in self.of.rows if row.trained)
        if unknown := set(_listed(self.methods)) - set(known):
            raise UsageError(
                f"--methods {', '.join(sorted(unknown))}; the study {self.name} has "
                f"{', '.join(known)}"
            )
        for asked in self.only:
            if not _called(self.of.all_rows, asked):
                labels = "; ".join(row.label for row in self.of.all_rows)
                raise UsageError(f"--only {asked!r}: no row of {self.name} is called so: {labels}")

    def _check_corpora(self, who_has: str, known: list[str]) -> None:
        unknown = set(_listed(self.corpora)) - set(known)
        if unknown:
            raise UsageError(
                f"--corpora {', '.join(sorted(unknown))}; {who_has} {', '.join(known)}"
            )
        if (self.shards or self.task_shards or self.tasks) and len(_listed(self.corpora)) != 1:
            raise UsageError(
                "--shards, --task-shards and --tasks stand for one corpus's own; say which one: "
                f"--corpora {known[0]}" + "".join(f" or {name}" for name in known[1:])
            )

    def studies(self) -> "list[StudyConfig]":
        """Itself; or each study that has tasks on the corpora that are asked for, or are there.

        Raises:
            UsageError: no shards are there.
        """
        if self.name != ALL:
            return [self]
        asked = _listed(self.corpora) or list(_there(CORPORA))
        if not asked:
            raise UsageError(_no_shards("studies find", CORPORA))
        fits = {
            name: [corpus for corpus in asked if one.tasks_on(corpus)]
            for name, one in STUDIES.items()
        }
        return [
            replace(self, name=name, corpora=",".join(corpora))
            for name, corpora in fits.items()
            if corpora
        ]

    @property
    def all_seeds(self) -> range:
        """The seeds of the runs."""
        assert self.seeds is not None
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def of(self) -> Study:
        """What is compared."""
        return STUDIES[self.name]

    @property
    def rows(self) -> list[Row]:
        """The rows that are asked for; by methods random weights always."""
        methods = set(_listed(self.methods))
        return [
            row for row in self.of.all_rows
            if (not (methods and row.trained) or row.method in methods)
            and (not self.only or any(row in _called(self.of.all_rows, asked)
                                      for asked in self.only))
        ]  # fmt: skip

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
        there = _there(known)
        if not there:
            raise UsageError(_no_shards(f"the study {self.name} finds", known))
        return there

    def tasks_of(self, corpus: str) -> tuple[str, ...]:
        """The columns that a corpus gives."""
        return tuple(_listed(self.tasks)) or self.of.tasks_on(corpus)

    def tasks_for(self, row: Row, corpus: str) -> list[str]:
        """The columns that a row is scored on: all of them where they are named by hand."""
        if row.corpora and corpus not in row.corpora:
            return []
        columns = self.tasks_of(corpus)
        if self.tasks or not row.tasks:
            return list(columns)
        return [column for column in columns if column in row.tasks]

    def preset_for(self, corpus: Corpus, method: str) -> str:
        """The preset of a method."""
        own = corpus.full if self.size == "full" else corpus.small
        return preset_of(self.preset or own, method)


def _there(corpora: Mapping[str, Corpus]) -> dict[str, Corpus]:
    """Those whose shards were made."""
    return {
        name: corpus
        for name, corpus in corpora.items()
        if all((Path(p) / INDEX_NAME).is_file() for p in (corpus.shards, corpus.task_shards))
    }


def _no_shards(who_finds: str, corpora: Mapping[str, Corpus]) -> str:
    ways = "".join(f"\n  {name}: {corpus.make}" for name, corpus in corpora.items())
    return f"{who_finds} no shards. These make them:{ways}"


def _called(rows: Sequence[Row], name: str) -> list[Row]:
    """By the label or what stands before its colon, else all that begin so."""
    exact = [row for row in rows if name in (row.label, row.label.partition(":")[0])]
    return exact or [row for row in rows if name and row.label.startswith(name)]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def preset_of(wish: str, method: str) -> str:
    """A method's preset: its first one for `full`, the large one for GRID for `grid`."""
    entry = method_named(method)
    large = [name for name in entry.presets if not name.startswith("tiny")]
    if wish == "full":
        return entry.default_preset
    return next((n for n in large if n.endswith("_grid")), wish) if wish == "grid" else wish
