"""Takes the bytes of clips that were taken back out of the fields of a set.

A side shard of a purged shard belongs to a version that is gone, so it goes, and the index of its
field with it: `add-field` makes it again, of the clips that stay.
"""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.field_check import names_of_fields
from pipeline.fields import command, folder_of
from pipeline.shard import write_atomically


def purge_fields(out: Path, shards: list[str], keys: frozenset[str]) -> list[str]:
    """Remove side shards of these shards, and the numbers of these clips.

    Args:
        out: folder of the set.
        shards: names of the shards that held one of the clips.
        keys: of the clips.

    Returns:
        What to do next, one sentence a field that lost side shards.
    """
    told = []
    for name in names_of_fields(out):
        folder = folder_of(out, name)
        table = folder / "table.parquet"
        if table.is_file():
            _purge_numbers(folder, table, keys)
            continue
        gone = [shard for shard in shards if (folder / "shards" / f"{shard}.tar").exists()]
        if not gone:
            continue
        (folder / "shardindex.json").unlink(missing_ok=True)
        for shard in gone:
            (folder / "shards" / f"{shard}.json").unlink(missing_ok=True)
            (folder / "shards" / f"{shard}.tar").unlink(missing_ok=True)
        told.append(
            f"field {name}: {len(gone)} side shards held one of them and were removed; "
            f"`{command(out, name)}` makes them again without"
        )
    return told


def _purge_numbers(folder: Path, path: Path, keys: frozenset[str]) -> None:
    table = pq.read_table(path)
    kept = table.filter(pc.invert(pc.is_in(table["key"], pa.array(list(keys), pa.string()))))
    lost = len(table) - len(kept)
    if not lost:
        return
    buffer = io.BytesIO()
    pq.write_table(kept, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())
    index: dict[str, Any] = json.loads((folder / "shardindex.json").read_bytes())
    index["counts"] = {
        **index["counts"],
        **{name: index["counts"][name] - lost for name in ("planned", "samples")},
    }
    write_atomically(folder / "shardindex.json", json.dumps(index, indent=1).encode())
