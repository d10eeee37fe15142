"""DFDC: metadata of parts, samples, labels.csv, folds, the split of MDS by its lists."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from manifests import DATASETS, ScanOptions, UsageError
from manifests.build import build

SHARED = Path(__file__).parents[2].parent / "shared"
PART_0: dict[str, dict[str, Any]] = {
    "aagfhgtpmv.mp4": {"label": "FAKE", "split": "train", "original": "vudstovrck.mp4"},
    "aapnvogymq.mp4": {"label": "FAKE", "split": "train", "original": "jdubbvfswz.mp4"},
    "abarnvbtwb.mp4": {"label": "REAL", "split": "train", "original": None},
    "vudstovrck.mp4": {"label": "REAL", "split": "train"},
}
NAME = "dfdc_train_part_0"


def part(folder: str, metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {f"{folder}/{name}": b"1" for name in metadata}
    return {**files, f"{folder}/metadata.json": json.dumps(metadata)}


@pytest.mark.parametrize("folder", [NAME, "dfdc_train_part_00", f"{NAME}0/{NAME}", f"x/y/{NAME}"])
def test_worked_rows(tree, scan, folder: str) -> None:
    rows, report = scan("dfdc", tree(part(folder, PART_0)))
    row = rows["dfdc/00/aagfhgtpmv"]
    assert row["uri"] == f"{folder}/aagfhgtpmv.mp4"
    assert (row["start_s"], row["end_s"], row["anchored"]) == (0, 10, True)
    assert (row["labels"], row["label_names"]) == ([1], ["FAKE"])
    assert row["group_id"] == "dfdc:vudstovrck" == rows["dfdc/00/vudstovrck"]["group_id"]
    assert row["splits"] == ["dfdc:train", "dfdc:fold0"]
    assert json.loads(row["extra"]) == {"original": "vudstovrck.mp4", "part": 0}
    for real in ("abarnvbtwb", "vudstovrck"):
        assert rows[f"dfdc/00/{real}"]["labels"] == [0]
    assert len(rows) == 4
    assert "dfdc:train: 2 real, 2 fake, 0 without label." in report.notes
    assert DATASETS["dfdc"].official["dfdc:train"] == 119_154
    assert report.leaks == {}


def test_the_root_may_be_a_part(tree, scan) -> None:
    rows, _ = scan("dfdc", tree(part("dfdc_train_part_12", PART_0)) / "dfdc_train_part_12")
    assert rows["dfdc/12/aagfhgtpmv"]["uri"] == "aagfhgtpmv.mp4"
    assert rows["dfdc/12/aagfhgtpmv"]["splits"] == ["dfdc:train", "dfdc:fold2"]


def test_missing_extra_and_odd_files(tree, scan) -> None:
    files = part(NAME, PART_0)
    del files[f"{NAME}/aapnvogymq.mp4"]
    root = tree({**files, f"{NAME}/zzzzzzzzzz.mp4": b"1", "ffpp/004.mp4": b"1"})
    rows, report = scan("dfdc", root)
    lost, unlabelled = rows["dfdc/00/aapnvogymq"], rows["dfdc/00/zzzzzzzzzz"]
    assert (lost["uri"], lost["bytes"]) == (f"{NAME}/aapnvogymq.mp4", None)
    assert (unlabelled["labels"], unlabelled["splits"]) == ([], ["dfdc:train", "dfdc:fold0"])
    assert (report.files_without_row, report.kept_without_row) == (1, 1)
    assert report.missing_files == 1
    assert report.ignored["media files whose name is not ten letters"] == 1


def test_samples_give_way_to_parts(tree, scan) -> None:
    sample = part("train_sample_videos", {k: PART_0[k] for k in list(PART_0)[:2]})
    rows, report = scan("dfdc", tree({**part(NAME, PART_0), **sample}))
    assert len(rows) == 4
    assert rows["dfdc/00/aagfhgtpmv"]["uri"] == f"{NAME}/aagfhgtpmv.mp4"
    assert (report.duplicate_rows, report.duplicate_files) == (2, 2)
    rows, report = scan("dfdc", tree(sample) / "train_sample_videos")
    assert rows["dfdc/sample/aagfhgtpmv"]["splits"][0] == "dfdc:train"
    assert rows["dfdc/sample/aagfhgtpmv"]["splits"][1].startswith("dfdc:fold")


def test_validation_test_and_unlabelled_clips(tree, scan) -> None:
    root = tree(
        {
            "validation/vaaaaaaaaa.mp4": b"1",
            "validation/labels.csv": "filename,label\nvaaaaaaaaa.mp4,0\nvbbbbbbbbb.mp4,1\n",
            "test/taaaaaaaaa.mp4": b"1",
            "test/metadata.json": json.dumps(
                {
                    "taaaaaaaaa.mp4": {"is_fake": 1, "augmentations": {}},
                    "tbbbbbbbbb.mp4": {"is_fake": 0},
                }
            ),
            "test_videos/qaaaaaaaaa.mp4": b"1",
        }
    )
    rows, report = scan("dfdc", root)
    assert {key: (row["labels"], row["splits"]) for key, row in rows.items()} == {
        "dfdc/val/vaaaaaaaaa": ([0], ["dfdc:val"]),
        "dfdc/val/vbbbbbbbbb": ([1], ["dfdc:val"]),
        "dfdc/test/taaaaaaaaa": ([1], ["dfdc:test"]),
        "dfdc/test/tbbbbbbbbb": ([0], ["dfdc:test"]),
        "dfdc/test_videos/qaaaaaaaaa": ([], ["dfdc:test_videos"]),
    }
    assert report.splits["dfdc:test"] == [2, 1]


def test_folders_label_what_no_metadata_does(tree, scan) -> None:
    rows, _ = scan("dfdc", tree(["train/real/aaaaaaaaaa.mp4", "test/fake/bbbbbbbbbb.mp4"]))
    assert rows["dfdc/aaaaaaaaaa"]["labels"] == [0]
    assert rows["dfdc/bbbbbbbbbb"]["labels"] == [1]
    assert all(row["splits"] == [] for row in rows.values())


def test_somebodys_tree_is_joined_by_id(tree, scan) -> None:
    metadata = {f"{NAME}/metadata.json": json.dumps(PART_0)}
    rows, _ = scan("dfdc", tree({**metadata, "mine/fake/aagfhgtpmv.mp4": b"1"}))
    row = rows["dfdc/00/aagfhgtpmv"]
    assert (row["uri"], row["labels"]) == ("mine/fake/aagfhgtpmv.mp4", [1])


def test_metadata_kept_elsewhere(tree, scan, tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(PART_0))
    root = tree(["dfdc_train_part_10/aagfhgtpmv.mp4", "samples/abarnvbtwb.mp4"])
    rows, report = scan("dfdc", root, annotations=path)
    assert rows["dfdc/10/aagfhgtpmv"]["labels"] == [1]
    real = rows["dfdc/abarnvbtwb"]
    assert (real["labels"], real["splits"][0]) == ([0], "dfdc:train")
    assert report.files_without_row == 0
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(UsageError, match="holds nothing that dfdc can use"):
        scan("dfdc", root, annotations=tmp_path / "other.txt")


def test_annotations_that_are_the_root_are_read_once(tree, scan, tmp_path: Path) -> None:
    root = tree(part(NAME, PART_0))
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link", root / NAME / "metadata.json"):
        rows, report = scan("dfdc", root, annotations=place)
        assert (len(rows), report.duplicate_rows) == (4, 0)


def test_a_fake_and_its_original_share_the_fold(tree, scan) -> None:
    """Even where they are of different parts, or the original is not there."""
    first: dict[str, dict[str, Any]] = {
        "aaaaaaaaaa.mp4": {"label": "REAL"},
        "bbbbbbbbbb.mp4": {"label": "REAL"},
    }
    second = {
        "cccccccccc.mp4": {"label": "FAKE", "original": "aaaaaaaaaa.mp4"},
        "dddddddddd.mp4": {"label": "FAKE", "original": "nnnnnnnnnn.mp4"},
    }
    third = {"eeeeeeeeee.mp4": {"label": "FAKE", "original": "nnnnnnnnnn.mp4"}}
    parts = {7: first, 13: second, 24: third}
    files = [part(f"dfdc_train_part_{n}", content) for n, content in parts.items()]
    rows, report = scan("dfdc", tree({k: v for one in files for k, v in one.items()}))
    folds: dict[str, set[str]] = {}
    for row in rows.values():
        folds.setdefault(row["group_id"], set()).add(row["splits"][1])
    assert folds == {
        "dfdc:aaaaaaaaaa": {"dfdc:fold2"},
        "dfdc:bbbbbbbbbb": {"dfdc:fold2"},
        "dfdc:nnnnnnnnnn": {"dfdc:fold3"},
    }
    assert report.leaks == {}
    assert any("2 fakes are of another part" in note for note in report.notes)


def clip(n: int) -> str:
    return "".join(chr(97 + n // 26**i % 26) for i in range(10))


REALS = [clip(n) for n in range(4)]
MIXED: dict[str, dict[str, Any]] = {
    **{f"{name}.mp4": {"label": "REAL"} for name in REALS},
    **{
        f"{clip(100 + n)}.mp4": {"label": "FAKE", "original": f"{REALS[n // 2]}.mp4"}
        for n in range(8)
    },
}
"""Four originals with two fakes each: 0 has fakes 100 and 101, and so on."""


def listed(*numbers: int) -> str:
    return "".join(f"{clip(n)}.dfdc_train_part_03\n" for n in numbers)


@pytest.mark.parametrize("given", [True, False])
def test_mds_train_is_the_fakes_and_their_originals(tree, scan, given: bool) -> None:
    lists = {"train_list.txt": listed(100, 102, 104), "test_list.txt": listed(101, 106, 3)}
    root = tree({**part("dfdc_train_part_3", MIXED), **lists})
    rows, report = scan("dfdc", root, **({"annotations": root} if given else {}))
    of = {
        row["source_id"][5:]: split
        for row in rows.values()
        for split in row["splits"]
        if split.startswith("mds")
    }
    train, test = (100, 102, 104, 0, 1, 2), (101, 106, 3)
    assert of == {clip(n): "mds:train" for n in train} | {clip(n): "mds:test" for n in test}
    assert "mds:train: 3 real, 3 fake, 0 without label." in report.notes
    assert "mds:test: 1 real, 2 fake, 0 without label." in report.notes
    assert any("n_test_originals_in_train: 1 of the 2 originals" in note for note in report.notes)
    assert report.leaks == {"mds:test & mds:train": 1}
    assert report.warnings == []


def test_mds_test_without_reals_gets_the_originals_not_trained_on(tree, scan) -> None:
    lists = {"mds_train_list.txt": listed(100, 102), "mds_test_list.txt": listed(101, 106)}
    rows, report = scan("dfdc", tree({**part("dfdc_train_part_3", MIXED), **lists}))
    test = {row["source_id"][5:] for row in rows.values() if "mds:test" in row["splits"]}
    assert test == {clip(n) for n in (101, 106, 3)}
    assert any("2 originals are added to mds:test, but for 1" in note for note in report.notes)


def test_an_empty_class_is_a_warning(tree, scan, tmp_path: Path) -> None:
    lists = {"train_list.txt": listed(100), "test_list.txt": listed(101)}
    root = tree({**part("dfdc_train_part_3", MIXED), **lists})
    _, report = build("dfdc", root, tmp_path / "m.parquet", ScanOptions())
    assert any("mds:test has no REAL clip" in text for text in report.warnings)
    assert any("warning: mds:test has no REAL" in line for line in report.lines())


def test_listed_clips_without_metadata_are_missing_rows(tree, scan) -> None:
    lists = {"train_list.txt": "aaaaaaaaaz.dfdc_train_part_24\n", "test_list.txt": listed(101)}
    rows, report = scan("dfdc", tree({**part("raw/dfdc_train_part_03", MIXED), **lists}))
    row = rows["dfdc/24/aaaaaaaaaz"]
    assert (row["uri"], row["bytes"]) == ("raw/dfdc_train_part_24/aaaaaaaaaz.mp4", None)
    assert (row["labels"], "mds:train" in row["splits"]) == ([1], True)
    assert any("1 of them in no metadata.json" in note for note in report.notes)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({f"{NAME}/metadata.json": "{"}, "is no JSON"),
        ({f"{NAME}/metadata.json": "[]"}, "holds no JSON object"),
        ({"my_list.txt": listed(1)}, "says neither train nor test"),
        ({"train_list.txt": listed(1), "test_list.txt": listed(1)}, "in the train and in the test"),
    ],
)
def test_bad_input_is_said(tree, scan, files, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scan("dfdc", tree({f"{NAME}/aaaaaaaaaa.mp4": b"1", **files}))


def test_labels_that_contradict_each_other_or_are_unknown(tree, scan) -> None:
    other = {"aagfhgtpmv.mp4": {"label": "REAL"}, "abarnvbtwb.mp4": {"label": "maybe"}}
    files = {**part(NAME, PART_0), "train_sample_videos/metadata.json": json.dumps(other)}
    rows, report = scan("dfdc", tree(files))
    assert rows["dfdc/00/aagfhgtpmv"]["labels"] == [1]
    assert any("1 clips are REAL in one file and FAKE in another" in t for t in report.warnings)
    assert report.unknown_labels == {"maybe": 1}


@pytest.mark.skipif(not (SHARED / "lists").is_dir(), reason="the shared lists are not here")
def test_the_real_lists(tree, scan) -> None:
    """Part 3 is made up from the real list: each of its fakes gets an original of its own."""
    lists = SHARED / "lists"
    rows_of = {
        name: (lists / f"mds_{name}_list.txt").read_text().split() for name in ("train", "test")
    }
    fakes = [r.split(".")[0] for r in rows_of["train"] if r.endswith("part_03")]
    metadata = {
        **{
            f"{name}.mp4": {"label": "FAKE", "original": f"{clip(i)}.mp4"}
            for i, name in enumerate(fakes)
        },
        **{f"{clip(i)}.mp4": {"label": "REAL"} for i in range(len(fakes))},
    }
    root = tree(part("dfdc_train_part_03", metadata))
    rows, report = scan("dfdc", root, annotations=lists)
    assert len(fakes) == 1050
    counts = Counter(split for row in rows.values() for split in row["splits"])
    assert counts["mds:train"] == 15_438 + 1050
    assert counts["mds:test"] == 3281
    assert report.splits["mds:train"] == [15_438 + 1050, 2 * 1050]
    assert report.splits["mds:test"] == [3281, 0]
    parts = Counter(key.split("/")[1] for key, r in rows.items() if "mds:test" in r["splits"])
    assert parts == {
        "01": 260,
        "02": 241,
        "03": 219,
        "04": 277,
        "22": 380,
        "23": 379,
        "24": 419,
        "25": 404,
        "26": 365,
        "27": 337,
    }
    assert any("15,438 names (15,438 published)" in note for note in report.notes)
    assert any("3,281 names (3,281 published)" in note for note in report.notes)
    assert report.duplicate_rows == 0
