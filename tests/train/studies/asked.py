"""A study as tests ask for it, and what answers in place of an evaluation."""

from pathlib import Path
from typing import Any

from train.studies.catalogue import CORPORA, SCRATCH, Row
from train.studies.config import StudyConfig
from train.studies.study import Work

RANDOM = Row(SCRATCH, trained=False)


def fake_result(config: Any) -> dict[str, Any]:
    """A score that depends on the run's name and seed, so that rows can be told apart."""
    value = (
        0.1 if config.scratch else {"moco": 0.5, "glcm": 0.7}[config.checkpoint.name.split("-")[0]]
    )
    value += 0.02 * config.seed
    score = {"name": "top1", "value": value, "low": value - 0.01, "high": value + 0.01}
    return {"task": config.task, "name": config.task, "metrics": [score], "n_scored": 40}


def config(folder: Path, **changes: Any) -> StudyConfig:
    given: dict[str, Any] = {"name": "table5", "run": str(folder / "runs/studies"), "steps": 10,
             "seeds": 1, "corpora": "grid"}  # fmt: skip
    return StudyConfig(**(given | changes))


def work(row: Row, corpus: str = "grid", seed: int = 0) -> Work:
    return Work(row, corpus, CORPORA[corpus], seed)
