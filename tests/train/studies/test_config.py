"""What may be asked of a study."""

from pathlib import Path
from typing import Any

import pytest

from tests.train.studies.asked import RANDOM, config, work
from train.errors import UsageError
from train.studies import study
from train.studies.catalogue import CORPORA, MULTI, STUDIES
from train.studies.config import StudyConfig
from train.studies.study import eval_of
from train.studies.table import said as said_above


def test_names_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown study 'table50'; known: table5"):
        StudyConfig(name="table50")
    with pytest.raises(UsageError, match="--methods byol; the study table5 has moco"):
        config(tmp_path, methods="byol")
    with pytest.raises(UsageError, match="--corpora kinetics; the study table5 has planted, grid"):
        config(tmp_path, corpora="kinetics")
    with pytest.raises(UsageError, match="say which one: --corpora planted or grid"):
        config(tmp_path, corpora="", shards="data/shards/mine")
    with pytest.raises(UsageError, match="minutes is -3; expected 0 or more"):
        config(tmp_path, minutes=-3)


def test_rows_can_be_chosen_by_name_or_letter(calls: list[Any], tmp_path: Path) -> None:
    assert [row.label for row in config(tmp_path, name="table6", only=("f", "a")).rows] == [
        "a: both encoders, L_g, z_g", "f: both encoders, both, both"]  # fmt: skip
    few = config(tmp_path, name="labels", only=("crop, 5",))
    assert [row.label for row in few.rows] == ["crop, 5"]
    both = config(tmp_path, name="table7", only=("No pooling",)).rows
    assert [row.label for row in both] == [MULTI, f"{MULTI}, z_l"], "all that begin so"
    with pytest.raises(UsageError, match="--only 'g': no row of table6 is called so: random weig"):
        config(tmp_path, name="table6", only=("g",))
    study.study(config(tmp_path, only=("MoCo",)))
    assert [run.method for run in calls] == ["moco"]


def test_tasks_that_are_named_are_taken_also_where_they_are_the_corpus_own(tmp_path: Path) -> None:
    """The study may have others for the corpus: the localization study has its own."""
    own = CORPORA["planted"].tasks
    settings = config(tmp_path, name="localization", corpora="planted", tasks=",".join(own))
    assert STUDIES["localization"].tasks_on("planted") != own
    assert settings.tasks_of("planted") == own


def test_a_task_without_the_protocol_takes_the_nearest_it_has(tmp_path: Path) -> None:
    settings = config(tmp_path, protocol="svm")
    row = STUDIES["table5"].rows[-1]
    assert eval_of(settings, work(row), "grid_digits").protocol == "svm"
    assert eval_of(settings, work(row), "grid_sentences").protocol == "linear"
    assert eval_of(settings, work(row), "localization").protocol == "frozen"


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


def test_what_may_be_missing_is_said_and_passed_on(tmp_path: Path) -> None:
    some = config(tmp_path, allow_missing=True)
    assert eval_of(some, work(RANDOM), "grid_digits").allow_missing
    assert said_above(some)["grid"].endswith("Clips that are missing were left out.")
    assert "missing" not in said_above(config(tmp_path))["grid"]
