"""HMDB51: flags, names with all signs of a keyboard, groups, the real clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import UsageError
from manifests.hmdb51 import CLASSES, HMDB51

MEDIA = Path(__file__).parents[2].parent / "shared/media/torchvision"
APRIL = "April_09_brush_hair_u_nm_np1_ba_goo_"
SPLITS = "testTrainMulti_7030_splits/brush_hair_test_split"


def test_worked_row_and_flags(tree, scan) -> None:
    root = tree(
        {
            f"brush_hair/{APRIL}0.avi": b"123",
            f"{SPLITS}1.txt": f"{APRIL}0.avi 1 \n{APRIL}1.avi 2 \n{APRIL}2.avi 0 \n",
            f"{SPLITS}2.txt": f"{APRIL}0.avi 2 \n{APRIL}1.avi 0 \n{APRIL}2.avi 0 \n",
        }
    )
    rows, report = scan("hmdb51", root)
    row = rows[f"hmdb51/brush_hair/{APRIL}0"]
    assert (row["uri"], row["bytes"]) == (f"brush_hair/{APRIL}0.avi", 3)
    assert (row["labels"], row["label_names"]) == ([0], ["brush_hair"])
    assert row["splits"] == ["hmdb51:train1", "hmdb51:test2"]
    assert row["group_id"] == "hmdb:brush_hair/April_09"
    assert row["expect"]["audio"] is False
    assert (row["end_s"], row["anchored"]) == (None, True)
    unused = rows[f"hmdb51/brush_hair/{APRIL}2"]
    assert (unused["splits"], unused["bytes"]) == ([], None)
    assert unused["uri"] == f"brush_hair/{APRIL}2.avi"
    assert report.splits["(none)"] == [1, 0]
    assert report.leaks == {"hmdb51:test1 & hmdb51:train1": 1}
    assert any("2 of the 153 lists" in note for note in report.notes)


def test_special_signs_do_not_reach_the_key_and_names_stay_apart(tree, scan) -> None:
    names = [f"#1_[x]&(y)+;~@!{n}_wave_f_cm_np10_ba_bad_0" for n in "ab"]
    names += [name.replace("#", "@") for name in names]
    text = "".join(f"{name}.avi 1 \n" for name in names)
    root = tree({f"wave/{names[0]}.avi": b"1", "wave_test_split1.txt": text})
    rows, _ = scan("hmdb51", root)
    assert len(rows) == 4
    assert {row["uri"] for row in rows.values()} == {f"wave/{name}.avi" for name in names}
    assert sum(row["bytes"] is not None for row in rows.values()) == 1


@pytest.mark.parametrize(
    ("path", "label", "group"),
    [
        ("x/RATRACE_wave_f_nm_np1_fr_goo_37.avi", "wave", "hmdb:wave/RATRACE"),
        ("wave/A_walk_wave_f_nm_np1_fr_goo_3.avi", "wave", "hmdb:wave/A_walk"),
        ("A_draw_sword_u_cm_np2_le_med_0.avi", "draw_sword", "hmdb:draw_sword/A"),
        ("A_climb_stairs_u_cm_np10_le_med_0.avi", "climb_stairs", "hmdb:climb_stairs/A"),
    ],
)
def test_without_lists_folder_or_name_is_the_class(
    tree, scan, path: str, label: str, group: str
) -> None:
    rows, report = scan("hmdb51", tree([path, "wave/holiday.avi"]))
    (row,) = rows.values()
    assert (row["label_names"], row["group_id"], row["splits"]) == ([label], group, [])
    assert any("no split" in note for note in report.notes)
    assert report.ignored["media files whose name is none of hmdb51"] == 1


@pytest.mark.parametrize("line", ["a_wave_f_nm_np1_fr_goo_3.avi 3", "a.avi", "a 1"])
def test_a_wrong_list_is_named(tree, scan, line: str) -> None:
    root = tree({"wave/a.avi": b"1", "wave_test_split1.txt": f"{line} \n"})
    with pytest.raises(UsageError, match=r"wave_test_split1\.txt row 1"):
        scan("hmdb51", root)


def test_a_list_of_no_class_is_reported(tree, scan) -> None:
    root = tree({f"brush_hair/{APRIL}0.avi": b"1", "sleep_test_split1.txt": f"{APRIL}0.avi 1\n"})
    _, report = scan("hmdb51", root)
    assert report.unknown_labels == {"sleep_test_split1": 1}


def test_vocabulary_and_counts() -> None:
    assert sorted(set(CLASSES)) == CLASSES and len(CLASSES) == 51
    assert HMDB51.official == {
        f"hmdb51:{split}{n}": count
        for n in (1, 2, 3)
        for split, count in {"train": 51 * 70, "test": 51 * 30}.items()
    }


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
def test_the_real_clip(scan) -> None:
    rows, _ = scan("hmdb51", MEDIA)
    assert "hmdb51/wave/RATRACE_wave_f_nm_np1_fr_goo_37" in rows
