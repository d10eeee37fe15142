"""Side shards -> the tables and the index of a field, and its name in the index of the set.

The ledger of a field closes as that of a set does: samples of the set = samples with the field +
rows of errors.parquet, each with a named reason.
"""

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import remote
from pipeline.errors import ShardError
from pipeline.fields import CROPS, FieldConfig, with_fields
from pipeline.format import FIELD_SCHEMA
from pipeline.index import ERRORS_SCHEMA, WIDS_KIND, Balance, Table, publish
from pipeline.plan import PlannedShard
from pipeline.shard import is_committed, write_atomically
from pipeline.units import counted

PLACES_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("base", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("instance", pa.int64()),
        ("frames", pa.int32()),
        ("face", pa.bool_()),
        ("enlarged", pa.float32()),
    ]
)


@dataclass
class FieldLedger(Balance):
    """Of a field: what is planned are the samples of the set, none of which is taken back."""

    faceless: int = 0
    enlarged: list[float] = field(default_factory=list)
    """Pixels of a crop for each stored pixel, by clip."""

    def add(self, sidecar: dict[str, Any]) -> None:
        """Take in a side shard."""
        self.samples += sidecar["nsamples"]
        self.reasons.update(error["reason"] for error in sidecar["errors"])
        for sample in sidecar["samples"]:
            self.faceless += sample.get("face") is False
            if sample.get("enlarged") is not None:
                self.enlarged.append(sample["enlarged"])

    def facts(self) -> dict[str, Any]:
        """What the index tells of all samples together."""
        middle = round(statistics.median(self.enlarged), 3) if self.enlarged else None
        return {"faceless": self.faceless, "enlarged": middle}

    def lines(self, config: FieldConfig) -> list[str]:
        """For a terminal."""
        verdict = "the ledger closes" if self.closes else "THE LEDGER DOES NOT CLOSE"
        lines = [
            f"{counted(self.planned, 'sample')} = {self.samples:,} with {config.field} + "
            f"{counted(self.errors, 'error')}: {verdict}"
        ]
        lines += [f"  {reason:<20}{count:>9}" for reason, count in self.reasons.most_common()]
        if self.faceless:
            faceless = counted(self.faceless, "sample")
            lines.append(f"{faceless} without a face: {config.field} is empty there")
        if config.kind in CROPS and config.origin == "stored":
            lines.append(_sharpness_line(config, self.facts()["enlarged"]))
        return lines


def _sharpness_line(config: FieldConfig, enlarged: float | None) -> str:
    """How sharp what was made from stored frames can be."""
    frames = f"stored frames of {config.base.short_side} pixels"
    if enlarged is None:
        return f"made from {frames}: as exact as these"
    told = "blurred by as much" if enlarged > 1 else "as sharp as from the source"
    return f"crops come from {frames}: {enlarged:.2f} crop pixels a stored pixel, {told}"


def finalize_field(
    out: Path,
    config: FieldConfig,
    stored: dict[str, Any],
    shards: list[PlannedShard],
    base_index: dict[str, Any],
) -> FieldLedger:
    """Write samples.parquet, errors.parquet and shardindex.json of a field whose shards are made.

    Raises:
        ShardError: a side shard is not there.
    """
    ledger = FieldLedger(sum(shard.rows for shard in shards))
    listed: list[dict[str, Any]] = []
    bases: dict[str, str] = {}
    with (
        Table(out / "samples.parquet", PLACES_SCHEMA) as samples,
        Table(out / "errors.parquet", ERRORS_SCHEMA) as errors,
    ):
        for sidecar in _sidecars(out, shards):
            ledger.add(sidecar)
            bases[sidecar["shard"]] = sidecar["base_sha256"]
            if sidecar["nsamples"]:  # readers of the ecosystem trip over empty tars
                listed.append(_entry(sidecar))
            for sample in sidecar["samples"]:
                samples.add({**sample, "shard": sidecar["shard"]})
            host = sidecar["run"]["host"]
            for error in sidecar["errors"]:
                errors.add({**error, "shard": sidecar["shard"], "host": host})
        _remove_strays(out, {shard.name for shard in shards})
        index = field_index(config, stored, ledger, base_index, shardlist=listed, bases=bases)
        publish(out, index, samples, errors)
    return ledger


def _sidecars(out: Path, shards: list[PlannedShard]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        path = out / "shards" / f"{shard.name}.json"
        if not is_committed(path, shard.fingerprint):
            raise ShardError(f"{path} was made and is gone; run the same command again")
        yield json.loads(path.read_bytes())


def _remove_strays(out: Path, names: set[str]) -> None:
    """Side shards whose base shard is no longer in the set: nobody may find them in a glob."""
    for path in (out / "shards").glob("*.json"):
        if path.stem not in names:
            remote.forget(out, f"shards/{path.name}", f"shards/{path.stem}.tar")


def _entry(sidecar: dict[str, Any]) -> dict[str, Any]:
    return {
        "url": f"shards/{sidecar['url']}",
        "nsamples": sidecar["nsamples"],
        "md5sum": sidecar["md5"],
        "sha256": sidecar["sha256"],
        "filesize": sidecar["filesize"],
        "seconds": sidecar["seconds"],
    }


def field_index(
    config: FieldConfig,
    stored: dict[str, Any],
    ledger: FieldLedger,
    base_index: dict[str, Any],
    *,
    shardlist: list[dict[str, Any]],
    bases: dict[str, str],
) -> dict[str, Any]:
    """shardindex.json of a field: what the `wids` package reads, and what our loader joins by."""
    return {
        "__kind__": WIDS_KIND,
        "wids_version": 1,
        "name": f"{base_index['name']}.{config.field}",
        "shardlist": shardlist,
        "schema": FIELD_SCHEMA,
        "field": config.field,
        "kind": config.kind,
        "members": list(config.members),
        "config": stored["config"],
        "config_hash": stored["config_hash"],
        "base_config_hash": stored["base_config_hash"],
        "bases": bases,
        "counts": {
            "planned": ledger.planned,
            "samples": ledger.samples,
            "errors": ledger.errors,
        },
        "reasons": dict(sorted(ledger.reasons.items())),
        **ledger.facts(),
    }


def name_fields(out: Path) -> None:
    """Let OUT/shardindex.json name the fields that are there; the rest of it stays as it is."""
    path = out / "shardindex.json"
    index = json.loads(path.read_bytes())
    named = with_fields(index, out)
    if named != index:
        write_atomically(path, json.dumps(named, indent=1).encode())
