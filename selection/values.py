"""Values of an expression: columns and constants with what they are, and comparisons of two."""

import ast
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selection import SelectionError

COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
KINDS = {"bool": "true or false", "number": "a number", "text": "a text", "list": "a list",
         "null": "null"}  # fmt: skip

LARGEST_INTEGER = 2**63 - 1


class Value(NamedTuple):
    """A column or a constant, and what it is."""

    kind: str
    """One of KINDS."""
    data: Any
    """pa.ChunkedArray, or pa.Scalar."""
    said: str
    """As it stands in the text; for messages."""

    @property
    def is_constant(self) -> bool:
        """The same for all clips."""
        return isinstance(self.data, pa.Scalar)


def constant_of(value: Any, said: str) -> Value:
    """A literal, or true, false, null.

    Raises:
        SelectionError: it is of another kind.
    """
    if isinstance(value, bool):
        return Value("bool", pa.scalar(value), said)
    if isinstance(value, int) and abs(value) <= LARGEST_INTEGER:
        return Value("number", pa.scalar(value, pa.int64()), said)
    if isinstance(value, int | float):
        return Value("number", pa.scalar(float(value)), said)
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise SelectionError(f"{value!r} has half of a character (a lone surrogate)")
        return Value("text", pa.scalar(value), said)
    if value is None:
        return Value("null", pa.scalar(None, pa.bool_()), said)
    raise SelectionError(f"{said} is no number, text, true, false or null")


def column_of(data: pa.ChunkedArray, name: str) -> Value:
    """A column of a table.

    Raises:
        SelectionError: nothing can be asked about its type.
    """
    type_ = data.type
    if pa.types.is_dictionary(type_):
        data = data.cast(type_.value_type)
        type_ = data.type
    if pa.types.is_boolean(type_):
        return Value("bool", data, name)
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return _numbers(data, name)
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return Value("text", data, name)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return Value("list", data, name)
    if pa.types.is_null(type_):
        return Value("null", data.cast(pa.bool_()), name)
    raise SelectionError(f"the column {name} is of type {type_}, which cannot be asked about")


def _numbers(data: Any, said: str) -> Value:
    """Numbers, NaN as null."""
    if pa.types.is_floating(data.type):
        data = pc.if_else(pc.is_nan(data), pa.scalar(None, data.type), data)
    return Value("number", data, said)


def require_same_kind(one: Value, op: str, other: Value) -> None:
    """Refuse to compare a number with a text, and the like.

    Raises:
        SelectionError: says what each of the two is.
    """
    if one.kind != other.kind and "null" not in (one.kind, other.kind):
        raise SelectionError(
            f"{one.said} {op} {other.said}: the one is {KINDS[one.kind]}, the other "
            f"{KINDS[other.kind]}"
        )


def compared(one: Value, op: ast.cmpop, other: Value) -> Any:
    """Truths of `one op other`; null where one of them is.

    Raises:
        SelectionError: the two cannot be compared so.
    """
    if isinstance(op, ast.Is | ast.IsNot):
        raise SelectionError(f"write {one.said} == {other.said}; `is` asks for null only")
    if "list" in (one.kind, other.kind):
        raise SelectionError(f'{one.said} holds lists; ask for one entry: "train" in splits')
    require_same_kind(one, "compared with", other)
    if "null" in (one.kind, other.kind):  # a column of which nothing is known
        return (one if one.kind == "null" else other).data
    if one.kind == "bool" and not isinstance(op, ast.Eq | ast.NotEq):
        raise SelectionError(f"{one.said} is true or false; compare it by == or !=")
    return COMPARE[type(op)](as_precise(one, other), as_precise(other, one))


def as_precise(value: Value, other: Value) -> Any:
    """A value at the precision at which it is compared with another.

    Integers are compared exactly, a constant at the precision of a column of floating point, all
    else as float64.
    """
    if value.kind != "number" or other.kind != "number":
        return value.data
    of_value, of_other = value.data.type, other.data.type
    if pa.types.is_integer(of_value) and pa.types.is_integer(of_other):
        return value.data
    if value.is_constant != other.is_constant:
        of_column = of_other if value.is_constant else of_value
        if pa.types.is_float32(of_column):
            return pc.cast(value.data, pa.float32(), safe=False)
    return pc.cast(value.data, pa.float64(), safe=False)


def in_lists(item: Value, lists: Value) -> Any:
    """Whether an item is in each of a column of lists; null where there is no list."""
    entries = column_of(
        pa.chunked_array([pc.list_flatten(lists.data).combine_chunks()]), lists.said
    )
    require_same_kind(entries, "holds entries, compared with", item)
    found = np.zeros(len(lists.data), np.bool_)
    if entries.kind != "null" and len(entries.data):
        equal = pc.fill_null(pc.equal(as_precise(entries, item), as_precise(item, entries)), False)
        parents = pc.list_parent_indices(lists.data.combine_chunks())
        found[parents.to_numpy()[equal.to_numpy(zero_copy_only=False)]] = True
    return pc.if_else(pc.is_valid(lists.data), pa.array(found), pa.scalar(None, pa.bool_()))
