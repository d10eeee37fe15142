"""`pipeline report OUT --where EXPRESSION`: how many clips and hours a view of a set leaves.

The same expression, over the same facts, as `train pretrain --where` reads; see `selection`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import UsageError
from pipeline.outputs import Place, reading_table
from pipeline.units import counted, time_text
from selection import SelectionError
from selection.facts import SAMPLES, Facts, added_columns, read_facts
from selection.where import Where

NO_SPLIT = "(none)"
EVERYTHING = "all clips"
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Count:
    """Clips and their length."""

    clips: int
    seconds: float

    @property
    def length(self) -> str:
        """Seconds as a person says them."""
        return time_text(self.seconds)


@dataclass(frozen=True)
class Passing:
    """What passes of the whole set, or of a split."""

    name: str
    passing: Count
    whole: Count


@dataclass(frozen=True)
class Term:
    """One condition of the outermost `and`."""

    text: str
    false: int
    """Clips it is false for."""
    unknown: int
    """Clips it is null for, which do not pass either."""
    alone: int
    """Clips that it alone leaves out: they pass all others."""


@dataclass(frozen=True)
class SetView:
    """What an expression leaves of a set."""

    text: str
    sizes: list[Passing]
    """The whole set first, then its splits; a clip counts in each of its splits."""
    terms: list[Term]
    notes: list[str] = field(default_factory=list)
    """What is wrong with the tables of quality/ that it names."""


def parsed(text: str) -> Where:
    """An expression from the command line.

    Raises:
        UsageError: it is none.
    """
    try:
        return Where(text)
    except SelectionError as error:
        raise UsageError(f"--where: {error}") from error


def facts_of(out: Path, columns: tuple[str, ...]) -> Facts:
    """Some columns of all clips of a set.

    Raises:
        NotFinishedError: samples.parquet is not there yet.
        UsageError: there is no such column.
    """

    def read(name: str) -> bytes:
        return (out / name).read_bytes()

    try:
        with reading_table(out / SAMPLES):
            return read_facts(columns, read, str(out))
    except SelectionError as error:
        raise UsageError(f"--where, {out}: {error}") from error


def quality_notes(out: Path) -> list[str]:
    """What is wrong with the tables of quality/, one sentence each.

    Raises:
        NotFinishedError: samples.parquet is not there yet.
        SelectionError: one cannot be read.
    """

    def read(name: str) -> bytes:
        return (out / name).read_bytes()

    columns = tuple(added_columns(read, str(out)))
    with reading_table(out / SAMPLES):
        return read_facts(columns, read, str(out)).notes if columns else []


def view_of(out: Path, text: str) -> SetView:
    """Count what passes.

    Args:
        out: a set with samples.parquet.
        text: the expression.

    Raises:
        UsageError: it cannot be understood, or names what is not there.
        NotFinishedError: samples.parquet is not there yet.
    """
    where = parsed(text)
    facts = facts_of(out, tuple({*where.columns, "splits", "seconds"}))
    try:
        passing = where.passes(facts.table)
        terms = _terms(where, facts.table)
    except SelectionError as error:
        raise UsageError(f"--where, {out}: {error}") from error
    seconds = np.nan_to_num(facts.table["seconds"].to_numpy())
    splits = rows_by_split(facts.table["splits"].combine_chunks())
    sizes = [
        Passing(name, _count(seconds[rows[passing[rows]]]), _count(seconds[rows]))
        for name, rows in [(EVERYTHING, np.arange(len(seconds))), *splits]
    ]
    return SetView(text, sizes, terms, facts.notes)


def places_of(out: Path, text: str, count: int) -> list[Place]:
    """Some of the clips that pass, spread evenly over the set.

    Raises:
        UsageError: the expression cannot be understood, or lets nothing pass.
        NotFinishedError: samples.parquet is not there yet.
    """
    where, columns = parsed(text), ("shard", "offset", "size")
    facts = facts_of(out, tuple({*where.columns, *columns}))
    try:
        rows = np.flatnonzero(where.passes(facts.table))
    except SelectionError as error:
        raise UsageError(f"--where, {out}: {error}") from error
    if not len(rows):
        raise UsageError(f"--where {text}: none of the {len(facts.table):,} clips of {out} passes")
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return [Place(**row) for row in facts.table.select(["key", *columns]).take(chosen).to_pylist()]


def view_lines(view: SetView) -> list[str]:
    """The counts for a terminal."""
    lines = [f"--where {view.text}"]
    width = max(len(size.name) for size in view.sizes)
    for size in view.sizes:
        whole, passing = size.whole, size.passing
        share = passing.clips / max(1, whole.clips)
        lines.append(
            f"  {size.name:<{width}}  {passing.clips:,} of {whole.clips:,} clips pass "
            f"({share:.1%}), {passing.length} of {whole.length}"
        )
    lines += [
        f"  {term.text}: false for {counted(term.false, 'clip')}"
        + (f", not known of {term.unknown:,}" if term.unknown else "")
        + (f"; {term.alone:,} fail nothing else" if len(view.terms) > 1 else "")
        for term in view.terms
    ]
    return lines + [f"  {note}" for note in view.notes]


def _terms(where: Where, table: pa.Table) -> list[Term]:
    truths = [term.truth(table) for term in where.terms]
    failed = [~np.asarray(truth.fill_null(False)) for truth in truths]
    failing = np.sum(failed, axis=0)
    return [
        Term(term.text, truth.false_count, truth.null_count, int((fails & (failing == 1)).sum()))
        for term, truth, fails in zip(where.terms, truths, failed, strict=True)
    ]


def rows_by_split(splits: pa.ListArray) -> Iterator[tuple[str, Ints]]:
    """Rows of each split, by its name; a row is in each of its splits, or last in `(none)`."""
    parents = pc.list_parent_indices(splits).to_numpy()
    names = pc.list_flatten(splits).dictionary_encode()
    codes = names.indices.to_numpy()
    for name, code in sorted(
        (name, code) for code, name in enumerate(names.dictionary.to_pylist())
    ):
        yield name, np.unique(parents[codes == code])
    if len(bare := np.setdiff1d(np.arange(len(splits)), parents)):
        yield NO_SPLIT, bare


def _count(seconds: npt.NDArray[np.float64]) -> Count:
    return Count(len(seconds), float(seconds.sum()))
