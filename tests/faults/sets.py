"""What a shard set says, to be compared with another one's, and what does not belong there."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ERROR_COLUMNS = ["key", "uri", "stage", "reason", "detail", "shard"]
"""Without those that tell how it went: seconds, tries, host."""


@dataclass(frozen=True)
class SetFacts:
    """A finished set, apart from times, hosts and tries."""

    tars: dict[str, str]
    """SHA-256 by name."""
    samples: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    counts: dict[str, int]
    """The index's: planned, samples, errors, not_run."""
    files: frozenset[str]
    """Every file of the folder, hidden ones too."""

    def differences(self, other: "SetFacts") -> Iterator[str]:
        """What the other set has otherwise, in sentences."""
        for name in sorted(self.tars.keys() | other.tars.keys()):
            if self.tars.get(name) != other.tars.get(name):
                yield f"{name}: sha256 {self.tars.get(name)} became {other.tars.get(name)}"
        for table in ("samples", "errors"):
            mine, theirs = getattr(self, table), getattr(other, table)
            if mine != theirs:
                changed = [row for row in theirs if row not in mine][:3]
                yield f"{table}.parquet: {len(mine)} rows became {len(theirs)}, such as {changed}"
        if self.counts != other.counts:
            yield f"counts {self.counts} became {other.counts}"
        yield from (f"litter: {name}" for name in sorted(other.files - self.files))
        yield from (f"missing: {name}" for name in sorted(self.files - other.files))


def hashes(out: Path) -> dict[str, str]:
    """SHA-256 of every tar, by name."""
    tars = sorted((out / "shards").glob("*.tar"))
    return {tar.name: hashlib.sha256(tar.read_bytes()).hexdigest() for tar in tars}


def read_set(out: Path) -> SetFacts:
    """What a finished set says."""
    return SetFacts(
        hashes(out),
        pq.read_table(out / "samples.parquet").to_pylist(),
        pq.read_table(out / "errors.parquet", columns=ERROR_COLUMNS).to_pylist(),
        json.loads((out / "shardindex.json").read_bytes())["counts"],
        frozenset(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()),
    )


def ledger_problem(facts: SetFacts, rows: int) -> str:
    """Why a ledger does not close over so many input rows; empty if it does."""
    samples, errors = len(facts.samples), len(facts.errors)
    keys = [row["key"] for row in (*facts.samples, *facts.errors)]
    if samples + errors != rows or len(set(keys)) != rows:
        return f"{rows} rows became {samples} samples + {errors} errors, {len(set(keys))} keys"
    said = facts.counts
    if (said["planned"], said["samples"], said["errors"]) != (rows, samples, errors):
        return f"the index counts {said}, its tables {samples} samples + {errors} errors"
    return ""
