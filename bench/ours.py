"""Our way: the pipeline for one file, in this process, down to the bytes in the tar."""

from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from manifests.columns import table
from pipeline import PROFILES
from pipeline.config import Faces, Limits, ShardConfig
from pipeline.item import Item, Made, Opened
from pipeline.sample import outcomes
from pipeline.shard import ShardTask, TarWriter


def config(faces: Faces, profile: str = "glcm") -> ShardConfig:
    """A profile with another answer to whether faces are looked for."""
    return replace(PROFILES[profile], faces=faces)


@cache
def item(path: Path) -> Item:
    """A whole file as the one row of a manifest."""
    facts = {"dataset": "bench", "key": path.stem, "source_id": path.stem, "group_id": path.stem}
    row = table([{**facts, "uri": path.name, "bytes": path.stat().st_size}]).to_pylist()[0]
    return Item(str(path.parent), ({**row, "instance": 0},))


def sample(path: Path, wanted: ShardConfig) -> Made:
    """The sample of a file.

    Raises:
        ClipError: there is none.
    """
    for outcome in outcomes(item(path), wanted, Limits()):
        if not isinstance(outcome, Opened | Made):
            raise outcome.error
        if isinstance(outcome, Made):
            return outcome
    raise AssertionError("every row has an outcome")


def shard(path: Path, wanted: ShardConfig) -> bytes:
    """A shard of that one sample, hashed and all."""
    task = ShardTask("bench", item(path).rows, str(path.parent), "", wanted, "", "", Limits())
    buffer = BytesIO()
    writer = TarWriter(buffer, task)
    writer.add(task.rows[0], sample(path, wanted))
    writer.close()
    return buffer.getvalue()


def meta(made: Made) -> dict[str, Any]:
    """The JSON member of a sample."""
    from pipeline.format import decode_meta

    return decode_meta(made.members)
