"""LRW: the folder is the split, the word lies in the middle of the clip."""

from __future__ import annotations

import pytest

from manifests import DATASETS, UsageError

TEXT = """Disk reference: 6185951492947051849
Channel: BBC One HD
Program start: 2016-03-01 17:59:00 +0000
Clip start: 0:03:11.34
Duration: 0.53 seconds
"""
ABOUT = "lipreading_mp4/ABOUT/test/ABOUT_00001"


def test_worked_row(tree, scan) -> None:
    rows, report = scan("lrw", tree({f"{ABOUT}.mp4": b"1", f"{ABOUT}.txt": TEXT}))
    row = rows["lrw/test/ABOUT_00001"]
    assert row["uri"] == "lipreading_mp4/ABOUT/test/ABOUT_00001.mp4"
    assert (row["start_s"], row["end_s"], row["anchored"]) == (0, 1.16, True)
    assert (row["labels"], row["label_names"], row["transcript"]) == ([0], ["ABOUT"], "ABOUT")
    assert row["splits"] == ["lrw:test"]
    assert row["expect"] == {"video": True, "audio": True, "fps": 25.0, "duration_s": 1.16}
    assert '"frames": 29' in row["extra"] and '"duration": 0.53' in row["extra"]
    assert row["group_id"] == "lrw:6185951492947051849"
    assert DATASETS["lrw"].official == {"lrw:val": 25_000, "lrw:test": 25_000}
    assert "BBC" in report.licence


def test_the_words_window_is_the_peers_frames(tree, scan) -> None:
    """Peers take pictures mid -+ int(duration / 2 * 25) of 29, mid = 14: those it overlaps."""
    rows, _ = scan("lrw", tree({f"{ABOUT}.mp4": b"1", f"{ABOUT}.txt": TEXT}))
    (word,) = rows["lrw/test/ABOUT_00001"]["words"]
    assert (word["w"], word["start_s"], word["end_s"]) == ("ABOUT", 0.315, 0.845)
    inside = [k for k in range(29) if word["start_s"] <= (k + 0.5) / 25 <= word["end_s"]]
    mid, half = (29 - 1) // 2, int(0.53 / 2 * 25)
    assert inside == list(range(mid - half, mid + half + 1))
    (segment,) = rows["lrw/test/ABOUT_00001"]["segments"]
    assert segment == {"start_s": 0.315, "end_s": 0.845, "label": 0}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Duration: 0.40 seconds\n", 0.40),
        ("duration:0.4\n", 0.40),
        ("a: 1\nb: 2\nc: 3\nd: 4\nLength 0.40 seconds\n", 0.40),
        ("Duration: unknown\nb: 2\nc: 3\nd: 4\nLength: 0.40 s\n", 0.40),
        ("Duration: 9 seconds\n", 1.16),
        ("Duration: -1 seconds\n", None),
        ("Duration: nan seconds\n", None),
        ("", None),
    ],
)
def test_durations(tree, scan, text: str, seconds: float | None) -> None:
    rows, report = scan("lrw", tree({f"{ABOUT}.mp4": b"1", f"{ABOUT}.txt": text}))
    words = rows["lrw/test/ABOUT_00001"]["words"]
    if seconds is None:
        assert words == []
        assert any("1 clips have no .txt with a duration" in note for note in report.notes)
    else:
        assert words[0]["end_s"] - words[0]["start_s"] == pytest.approx(seconds)


def test_splits_classes_missing_and_duplicates(tree, scan) -> None:
    root = tree(
        [
            "ABUSE/train/ABUSE_00007.mp4",
            "ABOUT/val/ABOUT_00001.mp4",
            "ABOUT/train/ABOUT_00001.mp4",
            "copy/ABOUT/train/ABOUT_00001.mp4",
            "ABOUT/test/ABOUT_00002.txt",
            "ABOUT/train/stray.mp4",
            "ABOUT/train/ABOUT_00003.npz",
        ]
    )
    rows, report = scan("lrw", root)
    assert {key: (row["labels"], row["splits"]) for key, row in rows.items()} == {
        "lrw/train/ABUSE_00007": ([1], ["lrw:train"]),
        "lrw/val/ABOUT_00001": ([0], ["lrw:val"]),
        "lrw/train/ABOUT_00001": ([0], ["lrw:train"]),
        "lrw/test/ABOUT_00002": ([0], ["lrw:test"]),
    }
    lost = rows["lrw/test/ABOUT_00002"]
    assert (lost["uri"], lost["bytes"]) == ("ABOUT/test/ABOUT_00002.mp4", None)
    assert report.splits["lrw:test"] == [1, 0]
    assert (report.duplicate_files, report.files_without_row) == (1, 1)
    assert report.ignored["*.npz"] == 1
    assert any("2 words were found, the data set has 500" in note for note in report.notes)


@pytest.mark.parametrize("given", [True, False])
def test_a_list_of_words_keeps_the_official_numbers(tree, scan, given: bool) -> None:
    names = sorted({f"A{n:03}" for n in range(499)} | {"ABUSE"})
    words = "500WordsSortedList.txt"
    files = {"mp4/ABUSE/val/ABUSE_00001.mp4": b"1", words: "\r\n".join(names), "readme.txt": "a b"}
    root = tree(files)
    rows, report = scan("lrw", root, **({"annotations": root / words} if given else {}))
    assert rows["lrw/val/ABUSE_00001"]["labels"] == [499]
    assert len(report.vocabulary) == 500
    assert not any("words were found" in note for note in report.notes)
    with pytest.raises(UsageError, match="holds nothing that lrw can use"):
        scan("lrw", root, annotations=root / "readme.txt")
