"""Studies: equal runs for every row, one table, nothing done twice."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from train import study
from train.errors import UsageError
from train.methods import METHODS
from train.overview import write
from train.study import STUDIES, Row, StudyConfig, preset_of, run_of, summary


def fake_result(config: Any) -> dict[str, Any]:
    """A score that depends on the run's name and seed, so that rows can be told apart."""
    value = 0.1 if config.scratch else {"moco": 0.5, "glcm": 0.7}[config.checkpoint.name[:-2]]
    value += 0.02 * config.seed
    score = {"name": "top1", "value": value, "low": value - 0.01, "high": value + 0.01}
    return {"task": config.task, "metrics": [score], "n_scored": 40}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is trained, in order; nothing is."""
    trained: list[Any] = []

    def note(run: Any) -> int:
        trained.append(run)
        return 0

    monkeypatch.setattr(study, "pretrain", note)
    monkeypatch.setattr(study, "evaluate", fake_result)
    small = replace(STUDIES["table5"], rows=(Row("MoCo", "moco"), Row("Ours", "glcm")))
    monkeypatch.setitem(STUDIES, "table5", small)
    return trained


def config(folder: Path, **changes: Any) -> StudyConfig:
    return StudyConfig(name="table5", run=str(folder / "runs/table5"), steps=10, **changes)


def test_all_rows_are_trained_alike(calls: list[Any], tmp_path: Path) -> None:
    assert study.study(config(tmp_path, seeds=2, batch_size=6)) == 0
    assert [run.folder.name for run in calls] == ["moco-0", "glcm-0", "moco-1", "glcm-1"]
    same = {(run.schedule_steps, run.batch_size, run.shards, run.preset) for run in calls}
    assert same == {(10, 6, "data/shards/grid-glcm", "tiny_grid")}


def test_the_table_has_means_and_intervals_over_seeds(calls: list[Any], tmp_path: Path) -> None:
    study.study(config(tmp_path, seeds=3))
    facts = json.loads((tmp_path / "runs/table5/study.json").read_text())
    assert [row["row"] for row in facts["rows"]] == ["random weights (glcm)", "MoCo", "Ours"]
    ours = facts["rows"][2]["grid_digits"]
    # 0.70, 0.72, 0.74: mean 0.72, deviation 0.02; t of 2 degrees of freedom is 4.3027
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert ours["value"] == pytest.approx(0.72)
    assert (ours["low"], ours["high"]) == pytest.approx((0.72 - half, 0.72 + half), abs=1e-6)
    text = (tmp_path / "runs/table5/study.md").read_text()
    assert "| Ours | 72.0 [67.0, 77.0] | 72.0 [67.0, 77.0] |" in text
    assert "10 steps of 8 clips (80 clips seen) from grid-glcm" in text


def test_of_one_seed_the_interval_is_that_of_the_test_items() -> None:
    score = {"name": "top1", "value": 0.4, "low": 0.3, "high": 0.5, "n": 9}
    assert summary([score]) == {"name": "top1", "value": 0.4, "low": 0.3, "high": 0.5}


def test_the_table_is_in_the_report(calls: list[Any], tmp_path: Path) -> None:
    study.study(config(tmp_path))
    page, text = write(tmp_path / "runs")
    assert "| MoCo | 50.0 [49.0, 51.0] |" in text.read_text()
    assert '<h2 id="table5">' in page.read_text()


def test_a_stopped_run_stops_the_study(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "pretrain", lambda run: 85)
    assert study.study(config(tmp_path)) == 85


def test_a_run_of_another_size_is_no_row_of_this_table(calls: list[Any], tmp_path: Path) -> None:
    run = run_of(config(tmp_path), Row("MoCo", "moco"), 0)
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(run.as_dict()))
    assert study.study(config(tmp_path)) == 0
    longer = replace(config(tmp_path), steps=20)
    with pytest.raises(UsageError, match=r"schedule_steps was 10, is 20.*another folder"):
        study.study(longer)


def test_names_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown study 'table50'; known: table5"):
        StudyConfig(name="table50")
    with pytest.raises(UsageError, match="--methods byol; the study table5 has moco"):
        config(tmp_path, methods="byol")


@pytest.mark.parametrize("size", ["tiny", "tiny_grid", "grid", "full"])
def test_every_method_has_a_preset_of_every_size(size: str) -> None:
    for row in STUDIES["table5"].rows:
        assert preset_of(size, row.method) in METHODS[row.method].presets


@pytest.mark.parametrize("row", STUDIES["table5"].rows, ids=lambda row: row.method)
def test_every_row_of_table_5_has_a_run(row: Row, tmp_path: Path) -> None:
    run = run_of(config(tmp_path), row, 0)
    assert run.method in METHODS
    assert run.val_every == 0
    assert run.clips_per_batch == 8
    assert run.model == METHODS[row.method].presets["tiny_grid"]
