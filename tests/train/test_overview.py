"""`train report` without a RUN: every result is in the page, and nothing that was not run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train import overview
from train.__main__ import report as command
from train.errors import UsageError
from train.evaluation.result import Predictions, draw_confusion
from train.studies.catalogue import STUDIES
from train.studies.table import Result, facts_of

METRIC = {"name": "top1", "value": 0.625, "low": 0.5, "high": 0.75, "n": 4,
          "higher_is_better": True, "unit": "fraction", "note": ""}  # fmt: skip


def result(task: str, **changes: Any) -> dict[str, Any]:
    return {
        "task": task, "dataset": task, "protocol": "finetune", "metric": METRIC,
        "metrics": [METRIC], "n_scored": 4, "n_expected": 4, "coverage": 1.0,
        "settings": {"clips": 1, "crops": 1, "modality": "A", "pictures": "none"},
        "rounds": [{"name": "fold1", "n": 4, "metrics": [METRIC],
                    "history": [{"epoch": 1, "loss": 2.0, "score": 0.1},
                                {"epoch": 2, "loss": 1.0, "score": 0.5}]}],
        "checkpoint": None, "model": {"method": "glcm", "preset": "tiny"},
        "shards": {"name": f"{task}-sound"}, "notes": [], **changes,
    }  # fmt: skip


def leave(runs: Path, name: str, content: dict[str, Any], predictions: Predictions) -> Path:
    folder = runs / "some-run" / "eval" / name
    (folder / "fold1").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(content))
    predictions.write(folder / "fold1" / "predictions.parquet")
    return folder


def guesses() -> Predictions:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01], [0.4, 0.6]], np.float32)
    return Predictions(
        [f"clip{i}" for i in range(4)], ["g"] * 4, [0, 1, 1, 1], scores.argmax(1).tolist(),
        ("dog", "rooster"), scores,
    )  # fmt: skip


def test_results_stand_in_the_page_and_beside_the_papers(tmp_path: Path) -> None:
    folder = leave(tmp_path, "esc50", result("esc50"), guesses())
    assert draw_confusion(folder / "confusion.png", [guesses()])
    (folder / "attention-val.webp").write_bytes(b"moving")
    for fold in (1, 2):
        (folder / f"mistakes-fold{fold}.jpg").write_bytes(f"wrong {fold}".encode())
    page, text = overview.write(tmp_path)
    html = page.read_text()
    assert "62.5 [50.0, 75.0]" in html
    # The curve, the confusions, what moves, and the first round's mistakes.
    assert html.count("data:image/") == 4
    assert "data:image/jpeg;base64,d3JvbmcgMQ==" in html
    assert "data:image/webp;base64,bW92aW5n" in html
    assert "clip2" in html and "rooster" in html
    assert "clip0" not in html  # no mistake
    assert "<h2>Ma et al." in html
    lines = text.read_text().splitlines()
    ours = [line for line in lines if line.startswith("| **GLAV scratch tiny")]
    assert ours
    assert all("62.5 [50.0, 75.0]" in line for line in ours)


def test_what_was_read_is_shown_beside_what_was_said(tmp_path: Path) -> None:
    read = Predictions(["a", "b"], ["g", "g"], ["BIN BLUE", "LAY RED"], ["BIN BLUE", "LAY BED"], ())
    leave(tmp_path, "grid_sentences", result("grid_sentences"), read)
    html = overview.write(tmp_path)[0].read_text()
    assert "LAY RED" in html
    assert "LAY BED" in html


def test_names_are_text_and_not_html(tmp_path: Path) -> None:
    evil = guesses()
    evil.names[2] = "<script>alert(1)</script>"
    leave(tmp_path, "esc50", result("esc50"), evil)
    assert "<script>" not in overview.write(tmp_path)[0].read_text()


def test_without_results_cells_are_empty(tmp_path: Path) -> None:
    page, text = overview.write(tmp_path)
    assert "No evaluation has been run yet" in page.read_text()
    assert "GLAV: not run" in text.read_text()


def test_no_runs_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*make eval TASK"):
        overview.write(tmp_path / "runs")


def test_a_result_that_is_none_is_named(tmp_path: Path) -> None:
    folder = leave(tmp_path, "esc50", result("esc50"), guesses())
    (folder / "result.json").write_text("{}")
    with pytest.raises(UsageError, match=r"esc50/result.json is no result of `train eval`"):
        overview.write(tmp_path)


def test_what_a_study_shows_is_in_its_own_page(tmp_path: Path) -> None:
    alone = leave(tmp_path, "esc50", result("esc50"), guesses())
    shown = leave(tmp_path / "studies/planted", "words", result("planted_words"), guesses())
    (shown / "mistakes-fold1.jpg").write_bytes(b"wrong")
    (shown / "attention-val.webp").write_bytes(b"moving")
    other = leave(tmp_path / "studies/planted", "words-2", result("planted_words"), guesses())
    score = {**METRIC, "n": 4}
    results = [
        Result(
            "crop",
            seed,
            {"planted_words": {**score, "result": str(folder.relative_to(tmp_path / "studies"))}},
        )
        for seed, folder in ((1, shown), (2, other))
    ]
    curves = {"planted/glcm-1": {"steps": [5.0, 15.0], "loss": [3.0, 2.0]}}
    facts = facts_of(STUDIES["table8"], "table8", {"planted": "s."}, results, curves)
    study = tmp_path / "studies/table8"
    study.mkdir()
    (study / "study.json").write_text(json.dumps(facts))
    leave(tmp_path / "studies/planted", "of-another-day", result("planted_words"), guesses())
    page, text = overview.write(tmp_path)
    assert "The 3 evaluations of studies are not listed here" in page.read_text()
    assert "of-another-day" not in page.read_text()
    assert f'id="{"-".join(alone.parts[-3:])}"' in page.read_text()
    assert 'href="studies/table8/study.html"' in page.read_text()
    assert f'id="{"-".join(shown.parts[-3:])}"' not in page.read_text()
    assert "\n| planted_words |" not in text.read_text(), "but its table is there"
    assert "| crop | 62.5 [62.5, 62.5] |" in text.read_text()
    html = (study / "study.html").read_text()
    for data in ("d3Jvbmc=", "bW92aW5n"):
        assert html.count(data) == 1, "of the first seed alone"
    assert html.count("data:image/png") == 2, "the figure and the curves"
    link = f"../{shown.relative_to(tmp_path / 'studies')}/result.json"
    assert f'href="{link}"' in html
    assert (study / link).is_file()
    assert "words-2" in html
    assert "attention pooling beats whole frames" in html, "the claim that it tests"
    assert "several positive pairs" not in html
    (study / "study.html").unlink()
    assert command([str(study)]) == 0, "of a study alone, by the command of runs"
    assert (study / "study.html").read_text() == html
    with pytest.raises(UsageError, match=r"is no run.*It holds studies, .* own: table8"):
        command([str(tmp_path / "studies")])
    (study / "study.json").write_text(json.dumps({**facts, "name": "table4"}))
    with pytest.raises(UsageError, match=r"of the study 'table4'; known: table5, .*Remove"):
        command([str(study)])
    with pytest.raises(UsageError, match=r"is a study: .* one at a time and without --out"):
        command([str(study), "--out", str(tmp_path / "x.html")])
    (study / "study.json").write_text("{")
    with pytest.raises(UsageError, match=r"study.json cannot be read \(.*writes it anew"):
        command([str(study)])
