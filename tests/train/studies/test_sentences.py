"""Numbers in the sentences of docs/evidence.md are those of the cells that they name.

Behind each stands a comment, which a reader of the page does not see:

    94 %<!-- c | planted_words -->                            mean of a row of the section's study
    93 %<!-- rates | AVTS, rate 0.0003 | planted_words | 1 -->  of another study, of the seed 1
    89.2 %<!-- paper | f | planted_words -->                    the paper's, in its column like this
    6.8 points<!-- f over c | planted_words | did not hold * -->  a difference, and its verdict
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from train.studies.catalogue import STUDIES
from train.studies.claims import Judged, judged
from train.studies.evidence import PAGES, committed
from train.studies.table import goodness_in_paper

DOCS = Path(__file__).parents[3] / "docs"
NUMBER = re.compile(
    r"(?<![\d.])(?P<said>\d+(?:\.\d+)?) (?P<unit>%|points|times)"
    r"(?: \[(?P<low>-?[\d.]+), (?P<high>-?[\d.]+)\])?(?:<!-- (?P<cell>.*?) -->)?"
)
TABLE = re.compile(r"<!-- \w+ -->.*?<!-- end -->", re.DOTALL)
COMMENT = re.compile(r"<!-- .*? -->")


class Cell(NamedTuple):
    """What stands there, in hundredths (of the mass ratio in ones); ends are None of a seed."""

    value: float
    low: float | None = None
    high: float | None = None


def sections() -> list[tuple[str, str]]:
    """Those with a study's figure: the first such study, and the sentences."""
    found = []
    for text in (DOCS / PAGES[0]).read_text().split("\n## "):
        figures = re.findall(r"\(evidence/(\w+)\.png\)", text)
        if studies := [name for name in figures if name in STUDIES]:
            found.append((studies[0], TABLE.sub("", text)))
    return found


def cell_of(study: str, named: str) -> Cell:
    """The cell that a comment names, in a section whose study is given."""
    first, *rest = named.split(" | ")
    if first in STUDIES:
        study, (first, *rest) = first, rest
    if first == "paper":
        label, column = rest
        return Cell(goodness_in_paper(STUDIES[study], column)[label_of(study, label)])
    if " over " in first:
        return difference_of(study, *first.split(" over "), *rest)
    column, *seed = rest
    return seed_of(study, first, column, int(seed[0])) if seed else mean_of(study, first, column)


def mean_of(study: str, row: str, column: str) -> Cell:
    """Of all seeds."""
    factor = 1 if column.endswith("mass_ratio") else 100
    (cells,) = (one for one in committed(DOCS)[study]["rows"] if one["row"] == label_of(study, row))
    value, low, high = (factor * cells[column][part] for part in ("value", "low", "high"))
    return Cell(value, low, high)


def seed_of(study: str, row: str, column: str, seed: int) -> Cell:
    """Of one seed."""
    (scores,) = (one["scores"] for one in committed(DOCS)[study]["results"]
                 if (one["row"], one["seed"]) == (row, seed))  # fmt: skip
    return Cell(100 * scores[column]["value"])


def difference_of(study: str, better: str, than: str, column: str, verdict: str = "") -> Cell:
    """Of a claim's comparison, whose verdict must be the one that is named."""
    (one,) = (one for one in judged(committed(DOCS)) if is_called(one, study, better, than, column))
    assert one.told == verdict, f"{better} over {than} on {column}: {one.told}"
    difference, low, high = one.finding.difference, one.finding.low, one.finding.high
    assert difference is not None and low is not None and high is not None
    return Cell(100 * difference, 100 * low, 100 * high)


def is_called(one: Judged, study: str, better: str, than: str, column: str) -> bool:
    """Rows by what stands before their colon, too."""
    compared = one.finding.comparison
    names = (compared.better.partition(":")[0], compared.than.partition(":")[0])
    return (compared.study, *names, one.finding.task) == (study, better, than, column)


def label_of(study: str, name: str) -> str:
    """A row by its label, or what stands before its colon."""
    labels = [row.label for row in STUDIES[study].all_rows]
    (label,) = (label for label in labels if name in (label, label.partition(":")[0]))
    return label


def is_rounded(said: str, value: float) -> bool:
    """Whether a number as it is written is a value at so many decimals."""
    decimals = len(said.partition(".")[2])
    return bool(abs(float(said) - value) <= 0.5 * 10**-decimals + 1e-9)


@pytest.mark.parametrize(("study", "sentences"), sections(), ids=[name for name, _ in sections()])
def test_numbers_are_those_of_the_cells_they_name(study: str, sentences: str) -> None:
    numbers = list(NUMBER.finditer(sentences))
    assert numbers
    for found in numbers:
        assert found["cell"], f"{found[0]} names no cell: `{found[0]}<!-- ROW | COLUMN -->`"
        cell = cell_of(study, found["cell"])
        assert is_rounded(found["said"], abs(cell.value)), f"{found[0]}: it is {cell.value:.2f}"
        for end, value in ((found["low"], cell.low), (found["high"], cell.high)):
            if end is not None:
                assert value is not None and is_rounded(end, value), f"{found[0]}: {cell}"


def test_every_comment_stands_behind_a_number() -> None:
    """One that the pattern above does not see would check nothing."""
    for _, sentences in sections():
        assert len(COMMENT.findall(sentences)) == sum(
            found["cell"] is not None for found in NUMBER.finditer(sentences)
        )


@pytest.mark.parametrize(
    ("named", "value"),
    [("c | planted_words", 94.2), ("paper | f | planted_words", 89.2),
     ("longer | four times as many | localization:mass_ratio", 6.5),
     ("rates | AVTS, rate 0.0003 | planted_words | 2", 44.6)],
)  # fmt: skip
def test_a_cell_is_found_by_its_name(named: str, value: float) -> None:
    """Against the tables of the page as a person reads them."""
    assert cell_of("table6", named).value == pytest.approx(value, abs=0.05)


def test_a_wrong_number_or_verdict_is_none_of_a_cell() -> None:
    assert is_rounded("94", 94.2) and not is_rounded("95", 94.2) and not is_rounded("94.1", 94.2)
    with pytest.raises(AssertionError, match=r"f over a on planted_words: held"):
        cell_of("table6", "f over a | planted_words | undecided")
