"""The rows of the tables: what each trains and looks at."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.studies.asked import config, work
from train.errors import UsageError
from train.evaluation.encoders import wanted_features
from train.methods import METHODS, preset_named
from train.studies.catalogue import CORPORA, LIKE, ONE_RATE, SCRATCH, STUDIES, Row, task_of
from train.studies.config import preset_of
from train.studies.study import eval_of, run_of
from train.studies.table import goodness_in_paper
from train.tasks import TASKS


def test_rows_that_train_the_same_share_a_run_within_and_between_studies(tmp_path: Path) -> None:
    folders = {
        (name, row.label): run_of(config(tmp_path, name=name), work(row)).folder.name
        for name in ("table5", "table6", "table7", "table8", "table9")
        for row in STUDIES[name].rows
    }
    ours = {folders["table5", "Ours"], folders["table7", STUDIES["table7"].rows[1].label],
            folders["table9", "M = 3"], *(folders["table6", row.label] for row in
                                          STUDIES["table6"].rows if row.paper in ("b", "e", "f")),
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


def test_events_are_fine_tuned_from_one_vector_a_second_that_sound_has_pointed_out(
    tmp_path: Path,
) -> None:
    settings = config(tmp_path, name="events", corpora="planted", cells=(4, 4, 4))
    assert [row.label for row in settings.rows] == [SCRATCH, "Ours", ONE_RATE]
    for row in settings.rows:
        asked = eval_of(settings, work(row, "planted"), "planted_events")
        seen = TASKS["planted_events"].with_settings(**asked.changes).settings
        assert (seen.protocol, seen.pooling) == ("finetune", "full_attention")
        assert seen.cells == (1, 1, 1)
        assert asked.encoder_lr == asked.lr_head / (10 if row.label == "Ours" else 1)


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


def test_every_row_has_its_papers_row_and_every_task_its_column() -> None:
    for name in ("table5", "table6", "table7", "table8", "table9"):
        for task in LIKE:
            if name == "table8" and LIKE[task] == "UCF101":
                continue  # Table 8 has no actions
            if name == "table5" and LIKE[task] == "UCF101":
                continue
            if LIKE[task] == "AVE_full":
                continue  # of Table 4 alone
            theirs = goodness_in_paper(STUDIES[name], task)
            same = [row.label for row in STUDIES[name].rows if row.paper is not None]
            assert list(theirs) == same, (name, task)


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


@pytest.mark.parametrize("column", ["grid_digits@", "grid_digits@0", "grid_digits@all"])
def test_labels_of_a_column_are_a_number(column: str) -> None:
    with pytest.raises(UsageError, match=f"'{column}': expected TASK@LABELS, as planted_words@20"):
        task_of(column)
