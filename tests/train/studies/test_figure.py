"""What the figures of studies show is what their results say."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import stats

from train.studies.catalogue import STUDIES
from train.studies.figure import draw
from train.studies.table import Result, facts_of

WORDS = {"name": "top1", "unit": "fraction", "higher_is_better": True, "low": 0.1, "high": 0.9}
MULTI, SINGLE = "No pooling & multiple pos. pairs", "Avg pooling & single pos. pair"


def facts(study: str, values: dict[str, list[float]], task: str = "planted_words") -> Any:
    results = [
        Result(row, seed, {task: {**WORDS, "value": value}})
        for row, each in values.items()
        for seed, value in enumerate(each)
    ]
    return facts_of(STUDIES[study], study, {"planted": "s."}, results)


def lines(axes: Any) -> Any:
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
            for line in axes.get_lines()]  # fmt: skip


def test_a_row_shows_its_mean_its_interval_and_its_seeds() -> None:
    values = [0.5, 0.6, 0.55]
    (axes,) = draw(facts("table7", {SINGLE: [0.2], MULTI: values})).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [SINGLE, MULTI]
    alone, ends, none, mean, interval, seeds = lines(axes)
    assert (alone, none) == (([20.0], [0.0]), ([], []))
    assert ends[0] == pytest.approx([10, 90]), "of one seed over test items"
    assert mean == (pytest.approx([55.0]), [1.0])
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert interval[0] == pytest.approx(100 * np.array(expected))
    assert seeds == (pytest.approx([50, 60, 55]), [1.0] * 3)


def test_each_task_has_a_panel_and_rows_stay_in_line() -> None:
    of_words = facts("table7", {SINGLE: [0.2], MULTI: [0.3]})
    of_words["results"][1]["scores"]["grid_digits"] = {**WORDS, "value": 0.7}
    results = [Result(one["row"], one["seed"], one["scores"]) for one in of_words["results"]]
    both = facts_of(STUDIES["table7"], "table7", {"planted": "s.", "grid": "t."}, results)
    words, digits = draw(both).axes
    assert (words.get_title(), digits.get_title()) == ("planted_words", "grid_digits")
    assert lines(digits)[0] == ([70.0], [1.0]), "beside its row, not the first"


def test_panels_stand_below_each_other_where_they_are_many() -> None:
    tasks = ("planted_class", "planted_words", "planted_sentences", "av_retrieval",
             "av_retrieval:class_auc:global", "grid_digits")  # fmt: skip
    results = [Result(SINGLE, 0, {task: {**WORDS, "value": 0.2} for task in tasks})]
    figure = draw(facts_of(STUDIES["table7"], "table7", {"planted": "s."}, results))
    assert [axes.get_title() for axes in figure.axes] == list(tasks), "no empty ones"
    names = [[text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes]
    assert names == [[SINGLE], [""], [""], [""], [SINGLE], [""]]


def test_an_error_rate_above_one_is_inside_its_panel() -> None:
    drawn = facts("table7", {SINGLE: [1.3]}, "planted_sentences")
    for score in (*drawn["rows"][0].values(), *drawn["results"][0]["scores"].values()):
        if isinstance(score, dict):
            score["higher_is_better"] = False
    (axes,) = draw(drawn).axes
    low, high = axes.get_xlim()
    assert low == 0 and high > 130
    assert axes.get_xlabel() == "% (lower is better)"


def test_controls_that_all_rows_share_are_lines_and_others_crosses_in_their_rows() -> None:
    rows = (("Ours", 0.8, 0.9), ("Ours, L_g only", 0.1, 0.2))
    results = [
        Result(row, 0, {"localization": {**WORDS, "value": value},
                        "localization:centre": {**WORDS, "value": 0.12},
                        "localization:foreign_sound": {**WORDS, "value": foreign},
                        "localization:iou:centre": {**WORDS, "value": 0.3}})
        for row, value, foreign in rows
    ]  # fmt: skip
    study = STUDIES["localization"]
    drawn = facts_of(study, "localization", {"planted": "s."}, results)
    (axes,) = draw(drawn).axes
    (control,) = [line for line in axes.get_lines() if line.get_label().startswith("centre")]
    assert list(control.get_xdata()) == [pytest.approx(12)] * 2
    (crosses,) = [line for line in axes.get_lines() if line.get_label() == "foreign sound"]
    places = {row["row"]: place for place, row in enumerate(drawn["rows"])}
    drawn_at = dict(zip(crosses.get_ydata(), crosses.get_xdata(), strict=True))
    assert drawn_at == pytest.approx({places["Ours"]: 90, places["Ours, L_g only"]: 20})
    texts = {text.get_text() for text in axes.get_legend().get_texts()}
    assert texts == {"centre 12.0", "foreign sound"}


def test_a_control_that_one_row_of_two_has_is_a_cross_in_that_row() -> None:
    results = [Result("Ours", 0, {"localization": {**WORDS, "value": 0.8},
                                  "localization:centre": {**WORDS, "value": 0.12}}),
               Result("Ours, L_g only", 0, {"localization": {**WORDS, "value": 0.1}})]  # fmt: skip
    drawn = draw(facts_of(STUDIES["localization"], "localization", {"planted": "s."}, results))
    (cross,) = [line for line in drawn.axes[0].get_lines() if line.get_label() == "centre"]
    assert list(cross.get_xdata()) == [pytest.approx(12)]


def test_controls_of_one_panel_are_told_apart() -> None:
    """All that there are: the map has four."""
    constant = {"localization:centre": 0.12, "localization:chance": 0.11}
    results = [
        Result(row, 0, {"localization": {**WORDS, "value": value},
                        "localization:foreign_sound": {**WORDS, "value": value - 0.1},
                        "localization:other_class": {**WORDS, "value": value - 0.2},
                        **{name: {**WORDS, "value": of} for name, of in constant.items()}})
        for row, value in (("Ours", 0.8), ("Ours, L_g only", 0.4))
    ]  # fmt: skip
    drawn = draw(facts_of(STUDIES["localization"], "localization", {"planted": "s."}, results))
    named = [line for line in drawn.axes[0].get_lines() if not line.get_label().startswith("_")]
    looks = {line.get_label(): (line.get_marker(), line.get_linestyle()) for line in named}
    assert looks.keys() == {"foreign sound", "other class", "centre 12.0", "chance 11.0"}
    assert len(set(looks.values())) == 4


def test_what_is_no_share_has_its_own_axis() -> None:
    one = facts("table7", {SINGLE: [1.5]})
    for score in (one["rows"][0]["planted_words"], one["results"][0]["scores"]["planted_words"]):
        score["unit"] = "ratio"
    (axes,) = draw(one).axes
    assert lines(axes)[0][0] == [1.5]
    assert axes.get_xlabel() == ""


def test_few_labels_are_curves_dashed_of_random_weights() -> None:
    values = {"crop, 1 label a class": [0.1], "crop, 20": [0.5], "crop, all": [0.8],
              "crop, 5, random weights": [0.05], "attention, all": [0.4]}  # fmt: skip
    (axes,) = draw(facts("labels", values)).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "5", "20", "all"]
    found: dict[str, Any] = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()), line.get_ls())
        for line in axes.get_lines()
    }
    expected: dict[str, Any] = {
        "crop": ([0, 2, 3], pytest.approx([10, 50, 80]), "-"),
        "crop, random": ([1], pytest.approx([5]), "--"),
        "attention": ([3], pytest.approx([40]), "-"),
    }
    assert found == expected


def test_the_legend_of_few_labels_has_what_any_panel_shows() -> None:
    results = [Result("crop, 5", 0, {"planted_words": {**WORDS, "value": 0.8}}),
               Result("face, 5", 0, {"grid_digits": {**WORDS, "value": 0.3}})]  # fmt: skip
    (legend,) = draw(facts_of(STUDIES["labels"], "labels", {"planted": "s."}, results)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["crop", "face"]


def test_rows_of_one_seed_leave_room_for_the_panels() -> None:
    """Matplotlib warns where it has none."""
    several, one = (
        facts("table7", {MULTI: [1.0, 0.9]}),
        facts("table7", {MULTI: [1.0]}, "grid_digits"),
    )
    both = [Result(**result) for result in several["results"] + one["results"]]
    figure = draw(facts_of(STUDIES["table7"], "table7", {"planted": "s.", "grid": "s."}, both))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO())
