"""`folder`: every file is a row, the first sub-folder the label."""

from __future__ import annotations

import os
from pathlib import Path


def test_rows_labels_and_what_is_none(tree, scan) -> None:
    root = tree(
        {
            *("cats/tom.mp4", "cats/deep/er/tom.mp4", "dogs/rex 1.avi", "loose.mkv", "notes.md"),
            *("cats/tom.txt", "list.csv", "a.json", "a.align", "._tom.mp4", ".DS_Store", "b.part"),
        }
    )
    rows, report = scan("folder", root)
    assert {key: row["uri"] for key, row in rows.items() if "rex" not in key} == {
        "cats/tom_mp4": "cats/tom.mp4",
        "cats/deep/er/tom_mp4": "cats/deep/er/tom.mp4",
        "loose_mkv": "loose.mkv",
        "notes_md": "notes.md",
    }
    assert len(rows) == 5
    assert report.vocabulary == ["cats", "dogs"]
    assert rows["cats/tom_mp4"]["labels"] == [0]
    assert rows["loose_mkv"]["labels"] == []
    row = rows["cats/tom_mp4"]
    assert (row["anchored"], row["splits"], row["end_s"], row["bytes"]) == (False, [], None, 4)
    assert report.ignored.total() == 7


def test_odd_files_are_rows_for_the_pipeline_to_refuse(tree, scan, tmp_path: Path) -> None:
    root = tree({"a.mp4": b""})
    (tmp_path / "secret").write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "pipe.mp4")
    with open(os.fsencode(root) + b"/\xff.mp4", "wb"):
        pass
    rows, _ = scan("folder", root)
    assert {row["uri"] for row in rows.values()} == {
        "a.mp4",
        "link.mp4",
        "pipe.mp4",
        "bytes:%FF.mp4",
    }


def test_two_names_with_one_slug_stay_two_rows(tree, scan) -> None:
    rows, _ = scan("folder", tree(["a.mp4", "a_mp4"]))
    assert len(rows) == 2
