"""`--where "silent == false and face_rate > 0.8"`: a small language over the columns of a table.

    names        columns, such as face_rate; true, false, null
    literals     12, 0.5, "text" or 'text', ["a", "b"]
    comparisons  ==  !=  <  <=  >  >=, also chained: 0.2 < face_rate < 0.8
    in, not in   key in ["a", "b"]; "train" in splits, "archery" in label_names (of a list);
                 "grid/" in key (of a text)
    and or not   with parentheses
    arithmetic   + - * / and abs(x), of numbers
    startswith(text, "grid/s1"), endswith(text, "x")

Nulls are unknown, as in SQL: whatever is computed from one is null (but `false and null` is false,
`true or null` true), and a clip passes where the whole is true, so null does not pass. `x == null`
and `x != null` ask whether something is known. NaN counts as null, and so does x / 0. A
number is compared at the precision of its column, so that `face_rate == 0.98` finds what is stored
as 32-bit 0.98; integers are compared exactly, and arithmetic is that of 64-bit floating point.

The text is parsed by Python's `ast`, of which a few node types are understood and all others
refused; nothing is ever evaluated as Python. The work on columns is pyarrow's.
"""

import ast
import difflib
import functools
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selection import SelectionError
from selection.values import (
    COMPARE,
    KINDS,
    Value,
    as_precise,
    column_of,
    compared,
    constant_of,
    in_lists,
    require_same_kind,
)

MAX_CHARACTERS = 10_000
MAX_SAID = 200
CONSTANTS = {"true": True, "false": False, "null": None}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
}
HINTS = (
    (r"(?<![=!<>])=(?!=)", "write == to compare"),
    (r"&", "write `and`"),
    (r"\|", "write `or`"),
    (r"!(?!=)", "write `not`"),
    (r"<>", "write !="),
    (r"\b(AND|OR|NOT|IN)\b", "write and, or, not, in with small letters"),
    (r"\n", "write what goes over several lines in parentheses"),
)


@dataclass(frozen=True)
class Where:
    """An expression that was understood; which columns there are is seen when it is applied."""

    text: str

    def __post_init__(self) -> None:
        """Read it.

        Raises:
            SelectionError: it is no expression of this language.
        """
        for node in ast.walk(self.tree):
            if not isinstance(node, UNDERSTOOD):
                raise SelectionError(
                    f"{self._short!r} has {_part(self.text, node)!r}, which is not understood. "
                    f"{_hint(self.text) or 'Such as: silent == false and face_rate > 0.8'}"
                )

    @property
    def _short(self) -> str:
        return _shortened(self.text)

    @functools.cached_property
    def tree(self) -> ast.expr:
        """Its syntax."""
        if len(self.text) > MAX_CHARACTERS:
            raise SelectionError(
                f"an expression of {len(self.text):,} characters; expected at most "
                f"{MAX_CHARACTERS:,}. A list of keys goes into a file, for --without"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                return ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            said = "it is nested too deep"
            if isinstance(error, SyntaxError | ValueError):
                said = getattr(error, "msg", "it has characters that no text may have")
            raise SelectionError(
                f"{self._short!r} cannot be read ({said}). "
                f"{_hint(self.text) or 'Write such as: silent == false and face_rate > 0.8'}"
            ) from error

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, in the order of the alphabet."""
        names = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        return tuple(sorted(names - set(CONSTANTS) - set(FUNCTIONS)))

    @functools.cached_property
    def terms(self) -> tuple["Term", ...]:
        """The conditions that its outermost `and` joins; its whole where there is none."""
        if isinstance(self.tree, ast.BoolOp) and isinstance(self.tree.op, ast.And):
            return tuple(Term(self, node) for node in self.tree.values)
        return (Term(self, self.tree),)

    def passes(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows it is true for.

        Raises:
            SelectionError: a column is missing, or is not of the kind it is compared with.
        """
        truth = self.truth(table, self.tree).fill_null(False)
        return np.asarray(truth.to_numpy(zero_copy_only=False), np.bool_)

    def truth(self, table: pa.Table, node: ast.expr) -> pa.BooleanArray:
        """Whether a part of it is true of each row, false, or null.

        Raises:
            SelectionError: a column is missing, or is not of the kind it is compared with.
        """
        require_columns(self.columns, table.column_names)
        try:
            found = _Evaluation(table, self.text.strip()).of(node)
        except RecursionError as error:
            raise SelectionError(f"{self._short!r} is nested too deep") from error
        except (pa.ArrowException, OverflowError) as error:
            raise SelectionError(f"{self._short!r} cannot be computed: {error}") from error
        if found.kind not in ("bool", "null"):
            raise SelectionError(
                f"{self._short!r} is {KINDS[found.kind]}, not a condition; compare it with "
                "something"
            )
        truth = found.data.cast(pa.bool_())
        return pa.repeat(truth, len(table)) if found.is_constant else truth.combine_chunks()


@dataclass(frozen=True)
class Term:
    """One of the conditions that `and` joins."""

    where: Where
    node: ast.expr
    """Its part of the syntax; cut out as text it may be no expression, for want of parentheses."""

    @property
    def text(self) -> str:
        """As it was written, in one line."""
        written = _part(self.where.text, self.node)
        return ast.unparse(self.node) if "\n" in written else written

    def truth(self, table: pa.Table) -> pa.BooleanArray:
        """Whether it is true of each row, false, or null.

        Raises:
            SelectionError: a column is missing, or is not of the kind it is compared with.
        """
        return self.where.truth(table, self.node)


def require_columns(wanted: Sequence[str], known: Sequence[str], hint: str = "") -> None:
    """Refuse names that are no columns.

    Raises:
        SelectionError: says which there are, and which one may have been meant.
    """
    for name in wanted:
        if name in known:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise SelectionError(
            f"there is no column {name!r}.{meant}{hint} The columns: {', '.join(sorted(known))}. "
            'Texts stand in quotes: group == "grid:s1"'
        )


class _Evaluation:
    """One expression over one table."""

    def __init__(self, table: pa.Table, text: str) -> None:
        self._table = table
        self._text = text
        self._short = _shortened(text)

    def of(self, node: ast.expr) -> Value:
        """The value of a node of the syntax tree."""
        method: Callable[[Any], Value] = getattr(self, f"_{type(node).__name__.lower()}")
        return method(node)

    def _boolop(self, node: ast.BoolOp) -> Value:
        join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
        truths = [self._truth(part) for part in node.values]
        return Value("bool", functools.reduce(join, truths), self._said(node))

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return Value("bool", pc.invert(self._truth(node.operand)), self._said(node))
        number = self._number(node.operand)
        data = pc.negate(number) if isinstance(node.op, ast.USub) else number
        return Value("number", data, self._said(node))

    def _binop(self, node: ast.BinOp) -> Value:
        numbers = (self._number(part) for part in (node.left, node.right))
        left, right = (pc.cast(number, pa.float64(), safe=False) for number in numbers)
        found = ARITHMETIC[type(node.op)](left, right)
        finite = pc.if_else(pc.is_finite(found), found, pa.scalar(None, pa.float64()))
        return Value("number", finite, self._said(node))

    def _call(self, node: ast.Call) -> Value:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS or len(node.args) != FUNCTIONS[name]:
            raise SelectionError(
                f"{self._said(node)!r} is not understood; there are abs(x), "
                'startswith(text, "a") and endswith(text, "z")'
            )
        if name == "abs":
            return Value("number", pc.abs(self._number(node.args[0])), self._said(node))
        text, piece = (self.of(argument) for argument in node.args)
        if text.kind not in ("text", "null") or piece.kind != "text" or not piece.is_constant:
            raise SelectionError(f"{name}() takes a text and a literal, not {self._said(node)!r}")
        look = pc.starts_with if name == "startswith" else pc.ends_with
        if text.kind == "null":
            return Value("null", text.data, self._said(node))
        return Value("bool", look(text.data, piece.data.as_py()), self._said(node))

    def _compare(self, node: ast.Compare) -> Value:
        values = [node.left, *node.comparators]
        links = zip(values[:-1], node.ops, values[1:], strict=True)
        truths = [self._link(left, op, right) for left, op, right in links]
        return Value("bool", functools.reduce(pc.and_kleene, truths), self._said(node))

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        """One comparison of a chain."""
        if isinstance(op, ast.In | ast.NotIn):
            inside = self._inside(left, right)
            return inside if isinstance(op, ast.In) else pc.invert(inside)
        one, other = self.of(left), self.of(right)
        for value, asked in ((one, other), (other, one)):
            if value.is_constant and value.data.as_py() is None:
                return self._known(asked, op)
        return compared(one, op, other)

    def _known(self, value: Value, op: ast.cmpop) -> Any:
        if not isinstance(op, ast.Eq | ast.NotEq | ast.Is | ast.IsNot):
            raise SelectionError(f"null is compared by == or != only, not as in {self._short!r}")
        missing = pc.is_null(value.data)
        return missing if isinstance(op, ast.Eq | ast.Is) else pc.invert(missing)

    def _inside(self, left: ast.expr, right: ast.expr) -> Any:
        one = self.of(left)
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            return self._among(one, [self.of(item) for item in right.elts])
        other = self.of(right)
        if other.kind == "null":
            return pa.scalar(None, pa.bool_()) if other.is_constant else other.data
        if not one.is_constant or one.kind == "null" or other.kind not in ("list", "text"):
            raise SelectionError(
                f"{self._short!r}: `in` takes a list of literals on its right, or a literal on its "
                'left: key in ["a", "b"], "train" in splits, "grid/" in key'
            )
        if other.kind == "text":
            require_same_kind(one, "in", other)
            return pc.match_substring(other.data, one.data.as_py())
        return in_lists(one, other)

    def _among(self, value: Value, items: list[Value]) -> Any:
        for item in items:
            if not item.is_constant or item.kind == "null":
                raise SelectionError(
                    f"{item.said!r} in a list: expected literals; for unknown values: x == null"
                )
            require_same_kind(value, "in", item)
        if not items:
            raise SelectionError(f"{self._short!r}: the list after `in` is empty")
        if value.kind == "null":
            return value.data
        found = [as_precise(item, value) for item in items]
        types = {item.type for item in found}
        type_ = types.pop() if len(types) == 1 else pa.float64()
        choices = pa.array([item.as_py() for item in found], type_)
        data = pc.cast(value.data, type_, safe=False)
        return pc.if_else(pc.is_valid(data), pc.is_in(data, value_set=choices), None)

    def _name(self, node: ast.Name) -> Value:
        if node.id in CONSTANTS:
            return constant_of(CONSTANTS[node.id], node.id)
        if node.id in FUNCTIONS:
            raise SelectionError(f"{node.id} is a function; write such as {node.id}(...)")
        return column_of(self._table[node.id], node.id)

    def _constant(self, node: ast.Constant) -> Value:
        return constant_of(node.value, self._said(node))

    def _list(self, node: ast.List) -> Value:
        raise SelectionError(f"{self._said(node)!r}: a list stands on the right of `in` only")

    _tuple = _set = _list

    def _truth(self, node: ast.expr) -> Any:
        value = self.of(node)
        if value.kind not in ("bool", "null"):
            raise SelectionError(
                f"{value.said!r} is {KINDS[value.kind]}, where a condition is expected: compare it "
                "with something"
            )
        return value.data.cast(pa.bool_())

    def _number(self, node: ast.expr) -> Any:
        value = self.of(node)
        if value.kind not in ("number", "null"):
            raise SelectionError(f"{value.said!r} is {KINDS[value.kind]}; expected a number")
        return value.data.cast(pa.float64()) if value.kind == "null" else value.data

    def _said(self, node: ast.AST) -> str:
        return _part(self._text, node)


FUNCTIONS = {"abs": 1, "startswith": 2, "endswith": 2}
"""Number of arguments by name."""
UNDERSTOOD = (
    ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, *ARITHMETIC,
    ast.Compare, *COMPARE, ast.Is, ast.IsNot, ast.In, ast.NotIn, ast.Call, ast.Name, ast.Load,
    ast.Constant, ast.List, ast.Tuple, ast.Set,
)  # fmt: skip


def _shortened(text: str) -> str:
    """For a message."""
    return text if len(text) <= MAX_SAID else text[:MAX_SAID] + "..."


def _part(text: str, node: ast.AST) -> str:
    return ast.get_source_segment(text.strip(), node) or type(node).__name__


def _hint(text: str) -> str:
    """What may have been meant; strings in the text do not count."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", text.strip())
    return next((said for pattern, said in HINTS if re.search(pattern, bare)), "")
