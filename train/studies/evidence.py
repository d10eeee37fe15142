"""`python -m train evidence`: what the studies found, kept in the repository with its pages.

    make evidence                          # runs/studies -> docs/evidence/ and its two pages

Each study.json goes to docs/evidence/STUDY.json, its figures beside it. Rows, seeds and tasks that
are there already stay, if they were run with the same settings on the same clips, so that seeds of
several days and machines come together; others, and those of a run that was trained anew, are
replaced with --replace alone (`train.studies.joined`). The tables of
docs/evidence.md (in short) and docs/evidence-details.md (the rest), which stand between
`<!-- table6 -->` and `<!-- end -->`, are then written anew; the sentences about them are people's.
The marks, each on one of the pages, are the studies' names, `verdicts` (how many comparisons of
each claim came out how), `claims` (all of them) and `learned` (what the objectives of Table 5
learned of what they ask for).
Whatever is in --studies is published, with its steps and seeds: try things out in another `--run`.
The pictures of the attention map are those of GLCM's run of seed 1, and of its longer one.
"""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from train import page
from train.checkpoint import write_atomically
from train.config import RUNS
from train.errors import UsageError
from train.evaluation.result import MOVING
from train.studies import claims, learned
from train.studies.catalogue import LONG, STUDIES
from train.studies.curves import draw as draw_curves
from train.studies.figure import draw as draw_figure
from train.studies.joined import Joined, joined
from train.studies.table import STUDY, caption, table
from train.studies.verdicts import compared, draw as draw_verdicts
from train.tabletext import grid

DOCS = Path("docs")
PAGES, FOLDER = ("evidence.md", "evidence-details.md"), "evidence"
STILL = ".png"
OVERLAYS = {"attention": ("localization", "Ours"), "attention-longer": ("longer", LONG)}
"""In FOLDER: the map over some test clips, still and moving, of a study's row."""
OVERLAID = 1
"""The seed of those, as the pages say."""
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


@dataclass(frozen=True)
class EvidenceConfig:
    """Where the studies are, and where the pages."""

    studies: Path = RUNS / "studies"
    """Folder of `train study`."""
    docs: Path = DOCS
    """Folder with the pages."""
    replace: bool = False
    """Results of other settings or clips, or of a run that was trained anew, take the place of
    those that are there."""


def evidence(config: EvidenceConfig) -> list[str]:
    """Publish what the studies found and write the pages' tables anew.

    Returns:
        Of each study that was run, what became of it.

    Raises:
        UsageError: no study was run, published results would be lost, or a page cannot be read or
            has not each mark once.
    """
    after = _joined_with_what_is_there(config)
    studies = committed(config.docs) | {name: one.facts for name, one in after.items()}
    pages = filled({name: _text_of(config.docs / name) for name in PAGES}, studies)
    pictures = {**_figures(studies), **_overlays(after, config.studies)}
    # Nothing is refused from here on.
    folder = config.docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in after:
        write_atomically(folder / f"{name}.json", json.dumps(studies[name], indent=1) + "\n")
    for name, content in pictures.items():
        _write_or_remove(folder / name, content)
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


def _write_or_remove(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)


def _overlays(studies: Mapping[str, Joined], folder: Path) -> dict[str, bytes]:
    """The pictures of the attention map, of the networks whose scores are published."""
    found: dict[str, bytes] = {}
    for picture, (study, row) in OVERLAYS.items():
        results = studies[study].facts["results"] if study in studies else []
        shown = [folder / one["scores"]["localization"]["result"] for one in results
                 if (one["row"], one["seed"]) == (row, OVERLAID)
                 and "localization" in one["scores"]]  # fmt: skip
        for path in (path for where in shown for path in sorted(where.glob("attention-*"))):
            if path.suffix == STILL:
                found[f"{picture}.jpg"] = page.as_jpeg(path)
            elif path.suffix == MOVING:
                found[f"{picture}{MOVING}"] = path.read_bytes()
    return found


def _figures(studies: Mapping[str, dict[str, Any]]) -> dict[str, bytes | None]:
    """Of each study its scores and its training, and all verdicts; None of what has nothing."""
    drawn: dict[str, bytes | None] = {}
    for name, facts in studies.items():
        drawn[f"{name}{STILL}"] = _as_png(draw_figure(facts))
        drawn[f"{name}{CURVES}"] = _as_png(draw_curves(STUDIES[name], facts.get("curves", {})))
    drawn[VERDICTS] = _as_png(draw_verdicts(studies))
    return drawn


def _refuse_to_replace(found: Mapping[str, Joined], studies: Path) -> None:
    """A trial must not take the place of published results unasked.

    Raises:
        UsageError: a study would; says which, and what is there.
    """
    if lost := [f"{name}: {one.told}" for name, one in found.items() if one.replaces]:
        raise UsageError(
            f"nothing of {studies} was published, because published results would be lost: "
            f"{'; '.join(lost)}. Publish another folder (--studies), or mean it: --replace"
        )


def committed(docs: Path = DOCS) -> dict[str, dict[str, Any]]:
    """The studies in docs/evidence, by name."""
    paths = {name: docs / FOLDER / f"{name}.json" for name in STUDIES}
    return {name: json.loads(path.read_bytes()) for name, path in paths.items() if path.is_file()}


def _as_png(figure: Any) -> bytes | None:
    """With a palette: drawings have few colours, and it is a third as large."""
    if figure is None:
        return None
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=DPI)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(PALETTE).save(small, "PNG", optimize=True)
    return small.getvalue()


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
    if compared(studies):
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
    """A study's figure, and below it, folded, its table, how it was run, and its training."""
    if facts is None:
        return NOT_RUN
    heads, rows = table(facts)
    name = facts["name"]
    picture = f"![{name}: means, seeds and intervals]({FOLDER}/{name}.png)"
    training = f"![{name}: training]({FOLDER}/{name}{CURVES})"
    folded = [*grid(heads, rows), "", caption(facts)]
    folded += ["", training] if facts.get("curves") else []
    return "\n".join([picture, "", *_folded("The numbers, and how it was run", folded)])


def _folded(summary: str, lines: Sequence[str]) -> list[str]:
    """Lines of Markdown that open when they are asked for."""
    return ["<details>", f"<summary>{summary}</summary>", "", *lines, "", "</details>"]


def _text_of(page: Path) -> str:
    try:
        return page.read_text()
    except OSError as error:
        raise UsageError(f"{page} cannot be read ({error.strerror}); --docs is the repository's "
                         "docs, or a copy of that folder") from error  # fmt: skip
