"""The table: means, intervals over seeds, what is said above it, the papers' order."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.studies.asked import config
from train.overview import write
from train.studies import study
from train.studies.catalogue import LONG, MULTI, SHORT, SINGLE, STUDIES
from train.studies.table import (
    Result,
    agreement,
    caption,
    facts_of,
    said as said_above,
    summary,
    table,
)


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


def test_what_auto_means_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a GPU are in bf16, which those of a CPU do not stand beside."""
    assert "bf16" not in said_above(config(tmp_path))["grid"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "networks in bf16" in said_above(config(tmp_path))["grid"]


def test_rows_of_one_longer_run_are_named_once_above_the_table() -> None:
    above = caption({"name": "longer", "said": {"planted": "Of 300 steps."}, "extent": "Seed 0."})
    assert above == f"Of 300 steps. {LONG}: 4 times the steps. Seed 0."


def test_seeds_are_said_of_each_corpus_where_they_differ() -> None:
    def of(corpus: str, task: str, *seeds: int) -> list[Result]:
        score = {"name": "top1", "value": 0.5, "low": 0.4, "high": 0.6,
                 "result": f"{corpus}/glcm-0/eval/x"}  # fmt: skip
        return [Result(MULTI, seed, {task: score}) for seed in seeds]

    def said(results: list[Result]) -> str:
        return str(facts_of(STUDIES["table7"], "table7", {}, results)["extent"])

    planted = of("planted", "planted_words", 1, 2, 5)
    assert said(planted).startswith("Seeds 1, 2, 5. Brackets")
    assert said(planted[:1]).startswith("Seed 1. Brackets")
    both = said(planted + of("grid", "grid_digits", 1, 3))
    assert both.startswith("Seeds: planted 1, 2, 5; grid 1, 3. Brackets")


def test_an_interval_is_shown_within_what_scores_can_be() -> None:
    of = {"name": "top1", "value": 0.9, "low": -0.2, "high": 1.3}
    cells = [(of, "90.0 [0.0, 100.0]"), ({**of, "higher_is_better": False}, "90.0 [0.0, 130.0]"),
             ({**of, "unit": "ratio"}, "0.900 [0.000, 1.300]")]  # fmt: skip
    for score, shown in cells:
        row = {"row": "r", "t": {**score, "seeds": 1}}
        facts = {"columns": ["t"], "rows": [row], "agreement": {}}
        assert table(facts)[1] == [["r", shown]]


def test_cells_of_fewer_seeds_are_marked() -> None:
    one = {"name": "top1", "value": 0.5, "low": 0.4, "high": 0.6}
    results = [Result(row, seed, {"planted_words": one, **({"planted_class": one} if few else {})})
               for row, seed, few in ((MULTI, 0, True), (MULTI, 1, False), (SINGLE, 0, False),
                                      (SINGLE, 1, False))]  # fmt: skip
    facts = facts_of(STUDIES["table7"], "table7", {"planted": ""}, results)
    assert table(facts)[1] == [[SINGLE, "", "50.0 [50.0, 50.0]"],
                               [MULTI, "50.0 [40.0, 60.0] ¹", "50.0 [50.0, 50.0]"]]  # fmt: skip
    assert " A raised number: a cell of so many seeds only." in facts["extent"]
    assert "intervals over seeds, or test items where a cell has one seed." in facts["extent"]
    alone = facts_of(STUDIES["table7"], "table7", {"planted": ""}, results[:1])
    assert "intervals over test items. " in alone["extent"]
    even = facts_of(STUDIES["table7"], "table7", {"planted": ""}, results[2:])
    for facts in (alone, even):
        assert "raised" not in facts["extent"], "where nothing is"
    assert table(alone)[1] == [[MULTI, *["50.0 [40.0, 60.0]"] * 2]]


def test_of_one_seed_the_interval_is_that_of_the_test_items() -> None:
    score = {"name": "top1", "value": 0.4, "low": 0.3, "high": 0.5, "n": 9}
    found = summary([score])
    assert (found["value"], found["low"], found["high"]) == (0.4, 0.3, 0.5)


def test_the_table_is_in_the_report(calls: list[Any], tmp_path: Path) -> None:
    study.study(config(tmp_path))
    page, text = write(tmp_path / "runs")
    assert "| MoCo | 50.0 [49.0, 51.0] |" in text.read_text()
    assert '<h2 id="table5">' in page.read_text()


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


def test_controls_stand_behind_their_task_in_the_catalogues_order() -> None:
    """Also those that an older result did not have."""
    score = {"name": "x", "value": 0.5, "low": 0.4, "high": 0.6}
    old = ("localization", "localization:centre", "localization:iou")
    new = ("av_retrieval", "localization:other_class", *old)
    results = [
        Result(SHORT, seed, dict.fromkeys(names, score)) for seed, names in enumerate((old, new))
    ]
    columns = facts_of(STUDIES["longer"], "longer", {}, results)["columns"]
    assert columns == ["localization", "localization:other_class", "localization:centre",
                       "localization:iou", "av_retrieval"]  # fmt: skip
