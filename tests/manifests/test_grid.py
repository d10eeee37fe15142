"""GRID: layouts, sentences by name, words by alignment, splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from manifests import UsageError

ALIGN = """0 23000 sil
23000 29000 bin
29000 34000 blue
34000 35500 at
35500 40000 sp
40000 41000 f
41000 47250 two
47250 53000 now
53000 74500 sil
"""
MEDIA = Path(__file__).parents[2].parent / "shared/media"


@pytest.mark.parametrize(
    ("clip", "align"),
    [
        ("s1/bbaf2n.mpg", "align/s1/bbaf2n.align"),
        ("s1/bbaf2n.mpg", "alignments/s1/bbaf2n.align"),
        ("s1/video/mpg_6000/bbaf2n.mpg", "s1/align/bbaf2n.align"),
        ("S01/bbaf2n.mpg", "align/s1/bbaf2n.align"),
    ],
)
def test_layouts(tree, scan, clip: str, align: str) -> None:
    rows, report = scan("grid", tree({clip: b"1", align: ALIGN}))
    row = rows["grid/s1/bbaf2n"]
    assert row["uri"] == clip
    assert row["group_id"] == "grid:s1"
    assert (row["labels"], row["label_names"]) == ([2], ["two"])
    assert row["transcript"] == "bin blue at f two now"
    assert [w["w"] for w in row["words"]] == ["bin", "blue", "at", "f", "two", "now"]
    assert (row["words"][0]["start_s"], row["words"][0]["end_s"]) == (0.92, 1.16)
    assert row["words"][3]["start_s"] == 1.6
    assert row["anchored"] is True
    assert row["expect"]["fps"] == 25
    assert not any(".align" in note for note in report.notes)


def test_one_speaker_named_by_the_root(tmp_path: Path, scan) -> None:
    root = tmp_path / "grid-s7-h264"
    (root / "video").mkdir(parents=True)
    (root / "align").mkdir()
    (root / "video/lgaz9s.mp4").write_bytes(b"1")
    (root / "align/lgaz9s.align").write_text("0 25000 lay\n")
    rows, _ = scan("grid", root)
    assert rows["grid/s7/lgaz9s"]["words"] == [{"w": "lay", "start_s": 0.0, "end_s": 1.0}]
    assert rows["grid/s7/lgaz9s"]["transcript"] == "lay green at z nine soon"


def test_without_alignment_the_name_speaks(tree, scan) -> None:
    rows, report = scan("grid", tree(["s3/pwbozp.mpg", "s3/hello.mpg"]))
    row = rows["grid/s3/pwbozp"]
    assert (row["transcript"], row["words"]) == ("place white by o zero please", [])
    assert row["labels"] == [0]
    assert report.ignored["media files whose name is no GRID sentence"] == 1
    assert any("no .align" in note for note in report.notes)


def test_misspelt_words_keep_their_times(tree, scan) -> None:
    align = ALIGN.replace("bin", "bine").replace("two", "twoe")
    rows, _ = scan("grid", tree({"s1/bbaf2n.mpg": b"1", "align/s1/bbaf2n.align": align}))
    row = rows["grid/s1/bbaf2n"]
    assert [w["w"] for w in row["words"]] == ["bin", "blue", "at", "f", "two", "now"]
    assert row["words"][4]["end_s"] == 1.89
    assert '"bine"' in row["extra"]


def test_splits_by_speaker_do_not_leak(tree, scan) -> None:
    speakers = [1, 2, *range(3, 20), 20, 22]
    rows, report = scan("grid", tree([f"s{n}/bbaf2n.mpg" for n in speakers]))
    of = {key.split("/")[1]: row["splits"][0] for key, row in rows.items()}
    assert {s for s, split in of.items() if split == "grid:test"} == {"s1", "s2", "s20", "s22"}
    assert sum(split == "grid:val" for split in of.values()) == 2
    assert report.leaks == {}


def test_splits_by_sentence_are_fixed(tree, scan) -> None:
    names = [
        f"{a}{b}{c}{d}{e}n"
        for a in "blps"
        for b in "bgrw"
        for c in "ab"
        for d in "acdfg"
        for e in "z12"
    ]
    root = tree([f"s1/{name}.mpg" for name in names])
    first, _ = scan("grid", root)
    counts = {
        s: sum(f"grid:{s}" in r["splits"] for r in first.values()) for s in ("train", "val", "test")
    }
    assert sum(counts.values()) == len(names) == 480
    assert 350 <= counts["train"] <= 420 and counts["val"] >= 25 and counts["test"] >= 25
    (root / "s1" / f"{names[0]}.mpg").unlink()
    second, _ = scan("grid", root)
    assert all(first[key]["splits"] == row["splits"] for key, row in second.items())


def test_five_folds_by_sentence_cross_the_splits(tree, scan) -> None:
    letters = "abcdefghijklmnopqrstuvxyz"
    root = tree([f"s1/bb{p}{x}{d}n.mpg" for p in "abiw" for x in letters for d in "z123456789"])
    rows, report = scan("grid", root)
    pairs = Counter(tuple(row["splits"]) for row in rows.values())
    folds: Counter[str] = Counter()
    for (_, fold), n in pairs.items():
        folds[fold] += n
    assert set(folds) == {f"grid:fold{n}" for n in range(1, 6)}
    assert sum(folds.values()) == 1000
    # binomial(1000, 1/5) has a deviation of 12.6; a fold of train alone would hold no test clip
    assert all(abs(n - 200) < 60 for n in folds.values())
    assert len(pairs) == 15
    assert set(report.leaks) == {
        "grid:test & grid:train",
        "grid:test & grid:val",
        "grid:train & grid:val",
    }


def test_a_broken_alignment_is_named(tree, scan) -> None:
    root = tree({"s1/bbaf2n.mpg": b"1", "align/s1/bbaf2n.align": "0 x sil\n"})
    with pytest.raises(UsageError, match=r"bbaf2n\.align row 1"):
        scan("grid", root)


@pytest.mark.skipif(not (MEDIA / "grid-s1-h264").is_dir(), reason="the shared media are not here")
def test_real_speaker(scan) -> None:
    rows, _ = scan("grid", MEDIA / "grid-s1-h264")
    assert len(rows) > 900
    assert all(key.startswith("grid/s1/") for key in rows)
    assert all(len(row["words"]) == 6 and row["bytes"] > 1000 for row in rows.values())
    assert all(
        w["w"] == t
        for r in rows.values()
        for w, t in zip(r["words"], r["transcript"].split(), strict=True)
    )
    assert {row["splits"][0] for row in rows.values()} == {"grid:train", "grid:val", "grid:test"}
