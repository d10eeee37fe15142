"""--where and --without: which clips of the sets a run reads, decided when it reads them.

An expression over the facts of each clip (`selection.where`), and a file of clips to leave out,
such as the table that `python -m pipeline leaks` writes. Whoever reads clips asks a `View` for the
rows of a set that pass; nothing in the set is changed.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from selection import SelectionError
from selection.facts import passing
from selection.where import Where
from train.errors import ShardError, UsageError
from train.index import ShardSet

log = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]
KEY, SET = "key", "set"


@dataclass(frozen=True)
class View:
    """What passes; by itself everything."""

    where: str | None = None
    """An expression, such as `silent == false and face_rate > 0.8`."""
    without: Path | None = None
    """A file that lists clips to leave out: .parquet or .csv with a column `key` (and perhaps
    `set`, the name of their set), or a text of one key a line."""

    def __str__(self) -> str:
        """As it was asked for, or nothing."""
        where = f'--where "{self.where}"' if self.where else ""
        without = f"--without {self.without}" if self.without else ""
        return " ".join(filter(None, (where, without)))

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.where or self.without)

    def passes(self, shard_set: ShardSet) -> Mask:
        """Which rows of a set are read.

        Raises:
            UsageError: the expression or the file cannot be understood, or names what is not there.
            ShardError: samples.parquet does not know a clip of the index.
        """
        mask = np.ones(len(shard_set), np.bool_)
        if self.where:
            mask &= _where(self.where, shard_set)
        if self.without:
            listed = _listed(self.without, shard_set.name)
            found = pc.is_in(shard_set.keys, value_set=listed)
            mask &= ~found.to_numpy(zero_copy_only=False)
        return mask


def _where(text: str, shard_set: ShardSet) -> Mask:
    try:
        facts, passed = passing(Where(text), shard_set.store.read, str(shard_set.store))
    except SelectionError as error:
        raise UsageError(f"--where, {shard_set.name}: {error}") from error
    for note in facts.notes:
        log.warning("%s: %s", shard_set.name, note)
    places = pc.index_in(shard_set.keys, value_set=facts.table[KEY].combine_chunks())
    if places.null_count:
        raise ShardError(f"samples.parquet of {shard_set.name} does not know "
                         f"{places.null_count:,} clips of its index")  # fmt: skip
    return np.asarray(passed[places.to_numpy()])


def _listed(path: Path, name: str) -> pa.Array:
    """The keys of a set that a file lists."""
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=_columns(pq.read_schema(path).names, path))
        elif path.suffix == ".csv":
            table = csv.read_csv(path)
            table = table.select(_columns(table.column_names, path))
        else:
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            table = pa.table({KEY: pa.array([line for line in lines if line], pa.string())})
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UsageError(
            f"--without {path} cannot be read ({error}); expected .parquet or .csv with a column "
            "`key`, or a text of one key a line"
        ) from error
    if SET in table.column_names:
        table = table.filter(pc.equal(table[SET].cast(pa.string()), name.partition("#")[0]))
    return table[KEY].cast(pa.string()).combine_chunks().drop_null()


def _columns(names: list[str], path: Path) -> list[str]:
    if KEY not in names:
        raise UsageError(f"--without {path} has the columns {', '.join(names)}; expected `key`")
    return [KEY, *({SET} & set(names))]
