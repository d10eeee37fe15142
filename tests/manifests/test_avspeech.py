"""AVSpeech: names with dots, several segments a video, faces; the worked row of datasets.md §15."""

from __future__ import annotations

import pytest

from manifests import UsageError

CSV = "u5MPyrRJPmc,12.345000,18.900000,0.41,0.33\nu5MPyrRJPmc,30.0,35.5,0.5,0.25\n"
FIRST = "avspeech/u5MPyrRJPmc_0012345-0018900"
SECOND = "avspeech/u5MPyrRJPmc_0030000-0035500"


def test_worked_row(tree, scan) -> None:
    root = tree({"train/u5MPyrRJPmc_012.345000-018.900000.mp4": b"1", "avspeech_train.csv": CSV})
    rows, report = scan("avspeech", root)
    row = rows[FIRST]
    assert row["uri"] == "train/u5MPyrRJPmc_012.345000-018.900000.mp4"
    assert (row["start_s"], row["end_s"], row["pre_trimmed"]) == (0, 6.555, True)
    assert row["face_xy"] == pytest.approx([0.41, 0.33])
    assert row["splits"] == ["avspeech:train"]
    assert row["group_id"] == "yt:u5MPyrRJPmc"
    assert (row["anchored"], row["labels"]) == (False, [])
    missing = rows[SECOND]
    assert missing["bytes"] is None
    assert missing["uri"] == "train/u5MPyrRJPmc_030.000000-035.500000.mp4"
    assert missing["group_id"] == row["group_id"]
    assert report.missing_files == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("u5MPyrRJPmc_012.345000-018.900000", "u5MPyrRJPmc_030.000000-035.500000"),
        ("u5MPyrRJPmc_12.35_18.90", "u5MPyrRJPmc_30.0_35.5"),
        ("u5MPyrRJPmc_12_18", "u5MPyrRJPmc_30_35.5"),
        ("u5MPyrRJPmc_12345_18900", "u5MPyrRJPmc_30000_35500"),
        ("u5MPyrRJPmc_0", "u5MPyrRJPmc_1"),
        ("u5MPyrRJPmc_1", "u5MPyrRJPmc_2"),
        ("clip_0000_u5MPyrRJPmc", "clip_0001_u5MPyrRJPmc"),
    ],
)
def test_ways_of_naming(tree, scan, first: str, second: str) -> None:
    root = tree({f"{first}.mp4": b"1", f"{second}.mp4": b"1", "avspeech_train.csv": CSV})
    rows, report = scan("avspeech", root)
    assert rows[FIRST]["uri"] == f"{first}.mp4"
    assert rows[SECOND]["uri"] == f"{second}.mp4"
    assert report.files_without_row == 0


def test_whole_videos_serve_all_their_segments(tree, scan) -> None:
    root = tree({"u5MPyrRJPmc.mp4": b"1", "avspeech_test.csv": CSV})
    rows, report = scan("avspeech", root)
    assert (rows[FIRST]["start_s"], rows[FIRST]["end_s"]) == (12.345, 18.9)
    assert not rows[SECOND]["pre_trimmed"]
    assert {r["source_id"] for r in rows.values()} == {"yt:u5MPyrRJPmc"}
    assert {tuple(r["splits"]) for r in rows.values()} == {("avspeech:test",)}
    assert any("whole videos" in note for note in report.notes)


def test_ids_with_dashes_and_underscores(tree, scan) -> None:
    csv = "--9O4XZOge4,1,5,0.5,0.5\r\n_a_b-c_d-e_,2,6,0.5,0.5\r\n"
    names = ["--9O4XZOge4_001.000000-005.000000.mp4", "_a_b-c_d-e__002.000000-006.000000.mp4"]
    root = tree({**dict.fromkeys((f"train/{n}" for n in names), b"1"), "avspeech_train.csv": csv})
    rows, _ = scan("avspeech", root)
    assert set(rows) == {
        "avspeech/--9O4XZOge4_0001000-0005000",
        "avspeech/_a_b-c_d-e__0002000-0006000",
    }
    assert all(row["bytes"] == 1 for row in rows.values())


def test_files_alone_are_rows_without_face(tree, scan) -> None:
    root = tree(["test/u5MPyrRJPmc_012.345000-018.900000.mp4", "test/readme.mp4"])
    rows, report = scan("avspeech", root)
    assert rows[FIRST]["splits"] == ["avspeech:test"]
    assert rows[FIRST]["face_xy"] is None
    assert report.kept_without_row == 1


def test_points_outside_the_picture_are_no_points(tree, scan) -> None:
    root = tree({"avspeech_train.csv": "u5MPyrRJPmc,1,5,-1,0.5\n", "u5MPyrRJPmc_1_5.mp4": b"1"})
    rows, report = scan("avspeech", root)
    assert rows["avspeech/u5MPyrRJPmc_0001000-0005000"]["face_xy"] is None
    assert "1 rows have a point outside of 0..1" in report.notes[-1]


@pytest.mark.parametrize("start", ["later", "nan", "inf"])
def test_a_broken_row_is_named(tree, scan, start: str) -> None:
    root = tree({"avspeech_train.csv": CSV + f"u5MPyrRJPmc,{start},5\n", "u5MPyrRJPmc.mp4": b"1"})
    with pytest.raises(UsageError, match="row 3"):
        scan("avspeech", root)
