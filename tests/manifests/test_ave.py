"""AVE: rows, not files; lists of the archive and of the repository; the real annotations."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from manifests import UsageError
from manifests.ave import BACKGROUND, CATEGORIES

LISTS = Path(__file__).parents[2].parent / "shared/lists/ave"
EVENTS = (
    "Church bell&RUhOCu3LNXM&good&0&10\n"
    "Church bell&MH3m4AwEcRY&good&6&8\n"
    "Church bell&VWi2ENBuTbw&good&0&0\n"
    "Male speech, man speaking&MH3m4AwEcRY&good&0&6\n"
)
HEADER = "Category&VideoID&Quality&StartTime&EndTime\n"
ARCHIVE = {
    "AVE_Dataset/AVE/RUhOCu3LNXM.mp4": b"123",
    "AVE_Dataset/AVE/MH3m4AwEcRY.mp4": b"1",
    "AVE_Dataset/Annotations.txt": HEADER + EVENTS,
    "AVE_Dataset/ReadMe.txt": "AVE.zip: videos in AVE dataset.",
    "AVE_Dataset/trainSet.txt": "".join(EVENTS.splitlines(keepends=True)[:3]),
    "AVE_Dataset/valSet.txt": "",
    "AVE_Dataset/testSet.txt": EVENTS.splitlines(keepends=True)[3],
}


def per_second(row: dict[str, Any]) -> list[int]:
    """The classes of the ten seconds, as the authors' code makes them."""
    classes = [BACKGROUND] * 10
    for segment in row["segments"]:
        for second in range(10):
            if segment["start_s"] <= second < segment["end_s"]:
                classes[second] = segment["label"]
    return classes


def test_worked_rows_of_the_archive(tree, scan) -> None:
    rows, report = scan("ave", tree(ARCHIVE))
    row = rows["ave/0000_RUhOCu3LNXM"]
    assert (row["uri"], row["bytes"]) == ("AVE_Dataset/AVE/RUhOCu3LNXM.mp4", 3)
    assert (row["end_s"], row["labels"], row["splits"]) == (10, [0], ["ave:train"])
    assert row["segments"] == [{"start_s": 0, "end_s": 10, "label": 0}]
    assert row["extra"] == '{"line": 0, "quality": "good"}'
    assert row["anchored"] is True
    assert per_second(rows["ave/0001_MH3m4AwEcRY"]) == [28] * 6 + [0] * 2 + [28] * 2
    assert rows["ave/0003_MH3m4AwEcRY"]["labels"] == [1]
    assert report.splits == {"ave:train": [3, 2], "ave:test": [1, 1]}


def test_one_file_of_two_rows_is_in_both_and_leaks(tree, scan) -> None:
    rows, report = scan("ave", tree(ARCHIVE))
    pair = [rows["ave/0001_MH3m4AwEcRY"], rows["ave/0003_MH3m4AwEcRY"]]
    assert {row["uri"] for row in pair} == {"AVE_Dataset/AVE/MH3m4AwEcRY.mp4"}
    assert {row["group_id"] for row in pair} == {"yt:MH3m4AwEcRY"}
    assert report.leaks == {"ave:test & ave:train": 1}


def test_the_row_without_event_is_background(tree, scan) -> None:
    rows, report = scan("ave", tree(ARCHIVE))
    empty = rows["ave/0002_VWi2ENBuTbw"]
    assert (empty["segments"], empty["labels"]) == ([], [0])
    assert per_second(empty) == [28] * 10
    assert empty["uri"] == "AVE_Dataset/AVE/VWi2ENBuTbw.mp4"
    assert any(note.startswith("1 row without an event") for note in report.notes)


def test_repository_without_header(tree, scan, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    root = tree({"videos/RUhOCu3LNXM.mp4": b"1", "data/Annotations.txt": EVENTS})
    for name, lines in {"train": [2, 0], "val": [3], "test": [1]}.items():
        with h5py.File(root / f"data/{name}_order.h5", "w") as file:
            file["order"] = lines
    rows, report = scan("ave", root)
    assert [row["splits"] for _, row in sorted(rows.items())] == [
        *(["ave:train"], ["ave:test"], ["ave:train"], ["ave:val"]),
    ]
    assert len(report.annotations) == 4
    with h5py.File(root / "data/val_order.h5", "w") as file:
        file["order"] = [4]
    with pytest.raises(UsageError, match=r"val_order\.h5 names row 4; .* 0 to 3"):
        scan("ave", root)
    (root / "data/val_order.h5").write_bytes(b"no HDF5")
    with pytest.raises(UsageError, match=r"val_order\.h5 cannot be read"):
        scan("ave", root)


def test_without_h5py_the_other_lists_are_named(
    tree, scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    root = tree(
        {"RUhOCu3LNXM.mp4": b"1", "Annotations.txt": EVENTS, "train_order.h5": b"\x89HDF\r\n\x1a\n"}
    )
    with pytest.raises(UsageError, match=r"pip install h5py.*trainSet\.txt"):
        scan("ave", root)


def test_without_lists_there_is_no_split(tree, scan) -> None:
    root = tree({"RUhOCu3LNXM.mp4": b"1", "x.mp4": b"1", "abcdefghijk.mp4": b"1"})
    with pytest.raises(UsageError, match=r"no Annotations\.txt"):
        scan("ave", root)
    (root / "annotations.txt").write_text(EVENTS)
    rows, report = scan("ave", root)
    assert all(row["splits"] == [] for row in rows.values())
    assert any("4 rows of Annotations.txt have no split" in note for note in report.notes)
    assert report.files_without_row == 1
    assert report.ignored["media files whose name is none of ave"] == 1


def test_annotations_elsewhere_need_no_h5(tree, scan, tmp_path: Path) -> None:
    place = tmp_path / "lists"
    place.mkdir()
    for name in ("Annotations.txt", "trainSet.txt", "testSet.txt"):
        (place / name).write_text(str(ARCHIVE[f"AVE_Dataset/{name}"]))
    rows, _ = scan("ave", tree({"AVE/RUhOCu3LNXM.mp4": b"1"}), annotations=place)
    assert rows["ave/0000_RUhOCu3LNXM"]["splits"] == ["ave:train"]


@pytest.mark.parametrize(
    "row",
    [
        "Church bells&RUhOCu3LNXM&good&0&10",
        "Church bell&RUhOCu3LNXM&good&8&6",
        "Church bell&RUhOCu3LNXM&good&0&11",
        "Church bell&RUhOCu3LNXM&good&0&ten",
        "Church bell&RUhOCu3LNXM&good",
    ],
)
def test_a_wrong_row_is_named(tree, scan, row: str) -> None:
    root = tree({"RUhOCu3LNXM.mp4": b"1", "Annotations.txt": f"{HEADER}{row}\n"})
    with pytest.raises(UsageError, match=f"{re.escape(row)}' is no event"):
        scan("ave", root)


def test_a_list_of_other_rows_is_named(tree, scan) -> None:
    root = tree(
        {
            "RUhOCu3LNXM.mp4": b"1",
            "Annotations.txt": EVENTS,
            "testSet.txt": "Bark&RUhOCu3LNXM&good&0&1",
        }
    )
    with pytest.raises(UsageError, match=r"testSet\.txt: .* not in Annotations\.txt"):
        scan("ave", root)


@pytest.mark.skipif(not LISTS.is_dir(), reason="the shared lists are not here")
def test_the_real_annotations(tree, scan) -> None:
    h5py = pytest.importorskip("h5py")
    rows, report = scan("ave", tree(["AVE/RUhOCu3LNXM.mp4"]), annotations=LISTS)
    assert {s: n for s, (n, _) in report.splits.items()} == {
        "ave:train": 3339,
        "ave:val": 402,
        "ave:test": 402,
    }
    assert report.leaks == {"ave:test & ave:train": 8, "ave:train & ave:val": 10}
    assert len({row["uri"] for row in rows.values()}) == 4097
    first = dict.fromkeys(
        line.split("&")[0] for line in (LISTS / "Annotations.txt").read_text().splitlines()
    )
    assert list(first) == CATEGORIES
    test = [row for row in rows.values() if row["splits"] == ["ave:test"]]
    seconds = [label for row in test for label in per_second(row)]
    assert len(seconds) == 4020
    assert round(100 * seconds.count(BACKGROUND) / len(seconds), 1) == 17.8
    # the rows of the test split are those that the authors' file numbers
    with h5py.File(LISTS / "test_order.h5") as file:
        assert {int(n) for n in file["order"][()]} == {int(row["key"][4:8]) for row in test}
