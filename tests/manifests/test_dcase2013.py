"""DCASE2013 scenes: two sets with the same names, two protocols."""

from __future__ import annotations

import pytest

SETS = {"train": "scenes_stereo", "test": "scenes_stereo_testset"}


def test_worked_row_and_all_200_names(tree, scan) -> None:
    root = tree({"scenes_stereo_testset/bus01.wav": b"12", "scenes_stereo/bus01.wav": b"1"})
    rows, report = scan("dcase2013", root)
    row = rows["dcase2013/test/bus01"]
    assert (row["uri"], row["bytes"]) == ("scenes_stereo_testset/bus01.wav", 2)
    assert (row["end_s"], row["labels"], row["label_names"]) == (30, [0], ["bus"])
    assert row["splits"] == ["dcase2013:test", "dcase2013:fold1"]
    assert (row["expect"]["video"], row["expect"]["audio"]) == (False, True)
    assert rows["dcase2013/train/bus01"]["splits"] == ["dcase2013:train"]
    assert rows["dcase2013/train/tubestation10"]["uri"] == "scenes_stereo/tubestation10.wav"
    assert len(rows) == 200 and report.missing_files == 198
    assert report.splits["dcase2013:train"] == [100, 1]
    assert report.splits["dcase2013:fold5"] == [20, 0]
    assert report.leaks == {}


def test_folds_hold_two_of_every_scene(tree, scan) -> None:
    rows, _ = scan("dcase2013", tree(["scenes_stereo/bus01.wav"]))
    for n in range(1, 6):
        fold = [r["labels"][0] for r in rows.values() if f"dcase2013:fold{n}" in r["splits"]]
        assert sorted(fold) == sorted(2 * list(range(10)))


@pytest.mark.parametrize(
    ("path", "subset"),
    [
        ("scenes_stereo/scenes_stereo/busystreet10.wav", "train"),
        ("dcase/scenes_stereo_testset/busystreet10.wav", "test"),
        ("test/busystreet10.flac", "test"),
    ],
)
def test_folders(tree, scan, path: str, subset: str) -> None:
    rows, _ = scan("dcase2013", tree([path]))
    found = {key for key, row in rows.items() if row["bytes"]}
    assert found == {f"dcase2013/{subset}/busystreet10"}
    assert rows[found.pop()]["label_names"] == ["busystreet"]


def test_what_is_none(tree, scan) -> None:
    paths = ["scenes_stereo/bus11.wav", "elsewhere/bus01.wav", "scenes_stereo/plane01.wav"]
    rows, report = scan("dcase2013", tree([*paths, "scenes_stereo/park03.wav"]))
    assert sum(row["bytes"] is not None for row in rows.values()) == 1
    assert report.ignored["media files whose name is none of dcase2013"] == 3
