"""`python -m train evidence`: what the studies found, kept in the repository with its page.

    make evidence                          # runs/studies -> docs/evidence/, docs/evidence.md

Each study.json is copied to docs/evidence/STUDY.json, and the tables of docs/evidence.md, which
stand between `<!-- table6 -->` and `<!-- end -->`, are written anew from these copies; the
sentences about them are people's. The page's marks are the studies' names, and `claims`. Whatever
is in --studies is published, with its steps and seeds: try things out in another `--run`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.checkpoint import write_atomically
from train.claims import CLAIMS, Finding, findings
from train.config import RUNS
from train.errors import UsageError
from train.studies import STUDIES
from train.studytable import STUDY, table
from train.tabletext import grid

DOCS = Path("docs")
PAGE, FOLDER = "evidence.md", "evidence"
CLAIMS_MARK = "claims"
NOT_RUN = "*Not run yet.*"


@dataclass(frozen=True)
class EvidenceConfig:
    """Where the studies are, and where the page."""

    studies: Path = RUNS / "studies"
    """Folder of `train study`."""
    docs: Path = DOCS
    """Folder with evidence.md."""


def evidence(config: EvidenceConfig) -> list[str]:
    """Copy what the studies found and write the page's tables anew.

    Returns:
        Names of the studies that were copied.

    Raises:
        UsageError: no study was run, or the page or one of its marks is missing.
    """
    found = {name: config.studies / name / STUDY for name in STUDIES}
    there = {name: path for name, path in found.items() if path.is_file()}
    if not there:
        raise UsageError(
            f"no study was run in {config.studies}; expected one such as {found['table6']}: "
            "`make study NAME=table6` makes it"
        )
    (config.docs / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, path in there.items():
        write_atomically(config.docs / FOLDER / f"{name}.json", path.read_text())
    page = config.docs / PAGE
    write_atomically(page, filled(_text_of(page), committed(config.docs)))
    return list(there)


def committed(docs: Path = DOCS) -> dict[str, dict[str, Any]]:
    """The studies in docs/evidence, by name."""
    paths = {name: docs / FOLDER / f"{name}.json" for name in STUDIES}
    return {name: json.loads(path.read_bytes()) for name, path in paths.items() if path.is_file()}


def filled(text: str, studies: Mapping[str, dict[str, Any]]) -> str:
    """The page with its tables.

    Raises:
        UsageError: a mark is missing.
    """
    for name in (*STUDIES, CLAIMS_MARK):
        block = claims_table(studies) if name == CLAIMS_MARK else study_block(studies.get(name))
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(text):
            raise UsageError(f"{PAGE} has no `<!-- {name} -->` with an `<!-- end -->` after it, "
                             "between which its table goes; add them")  # fmt: skip
        text = mark.sub(lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text)  # type: ignore[misc]
    return text


def study_block(facts: dict[str, Any] | None) -> str:
    """A study's sentence and table."""
    if facts is None:
        return NOT_RUN
    seeds = len({one["seed"] for one in facts["results"]})
    heads, rows = table(facts)
    runs = f"{seeds} seed{'s' * (seeds > 1)}."
    return f"{facts['said']} {runs}\n\n" + "\n".join(grid(heads, rows))


def claims_table(studies: Mapping[str, dict[str, Any]]) -> str:
    """The claims and what was found."""
    rows = [
        [f"{claim.number}. {claim.text}", *_cells(one)]
        for claim in CLAIMS
        for one in findings(claim, studies)
    ]
    heads = ["claim", "better", "than", "on", "difference", "seeds", "verdict"]
    return "\n".join(grid(heads, rows))


def _cells(one: Finding) -> list[str]:
    found = one.comparison
    return [found.better, found.worse, one.task or "-", _shown(one), str(one.seeds), one.verdict]


def _shown(one: Finding) -> str:
    """In hundredths, signed."""
    if one.difference is None:
        return "-"
    text = f"{100 * one.difference:+.1f}"
    if one.low is None or one.high is None:
        return text
    return f"{text} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def _text_of(page: Path) -> str:
    try:
        return page.read_text()
    except OSError as error:
        raise UsageError(f"{page} cannot be read ({error.strerror}); name the repository's docs "
                         "with --docs") from error  # fmt: skip
