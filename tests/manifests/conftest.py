"""Fixture trees: folders as people have them, with files of a few bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from manifests import ScanOptions, dataset, schema
from manifests.dataset import Report

Tree = Callable[[Mapping[str, str | bytes] | Iterable[str]], Path]
Rows = dict[str, dict[str, Any]]
Scan = Callable[..., tuple[Rows, Report]]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a function that makes files (name -> content, or names) and gives their root."""

    def make(files: Mapping[str, str | bytes] | Iterable[str]) -> Path:
        root = tmp_path / "root"
        contents = files if isinstance(files, Mapping) else dict.fromkeys(files, b"clip")
        for name, content in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return make


@pytest.fixture
def scan() -> Scan:
    """Return a function that scans a root, demands a valid table, and gives rows by key."""

    def run(name: str, root: Path, **options: Any) -> tuple[Rows, Report]:
        entry = dataset(name)
        table, report = entry.scan(root, ScanOptions(**options))
        vocabulary = report.vocabulary
        if len(table):
            assert schema.validate(table, {entry.name: vocabulary} if vocabulary else None) == []
        report.count(table)
        return {row["key"]: row for row in table.to_pylist()}, report

    return run
