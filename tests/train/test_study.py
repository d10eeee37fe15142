"""Studies: equal runs for every row, one table, nothing done twice."""

import json
import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.evaluation.sets import Clip, labelled_set
from tests.train.runs import toy
from train import study, studyplan
from train.errors import UsageError
from train.evaluation.encoders import wanted_features
from train.methods import METHODS, preset_named
from train.overview import write
from train.studies import CORPORA, LIKE, SCRATCH, STUDIES, Row, task_of
from train.study import Work, eval_of, run_of
from train.study_config import StudyConfig, preset_of
from train.studyclock import Clock, OutOfTime, deaf_to_alarms
from train.studyplan import step_seconds
from train.studytable import agreement, goodness_in_paper, said as said_above, summary, table
from train.tasks import TASKS

RANDOM = Row(SCRATCH, trained=False)


def fake_result(config: Any) -> dict[str, Any]:
    """A score that depends on the run's name and seed, so that rows can be told apart."""
    value = (
        0.1 if config.scratch else {"moco": 0.5, "glcm": 0.7}[config.checkpoint.name.split("-")[0]]
    )
    value += 0.02 * config.seed
    score = {"name": "top1", "value": value, "low": value - 0.01, "high": value + 0.01}
    return {"task": config.task, "name": config.task, "metrics": [score], "n_scored": 40}


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
    monkeypatch.setattr(studyplan, "step_seconds", lambda run, device: 0.1)
    rows = (Row("MoCo", "moco", paper="MoCo"), Row("Ours", "glcm", paper="Ours"))
    tasks = {**STUDIES["table5"].tasks, "grid": ("grid_digits", "grid_letters")}
    small = replace(STUDIES["table5"], rows=rows, tasks=tasks)
    monkeypatch.setitem(STUDIES, "table5", small)
    return trained


def config(folder: Path, **changes: Any) -> StudyConfig:
    given: dict[str, Any] = {"name": "table5", "run": str(folder / "runs/studies"), "steps": 10,
             "seeds": 1, "corpora": "grid"}  # fmt: skip
    return StudyConfig(**(given | changes))


def work(row: Row, corpus: str = "grid", seed: int = 0) -> Work:
    return Work(row, corpus, CORPORA[corpus], seed)


def test_all_rows_are_trained_alike(calls: list[Any], tmp_path: Path) -> None:
    assert study.study(config(tmp_path, seeds=2, batch_size=6)) == 0
    assert [run.folder.name for run in calls] == ["moco-0", "glcm-0", "moco-1", "glcm-1"]
    same = {(run.schedule_steps, run.batch_size, run.shards, run.preset) for run in calls}
    assert same == {(10, 6, "data/shards/grid-glcm", "tiny_grid")}


def test_the_table_has_means_and_intervals_over_seeds(calls: list[Any], tmp_path: Path) -> None:
    study.study(config(tmp_path, seeds=3))
    facts = json.loads((tmp_path / "runs/studies/table5/study.json").read_text())
    assert [row["row"] for row in facts["rows"]] == ["random weights (glcm)", "MoCo", "Ours"]
    ours = facts["rows"][2]["grid_digits"]
    # 0.70, 0.72, 0.74: mean 0.72, deviation 0.02; t of 2 degrees of freedom is 4.3027
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert ours["value"] == pytest.approx(0.72)
    assert (ours["low"], ours["high"]) == pytest.approx((0.72 - half, 0.72 + half), abs=1e-6)
    text = (tmp_path / "runs/studies/table5/study.md").read_text()
    assert "| Ours | 72.0 [67.0, 77.0] | 72.0 [67.0, 77.0] |" in text
    assert "10 steps of 16 clips (160 clips seen) from grid-glcm" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"pictures": "frames"}, "evaluation linear, pictures frames, where"),
     ({"rounds": "fold1"}, "of its own. Rounds fold1 alone."),
     ({"split": "val"}, "from grid-glcm's val, scored on"),
     ({"precision": "bf16"}, "scored on grid-lips, networks in bf16; evaluation")],
)  # fmt: skip
def test_what_changes_scores_is_said_above_the_table(
    changes: dict[str, str], said: str, tmp_path: Path
) -> None:
    """Results are put together where the same is said of them."""
    assert said in said_above(config(tmp_path, **changes))["grid"]
    assert said not in said_above(config(tmp_path))["grid"]


def test_an_interval_of_a_share_is_shown_within_what_shares_can_be() -> None:
    of = {"name": "top1", "value": 0.9, "low": -0.2, "high": 1.3}
    cells = [(of, "90.0 [0.0, 100.0]"), ({**of, "higher_is_better": False}, "90.0 [-20.0, 130.0]"),
             ({**of, "unit": "ratio"}, "0.900 [-0.200, 1.300]")]  # fmt: skip
    for score, shown in cells:
        facts = {"columns": ["t"], "rows": [{"row": "r", "t": score}], "agreement": {}}
        assert table(facts)[1] == [["r", shown]]


def test_of_one_seed_the_interval_is_that_of_the_test_items() -> None:
    score = {"name": "top1", "value": 0.4, "low": 0.3, "high": 0.5, "n": 9}
    found = summary([score])
    assert (found["value"], found["low"], found["high"]) == (0.4, 0.3, 0.5)


def test_the_table_is_in_the_report(calls: list[Any], tmp_path: Path) -> None:
    study.study(config(tmp_path))
    page, text = write(tmp_path / "runs")
    assert "| MoCo | 50.0 [49.0, 51.0] |" in text.read_text()
    assert '<h2 id="table5">' in page.read_text()


def test_a_stopped_run_stops_the_study(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "pretrain", lambda run, stop: 85)
    assert study.study(config(tmp_path)) == 85


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


def test_when_the_minutes_are_over_the_run_is_told_and_the_study_ends(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def waits_for_the_signal(run: Any, stop: Any) -> int:
        before = signal.signal(signal.SIGUSR1, lambda number, _: told.append(number))
        while not told:
            time.sleep(0.01)
        signal.signal(signal.SIGUSR1, before)
        return 85

    monkeypatch.setattr(study, "pretrain", waits_for_the_signal)
    trained_first = replace(STUDIES["table5"], rows=(Row("Ours", "glcm"), RANDOM))
    monkeypatch.setitem(STUDIES, "table5", trained_first)
    assert study.study(config(tmp_path, minutes=0.005)) == 85
    assert told == [signal.SIGUSR1]
    assert study.study(config(tmp_path, minutes=0.0)) == 85, "no time for anything"


def test_when_the_minutes_are_over_no_further_evaluation_begins(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    evaluated: list[str] = []

    def takes_a_minute(one: Any) -> dict[str, Any]:
        evaluated.append(one.task)
        clock[0] += 60
        return fake_result(one)

    monkeypatch.setattr(study, "evaluate", takes_a_minute)
    monkeypatch.setattr("train.study.time.monotonic", lambda: clock[0])
    assert study.study(config(tmp_path, minutes=1.5)) == 85
    assert evaluated == ["grid_digits", "grid_letters"], "of the first row, without training"


def evaluation(seconds: list[float], ended: list[str]) -> Any:
    """An evaluation that takes so long each time it is not done yet, and keeps no part."""

    def evaluate(one: Any) -> dict[str, Any]:
        done = Path(one.run) / "eval" / one.task / "fold1" / "predictions.parquet"
        if not done.is_file():
            time.sleep(seconds.pop(0))
            done.parent.mkdir(parents=True)
            done.touch()
            ended.append(one.task)
        return fake_result(one)

    return evaluate


class AlwaysLate(Clock):
    """Over from the beginning, without anyone asking."""

    def is_over(self) -> bool:
        return False


class NoTime(AlwaysLate):
    """Whatever may be cut is cut before it begins."""

    @contextmanager
    def cuts(self) -> Iterator[None]:
        if self.worked:
            raise OutOfTime
        yield


def test_an_evaluation_at_the_end_of_the_minutes_is_cut_and_done_by_the_next_piece(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    ended: list[str] = []
    monkeypatch.setattr(study, "evaluate", evaluation([0.05, 60, 0, 0, 0, 0, 0], ended))
    monkeypatch.setattr(study, "Clock", AlwaysLate)
    heard = signal.getsignal(signal.SIGUSR1)
    assert study.study(config(tmp_path, minutes=0)) == 85
    assert ended == ["grid_digits"]
    assert "the minutes are over within grid_letters of grid/random-glcm-0" in caplog.text
    assert signal.getsignal(signal.SIGUSR1) == heard
    assert study.study(config(tmp_path)) == 0
    assert ended[1] == "grid_letters"
    assert len(ended) == 6


def test_every_piece_does_something_however_long_it_takes_to_find_what_is_done(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation longer than a piece would never end where each piece cuts it."""
    ended: list[str] = []

    def trains_once(run: Any, stop: Any) -> int:
        if not (run.folder / "finished.json").is_file():
            run.folder.mkdir(parents=True)
            (run.folder / "finished.json").touch()
            ended.append(run.method)
        return 0

    monkeypatch.setattr(study, "evaluate", evaluation([0.02] * 6, ended))
    monkeypatch.setattr(study, "pretrain", trains_once)
    monkeypatch.setattr(study, "Clock", NoTime)
    done: list[int] = []
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        codes.append(study.study(config(tmp_path, minutes=1)))
        done.append(len(ended))
        assert len(done) < 10, "no piece got on"
    # Random weights have two evaluations, two runs two each.
    assert done == [1, 3, 4, 6, 7, 8]
    assert codes == [85] * 5 + [0]


def test_before_it_has_worked_a_piece_is_not_cut_and_then_it_is() -> None:
    clock = Clock(0)
    with deaf_to_alarms():
        with clock.cuts():
            time.sleep(0.05)
        clock.worked = True
        with pytest.raises(OutOfTime), clock.cuts():
            time.sleep(60)


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


def test_rows_that_train_the_same_share_a_run_within_and_between_studies(tmp_path: Path) -> None:
    folders = {
        (name, row.label): run_of(config(tmp_path, name=name), work(row)).folder.name
        for name in ("table5", "table6", "table7", "table8", "table9")
        for row in STUDIES[name].rows
    }
    ours = {folders["table5", "Ours"], folders["table7", STUDIES["table7"].rows[1].label],
            folders["table9", "M = 3"], *(folders["table6", row.label] for row in
                                          STUDIES["table6"].rows if row.paper in "bef"),
            *(folders["table8", row.label] for row in STUDIES["table8"].rows
              if row.trained)}  # fmt: skip
    assert ours == {"glcm-0"}
    # 7 objectives, 3 further ablations of Table 6, 1 of Table 7, 3 of Table 9; 2 untrained
    assert len(set(folders.values())) == 16


@pytest.mark.parametrize(
    ("letter", "switches", "features"),
    [("a", {"objective": "g"}, "g"), ("b", {}, "g"), ("c", {"objective": "l"}, "l"),
     ("d", {"encoders": "l_only"}, "l"), ("e", {}, "l"), ("f", {}, "both")],
)  # fmt: skip
def test_rows_of_table_6_are_those_of_the_paper(
    letter: str, switches: dict[str, str], features: str, tmp_path: Path
) -> None:
    (row,) = (row for row in STUDIES["table6"].rows if row.paper == letter)
    settings = config(tmp_path, name="table6")
    model = run_of(settings, work(row)).model
    usual = METHODS["glcm"].presets["tiny_grid"]
    changed = {name: getattr(model, name) for name in ("objective", "encoders", "window_M")
               if getattr(model, name) != getattr(usual, name)}  # fmt: skip
    assert changed == switches
    look = TASKS["grid_digits"].with_settings(**eval_of(settings, work(row), "grid_digits").changes)
    assert look.settings.features == features


@pytest.mark.parametrize(
    ("name", "pictures", "pooling"),
    [("full frame", "frames", "full_avg"), ("attention", "frames", "full_attention"),
     ("crop", "lip", None)],
)  # fmt: skip
def test_rows_of_table_8_look_at_the_same_run_in_three_ways(
    name: str, pictures: str, pooling: str | None, tmp_path: Path
) -> None:
    (row,) = (row for row in STUDIES["table8"].rows if row.label == name)
    asked = eval_of(config(tmp_path, name="table8", cells=(4, 4, 4)), work(row), "grid_digits")
    assert (asked.pictures, asked.pooling, asked.cells) == (pictures, pooling, (4, 1, 1))


def test_the_crop_of_the_planted_corpus_is_the_known_box(tmp_path: Path) -> None:
    crop = work(STUDIES["table8"].rows[2], "planted")
    asked = eval_of(config(tmp_path, name="table8", corpora="planted"), crop, "planted_words")
    assert asked.pictures == "box"
    changed = TASKS["planted_words"].with_settings(**asked.changes)
    assert changed.settings.pictures == "box"


@pytest.mark.parametrize("name", list(STUDIES))
@pytest.mark.parametrize("corpus", list(CORPORA))
def test_every_task_takes_what_a_study_asks_of_it(name: str, corpus: str, tmp_path: Path) -> None:
    asked_for = ("planted_events",) if corpus == "planted" else ()
    for task in (*STUDIES[name].tasks_on(corpus), *asked_for):
        for row in STUDIES[name].all_rows:
            if corpus not in (row.corpora or CORPORA):
                continue
            if task in asked_for and row.method != "glcm":
                continue  # it hears
            settings = config(tmp_path, name=name, corpora=corpus, cells=(4, 4, 4))
            asked = eval_of(settings, work(row, corpus), task)
            seen = TASKS[asked.task].with_settings(**asked.changes).settings
            assert seen.protocol == asked.protocol
            preset = preset_named(row.method, settings.preset_for(CORPORA[corpus], row.method))
            module: Any = METHODS[row.method].module(replace(preset, **row.model))
            assert wanted_features(module.feature_channels, seen)


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


def test_a_task_without_the_protocol_takes_the_nearest_it_has(tmp_path: Path) -> None:
    settings = config(tmp_path, protocol="svm")
    row = STUDIES["table5"].rows[-1]
    assert eval_of(settings, work(row), "grid_digits").protocol == "svm"
    assert eval_of(settings, work(row), "grid_sentences").protocol == "linear"
    assert eval_of(settings, work(row), "localization").protocol == "frozen"


def test_the_order_of_rows_is_compared_with_the_papers() -> None:
    """Table 5's MoCo, CPC, DPC: LRW 61.2, 65.3, 67.5; LRS2, lower is better: 71.5, 66.7, 65.1."""

    def rows(task: str, values: list[float], higher: bool) -> list[dict[str, Any]]:
        names = ("MoCo", "CPC", "DPC")
        return [{"row": name, task: {"value": value, "higher_is_better": higher}}
                for name, value in zip(names, values, strict=True)]  # fmt: skip

    table5 = STUDIES["table5"]
    same = agreement(table5, rows("grid_digits", [0.1, 0.2, 0.3], True), "grid_digits")
    assert same == {"like": "LRW", "rho": pytest.approx(1.0), "rows": 3}
    turned = agreement(table5, rows("grid_sentences", [0.1, 0.2, 0.3], False), "grid_sentences")
    assert turned == {"like": "LRS2", "rho": pytest.approx(-1.0), "rows": 3}
    # of ranks (1, 3, 2): 1 - 6 * (0 + 1 + 1) / (3 * 8) = 0.5
    mixed = agreement(table5, rows("grid_digits", [0.1, 0.3, 0.2], True), "grid_digits")
    assert mixed is not None
    assert mixed["rho"] == pytest.approx(0.5)
    assert agreement(table5, rows("grid_digits", [0.1, 0.3, 0.2], True)[:2], "grid_digits") is None
    assert agreement(table5, rows("localization", [0.1, 0.3, 0.2], True), "localization") is None


def test_every_row_has_its_papers_row_and_every_task_its_column() -> None:
    for name in ("table5", "table6", "table7", "table8", "table9"):
        for task in LIKE:
            if name == "table8" and LIKE[task] == "UCF101":
                continue  # Table 8 has no actions
            if name == "table5" and LIKE[task] == "UCF101":
                continue
            theirs = goodness_in_paper(STUDIES[name], task)
            same = [row.label for row in STUDIES[name].rows if row.paper is not None]
            assert list(theirs) == same, (name, task)


def test_names_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown study 'table50'; known: table5"):
        StudyConfig(name="table50")
    with pytest.raises(UsageError, match="--methods byol; the study table5 has moco"):
        config(tmp_path, methods="byol")
    with pytest.raises(UsageError, match="--corpora kinetics; the study table5 has planted, grid"):
        config(tmp_path, corpora="kinetics")
    with pytest.raises(UsageError, match="say which one: --corpora planted or grid"):
        config(tmp_path, corpora="", shards="data/shards/mine")


def test_without_shards_it_says_what_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"(?s)finds no shards.*make shards DATASET=planted"):
        study.study(config(tmp_path, corpora=""))


def test_other_shards_and_tasks_for_one_corpus(calls: list[Any], tmp_path: Path) -> None:
    study.study(config(tmp_path, shards="mine", tasks="grid_commands"))
    assert {run.shards for run in calls} == {"mine"}
    facts = json.loads((tmp_path / "runs/studies/table5/study.json").read_text())
    assert facts["columns"] == ["grid_commands"]


def test_tasks_that_are_named_are_taken_also_where_they_are_the_corpus_own(tmp_path: Path) -> None:
    """The study may have others for the corpus: the localization study has its own."""
    own = CORPORA["planted"].tasks
    settings = config(tmp_path, name="localization", corpora="planted", tasks=",".join(own))
    assert STUDIES["localization"].tasks_on("planted") != own
    assert settings.tasks_of("planted") == own


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

    monkeypatch.setattr(studyplan, "step_seconds", note)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    study.study(config(tmp_path))
    assert timed == [device] * 2, "MoCo and GLCM"
    assert "training them takes about 4 min" in caplog.text, "2 runs, 10 steps of 12 seconds"


@pytest.mark.parametrize("size", ["tiny", "tiny_grid", "grid", "full"])
def test_every_method_has_a_preset_of_every_size(size: str) -> None:
    for row in STUDIES["table5"].rows:
        assert preset_of(size, row.method) in METHODS[row.method].presets


@pytest.mark.parametrize("row", STUDIES["table5"].rows, ids=lambda row: row.method)
def test_every_row_of_table_5_has_a_run(row: Row, tmp_path: Path) -> None:
    run = run_of(config(tmp_path), work(row))
    assert run.method in METHODS
    assert run.val_every == 0
    assert run.clips_per_batch == 16
    assert run.model == METHODS[row.method].presets["tiny_grid"]


def test_random_weights_are_those_of_the_rows_own_method(tmp_path: Path) -> None:
    settings = config(tmp_path)
    glcm, one = (eval_of(settings, work(row), "grid_digits") for row in STUDIES["table5"].rows[:2])
    assert (glcm.method, glcm.scratch) == ("glcm", True)
    assert (one.method, one.scratch) == ("moco", True)
    assert one.run.endswith("grid/random-moco-0")


def test_a_row_that_is_trained_longer_has_a_run_of_its_own(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(studyplan, "step_seconds", lambda run, device: 12.0)
    assert study.study(config(tmp_path, name="longer", corpora="planted", plan=True)) == 0
    assert "training them takes about 10 min" in caplog.text, "10 steps and 40"
    short, long = STUDIES["longer"].rows
    settings = config(tmp_path, name="longer", corpora="planted")
    runs = [run_of(settings, work(row, "planted")) for row in (short, long)]
    found = [(run.folder.name, run.schedule_steps) for run in runs]
    assert found == [("glcm-0", 10), ("glcm-x4-0", 40)]


def test_a_row_with_a_rate_of_its_own_has_a_run_of_its_own(tmp_path: Path) -> None:
    settings = config(tmp_path, name="rates", corpora="planted")
    rows = {row.label: row for row in STUDIES["rates"].rows}
    own, low, ours = (
        run_of(settings, work(rows[label], "planted"))
        for label in ("MoCo", "MoCo, rate 0.0003", "Ours, rate 0.0003")
    )
    assert (own.folder.name, own.lr) == ("moco-0", 1e-3)
    assert (low.folder.name, low.lr, low.method) == ("moco-lr0.0003-0", 3e-4, "moco")
    assert (ours.folder.name, ours.lr, ours.method) == ("glcm-lr0.0003-0", 3e-4, "glcm")
    assert own.folder == run_of(settings, work(Row("MoCo", "moco"), "planted")).folder


def test_a_column_may_have_labels_of_its_own(calls: list[Any], tmp_path: Path) -> None:
    asked = config(tmp_path, name="table6", only=("f",), tasks="grid_digits@5,grid_digits")
    five, every = (eval_of(asked, work(asked.rows[0]), column) for column in asked.tasks_of("grid"))
    assert (five.task, five.labels) == ("grid_digits", 5)
    assert (every.task, every.labels) == ("grid_digits", None)
    assert five.cells == every.cells == (4, 4, 4)
    assert study.study(asked) == 0
    facts = json.loads((tmp_path / "runs/studies/table6/study.json").read_text())
    assert facts["columns"] == ["grid_digits", "grid_digits@5"], "the study's own ones first"


@pytest.mark.parametrize("column", ["grid_digits@", "grid_digits@0", "grid_digits@all"])
def test_labels_of_a_column_are_a_number(column: str) -> None:
    with pytest.raises(UsageError, match=f"'{column}': expected TASK@LABELS, as planted_words@20"):
        task_of(column)


# --- all of them --------------------------------------------------------------------------------


def test_of_all_studies_the_first_seed_comes_first_and_each_has_its_table(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """GRID has no part in the study of the map; what two studies share is to be trained once."""
    caplog.set_level(logging.INFO)
    kept = {name: STUDIES[name] for name in ("table5", "table7", "localization")}
    monkeypatch.setattr("train.study_config.STUDIES", kept)
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"only": ("f",), "tasks": "grid_digits"}, "--only, --tasks: which rows and columns"),
     ({"methods": "moco"}, "--methods: which rows"),
     ({"corpora": "kinetics"}, "--corpora kinetics; all studies have planted, grid"),
     ({"corpora": "", "shards": "a"}, "say which one: --corpora planted or grid"),
     ({"steps": 0}, "steps is 0; expected 1 or more")],
)  # fmt: skip
def test_what_belongs_to_one_study_is_refused_for_all(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        config(tmp_path, name="all", **changes)


def test_all_studies_without_shards_say_what_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"(?s)studies find no shards.*make shards DATASET=plant"):
        config(tmp_path, name="all", corpora="").studies()


# --- what is asked for --------------------------------------------------------------------------


def test_rows_can_be_chosen_by_name_or_letter(calls: list[Any], tmp_path: Path) -> None:
    assert [row.label for row in config(tmp_path, name="table6", only=("f", "a")).rows] == [
        "a: both encoders, L_g, z_g", "f: both encoders, both, both"]  # fmt: skip
    few = config(tmp_path, name="labels", only=("crop, 5",))
    assert [row.label for row in few.rows] == ["crop, 5"]
    with pytest.raises(UsageError, match="--only 'g': no row of table6 is called so: random weig"):
        config(tmp_path, name="table6", only=("g",))
    study.study(config(tmp_path, only=("MoCo",)))
    assert [run.method for run in calls] == ["moco"]


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


def test_the_estimate_gives_up_where_the_minutes_are_over(
    calls: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert study.study(config(tmp_path, minutes=0.0)) == 85
    assert "no estimate" in caplog.text
    assert "takes about" not in caplog.text


def test_shards_that_are_not_there_are_named_before_anything_is_timed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"grid has no shards in nix: `make shards DATASET=grid "):
        study.study(config(tmp_path, shards="nix"))
    stored = replace(CORPORA["grid"], shards="s3://a/b", task_shards="s3://a/c")
    studyplan.require_shards({"grid": stored})  # found out when they are opened


def test_a_split_that_a_task_scores_and_is_not_there_is_named_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    clips = [Clip(f"planted/{i}", splits=("planted:train",)) for i in range(3)]
    clips += [Clip("planted/a", splits=("planted:test",)), Clip("planted/b", missing=True)]
    shards = str(labelled_set(tmp_path / "planted-glcm", clips, name="planted"))
    given = {"name": "table6", "corpora": "planted", "shards": shards, "task_shards": shards}
    with pytest.raises(
        UsageError, match=r"task av_retrieval of planted: .*no clip in val; its spl"
    ):
        study.study(config(tmp_path, tasks="planted_class,av_retrieval", **given))
    corpora = {"planted": replace(CORPORA["planted"], shards=shards, task_shards=shards)}
    studyplan.require_splits(config(tmp_path, tasks="planted_class", **given), corpora)


def test_what_may_be_missing_is_said_and_passed_on(tmp_path: Path) -> None:
    some = config(tmp_path, allow_missing=True)
    assert eval_of(some, work(RANDOM), "grid_digits").allow_missing
    assert said_above(some)["grid"].endswith("Clips that are missing were left out.")
    assert "missing" not in said_above(config(tmp_path))["grid"]
