"""The pages of evidence say what the results say, and claims are judged by paired differences."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from train.errors import UsageError
from train.studies.catalogue import CORPORA, LONG, SCRATCH, STUDIES
from train.studies.claims import (
    CLAIMS,
    counts,
    findings,
    table as claims_table,
    verdict,
)
from train.studies.evidence import PAGES, EvidenceConfig, committed, evidence, filled
from train.studies.learned import table as learned
from train.studies.table import Result, facts_of
from train.tasks import task_named

REPOSITORY = Path(__file__).parents[3]
DOCS = REPOSITORY / "docs"
MARKS = (*STUDIES, "verdicts", "claims", "learned")
CLAIM_1, CLAIM_2 = (next(one for one in CLAIMS if one.number == number) for number in "12")
MULTI, SINGLE = "No pooling & multiple pos. pairs", "Avg pooling & single pos. pair"


def empty(marks: Sequence[str]) -> str:
    """A page without a table."""
    return "".join(f"# {name}\n<!-- {name} -->\n<!-- end -->\n" for name in marks)


def study_of(
    values: dict[str, list[float]], first_seed: int = 0, clips: str = "c", settings: str = "b."
) -> dict[str, Any]:
    """A study.json of table 7: rows with a value a seed, in percent of a task `planted_words`."""
    score = {"name": "top1", "unit": "fraction", "higher_is_better": True, "low": 0, "high": 1}
    results = [
        Result(row, seed, {"planted_words": {
            **score, "value": value / 100, "index_sha256": clips,
            "result": f"planted/{row}-{seed}/eval/planted_words",
        }})
        for row, each in values.items()
        for seed, value in enumerate(each, first_seed)
    ]  # fmt: skip
    return facts_of(STUDIES["table7"], "table7", {"planted": settings}, results)


# --- the committed page -----------------------------------------------------------------------


def test_the_pages_tables_are_those_of_the_committed_results() -> None:
    texts = {name: (DOCS / name).read_text() for name in PAGES}
    assert filled(texts, committed(DOCS)) == texts, "run `make evidence`, or undo what was edited"


def test_each_study_has_committed_results() -> None:
    assert list(committed(DOCS)) == list(STUDIES)


def test_the_commands_of_the_details_are_those_of_the_committed_results() -> None:
    command = (
        r"make study NAME=(\w+) CORPORA=(\w+) ARGS=\"(?:--first-seed (\d+) )?--seeds (\d+)(.*)\""
    )
    asked: dict[tuple[str, str, bool], set[int]] = {}
    for name, corpus, first, count, rest in re.findall(command, (DOCS / PAGES[1]).read_text()):
        seeds = range(int(first or 0), int(first or 0) + int(count))
        asked.setdefault((name, corpus, "--precision bf16" in rest), set()).update(seeds)
    done: dict[tuple[str, str, bool], set[int]] = {}
    for name, facts in committed(DOCS).items():
        for one in facts["results"]:
            for score in one["scores"].values():
                corpus = score["result"].partition("/")[0]
                key = (name, corpus, "bf16" in facts["said"][corpus])
                done.setdefault(key, set()).add(one["seed"])
    assert asked == done


@pytest.mark.parametrize("name", committed(DOCS))
def test_committed_means_and_intervals_follow_from_the_runs(name: str) -> None:
    facts, checked = committed(DOCS)[name], 0
    for row in facts["rows"]:
        for task in facts["columns"]:
            of_row = [one["scores"] for one in facts["results"] if one["row"] == row["row"]]
            values = [scores[task]["value"] for scores in of_row if task in scores]
            if not values:
                assert task not in row
                continue
            assert row[task]["value"] == pytest.approx(np.mean(values), abs=1e-12)
            if len(values) > 1:
                error = np.std(values, ddof=1) / len(values) ** 0.5
                half = stats.t.ppf(0.975, len(values) - 1) * error
                low, high = np.mean(values) - half, np.mean(values) + half
                assert (row[task]["low"], row[task]["high"]) == pytest.approx((low, high))
            checked += 1
    assert checked == sum(task in row for row in facts["rows"] for task in facts["columns"]) > 0


@pytest.mark.parametrize("name", committed(DOCS))
def test_committed_ranks_and_captions_follow_from_the_runs(name: str) -> None:
    """All that a study.json says besides its runs: an edited rank would show on the page alike."""
    facts = committed(DOCS)[name]
    again = facts_of(STUDIES[name], name, facts["said"], [Result(**r) for r in facts["results"]])
    assert list(again) == list(facts)
    for part in ("columns", "extent", "about"):
        assert again[part] == facts[part]
    assert [row["row"] for row in again["rows"]] == [row["row"] for row in facts["rows"]]
    for ours, theirs in zip(again["rows"], facts["rows"], strict=True):
        for task in facts["columns"]:
            assert ours.get(task) == pytest.approx(theirs.get(task)), (ours["row"], task)
    assert again["agreement"].keys() == facts["agreement"].keys()
    for task, order in facts["agreement"].items():
        assert again["agreement"][task] == pytest.approx(order), task


def test_committed_scores_say_where_they_come_from() -> None:
    studies = committed(DOCS)
    assert studies
    for name, facts in studies.items():
        for result in facts["results"]:
            for task, score in result["scores"].items():
                said = f"{name}, {result['row']}, {task}"
                assert re.fullmatch("[0-9a-f]{64}", score["index_sha256"]), said
                assert score["n"] > 0, said
                random = "random weights" in result["row"]
                assert (score["checkpoint_sha256"] is None) == random, said


def test_the_pages_pictures_are_there_and_small() -> None:
    text = "".join((DOCS / name).read_text() for name in PAGES)
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert {f"evidence/{name}.png" for name in (*committed(DOCS), "verdicts")} < set(pictures)
    for picture in pictures:
        assert 1000 < (DOCS / picture).stat().st_size < 400_000, picture


def test_the_page_names_no_path_of_a_machine() -> None:
    for path in (*(DOCS / name for name in PAGES), *(DOCS / "evidence").glob("*.json")):
        assert not re.search(r"(?<![\w.])/(?:work|tmp|home|root|mnt)/", path.read_text()), path


# --- how it is written ------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path) -> EvidenceConfig:
    """A folder of studies and pages with nothing between their marks."""
    (tmp_path / "studies/table7").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for name, marks in zip(PAGES, (MARKS[:4], MARKS[4:]), strict=True):
        (tmp_path / "docs" / name).write_text(empty(marks))
    return EvidenceConfig(tmp_path / "studies", tmp_path / "docs")


def publish(places: EvidenceConfig, facts: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What is said, and what then is in the repository."""
    (places.studies / "table7/study.json").write_text(json.dumps(facts))
    return evidence(places), committed(places.docs)["table7"]


def test_studies_are_copied_and_shown(places: EvidenceConfig) -> None:
    facts = study_of({SINGLE: [50, 52, 54], MULTI: [60, 62, 65]})
    assert publish(places, facts) == (["table7: new"], facts)
    text = (places.docs / "evidence.md").read_text()
    assert "b. Seeds 0, 1, 2. " in text and "Not run: random weights (glcm); " in text
    assert "*Not run yet.*" in text
    assert "![table7: means, seeds and intervals](evidence/table7.png)" in text
    for name in ("table7.png", "verdicts.png"):
        assert (places.docs / "evidence" / name).read_bytes().startswith(b"\x89PNG")
    assert (
        f"| 2. several positive pairs beat one averaged pair on local tasks | {MULTI} |"
        in (places.docs / PAGES[1]).read_text()
    ), "the second page"
    assert "(evidence/verdicts.png)" in (places.docs / PAGES[1]).read_text()
    evidence(places)
    assert (places.docs / "evidence.md").read_text() == text, "again: the same"


def test_the_picture_is_that_of_the_run_that_the_page_names(places: EvidenceConfig) -> None:
    reds = {"glcm-0": 40, "glcm-objective_g-1": 80, "glcm-1": 120, "glcm-x4-1": 200}
    where = {run: f"planted/{run}/eval/localization-test-planted-glcm" for run in reds}
    for run, red in reds.items():
        folder = places.studies / where[run]
        folder.mkdir(parents=True)
        Image.new("RGB", (16, 16), (red, 0, 0)).save(folder / "attention-test.png")
        (folder / "attention-test.webp").write_bytes(f"{run} moving".encode())
    score = {"name": "top1", "value": 0.5, "low": 0, "high": 1}
    shown = {"localization": ("Ours", "glcm-1"), "longer": (LONG, "glcm-x4-1")}
    for name, (row, run) in shown.items():
        results = [
            Result(row, seed, {"localization": {**score, "result": of}})
            for seed, of in ((0, where["glcm-0"]), (1, where[run]))
        ]
        facts = facts_of(STUDIES[name], name, {"planted": "b."}, results)
        (places.studies / name).mkdir()
        (places.studies / name / "study.json").write_text(json.dumps(facts))
    evidence(places)
    for name, run in (("attention", "glcm-1"), ("attention-longer", "glcm-x4-1")):
        with Image.open(places.docs / f"evidence/{name}.jpg") as still:
            assert abs(np.asarray(still)[8, 8, 0] - reds[run]) < 5
        moving = places.docs / f"evidence/{name}.webp"
        assert moving.read_bytes() == f"{run} moving".encode()


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


def test_columns_that_nobody_looked_at_are_named() -> None:
    planted = study_of({MULTI: [60]})["extent"]
    others = [task for task in STUDIES["table7"].tasks_on("planted") if task != "planted_words"]
    assert planted.endswith(f" Columns not run: {', '.join(others)}.")
    assert "grid" not in planted, "a corpus that was not asked for"


def test_a_run_is_the_same_network_in_all_studies() -> None:
    """GRID's runs are in fp32 in one study and in bf16 in another."""
    networks: dict[tuple[str, bool], set[str]] = {}
    for facts in committed(DOCS).values():
        for score in (s for one in facts["results"] for s in one["scores"].values()):
            if sha256 := score["checkpoint_sha256"]:
                run = score["result"].partition("/eval/")[0]
                in_bf16 = "bf16" in facts["said"][run.partition("/")[0]]
                networks.setdefault((run, in_bf16), set()).add(sha256)
    assert networks
    assert not {run: found for run, found in networks.items() if len(found) > 1}


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


def test_rows_stand_in_the_studys_order_whichever_was_run_first(places: EvidenceConfig) -> None:
    publish(places, study_of({MULTI: [60]}))
    _, both = publish(places, study_of({SINGLE: [50]}, first_seed=1))
    assert [row["row"] for row in both["rows"]] == [SINGLE, MULTI]


def test_without_a_study_it_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make study"):
        evidence(EvidenceConfig(tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("<!-- claims -->", "", "have no `<!-- claims -->`"),
        # People's text up to the next end is not a table.
        ("<!-- claims -->\n<!-- end -->", "<!-- claims -->\nOurs.", "have no `<!-- claims -->`"),
        (
            "<!-- end -->",
            "<!-- end -->\n<!-- table5 -->\n<!-- end -->",
            "`<!-- table5 -->` 2 times",
        ),
        (None, "", "evidence-details.md cannot be read"),
    ],
)
def test_pages_that_cannot_be_filled_are_refused_before_anything_is_written(
    places: EvidenceConfig, was: str | None, becomes: str, said: str
) -> None:
    (places.studies / "table7/study.json").write_text(json.dumps(study_of({MULTI: [60]})))
    second = places.docs / PAGES[1]
    if was is None:
        second.unlink()
    else:
        second.write_text(second.read_text().replace(was, becomes, 1))
    before = {path: path.read_text() for path in places.docs.rglob("*.*")}
    with pytest.raises(UsageError, match=re.escape(said)):
        evidence(places)
    assert {path: path.read_text() for path in places.docs.rglob("*.*")} == before


def test_a_picture_of_verdicts_that_are_gone_does_not_stay(places: EvidenceConfig) -> None:
    publish(places, study_of({SINGLE: [50], MULTI: [60]}))
    picture = places.docs / "evidence/verdicts.png"
    assert picture.is_file()
    publish(replace(places, replace=True), study_of({MULTI: [60]}, settings="other."))
    assert not picture.exists() and "verdicts.png" not in (places.docs / PAGES[1]).read_text()


def test_a_picture_of_a_training_that_is_gone_does_not_stay(places: EvidenceConfig) -> None:
    facts = study_of({MULTI: [60]})
    publish(places, {**facts, "curves": {"planted/glcm-0": {"steps": [5, 15], "loss": [3, 2]}}})
    picture = places.docs / "evidence/table7-curves.png"
    assert picture.is_file()
    publish(replace(places, replace=True), study_of({MULTI: [60]}, settings="other."))
    assert not picture.exists()


# --- claims -------------------------------------------------------------------------------------


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


def test_what_the_objectives_learned_is_told_of_each_seed_and_corpus() -> None:
    rising = {"steps": [1, 2, 3, 4], "avc_accuracy": [0.4, 0.5, 0.6, 0.8]}
    falling = {"steps": [1, 2, 3, 4], "avc_accuracy": [0.5, 0.5, 0.25, 0.25]}
    curves = {"planted/avts-2": falling, "planted/avts-1": rising, "planted/avslowfast-1": {}}
    heads, rows = learned({"table5": {"curves": curves}})
    assert heads == ["objective", "finds", "by chance", "planted: at first; at last"]
    told = {(row[0], row[1]): row[2:] for row in rows}
    clip = "whether sound and pictures are of one clip"
    assert told["AVTS", clip] == ["0.50", "0.45, 0.50; 0.70, 0.25"], "means of two bins, by seed"
    assert told["AVSlowFast", clip] == ["0.50", ""], "another run's metric is not its"


def test_all_that_the_objectives_ask_for_is_in_the_committed_curves() -> None:
    heads, rows = learned(committed(DOCS))
    assert len(heads) == 5
    assert all(all(row[-2:]) for row in rows)


def test_mismatch_is_compared_where_the_rows_have_features_of_their_own() -> None:
    """The task looks at local features, so that a row of both kinds is one of the local ones."""
    assert task_named("planted_mismatch").settings.features == "l"
    looks = {row.label: row.look for row in STUDIES["table6"].all_rows}
    compared = [one for one in CLAIM_1.comparisons if "planted_mismatch" in one.tasks]
    assert compared
    assert all(looks[row].get("features") for one in compared for row in (one.better, one.worse))
