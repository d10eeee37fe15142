"""VGG-Sound: its CSV without header, labels with commas, several clips of one video."""

from __future__ import annotations

import pytest

CSV = (
    "---g-f_I2yQ,1,people marching,test\n"
    "--0PQM4-hqg,30,waterfall burbling,train\n"
    '--0PQM4-hqg,59,"cat, meowing",train\n'
)
KEY = "vggsound/---g-f_I2yQ_000001"


def test_worked_row(tree, scan) -> None:
    rows, report = scan(
        "vggsound", tree({"video/---g-f_I2yQ_000001.mp4": b"1", "vggsound.csv": CSV})
    )
    row = rows[KEY]
    assert row["uri"] == "video/---g-f_I2yQ_000001.mp4"
    assert (row["start_s"], row["end_s"]) == (0, 10)
    assert row["label_names"] == ["people marching"]
    assert row["splits"] == ["vggsound:test"]
    assert row["group_id"] == "yt:---g-f_I2yQ"
    assert report.vocabulary == ["cat, meowing", "people marching", "waterfall burbling"]
    pair = [r for r in rows.values() if r["group_id"] == "yt:--0PQM4-hqg"]
    assert len(pair) == 2
    assert {r["uri"] for r in pair} == {
        "video/--0PQM4-hqg_000030.mp4",
        "video/--0PQM4-hqg_000059.mp4",
    }


@pytest.mark.parametrize(
    "name",
    [
        "---g-f_I2yQ_1000_11000.mp4",
        "---g-f_I2yQ_1_11.mp4",
        "people marching/---g-f_I2yQ_000001.mp4",
        "scratch/train_data/VGGSound_final/video/---g-f_I2yQ_000001.mp4",
    ],
)
def test_namings_and_folders(tree, scan, name: str) -> None:
    rows, report = scan("vggsound", tree({name: b"1", "vggsound.csv": CSV}))
    assert rows[KEY]["uri"] == name
    assert report.files_without_row == 0


def test_class_folders_name_missing_files(tree, scan) -> None:
    root = tree({"people marching/---g-f_I2yQ_000001.mp4": b"1", "vggsound.csv": CSV})
    rows, _ = scan("vggsound", root)
    assert rows["vggsound/--0PQM4-hqg_000059"]["uri"] == "cat, meowing/--0PQM4-hqg_000059.mp4"


def test_the_authors_list_of_names(tree, scan) -> None:
    csv = "glLQrEijrKg_000300.mp4,playing hammond organ\n"
    root = tree({"video/glLQrEijrKg_000300.mp4": b"1", "test.csv": csv})
    rows, _ = scan("vggsound", root)
    row = rows["vggsound/glLQrEijrKg_000300"]
    assert (row["label_names"], row["splits"]) == (["playing hammond organ"], ["vggsound:test"])


def test_files_alone(tree, scan) -> None:
    rows, report = scan("vggsound", tree(["video/glLQrEijrKg_000300.mp4"]))
    assert rows["vggsound/glLQrEijrKg_000300"]["labels"] == []
    assert report.kept_without_row == 1
