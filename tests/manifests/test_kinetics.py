"""Kinetics: every layout and annotation dialect of datasets.md §2, by its worked row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CVDF = (
    "\ufefflabel,youtube_id,time_start,time_end,split,is_cc\r\n"
    "abseiling,-3B32lodo2M,59,69,val,0\r\n"
    '"air drumming",_dbcJuKJQNs,40,50,val,0\r\n'
)
HEADER = "label,youtube_id,time_start,time_end,split\n"
KEY = "k400/-3B32lodo2M_000059_000069"


def test_worked_row(tree, scan) -> None:
    root = tree(
        {"val/abseiling/-3B32lodo2M_000059_000069.mp4": b"12345", "annotations/val.csv": CVDF}
    )
    rows, report = scan("kinetics400", root)
    row = rows[KEY]
    assert row["dataset"] == "kinetics400"
    assert row["uri"] == "val/abseiling/-3B32lodo2M_000059_000069.mp4"
    assert (row["start_s"], row["end_s"], row["pre_trimmed"]) == (0, 10, True)
    assert row["splits"] == ["k400:val"]
    assert (row["labels"], row["label_names"]) == ([0], ["abseiling"])
    assert json.loads(row["extra"]) == {"csv_start": 59, "csv_end": 69, "is_cc": 0}
    assert row["group_id"] == "yt:-3B32lodo2M"
    assert row["bytes"] == 5
    assert row["anchored"] is True
    missing = rows["k400/_dbcJuKJQNs_000040_000050"]
    assert missing["uri"] == "val/air drumming/_dbcJuKJQNs_000040_000050.mp4"
    assert missing["bytes"] is None and missing["labels"] == [1]
    assert report.missing_files == 1
    assert report.splits == {"k400:val": [2, 1]}
    assert report.annotations == [str(root / "annotations/val.csv")]


@pytest.mark.parametrize(
    "csv",
    [
        "label,youtube_id,time_start,time_end,split\nabseiling,-3B32lodo2M,59,69,validate\n",
        "label-name,video-id,start-time,end-time,split\nabseiling,-3B32lodo2M,59.0,69.0,val\n",
        '"label","youtube_id","time_start","time_end","split"\n"abseiling","-3B32lodo2M","59","69","val"\n',
        "youtube_id,label,time_end,time_start\r\n-3B32lodo2M,abseiling,69,59\r\n",
    ],
)
def test_csv_dialects(tree, scan, csv: str) -> None:
    root = tree({"val/-3B32lodo2M_000059_000069.mp4": b"1", "kinetics_val.csv": csv})
    rows, _ = scan("kinetics400", root)
    assert rows[KEY]["splits"] == ["k400:val"]
    assert rows[KEY]["label_names"] == ["abseiling"]
    assert rows[KEY]["bytes"] == 1


def test_test_rows_without_label(tree, scan) -> None:
    csv = "youtube_id,time_start,time_end,split\n--6bJUbfpnQ,17,27,test\n"
    root = tree({"test/--6bJUbfpnQ_000017_000027.mp4": b"1", "annotations/test.csv": csv})
    rows, _ = scan("k600", root)
    row = rows["k600/--6bJUbfpnQ_000017_000027"]
    assert (row["labels"], row["splits"], row["anchored"]) == ([], ["k600:test"], True)


def test_mmaction_folders_spell_classes_with_underscores(tree, scan) -> None:
    csv = HEADER + "air drumming,aaaaaaaaaaa,1,11,train\nair drumming,bbbbbbbbbbb,1,11,train\n"
    root = tree(
        {
            "videos_train/air_drumming/aaaaaaaaaaa_000001_000011.mp4": b"1",
            "annotations/train.csv": csv,
        }
    )
    rows, _ = scan("kinetics400", root)
    row = rows["k400/aaaaaaaaaaa_000001_000011"]
    assert (row["label_names"], row["anchored"]) == (["air drumming"], False)
    missing = rows["k400/bbbbbbbbbbb_000001_000011"]
    assert missing["uri"] == "videos_train/air_drumming/bbbbbbbbbbb_000001_000011.mp4"


def test_k600_flat_with_list_and_odd_class_folder(tree, scan) -> None:
    listed = (
        "./mountain climber (exercise)/aaaaaaaaaaa_000001_000011.mp4\n"
        "abseiling/bbbbbbbbbbb_000002_000012.mp4 0\n"
    )
    root = tree(
        {
            "train/bbbbbbbbbbb_000002_000012.mp4": b"1",
            "train/mountain climber (exercise)/aaaaaaaaaaa_000001_000011.mp4": b"1",
            "train/mountain climber (exercise)/._aaaaaaaaaaa_000001_000011.mp4": b"1",
            "annotations/train.txt": listed,
        }
    )
    rows, report = scan("kinetics600", root)
    assert {r["label_names"][0] for r in rows.values()} == {
        "abseiling",
        "mountain climber (exercise)",
    }
    assert all(r["bytes"] == 1 and r["splits"] == ["k600:train"] for r in rows.values())
    assert report.ignored["._* (macOS metadata)"] == 1


def test_classes_are_compared_with_their_case(tree, scan) -> None:
    names = ["passing american football (not in game)", "passing American football (in game)"]
    lines = [f"{n},{c * 11},0,10,train\n" for n, c in zip(names, "ab", strict=True)]
    root = tree(
        {
            f"train/{names[0]}/{'a' * 11}_000000_000010.mp4": b"1",
            f"train/{names[1]}/{'b' * 11}_000000_000010.mp4": b"1",
            "train.csv": HEADER + "".join(lines),
        }
    )
    rows, report = scan("kinetics600", root)
    assert report.vocabulary == [names[1], names[0]]
    assert rows[f"k600/{'a' * 11}_000000_000010"]["labels"] == [1]


def test_replacement_wins_and_copies_are_counted(tree, scan) -> None:
    clip = "aaaaaaaaaaa_000001_000011.mp4"
    csv = HEADER + "abseiling,aaaaaaaaaaa,1,11,train\n"
    root = tree(
        {
            f"train/{clip}": b"corrupt",
            f"train/abseiling/{clip}": b"copy",
            f"replacement/replacement_for_corrupted_k400/{clip}": b"good",
            "train.csv": csv,
        }
    )
    rows, report = scan("kinetics400", root)
    (row,) = rows.values()
    assert row["uri"].startswith("replacement/")
    assert (report.replaced, report.duplicate_files) == (1, 1)


def test_an_empty_copy_loses_against_a_full_one(tree, scan) -> None:
    clip = "aaaaaaaaaaa_000001_000011.mp4"
    csv = HEADER + "x,aaaaaaaaaaa,1,11,train\n"
    root = tree({f"train/a/{clip}": b"", f"train/b/{clip}": b"full", "train.csv": csv})
    rows, _ = scan("kinetics400", root)
    assert next(iter(rows.values()))["uri"] == f"train/b/{clip}"


def test_whole_videos_are_cut_by_the_csv(tree, scan) -> None:
    csv = HEADER + "abseiling,-3B32lodo2M,59,69,val\nabseiling,-3B32lodo2M,80,90,val\n"
    root = tree({"val/-3B32lodo2M.mkv": b"1", "val.csv": csv})
    rows, _ = scan("kinetics400", root)
    assert len(rows) == 2
    row = rows[KEY]
    assert (row["start_s"], row["end_s"], row["pre_trimmed"]) == (59, 69, False)
    assert {r["source_id"] for r in rows.values()} == {"yt:-3B32lodo2M"}


def test_join_by_id_alone_where_times_differ(tree, scan) -> None:
    csv = HEADER + "abseiling,aaaaaaaaaaa,2,12,train\n"
    root = tree({"train/aaaaaaaaaaa_000001_000011.mp4": b"1", "train.csv": csv})
    rows, report = scan("kinetics400", root)
    assert rows["k400/aaaaaaaaaaa_000002_000012"]["bytes"] == 1
    assert any("joined by id" in note for note in report.notes)
    assert report.files_without_row == 0


def test_files_without_row_are_kept_where_the_split_is_known(tree, scan) -> None:
    csv = HEADER + "abseiling,aaaaaaaaaaa,1,11,train\n"
    root = tree(
        {
            "train/aaaaaaaaaaa_000001_000011.mp4": b"1",
            "train/ccccccccccc_000001_000011.mp4": b"1",
            "elsewhere/ddddddddddd_000001_000011.mp4": b"1",
            "train/holiday.mp4": b"1",
            "train.csv": csv,
        }
    )
    rows, report = scan("kinetics400", root)
    assert rows["k400/ccccccccccc_000001_000011"]["labels"] == []
    assert len(rows) == 2
    assert (report.files_without_row, report.kept_without_row) == (2, 1)
    assert report.ignored["media files whose name holds no video id"] == 1


def test_without_annotations_class_folders_are_the_labels(tree, scan) -> None:
    root = tree(
        [
            "train/training dog/aaaaaaaaaaa_000001_000011.mp4",
            "val/abseiling/bbbbbbbbbbb_000001_000011.mp4",
        ]
    )
    rows, report = scan("kinetics400", root)
    assert report.vocabulary == ["abseiling", "training dog"]
    assert rows["k400/aaaaaaaaaaa_000001_000011"]["splits"] == ["k400:train"]
    assert rows["k400/bbbbbbbbbbb_000001_000011"]["labels"] == [0]
    assert any("official" in note for note in report.notes)


def test_repeated_annotation_rows_and_leaks_are_reported(tree, scan) -> None:
    train = "abseiling,aaaaaaaaaaa,1,11,train\n"
    root = tree(
        {
            "train/aaaaaaaaaaa_000001_000011.mp4": b"1",
            "annotations/deepmind/train.csv": HEADER + train,
            "annotations/deepmind_top-up/train.csv": HEADER + train,
            "annotations/val.csv": HEADER + "abseiling,aaaaaaaaaaa,20,30,val\n",
        }
    )
    rows, report = scan("kinetics700", root)
    assert len(rows) == 2
    assert report.duplicate_rows == 1
    assert report.leaks == {"k700:train & k700:val": 1}


def test_annotations_may_lie_elsewhere(tree, scan, tmp_path: Path) -> None:
    place = tmp_path / "lists"
    place.mkdir()
    (place / "val.csv").write_text(CVDF)
    root = tree(["val/-3B32lodo2M_000059_000069.mp4"])
    for given in (place, place / "val.csv"):
        rows, _ = scan("kinetics400", root, annotations=given)
        assert rows[KEY]["label_names"] == ["abseiling"]


def test_links_of_arrange_by_classes_are_copies(tree, scan) -> None:
    clip = "-3B32lodo2M_000059_000069.mp4"
    root = tree({f"val/{clip}": b"1", "annotations/val.csv": CVDF})
    (root / "videos/val/abseiling").mkdir(parents=True)
    (root / "videos/val/abseiling" / clip).symlink_to(root / "val" / clip)
    rows, report = scan("kinetics400", root)
    assert rows[KEY]["uri"] == f"val/{clip}"
    assert report.duplicate_files == 1
