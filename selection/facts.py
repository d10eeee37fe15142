"""Where the facts of each clip are: samples.parquet, and the tables of OUT/quality beside it.

    OUT/samples.parquet              what the shard job saw: length, loudness, faces, ...
    OUT/shardindex.json              names of the labels: the column `label_names` is made of them
    OUT/quality/columns.json         which further columns there are, and in which table
    OUT/quality/NAME.parquet         `key` and such columns, one row a clip; made later

Only the tables that an expression names are read. A clip that a table does not know, because it was
made before the clip was, has null there, and the count of such clips is told.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selection import SelectionError
from selection.where import Where, require_columns

SAMPLES = "samples.parquet"
FOLDER = "quality"
COLUMNS = f"{FOLDER}/columns.json"
INDEX = "shardindex.json"
KEY = "key"
LABELS, LABEL_NAMES = "labels", "label_names"
MADE_BY = {"duplicate": "pipeline duplicates", "av_offset": "pipeline offsets"}
"""Commands that add columns, by how their names begin."""

ReadFile = Callable[[str], bytes]
"""A file of the set, by its name below OUT; FileNotFoundError where there is none."""


@dataclass(frozen=True)
class Facts:
    """The columns that were asked for, one row a clip of samples.parquet."""

    table: pa.Table
    """`key` first."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Tables of quality/ that do not know all clips: how many they lack."""


def read_facts(columns: Sequence[str], read: ReadFile) -> Facts:
    """Some columns of all clips of a set.

    Raises:
        SelectionError: there is no such column; or a table cannot be read.
        FileNotFoundError: the set has no samples.parquet.
    """
    samples = _parquet(read, SAMPLES)
    stored = list(samples.schema_arrow.names)
    added = _added(read)
    hint = "".join(
        f" `python -m {command} OUT` makes it." for start, command in MADE_BY.items()
        if any(name.startswith(start) and name not in added for name in columns)
    )  # fmt: skip
    made = [LABEL_NAMES] if LABELS in stored and LABEL_NAMES not in stored else []
    require_columns(columns, [*stored, *made, *added], hint)
    table = samples.read([KEY, *(name for name in columns if name in stored and name != KEY)])
    for name in set(made).intersection(columns):
        labels = samples.read([LABELS])[LABELS].combine_chunks()
        table = table.append_column(name, _named(labels, _label_names(read)))
    unknown: dict[str, int] = {}
    for file in sorted({added[name] for name in columns if name not in (*stored, *made)}):
        wanted = [name for name in columns if name in added and added[name] == file]
        table, lacking = _joined(table, _parquet(read, f"{FOLDER}/{file}").read([KEY, *wanted]))
        if lacking:
            unknown[file] = lacking
    return Facts(table, unknown)


def passing(where: Where, read: ReadFile) -> tuple[Facts, npt.NDArray[np.bool_]]:
    """The facts that an expression names, and which clips pass.

    Raises:
        SelectionError: a column is unknown, or is compared with what it is not.
        FileNotFoundError: the set has no samples.parquet.
    """
    facts = read_facts(where.columns, read)
    return facts, where.passes(facts.table)


def add_columns(columns: dict[str, Any], file: str, names: Sequence[str]) -> dict[str, Any]:
    """The content of columns.json with a table's columns in place of those it had before."""
    kept = {name: table for name, table in columns.items() if table != file}
    return {**kept, **dict.fromkeys(names, file)}


def _added(read: ReadFile) -> dict[str, str]:
    """Columns of quality/: name -> file."""
    try:
        stored = json.loads(read(COLUMNS))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SelectionError(f"{COLUMNS} is no JSON ({error}); remove it, and make it anew with "
                             "`python -m pipeline duplicates OUT`") from error  # fmt: skip
    plain = isinstance(stored, dict) and all(
        isinstance(file, str) and "/" not in file and file.endswith(".parquet")
        for file in stored.values()
    )
    if not plain:
        raise SelectionError(f"{COLUMNS} does not say which file has which column; remove it")
    return dict(stored)


def _label_names(read: ReadFile) -> list[str]:
    """The names of the set's labels, in the order of their numbers."""
    try:
        names = json.loads(read(INDEX)).get(LABELS)
    except (FileNotFoundError, ValueError, AttributeError) as error:
        raise SelectionError(
            f"{LABEL_NAMES} are in {INDEX}, which is not there or no JSON ({error}); `python -m "
            "pipeline finalize OUT` writes it"
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


def _joined(table: pa.Table, other: pa.Table) -> tuple[pa.Table, int]:
    """The columns of another table, by key; and how many clips it does not know."""
    places = pc.index_in(table[KEY], value_set=other[KEY].combine_chunks())
    for name in other.column_names:
        if name != KEY:
            table = table.append_column(name, other[name].take(places))
    return table, places.null_count
