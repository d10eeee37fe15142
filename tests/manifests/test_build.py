"""From folder to file: what is taught, what is reused, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from manifests import DATASETS, ScanOptions, UsageError, schema
from manifests.build import build, default_out, default_root, ensure

CSV = "label,youtube_id,time_start,time_end,split\nabseiling,aaaaaaaaaaa,1,11,train\n"
CLIP = "train/aaaaaaaaaaa_000001_000011.mp4"


def test_build_writes_what_it_returns(tree, tmp_path: Path) -> None:
    root, out = tree({CLIP: b"1", "train.csv": CSV}), tmp_path / "k.parquet"
    table, report = build("kinetics", root, out)
    assert schema.read(out).equals(table)
    facts = schema.read_facts(out)
    assert facts.root == str(root)
    assert facts.report == report.as_dict()
    assert schema.read_labels(out, "kinetics400") == ["abseiling"]
    assert any("k400:train" in line for line in report.lines())
    assert "YouTube" in report.lines()[-1]


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"demo", "planted", "table"}))
def test_a_missing_folder_teaches(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, tmp_path / "absent", tmp_path / "m.parquet")
    text = str(caught.value)
    entry = DATASETS[name]
    assert "does not exist" in text
    for part in (entry.title, entry.what, entry.licence, f"make shards DATASET={name}", "ROOT"):
        assert part in text
    assert all(line in text for line in entry.layouts.splitlines())


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"demo", "planted", "table"}))
def test_an_empty_folder_teaches(name: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "readme.txt").write_text("x")
    with pytest.raises(UsageError, match="was recognised") as caught:
        build(name, root, tmp_path / "m.parquet")
    assert "txt side files: 1" in str(caught.value)
    assert not (tmp_path / "m.parquet").exists()


def test_annotations_without_any_file_teach(tree, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="None of the 1 files"):
        build("kinetics", tree({"train.csv": CSV}), tmp_path / "m.parquet")


def test_a_file_as_root_is_said(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        build("folder", tmp_path / "f", tmp_path / "m.parquet")


def test_ensure_reuses_until_something_changes(tree, tmp_path: Path) -> None:
    root, out = tree({CLIP: b"1", "train.csv": CSV}), tmp_path / "k.parquet"
    assert ensure("kinetics", root, out).rebuilt
    again = ensure("kinetics", root, out)
    assert not again.rebuilt
    assert again.report.splits == {"k400:train": [1, 1]}
    assert again.report.vocabulary == ["abseiling"]
    assert len(again.table) == 1
    (root / CLIP).write_bytes(b"more")
    assert ensure("kinetics", root, out).rebuilt
    (root / "val.csv").write_text(CSV)
    assert ensure("kinetics", root, out).rebuilt
    assert ensure("kinetics", root, out, ScanOptions(annotations=root)).rebuilt
    assert ensure("kinetics600", root, out).rebuilt
    out.write_bytes(b"damaged")
    assert ensure("kinetics600", root, out).rebuilt


def test_folder_is_always_made_anew(tree, tmp_path: Path) -> None:
    root, out = tree(["a.mp4"]), tmp_path / "f.parquet"
    assert ensure("folder", root, out).rebuilt
    assert ensure("folder", root, out).rebuilt


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("kinetics", {"window_seconds": 10.0}, "no option window_seconds"),
        ("folder", {"annotations": Path("/absent")}, "no option annotations"),
        ("kinetics", {"annotations": Path("/absent")}, "--annotations /absent does not exist"),
    ],
)
def test_options_that_nobody_hears_are_refused(tree, tmp_path, name, options, words) -> None:
    with pytest.raises(UsageError, match=words):
        build(name, tree(["a.mp4"]), tmp_path / "m.parquet", ScanOptions(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"window_seconds": 0.0},
        {"window_seconds": float("inf")},
        {"hop_seconds": 5.0},
        {"label_set": 33},
    ],
)
def test_impossible_options_are_refused(options) -> None:
    with pytest.raises(UsageError):
        ScanOptions(**options)


def test_a_place_that_cannot_be_written_is_said(tree, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        build("folder", tree(["a.mp4"]), tmp_path / "file" / "m.parquet")


def test_sets_that_make_their_files_need_no_folder(tmp_path: Path, monkeypatch) -> None:
    folder = DATASETS["folder"]

    def scan(root: Path, options: ScanOptions):
        if not (root / "made.mp4").exists():
            (root / "made.mp4").write_bytes(b"1")
        return folder.scan(root, ScanOptions())

    made = replace(folder, scan=scan, generated=True, rescan_always=False)
    monkeypatch.setitem(DATASETS, "folder", made)
    root, out = tmp_path / "new", tmp_path / "m.parquet"
    assert ensure("folder", root, out).rebuilt
    assert not ensure("folder", root, out).rebuilt
    (root / "made.mp4").unlink()
    assert ensure("folder", root, out).report.missing_files == 0
    assert DATASETS["demo"].generated


def test_default_paths_are_canonical() -> None:
    assert default_root("kinetics") == Path("data/raw/kinetics400")
    assert default_root("kinetics_sounds") == Path("data/raw/kinetics400")
    assert default_out("kinetics", Path("d")) == Path("d/manifests/kinetics400.parquet")


def test_the_report_sets_published_counts_beside_those_found(tree, tmp_path: Path) -> None:
    root = tree(["scenes_stereo/bus01.wav"])
    out = tmp_path / "m.parquet"
    _, report = build("dcase2013", root, out)
    assert report.incomplete()["dcase2013:train"] == (1, 100)
    lines = report.lines()
    train = next(line.split() for line in lines if line.startswith("  dcase2013:train"))
    assert train == ["dcase2013:train", "100", "1", "99", "100"]
    assert any("not the whole benchmark: 7 of 7 splits" in line for line in lines)
    again = ensure("dcase2013", root, out)
    assert not again.rebuilt
    assert again.report.official == report.official and again.report.lines() == lines


def test_only_splits_of_one_protocol_are_compared_for_leaks(tree, tmp_path: Path) -> None:
    root = tree(["YoYo/v_YoYo_g01_c01.avi", "YoYo/v_YoYo_g08_c01.avi"])
    _, report = build("ucf101", root, tmp_path / "m.parquet")
    # a group is train of one split and test of another, as it should be
    assert report.splits["ucf101:test1"] == report.splits["ucf101:test2"] == [1, 1]
    assert report.leaks == {}
