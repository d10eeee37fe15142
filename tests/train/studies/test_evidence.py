"""The pages of evidence say what the results say, and are written whole or not at all."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from tests.train.studies.published import MULTI, SINGLE, publish, study_of
from train.errors import UsageError
from train.studies.catalogue import LONG, STUDIES
from train.studies.evidence import PAGES, EvidenceConfig, committed, evidence, filled
from train.studies.table import Result, facts_of

REPOSITORY = Path(__file__).parents[3]
DOCS = REPOSITORY / "docs"


# --- the committed pages ----------------------------------------------------------------------


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


def test_the_pages_pictures_are_there_and_small() -> None:
    text = "".join((DOCS / name).read_text() for name in PAGES)
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert {f"evidence/{name}.png" for name in (*committed(DOCS), "verdicts")} < set(pictures)
    for picture in pictures:
        assert 1000 < (DOCS / picture).stat().st_size < 400_000, picture


def test_the_page_names_no_path_of_a_machine() -> None:
    for path in (*(DOCS / name for name in PAGES), *(DOCS / "evidence").glob("*.json")):
        assert not re.search(r"(?<![\w.])/(?:work|tmp|home|root|mnt)/", path.read_text()), path


# --- how they are written ---------------------------------------------------------------------


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


def test_columns_that_nobody_looked_at_are_named() -> None:
    planted = study_of({MULTI: [60]})["extent"]
    others = [task for task in STUDIES["table7"].tasks_on("planted") if task != "planted_words"]
    assert planted.endswith(f" Columns not run: {', '.join(others)}.")
    assert "grid" not in planted, "a corpus that was not asked for"


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
