"""The numbers of the papers, as printed: papers.json.

    for table in TABLES: table.key ("glcm", "3"), table.columns, table.rows

A number is in its column's unit (percent), None where the paper prints a dash. Which of our results
belongs beside which column is said in `train.tables`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Column:
    """One number of a row."""

    name: str
    """As `LRS2_WER`: data set, then metric or protocol."""
    unit: str
    """percent."""
    higher_is_better: bool


@dataclass(frozen=True)
class Table:
    """One table of a paper."""

    paper: str
    table: str
    """As numbered in the paper."""
    title: str
    note: str
    """What the numbers' reader has to know; may be empty."""
    keys: tuple[str, ...]
    """Names of the cells that say what a row is: method, backbone, pretraining set."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[tuple[Any, ...], tuple[float | None, ...]], ...]
    """Keys and numbers of each row."""

    @property
    def key(self) -> tuple[str, str]:
        """Paper and number."""
        return self.paper, self.table


def _table(raw: dict[str, Any]) -> Table:
    split = len(raw["keys"])
    return Table(
        raw["paper"], raw["table"], raw["title"], raw["note"], tuple(raw["keys"]),
        tuple(Column(**column) for column in raw["columns"]),
        tuple((tuple(row[:split]), tuple(row[split:])) for row in raw["rows"]),
    )  # fmt: skip


_RAW = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
PAPERS: dict[str, str] = _RAW["papers"]
"""Authors, title and venue of each."""
TABLES: tuple[Table, ...] = tuple(_table(raw) for raw in _RAW["tables"])
