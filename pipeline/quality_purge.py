"""Takes what is known of clips that were taken back out of OUT/quality.

Fingerprints and offsets of the clips that stay are kept, as facts of the shards that hold them now:
to make them again every clip would have to be decoded. Tables that compare clips with each other go
whole, because ranks and groups change with a clip; from fingerprints they are made in no time.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import remote
from pipeline.shard import write_atomically
from selection.facts import BASES, COLUMNS, FOLDER, KEY, MADE_BY, RANKS

SHARD_SHA256 = "shard_sha256"
"""Column of fingerprints."""
FINGERPRINTS = "fingerprints"
"""How the name of the table begins that `duplicates` compares by."""


def purge_quality(out: Path, keys: frozenset[str], now: Mapping[str, str]) -> list[str]:
    """Remove the facts of some clips.

    Args:
        out: folder of the set.
        keys: of the clips.
        now: sha256 of tars before clips were purged from them -> what it is now.

    Returns:
        What was removed beside, and what makes it again.
    """
    tables = sorted((out / FOLDER).glob("*.parquet"))
    gone = [path for path in tables if path.name.startswith(RANKS) or not _purge(path, keys, now)]
    if not gone:
        return []
    _forget_columns(out, {path.name for path in gone})
    remote.forget(out, *(f"{FOLDER}/{path.name}" for path in gone))
    names = [path.name for path in gone]
    compared = ", ".join(name for name in names if name.startswith(RANKS))
    unreadable = ", ".join(name for name in names if not name.startswith(RANKS))
    return [
        f"removed from {FOLDER}/: {which}, {why}{_again(out, which)}"
        for which, why in (
            (compared, "because ranks change with a clip"),
            (unreadable, "because it cannot be read whose the rows are"),
        )
        if which
    ]


def _again(out: Path, names: str) -> str:
    """What makes the tables again; nothing for those that no command of ours makes."""
    makers = {**MADE_BY, FINGERPRINTS: MADE_BY[RANKS]}
    commands = dict.fromkeys(command for start, command in makers.items() if start in names)
    again = " and ".join(f"`python -m {command} {out}`" for command in commands)
    return f"; {again} makes them again" if again else ""


def _purge(path: Path, keys: frozenset[str], now: Mapping[str, str]) -> bool:
    """Take the clips out of a table; False if it does not say whose its rows are."""
    try:
        table = pq.read_table(path)
        bases = json.loads((table.schema.metadata or {}).get(BASES, b"{}"))
        kept = table.filter(pc.invert(pc.is_in(table[KEY], pa.array(sorted(keys), pa.string()))))
        kept = _of_shards_now(kept, bases, now)
    except (pa.ArrowException, OSError, ValueError, KeyError, AttributeError):
        return False
    if not kept.equals(table, check_metadata=True):
        buffer = io.BytesIO()
        pq.write_table(kept, buffer, compression="zstd")
        write_atomically(path, buffer.getvalue())
    return True


def _of_shards_now(table: pa.Table, bases: dict[str, str], now: Mapping[str, str]) -> pa.Table:
    """What it says of shards that were rewritten, said of what they are now."""
    if SHARD_SHA256 in table.column_names:
        at = table.schema.get_field_index(SHARD_SHA256)
        hashes = [now.get(sha256, sha256) for sha256 in table[SHARD_SHA256].to_pylist()]
        table = table.set_column(at, table.schema.field(at), pa.array(hashes, pa.string()))
    if not bases:
        return table
    renamed = {shard: now.get(sha256, sha256) for shard, sha256 in bases.items()}
    return table.replace_schema_metadata({**table.schema.metadata, BASES: json.dumps(renamed)})


def _forget_columns(out: Path, files: set[str]) -> None:
    """Before the tables go: a column whose table is not there would be an error."""
    path = out / COLUMNS
    if path.exists():
        known = json.loads(path.read_bytes())
        kept = {name: file for name, file in known.items() if file not in files}
        write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())
