"""New results of a study stand beside those that were published, or take their place when asked."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from tests.train.studies.published import MULTI, SINGLE, publish, study_of
from train.errors import UsageError
from train.studies.evidence import EvidenceConfig, committed


def test_seeds_of_another_day_stand_beside_those_that_are_there(places: EvidenceConfig) -> None:
    publish(places, study_of({SINGLE: [50], MULTI: [60]}))
    told, both = publish(places, study_of({SINGLE: [52, 54], MULTI: [62, 65]}, first_seed=1))
    assert told == ["table7: rows by seed: 4 of now, 2 of before"]
    at_once = study_of({SINGLE: [50, 52, 54], MULTI: [60, 62, 65]})
    assert both["rows"] == at_once["rows"] and both["extent"] == at_once["extent"]
    assert sorted(map(str, both["results"])) == sorted(map(str, at_once["results"]))


def test_rows_and_tasks_of_another_day_stand_beside_those_that_are_there(
    places: EvidenceConfig,
) -> None:
    publish(places, study_of({MULTI: [60]}))
    later = study_of({SINGLE: [50], MULTI: [61]})
    later["results"][1]["scores"]["planted_class"] = later["results"][1]["scores"].pop(
        "planted_words"
    )
    _, both = publish(places, later)
    assert [one["row"] for one in both["results"]] == [SINGLE, MULTI], "as in the study"
    assert both["columns"] == ["planted_class", "planted_words"], "as the study names them"
    assert both["results"][1]["scores"]["planted_words"]["value"] == pytest.approx(0.60)
    assert both["results"][1]["scores"]["planted_class"]["value"] == pytest.approx(0.61)


def test_rows_stand_in_the_studys_order_whichever_was_run_first(places: EvidenceConfig) -> None:
    publish(places, study_of({MULTI: [60]}))
    _, both = publish(places, study_of({SINGLE: [50]}, first_seed=1))
    assert [row["row"] for row in both["rows"]] == [SINGLE, MULTI]


def test_another_corpus_stands_beside_the_one_that_is_there(places: EvidenceConfig) -> None:
    planted = study_of({SINGLE: [50, 52], MULTI: [60, 62]})
    publish(places, planted)
    grid = json.loads(json.dumps(study_of({MULTI: [30]})).replace("planted_words", "grid_digits"))
    grid["said"] = {"grid": "g."}
    _, both = publish(places, grid)
    assert both["columns"] == ["planted_words", "grid_digits"]
    assert both["said"] == {"planted": "b.", "grid": "g."}
    lines = (places.docs / "evidence.md").read_text().splitlines()
    assert any(line.startswith("planted: b. grid: g. Seeds 0, 1. ") for line in lines)
    assert any(re.fullmatch(rf"\| {SINGLE} \| 51\.0 \[.*\] \|  \|", line) for line in lines)


@pytest.mark.parametrize("other", [{"settings": "d."}, {"clips": "e"}])
def test_other_settings_or_clips_replace_what_is_there(
    places: EvidenceConfig, other: dict[str, str]
) -> None:
    publish(places, study_of({MULTI: [60]}))
    facts = study_of({MULTI: [62]}, first_seed=1, **other)
    before = committed(places.docs)
    with pytest.raises(UsageError, match=r"would be lost: table7: planted was run"):
        publish(places, facts)
    assert committed(places.docs) == before
    (told,), found = publish(replace(places, replace=True), facts)
    assert told.startswith("table7: planted was run ") and found == facts


def test_other_settings_on_one_corpus_leave_the_other(places: EvidenceConfig) -> None:
    def on_grid(said: str, value: float) -> dict[str, Any]:
        facts = json.dumps(study_of({MULTI: [value]})).replace("planted_words", "grid_digits")
        return {**json.loads(facts), "said": {"grid": said}}

    publish(places, study_of({SINGLE: [50, 52], MULTI: [60, 62]}))
    publish(places, on_grid("in bf16.", 30))
    (told,), both = publish(replace(places, replace=True), on_grid("in fp32.", 40))
    assert told == (
        "table7: grid was run with other settings: in bf16; here: in fp32; "
        "rows by seed: 1 of now, 3 of before"
    )
    assert both["said"] == {"planted": "b.", "grid": "in fp32."}
    values = {(one["row"], one["seed"], task): score["value"]
              for one in both["results"] for task, score in one["scores"].items()}  # fmt: skip
    assert values == {
        (SINGLE, 0, "planted_words"): 0.5,
        (SINGLE, 1, "planted_words"): 0.52,
        (MULTI, 0, "planted_words"): 0.6,
        (MULTI, 1, "planted_words"): 0.62,
        (MULTI, 0, "grid_digits"): 0.4,
    }


def test_scores_of_a_run_that_was_trained_anew_are_not_put_beside_its_old_ones(
    places: EvidenceConfig,
) -> None:
    def of(sha256: str, **columns: float) -> dict[str, Any]:
        facts = study_of({SINGLE: [50], MULTI: [60]})
        for one, run in zip(facts["results"], ("planted/single-0", "planted/glcm-0"), strict=True):
            score = one["scores"].pop("planted_words")
            for column, value in columns.items():
                where = f"{run}/eval/{column}"
                one["scores"][column] = {**score, "value": value, "result": where,
                                         "checkpoint_sha256": f"{run} {sha256}"}  # fmt: skip
        return facts

    publish(places, of("old", planted_words=0.5, planted_class=0.4))
    told, facts = publish(places, of("old", planted_words=0.6))
    assert "anew" not in told[0]
    assert set(facts["results"][1]["scores"]) == {"planted_words", "planted_class"}
    before = committed(places.docs)
    with pytest.raises(UsageError, match=r"trained anew: planted/glcm-0, planted/single-0; sc"):
        publish(places, of("new", planted_words=0.7))
    assert committed(places.docs) == before
    told, facts = publish(replace(places, replace=True), of("new", planted_words=0.7))
    assert "scores that go without new ones: 2;" in told[0]
    assert [list(one["scores"]) for one in facts["results"]] == [["planted_words"]] * 2


def test_a_run_that_was_trained_anew_is_gone_from_all_rows_that_show_it(
    places: EvidenceConfig,
) -> None:
    def of(sha256: str, *rows: str) -> dict[str, Any]:
        facts = study_of({row: [50] for row in rows})
        for one in facts["results"]:
            one["scores"]["planted_words"] |= {
                "result": "planted/glcm-0/eval/planted_words", "checkpoint_sha256": sha256,
            }  # fmt: skip
        return facts

    publish(places, of("old", MULTI, f"{MULTI}, z_l"))
    (told,), facts = publish(replace(places, replace=True), of("new", MULTI))
    assert "scores that go without new ones: 1;" in told
    assert [one["row"] for one in facts["results"]] == [MULTI]


def test_columns_of_no_task_of_the_study_go_with_their_corpus(places: EvidenceConfig) -> None:
    """As of `--tasks`."""
    facts = study_of({MULTI: [60]})
    words = facts["results"][0]["scores"]["planted_words"]
    facts["results"][0]["scores"]["localization"] = {
        **words, "result": "planted/glcm-0/eval/localization",
    }  # fmt: skip
    publish(places, facts)
    other = study_of({SINGLE: [50]}, settings="d.")
    (told,), found = publish(replace(places, replace=True), other)
    assert "scores that go without new ones: 2;" in told
    assert [list(one["scores"]) for one in found["results"]] == [["planted_words"]]


def test_rows_that_the_study_has_no_more_are_left_out_and_told(places: EvidenceConfig) -> None:
    old = study_of({MULTI: [50]})
    old["results"][0]["row"] = "a row of once"
    (places.docs / "evidence").mkdir()
    (places.docs / "evidence/table7.json").write_text(json.dumps(old))
    told, facts = publish(places, study_of({MULTI: [60]}))
    assert "no rows of the study any more: a row of once" in told[0]
    assert [(one["row"], one["seed"]) for one in facts["results"]] == [(MULTI, 0)]
