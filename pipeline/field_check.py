"""Whether the fields of a set can be trusted, and what there is of each.

A field that belongs to an older version of a shard, or does not cover a new one, is incomplete;
side shards that are not what their sidecars say are corrupt.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.check import UNREADABLE, file_hash
from pipeline.errors import plain_text
from pipeline.fields import FOLDER, command, folder_of, read_field
from pipeline.format import decode_jpeg, decode_npy, read_shard, split_jpegs
from pipeline.mirror import tar_bytes
from pipeline.outputs import Outputs
from pipeline.units import counted
from selection.facts import shard_hashes


@dataclass(frozen=True)
class Finding:
    """What is wrong with a field."""

    sentence: str
    is_corrupt: bool
    """False: it is not finished, or belongs to an older version of the set."""


def names_of_fields(out: Path) -> list[str]:
    """The fields that were begun."""
    return sorted(path.parent.name for path in (out / FOLDER).glob("*/field.json"))


def field_findings(out: Path, index: dict[str, Any], deep: bool) -> Iterator[Finding]:
    """What is wrong with the fields of a set.

    Args:
        out: folder of the set.
        index: its shardindex.json.
        deep: also decode every side sample.
    """
    for name in names_of_fields(out):
        try:
            yield from _findings(out, name, index, deep)
        except UNREADABLE as error:
            said = plain_text(f"field {name}: {type(error).__name__}: {error}")
            yield Finding(f"{said}; remove its folder and add it again", True)


def _findings(out: Path, name: str, index: dict[str, Any], deep: bool) -> Iterator[Finding]:
    folder, again = folder_of(out, name), command(out, name)
    path = folder / "shardindex.json"
    if not path.is_file():
        yield Finding(f"field {name} is not finished: `{again}` goes on", False)
        return
    data = path.read_bytes()
    field = json.loads(data)
    named = (index.get("fields") or {}).get(name, {}).get("sha256")
    if named != hashlib.sha256(data).hexdigest():
        said = f"field {name}: shardindex.json of the set does not name it as it is"
        yield Finding(f"{said}; `python -m pipeline finalize {out}` does", True)
    yield from _count_findings(folder, name, field)
    mended = f"`{again}` mends it"
    if field["kind"] == "number":
        mended += ", where the table has the numbers of the clips as they are now"
        planned, samples = field["counts"]["planned"], index["counts"]["samples"]
        if planned != samples:
            said = f"field {name} speaks of {counted(planned, 'sample')}, the set has {samples}"
            yield Finding(f"{said}; {mended}", False)
    for shard, sha256 in shard_hashes(index).items():
        if field["bases"].get(shard) != sha256:
            said = f"field {name}: {shard} is new, or was made again since; {mended}"
            yield Finding(said, False)
    for entry in field["shardlist"]:
        for sentence in _tar_findings(out, name, field, entry, deep):
            said = f"field {name}: {sentence}; remove its sidecar, then run `{again}`"
            yield Finding(said, True)


def _count_findings(folder: Path, name: str, field: dict[str, Any]) -> Iterator[Finding]:
    """Whether the ledger closes, and the tables have as many rows."""
    counts = field["counts"]
    table = "table.parquet" if field["kind"] == "number" else "samples.parquet"
    rows = {
        "samples": pq.read_metadata(folder / table).num_rows,
        "errors": pq.read_metadata(folder / "errors.parquet").num_rows,
    }
    wrong = {which: count for which, count in rows.items() if count != counts[which]}
    if wrong:
        yield Finding(f"field {name}: its tables have {wrong}, its index says {counts}", True)
    if counts["planned"] != counts["samples"] + counts["errors"]:
        yield Finding(f"field {name}: THE LEDGER DOES NOT CLOSE: {counts}", True)


def _tar_findings(
    out: Path, name: str, field: dict[str, Any], entry: dict[str, Any], deep: bool
) -> Iterator[str]:
    """Whether a side shard is the one that the index means."""
    tar = folder_of(out, name) / entry["url"]
    size = tar_bytes(tar)
    if size is None:
        yield f"{tar.name} is not there"
        return
    if not tar.is_file():  # it lies on a store, and here is what the listing says of it
        if size != entry["filesize"]:
            yield f"{tar.name} has {size} bytes, its index says {entry['filesize']}"
        return
    found = file_hash(tar, "sha256")
    if found != entry["sha256"]:
        size, said = tar.stat().st_size, entry["filesize"]
        yield f"{tar.name} has {size} bytes of sha256 {found[:12]}…, its index says {said} of " + (
            f"{entry['sha256'][:12]}…"
        )
        return
    if deep:
        yield from _sample_findings(out, tar, field)


def _sample_findings(out: Path, tar: Path, field: dict[str, Any]) -> Iterator[str]:
    """Whether its samples are those of the base shard, in that order, and can be decoded."""
    base = Outputs(out).sidecar(tar.stem)
    order = [entry["base"] for entry in base.samples] if base else []
    frames = {e["base"]: (e["key"], e["frames"]) for e in (base.samples if base else ())}
    seen = []
    for name, members in read_shard(tar):
        seen.append(name)
        if list(members) != field["members"]:
            yield f"{tar.name}: {name[:100]} has the members {list(members)}"
            continue
        try:
            head = json.loads(members[field["members"][0]])
            if (head["key"], head["frames"]) != frames.get(name):
                yield f"{tar.name}: {name[:100]} is not the clip of that name"
            _decode(head, members)
        except UNREADABLE as error:
            yield f"{tar.name}: {name[:100]} cannot be read: {plain_text(str(error))}"
    if seen != [name for name in order if name in set(seen)]:
        yield f"{tar.name} has its samples in another order than the shard beside it"


def _decode(head: dict[str, Any], members: dict[str, bytes]) -> None:
    """Every member but the JSON."""
    for name, data in members.items():
        if name.endswith(".mjpeg"):
            for jpeg in split_jpegs(data, head["jpeg_sizes"][name.removesuffix(".mjpeg")]):
                if jpeg:
                    decode_jpeg(jpeg)
        elif name.endswith(".npy"):
            decode_npy(data)


# --- telling ------------------------------------------------------------------------------------


def field_lines(out: Path) -> list[str]:
    """One line a field, for `status` and the report."""
    lines = []
    for name in names_of_fields(out):
        folder = folder_of(out, name)
        try:
            counts = json.loads((folder / "shardindex.json").read_bytes())["counts"]
            samples, errors = (
                counted(counts["samples"], "sample"),
                counted(counts["errors"], "error"),
            )
            lines.append(f"{name}: {samples}, {errors}")
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            made = len(list((folder / "shards").glob("*.json")))
            lines.append(f"{name}: not finished, {counted(made, 'side shard')} committed")
    return lines


def sample_lines(out: Path, key: str) -> list[str]:
    """What the fields have of one sample, for `peek`."""
    lines = []
    for name in names_of_fields(out):
        stored, folder = read_field(out, name), folder_of(out, name)
        kind = stored["config"].get("kind") if stored else None
        try:
            if kind == "number":
                rows = pq.read_table(folder / "table.parquet", filters=[("key", "==", key)])
                told = str(rows[name][0]) if len(rows) else "none"
            else:
                rows = pq.read_table(folder / "samples.parquet", filters=[("key", "==", key)])
                told = _place_text(rows.to_pylist(), folder, command(out, name))
        except UNREADABLE as error:
            told = f"cannot be read: {plain_text(str(error))}"
        lines.append(f"field    {name}: {told}")
    return lines


def _place_text(rows: list[dict[str, Any]], folder: Path, again: str) -> str:
    if not rows:
        return "none, see errors.parquet of the field"
    row = rows[0]
    if tar_bytes(folder / "shards" / f"{row['shard']}.tar") is None:
        return f"gone with its side shard {row['shard']}, as after drop --purge; `{again}` makes it"
    face = ", no face" if row["face"] is False else ""
    enlarged = f", {row['enlarged']:.2f} crop pixels a stored pixel" if row["enlarged"] else ""
    return f"{row['size'] / 1e3:.1f} kB in {row['shard']}.tar at {row['offset']}{face}{enlarged}"
