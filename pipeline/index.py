"""Sidecars -> the index, the tables of samples and errors, and the closed ledger.

Reads one sidecar after the other and writes as it goes, so memory does not grow with the number of
clips. The index is written last: whoever finds it finds everything else.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.check import file_hash
from pipeline.errors import Reason
from pipeline.fields import with_fields
from pipeline.outputs import Outputs
from pipeline.plan import Plan, PlannedShard
from pipeline.prepare import Prepared
from pipeline.shard import write_atomically

WIDS_KIND = "wids-shard-index-v1"
ROWS_A_WRITE = 10_000
QUALITY = ("luma", "motion", "audio_dbfs", "clipped", "face_rate")
FLAGS = ("silent", "static", "black")

SAMPLES_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("base", pa.string()),
        ("uri", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("instance", pa.int64()),
        ("group", pa.string()),
        ("splits", pa.list_(pa.string())),
        ("labels", pa.list_(pa.int32())),
        ("frames", pa.int32()),
        ("seconds", pa.float64()),
        ("fps", pa.float64()),
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("source_fps", pa.float64()),
        *((name, pa.float32()) for name in QUALITY),
        *((name, pa.bool_()) for name in FLAGS),
    ]
)
ERRORS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("seconds", pa.float64()),
        ("tries", pa.int32()),
        ("shard", pa.string()),
        ("host", pa.string()),
    ]
)


@dataclass
class Ledger:
    """Both sides of the account."""

    planned: int
    samples: int = 0
    seconds: float = 0.0
    shards: int = 0
    dropped: int = 0
    """Rows that were taken back: neither samples nor errors."""
    reasons: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> int:
        """Rows without a sample, `not_run` included."""
        return sum(self.reasons.values())

    @property
    def not_run(self) -> int:
        """Rows nobody has tried."""
        return self.reasons[Reason.NOT_RUN]

    @property
    def closes(self) -> bool:
        """Whether every planned row is a sample, an error or taken back."""
        return self.planned == self.samples + self.errors + self.dropped


def finalize(prepared: Prepared, *, partial: bool, into: Path | None = None) -> Ledger:
    """Write samples.parquet, errors.parquet and shardindex.json.

    Args:
        prepared: the planned folder.
        partial: write an index marked incomplete although shards are missing; without it a set
            with missing shards gets its tables but no index.
        into: the folder they go to, if not the planned one.

    Returns:
        The ledger.
    """
    out = into or prepared.out
    account = prepared.account
    ledger = Ledger(prepared.plan.planned_rows, dropped=len(account.dropped))
    fps = float(prepared.config.fps)
    shards: list[dict[str, Any]] = []
    missing = 0
    with (
        Table(out / "samples.parquet", SAMPLES_SCHEMA) as samples,
        Table(out / "errors.parquet", ERRORS_SCHEMA) as errors,
    ):
        for part, shard in _in_order(prepared.plan):
            elsewhere = account.not_of(shard.name)
            sidecar = _sidecar(prepared, shard)
            if sidecar is None:
                missing += 1
                rows = prepared.rows.of_shard(shard, ["key", "uri"]).to_pylist()
                here = (row for row in rows if row["key"] not in elsewhere)
                _add_errors(ledger, errors, _not_run(here, "its shard is not made yet"))
                continue
            if sidecar["nsamples"]:  # readers of the ecosystem trip over empty tars
                shards.append(_index_entry(part, sidecar, account.dropped_of(shard.name)))
            _add_shard(ledger, samples, errors, _counting(sidecar, elsewhere), fps)
        _add_errors(ledger, errors, _not_run(prepared.keys_without_shard(), "left out by --limit"))
        index = None
        if partial or not missing:
            complete = missing == 0 and ledger.closes
            index = with_fields(_index(prepared, ledger, shards, complete), prepared.out)
        publish(out, index, samples, errors)
    return ledger


def _in_order(plan: Plan) -> Iterator[tuple[str, PlannedShard]]:
    """All shards, each with the name of its part; a patch is of the part of its split's name."""
    for part in plan.parts:
        yield from ((part.name, shard) for shard in part.shards)
    yield from ((patch.split_label, patch) for patch in plan.patches)


def _sidecar(prepared: Prepared, shard: PlannedShard) -> dict[str, Any] | None:
    """What a committed shard says of itself; None while it is not made."""
    if not prepared.is_made(shard):
        return None
    sidecar: dict[str, Any] = json.loads(
        (prepared.out / "shards" / f"{shard.name}.json").read_bytes()
    )
    return sidecar


def _counting(sidecar: dict[str, Any], elsewhere: frozenset[str]) -> dict[str, Any]:
    """A sidecar without the entries whose rows a patch has, or that were taken back."""
    if not elsewhere:
        return sidecar
    kept = {
        name: [entry for entry in sidecar[name] if entry["key"] not in elsewhere]
        for name in ("samples", "errors")
    }
    gone = (entry["seconds"] for entry in sidecar["samples"] if entry["key"] in elsewhere)
    return {**sidecar, **kept, "seconds": sidecar["seconds"] - sum(gone)}


def _not_run(rows: Iterable[dict[str, Any]], why: str) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {**row, "stage": "plan", "reason": str(Reason.NOT_RUN), "detail": why, "tries": 0}


def _add_errors(ledger: Ledger, table: "Table", errors: Iterable[dict[str, Any]]) -> None:
    for error in errors:
        ledger.reasons[error["reason"]] += 1
        table.add(error)


def _add_shard(
    ledger: Ledger, samples: "Table", errors: "Table", sidecar: dict[str, Any], fps: float
) -> None:
    place = {"shard": sidecar["shard"], "host": sidecar["run"]["host"]}
    _add_errors(ledger, errors, ({**error, **place} for error in sidecar["errors"]))
    ledger.shards += 1
    ledger.seconds += sidecar["seconds"]
    ledger.samples += len(sidecar["samples"])
    ledger.splits.update(chain.from_iterable(sample["splits"] for sample in sidecar["samples"]))
    samples.extend(_sample_columns(sidecar, fps))


def _sample_columns(sidecar: dict[str, Any], fps: float) -> dict[str, list[Any]]:
    """The samples of a shard, by column: rows one by one would take twice the time."""
    samples = sidecar["samples"]
    sources = [sample["source"] for sample in samples]
    qualities = [sample["quality"] for sample in samples]
    columns = {name: [sample.get(name) for sample in samples] for name in SAMPLES_SCHEMA.names}
    columns |= {name: [quality.get(name) for quality in qualities] for name in QUALITY + FLAGS}
    for name in ("width", "height", "fps"):
        columns[f"source_{name}"] = [source[name] for source in sources]
    columns["uri"] = [source["uri"] for source in sources]
    columns["shard"] = [sidecar["shard"]] * len(samples)
    columns["fps"] = [fps] * len(samples)
    return columns


def _index_entry(part: str, sidecar: dict[str, Any], dropped: frozenset[str]) -> dict[str, Any]:
    """One line of the list; `nsamples` are in the tar, `dropped` of them are not to be read."""
    hidden = sum(entry["key"] in dropped for entry in sidecar["samples"]) if dropped else 0
    return {
        "url": f"shards/{sidecar['url']}",
        "nsamples": sidecar["nsamples"],
        "md5sum": sidecar["md5"],
        "sha256": sidecar["sha256"],
        "filesize": sidecar["filesize"],
        "part": part,
        "seconds": sidecar["seconds"],
        **({"dropped": hidden} if hidden else {}),
    }


def _index(
    prepared: Prepared, ledger: Ledger, shards: list[dict[str, Any]], complete: bool
) -> dict[str, Any]:
    """shardindex.json: what the `wids` package reads, and what we add."""
    plan = prepared.plan
    return {
        "__kind__": WIDS_KIND,
        "wids_version": 1,
        "name": plan.name,
        "shardlist": shards,
        "schema": 1,
        "complete": complete,
        "dataset": plan.dataset,
        "profile": plan.profile,
        "config": prepared.config.as_dict(),
        "config_hash": prepared.config_hash,
        "members": list(prepared.config.members),
        "instances": plan.rows_in_shards,
        "splits": dict(sorted(ledger.splits.items())),
        "labels": Outputs(prepared.out).labels(),
        "counts": {
            "planned": ledger.planned,
            "samples": ledger.samples,
            "errors": ledger.errors,
            "not_run": ledger.not_run,
            **({"dropped": ledger.dropped} if ledger.dropped else {}),
        },
        "reasons": dict(sorted(ledger.reasons.items())),
        "seconds": round(ledger.seconds, 6),
    }


def publish(out: Path, index: dict[str, Any] | None, *tables: "Table") -> None:
    """Give tables their names, and write the index they belong to.

    An index beside tables of other shards would lend their clips what is known of its own: where
    anything changes, it goes before the first table and comes after the last.

    Args:
        out: folder of the index.
        index: None: there is to be none.
        tables: all that will be added to them is.
    """
    path = out / "shardindex.json"
    data = json.dumps(index, indent=1).encode() if index else b""
    for table in tables:
        table.close()
    if not any(table.is_other for table in tables) and data == _content(path):
        return
    path.unlink(missing_ok=True)
    for table in tables:
        table.commit()
    if data:
        write_atomically(path, data)


def _content(path: Path) -> bytes:
    """Of a small file; nothing where there is none."""
    return path.read_bytes() if path.exists() else b""


class Table:
    """A Parquet file written piece by piece, under its name only once it is published."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")
        self._schema = schema
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._waiting = 0

    def __enter__(self) -> "Table":
        try:
            self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        except OSError:
            self._temporary.unlink(missing_ok=True)
            raise
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Append one row; columns it lacks are null, further ones are left out."""
        self.extend({name: [row.get(name)] for name in self._schema.names})

    def extend(self, columns: dict[str, list[Any]]) -> None:
        """Append rows, by column."""
        for name, values in self._columns.items():
            values += columns[name]
        self._waiting += len(columns[self._schema.names[0]])
        if self._waiting >= ROWS_A_WRITE:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.table(self._columns, schema=self._schema))
        self._columns = {name: [] for name in self._schema.names}
        self._waiting = 0

    def close(self) -> None:
        """Write what waits and the end of the file; its name is still the temporary one."""
        self._flush()
        self._writer.close()

    @property
    def is_other(self) -> bool:
        """Whether the closed file says something else than the one that has its name."""
        there = self._path.is_file()
        return not there or file_hash(self._temporary, "sha256") != file_hash(self._path, "sha256")

    def commit(self) -> None:
        """Give the closed file its name."""
        self._temporary.replace(self._path)

    def __exit__(self, *exc: object) -> None:
        try:
            self._writer.close()  # a second time does nothing
        finally:
            self._temporary.unlink(missing_ok=True)
