"""Numbers in the sentences of docs/evidence.md are those of the cells that they name.

Behind each stands a comment, which a reader of the page does not see:

    94 %<!-- c | planted_words -->                            mean of a row of the section's study
    93 %<!-- rates | AVTS, rate 0.0003 | planted_words | 1 -->  of another study, of the seed 1
    89.2 %<!-- paper | f | planted_words -->                    the paper's, in its column like this
    6.8 points<!-- f over c | planted_words | did not hold * -->  a difference, and its verdict
    4.5 points<!-- paper | f over c | planted_words -->         the paper's difference
    \\*<!-- f over c | planted_words | did not hold * -->        a star without a difference
    52 comparisons<!-- claim | 3 -->                            how many a claim has

Other numbers are refused, but for those in USUAL, which are no results.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from train.studies.catalogue import STUDIES
from train.studies.claims import DECIDED, STAR, Judged, judged
from train.studies.evidence import PAGES, TABLES, committed
from train.studies.table import goodness_in_paper

DOCS = Path(__file__).parents[3] / "docs"
STUDY_OF = {
    "Table 5": "table5",
    "Table 6": "table6",
    "Table 7": "table7",
    "Table 8": "table8",
    "Table 9": "table9",
    "Where the attention lies": "localization",
    "With few labels": "labels",
    "Events by the second": "events",
}
"""How a heading begins -> the study whose rows its sentences name."""
CELL = r"<!-- (?P<cell>.*?) -->"
NUMBER = re.compile(
    r"(?<![\d.,])(?P<said>-?\d+(?:\.\d+)?) (?P<unit>%|points|times|comparisons)"
    rf"(?: \[(?P<low>-?[\d.]+), (?P<high>-?[\d.]+)\])?(?:{CELL})?"
)
STARRED = re.compile(rf"\\\*{CELL}")
USUAL = re.compile("|".join((
    r"Table \d", r"claims? \d[a-c]?(?: and \d[a-c])?", r"seed \d", r"bf16", r"fp32", r"M = \d",
    r"\b[1357](?:, [1357])* and [1357]\b", r"\b(?:1,2|3)00(?: steps)?\b",
    r"(?:\d+, )*\d+ (?:and all )?labels", r"\d+ epochs", r"100 test clips",
)))  # fmt: skip
"""How many, how long, and names."""
LINK, CODE = re.compile(r"\]\([^)]*\)"), re.compile(r"`[^`]*`")
NEAR = 60
"""A star stands within so many letters of its number."""
MADE = re.compile(rf"<!-- (?:{'|'.join([*STUDIES, *TABLES])}) -->.*?<!-- end -->", re.DOTALL)


class Cell(NamedTuple):
    """What stands there, in hundredths (of the mass ratio in ones)."""

    value: float
    low: float | None = None
    high: float | None = None
    """Both are None of a seed, and of the paper's."""
    verdict: str = ""
    """Of a claim's comparison."""
    unit: str = "%"


def sections() -> list[tuple[str, str]]:
    """Each study with the sentences about it, in one line."""
    found = []
    for text in (DOCS / PAGES[0]).read_text().split("\n## "):
        found += [
            (study, re.sub(r"\s+", " ", MADE.sub("", text)))
            for heading, study in STUDY_OF.items()
            if text.startswith(heading)
        ]
    return found


@cache
def studies() -> dict[str, Any]:
    return committed(DOCS)


@cache
def comparisons() -> list[Judged]:
    return judged(studies())


def cell_of(study: str, named: str) -> Cell:
    """The cell that a comment names, in a section whose study is given."""
    first, *rest = named.split(" | ")
    if first in STUDIES:
        study, (first, *rest) = first, rest
    if first == "paper":
        return paper_of(study, *rest)
    if first == "claim":
        return Cell(sum([one.claim.number] == rest for one in comparisons()), unit="comparisons")
    if " over " in first:
        return difference_of(study, *first.split(" over "), *rest)
    column, *seed = rest
    return seed_of(study, first, column, int(seed[0])) if seed else mean_of(study, first, column)


def paper_of(study: str, rows: str, column: str) -> Cell:
    """A number of the paper's table, or the difference of two."""
    printed = goodness_in_paper(STUDIES[study], column)
    one, *other = (printed[label_of(study, row)] for row in rows.split(" over "))
    return Cell(one - other[0], unit="points") if other else Cell(abs(one))


def mean_of(study: str, row: str, column: str) -> Cell:
    """Of all seeds."""
    (cells,) = (one for one in studies()[study]["rows"] if one["row"] == label_of(study, row))
    return as_shown(column, *(cells[column][part] for part in ("value", "low", "high")))


def seed_of(study: str, row: str, column: str, seed: int) -> Cell:
    """Of one seed."""
    (scores,) = (one["scores"] for one in studies()[study]["results"]
                 if (one["row"], one["seed"]) == (label_of(study, row), seed))  # fmt: skip
    return as_shown(column, scores[column]["value"])


def as_shown(column: str, value: float, *ends: float) -> Cell:
    """Shares as percentages whose intervals end at 0 and 100, ratios as they are."""
    if column.endswith("mass_ratio"):
        low, high = ends or (None, None)
        return Cell(value, low, high, unit="times")
    low, high = (100 * min(max(end, 0), 1) for end in ends) if ends else (None, None)
    return Cell(100 * value, low, high)


def difference_of(study: str, better: str, than: str, column: str, verdict: str = "") -> Cell:
    """Of a claim's comparison, whose verdict must be the one that is named."""
    (one,) = (one for one in comparisons() if is_called(one, study, better, than, column))
    assert one.told == verdict, f"{better} over {than} on {column}: {one.told}"
    difference, low, high = one.finding.difference, one.finding.low, one.finding.high
    assert difference is not None and low is not None and high is not None
    return Cell(100 * difference, 100 * low, 100 * high, verdict, "points")


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


def wrong_in(study: str, sentences: str) -> list[str]:
    """What does not agree with the cells that sentences name."""
    numbers = list(NUMBER.finditer(sentences))
    ends = [one.start() for one in numbers[1:]] + [len(sentences)]
    wrong = []
    stars = 0
    for found, end in zip(numbers, ends, strict=False):
        near = STARRED.sub("", sentences[found.end() : end])[:NEAR].count(r"\*")
        stars += near
        wrong += wrong_of(study, found, starred=bool(near))
    if STARRED.sub("", sentences).count(r"\*") != stars:
        wrong.append("a star belongs to no number")
    for star in STARRED.finditer(sentences):
        cell = looked_up(study, star["cell"])
        if isinstance(cell, str) or not cell.verdict.endswith(STAR):
            wrong.append(f"a star at {star['cell']}: {cell}")
    return wrong + unnamed_in(sentences)


def unnamed_in(sentences: str) -> list[str]:
    """Numbers without a comment, and comments without a number."""
    left = STARRED.sub("", NUMBER.sub("", sentences))
    wrong = [f"{one} stands behind no number" for one in re.findall(CELL, left)]
    left = USUAL.sub("", CODE.sub("", LINK.sub("", re.sub(CELL, "", left))))
    found = re.finditer(r"\S*(?:\d|%|percent)\S*", left)
    return wrong + [f"{one[0]} names no cell: `{one[0]}<!-- ROW | COLUMN -->`" for one in found]


def looked_up(study: str, named: str) -> Cell | str:
    """The cell that a comment names, or why it names none."""
    try:
        return cell_of(study, named)
    except (KeyError, ValueError, TypeError, AssertionError) as error:
        return f"no such cell ({named}): {error!r}"


def wrong_of(study: str, found: re.Match[str], starred: bool) -> list[str]:
    """Of one number, and whether a star stands near it."""
    if not found["cell"]:
        return [f"{found[0]} names no cell: `{found[0]}<!-- ROW | COLUMN -->`"]
    cell = looked_up(study, found["cell"])
    if isinstance(cell, str):
        return [f"{found[0]}: {cell}"]
    # Of a verdict that is decided, words say which way ("6.8 points fewer").
    decided = cell.verdict.removesuffix(STAR) in DECIDED
    value = abs(cell.value) if decided else cell.value
    wrong = [] if is_rounded(found["said"], value) else [f"{found[0]}: it is {value:.2f}"]
    for end, limit in ((found["low"], cell.low), (found["high"], cell.high)):
        if end is not None and (limit is None or not is_rounded(end, limit)):
            wrong.append(f"{found[0]}: {cell}")
    if found["unit"] != cell.unit:
        wrong.append(f"{found[0]}: in {cell.unit}")
    if starred != cell.verdict.endswith(STAR):
        wrong.append(f"{found[0]}: no star, or one that is none ({cell.verdict})")
    return wrong


def test_the_page_has_a_section_of_each_study() -> None:
    assert sorted(study for study, _ in sections()) == sorted(STUDY_OF.values())


@pytest.mark.parametrize(("study", "sentences"), sections(), ids=[name for name, _ in sections()])
def test_numbers_are_those_of_the_cells_they_name(study: str, sentences: str) -> None:
    assert NUMBER.search(sentences)
    assert wrong_in(study, sentences) == []


@pytest.mark.parametrize(
    "named",
    ["c | planted_words", "random weights (glcm), z_l | grid_digits", "f | planted_mismatch"],
)
def test_a_mean_is_the_one_in_the_table_of_the_page(named: str) -> None:
    row, column = named.split(" | ")
    lines = (DOCS / PAGES[0]).read_text().partition("<!-- table6 -->")[2].splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    shown = next(line for line in table if line[0].partition(":")[0] == row)
    cell = cell_of("table6", named)
    assert shown[table[0].index(column)].startswith(f"{cell.value:.1f} [{cell.low:.1f}, ")


def test_a_mean_is_that_of_its_seeds() -> None:
    name = "AVTS, rate 0.0003 | planted_words"
    seeds = [cell_of("table6", f"rates | {name} | {seed}").value for seed in (1, 2, 3)]
    assert sum(seeds) / 3 == pytest.approx(cell_of("rates", name).value)


def test_the_papers_numbers_are_those_it_prints() -> None:
    assert cell_of("table6", "paper | f | planted_words").value == pytest.approx(89.2)
    cell = cell_of("table6", "paper | f over a | planted_words")
    assert cell.value == pytest.approx(89.2 - 65.3)


NAMED = "89.2 %<!-- paper | f | planted_words -->"


@pytest.mark.parametrize(
    ("sentence", "complaint"),
    [
        ("It reads 12 %.", "names no cell"),
        ("It reads 12%.", "names no cell"),
        ("It reads 12 percent.", "names no cell"),
        ("It is .12 there.", "names no cell"),
        ("It reads 12 of its words.", "names no cell"),
        ("It is 12-fold.", "names no cell"),
        (f"It reads 12 and {NAMED}.", "names no cell"),
        (f"It reads 12, {NAMED}.", "names no cell"),
        (f"It reads 12–{NAMED}.", "names no cell"),
        (f"It reads {NAMED} [80, 90].", "names no cell"),
        (f"It reads {NAMED} (80; 90).", "names no cell"),
        (f"It reads {NAMED.replace('89.2', '12')}.", "it is 89.20"),
        (f"It reads -{NAMED}.", "it is 89.20"),
        (f"It reads {NAMED.replace('%', 'points')}.", "in %"),
        (f"It reads {NAMED} (\\*).", "no star, or one that is none"),
        (f"It reads {NAMED} of {'very ' * 20}many words (\\*).", "a star belongs to no number"),
        (f"It (\\*) reads {NAMED}.", "a star belongs to no number"),
        (f"It reads {NAMED.replace('| f', '| g')}.", "no such cell"),
        ("It reads <!-- paper | f | planted_words -->.", "stands behind no number"),
        ("Of 12 comparisons<!-- claim | 3 -->", "12 comparisons"),
    ],
)
def test_what_agrees_with_no_cell_is_told(sentence: str, complaint: str) -> None:
    assert any(complaint in one for one in wrong_in("table6", sentence))


def test_what_agrees_is_not_told() -> None:
    sentence = f"After 300 steps of Table 6, seed 1, with 20 labels, it reads {NAMED} ([x](y1.md))."
    assert wrong_in("table6", sentence) == []


def test_a_wrong_number_or_verdict_is_none_of_a_cell() -> None:
    assert is_rounded("94", 94.2) and not is_rounded("95", 94.2) and not is_rounded("94.1", 94.2)
    assert "f over a on planted_words: held" in str(
        looked_up("table6", "f over a | planted_words | undecided")
    )


PLACEHOLDER = re.compile(r"^[A-Z]{3,}$|\b(?:TODO|FIXME|XXX)\b", re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_no_line_is_a_word_to_be_replaced(name: str) -> None:
    assert PLACEHOLDER.findall((DOCS / name).read_text()) == []
