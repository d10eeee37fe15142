"""A study's new results beside those that are there: in its own folder, or published.

Seeds of several days and machines come together, row by row and column by column, where they were
run with the same settings on the same clips. Of a corpus of which that is not so, and of a run that
was trained anew, the old results go: no table shows two networks as one.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from train.evaluation.result import EVALUATIONS
from train.studies.catalogue import STUDIES
from train.studies.table import Result, facts_of

Key = tuple[int, str, str]
"""Seed, row, column."""


class Joined(NamedTuple):
    """A study's results with those that were there."""

    facts: dict[str, Any]
    """As study.json."""
    told: str
    """A sentence about the old ones."""
    replaces: bool = False
    """Whether some of those could not stay."""


@dataclass(frozen=True)
class _Outdated:
    """What cannot stand beside new results."""

    corpora: dict[str, str] = field(default_factory=dict)
    """Corpus -> why."""
    runs: frozenset[str] = frozenset()
    """Trained anew."""

    def has(self, score: dict[str, Any]) -> bool:
        """Whether a score is one of these."""
        return _corpus_of(score) in self.corpora or _run_of(score) in self.runs

    def left(self, by_corpus: dict[str, Any]) -> dict[str, Any]:
        """What belongs to other corpora, of a dict by CORPUS or CORPUS/RUN."""
        return {key: one for key, one in by_corpus.items()
                if key.partition("/")[0] not in self.corpora}  # fmt: skip

    def told(self) -> list[str]:
        """What goes, and why."""
        said = [f"{corpus} was run {why}" for corpus, why in self.corpora.items()]
        if self.runs:
            said.append(f"trained anew: {', '.join(sorted(self.runs))}")
        return said


def joined(old: dict[str, Any] | None, new: dict[str, Any]) -> Joined:
    """A study's new results with the old ones that can stand beside them.

    Args:
        old: content of the study.json that is there; None: there is none.
        new: of what was run.
    """
    if old is None:
        return Joined(new, "new")
    study, outdated = STUDIES[new["name"]], _outdated(old, new)
    fresh, before = dict(_scores(new["results"])), dict(_scores(old["results"]))
    kept = {key: score for key, score in before.items() if not outdated.has(score)}
    order = [row.label for row in study.all_rows]
    results: dict[tuple[int, str], Result] = {}
    for (seed, row, column), score in {**kept, **fresh}.items():
        if row in order:
            results.setdefault((seed, row), Result(row, seed, {})).scores[column] = score
    facts = facts_of(
        study, new["name"], {**outdated.left(old["said"]), **new["said"]},
        sorted(results.values(), key=lambda one: (one.seed, order.index(one.row))),
        dict(sorted({**outdated.left(old.get("curves", {})), **new.get("curves", {})}.items())),
    )  # fmt: skip
    beside = results.keys() - {(seed, row) for seed, row, _ in fresh}
    gone = dict.fromkeys(row for _, row, _ in kept if row not in order)
    told = (
        *outdated.told(),
        *_left_out(before.keys() - kept.keys() - fresh.keys()),
        f"rows by seed: {len(results) - len(beside)} of now, {len(beside)} of before",
        *([f"no rows of the study any more: {', '.join(gone)}"] if gone else ()),
    )
    return Joined(facts, "; ".join(told), bool(outdated.corpora or outdated.runs))


def other_settings(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """How the settings of now differ, for each corpus of which they do.

    Args:
        before: corpus -> what study.json says of its settings (`said`).
        now: the same of new results.
    """
    differing = [corpus for corpus in now if before.get(corpus, now[corpus]) != now[corpus]]
    return {corpus: _differing(before[corpus], now[corpus]) for corpus in differing}


def _differing(before: str, now: str) -> str:
    """The parts of two sentences that the other one does not have."""
    then, here = (re.split(r"[;,.] ", text.rstrip(".")) for text in (before, now))
    first = ", ".join(part for part in then if part not in here) or "without what is said here"
    second = ", ".join(part for part in here if part not in then) or "without it"
    return f"with other settings: {first}; here: {second}"


def _left_out(lost: set[Key]) -> list[str]:
    """What is published no more, and was not measured anew."""
    return [f"scores that go without new ones: {len(lost)}"] if lost else []


def _outdated(old: dict[str, Any], new: dict[str, Any]) -> _Outdated:
    """The corpora of other settings or clips, and the runs of another checkpoint."""
    corpora = other_settings(old["said"], new["said"])
    clips: dict[tuple[str, str], set[str | None]] = {}
    networks: dict[str, set[str | None]] = {}
    for (_, _, column), score in (*_scores(old["results"]), *_scores(new["results"])):
        clips.setdefault((_corpus_of(score), column), set()).add(score.get("index_sha256"))
        networks.setdefault(_run_of(score), set()).add(score.get("checkpoint_sha256"))
    for (corpus, _), indexes in clips.items():
        if len(indexes) > 1:
            corpora.setdefault(corpus, "on other clips (their index has another SHA-256)")
    runs = {run for run, found in networks.items() if len(found) > 1}
    # Of a corpus that goes as a whole its runs are not named.
    return _Outdated(corpora, frozenset(r for r in runs if r.partition("/")[0] not in corpora))


def _scores(results: Sequence[dict[str, Any]]) -> Iterator[tuple[Key, dict[str, Any]]]:
    for one in results:
        for column, score in one["scores"].items():
            yield (one["seed"], one["row"], column), score


def _run_of(score: dict[str, Any]) -> str:
    """As CORPUS/ROW-SEED."""
    return str(score["result"]).partition(f"/{EVALUATIONS}/")[0]


def _corpus_of(score: dict[str, Any]) -> str:
    return _run_of(score).partition("/")[0]
