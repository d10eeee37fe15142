"""The manifest's columns, and the way rows become a table.

`SCHEMA` is the only place with column names and types. Rows are dicts that hold just what differs
from `DEFAULTS`; `table` turns any iterable of them into Arrow in pieces, so that millions of rows
never exist as Python objects at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Row = dict[str, Any]
"""One row: column name -> plain Python value; absent columns take `DEFAULTS`."""

_SEGMENT = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("label", pa.int32())])
_WORD = pa.struct([("w", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])
_EXPECT = pa.struct(
    [
        ("video", pa.bool_()),
        ("audio", pa.bool_()),
        ("fps", pa.float64()),
        ("duration_s", pa.float64()),
    ]
)

SCHEMA = pa.schema(
    [
        ("dataset", pa.dictionary(pa.int32(), pa.string())),  # adapter name
        ("key", pa.string()),  # unique, from ids, no dot; stable across machines
        ("source_id", pa.string()),  # the file's identity
        ("group_id", pa.string()),  # source video, speaker, actor: negatives and split checks
        ("uri", pa.string()),  # relative to the root, or absolute, or a URL; see listing.from_uri
        ("audio_uri", pa.string()),  # null: the same file
        ("container", pa.string()),  # null, or a tar:// or zip:// member
        ("start_s", pa.float64()),  # window inside the file, from its earliest stream start
        ("end_s", pa.float64()),  # null: to the end
        ("pre_trimmed", pa.bool_()),  # false: whole source video, start and end from annotations
        ("splits", pa.list_(pa.string())),  # "dataset:split[:fold]"
        ("labels", pa.list_(pa.int32())),  # class numbers of the vocabulary
        ("label_names", pa.list_(pa.string())),  # the same as names
        ("segments", pa.list_(_SEGMENT)),  # labelled intervals, seconds from the window's start
        ("face_xy", pa.list_(pa.float32(), 2)),  # face at the window's start, 0..1 of the picture
        ("transcript", pa.string()),  # what is said
        ("words", pa.list_(_WORD)),  # seconds from the window's start
        ("expect", _EXPECT),  # what the annotation promises
        ("extra", pa.string()),  # JSON object with sorted keys: everything else
        ("anchored", pa.bool_()),  # the window is exact (architecture §4)
        ("bytes", pa.int64()),  # file size at the scan; null: there was no file
    ]
)
"""Columns and types of every manifest."""

DEFAULTS: Mapping[str, Any] = {
    "start_s": 0.0,
    "pre_trimmed": True,
    "splits": (),
    "labels": (),
    "label_names": (),
    "segments": (),
    "words": (),
    "extra": "{}",
    "anchored": False,
}
"""Values of absent columns; a column that is not named here is null."""

_ROWS_PER_PIECE = 50_000


def table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Build a manifest table from rows that hold only what differs from `DEFAULTS`."""
    batches = [_batch(piece) for piece in _pieces(rows)]
    return pa.Table.from_batches(batches, SCHEMA).unify_dictionaries()


def view(whole: pa.Table, dataset: str, vocabulary: Sequence[str]) -> pa.Table:
    """Return the rows of some classes as a data set of its own, with its own class numbers.

    Args:
        whole: a manifest; rows with no label, or several, are in no view.
        dataset: name of the view.
        vocabulary: class names of the view, in the order of its numbers.
    """
    labelled = whole.filter(pc.equal(pc.list_value_length(whole["label_names"]), 1))
    names = pc.list_flatten(labelled["label_names"])
    number = pc.index_in(names, value_set=pa.array(vocabulary, pa.string()))
    inside = pc.is_valid(number)
    rows, numbers = labelled.filter(inside), number.filter(inside)
    rows = replaced(rows, "dataset", [dataset] * len(rows))
    return replaced(rows, "labels", [[n] for n in numbers.to_pylist()])


def replaced(whole: pa.Table, column: str, values: Sequence[Any]) -> pa.Table:
    """Return a manifest with other values in one column."""
    at = SCHEMA.get_field_index(column)
    array = pa.chunked_array([_typed(values, SCHEMA.field(at).type)])
    return whole.set_column(at, SCHEMA.field(at), array)


def extra(**facts: Any) -> str:
    """Return the `extra` column's JSON: sorted keys, facts that are None left out."""
    known = {name: value for name, value in facts.items() if value is not None}
    return json.dumps(known, sort_keys=True, ensure_ascii=False)


def _pieces(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    source = iter(rows)
    while piece := list(islice(source, _ROWS_PER_PIECE)):
        yield piece


def _batch(rows: list[Mapping[str, Any]]) -> pa.RecordBatch:
    present = set().union(*rows)
    unknown = present - set(SCHEMA.names)
    assert not unknown, f"rows with columns that are not in SCHEMA: {sorted(unknown)}"
    return pa.record_batch([_column(rows, f, f.name in present) for f in SCHEMA], schema=SCHEMA)


def _column(rows: list[Mapping[str, Any]], column: pa.Field, present: bool) -> pa.Array:
    default = DEFAULTS.get(column.name)
    if present:
        values = [row.get(column.name, default) for row in rows]
    elif default is None:
        return pa.nulls(len(rows), column.type)
    else:
        values = [default] * len(rows)
    return _typed(values, column.type)


def _typed(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind)
