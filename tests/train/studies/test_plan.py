"""What is told and refused before anything is trained."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.evaluation.sets import Clip, labelled_set
from tests.train.studies.asked import config, work
from train.errors import UsageError
from train.studies import plan, study
from train.studies.catalogue import CORPORA, LONG, SHORT, STUDIES
from train.studies.config import StudyConfig
from train.studies.plan import step_seconds
from train.studies.study import run_of


def test_without_shards_it_says_what_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"(?s)finds no shards.*make shards DATASET=planted"):
        study.study(config(tmp_path, corpora=""))


def test_shards_that_are_not_there_are_named_before_anything_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"no shards to train on in nix: --shards \(to train"):
        study.study(config(tmp_path, shards="nix"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"in data/shards/grid-glcm: `make shards DATASET=grid "):
        study.study(config(tmp_path))
    stored = replace(CORPORA["grid"], shards="s3://a/b", task_shards="s3://a/c")
    plan.require_shards({"grid": stored})  # found out when they are opened


def test_a_split_that_a_task_scores_and_is_not_there_is_named_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    """The task's own split is val, the study's test."""
    clips = [Clip(f"planted/{i}", splits=("planted:train",)) for i in range(3)]
    clips += [Clip("planted/a", splits=("planted:val",)), Clip("planted/b", missing=True)]

    def asked(clips: list[Clip], name: str) -> StudyConfig:
        shards = str(labelled_set(tmp_path / name, clips, name="planted"))
        return config(tmp_path, name="table6", corpora="planted", shards=shards, task_shards=shards,
                      tasks="av_retrieval")  # fmt: skip

    with pytest.raises(UsageError, match=r"task av_retrieval of planted: .*no clip in test; its "):
        study.study(asked(clips, "without"))
    whole = asked([*clips, Clip("planted/c", splits=("planted:test",))], "with")
    plan.require_splits(whole, whole.used_corpora())


def test_a_step_is_timed(tmp_path: Path) -> None:
    run = run_of(config(tmp_path, preset="tiny", batch_size=2), work(STUDIES["table5"].rows[-1]))
    assert 0 < step_seconds(run, torch.device("cpu")) < 60


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda")])
def test_steps_are_timed_where_they_are_trained(
    gpus: int, device: str, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    timed: list[str] = []

    def note(run: Any, where: torch.device) -> float:
        timed.append(where.type)
        return 12.0

    monkeypatch.setattr(plan, "step_seconds", note)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    study.study(config(tmp_path))
    assert timed == [device] * 2, "MoCo and GLCM"
    assert "training them takes about 4 min" in caplog.text, "2 runs, 10 steps of 12 seconds"


def test_a_row_that_is_trained_longer_has_a_run_of_its_own(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(plan, "step_seconds", lambda run, device: 12.0)
    assert study.study(config(tmp_path, name="longer", corpora="planted", plan=True)) == 0
    assert "training them takes about 10 min" in caplog.text, "10 steps and 40"
    assert "2 runs to train of 10 steps of 16 clips, 1 of them longer; then" in caplog.text
    rows = {row.label: row for row in STUDIES["longer"].rows}
    settings = config(tmp_path, name="longer", corpora="planted")
    runs = [run_of(settings, work(rows[label], "planted")) for label in (SHORT, LONG)]
    found = [(run.folder.name, run.schedule_steps) for run in runs]
    assert found == [("glcm-0", 10), ("glcm-x4-0", 40)]


def test_a_plan_names_rows_and_trains_none(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert study.study(config(tmp_path, plan=True, seeds=2, first_seed=3)) == 0
    assert not calls
    assert "3 rows with the seeds 3 to 4, 4 runs to train of 10 steps" in caplog.text
    assert "MoCo: moco, 2 of 2 runs to train" in caplog.text
    assert "random weights (glcm): nothing to train" in caplog.text
    assert not (tmp_path / "runs").exists()


def test_a_plan_names_rows_of_one_run_together(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked = config(tmp_path, name="table6", only=("b", "c", "f"), plan=True, seeds=3)
    done = run_of(asked, work(STUDIES["table6"].rows[-1], seed=1)).folder
    done.mkdir(parents=True)
    (done / "finished.json").write_text("{}")
    assert study.study(asked) == 0
    b, f = "b: both encoders, both, z_g", "f: both encoders, both, both"
    assert f"{b}; {f}: glcm, 2 of 3 runs to train" in caplog.text
    assert "z_l: glcm-objective_l, 3 of 3 runs to train" in caplog.text


def test_a_plan_of_several_studies_says_what_was_counted_above(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config_of = {name: config(tmp_path, name=name, plan=True, minutes=0.0)
                 for name in ("table6", "table9")}  # fmt: skip
    plans = [(asked, [(row, run_of(asked, work(row)) if row.trained else None)
                      for row in asked.rows])
             for asked in config_of.values()]  # fmt: skip
    plan.tell_plans(plans, deadline=0.0)
    counted = [line for line in caplog.messages if line.endswith(", counted above")]
    assert counted == ["  M = 3; M = 3, z_l: glcm, 1 of 1 runs to train, counted above"]
    assert "all 2 studies: 7 runs to train" in caplog.text


def test_the_estimate_gives_up_where_the_minutes_are_over(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert study.study(config(tmp_path, minutes=0.0)) == 85
    assert "no estimate" in caplog.text
    assert "takes about" not in caplog.text


def test_a_row_without_what_a_task_looks_at_is_named_before_anything_is_trained(
    calls: list[Any], tmp_path: Path
) -> None:
    """MoCo has no sound, mismatch wants it."""
    asked = config(tmp_path, corpora="planted", tasks="planted_mismatch")
    with pytest.raises(UsageError, match=r"planted_mismatch of the row 'MoCo': .*features fv, fa"):
        study.study(asked)
    assert not calls
