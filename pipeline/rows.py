"""The rows of OUT/manifest.parquet by position, and what a sample repeats of its row."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.recipes import Recipe, recipe_of
from pipeline.errors import ClipError, Reason, plain_text
from pipeline.format import FormatError
from pipeline.item import Row
from pipeline.plan import Ints, Patch, PlannedShard


class PlannedRows:
    """Rows of a Parquet file by position; memory holds a row group or two, however long it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._reading():
            self._file = pq.ParquetFile(path)
        metadata = self._file.metadata
        counts = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        self._firsts: list[int] = list(accumulate(counts, initial=0))
        self._kept: tuple[tuple[int, int, tuple[str, ...]], pa.Table] | None = None

    def __len__(self) -> int:
        return self._firsts[-1]

    def column(self, name: str) -> pa.Array:
        """One column of all rows."""
        with self._reading():
            return self._file.read([name])[name].combine_chunks()

    def table(self, first: int, count: int, columns: list[str] | None = None) -> pa.Table:
        """Rows `[first, first + count)`."""
        begin = bisect_right(self._firsts, first) - 1
        end = bisect_left(self._firsts, first + count)
        rows = self._groups(begin, end, columns)
        return rows.slice(first - self._firsts[begin], count)

    def _groups(self, begin: int, end: int, columns: list[str] | None) -> pa.Table:
        """Some row groups; the last ones stay, because the next shard mostly lies in them, too."""
        wanted = (begin, end, tuple(columns or ()))
        if self._kept is None or self._kept[0] != wanted:
            self._kept = None  # before the next ones are read: memory holds one piece
            with self._reading():
                rows = self._file.read_row_groups(list(range(begin, end)), columns=columns)
            self._kept = wanted, rows
        return self._kept[1]

    def positions(self, keys: Collection[str]) -> Ints:
        """Where the rows with some keys are, ascending; keys without a row are passed over."""
        found = pc.index_in(self.column("key"), value_set=pa.array(keys, pa.string()))
        places: Ints = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        return places

    def take(self, positions: Ints, columns: list[str] | None = None) -> pa.Table:
        """Rows by position, ascending; only the row groups they lie in are read."""
        groups = np.searchsorted(self._firsts, positions, "right") - 1
        pieces = []
        with self._reading():
            for group in np.unique(groups).tolist():
                rows = self._file.read_row_group(group, columns=columns)
                pieces.append(rows.take(positions[groups == group] - self._firsts[group]))
            empty = self._file.schema_arrow.empty_table()
        return pa.concat_tables(pieces) if pieces else empty.select(columns or empty.column_names)

    def of_shard(self, shard: PlannedShard, columns: list[str] | None = None) -> pa.Table:
        """The rows of a shard, in the order they are made in."""
        if isinstance(shard, Patch):
            return self.take(self.positions(shard.keys), columns)
        return self.table(shard.first_row, shard.rows, columns)

    def read(self, first: int, count: int, columns: list[str] | None = None) -> list[Row]:
        """The same as dicts."""
        found: list[Row] = self.table(first, count, columns).to_pylist()
        return found

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn damage into a sentence.

        Raises:
            FormatError: the file is lost or damaged.
        """
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise FormatError(
                f"{self._path} is lost or damaged ({plain_text(str(error))}); run the `python -m "
                "pipeline shards` command of this set again, which makes it anew"
            ) from error


def stated_facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a sample's JSON that its manifest row decides: `clip` writes, `check` compares.

    Ground truth of generated corpora travels in the row's `extra`; `truth` has no boxes where
    nothing is known.
    """
    extra = json.loads(row["extra"] or "{}")
    truth = extra.pop("truth", {"boxes": []})
    return {
        **{name: row[name] for name in ("key", "dataset", "instance")},
        "group": row["group_id"],
        **{name: row[name] for name in ("splits", "labels", "label_names", "transcript")},
        **{name: row[name] or [] for name in ("words", "segments")},
        "truth": truth,
        "extra": extra,
    }


def stated_recipe(row: Mapping[str, Any]) -> Recipe:
    """How a row's clip is manipulated; most rows have no recipe.

    Raises:
        ClipError: the recipe cannot be carried out.
    """
    try:
        return recipe_of(row["key"], json.loads(row["extra"] or "{}"))
    except ValueError as error:
        raise ClipError(Reason.UNSUPPORTED_FORMAT, str(error), "sample") from error
