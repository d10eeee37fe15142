"""`train report` without a RUN: every result is in the page, and nothing that was not run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train import overview
from train.errors import UsageError
from train.evaluation.result import Predictions, draw_confusion

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
