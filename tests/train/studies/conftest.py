"""Studies in which nothing is trained."""

from dataclasses import replace
from typing import Any

import pytest

from tests.train.studies.asked import fake_result
from train.studies import plan, study
from train.studies.catalogue import STUDIES, Row


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
