"""DFDC preview: dataset.json names the clips, their labels, sets and actors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests import UsageError

FAKE = "method_B/1260311/1260311_C/1255229_1260311_C_001.mp4"
REAL = "original_videos/643049/643049_A_001.mp4"
FACTS: dict[str, dict[str, object]] = {
    FAKE: {
        "label": "fake",
        "set": "train",
        "augmentations": [],
        "target_id": "1260311",
        "swapped_id": "1255229",
    },
    REAL: {"label": "real", "set": "test", "augmentations": []},
}


@pytest.mark.parametrize("folder", ["", "dfdc_preview_set/"])
def test_worked_row(tree, scan, folder: str) -> None:
    root = tree(
        {
            f"{folder}dataset.json": json.dumps(FACTS),
            f"{folder}{FAKE}": b"1",
            f"{folder}{REAL}": b"1",
            f"{folder}method_A/extra.mp4": b"1",
        }
    )
    rows, report = scan("dfdcp", root)
    row = rows["dfdcp/method_B/1260311/1260311_C/1255229_1260311_C_001"]
    assert row["uri"] == f"{folder}{FAKE}"
    assert (row["labels"], row["label_names"]) == ([1], ["FAKE"])
    assert (row["splits"], row["group_id"]) == (["dfdcp:train"], "dfdcp:1260311")
    assert json.loads(row["extra"]) == {
        "method": "method_B",
        "target_id": "1260311",
        "swapped_id": "1255229",
        "augmentations": [],
    }
    real = rows["dfdcp/original_videos/643049/643049_A_001"]
    assert (real["labels"], real["splits"], real["group_id"]) == (
        [0],
        ["dfdcp:test"],
        "dfdcp:643049",
    )
    assert (real["end_s"], real["anchored"]) == (None, True)
    assert report.files_without_row == 1
    assert report.vocabulary == ["REAL", "FAKE"]


def test_missing_files_leaks_and_borrowed_faces(tree, scan) -> None:
    facts = {
        **FACTS,
        "original_videos/1260311/1260311_A_001.mp4": {"label": "real", "set": "test"},
        "method_A/99/99_A/1255229_99_A_001.mp4": {
            "label": "FAKE",
            "set": "test",
            "target_id": "99",
            "swapped_id": "1255229",
        },
        "method_A/98/x.mp4": {"label": "odd", "set": "train"},
    }
    rows, report = scan("dfdc_preview", tree({"dataset.json": json.dumps(facts), REAL: b"1"}))
    assert report.splits == {"dfdcp:test": [3, 1], "dfdcp:train": [2, 0]}
    assert report.leaks == {"dfdcp:test & dfdcp:train": 1}
    assert report.unknown_labels == {"ODD": 1}
    assert rows["dfdcp/method_A/98/x"]["labels"] == []
    assert any(note.startswith("2 actors") for note in report.notes)


@pytest.mark.parametrize("folder", ["", "set/"])
def test_dataset_json_kept_elsewhere(tree, scan, tmp_path: Path, folder: str) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(FACTS))
    root = tree([f"{folder}{REAL}", f"{folder}{FAKE}"])
    for place in (tmp_path, tmp_path / "dataset.json"):
        rows, report = scan("dfdcp", root, annotations=place)
        assert all(row["bytes"] for row in rows.values()) and len(rows) == 2
        assert report.files_without_row == 0
    with pytest.raises(UsageError, match=r"holds no dataset\.json"):
        scan("dfdcp", root, annotations=root)


@pytest.mark.parametrize(("text", "words"), [("{", "is no JSON"), ("[]", "holds no JSON object")])
def test_bad_input_is_said(tree, scan, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scan("dfdcp", tree({"dataset.json": text, REAL: b"1"}))
