"""The picture of all verdicts has a box for each comparison that was run, in the right colour."""

from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from train.studies.catalogue import STUDIES
from train.studies.claims import judged
from train.studies.table import Result, facts_of
from train.studies.verdicts import FAINT, OF_VERDICT, draw

MULTI, SINGLE = "No pooling & multiple pos. pairs", "Avg pooling & single pos. pair"


def studies_of(better: list[float], worse: list[float]) -> dict[str, dict[str, Any]]:
    """Table 7 with two rows on one task, a value in percent a seed."""
    score = {"name": "top1", "unit": "fraction", "higher_is_better": True, "low": 0, "high": 1}
    results = [
        Result(row, seed, {"planted_words": {**score, "value": value / 100}})
        for row, values in ((MULTI, better), (SINGLE, worse))
        for seed, value in enumerate(values)
    ]
    return {"table7": facts_of(STUDIES["table7"], "table7", {"planted": "s."}, results)}


@pytest.mark.parametrize(
    ("better", "worse", "verdict", "said"),
    [
        ([60, 61, 62], [50, 51.5, 52], "held", "+10"),
        ([50, 51.5, 52], [60, 61, 62], "did not hold", "-10"),
        ([60, 50, 62], [50, 61, 52.4], "undecided", "+3"),
        ([60], [50], "undecided", "(+10)"),
        ([60, 61, 62], [60.4, 60.6, 62.1], "undecided", "0"),
    ],
)
def test_a_box_has_the_colour_and_the_difference_of_its_comparison(
    better: list[float], worse: list[float], verdict: str, said: str
) -> None:
    (axes,) = draw(studies_of(better, worse)).axes
    (box,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert to_hex(box.get_facecolor()) == OF_VERDICT[verdict].lower()
    assert [text.get_text() for text in axes.texts] == [said]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["planted_words"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"2.  {MULTI}  >  {SINGLE}"]


def test_a_verdict_that_does_not_stand_beside_others_is_faint_and_starred() -> None:
    studies = studies_of([60, 61, 62, 61], [59, 58.5, 61, 60.2])
    alone = draw(studies).axes[0]
    assert alone.patches[0].get_alpha() == 1 and alone.texts[0].get_text() == "+1"
    # Beside many that are undecided its p is no longer small enough.
    for task in ("planted_words@20", "grid_digits", "grid_letters", "planted_sentences"):
        for one in studies["table7"]["results"]:
            score = one["scores"]["planted_words"]
            one["scores"][task] = {**score, "value": one["seed"] % 2 / 10}
        studies["table7"]["columns"].append(task)
    among = draw(studies).axes[0]
    assert among.patches[0].get_alpha() == FAINT and among.texts[0].get_text() == "+1*"


def test_every_comparison_that_was_run_has_a_box() -> None:
    from train.studies.evidence import committed

    known = [one for one in judged(committed()) if one.finding.difference is not None]
    assert len(draw(committed()).axes[0].patches) == len(known) > 100
    assert draw({}) is None
