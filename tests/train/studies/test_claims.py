"""Claims are judged by paired differences, each beside all others."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.train.studies.published import MULTI, SINGLE, study_of
from train.studies.catalogue import CORPORA, SCRATCH, STUDIES
from train.studies.claims import (
    CLAIMS,
    counts,
    findings,
    table as claims_table,
    verdict,
)
from train.studies.table import Result, facts_of
from train.tasks import task_named

CLAIM_1, CLAIM_2 = (next(one for one in CLAIMS if one.number == number) for number in "12")


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds differ by far more than rows: unpaired intervals would overlap."""
    single, multi = [20.0, 50.0, 80.0], [25.0, 54.0, 86.0]
    one = findings(CLAIM_2, {"table7": study_of({SINGLE: single, MULTI: multi})})[0]
    low, high = stats.ttest_rel(np.divide(multi, 100), np.divide(single, 100)).confidence_interval()
    assert (one.low, one.high) == pytest.approx((low, high))
    assert one.difference == pytest.approx(0.05)
    assert (one.seeds, one.verdict) == (3, "held")
    assert one.p == pytest.approx(stats.ttest_rel(multi, single).pvalue)


def test_attention_is_compared_with_its_controls_and_with_the_way_to_crops() -> None:
    """The paper's attention is 4 points below crops and 23 above the full frame."""
    score = {"name": "top1", "unit": "fraction", "higher_is_better": True, "low": 0, "high": 1}

    def ran(name: str, values: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
        found = [
            Result(row, seed, {task: {**score, "value": each[seed]} for task, each in of.items()})
            for row, of in values.items() for seed in range(2)
        ]  # fmt: skip
        return facts_of(STUDIES[name], name, {"planted": "b."}, found)

    table8 = {"full frame": [0.50, 0.51], "attention": [0.56, 0.59], "crop": [0.70, 0.71]}
    studies = {
        "table8": ran("table8", {row: {"planted_words": of} for row, of in table8.items()}),
        "localization": ran("localization", {
            "Ours": {"localization": [0.8, 0.7], "localization:centre": [0.1, 0.12],
                     "localization:foreign_sound": [0.7, 0.7], "localization:chance": [0.1, 0.1]},
            SCRATCH: {"localization": [0.3, 0.5]},
        }),
    }  # fmt: skip
    found = {
        one.comparison.than: one.difference
        for claim in CLAIMS
        if claim.number in ("4a", "4b", "4c")
        for one in findings(claim, studies)
        if one.difference is not None
    }
    assert found == pytest.approx({
        SCRATCH: 0.35, "Ours, foreign sound": 0.05, "Ours, centre": 0.64,
        "full frame": 0.07, "halfway from full frame to crop": -0.03,
    })  # fmt: skip


def test_a_verdict_that_does_not_stand_beside_all_others_is_marked() -> None:
    """Benjamini and Hochberg by hand: of m values in order the k-th stands below 0.05 k / m."""
    facts = study_of({SINGLE: [50, 51, 52, 53], MULTI: [50, 51, 52, 53]})
    near, none = [1.0, 2.0, 3.0, 4.5], [-2.0, 1.0, 1.0, -1.0]
    columns = {"planted_words": near, "planted_words@20": none, "grid_digits": none}
    for one in facts["results"]:
        kind = one["scores"].pop("planted_words")
        for column, added in columns.items():
            value = (50 + added[one["seed"]] * (one["row"] == MULTI)) / 100
            one["scores"][column] = {**kind, "value": value}
    facts["columns"] = list(columns)
    p = stats.ttest_1samp(near, 0).pvalue
    assert 0.05 / 3 < p < 0.05, "alone it holds"
    _, rows = claims_table({"table7": facts}, [CLAIM_2])
    assert [row[-1] for row in rows[:3]] == ["held *", "undecided", "undecided"]
    assert counts({"table7": facts}, [CLAIM_2])[1][0][1:] == ["1 (1 *)", "0", "2", "0"]
    del facts["columns"][1:]
    assert claims_table({"table7": facts}, [CLAIM_2])[1][0][-2:] == [f"{p:.3f}", "held"]
    assert counts({"table7": facts}, [CLAIM_2])[1][0][1] == "1"


def test_verdicts() -> None:
    assert [verdict(*ends) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))] == [
        "held", "did not hold", "undecided",
    ]  # fmt: skip


def test_of_one_seed_nothing_is_decided_and_what_was_not_run_is_said() -> None:
    one = findings(CLAIM_2, {"table7": study_of({SINGLE: [50], MULTI: [90]})})[0]
    assert (one.verdict, one.low, one.seeds) == ("undecided", None, 1)
    one = findings(CLAIM_2, {})[0]
    assert (one.verdict, one.difference) == ("not run", None)


def test_error_rates_are_better_when_lower() -> None:
    facts = study_of({SINGLE: [50, 50, 51], MULTI: [90, 91, 91]})
    for result in facts["results"]:
        result["scores"]["planted_words"]["higher_is_better"] = False
    one = findings(CLAIM_2, {"table7": facts})[0]
    assert one.verdict == "did not hold"


def test_verdicts_are_counted_and_those_of_one_seed_apart() -> None:
    assert counts({}, [CLAIM_2])[1][0][1:] == ["0"] * 4, "what was not run is nowhere"
    facts = study_of({SINGLE: [50, 51, 50], MULTI: [90, 91, 90]})
    heads, ((claim, *numbers),) = counts({"table7": facts}, [CLAIM_2])
    assert dict(zip(heads[1:], numbers, strict=True)) == {
        "held": "1", "did not hold": "0", "undecided": "0", "of one seed": "0"
    }  # fmt: skip
    assert claim.startswith("2. several positive pairs beat one")
    turned = study_of({SINGLE: [90, 91, 90], MULTI: [50, 51, 50]})
    assert counts({"table7": turned}, [CLAIM_2])[1][0][1:] == ["0", "1", "0", "0"]
    single = study_of({SINGLE: [90], MULTI: [50]})
    assert counts({"table7": single}, [CLAIM_2])[1][0][1:] == ["0", "0", "0", "1"]


def test_claims_compare_rows_of_the_studies() -> None:
    labels = {name: {row.label for row in study.all_rows} for name, study in STUDIES.items()}
    for claim in CLAIMS:
        for one in claim.comparisons:
            assert {one.better, one.worse, one.far or one.worse} <= labels[one.study]
            columns = {
                column for corpus in CORPORA for column in STUDIES[one.study].tasks_on(corpus)
            }
            assert {column.partition(":")[0] for column in one.tasks} & columns, one


def test_mismatch_is_compared_where_the_rows_have_features_of_their_own() -> None:
    """The task looks at local features, so that a row of both kinds is one of the local ones."""
    assert task_named("planted_mismatch").settings.features == "l"
    looks = {row.label: row.look for row in STUDIES["table6"].all_rows}
    compared = [one for one in CLAIM_1.comparisons if "planted_mismatch" in one.tasks]
    assert compared
    assert all(looks[row].get("features") for one in compared for row in (one.better, one.worse))
