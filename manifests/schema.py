"""Manifest files: write, read, and what they say about themselves.

A manifest is one zstd Parquet file sorted by (dataset, key). Its metadata holds what is needed to
decide whether it is still true (`Facts`); class names lie beside it in labels/NAME.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.checks import validate, warnings
from manifests.columns import DEFAULTS, SCHEMA, Row, table
from manifests.errors import UsageError
from manifests.keys import KEY_PATTERN, folder_key

__all__ = [
    "DEFAULTS",
    "KEY_PATTERN",
    "SCHEMA",
    "VERSION",
    "Facts",
    "Row",
    "folder_key",
    "read",
    "read_facts",
    "read_labels",
    "table",
    "validate",
    "warnings",
    "write",
]

VERSION = 1
"""Version of the columns; a manifest of another version is built again."""
_METADATA_KEY = b"glav"


@dataclass(frozen=True)
class Facts:
    """What a manifest file says about its making."""

    root: str
    """Folder that relative uris start from, as an absolute path."""
    fingerprint: str
    """sha1 of the root's listing and the annotation files."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`ScanOptions.as_dict()` of the scan."""
    labels_sha1: Mapping[str, str] = field(default_factory=dict)
    """Data set name -> sha1 of its vocabulary."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """`Report.as_dict()` of the scan."""
    version: int = VERSION
    """Version of the columns."""


def write(
    rows: pa.Table,
    path: Path,
    *,
    labels: Mapping[str, list[str]] | list[str] | None,
    root: Path | str,
    fingerprint: str,
    report: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
) -> Facts:
    """Write a manifest and its vocabularies; both appear whole or not at all.

    Args:
        rows: a table of `SCHEMA`.
        path: the Parquet file; its folder is made.
        labels: class names in order, for the one data set of the table or per data set.
        root: folder, or address, that relative uris start from.
        fingerprint: sha1 of the listing (`listing.fingerprint`).
        report: `Report.as_dict()`.
        options: `ScanOptions.as_dict()`.

    Returns:
        What was put into the file's metadata.
    """
    vocabularies = _vocabularies(rows, labels)
    for name, classes in vocabularies.items():
        _write_text(labels_path(path, name), _vocabulary_text(classes))
    facts = Facts(
        root=root if isinstance(root, str) else str(root.absolute()),
        fingerprint=fingerprint,
        options=dict(options or {}),
        labels_sha1={n: _sha1(_vocabulary_text(c)) for n, c in vocabularies.items()},
        report=dict(report),
    )
    text = json.dumps(asdict(facts), sort_keys=True)
    ordered = _sorted(rows).replace_schema_metadata({_METADATA_KEY: text.encode()})
    _atomically(path, lambda file: pq.write_table(ordered, file, compression="zstd"))
    return facts


def read(path: Path) -> pa.Table:
    """Read a manifest's rows; every column of `SCHEMA` is there, with its type.

    Raises:
        UsageError: the file is missing, no Parquet, of another version, or lacks a column.
    """
    read_facts(path)
    rows = _readable(path, lambda: pq.read_table(path))
    missing = [name for name in SCHEMA.names if name not in rows.column_names]
    if missing:
        raise UsageError(
            f"manifest {path} lacks the column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}; expected the columns of manifests.columns.SCHEMA. "
            "Build it again with `python -m manifests build`."
        )
    if len(set(rows.column_names)) < len(rows.column_names):
        raise UsageError(f"manifest {path} has a column twice. {' '.join(validate(rows))}")
    try:
        return rows.select(SCHEMA.names).cast(SCHEMA.with_metadata(rows.schema.metadata))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        problems = " ".join(validate(rows)) or str(error)
        raise UsageError(f"manifest {path} has columns of other types. {problems}") from error


def read_facts(path: Path) -> Facts:
    """Read what a manifest says about its making; a Parquet file without it has empty facts."""
    if not path.is_file():
        raise UsageError(
            f"there is no manifest {path}; expected a Parquet file. "
            "Make it with `python -m manifests build --dataset NAME --root FOLDER`."
        )
    metadata = _readable(path, lambda: pq.read_schema(path)).metadata or {}
    if _METADATA_KEY not in metadata:
        return Facts(root="", fingerprint="")
    facts = Facts(**json.loads(metadata[_METADATA_KEY]))
    if facts.version != VERSION:
        raise UsageError(
            f"manifest {path} has version {facts.version}; this program reads version {VERSION}. "
            "Build it again with `python -m manifests build`."
        )
    return facts


def read_labels(path: Path, dataset: str) -> list[str] | None:
    """Read a data set's class names from beside the manifest `path`; None: it has none."""
    file = labels_path(path, dataset)
    if not file.is_file():
        return None
    try:
        classes = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} is no JSON ({error}); expected a list of class names.") from error
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UsageError(f"{file} is no list of class names; build the manifest again.")
    return classes


def labels_path(path: Path, dataset: str) -> Path:
    """Return where a data set's class names lie, beside the manifest `path`."""
    return path.parent / "labels" / f"{dataset}.json"


def _vocabularies(
    rows: pa.Table, labels: Mapping[str, list[str]] | list[str] | None
) -> dict[str, list[str]]:
    if not labels:
        return {}
    if isinstance(labels, Mapping):
        return dict(labels)
    names = rows["dataset"].unique().cast(pa.string()).to_pylist()
    assert len(names) == 1, f"one vocabulary for several data sets: {names}"
    return {names[0]: labels}


def _sorted(rows: pa.Table) -> pa.Table:
    by_name = rows.select(["key"]).append_column("dataset", rows["dataset"].cast(pa.string()))
    order = pa.compute.sort_indices(by_name, [("dataset", "ascending"), ("key", "ascending")])
    return rows.take(order)


def _readable(path: Path, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{path} cannot be read as a manifest ({error}); expected a Parquet file. "
            "Build it with `python -m manifests build`."
        ) from error


def _vocabulary_text(classes: list[str]) -> str:
    return json.dumps(classes, ensure_ascii=False, indent=0) + "\n"


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _write_text(path: Path, text: str) -> None:
    _atomically(path, lambda file: file.write(text.encode()))


def _atomically(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Fill a temporary file, force it to the disk, give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
