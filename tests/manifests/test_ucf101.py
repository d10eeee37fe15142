"""UCF101: the lists with Windows line ends, the odd class, splits by group, the real clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import UsageError
from manifests.ucf101 import CLASSES, UCF101

MEDIA = Path(__file__).parents[2].parent / "shared/media/ucf101-sonho4ng"
EYES = "ApplyEyeMakeup/v_ApplyEyeMakeup"
LISTS = {
    "ucfTrainTestlist/trainlist01.txt": (
        f"{EYES}_g08_c01.avi 1\r\nDiving/v_Diving_g08_c02.avi 26\r\n"
    ),
    "ucfTrainTestlist/testlist01.txt": f"{EYES}_g01_c01.avi\r\n",
    "ucfTrainTestlist/trainlist02.txt": f"{EYES}_g01_c01.avi 1\r\n",
    "ucfTrainTestlist/testlist02.txt": f"{EYES}_g08_c01.avi\r\nDiving/v_Diving_g08_c02.avi\r\n",
    "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n",
}


def test_worked_row(tree, scan) -> None:
    clip = f"UCF-101/{EYES}_g01_c01.avi"
    rows, report = scan("ucf101", tree({clip: b"1234", **LISTS}))
    row = rows["ucf101/v_ApplyEyeMakeup_g01_c01"]
    assert (row["uri"], row["bytes"]) == (clip, 4)
    assert (row["labels"], row["label_names"]) == ([0], ["ApplyEyeMakeup"])
    assert sorted(row["splits"]) == ["ucf101:test1", "ucf101:train2"]
    assert row["group_id"] == "ucf:ApplyEyeMakeup/g01"
    assert row["expect"]["audio"] is None and row["expect"]["video"] is True
    assert (row["start_s"], row["end_s"], row["anchored"]) == (0, None, True)
    missing = rows["ucf101/v_Diving_g08_c02"]
    assert missing["uri"] == "UCF-101/Diving/v_Diving_g08_c02.avi"
    assert (missing["bytes"], missing["labels"]) == (None, [25])
    assert report.splits["ucf101:test2"] == [2, 0]
    assert report.leaks == {}
    assert len(report.annotations) == 4


def test_a_group_in_train_and_test_of_one_split_leaks(tree, scan) -> None:
    lists = {
        "trainlist01.txt": f"{EYES}_g01_c02.avi 1\n",
        "testlist01.txt": f"{EYES}_g01_c01.avi\n",
    }
    rows, report = scan("ucf101", tree({f"{EYES}_g01_c01.avi": b"1", **lists}))
    assert len(rows) == 2
    assert report.leaks == {"ucf101:test1 & ucf101:train1": 1}


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi", "HandstandPushups"),
        ("videos/HandstandPushups/v_HandstandPushups_g01_c01.mp4", "HandstandPushups"),
        ("data/UCF101/train/YoYo/v_YoYo_g25_c05.avi", "YoYo"),
        ("v_SoccerJuggling_g23_c01.avi", "SoccerJuggling"),
    ],
)
def test_names_and_folders(tree, scan, path: str, label: str) -> None:
    rows, _ = scan("ucf101", tree([path]))
    (row,) = rows.values()
    assert row["label_names"] == [label]
    assert row["labels"] == [CLASSES.index(label)]
    assert row["uri"] == path


def test_the_odd_class_is_one_clip_in_list_and_folder(tree, scan) -> None:
    name = "HandstandPushups/v_HandStandPushups_g08_c01.avi"
    root = tree({f"UCF-101/{name}": b"1", "trainlist01.txt": f"{name} 37\r\n"})
    rows, report = scan("ucf101", root)
    assert rows["ucf101/v_HandStandPushups_g08_c01"]["labels"] == [36]
    assert (report.missing_files, report.files_without_row) == (0, 0)


@pytest.mark.parametrize(
    ("group", "test"),
    [(1, 1), (7, 1), (8, 2), (14, 2), (15, 3), (21, 3), (22, None), (25, None)],
)
def test_without_lists_the_group_decides(tree, scan, group: int, test: int | None) -> None:
    rows, report = scan("ucf101", tree([f"{EYES}_g{group:02d}_c01.avi"]))
    (row,) = rows.values()
    expected = [f"ucf101:{'test' if n == test else 'train'}{n}" for n in (1, 2, 3)]
    assert row["splits"] == expected
    assert any("lists" in note for note in report.notes)


def test_files_beyond_the_lists_are_counted(tree, scan) -> None:
    root = tree(
        {
            f"{EYES}_g01_c01.avi": b"1",
            f"{EYES}_g02_c01.avi": b"1",
            f"{EYES}_g01_c01.wav": b"1",
            "videos/holiday.mp4": b"1",
            **LISTS,
        }
    )
    rows, report = scan("ucf101", root)
    assert len(rows) == 3
    assert report.files_without_row == 1
    assert report.ignored["*.wav beside the clips"] == 1
    assert report.ignored["media files whose name is none of ucf101"] == 1


@pytest.mark.parametrize("line", ["Archery/v_Archery_g08.avi 3", "Sleep/v_Sleep_g08_c01.avi 3"])
def test_a_wrong_list_is_named(tree, scan, line: str) -> None:
    root = tree({f"{EYES}_g01_c01.avi": b"1", "trainlist01.txt": f"\r\n{line}\r\n"})
    with pytest.raises(UsageError, match=r"trainlist01\.txt row 2"):
        scan("ucf101", root)


def test_the_published_counts_add_up() -> None:
    assert len(set(CLASSES)) == 101
    for n in (1, 2, 3):
        assert UCF101.official[f"ucf101:train{n}"] + UCF101.official[f"ucf101:test{n}"] == 13320


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
def test_the_real_clips(scan) -> None:
    rows, _ = scan("ucf101", MEDIA)
    assert len(rows) >= 8
    assert {r["label_names"][0] for r in rows.values()} <= {
        "ApplyEyeMakeup",
        "BenchPress",
        "Diving",
    }
    assert all("ucf101:test1" in r["splits"] and r["bytes"] > 1000 for r in rows.values())
