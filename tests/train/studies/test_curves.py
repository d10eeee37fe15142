"""Training curves of studies: what runs measured, thinned, and drawn as means with intervals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from train.studies.catalogue import LONG, SHORT, STUDIES
from train.studies.curves import BINS, draw as drawn, of_run


def leave(folder: Path, steps: int, **named: Any) -> Path:
    """A run's metrics.jsonl: of each name a number a step."""
    folder.mkdir()
    lines = [{"step": i + 1, **{name: float(of(i + 1)) for name, of in named.items()}}
             for i in range(steps)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_is_thinned_to_the_means_of_equal_parts(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", 300, loss=lambda i: 2 * i, a2v_r1=lambda i: i % 2,
                   lr=lambda i: 1, pos_g=lambda i: 1)  # fmt: skip
    found = of_run(folder)
    assert set(found) == {"steps", "loss", "a2v_r1"}, "losses and shares alone"
    assert found["steps"] == pytest.approx([10 * part + 5.5 for part in range(BINS)])
    assert found["loss"] == pytest.approx([20 * part + 11 for part in range(BINS)])
    assert found["a2v_r1"] == [0.5] * BINS


def test_a_short_run_keeps_each_step_and_one_without_steps_nothing(tmp_path: Path) -> None:
    assert of_run(leave(tmp_path / "run", 3, loss=lambda i: i))["loss"] == [1, 2, 3]
    assert of_run(tmp_path) == {}


def draw(study: str, found: Any) -> Any:
    """The figure, typed as what it is at run time."""
    return drawn(STUDIES[study], found)


def curves(**values: Any) -> dict[str, dict[str, list[float]]]:
    return {
        f"planted/{row}-{seed}": {"steps": [5.0, 15.0], "loss": each, "loss_l": each}
        for row, seeds in values.items()
        for seed, each in enumerate(seeds)
    }


def lines(axes: Any) -> list[list[float]]:
    return [
        list(map(float, line.get_ydata())) for line in axes.get_lines() if len(line.get_xdata())
    ]


def test_seeds_their_mean_and_its_interval_are_drawn() -> None:
    seeds = [[3.0, 2.0], [3.2, 2.6], [3.4, 2.3]]
    figure = draw("table7", curves(glcm=seeds, **{"glcm-multi_pair_avg_single": [[4, 4]]}))
    (axes,) = figure.axes
    assert "L_l" in axes.get_title(), "the sum of both losses says less"
    single, single_mean, *several, mean = lines(axes)
    assert single == single_mean == [4, 4]
    assert several == seeds
    assert mean == pytest.approx([3.2, 2.3])
    (band,) = axes.collections  # none of a single seed
    ends = stats.t.interval(0.95, 2, np.mean(seeds, 0), stats.sem(seeds))
    drawn = band.get_paths()[0].vertices
    for x, low, high in zip((5, 15), *ends, strict=True):
        assert (
            drawn[drawn[:, 0] == x, 1].min(),
            drawn[drawn[:, 0] == x, 1].max(),
        ) == pytest.approx((low, high))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "Avg pooling & single pos. pair", "No pooling & multiple pos. pairs"]  # fmt: skip


def test_rows_that_share_a_run_are_one_line() -> None:
    (axes,) = draw("table8", curves(glcm=[[3.0, 2.0]])).axes
    assert lines(axes) == [[3, 2], [3, 2]]


@pytest.mark.parametrize(
    ("study", "others", "named"),
    [("longer", "glcm-x4", [SHORT, LONG]),
     ("table6", "glcm-objective_l",
      ["c: both encoders, L_l, z_l", "f: both encoders, both, both"])],
)  # fmt: skip
def test_a_line_is_called_as_the_row_that_is_about_the_run(
    study: str, others: str, named: list[str]
) -> None:
    """Not as one of those that look at it otherwise."""
    figure = draw(study, curves(glcm=[[3.0, 2.0]], **{others: [[2.0, 1.0]]}))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == named


def test_methods_whose_losses_differ_have_a_panel_each() -> None:
    drawn = draw("table5", curves(moco=[[5, 4]], glcm=[[7, 6]]))
    shown = [axes for axes in drawn.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["MoCo, its loss", "Ours, its loss"]
    assert [lines(axes)[0] for axes in shown] == [[5, 4], [7, 6]]


def test_seeds_of_other_lengths_meet_in_what_they_share() -> None:
    found = curves(glcm=[[3.0, 2.0], [5.0, 4.0]])
    found["planted/glcm-1"] = {"steps": [5.0], "loss_l": [5.0]}
    (axes,) = draw("table8", found).axes
    assert lines(axes)[-1] == [4.0]


def test_without_curves_there_is_no_picture() -> None:
    assert draw("table7", {}) is None
    assert draw("table7", {"planted/moco-0": {"steps": [1.0], "loss": [1.0]}}) is None


def test_a_run_named_like_another_with_a_switch_is_not_taken_for_it() -> None:
    found = curves(**{"glcm-multi_pair_avg_single": [[4, 4]]})
    (axes,) = draw("table7", found).axes
    assert lines(axes) == [[4, 4], [4, 4]]
    assert draw("table8", found) is None


def test_of_several_corpora_each_panel_names_its_own() -> None:
    found = curves(glcm=[[3.0, 2.0]])
    found["grid/glcm-0"] = {"steps": [5.0, 15.0], "loss_l": [7.0, 6.0]}
    first, second = draw("table8", found).axes
    assert (first.get_title()[-10:], second.get_title()[-7:]) == (" (planted)", " (grid)")
    assert lines(second)[-1] == [7, 6]


def test_each_corpus_begins_a_line_and_the_legend_takes_a_free_cell() -> None:
    one = {"steps": [5.0], "loss_l": [3.0], "a2v_r1_l": [0.1], "a2v_r1_sync": [0.1],
           "loss_g": [3.0]}  # fmt: skip
    found = {f"{corpus}/{run}-0": one for corpus in ("grid", "planted")
             for run in ("glcm", "glcm-multi_pair_avg_single")}  # fmt: skip
    figure = draw("table7", found)
    assert [axes.get_title().rpartition(" (")[2] for axes in figure.axes] == [
        *["planted)"] * 4, "", "", *["grid)"] * 4, "", ""
    ]  # fmt: skip
    assert not figure.legends
    named = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert named == ["Avg pooling & single pos. pair", "No pooling & multiple pos. pairs"]


def test_what_l_l_alone_says_of_global_embeddings_is_not_drawn() -> None:
    one = {"steps": [5.0, 15.0], "loss_l": [3.0, 2.0], "loss_g": [4.0, 5.0], "a2v_r1": [0.1, 0.1]}
    figure = draw("table6", {"planted/glcm-0": one, "planted/glcm-objective_l-0": one})
    drawn = {axes.get_title(): len(lines(axes)) for axes in figure.axes if axes.get_title()}
    assert drawn == {
        "L_l, the local term": 4,
        "L_g, the global term": 2,
        "R@1 in the batch: sound finds its clip's picture": 2,
    }
