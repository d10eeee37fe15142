"""The picture of all verdicts has a box for each comparison that was run, in the right colour."""

from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from train.studies.catalogue import MULTI, SINGLE, STUDIES
from train.studies.claims import judged
from train.studies.evidence import committed
from train.studies.table import Result, facts_of
from train.studies.verdicts import FAINT, OF_VERDICT, _shared_ending, draw


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
    ("labels", "ending"),
    [
        (("attention, z_l", "full frame, z_l", "crop, z_l"), ", z_l"),
        (("attention, long, z_l", "crop, long, z_l"), ", long, z_l"),
        (("f, both, both", "c, L_l, z_l"), ""),
        (("a, both, z_g", "b, both, z_l"), ""),
        (("M = 3", "M = 7"), ""),
    ],
)
def test_what_labels_share_is_their_ending(labels: tuple[str, ...], ending: str) -> None:
    """Not what stands before a part in which they differ."""
    assert _shared_ending(*labels) == ending


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
    known = [one for one in judged(committed()) if one.finding.difference is not None]
    boxes = draw(committed()).axes[0].patches
    assert len({box.get_xy() for box in boxes}) == len(boxes) == len(known) > 100
    assert draw({}) is None


def test_boxes_stand_in_their_comparisons_row_and_their_tasks_column_those_of_grid_last() -> None:
    studies = studies_of([60, 61, 62], [50, 51.5, 52])
    facts = studies["table7"]
    for added, row in ((20, f"{MULTI}, z_l"), (0, f"{SINGLE}, z_l")):
        facts["results"] += [
            {**one, "row": row, "scores": {"planted_words": {**score, "value": added / 100}}}
            for one in facts["results"]
            if one["row"] == SINGLE
            for score in one["scores"].values()
        ]
    for one in facts["results"]:
        score = one["scores"]["planted_words"]
        gain = 0.3 * (one["row"] == MULTI)
        one["scores"]["grid_digits"] = {**score, "value": gain}
        one["scores"]["av_retrieval"] = {**score, "value": 2 * gain}
    facts["columns"] += ["grid_digits", "av_retrieval"]
    (axes,) = draw(studies).axes
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert columns == ["planted_words", "av_retrieval", "grid_digits"]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == [f"2.  {MULTI}  >  {SINGLE}", f"2.  {MULTI}  >  {SINGLE}  (both: z_l)"]
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said == {(0, 0): "+10", (1, 0): "+60", (2, 0): "+30", (0, 1): "+20", (2, 1): "0"}
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is above"
    centres = {tuple(box.get_center()) for box in axes.patches}
    assert centres == said.keys(), "each number in its box"


def test_a_line_stands_between_two_claims_and_the_legend_has_the_boxes_colours() -> None:
    figure = draw(committed())
    (axes,) = figure.axes
    claims = [label.get_text().partition(".")[0] for label in axes.get_yticklabels()]
    between = [
        place + 0.5 for place in range(len(claims) - 1) if claims[place] != claims[place + 1]
    ]
    assert [line.get_ydata()[0] for line in axes.get_lines()] == between
    (legend,) = figure.legends
    for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True):
        said = text.get_text()
        (verdict,) = (one for one in OF_VERDICT if said.startswith(one))
        assert to_hex(patch.get_facecolor()) == OF_VERDICT[verdict].lower()
        assert patch.get_alpha() == (FAINT if "*" in said else 1)
