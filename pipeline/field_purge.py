"""Takes the bytes of clips that were taken back out of the fields of a set.

A side shard of a purged shard belongs to a version that is gone, so it goes, and the index of its
field with it: `add-field` makes it again, of the clips that stay.
"""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.field_check import names_of_fields
from pipeline.fields import command, folder_of
from pipeline.numbers import TABLE
from pipeline.outputs import Outputs
from pipeline.shard import write_atomically


def purge_fields(out: Path, shards: list[str], dropped: frozenset[str]) -> list[str]:
    """Remove side shards of these shards, and the numbers of all clips that were taken back.

    Args:
        out: folder of the set.
        shards: names of the shards that held a purged clip.
        dropped: keys of the clips that were taken back.

    Returns:
        What to do next, one sentence a field that lost side shards.
    """
    told = []
    for name in names_of_fields(out):
        folder = folder_of(out, name)
        if (folder / TABLE).is_file():
            _purge_numbers(folder, dropped, _now(out, shards))
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


def _now(out: Path, shards: list[str]) -> dict[str, str]:
    """sha256 of tars before purges, those of killed commands included -> what it is now."""
    sidecars = [Outputs(out).sidecar(shard, with_samples=False) for shard in shards]
    return {before: car.sha256 for car in sidecars if car for before in car.purged_from}


def _purge_numbers(folder: Path, keys: frozenset[str], now: dict[str, str]) -> None:
    """Take the clips out of the numbers, and out of the list of those that have none.

    The numbers of the others stay those of their shards, which hold them as before.
    """
    index: dict[str, Any] = json.loads((folder / "shardindex.json").read_bytes())
    samples = _without(folder / TABLE, keys)
    errors = _without(folder / "errors.parquet", keys)
    index["counts"] = {
        "planned": len(samples) + len(errors),
        "samples": len(samples),
        "errors": len(errors),
    }
    index["reasons"] = dict(sorted(Counter(errors["reason"].to_pylist()).items()))
    index["bases"] = {shard: now.get(sha256, sha256) for shard, sha256 in index["bases"].items()}
    write_atomically(folder / "shardindex.json", json.dumps(index, indent=1).encode())


def _without(path: Path, keys: frozenset[str]) -> pa.Table:
    """What is left of a table; the file is replaced where that is less."""
    table = pq.read_table(path)
    kept = table.filter(pc.invert(pc.is_in(table["key"], pa.array(list(keys), pa.string()))))
    if len(kept) < len(table):
        buffer = io.BytesIO()
        pq.write_table(kept, buffer, compression="zstd")
        write_atomically(path, buffer.getvalue())
    return kept
