"""Features as Parquet or NPZ: one row a clip, or a frame."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from train.errors import UsageError

Per = Literal["clip", "frame"]
ENDINGS = (".parquet", ".npz")


@dataclass(frozen=True)
class Layout:
    """The columns of a table of features."""

    per: Per
    channels: dict[str, int]
    """Of each feature."""

    @property
    def schema(self) -> pa.Schema:
        """Of Parquet; a feature that cannot be had is null."""
        facts: list[tuple[str, pa.DataType]] = [("key", pa.string()), ("uri", pa.string())]
        if self.per == "frame":
            facts += [("frame", pa.int32()), ("time_seconds", pa.float64())]
        else:
            facts += [("start_seconds", pa.float64()), ("seconds", pa.float64()),
                      ("windows", pa.int32())]  # fmt: skip
        facts += [("has_sound", pa.bool_()), ("faceless", pa.bool_())]
        facts += [(name, pa.list_(pa.float32(), size)) for name, size in self.channels.items()]
        return pa.schema(facts)


@dataclass
class Rows:
    """Rows while they are made, column by column."""

    layout: Layout
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, count: int, **facts: Any) -> None:
        """Append `count` rows; a fact is one value for all of them, a sequence, or None.

        Args:
            count: rows.
            facts: by column; features are (count, C) or None.
        """
        for name in self.layout.schema.names:
            value = facts.get(name)
            values = list(value) if isinstance(value, np.ndarray) else [value] * count
            self.columns.setdefault(name, []).extend(values)

    def table(self) -> pa.Table:
        """As Arrow."""
        schema = self.layout.schema
        arrays = [pa.array(self.columns.get(one.name, []), one.type) for one in schema]
        return pa.table(arrays, schema=schema)


def write_part(path: Path, table: pa.Table) -> None:
    """A Parquet file that is whole or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)


def require_ending(path: Path) -> None:
    """Refuse a file of another kind.

    Raises:
        UsageError: says which there are.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(f"--out {path} ends with {path.suffix or 'nothing'}; expected a file "
                         f"{' or '.join(ENDINGS)}")  # fmt: skip


def join(parts: Sequence[Path], out: Path, layout: Layout) -> int:
    """All parts as one file, by its ending; returns its rows."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.stem}.tmp{out.suffix}")
    if out.suffix == ".npz":
        whole = pa.concat_tables([pq.read_table(part) for part in parts])
        np.savez(temporary, **as_arrays(whole, layout))  # type: ignore[arg-type]
        rows = len(whole)
    else:
        rows = _joined_parquet(parts, temporary, layout.schema)
    temporary.replace(out)
    return rows


def _joined_parquet(parts: Iterable[Path], out: Path, schema: pa.Schema) -> int:
    rows = 0
    with pq.ParquetWriter(out, schema) as writer:
        for part in parts:
            table = pq.read_table(part)
            writer.write_table(table)
            rows += len(table)
    return rows


def as_arrays(table: pa.Table, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    """Columns as numpy: features (rows, C) float32, NaN where there is none.

    Facts that are not known of each row are left out.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        if name in layout.channels:
            nothing = [np.nan] * layout.channels[name]
            rows = [nothing if value is None else value for value in values]
            found[name] = np.array(rows, np.float32).reshape(len(rows), layout.channels[name])
        elif None not in values:  # `faceless` is null where nobody asked; numpy knows no null
            found[name] = np.array(values)
    return found
