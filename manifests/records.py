"""Reading somebody's own table, whatever kind of file it is, as names and records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.annotations import csv_rows, open_text
from manifests.errors import UsageError

Record = dict[str, Any]
"""One row: the table's own column name -> text (CSV) or value."""


def read(path: Path) -> tuple[list[str], list[Record]]:
    """Return (column names, records) of a CSV, TSV, JSONL or Parquet file."""
    if not path.is_file():
        raise UsageError(f"the table {path} is not there; expected a CSV, JSONL or Parquet file.")
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(path)
    if suffix in (".parquet", ".pq"):
        return _read_parquet(path)
    if suffix in (".csv", ".tsv", ".txt"):
        return _read_csv(path)
    raise UsageError(
        f"the table {path} ends in {suffix!r}; expected .csv, .tsv, .jsonl or .parquet."
    )


def _read_csv(path: Path) -> tuple[list[str], list[Record]]:
    with open_text(path) as file:
        first = file.readline()
    delimiter = max(",;\t", key=first.count)  # the first of equals: a comma
    rows = csv_rows(path, delimiter)
    header = next(rows, [])
    records = [dict(zip(header, fields, strict=False)) for fields in rows]
    return header, records


def _read_jsonl(path: Path) -> tuple[list[str], list[Record]]:
    records: list[Record] = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                records.append(_json_record(line, path, number))
    return list(dict.fromkeys(name for record in records for name in record)), records


def _json_record(line: str, path: Path, number: int) -> Record:
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise UsageError(f"{path} line {number} is no JSON ({error}); repair the line.") from error
    if not isinstance(record, dict):
        raise UsageError(f'{path} line {number} is no JSON object; expected {{"path": ...}}.')
    return record


def _refuse_constant(name: str) -> Any:
    """Refuse what Python's own JSON writer makes of a missing number."""
    raise ValueError(f"JSON has no {name}; write null where nothing is known")


def _read_parquet(path: Path) -> tuple[list[str], list[Record]]:
    try:
        rows = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet ({error}).") from error
    return rows.column_names, rows.to_pylist()
