"""AudioSet: comments, quoted labels after a space, milliseconds or seconds by the CSV."""

from __future__ import annotations

import json

import pytest

SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=22160, num_segs=22160, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 50.000, 60.000, "/m/012xff"
"""
CLASSES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gurgling, bubbling"\n'
KEY = "audioset/--PJHxphWEs_30000_40000"
CSVS = {"balanced_train_segments.csv": SEGMENTS, "class_labels_indices.csv": CLASSES}


def test_worked_row(tree, scan) -> None:
    path = "balanced_train_segments/video/--PJHxphWEs_30000_40000.mp4"
    rows, report = scan("audioset", tree({path: b"1", **CSVS}))
    row = rows[KEY]
    assert (row["uri"], row["end_s"], row["bytes"]) == (path, 10, 1)
    assert row["labels"] == [0, 1]
    assert row["label_names"] == ["Speech", "Gurgling, bubbling"]
    assert json.loads(row["extra"]) == {"mids": ["/m/09x0r", "/t/dd00088"]}
    assert row["splits"] == ["audioset:balanced_train"]
    assert row["group_id"] == "yt:--PJHxphWEs"
    assert row["anchored"] is False
    other = rows["audioset/--ZhevVpy1s_50000_60000"]
    assert other["uri"] == "balanced_train_segments/video/--ZhevVpy1s_50000_60000.mp4"
    assert (other["bytes"], other["labels"]) == (None, [])
    assert report.unknown_labels == {"/m/012xff": 1}


@pytest.mark.parametrize(
    "name", ["--PJHxphWEs_30_40.mp4", "--PJHxphWEs_30.000_40.000.mkv", "--PJHxphWEs_30000.mp4"]
)
def test_the_csv_decides_on_the_unit(tree, scan, name: str) -> None:
    rows, _ = scan("audioset", tree({f"video/{name}": b"1", **CSVS}))
    assert rows[KEY]["uri"] == f"video/{name}"


def test_names_from_zero_are_milliseconds_too(tree, scan) -> None:
    csv = '--4gqARaEJE, 0.000, 10.000, "/m/09x0r"\n'
    root = tree({"video/--4gqARaEJE_0_10000.mp4": b"1", "eval_segments.csv": csv})
    rows, report = scan("audioset", root)
    row = rows["audioset/--4gqARaEJE_0_10000"]
    assert (row["bytes"], row["splits"]) == (1, ["audioset:eval"])
    assert any("class_labels_indices.csv" in note for note in report.notes)


def test_cut_sounds_with_a_leading_y(tree, scan) -> None:
    rows, _ = scan("audioset", tree({"audio/Y--PJHxphWEs.wav": b"1", **CSVS}))
    row = rows[KEY]
    assert (row["start_s"], row["end_s"], row["pre_trimmed"]) == (0, 10, True)
    assert row["expect"]["video"] is False


def test_whole_videos(tree, scan) -> None:
    rows, _ = scan("audioset", tree({"video/--PJHxphWEs.mp4": b"1", **CSVS}))
    assert (rows[KEY]["start_s"], rows[KEY]["pre_trimmed"]) == (30, False)


def test_copies_in_label_folders_are_one_row(tree, scan) -> None:
    name = "--PJHxphWEs_30_40.mp4"
    root = tree({f"Speech/{name}": b"1", f"Gurgling, bubbling/{name}": b"1", **CSVS})
    rows, report = scan("audioset", root)
    assert sum(row["bytes"] is not None for row in rows.values()) == 1
    assert report.duplicate_files == 1


def test_sounds_beside_videos_are_left_out(tree, scan) -> None:
    stem = "--PJHxphWEs_30000_40000"
    places = {
        f"balanced_train_segments/video/{stem}.mp4": b"1",
        f"balanced_train_segments/audio/{stem}.flac": b"1",
    }
    rows, report = scan("audioset", tree({**places, **CSVS}))
    assert rows[KEY]["uri"].endswith(".mp4")
    assert report.ignored["sound files beside a video of the same name"] == 1


def test_splits_by_file_and_folder_names(tree, scan) -> None:
    root = tree(
        {
            "unbalanced_train_segments.csv": '--PJHxphWEs, 30.0, 40.0, "/m/09x0r"\n',
            "unbalanced_train_segments/video/--PJHxphWEs_30000_40000.mp4": b"1",
            "eval_segments/video/abcdefghijk_0_10000.mp4": b"1",
        }
    )
    rows, _ = scan("audioset", root)
    assert rows[KEY]["splits"] == ["audioset:unbalanced_train"]
    assert rows["audioset/abcdefghijk_0_10000"]["splits"] == ["audioset:eval"]
