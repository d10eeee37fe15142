"""`python -m train study NAME`: methods or settings, trained and evaluated alike, in one table.

    python -m train study table5 --shards data/shards/grid-glcm --task-shards data/shards/grid-lips
    python -m train study table5 --steps 2000 --seeds 3     # longer, with intervals over seeds

Each row of the paper's table is a run of its own in runs/NAME/ROW-SEED, with the same clips (where
all are long enough for all rows), the same number of clips seen and the same evaluation; the table
is runs/NAME/study.md, and a section of `make report`. The same command goes on where it was
interrupted, and does nothing again that is done.
"""

import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from train.checkpoint import write_atomically
from train.config import RUNS, PretrainConfig
from train.errors import UsageError
from train.evaluation.config import EvalConfig
from train.evaluation.driver import evaluate
from train.evaluation.task import Pictures, Protocol
from train.methods import method_named, preset_named
from train.pretrain import COMPLETE, pretrain
from train.session import CONFIG

log = logging.getLogger(__name__)

STUDY, MARKDOWN = "study.json", "study.md"
SCRATCH = "random weights (glcm)"
"""The row without pretraining: what the labels alone teach a probe."""
LEVEL = 0.95
SAME = ("model", "preset", "shards", "split", "batch_size", "schedule_steps", "seed")
"""What rows must have in common with what the table says of them."""


@dataclass(frozen=True)
class Row:
    """A row of the table: a method that is trained."""

    label: str
    """As the paper names it."""
    method: str


@dataclass(frozen=True)
class Study:
    """A comparison."""

    about: str
    rows: tuple[Row, ...]
    tasks: tuple[str, ...]
    """Evaluations, one column each."""


STUDIES = {
    "table5": Study(
        "contrastive objectives on the same encoder and clips (GLCM paper, Table 5)",
        (
            Row("MoCo", "moco"),
            Row("CPC", "cpc"),
            Row("DPC", "dpc"),
            Row("VDIM", "vdim"),
            Row("AVTS", "avts"),
            Row("AVSlowFast", "avslowfast"),
            Row("Ours", "glcm"),
        ),
        ("grid_digits", "grid_letters"),
    )
}
"""Adding a study is one entry here."""


@dataclass(frozen=True)
class StudyConfig:
    """One study."""

    name: tyro.conf.Positional[str]
    """A name of `train.study.STUDIES`: table5."""
    shards: str = "data/shards/grid-glcm"
    """What is trained on, without labels."""
    task_shards: str = "data/shards/grid-lips"
    """What the tasks are scored on."""
    tasks: str = ""
    """Other tasks than the study's own, with commas between."""
    methods: str = ""
    """Only these methods, with commas between; the table says so."""
    preset: str = "tiny_grid"
    """Of every method: tiny_grid, tiny, or `grid` and `full` for the paper's sizes."""
    steps: int = 300
    """Of each run."""
    batch_size: int = 8
    """Clips a step, the same for every method."""
    seeds: int = 1
    """Runs of each row; with several the interval is over seeds, else over test items."""
    protocol: Protocol = "linear"
    """Of the evaluations."""
    pictures: Pictures | None = None
    """What they look at; None is the task's own."""
    cells: tuple[int, int, int] | None = None
    """Parts of time, rows and columns in which features are averaged; None is the task's own."""
    rounds: str = ""
    """Only these folds."""
    split: str = "train"
    """Of the shards that are trained on."""
    run: str = ""
    """Folder of the study; empty is runs/NAME."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU."""
    workers: int | None = None
    """Reading processes; None is the usable cores less one."""

    def __post_init__(self) -> None:
        """Ranges and names."""
        if self.name not in STUDIES:
            raise UsageError(f"unknown study {self.name!r}; known: {', '.join(STUDIES)}")
        for name in ("steps", "seeds", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more")
        unknown = set(filter(None, self.methods.split(","))) - {row.method for row in self.of.rows}
        if unknown:
            raise UsageError(
                f"--methods {', '.join(sorted(unknown))}; the study {self.name} has "
                f"{', '.join(row.method for row in self.of.rows)}"
            )

    @property
    def of(self) -> Study:
        """What is compared."""
        return STUDIES[self.name]

    @property
    def rows(self) -> list[Row]:
        """The rows that are asked for."""
        asked = set(filter(None, self.methods.split(",")))
        return [row for row in self.of.rows if not asked or row.method in asked]

    @property
    def columns(self) -> list[str]:
        """The tasks that are asked for."""
        return [task for task in self.tasks.split(",") if task] or list(self.of.tasks)

    @property
    def folder(self) -> Path:
        """Where runs and table go."""
        return Path(self.run) if "/" in self.run else RUNS / (self.run or self.name)


def study(config: StudyConfig) -> int:
    """Train and evaluate what is not done yet, then write the table.

    Returns:
        0 when all is done, 85 when a run was told to stop and saved.

    Raises:
        TrainError: with a sentence.
    """
    todo = [(row, seed) for seed in range(config.seeds) for row in config.rows]
    log.info(
        "%s: %d runs of %d steps with %d clips each, then %s on all of them and on %s",
        config.of.about, len(todo), config.steps, config.batch_size, ", ".join(config.columns),
        SCRATCH,
    )  # fmt: skip
    started = time.monotonic()
    runs = {(row, seed): run_of(config, row, seed) for row, seed in todo}
    for run in runs.values():
        _refuse_another_study(run)
    results = [
        _result(SCRATCH, seed, _evaluated(config, None, seed)) for seed in range(config.seeds)
    ]
    for number, (row, seed) in enumerate(todo, 1):
        run = runs[row, seed]
        code = pretrain(run)
        if code != COMPLETE:
            return code
        results.append(_result(row.label, seed, _evaluated(config, run.folder, seed)))
        _write(config, results)
        left = (time.monotonic() - started) / number * (len(todo) - number)
        log.info("%d of %d runs done, about %.0f min left", number, len(todo), left / 60)
    log.info("%s", config.folder / MARKDOWN)
    return COMPLETE


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


def run_of(config: StudyConfig, row: Row, seed: int) -> PretrainConfig[Any]:
    """The run of a row: the method's own recipe, but the study's clips, batch and length."""
    preset = preset_of(config.preset, row.method)
    recipe = method_named(row.method).recipe_of(preset) | {"batch_size": config.batch_size}
    return PretrainConfig(
        model=preset_named(row.method, preset), method=row.method, preset=preset,
        shards=config.shards, split=config.split, seed=seed, schedule_steps=config.steps,
        run=str(config.folder / f"{row.method}-{seed}"), device=config.device,
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


def _evaluated(config: StudyConfig, run: Path | None, seed: int) -> list[dict[str, Any]]:
    """The result of each task, with the run's weights or without any."""
    common = EvalConfig(
        task="", shards=config.task_shards, protocol=config.protocol, pictures=config.pictures,
        cells=config.cells, rounds=config.rounds, seed=seed, device=config.device,
        threads=config.threads, workers=config.workers,
        preset="" if run else preset_of(config.preset, "glcm"),
        checkpoint=run, scratch=run is None, run=str(run or config.folder / "scratch"),
    )  # fmt: skip
    return [evaluate(replace(common, task=task)) for task in config.columns]


def _result(label: str, seed: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    scores = {one["task"]: {**one["metrics"][0], "n": one["n_scored"]} for one in results}
    return {"row": label, "seed": seed, "scores": scores}


# --- the table ----------------------------------------------------------------------------------


def _write(config: StudyConfig, results: list[dict[str, Any]]) -> None:
    facts = {
        "name": config.name,
        "about": config.of.about,
        "said": _said(config),
        "columns": config.columns,
        "results": results,
        "rows": [
            {"row": label, **{task: summary(_of(results, label, task)) for task in config.columns}}
            for label in dict.fromkeys(one["row"] for one in results)
        ],
    }
    config.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(config.folder / STUDY, json.dumps(facts, indent=1) + "\n")
    heads, rows = table(facts)
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]
    text = f"# {config.name}: {config.of.about}\n\n{_said(config)}\n\n" + "\n".join(lines) + "\n"
    write_atomically(config.folder / MARKDOWN, text)


def _said(config: StudyConfig) -> str:
    """The size at which this was run, in a sentence."""
    seen = config.steps * config.batch_size
    rows = "" if len(config.rows) == len(config.of.rows) else " Some of the paper's rows only."
    over = "seeds" if config.seeds > 1 else "test items, of a single seed"
    cells = (
        "" if config.cells is None else f", features in {'x'.join(map(str, config.cells))} cells"
    )
    return (
        f"Preset {config.preset} of each method, which sees as many pictures of a clip as its "
        f"config says; {config.steps} steps of {config.batch_size} clips "
        f"({seen:,} clips seen) from {Path(config.shards).name}; evaluation {config.protocol}"
        f"{cells} on {Path(config.task_shards).name}. Brackets: {LEVEL:.0%} intervals over "
        f"{over}.{rows}"
    )


def _of(results: list[dict[str, Any]], label: str, task: str) -> list[dict[str, Any]]:
    return [one["scores"][task] for one in results if one["row"] == label]


def summary(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and interval: over seeds where there are several (Student's t), else over test items."""
    values = np.array([score["value"] for score in scores], np.float64)
    if len(values) == 1:
        return {name: scores[0][name] for name in ("name", "value", "low", "high")}
    from scipy import stats

    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))
    mean = float(values.mean())
    return {"name": scores[0]["name"], "value": mean, "low": mean - half, "high": mean + half}


def table(facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a study.json, for people; scores in percent."""
    columns = facts["columns"]
    return ["objective", *columns], [
        [row["row"], *(_shown(row[task]) for task in columns)] for row in facts["rows"]
    ]


def _shown(score: dict[str, Any]) -> str:
    text = f"{100 * score['value']:.1f}"
    if score["low"] is None:
        return text
    return f"{text} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
