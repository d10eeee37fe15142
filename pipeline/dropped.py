"""OUT/dropped.parquet: clips that were taken back, one tombstone a clip, only ever added to.

Whoever makes, counts or lists clips leaves these out (`pipeline.account`); `pipeline drop` writes
them.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.format import FormatError
from pipeline.outputs import reading
from pipeline.shard import write_atomically

DROPPED_NAME = "dropped.parquet"
BEFORE_NAME = "dropped-before.txt"
"""Keys that were dropped from a set that was then made anew."""
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("reason", pa.string()),  # what the person who dropped it said
        ("dropped_unix", pa.float64()),
        ("purged", pa.bool_()),  # whether its bytes are gone from tars and sidecars
    ]
)


def read_tombstones(out: Path) -> pa.Table:
    """The tombstones of a set, the oldest first; none where nothing was ever dropped.

    Raises:
        FormatError: the file is damaged.
    """
    path = out / DROPPED_NAME
    if not path.exists():
        return SCHEMA.empty_table()
    remedy = (
        "bring it back from a copy. It says which clips were taken back: without it the next job "
        "would make them again"
    )
    with reading(path, remedy):
        stored = pq.read_table(path)
    if lacking := [name for name in SCHEMA.names if name not in stored.column_names]:
        raise FormatError(f"{path} lacks {', '.join(lacking)}; {remedy}")
    return stored.select(SCHEMA.names).cast(SCHEMA)


def write_tombstones(out: Path, stones: pa.Table) -> None:
    """Replace the file: its readers see the old tombstones or the new ones."""
    buffer = io.BytesIO()
    pq.write_table(stones, buffer)
    write_atomically(out / DROPPED_NAME, buffer.getvalue())


def dropped_keys(out: Path) -> frozenset[str]:
    """The keys of all clips that were taken back."""
    return frozenset(read_tombstones(out)["key"].to_pylist())


def purged_keys(out: Path) -> frozenset[str]:
    """Those of them whose bytes are to be nowhere any more."""
    stones = read_tombstones(out)
    return frozenset(stones.filter(stones["purged"])["key"].to_pylist())


def forget(out: Path) -> str:
    """Before a set is made anew: what was dropped comes back, and that must be said.

    Returns:
        A sentence for the log; empty if nothing was dropped.
    """
    try:
        keys = sorted(dropped_keys(out))
    except FormatError as error:
        return _forgotten(out, f"which clips were dropped is not known any more ({error})")
    if not keys:
        return ""
    before = out / BEFORE_NAME
    write_atomically(before, "".join(_lines(keys)).encode())
    return _forgotten(
        out,
        f"{len(keys)} clips that had been dropped COME BACK; `python -m pipeline drop {out} "
        f"--keys {before}` drops them again",
    )


def _forgotten(out: Path, said: str) -> str:
    (out / DROPPED_NAME).unlink(missing_ok=True)
    return said


def _lines(keys: list[str]) -> Iterator[str]:
    return (f"{key}\n" for key in keys)
