"""`python -m train evidence`: what the studies found, kept in the repository with its pages.

    make evidence                          # runs/studies -> docs/evidence/ and its two pages

Each study.json goes to docs/evidence/STUDY.json, its figures beside it. Rows, seeds and tasks that
are there already stay, if they were run with the same settings on the same clips, so that seeds of
several days and machines come together; others are replaced with --replace alone. The tables of
docs/evidence.md (in short) and docs/evidence-details.md (the rest), which stand between
`<!-- table6 -->` and `<!-- end -->`, are then written anew; the sentences about them are people's.
The marks, each on one of the pages, are the studies' names, `verdicts` (how many comparisons of
each claim came out how), `claims` (all of them) and `learned` (what the objectives of Table 5
learned of what they ask for).
Whatever is in --studies is published, with its steps and seeds: try things out in another `--run`.
The pictures of the attention map are those of GLCM's first run, and of its first longer one.
"""

import io
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from train import page
from train.checkpoint import write_atomically
from train.config import RUNS
from train.errors import UsageError
from train.evaluation.result import EVALUATIONS, MOVING
from train.studies import claims, learned
from train.studies.catalogue import STUDIES, Study
from train.studies.curves import draw as draw_curves
from train.studies.figure import draw as draw_figure
from train.studies.table import STUDY, Result, caption, corpus_of, facts_of, table
from train.studies.verdicts import draw as draw_verdicts
from train.tabletext import grid

DOCS = Path("docs")
PAGES, FOLDER = ("evidence.md", "evidence-details.md"), "evidence"
STILL = ".png"
OVERLAYS = {
    "attention": "planted/glcm-1/eval/localization-test-*/attention-*",
    "attention-longer": "planted/glcm-x4-1/eval/localization-test-*/attention-*",
}
"""In FOLDER: the map over some test clips, still and moving -> where it is below --studies, of seed
1, as the page says: of GLCM's run and of the one that was trained longer."""
CURVES = "-curves.png"
"""Ending of the picture of a study's training, beside its figure."""
DPI, PALETTE = 100, 256
Made = Callable[[Mapping[str, dict[str, Any]]], tuple[Sequence[str], list[list[str]]]]
TABLES: Mapping[str, Made] = {
    "verdicts": claims.counts,
    "claims": claims.table,
    "learned": learned.table,
}
"""Mark -> what makes its table of all studies."""
VERDICTS = "verdicts.png"
"""In FOLDER: all comparisons of all claims."""
VERDICTS_SAY = (
    "Every comparison: the row that should be better, the row it is compared with, and by how many "
    "points it is better on each task"
)
"""For who does not see that picture."""
NOT_RUN = "*Not run yet.*"


class Joined(NamedTuple):
    """A study's results with those that were there."""

    facts: dict[str, Any]
    """As study.json."""
    told: str
    """A sentence about the old ones."""
    replaces: bool = False
    """Whether those could not stay."""


@dataclass(frozen=True)
class EvidenceConfig:
    """Where the studies are, and where the pages."""

    studies: Path = RUNS / "studies"
    """Folder of `train study`."""
    docs: Path = DOCS
    """Folder with the pages."""
    replace: bool = False
    """Results of other settings or clips take the place of those that are there."""


def evidence(config: EvidenceConfig) -> list[str]:
    """Publish what the studies found and write the pages' tables anew.

    Returns:
        Of each study that was run, what became of it.

    Raises:
        UsageError: no study was run, or a page or one of their marks is missing.
    """
    after = _joined_with_what_is_there(config)
    studies = committed(config.docs) | {name: one.facts for name, one in after.items()}
    pages = filled({name: _text_of(config.docs / name) for name in PAGES}, studies)
    # Nothing is refused from here on.
    (config.docs / FOLDER).mkdir(parents=True, exist_ok=True)
    for name in after:
        text = json.dumps(studies[name], indent=1) + "\n"
        write_atomically(config.docs / FOLDER / f"{name}.json", text)
    _copy_overlays(config)
    _draw_figures(studies, config.docs / FOLDER)
    for name, text in pages.items():
        write_atomically(config.docs / name, text)
    return [f"{name}: {one.told}" for name, one in after.items()]


def _joined_with_what_is_there(config: EvidenceConfig) -> dict[str, Joined]:
    """Each study that was run, with its results that were published before.

    Raises:
        UsageError: none was run, or published results would be replaced unasked.
    """
    found = {name: config.studies / name / STUDY for name in STUDIES}
    there = {name: path for name, path in found.items() if path.is_file()}
    if not there:
        raise UsageError(
            f"no study was run in {config.studies}; expected one such as {found['table6']}: "
            "`make study NAME=table6` makes it"
        )
    before = committed(config.docs)
    after = {
        name: joined(before.get(name), json.loads(path.read_bytes()))
        for name, path in there.items()
    }
    if not config.replace:
        _refuse_to_replace(after, config.studies)
    return after


def _copy_overlays(config: EvidenceConfig) -> None:
    """The pictures of the attention map, where the studies have them."""
    for name, where in OVERLAYS.items():
        if still := sorted(config.studies.glob(where + STILL)):
            (config.docs / FOLDER / f"{name}.jpg").write_bytes(page.as_jpeg(still[0]))
        if moving := sorted(config.studies.glob(where + MOVING)):
            shutil.copyfile(moving[0], config.docs / FOLDER / f"{name}{MOVING}")


def _draw_figures(studies: Mapping[str, dict[str, Any]], folder: Path) -> None:
    """Of each study its scores and its training, and all verdicts."""
    for name, facts in studies.items():
        _save(draw_figure(facts), folder / f"{name}.png")
        if curves := draw_curves(STUDIES[name], facts.get("curves", {})):
            _save(curves, folder / f"{name}{CURVES}")
    if verdicts := draw_verdicts(studies):
        _save(verdicts, folder / VERDICTS)
    else:
        (folder / VERDICTS).unlink(missing_ok=True)


def _refuse_to_replace(found: Mapping[str, Joined], studies: Path) -> None:
    """A trial must not take the place of published results unasked.

    Raises:
        UsageError: a study would; says which, and what is there.
    """
    if lost := [f"{name} {one.told}" for name, one in found.items() if one.replaces]:
        raise UsageError(
            f"nothing was published, for of what is in {studies} {'; '.join(lost)}. Publish "
            "another folder (--studies), or mean it: --replace"
        )


def joined(old: dict[str, Any] | None, new: dict[str, Any]) -> Joined:
    """A study's new results with the old ones that can stand beside them."""
    if old is None:
        return Joined(new, "new")
    study = STUDIES[new["name"]]
    replaced = _replaced(study, old, new)
    old = _without(study, old, replaced)
    scores: dict[tuple[int, str], dict[str, Any]] = {}
    stale: dict[str, None] = {}
    for one in (*old["results"], *new["results"]):
        there = scores.setdefault((one["seed"], one["row"]), {})
        for column in _of_another_checkpoint(there, one["scores"]):
            stale[f"{one['row']}, seed {one['seed']}"] = None
            del there[column]
        there.update(one["scores"])
    order = [row.label for row in study.all_rows]
    both = sorted((key for key in scores if key[1] in order),
                  key=lambda key: (key[0], order.index(key[1])))  # fmt: skip
    results = [Result(row, seed, scores[seed, row]) for seed, row in both]
    kept = len(both) - len({(one["seed"], one["row"]) for one in new["results"]})
    curves = dict(sorted({**old.get("curves", {}), **new.get("curves", {})}.items()))
    facts = facts_of(study, new["name"], {**old["said"], **new["said"]}, results, curves)
    told = "".join(f"replaces results {why}; " for why in replaced.values())
    told += f"{kept} rows of other runs stay beside {len(both) - kept} of these"
    gone = dict.fromkeys(row for _, row in scores if row not in order)
    told += f"; no rows of the study any more: {', '.join(gone)}" * bool(gone)
    told += f"; trained anew, and their old scores left out: {'; '.join(stale)}" * bool(stale)
    return Joined(facts, told, bool(replaced))


def _replaced(study: Study, old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Corpus -> why its old results cannot stand beside the new ones."""
    before = old["said"]
    found = {
        corpus: f"of other settings ({corpus}: {before[corpus]})"
        for corpus, said in new["said"].items()
        if before.get(corpus, said) != said
    }
    for column, clips in _clips_of(old["results"] + new["results"]).items():
        if len(clips) > 1:
            corpus = corpus_of(study, column)
            found.setdefault(corpus, f"on other clips of {corpus} (another SHA-256 of the index)")
    return found


def _without(study: Study, facts: dict[str, Any], corpora: Collection[str]) -> dict[str, Any]:
    """What a study says of the other corpora."""

    def stay(scores: dict[str, Any]) -> dict[str, Any]:
        return {name: score for name, score in scores.items()
                if corpus_of(study, name) not in corpora}  # fmt: skip

    results = ({**one, "scores": stay(one["scores"])} for one in facts["results"])
    return {
        "said": {name: said for name, said in facts["said"].items() if name not in corpora},
        "results": [one for one in results if one["scores"]],
        "curves": {run: curve for run, curve in facts.get("curves", {}).items()
                   if run.partition("/")[0] not in corpora},
    }  # fmt: skip


def _of_another_checkpoint(
    old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> list[str]:
    """Columns of a row and seed whose run was trained anew since: no row shows two networks."""
    trained = {_run_of(score): score.get("checkpoint_sha256") for score in new.values()}
    return [
        column
        for column, score in old.items()
        if _run_of(score) in trained and trained[_run_of(score)] != score.get("checkpoint_sha256")
    ]


def _run_of(score: dict[str, Any]) -> str:
    """As CORPUS/ROW-SEED."""
    return str(score.get("result", "")).partition(f"/{EVALUATIONS}/")[0]


def _clips_of(results: Sequence[dict[str, Any]]) -> dict[str, set[str | None]]:
    """Task -> SHA-256 of the indexes that it was scored on."""
    clips: dict[str, set[str | None]] = {}
    for one in results:
        for task, score in one["scores"].items():
            clips.setdefault(task, set()).add(score.get("index_sha256"))
    return clips


def committed(docs: Path = DOCS) -> dict[str, dict[str, Any]]:
    """The studies in docs/evidence, by name."""
    paths = {name: docs / FOLDER / f"{name}.json" for name in STUDIES}
    return {name: json.loads(path.read_bytes()) for name, path in paths.items() if path.is_file()}


def _save(figure: Any, path: Path) -> None:
    """As a PNG with a palette: drawings have few colours, and it is a third as large."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(PALETTE).save(path, optimize=True)


def filled(texts: Mapping[str, str], studies: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """The pages with their tables.

    Args:
        texts: page -> what it says.
        studies: name -> content of its study.json.

    Raises:
        UsageError: a mark is on none of them, or there twice.
    """
    blocks = {name: study_block(studies.get(name)) for name in STUDIES}
    for name, made in TABLES.items():
        blocks[name] = "\n".join(grid(*made(studies)))
    if any(one.finding.difference is not None for one in claims.judged(studies)):
        blocks["verdicts"] += f"\n\n![{VERDICTS_SAY}]({FOLDER}/{VERDICTS})"
    pages = dict(texts)
    for name, block in blocks.items():
        where = _page_with(name, texts)
        pages[where] = _mark(name).sub(partial(_between, block), pages[where])
    return pages


def _mark(name: str) -> re.Pattern[str]:
    """A pair of marks without another mark in between, which is people's text if one is missing."""
    return re.compile(rf"(<!-- {name} -->\n)(?:(?!<!-- [\w-]+ -->).)*(<!-- end -->)", re.DOTALL)


def _page_with(name: str, texts: Mapping[str, str]) -> str:
    """The page that has a mark.

    Raises:
        UsageError: none has it, or it is there more than once.
    """
    pages = " and ".join(texts)
    there = [page for page, text in texts.items() for _ in _mark(name).finditer(text)]
    if not there:
        raise UsageError(f"{pages} have no `<!-- {name} -->` with an `<!-- end -->` after it, "
                         "between which its table goes; add them to one of them")  # fmt: skip
    if len(there) > 1:
        raise UsageError(f"{pages} have `<!-- {name} -->` {len(there)} times; leave one")
    return there[0]


def _between(block: str, marks: re.Match[str]) -> str:
    return f"{marks[1]}{block}\n{marks[2]}"


def study_block(facts: dict[str, Any] | None) -> str:
    """A study's figure and table, and below them, folded, how it was run and its training."""
    if facts is None:
        return NOT_RUN
    heads, rows = table(facts)
    name = facts["name"]
    picture = f"![{name}: means, seeds and intervals]({FOLDER}/{name}.png)"
    training = f"![{name}: training]({FOLDER}/{name}{CURVES})"
    folded = [caption(facts), *(["", training] if facts.get("curves") else [])]
    return "\n".join([picture, "", *grid(heads, rows), "", *_folded("How it was run", folded)])


def _folded(summary: str, lines: Sequence[str]) -> list[str]:
    """Lines of Markdown that open when they are asked for."""
    return ["<details>", f"<summary>{summary}</summary>", "", *lines, "", "</details>"]


def _text_of(page: Path) -> str:
    try:
        return page.read_text()
    except OSError as error:
        raise UsageError(f"{page} cannot be read ({error.strerror}); --docs is the repository's "
                         "docs, or a copy of that folder") from error  # fmt: skip
