"""Takes the bytes of clips that were taken back out of the fields of a set.

A side shard of a rewritten shard belongs to a version that is gone, so it goes, and the index of
its field with it: `add-field` makes it again, of the clips that stay.
"""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import remote
from pipeline.field_check import names_of_fields
from pipeline.fields import command, folder_of
from pipeline.mirror import tar_bytes
from pipeline.numbers import TABLE
from pipeline.outputs import Outputs
from pipeline.shard import write_atomically
from pipeline.units import counted

TABLES = ("samples.parquet", "errors.parquet")


def purge_fields(
    out: Path, shards: list[str], keys: frozenset[str], dropped: frozenset[str]
) -> list[str]:
    """Remove side shards that have no shard any more, and what is known of clips taken back.

    Args:
        out: folder of the set.
        shards: names of the shards that may have been rewritten, by killed commands included.
        keys: of the clips that are purged.
        dropped: keys of all clips that were taken back.

    Returns:
        What to do next, one sentence a field that lost side shards.
    """
    told = []
    for name in names_of_fields(out):
        folder = folder_of(out, name)
        if (folder / TABLE).is_file():
            _purge_numbers(folder, dropped, shards_now(out, shards))
            continue
        gone = [shard for shard in shards if _is_over(out, folder, shard, keys)]
        tables = [path for path in map(folder.joinpath, TABLES) if path.is_file()]
        # A killed command may have removed the side shards and not yet named the clips no more.
        if not gone and not any(_names(path, keys) for path in tables):
            continue
        remote.forget(folder, "shardindex.json")
        for path in tables:
            _without(path, dropped)
        files = [f"shards/{shard}.{kind}" for shard in gone for kind in ("json", "tar")]
        remote.forget(folder, *files)
        told.append(
            f"field {name}: {counted(len(gone), 'side shard')} of rewritten shards removed; "
            f"`{command(out, name)}` makes them again, of the clips that stay"
        )
    return told


def _names(table: Path, keys: frozenset[str]) -> bool:
    """Whether one of the clips has a row."""
    return not keys.isdisjoint(pq.read_table(table, columns=["key"])["key"].to_pylist())


def _is_over(out: Path, folder: Path, shard: str, keys: frozenset[str]) -> bool:
    """Whether a side shard belongs to a shard that was rewritten, or holds a purged clip.

    A shard of which only error rows were purged is as it was, and so is what lies beside it.
    """
    path = folder / "shards" / f"{shard}.json"
    try:
        side = json.loads(path.read_bytes())
        held = {entry["key"] for entry in [*side["samples"], *side["errors"]]}
        of = side["base_sha256"]
    except FileNotFoundError:
        return tar_bytes(path.with_suffix(".tar")) is not None  # a crash left it
    except (ValueError, KeyError, TypeError):
        return True  # nobody can say what is in it
    base = Outputs(out).sidecar(shard, with_samples=False)
    return not held.isdisjoint(keys) or (base is not None and of != base.sha256)


def shards_now(out: Path, shards: list[str]) -> dict[str, str]:
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
