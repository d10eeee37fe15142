"""Whether the files written last say what the sidecars say: they are made again and compared."""

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import plain_text
from pipeline.index import finalize
from pipeline.outputs import Outputs
from pipeline.prepare import load

MAX_VALUE_CHARACTERS = 80


def table_findings(out: Path) -> Iterator[str]:
    """What index, samples.parquet and errors.parquet misstate; memory does not grow with rows."""
    there = Outputs(out)
    with TemporaryDirectory(prefix="glav-verify-") as folder:
        true = Outputs(Path(folder))
        finalize(load(out), partial=True, into=true.out)
        for name in ("samples_path", "errors_path"):
            stored, rebuilt = getattr(there, name), getattr(true, name)
            if stored.exists():
                yield from _first_difference(stored, rebuilt)
        if there.index_path.exists():
            yield from _index_findings(there.index(), true.index())


def _first_difference(stored: Path, rebuilt: Path) -> Iterator[str]:
    """The first row of a table that is not as it should be: those behind it may only be shifted."""
    try:
        for number, (found, true) in enumerate(zip_longest(_rows(stored), _rows(rebuilt))):
            if found != true:
                yield f"{stored.name}, row {number}: {_difference(found or {}, true or {})}"
                return
    except (pa.ArrowException, OSError) as error:
        yield f"{stored.name} cannot be read: {plain_text(str(error))}"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=5_000):
        yield from batch.to_pylist()


def _index_findings(found: dict[str, Any], true: dict[str, Any]) -> Iterator[str]:
    for name in sorted((true.keys() | found.keys()) - {"shardlist"}):
        if found.get(name) != true.get(name):
            said = _difference({name: found.get(name)}, {name: true.get(name)})
            yield f"shardindex.json: {said}"
    nothing: dict[str, Any] = {}
    listed: list[dict[str, Any]] = found.get("shardlist") or []
    expected: list[dict[str, Any]] = true["shardlist"]
    for number, (entry, true_entry) in enumerate(zip_longest(listed, expected, fillvalue=nothing)):
        if entry != true_entry:
            yield f"shardindex.json, shard {number}: {_difference(entry, true_entry)}"
            return


def _difference(found: dict[str, Any], true: dict[str, Any]) -> str:
    """The first field that differs, in words."""
    for name in {**true, **found}:
        if name not in found or found[name] != true.get(name):
            said, right = (_short(row.get(name)) for row in (found, true))
            return f"{name} is {said}, the sidecars give {right}"
    raise AssertionError("there is no difference")


def _short(value: object) -> str:
    return plain_text(json.dumps(value, default=str))[:MAX_VALUE_CHARACTERS]
