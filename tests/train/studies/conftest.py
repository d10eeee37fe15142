"""Studies in which nothing is trained, and pages without a table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.studies.asked import fake_result
from train.studies import plan, study
from train.studies.catalogue import STUDIES, Row
from train.studies.evidence import PAGES, EvidenceConfig

MARKS = (*STUDIES, "verdicts", "claims", "learned")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is trained, in order; nothing is."""
    trained: list[Any] = []

    def note(run: Any, stop: Any) -> int:
        trained.append(run)
        return 0

    monkeypatch.setattr(study, "pretrain", note)
    monkeypatch.setattr(study, "evaluate", fake_result)
    monkeypatch.setattr(study, "require_shards", lambda corpora: None)
    monkeypatch.setattr(study, "require_splits", lambda config, corpora: None)
    monkeypatch.setattr(plan, "step_seconds", lambda run, device: 0.1)
    rows = (Row("MoCo", "moco", paper="MoCo"), Row("Ours", "glcm", paper="Ours"))
    tasks = {**STUDIES["table5"].tasks, "grid": ("grid_digits", "grid_letters")}
    small = replace(STUDIES["table5"], rows=rows, tasks=tasks)
    monkeypatch.setitem(STUDIES, "table5", small)
    return trained


@pytest.fixture
def places(tmp_path: Path) -> EvidenceConfig:
    """A folder of studies and pages with nothing between their marks."""
    (tmp_path / "studies/table7").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for name, marks in zip(PAGES, (MARKS[:4], MARKS[4:]), strict=True):
        (tmp_path / "docs" / name).write_text(empty(marks))
    return EvidenceConfig(tmp_path / "studies", tmp_path / "docs")


def empty(marks: Sequence[str]) -> str:
    """A page without a table."""
    return "".join(f"# {name}\n<!-- {name} -->\n<!-- end -->\n" for name in marks)
