"""The table of a study: means and intervals, and whether rows stand in the paper's order."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from train.checkpoint import write_atomically
from train.config import uses_bf16
from train.dist import choose_device
from train.papers import TABLES
from train.studies.catalogue import ALSO, BESIDE, CONTROL, CORPORA, LIKE, STUDIES, Corpus, Study
from train.studies.config import StudyConfig
from train.tabletext import grid

STUDY, MARKDOWN = "study.json", "study.md"
LEVEL = 0.95
Floats = npt.NDArray[np.float64]
WHOLE_SPLIT = "train"
"""What is trained on where nothing is said."""
Curves = Mapping[str, Mapping[str, list[float]]]
"""Run, as CORPUS/ROW-SEED, -> its `steps` and what was measured there, by name."""
RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
RAISED_SAYS = "A raised number: a cell of so many seeds only."
FEWEST_RANKED = 3
"""Of fewer rows an order says nothing."""


@dataclass(frozen=True)
class Result:
    """Of a row with a seed."""

    row: str
    seed: int
    scores: dict[str, dict[str, Any]]
    """Task -> its first metric: `name`, `value`, `low`, `high`, `n`, `higher_is_better`, `unit`;
    `result`, its folder below the studies' one; the sha256 of checkpoint and index, when it was
    measured, and by which commit."""


def write(facts: dict[str, Any], folder: Path) -> None:
    """study.json and study.md of the rows that are done, see `facts_of`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / STUDY, json.dumps(facts, indent=1) + "\n")
    heads, lines = table(facts)
    rows = "\n".join(grid(heads, lines))
    text = f"# {facts['name']}: {facts['about']}\n\n{caption(facts)}\n\n{rows}\n"
    write_atomically(folder / MARKDOWN, text)


def facts_of(
    study: Study, name: str, settings: dict[str, str], results: list[Result],
    curves: Curves | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What study.json holds: every score, its row's mean and interval, the order of rows.

    Args:
        study: whose rows.
        name: its.
        settings: corpus -> a sentence, see `said`.
        results: what was measured.
        curves: run -> what it measured in training, see `train.studies.curves`.
    """
    columns = _in_order(study, dict.fromkeys(task for one in results for task in one.scores))
    rows: list[dict[str, Any]] = []
    labels = [row.label for row in study.all_rows]
    for label in sorted({one.row for one in results}, key=labels.index):
        scores = {task: _of(results, label, task) for task in columns}
        rows.append({"row": label, **{task: summary(s) for task, s in scores.items() if s}})
    orders = {task: agreement(study, rows, task) for task in columns}
    return {
        "name": name,
        "about": study.about,
        "said": settings,
        "extent": extent(study, results, {cell["seeds"] for row in rows for cell in _cells(row)}),
        "columns": columns,
        "results": [asdict(one) for one in results],
        "rows": rows,
        "agreement": {task: order for task, order in orders.items() if order is not None},
        "curves": curves or {},
    }


def _in_order(study: Study, columns: Iterable[str]) -> list[str]:
    """As the study names its tasks, with what stands beside each; others after them."""
    known = [
        column
        for corpus in CORPORA
        for task in study.tasks_on(corpus)
        for column in (task, *(f"{task}{CONTROL}{name}"
                               for name in (*BESIDE.get(task, ()), *ALSO.get(task, ()))))
    ]  # fmt: skip
    places = {column: place for place, column in enumerate(known)}
    return sorted(columns, key=lambda column: places.get(column, len(known)))


def caption(facts: dict[str, Any]) -> str:
    """What stands above the table of a study.json."""
    said, further = facts["said"], _longer(facts["name"])
    if len(said) == 1:
        return f"{next(iter(said.values()))}{further} {facts['extent']}"
    texts = (f"{name}: {text}" for name, text in said.items())
    return f"{' '.join(texts)}{further} {facts['extent']}"


def _longer(study: str) -> str:
    """Which runs are trained longer than the study says, by the first row of each."""
    longer = {row.run: row for row in reversed(STUDIES[study].rows) if row.longer > 1}
    return "".join(f" {row.label}: {row.longer} times the steps." for row in longer.values())


def said(config: StudyConfig) -> dict[str, str]:
    """Corpus -> the size at which it was run, in a sentence.

    Results of a corpus with equal ones can be put together.
    """
    return {name: _said_of(config, corpus) for name, corpus in config.used_corpora().items()}


def _said_of(config: StudyConfig, corpus: Corpus) -> str:
    seen = (config.steps or 0) * (config.batch_size or 0)
    preset = config.preset or (corpus.full if config.size == "full" else corpus.small)
    cells = "" if config.cells is None else f", features in {_times(config.cells)} cells"
    pictures = "" if config.pictures is None else f", pictures {config.pictures}"
    missing = " Clips that are missing were left out." * config.allow_missing
    rounds = f" Rounds {config.rounds} alone." * bool(config.rounds)
    in_bf16 = uses_bf16(config.precision, choose_device(config.device, 0))
    bf16 = ", networks in bf16" * in_bf16
    part = "" if config.split == WHOLE_SPLIT else f"'s {config.split}"
    return (
        f"Preset {preset} of each method, which sees as many pictures of a clip as its config "
        f"says; {config.steps} steps of {config.batch_size} clips ({seen:,} clips seen) from "
        f"{Path(corpus.shards).name}{part}, scored on {Path(corpus.task_shards).name}{bf16}; "
        f"evaluation {config.protocol}{pictures}{cells}, where a row or task has no other one of "
        f"its own.{rounds}{missing}"
    )


def extent(study: Study, results: list[Result], counts: set[int]) -> str:
    """Over what the intervals are, and which rows and columns are missing.

    Args:
        study: whose rows and columns.
        results: what was measured.
        counts: seeds of a cell, of all cells.
    """
    over = ["seeds"] * (max(counts, default=1) > 1) + ["test items"] * (1 in counts)
    there = {one.row for one in results}
    missing = [row.label for row in study.all_rows if row.label not in there]
    columns = _columns_without(study, {task for one in results for task in one.scores})
    return (
        f"{_seeds(results)}. Brackets: {LEVEL:.0%} "
        f"intervals over {', or '.join(over)}{' where a cell has one seed' * (len(over) > 1)}."
        + f" {RAISED_SAYS}" * (len(counts) > 1)
        + f" Not run: {'; '.join(missing)}." * bool(missing)
        + f" Columns not run: {', '.join(columns)}." * bool(columns)
    )  # fmt: skip


def _seeds(results: list[Result]) -> str:
    """Of each corpus, where they are not the same of all."""
    found: dict[str, set[int]] = {}
    for one in results:
        for score in one.scores.values():
            found.setdefault(str(score.get("result", "")).partition("/")[0], set()).add(one.seed)
    said = {name: ", ".join(map(str, sorted(seeds))) for name, seeds in found.items()}
    if len(set(said.values())) > 1:
        return f"Seeds: {'; '.join(f'{name} {seeds}' for name, seeds in said.items())}"
    (seeds,) = set(said.values()) or {""}
    return f"Seed{'s' * (',' in seeds)} {seeds}"


def _cells(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores of a row of study.json, without its name."""
    return [score for column, score in row.items() if column != "row"]


def _columns_without(study: Study, there: set[str]) -> list[str]:
    """The study's columns that nobody has looked at, of the corpora that have some."""
    return [
        task
        for corpus in CORPORA
        if there & {*study.tasks_on(corpus)}
        for task in study.tasks_on(corpus)
        if task not in there
    ]


def _times(cells: tuple[int, int, int]) -> str:
    return "x".join(map(str, cells))


def _of(results: list[Result], label: str, task: str) -> list[dict[str, Any]]:
    return [one.scores[task] for one in results if one.row == label and task in one.scores]


def summary(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and interval: over seeds where there are several (Student's t), else over test items."""
    values = np.array([score["value"] for score in scores], np.float64)
    kept = {name: scores[0].get(name) for name in ("name", "unit", "higher_is_better")}
    kept["seeds"] = len(values)
    if len(values) == 1:
        return {**kept, **{name: scores[0][name] for name in ("value", "low", "high")}}
    low, high = map(float, interval(values))
    return {**kept, "value": float(values.mean()), "low": low, "high": high}


def interval(values: Floats) -> tuple[Floats, Floats]:
    """Of the mean over seeds, which are the first axis and two at least (Student's t): its ends."""
    from scipy import stats

    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values, axis=0)
    return values.mean(0) - half, values.mean(0) + half


def agreement(study: Study, rows: list[dict[str, Any]], task: str) -> dict[str, Any] | None:
    """Spearman's rank correlation of a column with the paper's column of the same kind of task.

    Returns:
        `like` (the paper's column), `rho` (1: the same order; None where all our rows are equal)
        and `rows`; None where the paper has no such column, or fewer than three rows are done.
    """
    theirs = goodness_in_paper(study, task)
    known = [
        (goodness(row[task]), theirs[row["row"]])
        for row in rows
        if task in row and row["row"] in theirs
    ]
    if len(known) < FEWEST_RANKED:
        return None
    from scipy import stats

    ours, papers = zip(*known, strict=True)
    rho = float(stats.spearmanr(ours, papers).statistic) if len(set(ours)) > 1 else None
    return {"like": LIKE[task], "rho": rho, "rows": len(known)}


def goodness_in_paper(study: Study, task: str) -> dict[str, float]:
    """Label of a row -> the paper's number, negated where lower is better; empty: no column."""
    for paper in TABLES:
        if paper.key != ("glcm", study.table):
            continue
        for place, column in enumerate(paper.columns):
            if task in LIKE and column.name.startswith(LIKE[task]):
                sign = 1.0 if column.higher_is_better else -1.0
                found = {keys[0]: numbers[place] for keys, numbers in paper.rows}
                pairs = {row.label: found.get(row.paper) for row in study.rows}
                return {label: sign * n for label, n in pairs.items() if n is not None}
    return {}


def goodness(score: dict[str, Any]) -> float:
    """A score, negated where lower is better."""
    value: float = score["value"]
    return value if score.get("higher_is_better", True) else -value


def table(facts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a study.json, for people; scores in percent."""
    columns, rows = facts["columns"], facts["rows"]
    most = max((score.get("seeds", 0) for row in rows for score in _cells(row)), default=0)
    lines = [
        [row["row"], *(_shown_of(row[task], most) if task in row else "" for task in columns)]
        for row in rows
    ]
    found = facts.get("agreement", {})
    if found:
        cells = [_agreed(found[task]) if task in found else "" for task in columns]
        lines.append(["the paper's order (Spearman)", *cells])
    return ["row", *columns], lines


def _shown_of(score: dict[str, Any], most: int) -> str:
    """Mean and interval; the number of seeds where other cells have more."""
    seeds = score["seeds"]
    few = "".join(RAISED[int(digit)] for digit in str(seeds)) if seeds < most else ""
    return f"{_shown(score)} {few}".rstrip()


def _agreed(found: dict[str, Any]) -> str:
    rho = "undefined" if found["rho"] is None else f"{found['rho']:+.2f}"
    return f"{rho} ({found['like']}, {found['rows']} rows)"


def _shown(score: dict[str, Any]) -> str:
    is_share = score.get("unit") in (None, "fraction")
    scale, digits = (100, 1) if is_share else (1, 3)
    text = f"{scale * score['value']:.{digits}f}"
    low, high = score["low"], score["high"]
    if low is None:
        return text
    low = max(low, 0)  # Student's t knows no bounds, and no score of a study is below
    if is_share and score.get("higher_is_better", True):  # an error rate may be above 1
        high = min(high, 1)
    return f"{text} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
