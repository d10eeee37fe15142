"""The claims of the GLCM paper that the studies test, and whether they hold in their results.

Each claim says that one row of a study is better than others on some tasks. Rows of one seed share
clips, order and labels, so that differences are taken seed by seed; a claim holds where the 95 %
interval of their mean (Student's t over seeds) is above zero, and does not where it is below. Of
many comparisons some come out so by chance: a verdict that does not stand when all those of a table
are taken together (Benjamini and Hochberg's procedure, 1995) is marked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from train.studies.catalogue import (
    LONG,
    MULTI,
    ONLY_L,
    OTHERS,
    READ,
    SCRATCH,
    SINGLE,
    at_low_rate,
    longer,
)
from train.studies.table import goodness, interval

Verdict = Literal["held", "did not hold", "undecided", "not run"]
FEWEST_SEEDS = 2
"""Of a single seed there is no interval."""
FALSE_SHARE = 0.05
"""Expected share of false ones among the verdicts that are not marked."""
LEAST_P = 0.001
"""Smaller ones are not told apart."""
STAR = " *"
"""Marks a verdict that does not stand beside all others of its table."""


@dataclass(frozen=True)
class Comparison:
    """A row that should be better than another one on a task."""

    study: str
    better: str
    worse: str
    tasks: tuple[str, ...]
    control: str = ""
    """Of `worse` not the task's score is taken, but this control beside it (`catalogue.BESIDE`)."""
    far: str = ""
    """Another row: the mean of `worse` and it is what `better` should be above, which is whether
    `better` is nearer to this row than to `worse`."""

    @property
    def than(self) -> str:
        """What `better` should be above, for people."""
        if self.far:
            return f"halfway from {self.worse} to {self.far}"
        return f"{self.worse}, {self.control.replace('_', ' ')}" if self.control else self.worse


@dataclass(frozen=True)
class Claim:
    """What the paper says, and the comparisons that show it."""

    number: str
    """In the order of the paper's tables; one that says three things is three, 4a to 4c."""
    text: str
    comparisons: tuple[Comparison, ...]


_GLOBAL = ("planted_class",)
_READ_OR_SAID = (*READ, "planted_sentences")
_LOCAL = (*_READ_OR_SAID, "planted_mismatch")
_ALL = (*_GLOBAL, *_READ_OR_SAID)
"""Of rows of both kinds of features; in mismatch they have the local ones alone, as row e."""
_BY_L_G = ("av_retrieval:a2v_r10:global", "av_retrieval:class_auc:global")
"""Compared only between rows that were trained with L_g: without it the score means nothing."""
_BY_L_L = ("av_retrieval",)
"""The same of L_l."""
_BOTH = "f: both encoders, both, both"
_A, _C = "a: both encoders, L_g, z_g", "c: both encoders, L_l, z_l"
_E = "e: both encoders, both, z_l"
_HARD = ("foreign_sound", "other_class", "centre")
"""Controls of the attention map; a random place is no other test than the centre, which is as
seldom on the source, and as constant."""

_TABLE_8 = tuple(
    (study, f"{steps}{only}", tasks)
    for study, steps, tasks in (("table8", "", READ), ("longer", longer(""), ("planted_words",)))
    for only in ("", ONLY_L)
)
"""Study, ending of its rows, tasks: with both kinds of features, and with local ones alone."""

CLAIMS = (
    Claim("1", "L_g and L_l together beat either alone, on both kinds of tasks", (
        Comparison("table6", _BOTH, _A, (*_ALL, *_BY_L_G)),
        Comparison("table6", _BOTH, _C, (*_ALL, *_BY_L_L)),
        # A colour is a class, and random weights let colours through.
        Comparison("table6", _BOTH, SCRATCH, _GLOBAL),
        # The same features of both: what the other objective has done for them.
        Comparison("table6", "b: both encoders, both, z_g", _A, (*_GLOBAL, *READ)),
        Comparison("table6", _E, _A, ("planted_mismatch",)),
        Comparison("table6", _E, _C, _LOCAL),
    )),
    Claim("2", "several positive pairs beat one averaged pair on local tasks", (
        Comparison("table7", MULTI, SINGLE, (*_LOCAL, *_BY_L_L)),
        Comparison("table7", f"{MULTI}{ONLY_L}", f"{SINGLE}{ONLY_L}", READ),
    )),
    Claim("3", "M = 3 and M = 5 beat M = 1 and M = 7", tuple(
        comparison
        for better in ("M = 3", "M = 5") for worse in ("M = 1", "M = 7")
        for comparison in (
            Comparison("table9", better, worse, (*_LOCAL, *_BY_L_L)),
            Comparison("table9", f"{better}{ONLY_L}", f"{worse}{ONLY_L}", READ),
        )
    )),
    Claim("4a", "attention pooling finds what sounds", (
        Comparison("localization", "Ours", SCRATCH, ("localization",)),
        *(Comparison("localization", "Ours", "Ours", ("localization",), control=control)
          for control in _HARD),
        Comparison("longer", LONG, SCRATCH, ("localization",)),
        *(Comparison("longer", LONG, LONG, ("localization",), control=control)
          for control in _HARD),
    )),
    Claim("4b", "attention pooling beats whole frames", tuple(
        Comparison(study, f"attention{rest}", f"full frame{rest}", tasks)
        for study, rest, tasks in _TABLE_8
    )),
    Claim("4c", "attention pooling comes closer to crops than to whole frames", tuple(
        Comparison(study, f"attention{rest}", f"full frame{rest}", tasks, far=f"crop{rest}")
        for study, rest, tasks in _TABLE_8
    )),
    Claim("5", "the other objectives of Table 5 are weaker on local tasks", tuple(
        comparison
        for other in OTHERS
        for comparison in (
            Comparison("table5", "Ours", other, _LOCAL),
            Comparison("rates", "Ours", at_low_rate(other), _LOCAL),
            Comparison("rates", at_low_rate("Ours"), at_low_rate(other), _LOCAL),
        )
    )),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A comparison on a task, as it came out."""

    comparison: Comparison
    task: str
    verdict: Verdict
    difference: float | None
    """Mean over seeds, of goodness: error rates are negated; None where it was not run."""
    low: float | None
    high: float | None
    """Interval; None of a single seed."""
    seeds: int
    p: float | None = None
    """Of Student's t, two-sided; None of a single seed."""


@dataclass(frozen=True)
class Judged:
    """A finding beside all others."""

    claim: Claim
    finding: Finding
    stands: bool
    """Its verdict when all are taken together."""

    @property
    def marked(self) -> bool:
        """Whether it is decided by itself only."""
        return self.finding.verdict in DECIDED and not self.stands

    @property
    def told(self) -> str:
        """The verdict, with a mark where it does not stand."""
        return self.finding.verdict + STAR * self.marked


def findings(claim: Claim, studies: Mapping[str, dict[str, Any]]) -> list[Finding]:
    """What the studies say about a claim.

    Args:
        claim: one of `CLAIMS`.
        studies: name -> content of its study.json; those that were not run are not there.

    Returns:
        A finding for each comparison and task that was run, or one for the comparison if none was.
    """
    found = []
    for one in claim.comparisons:
        columns = studies.get(one.study, {}).get("columns", ())
        tasks = [task for task in one.tasks if task in columns]
        known = [_finding(one, task, studies[one.study]["results"]) for task in tasks]
        found += known or [Finding(one, "", "not run", None, None, None, 0)]
    return found


def _finding(one: Comparison, task: str, results: Sequence[dict[str, Any]]) -> Finding:
    """Of one comparison on one task."""
    better = _by_seed(results, one.better, task)
    worse = _by_seed(results, one.worse, f"{task}:{one.control}" if one.control else task)
    if one.far:
        far = _by_seed(results, one.far, task)
        worse = {seed: (worse[seed] + far[seed]) / 2 for seed in worse.keys() & far.keys()}
    seeds = sorted(better.keys() & worse.keys())
    if not seeds:
        return Finding(one, task, "not run", None, None, None, 0)
    differences = np.array([better[seed] - worse[seed] for seed in seeds])
    mean = float(differences.mean())
    if len(seeds) < FEWEST_SEEDS:
        return Finding(one, task, "undecided", mean, None, None, len(seeds))
    low, high = map(float, interval(differences))
    return Finding(one, task, verdict(low, high), mean, low, high, len(seeds), _p_of(differences))


def _p_of(differences: npt.NDArray[np.float64]) -> float:
    from scipy import stats

    if not differences.any():
        return 1.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def verdict(low: float, high: float) -> Verdict:
    """Of an interval of the difference."""
    if low > 0:
        return "held"
    return "did not hold" if high < 0 else "undecided"


def _by_seed(results: Sequence[dict[str, Any]], row: str, task: str) -> dict[int, float]:
    return {
        one["seed"]: goodness(one["scores"][task])
        for one in results
        if one["row"] == row and task in one["scores"]
    }


HEADS = ("claim", "better", "than", "on", "difference", "seeds", "p", "verdict")
DECIDED = ("held", "did not hold")


def table(
    studies: Mapping[str, dict[str, Any]], claims: Sequence[Claim] = CLAIMS
) -> tuple[Sequence[str], list[list[str]]]:
    """Heads and rows: each comparison and what was found; differences in points.

    What a claim says stands in its first row, its number in the others.
    """
    rows = []
    for place, one in enumerate(found := judged(studies, claims)):
        first = place == 0 or found[place - 1].claim is not one.claim
        said = f"{one.claim.number}. {one.claim.text if first else ''}".rstrip()
        rows.append([said, *_cells(one.finding), one.told])
    return HEADS, rows


COUNTED: tuple[Verdict, ...] = ("held", "did not hold", "undecided")
COUNT_HEADS = ("claim", *COUNTED, "of one seed")


def counts(
    studies: Mapping[str, dict[str, Any]], claims: Sequence[Claim] = CLAIMS
) -> tuple[Sequence[str], list[list[str]]]:
    """Heads and rows: how many comparisons of each claim came out how, how many of them marked.

    Those of one seed decide nothing and are counted by themselves, those that were not run nowhere.
    """
    found = judged(studies, claims)
    return COUNT_HEADS, [
        [f"{claim.number}. {claim.text}", *_counted([one for one in found if one.claim is claim])]
        for claim in claims
    ]


def _counted(found: Sequence[Judged]) -> list[str]:
    """A number for each verdict, and of single seeds."""
    known = [one for one in found if one.finding.seeds >= FEWEST_SEEDS]
    counted = []
    for wanted in COUNTED:
        these = [one for one in known if one.finding.verdict == wanted]
        marked = sum(one.marked for one in these)
        counted.append(f"{len(these)}" + f" ({marked}{STAR})" * bool(marked))
    return [*counted, str(sum(one.finding.seeds == 1 for one in found))]


def judged(studies: Mapping[str, dict[str, Any]], claims: Sequence[Claim] = CLAIMS) -> list[Judged]:
    """What the studies say about some claims, each finding beside all others."""
    found = [(claim, one) for claim in claims for one in findings(claim, studies)]
    standing = _standing([one.p for _, one in found])
    return [Judged(claim, one, stands)
            for (claim, one), stands in zip(found, standing, strict=True)]  # fmt: skip


def _standing(ps: Sequence[float | None]) -> list[bool]:
    """Whether each stands when they are taken together."""
    from scipy import stats

    known = [p for p in ps if p is not None]
    adjusted = iter(stats.false_discovery_control(known) if known else ())
    return [p is not None and next(adjusted) < FALSE_SHARE for p in ps]


def about(study: str) -> list[Claim]:
    """The claims that a study tests, with its comparisons alone."""
    found = []
    for claim in CLAIMS:
        comparisons = tuple(one for one in claim.comparisons if one.study == study)
        if comparisons:
            found.append(replace(claim, comparisons=comparisons))
    return found


def _cells(one: Finding) -> list[str]:
    found = one.comparison
    p = "" if one.p is None else f"{one.p:.3f}" if one.p >= LEAST_P else f"< {LEAST_P}"
    return [found.better, found.than, one.task or "-", _shown(one), str(one.seeds), p]


def _shown(one: Finding) -> str:
    """In points, signed."""
    if one.difference is None:
        return "-"
    text = f"{round(100 * one.difference, 1) + 0:+.1f}"  # + 0: of -0.0
    if one.low is None or one.high is None:
        return text
    return f"{text} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
