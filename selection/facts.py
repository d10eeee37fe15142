"""Where the facts of each clip are: samples.parquet, and the tables of OUT/quality beside it.

    OUT/samples.parquet              what the shard job saw: length, loudness, faces, ...
    OUT/shardindex.json              names of the labels: the column `label_names` is made of them
    OUT/quality/columns.json         which further columns there are, and in which table
    OUT/quality/NAME.parquet         `key` and such columns, one row a clip; made later

Only the tables that an expression names are read. Each says of which shards it was made, by sha256:
where a shard is new, or was made again since, a clip may have other bytes under the same key. What
a table says of such clips is not used: they have null there, as those have that it lacks, and their
count is told.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selection import SelectionError
from selection.where import Where, require_columns

SAMPLES = "samples.parquet"
INDEX = "shardindex.json"
FOLDER = "quality"
COLUMNS = f"{FOLDER}/columns.json"
KEY, SHARD = "key", "shard"
LABELS, LABEL_NAMES = "labels", "label_names"
MADE_BY = {"duplicate": "pipeline duplicates", "av_offset": "pipeline offsets"}
"""Commands that add columns, by how their names, and those of the tables, begin."""
RANKS = "duplicate"
"""What begins so compares clips with each other: clips that are gone still count in it."""
BASES = b"glav_bases"
"""Metadata of a table of quality/: the shards it was made of and their sha256, as JSON."""

ReadFile = Callable[[str], bytes]
"""A file of the set, by its name below OUT; FileNotFoundError where there is none."""
SOME_SET = "OUT"
"""What commands in messages say of a set whose place was not given."""


@dataclass(frozen=True)
class Facts:
    """The columns that were asked for, one row a clip of samples.parquet."""

    table: pa.Table
    """`key` first."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Tables of quality/ that do not know all clips as they are: how many they do not."""
    gone: dict[str, int] = field(default_factory=dict)
    """Tables that rank clips among some that the set has no more: how many."""
    place: str = SOME_SET
    """Of the set, for commands."""

    @property
    def notes(self) -> list[str]:
        """What is wrong with the tables and what mends it, for a person."""
        return [
            f"{FOLDER}/{file} does not know {count:,} clips as they are now; they have null there: "
            f"{_again(file, self.place)}" for file, count in self.unknown.items()
        ] + [
            f"{FOLDER}/{file} ranks clips among {count:,} that are no longer there: "
            f"{_again(file, self.place)}"
            for file, count in self.gone.items()
        ]  # fmt: skip


def read_facts(columns: Sequence[str], read: ReadFile, place: str = SOME_SET) -> Facts:
    """Some columns of all clips of a set.

    Args:
        columns: their names.
        read: reads its files.
        place: of the set, for the commands that messages name.

    Raises:
        SelectionError: there is no such column; or a table cannot be read.
        FileNotFoundError: the set has no samples.parquet.
    """
    samples = _parquet(read, SAMPLES)
    stored = list(samples.schema_arrow.names)
    added = added_columns(read, place)
    hint = "".join(
        f" `python -m {command} {place}` makes it." for start, command in MADE_BY.items()
        if any(name.startswith(start) and name not in added for name in columns)
    )  # fmt: skip
    made = [LABEL_NAMES] if LABELS in stored and LABEL_NAMES not in stored else []
    require_columns(columns, [*stored, *made, *added], hint)
    table = samples.read([KEY, *(name for name in columns if name in stored and name != KEY)])
    for name in set(made).intersection(columns):
        labels = samples.read([LABELS])[LABELS].combine_chunks()
        table = table.append_column(name, _named(labels, _label_names(read, place)))
    facts = Facts(table, place=place)
    files = sorted({added[name] for name in columns if name not in (*stored, *made)})
    shards = samples.read([SHARD])[SHARD] if files else None
    for file in files:
        wanted = [name for name in columns if added.get(name) == file and name not in stored]
        other = _parquet(read, f"{FOLDER}/{file}").read([KEY, *wanted])
        facts = _joined(facts, file, other, _is_same(shards, other, _current(read, place)))
    return facts


def passing(
    where: Where, read: ReadFile, place: str = SOME_SET
) -> tuple[Facts, npt.NDArray[np.bool_]]:
    """The facts that an expression names, and which clips pass; arguments as `read_facts`.

    Raises:
        SelectionError: a column is unknown, or is compared with what it is not.
        FileNotFoundError: the set has no samples.parquet.
    """
    facts = read_facts(where.columns, read, place)
    return facts, where.passes(facts.table)


def add_columns(columns: dict[str, Any], file: str, names: Sequence[str]) -> dict[str, Any]:
    """The content of columns.json with a table's columns in place of those it had before."""
    kept = {name: table for name, table in columns.items() if table != file}
    return {**kept, **dict.fromkeys(names, file)}


def shard_hashes(index: Mapping[str, Any]) -> dict[str, str]:
    """The shards of a shardindex.json, by name, and the sha256 of their tars."""
    return {PurePosixPath(entry["url"]).stem: entry["sha256"] for entry in index["shardlist"]}


def with_bases(table: pa.Table, bases: Mapping[str, str]) -> pa.Table:
    """A table of quality/ that says of which shards it was made, as `shard_hashes` has them."""
    return table.replace_schema_metadata({BASES: json.dumps(bases)})


def added_columns(read: ReadFile, place: str = SOME_SET) -> dict[str, str]:
    """Columns of quality/: name -> file.

    Raises:
        SelectionError: columns.json is damaged.
    """
    try:
        stored = json.loads(read(COLUMNS))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SelectionError(f"{COLUMNS} is no JSON ({error}); remove it, and make it anew with "
                             f"`python -m pipeline duplicates {place}`") from error  # fmt: skip
    plain = isinstance(stored, dict) and all(
        isinstance(file, str) and "/" not in file and file.endswith(".parquet")
        for file in stored.values()
    )
    if not plain:
        raise SelectionError(f"{COLUMNS} does not say which file has which column; remove it")
    return dict(stored)


def _label_names(read: ReadFile, place: str) -> list[str]:
    """The names of the set's labels, in the order of their numbers."""
    try:
        names = json.loads(read(INDEX)).get(LABELS)
    except (FileNotFoundError, ValueError, AttributeError) as error:
        raise SelectionError(
            f"{LABEL_NAMES} are in {INDEX}, which is not there or no JSON ({error}); `python -m "
            f"pipeline finalize {place}` writes it"
        ) from error
    if not names:
        raise SelectionError(f'the set has no names of labels; ask by number: "3 in {LABELS}"')
    return list(map(str, names))


def _named(labels: pa.ListArray, names: list[str]) -> pa.ListArray:
    """Lists of numbers as lists of names; null where there is no list, or no name."""
    numbers = pc.list_flatten(labels)
    known = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
    flat = pa.array(names, pa.string()).take(pc.if_else(known, numbers, None))
    lengths = pc.fill_null(pc.list_value_length(labels), 0)
    ends = np.concatenate([[0], np.cumsum(lengths.to_numpy())])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat, mask=pc.is_null(labels))


def _parquet(read: ReadFile, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(read(name)))
    except FileNotFoundError:
        if name == SAMPLES:
            raise
        raise SelectionError(f"{name} is not there although {COLUMNS} names it") from None
    except pa.ArrowException as error:
        raise SelectionError(f"{name} cannot be read ({error}); make it again") from error


def _current(read: ReadFile, place: str) -> dict[str, str]:
    """The shards of the set as they are."""
    try:
        return shard_hashes(json.loads(read(INDEX)))
    except FileNotFoundError as error:
        raise SelectionError(
            f"the set has no {INDEX}, which says of which shards the tables of {FOLDER}/ have to "
            f"be; `python -m pipeline finalize {place}` writes it"
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        raise SelectionError(
            f"{INDEX} lists no shards ({error}); `python -m pipeline finalize {place}` writes it "
            "again"
        ) from error


def _is_same(shards: Any, other: pa.Table, current: Mapping[str, str]) -> pa.Array:
    """Of each clip, whether its shard is still the one that a table was made of."""
    try:
        bases = json.loads((other.schema.metadata or {})[BASES])
        same = [name for name, sha256 in current.items() if bases.get(name) == sha256]
    except (KeyError, ValueError, AttributeError):
        same = []  # an earlier version's, which does not say
    return pc.is_in(shards, pa.array(same, pa.string()))


def _joined(facts: Facts, file: str, other: pa.Table, is_same: pa.Array) -> Facts:
    """The columns of another table, by key, where it speaks of the clip as it is."""
    table, keys = facts.table, other[KEY].combine_chunks()
    gone = pc.sum(pc.invert(pc.is_in(keys, table[KEY].combine_chunks()))).as_py()
    places = pc.if_else(is_same, pc.index_in(table[KEY], value_set=keys), None)
    for name in other.column_names:
        if name != KEY:
            table = table.append_column(name, other[name].take(places))
    lacking = {file: places.null_count} if places.null_count else {}
    ranked = {file: gone} if gone and file.startswith(RANKS) else {}
    return Facts(table, facts.unknown | lacking, facts.gone | ranked, facts.place)


def _again(file: str, place: str) -> str:
    """How a table is made again."""
    command = next((by for start, by in MADE_BY.items() if file.startswith(start)), None)
    return f"`python -m {command} {place}` makes it again" if command else "make it again"
