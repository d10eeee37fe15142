"""What makes a manifest valid, as sentences.

Every check is a mask over a column (pyarrow.compute), so that two million rows take seconds. A
sentence names the rule, how many rows break it, and the first ten of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.columns import SCHEMA
from manifests.keys import KEY_PATTERN
from manifests.recipes import problem_of

Vocabularies = Mapping[str, Sequence[str]]
"""Data set name -> class names in the order of the class numbers."""
_Mask: TypeAlias = pa.ChunkedArray
_MOST = 10
LONGEST_SECONDS = 1e6
"""No recording ends later (eleven days): such times are milliseconds or frames."""


def validate(table: pa.Table, vocabularies: Vocabularies | None = None) -> list[str]:
    """Return what is wrong with a manifest, one sentence a rule; empty: it is valid.

    Args:
        table: the manifest; row numbers in the sentences count from 0.
        vocabularies: class names per data set; None: labels are only checked to be >= 0.
    """
    problems = list(_columns(table))
    wrong = {name for name, _ in problems}
    sentences = [sentence for _, sentence in problems]
    if not len(table):
        sentences.append("the manifest is empty; expected at least one row. Check ROOT.")
    for names, check in _CHECKS:
        if not wrong.intersection(names):
            sentences += check(table)
    if vocabularies is not None and not wrong.intersection(("dataset", "labels", "label_names")):
        sentences += _vocabulary(table, vocabularies)
    return sentences


def warnings(table: pa.Table) -> list[str]:
    """Return what is allowed but may surprise: keys that differ only by case."""
    if "key" not in table.column_names:
        return []
    rows = _repeated(pc.utf8_lower(table["key"]))
    exact = _repeated(table["key"])
    rows = np.setdiff1d(rows, exact, assume_unique=True)
    rule = "keys differ only by case and would overwrite each other where case is ignored"
    return _say(table, rows, rule, "extract shards only on a file system that tells case apart")


def _columns(table: pa.Table) -> Iterator[tuple[str, str]]:
    for column in SCHEMA:
        if column.name not in table.column_names:
            yield (
                column.name,
                f"column {column.name!r} ({column.type}) is missing; columns there are: "
                f"{', '.join(table.column_names) or 'none'}. "
                "Build the manifest with `python -m manifests build`.",
            )
        elif table.column_names.count(column.name) > 1:
            yield column.name, f"column {column.name!r} is there several times; expected once."
        elif not _same_type(table.schema.field(column.name).type, column.type):
            found = table.schema.field(column.name).type
            yield (
                column.name,
                f"column {column.name!r} has type {found}; expected {column.type}. "
                "Use the types of manifests.columns.SCHEMA.",
            )


def _same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_dictionary(expected):
        return found in (expected, expected.value_type) or (
            pa.types.is_dictionary(found) and found.value_type == expected.value_type
        )
    return bool(found == expected)


def _keys(table: pa.Table) -> list[str]:
    key = table["key"]
    malformed = pc.invert(pc.match_substring_regex(key, rf"\A{KEY_PATTERN}\z"))
    dotted = pc.match_substring(key, ".")
    return [
        *_mask(table, dotted, "keys contain a dot", "build keys with manifests.keys"),
        *_mask(
            table,
            pc.and_(pc.fill_null(malformed, True), pc.invert(pc.fill_null(dotted, False))),
            f"keys do not match {KEY_PATTERN}",
            "build keys with manifests.keys",
        ),
        *_say(table, _repeated(key), "keys are not unique", "give every row a key of its own"),
    ]


def _required(table: pa.Table) -> list[str]:
    sentences: list[str] = []
    for name in ("uri", "source_id", "group_id"):
        empty = pc.fill_null(pc.equal(pc.binary_length(table[name]), 0), True)
        sentences += _mask(table, empty, f"{name} is empty", "every row names its file and group")
    for name in ("dataset", "pre_trimmed", "anchored", "splits", "labels", "label_names"):
        null = pc.is_null(table[name])
        sentences += _mask(table, null, f"{name} is null", "write false or an empty list instead")
    return sentences


def _times(table: pa.Table) -> list[str]:
    start, end = table["start_s"], table["end_s"]
    early = pc.fill_null(pc.invert(pc.greater_equal(start, 0.0)), True)
    endless = pc.invert(pc.is_finite(start))
    late = pc.invert(pc.greater(end, start))
    beyond = pc.invert(pc.less_equal(end, LONGEST_SECONDS))
    return [
        *_mask(table, early, "start_s is not >= 0", "times count from the file's start, seconds"),
        *_mask(table, endless, "start_s is not finite", "give seconds"),
        *_mask(
            table, beyond, f"end_s is over {LONGEST_SECONDS:g} s", "give seconds, not ms or frames"
        ),
        *_mask(table, late, "end_s is not after start_s", "leave end_s null for 'to the end'"),
    ]


def _recipes(table: pa.Table) -> list[str]:
    extra = table["extra"]
    both = (pc.match_substring(extra, f'"{name}"') for name in ("reference_key", "transforms"))
    rows = np.flatnonzero(_numpy(pc.fill_null(pc.and_(*both), False)))
    problems = map(problem_of, extra.take(pa.array(rows)).to_pylist())
    wrong = [(row, said) for row, said in zip(rows, problems, strict=True) if said is not None]
    if not wrong:
        return []
    bad = np.array([row for row, _ in wrong], np.int64)
    return _say(table, bad, f"recipes cannot be carried out: {wrong[0][1]}", "correct `extra`")


def _labels(table: pa.Table) -> list[str]:
    flat = pc.list_flatten(table["labels"])
    parents = pc.list_parent_indices(table["labels"])
    negative = pc.fill_null(pc.less(flat, 0), True)
    rows = np.unique(_numpy(pc.filter(parents, negative)))
    lengths = [pc.list_value_length(table[name]) for name in ("labels", "label_names")]
    uneven = pc.not_equal(*lengths)
    return [
        *_say(table, rows, "labels are negative or null", "leave the list empty for 'no label'"),
        *_mask(table, uneven, "labels and label_names differ in length", "name every label"),
    ]


def _points(table: pa.Table) -> list[str]:
    flat = pc.list_flatten(table["face_xy"])
    parents = pc.list_parent_indices(table["face_xy"])
    outside = pc.invert(pc.and_(pc.greater_equal(flat, 0.0), pc.less_equal(flat, 1.0)))
    rows = np.unique(_numpy(pc.filter(parents, pc.fill_null(outside, True))))
    return _say(table, rows, "face_xy is outside 0..1", "divide pixels by the picture's size")


def _vocabulary(table: pa.Table, vocabularies: Vocabularies) -> list[str]:
    sentences: list[str] = []
    dataset = table["dataset"].cast(pa.string())
    for name in pc.unique(dataset).drop_null().to_pylist():
        classes = vocabularies.get(name)
        if classes is None:
            continue
        rows = np.flatnonzero(_numpy(pc.fill_null(pc.equal(dataset, name), False)))
        part = table.take(rows) if len(rows) != len(table) else table
        sentences += _against(part, rows, name, classes)
    return sentences


def _against(
    part: pa.Table, rows: npt.NDArray[np.int64], name: str, classes: Sequence[str]
) -> list[str]:
    parents = rows[_numpy(pc.list_parent_indices(part["labels"]))]
    numbers = _numpy(pc.fill_null(pc.list_flatten(part["labels"]), -1))
    inside = (numbers >= 0) & (numbers < len(classes))
    next_step = f"rebuild the manifest, or repair labels/{name}.json"
    rule = f"labels of {name} are outside its vocabulary of {len(classes)} classes"
    sentences = _say(part, np.unique(parents[~inside]), rule, next_step, rows)
    names = pc.list_flatten(part["label_names"])
    if len(names) == len(numbers):
        known = pa.array([*classes, None], pa.string())
        meant = known.take(pa.array(np.where(inside, numbers, len(classes))))
        differ = _numpy(pc.fill_null(pc.not_equal(names, pa.chunked_array([meant])), False))
        rule = f"label_names of {name} are not the vocabulary's names"
        sentences += _say(part, np.unique(parents[differ]), rule, next_step, rows)
    return sentences


def _repeated(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the numbers of all rows whose value occurs more than once."""
    counts = pc.value_counts(column)
    often = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    if not len(often):
        return np.empty(0, np.int64)
    return np.flatnonzero(_numpy(pc.is_in(column, value_set=often)))


def _mask(table: pa.Table, mask: _Mask, rule: str, next_step: str) -> list[str]:
    rows = np.flatnonzero(_numpy(pc.fill_null(mask, False)))
    return _say(table, rows, rule, next_step)


def _say(
    table: pa.Table,
    rows: npt.NDArray[np.int64],
    rule: str,
    next_step: str,
    numbers: npt.NDArray[np.int64] | None = None,
) -> list[str]:
    """Return one sentence about the offending rows, or none. `numbers` are the table's own rows."""
    if not len(rows):
        return []
    first = rows[:_MOST]
    inside = first if numbers is None else np.searchsorted(numbers, first)
    shown = [
        f"row {row} (key {_key(table, int(at))})" for row, at in zip(first, inside, strict=True)
    ]
    more = f" and {len(rows) - _MOST:,} more" if len(rows) > _MOST else ""
    return [f"{rule}: {', '.join(shown)}{more}; {next_step}."]


def _key(table: pa.Table, row: int) -> str:
    if "key" not in table.column_names:
        return "?"
    return repr(table["key"][row].as_py())


def _numpy(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return np.asarray(values.to_numpy(zero_copy_only=False))


_REQUIRED = ("uri", "source_id", "group_id", "dataset", "pre_trimmed", "anchored")
_CHECKS: list[tuple[tuple[str, ...], Callable[[pa.Table], list[str]]]] = [
    (("key",), _keys),
    ((*_REQUIRED, "splits", "labels", "label_names"), _required),
    (("start_s", "end_s"), _times),
    (("labels", "label_names"), _labels),
    (("face_xy",), _points),
    (("extra",), _recipes),
]
"""The columns a check needs, and the check."""
