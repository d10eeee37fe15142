"""A number a sample, from a table: `add-field OUT sync --table scores.parquet`.

Joined by key and kept as OUT/fields/NAME/table.parquet (key, NAME) in the order of samples.parquet.
It belongs to the shards as they were then: in one that is made again, other clips may have the same
keys.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import UsageError
from pipeline import remote
from pipeline.errors import Reason, plain_text
from pipeline.field_index import FieldLedger, field_index
from pipeline.fields import FieldConfig, folder_of, read_field, stored_field
from pipeline.index import ERRORS_SCHEMA, Table, publish
from pipeline.outputs import Outputs, reading_table
from pipeline.shard import write_atomically
from selection.facts import shard_hashes

TABLE = "table.parquet"
TOLD_KEYS = 3


@dataclass(frozen=True)
class NumberWish:
    """Where the numbers are."""

    table: Path
    column: str | None
    """None: the one with the field's name, or the only one beside `key`."""
    flags: Sequence[str] = ()
    """Of the command."""


def add_number(out: Path, config: FieldConfig, wish: NumberWish, overwrite: bool) -> FieldLedger:
    """Join a table's column to the samples of a set.

    Raises:
        UsageError: the table cannot be read or joined, or the field is of another kind.
    """
    files = Outputs(out)
    before = read_field(out, config.field)
    if before is not None and before["config"].get("kind") != "number" and not overwrite:
        raise UsageError(
            f"{folder_of(out, config.field)} is a field of another kind; give another name, or "
            "--overwrite to replace it"
        )
    keys, values = _column(wish, config.field)
    with reading_table(files.samples_path):
        samples = pq.read_table(files.samples_path, columns=["key", "uri", "shard"])
    found = values.take(pc.index_in(samples["key"], value_set=keys))
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    lacks = pc.is_null(found, nan_is_null=True)
    known = pa.table({"key": samples["key"], config.field: found}).filter(pc.invert(lacks))
    if not len(known):
        raise UsageError(
            f"{wish.table} has a number for none of the {len(samples)} samples of {out}. Its keys "
            f"are {_some(keys)}; those of the set {_some(samples['key'])}"
        )
    folder = folder_of(out, config.field)
    if before is not None and before["config"].get("kind") != "number":
        remote.forget_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = stored_field(config, files.plan.config_hash, wish.flags)
    return _write(out, config, stored, known, samples.filter(lacks))


def _column(wish: NumberWish, field: str) -> tuple[pa.Array, pa.ChunkedArray]:
    """Keys, each once, and their numbers."""
    try:
        table = pq.read_table(wish.table)
    except (pa.ArrowException, OSError) as error:
        said = plain_text(str(error))
        raise UsageError(f"--table {wish.table} is no Parquet file that can be read: {said}") from (
            error
        )
    others = [name for name in table.column_names if name != "key"]
    name = wish.column or (field if field in others or len(others) != 1 else others[0])
    if "key" not in table.column_names or name not in others:
        raise UsageError(
            f"--table {wish.table} has the columns {', '.join(table.column_names)}; expected `key` "
            f"and {name!r} (another: --column)"
        )
    kind = table.schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UsageError(f"{name} of {wish.table} holds {kind}; expected numbers")
    keys = table["key"].cast(pa.string()).combine_chunks()
    if len(pc.unique(keys)) != len(keys):
        counts = pc.value_counts(keys)
        twice = [one["values"] for one in counts.to_pylist() if one["counts"] > 1]
        raise UsageError(f"{wish.table} has {twice[0]!r} more than once; expected each key once")
    return keys, table[name]


def _write(
    out: Path, config: FieldConfig, stored: dict[str, Any], known: pa.Table, lacking: pa.Table
) -> FieldLedger:
    folder = folder_of(out, config.field)
    ledger = FieldLedger(len(known) + len(lacking), len(known))
    base = Outputs(out).index()
    with (
        Table(folder / TABLE, known.schema) as table,
        Table(folder / "errors.parquet", ERRORS_SCHEMA) as errors,
    ):
        table.extend(known.to_pydict())
        for row in lacking.to_pylist():
            ledger.reasons[Reason.NOT_RUN] += 1
            errors.add({**row, "stage": "sample", "reason": str(Reason.NOT_RUN), "tries": 0,
                        "detail": "the table has no number for this key"})  # fmt: skip
        write_atomically(folder / "field.json", json.dumps(stored, indent=1).encode())
        index = field_index(config, stored, ledger, base, shardlist=[], bases=shard_hashes(base))
        publish(folder, index, table, errors)
    return ledger


def _some(keys: Any) -> str:
    shown = ", ".join(map(str, keys.slice(0, TOLD_KEYS).to_pylist()))
    return shown + (", ..." if len(keys) > TOLD_KEYS else "")
