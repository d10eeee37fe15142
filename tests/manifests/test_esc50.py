"""ESC-50 and its view ESC-10: names, the two CSV headers, class folders, the real ESC-10."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import UsageError
from manifests.esc50 import CATEGORIES

MEDIA = Path(__file__).parents[2].parent / "shared/media/esc10"
CSV = (
    "filename,fold,target,category,esc10,src_file,take\n"
    "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
    "1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n"
    "2-100038-B-14.wav,2,14,chirping_birds,False,100038,B\n"
)
OLD_CSV = (
    "filename,fold,category,category_name,esc10,src_file,take\r\n"
    "1-100032-A.ogg,1,101,Dog,True,100032,A\r\n"
    "1-100038-A.ogg,1,205,Chirping birds,False,100038,A\r\n"
    "1-101336-A.ogg,1,401,Door knock,False,101336,A\r\n"
)


def test_worked_row(tree, scan) -> None:
    root = tree({"audio/1-100032-A-0.wav": b"123", "meta/esc50.csv": CSV})
    rows, report = scan("esc50", root)
    row = rows["esc50/1-100032-A-0"]
    assert (row["uri"], row["end_s"], row["bytes"]) == ("audio/1-100032-A-0.wav", 5, 3)
    assert (row["labels"], row["label_names"]) == ([0], ["dog"])
    assert row["splits"] == ["esc50:fold1", "esc10:fold1"]
    assert row["group_id"] == "freesound:100032"
    assert (row["expect"]["video"], row["expect"]["audio"]) == (False, True)
    assert row["anchored"] is True
    missing = rows["esc50/1-100038-A-14"]
    assert (missing["uri"], missing["bytes"]) == ("audio/1-100038-A-14.wav", None)
    assert missing["splits"] == ["esc50:fold1"]
    assert (report.missing_files, report.files_without_row) == (2, 0)
    assert report.annotations == [str(root / "meta/esc50.csv")]


def test_a_recording_in_two_folds_leaks_one_in_two_sets_does_not(tree, scan) -> None:
    _, report = scan("esc50", tree({"audio/1-100032-A-0.wav": b"1", "meta/esc50.csv": CSV}))
    assert report.leaks == {"esc50:fold1 & esc50:fold2": 1}


@pytest.mark.parametrize("place", ["esc50.csv", "ESC-50-master/meta/esc50.csv"])
def test_the_old_header_and_class_folders(tree, scan, place: str) -> None:
    root = tree({"101 - Dog/1-100032-A.ogg": b"1", place: OLD_CSV})
    rows, _ = scan("esc50", root)
    assert rows["esc50/1-100032-A-0"]["uri"] == "101 - Dog/1-100032-A.ogg"
    assert rows["esc50/1-100038-A-14"]["label_names"] == ["chirping_birds"]
    assert rows["esc50/1-101336-A-30"]["label_names"] == ["door_wood_knock"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("510 - Hand saw/5-253085-B.ogg", "esc50/5-253085-B-49"),
        ("310 - Drinking - sipping/1-17295-A.ogg", "esc50/1-17295-A-29"),
        ("401 - Door knock/1-101336-A.ogg", "esc50/1-101336-A-30"),
        ("001 - Dog bark/1-30226-A.ogg", "esc50/1-30226-A-0"),
        ("010 - Fire crackling/1-4211-A.ogg", "esc50/1-4211-A-12"),
        ("ESC-50-master/audio/1-54065-B-45.wav", "esc50/1-54065-B-45"),
    ],
)
def test_names_and_folders_alone(tree, scan, path: str, key: str) -> None:
    rows, report = scan("esc50", tree([path]))
    assert list(rows) == [key]
    assert report.files_without_row == 0


def test_what_is_no_clip_and_what_is_there_twice(tree, scan) -> None:
    root = tree(
        {
            "audio/1-100032-A-0.wav": b"",
            "audio16k/1-100032-A-0.wav": b"123",
            "audio/1-100032-A-77.wav": b"1",
            "audio/6-100032-A-0.wav": b"1",
            "pets/1-100032-A.wav": b"1",
            "esc50.gif": b"1",
        }
    )
    rows, report = scan("esc50", root)
    assert rows["esc50/1-100032-A-0"]["uri"] == "audio16k/1-100032-A-0.wav"
    assert (len(rows), report.duplicate_files) == (1, 1)
    assert report.ignored["media files whose name is none of esc50"] == 3
    assert report.ignored["*.gif"] == 1


def test_files_beyond_the_csv_are_counted(tree, scan) -> None:
    root = tree(
        {"audio/1-100032-A-0.wav": b"1", "audio/3-1-A-2.wav": b"1", "esc50.csv": CSV + CSV[50:]}
    )
    rows, report = scan("esc50", root)
    assert (report.files_without_row, report.kept_without_row) == (1, 1)
    assert report.duplicate_rows == 3 and len(rows) == 4


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        ("name,class\n", "filename, fold and category"),
        (CSV.replace("dog", "dgo"), "row 2"),
        (CSV.replace("2-100038-B", "9-100038-B"), "row 4"),
        (CSV.replace("A-0.wav,1,", "A-0.wav,2,"), "row 2"),
    ],
)
def test_a_wrong_csv_is_named(tree, scan, csv: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        scan("esc50", tree({"audio/1-100032-A-0.wav": b"1", "meta/esc50.csv": csv}))


def test_esc10_is_a_view_with_numbers_of_its_own(tree, scan) -> None:
    csv = CSV + "3-1-A-12.wav,3,12,crackling_fire,True,1,A\n"
    root = tree({"audio/1-100032-A-0.wav": b"1", "meta/esc50.csv": csv})
    rows, report = scan("esc10", root)
    assert list(rows) == ["esc50/1-100032-A-0", "esc50/3-1-A-12"]
    fire = rows["esc50/3-1-A-12"]
    assert (fire["dataset"], fire["labels"], fire["splits"]) == ("esc10", [9], ["esc10:fold3"])
    assert report.vocabulary[9] == "crackling_fire" and len(report.vocabulary) == 10
    assert report.splits == {"esc10:fold1": [1, 1], "esc10:fold3": [1, 0]}
    assert report.licence.startswith("CC BY 3.0")


def test_the_vocabulary_is_that_of_the_targets() -> None:
    assert len(set(CATEGORIES)) == 50
    # rows of the official CSV
    for name, target in {"crow": 9, "thunderstorm": 19, "snoring": 28, "clock_tick": 38}.items():
        assert CATEGORIES[target] == name
    assert CATEGORIES[46:] == ["church_bells", "airplane", "fireworks", "hand_saw"]


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
def test_the_real_esc10(scan) -> None:
    rows, report = scan("esc10", MEDIA)
    assert len(rows) == 400
    assert report.splits == {f"esc10:fold{n}": [80, 80] for n in range(1, 6)}
    assert report.leaks == {}
    row = rows["esc50/1-100032-A-0"]
    assert row["uri"] == "001 - Dog bark/1-100032-A.ogg"
    assert row["label_names"] == ["dog"]
    per_fold_and_class = {(r["splits"][0], r["labels"][0]) for r in rows.values()}
    assert len(per_fold_and_class) == 50
