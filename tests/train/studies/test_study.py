"""Studies: equal runs for every row, nothing done twice, the first seed of all first."""

import json
import logging
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.runs import toy
from tests.train.studies.asked import config, fake_result, work
from train.errors import UsageError
from train.studies import study
from train.studies.catalogue import SCRATCH, STUDIES, Row
from train.studies.study import eval_of, run_of


def test_all_rows_are_trained_alike(calls: list[Any], tmp_path: Path) -> None:
    assert study.study(config(tmp_path, seeds=2, batch_size=6)) == 0
    assert [run.folder.name for run in calls] == ["moco-0", "glcm-0", "moco-1", "glcm-1"]
    same = {(run.schedule_steps, run.batch_size, run.shards, run.preset) for run in calls}
    assert same == {(10, 6, "data/shards/grid-glcm", "tiny_grid")}


def test_rows_and_seeds_of_a_later_command_stand_beside_those_that_are_done(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert study.study(config(tmp_path, name="table7", seeds=1)) == 0
    rows = [row.label for row in STUDIES["table7"].all_rows]
    assert study.study(config(tmp_path, name="table7", seeds=1, first_seed=1)) == 0
    assert study.study(config(tmp_path, name="table7", seeds=1, first_seed=2, only=rows[1:2])) == 0
    folder = tmp_path / "runs/studies/table7"
    done = [
        (one["seed"], one["row"])
        for one in json.loads((folder / "study.json").read_text())["results"]
    ]
    assert done == [*((seed, row) for seed in (0, 1) for row in rows), (2, rows[1])]
    assert "study.html: rows by seed: 1 of now, 10 of before" in caplog.text


def test_results_of_other_settings_are_not_put_beside_those_that_are_done(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    study.study(config(tmp_path, name="table7", seeds=2))
    with pytest.raises(UsageError, match=r"linear; here: evaluation svm\. Repeat .* --replace"):
        study.study(config(tmp_path, name="table7", seeds=1, protocol="svm", plan=True))
    study.study(config(tmp_path, name="table7", seeds=1, protocol="svm", replace=True))
    text = (tmp_path / "runs/studies/table7/study.json").read_text()
    assert {one["seed"] for one in json.loads(text)["results"]} == {0}
    assert "grid was run with other settings: evaluation linear; here: eval" in caplog.text


def test_a_table_that_cannot_be_read_is_a_sentence(calls: list[Any], tmp_path: Path) -> None:
    asked = config(tmp_path)
    (asked.folder / "table5").mkdir(parents=True)
    (asked.folder / "table5/study.json").write_text("{")
    with pytest.raises(UsageError, match=r"table5/study\.json cannot be read .*; remove it"):
        study.study(asked)
    assert calls == []


def test_a_row_with_columns_of_its_own_is_scored_on_no_other_unless_they_are_named(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    rows = (Row("both", "glcm"), Row("alone", "glcm", tasks=("grid_letters", "planted_words")))
    monkeypatch.setitem(STUDIES, "table5", replace(STUDIES["table5"], rows=rows))
    caplog.set_level(logging.INFO)
    scored = {}
    for tasks in ("", "grid_digits"):
        asked = config(tmp_path / tasks, seeds=1, tasks=tasks)
        study.study(asked)
        results = json.loads((asked.folder / "table5" / "study.json").read_bytes())["results"]
        scored[tasks] = {one["row"]: list(one["scores"]) for one in results}
    own = {"both": ["grid_digits", "grid_letters"], "alone": ["grid_letters"]}
    named = {"both": ["grid_digits"], "alone": ["grid_digits"]}
    random = {SCRATCH: own["both"]}, {SCRATCH: named["both"]}
    assert scored == {"": own | random[0], "grid_digits": named | random[1]}
    assert "grid_digits, grid_letters on the rows, fewer of these on 1" in caplog.text
    assert "grid_digits on every row\n" in caplog.text


def test_a_stopped_run_stops_the_study(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "pretrain", lambda run, stop: 85)
    assert study.study(config(tmp_path)) == 85


def test_a_run_that_the_minutes_end_says_so(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def until_it_rings(run: Any, stop: Any) -> int:
        rung = threading.Event()
        before = signal.signal(signal.SIGUSR1, lambda number, frame: rung.set())
        try:
            assert rung.wait(30)
        finally:
            signal.signal(signal.SIGUSR1, before)
        return 85

    monkeypatch.setattr(study, "pretrain", until_it_rings)
    caplog.set_level(logging.INFO)
    assert study.study(config(tmp_path, minutes=0.02)) == 85
    assert "the minutes are over; the same command goes on" in caplog.text


def test_a_stop_in_a_runs_last_step_stops_the_study(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends_as_it_is_told(run: Any, stop: Any) -> int:
        calls.append(run)
        stop(signal.SIGTERM, None)
        return 0

    monkeypatch.setattr(study, "pretrain", ends_as_it_is_told)
    assert study.study(config(tmp_path)) == 85
    assert len(calls) == 1, "the next row is not begun"


def test_a_run_of_another_size_is_no_row_of_this_table(calls: list[Any], tmp_path: Path) -> None:
    run = run_of(config(tmp_path), work(Row("MoCo", "moco")))
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(run.as_dict() | {"lr": 0.1}))
    with pytest.raises(UsageError, match=r"lr was 0.1, is 0.001"):
        study.study(config(tmp_path))
    (run.folder / "config.json").write_text(json.dumps(run.as_dict()))
    assert study.study(config(tmp_path)) == 0
    longer = config(tmp_path, steps=20)
    with pytest.raises(UsageError, match=r"schedule_steps was 10, is 20.*another folder"):
        study.study(longer)


def test_a_study_in_bf16_trains_and_looks_so_in_runs_of_its_own(
    calls: list[Any], tmp_path: Path
) -> None:
    bf16, usual = config(tmp_path, precision="bf16"), config(tmp_path)
    row = work(Row("MoCo", "moco"))
    assert run_of(bf16, row).precision == eval_of(bf16, row, "grid_digits").precision == "bf16"
    assert study.study(usual) == 0
    run = run_of(usual, row)
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(run.as_dict()))
    with pytest.raises(UsageError, match=r"precision was 'auto', is 'bf16'.*another folder"):
        study.study(bf16)


def test_a_run_of_clips_that_were_made_anew_since_is_no_row_of_this_table(
    undisturbed: Path, ten: Path, demo: Path
) -> None:
    """The path of the shards may be the same; finished runs are not opened by training."""
    study._refuse_another_study(toy(ten, undisturbed, schedule_steps=None))
    with pytest.raises(UsageError, match="was trained on other clips than"):
        study._refuse_other_clips(toy(demo, undisturbed))


def test_few_labels_are_looked_at_with_one_run_of_each_seed(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def noted(one: Any) -> dict[str, Any]:
        asked.append(one)
        return fake_result(one)

    monkeypatch.setattr(study, "evaluate", noted)
    settings = config(tmp_path, name="labels", corpora="grid,planted", tasks="")
    assert study.study(settings) == 0
    assert {run.folder.name for run in calls} == {"glcm-0"}
    seen = [(one.task, one.scratch, one.pictures, one.features, one.labels) for one in asked]
    crops = (("lip", None), ("lip", "l"))
    assert seen == [
        *((task, scratch, *look, labels) for look in (*crops, ("face", None), ("frames", None))
          for scratch in (False, True) for labels in (1, 5, 20, None)
          for task in ("grid_digits", "grid_letters")),
        *(("planted_words", scratch, *look, labels)
          for look in (("box", None), ("box", "l"), ("frames", None))
          for scratch in (False, True) for labels in (1, 5, 20, None)),
    ]  # fmt: skip
    facts = json.loads((tmp_path / "runs/studies/labels/study.json").read_text())
    assert facts["columns"] == ["planted_words", "grid_digits", "grid_letters"]
    names = [row["row"] for row in facts["rows"]]
    assert names[0] == "crop, 1 label a class"
    assert "face, 20, random weights" in names
    assert SCRATCH not in names
    assert STUDIES["labels"].all_rows == STUDIES["labels"].rows


def test_controls_of_a_score_stand_beside_it() -> None:
    names = ("pointing_game", "pointing_game:centre", "mass_ratio", "mass_ratio:centre", "iou")
    metrics = [{"name": name, "value": number / 10} for number, name in enumerate(names)]
    result = {"metrics": metrics, "n_scored": 7, "name": "localization-val",
              "created": "today", "git_commit": "c", "checkpoint": {"sha256": "s"},
              "shards": {"index_sha256": "i"}}  # fmt: skip
    found = study.scores_of("localization", result, "planted/glcm-1")
    assert {name: (score["name"], score["value"], score["n"]) for name, score in found.items()} == {
        "localization": ("pointing_game", 0.0, 7),
        "localization:centre": ("pointing_game:centre", 0.1, 7),
        "localization:mass_ratio": ("mass_ratio", 0.2, 7),
        "localization:iou": ("iou", 0.4, 7),
    }  # fmt: skip
    assert found["localization:centre"]["index_sha256"] == "i"
    assert found["localization"]["result"] == "planted/glcm-1/eval/localization-val"
    assert list(study.scores_of("planted_words", result, "")) == ["planted_words"]


def test_other_shards_and_tasks_for_one_corpus(calls: list[Any], tmp_path: Path) -> None:
    study.study(config(tmp_path, shards="mine", tasks="grid_commands"))
    assert {run.shards for run in calls} == {"mine"}
    facts = json.loads((tmp_path / "runs/studies/table5/study.json").read_text())
    assert facts["columns"] == ["grid_commands"]


def test_a_column_may_have_labels_of_its_own(calls: list[Any], tmp_path: Path) -> None:
    asked = config(tmp_path, name="table6", only=("f",), tasks="grid_digits@5,grid_digits")
    five, every = (eval_of(asked, work(asked.rows[0]), column) for column in asked.tasks_of("grid"))
    assert (five.task, five.labels) == ("grid_digits", 5)
    assert (every.task, every.labels) == ("grid_digits", None)
    assert five.cells == every.cells == (4, 4, 4)
    assert study.study(asked) == 0
    facts = json.loads((tmp_path / "runs/studies/table6/study.json").read_text())
    assert facts["columns"] == ["grid_digits", "grid_digits@5"], "the study's own ones first"


def test_of_all_studies_the_first_seed_comes_first_and_each_has_its_table(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """GRID has no part in the study of the map; what two studies share is to be trained once."""
    caplog.set_level(logging.INFO)
    kept = {name: STUDIES[name] for name in ("table5", "table7", "localization")}
    monkeypatch.setattr("train.studies.config.STUDIES", kept)
    assert study.study(config(tmp_path, name="all", seeds=2)) == 0
    names = [run.folder.name for run in calls]
    pair = ["glcm-multi_pair_avg_single", "glcm"]
    one = ["moco", "glcm", *pair, *pair]
    assert names == [f"{name}-{seed}" for seed in (0, 1) for name in one]
    for name, rows in (("table5", 3), ("table7", 5)):
        facts = json.loads((tmp_path / "runs/studies" / name / "study.json").read_text())
        assert [found["seed"] for found in facts["results"]] == [0] * rows + [1] * rows
        assert (tmp_path / "runs/studies" / name / "study.html").is_file()
    assert not (tmp_path / "runs/studies/localization").exists()
    assert "4 runs to train of 10 steps of 16 clips, 2 of them for studies above" in caplog.text
    assert "all 2 studies: 6 runs to train" in caplog.text
    assert "takes about 1 min" in caplog.text  # 6 runs x 10 steps x 0.1 s
    assert "16 of 16 rows done" in caplog.text


@pytest.mark.parametrize("task", ["localization", "av_retrieval"])
def test_what_needs_no_labels_asks_the_whole_network_about_clips_that_chose_nothing(
    task: str, tmp_path: Path
) -> None:
    settings = config(tmp_path, name="table6", corpora="planted")
    local_alone, both = (settings.rows[number] for number in (-2, -1))
    assert (local_alone.look, both.look) == ({"features": "l"}, {})
    asked = eval_of(settings, work(local_alone, "planted"), task)
    assert asked == eval_of(settings, work(both, "planted"), task), "one evaluation for both rows"
    assert asked.split == "test"
