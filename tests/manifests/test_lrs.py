"""LRS2 and LRS3: side files, lists, val lists, pieces of pretraining clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import DATASETS, UsageError
from manifests.lrs import parse

MAIN = "Text:  WHEN YOU'RE COOKING CHIPS AT HOME\nConf:  4\n"
PRETRAIN = """Text:  WHEN THERE ISN'T MUCH ELSE
Conf:  4

WORD START END ASDSCORE
WHEN 0.08 0.23 2.4
THERE 0.23 0.60 3.1
ISN'T 1.60 2.00 2.2
MUCH 2.00 2.40 4.0
ELSE 2.44 2.90 5.5
"""
LRS3_TEXT = """Text:  SO THIS IS: {LG} THE 2ND {ONE}
Conf:  3
Ref:  00j9bKdiOjk

FRAME   X   Y   W   H
000001 0.367 0.163 0.187 0.333

WORD START END ASDSCORE
SO 0.10 0.20 1.0

FRAME after the words
"""
CLIP = "5535415699068794046/00001"
LISTS = {
    "train.txt": "5535415699068794046/00002\r\n",
    "val.txt": "6330311066473698535/00011 NF\n",
    "test.txt": f"{CLIP} MV\n6330311066473698535/00012 NF\n",
    "pretrain.txt": "5535415699068794046/00009\n5535415699068794046/00009\n",
}
FILES: dict[str, str | bytes] = {
    f"main/{CLIP}.mp4": b"1",
    f"main/{CLIP}.txt": MAIN,
    "main/5535415699068794046/00002.mp4": b"1",
    "main/5535415699068794046/00002.txt": MAIN.replace("WHEN", "{WHEN}"),
    "main/5535415699068794046/00003.mp4": b"1",
    "main/6330311066473698535/00011.mp4": b"1",
    "pretrain/5535415699068794046/00009.mp4": b"1",
    "pretrain/5535415699068794046/00009.txt": PRETRAIN,
}


def inside(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


@pytest.mark.parametrize(
    ("files", "before"),
    [
        ({**inside("mvlrs_v1", FILES), **inside("mvlrs_v1", LISTS)}, "mvlrs_v1/"),
        ({**inside("mvlrs_v1", FILES), **LISTS}, "mvlrs_v1/"),
        ({**FILES, **LISTS}, ""),
    ],
)
def test_lrs2(tree, scan, files, before: str) -> None:
    rows, report = scan("lrs2", tree(files))
    row = rows[f"lrs2/main/{CLIP}"]
    assert row["uri"] == f"{before}main/{CLIP}.mp4"
    assert row["transcript"] == "WHEN YOU'RE COOKING CHIPS AT HOME"
    assert (row["words"], row["splits"], row["anchored"]) == ([], ["lrs2:test"], True)
    assert (row["start_s"], row["end_s"], row["expect"]["fps"]) == (0, None, 25)
    assert row["group_id"] == "lrs2:5535415699068794046"
    assert '"confidence": "4"' in row["extra"] and '"list_token": "MV"' in row["extra"]
    assert (
        rows["lrs2/main/5535415699068794046/00002"]["transcript"]
        == "WHEN YOU'RE COOKING CHIPS AT HOME"
    )
    assert {key: (r["splits"], r["bytes"] is not None) for key, r in rows.items()} == {
        f"lrs2/main/{CLIP}": (["lrs2:test"], True),
        "lrs2/main/5535415699068794046/00002": (["lrs2:train"], True),
        "lrs2/main/6330311066473698535/00011": (["lrs2:val"], True),
        "lrs2/main/6330311066473698535/00012": (["lrs2:test"], False),
        "lrs2/pretrain/5535415699068794046/00009": (["lrs2:pretrain"], True),
    }
    lost = rows["lrs2/main/6330311066473698535/00012"]
    assert lost["uri"] == f"{before}main/6330311066473698535/00012.mp4"
    assert rows["lrs2/pretrain/5535415699068794046/00009"]["expect"]["duration_s"] == 2.9
    words = rows["lrs2/pretrain/5535415699068794046/00009"]["words"]
    assert words[0] == {"w": "WHEN", "start_s": 0.08, "end_s": 0.23}
    assert [word["w"] for word in words] == ["WHEN", "THERE", "ISN'T", "MUCH", "ELSE"]
    assert (report.files_without_row, report.duplicate_rows) == (1, 1)
    assert report.leaks["lrs2:test & lrs2:train"] == 1
    assert report.leaks["lrs2:test & lrs2:val"] == 1
    assert DATASETS["lrs2"].official == {"lrs2:test": 1243}
    assert any("2 clips have no .txt with 'Text:'" in note for note in report.notes)


def test_lists_beside_the_root_are_asked_for(tree, scan) -> None:
    root = tree({**inside("mvlrs_v1", FILES), **LISTS})
    rows, report = scan("lrs2", root / "mvlrs_v1")
    assert rows[f"lrs2/main/{CLIP}"]["splits"] == []
    assert rows["lrs2/pretrain/5535415699068794046/00009"]["splits"] == ["lrs2:pretrain"]
    assert any("4 clips of main have no split" in n and "--annotations" in n for n in report.notes)
    rows, report = scan("lrs2", root / "mvlrs_v1", annotations=root)
    assert rows[f"lrs2/main/{CLIP}"]["splits"] == ["lrs2:test"]
    assert len(report.annotations) == 4


def test_second_colons_braces_and_sections() -> None:
    speech = parse(LRS3_TEXT)
    assert speech.text == "SO THIS IS: LG THE 2ND ONE"
    assert speech.words == [{"w": "SO", "start_s": 0.1, "end_s": 0.2}]
    assert speech.facts == {"confidence": "3", "reference": "00j9bKdiOjk"}


@pytest.mark.parametrize("row", ["WHEN 0.08", "WHEN a b 2", "WHEN 2.0 1.0 2", "WHEN nan 1.0 2"])
def test_broken_word_rows_lose_their_times_and_are_said(tree, scan, row: str) -> None:
    text = f"Text:  WHEN\nConf:  4\n\nWORD START END ASDSCORE\n{row}\n"
    root = tree({"pretrain/123/00001.mp4": b"1", "pretrain/123/00001.txt": text})
    rows, report = scan("lrs2", root)
    assert rows["lrs2/pretrain/123/00001"]["words"] == []
    assert rows["lrs2/pretrain/123/00001"]["transcript"] == "WHEN"
    assert any("1 .txt files have word rows" in note for note in report.notes)


def test_pieces_are_cut_between_words(tree, scan) -> None:
    """By hand: 0.08-0.60 fits in 1.5 s less two margins; ISN'T ends at 2.00, too late for it."""
    rows, report = scan("lrs2", tree({**FILES, **LISTS}), window_seconds=1.5)
    pieces = [row for key, row in rows.items() if "/pretrain/" in key]
    assert [(r["key"], r["start_s"], r["end_s"], r["transcript"]) for r in pieces] == [
        ("lrs2/pretrain/5535415699068794046/00009-00000000", 0.0, 0.8, "WHEN THERE"),
        ("lrs2/pretrain/5535415699068794046/00009-00001400", 1.4, 2.42, "ISN'T MUCH"),
        ("lrs2/pretrain/5535415699068794046/00009-00002420", 2.42, 2.9, "ELSE"),
    ]
    assert pieces[1]["words"] == [
        {"w": "ISN'T", "start_s": 0.2, "end_s": 0.6},
        {"w": "MUCH", "start_s": 0.6, "end_s": 1.0},
    ]
    assert {r["source_id"] for r in pieces} == {"lrs2:pretrain/5535415699068794046/00009"}
    assert all(r["end_s"] - r["start_s"] <= 1.5 and not r["pre_trimmed"] for r in pieces)
    assert pieces[1]["expect"]["duration_s"] == 1.02
    assert any("3 rows are such pieces" in note for note in report.notes)
    assert rows[f"lrs2/main/{CLIP}"]["end_s"] is None


def test_what_fits_stays_whole_and_one_long_word_is_a_piece(tree, scan) -> None:
    rows, _ = scan("lrs2", tree({**FILES, **LISTS}), window_seconds=15)
    assert rows["lrs2/pretrain/5535415699068794046/00009"]["end_s"] is None
    rows, _ = scan("lrs2", tree({**FILES, **LISTS}), window_seconds=0.1)
    texts = [row["transcript"] for key, row in rows.items() if "/pretrain/" in key]
    assert texts == ["WHEN", "THERE", "ISN'T", "MUCH", "ELSE"]


LRS3_FILES: dict[str, str | bytes] = {
    "lrs3/trainval/00j9bKdiOjk/50001.mp4": b"1",
    "lrs3/trainval/00j9bKdiOjk/50001.txt": LRS3_TEXT,
    "lrs3/trainval/--9bKdiOjk_/50002.mp4": b"1",
    "lrs3/pretrain/0af00UcTOSc/50001.mp4": b"1",
    "lrs3/test/0Fi83BHQsMA/00002.mp4": b"1",
    "lrs3/test/0Fi83BHQsMA/00004.txt": MAIN,
}


def test_lrs3_splits_are_folders(tree, scan) -> None:
    rows, report = scan("lrs3", tree(LRS3_FILES))
    row = rows["lrs3/trainval/00j9bKdiOjk/50001"]
    assert row["uri"] == "lrs3/trainval/00j9bKdiOjk/50001.mp4"
    assert row["splits"] == ["lrs3:trainval"]
    assert row["group_id"] == "yt:00j9bKdiOjk"
    assert row["transcript"] == "SO THIS IS: LG THE 2ND ONE"
    assert rows["lrs3/trainval/--9bKdiOjk_/50002"]["transcript"] is None
    assert rows["lrs3/pretrain/0af00UcTOSc/50001"]["splits"] == ["lrs3:pretrain"]
    assert report.splits["lrs3:test"] == [2, 1]
    assert rows["lrs3/test/0Fi83BHQsMA/00004"]["uri"] == "lrs3/test/0Fi83BHQsMA/00004.mp4"
    assert report.official == {}
    assert DATASETS["lrs3"].official["lrs3:test"] == 1321


@pytest.mark.parametrize("place", ["lrs3-valid.id", "lrs3/valid.txt", None])
def test_lrs3_val_list(tree, scan, tmp_path: Path, place: str | None) -> None:
    names = "trainval/00j9bKdiOjk/50001\ntrainval/AAAAAAAAAAA/50001\n"
    (tmp_path / "mine.id").write_text(names)
    root = tree({**LRS3_FILES, **({place: names} if place else {})})
    rows, report = scan("lrs3", root, **({} if place else {"annotations": tmp_path / "mine.id"}))
    assert rows["lrs3/trainval/00j9bKdiOjk/50001"]["splits"] == ["lrs3:val"]
    assert rows["lrs3/trainval/--9bKdiOjk_/50002"]["splits"] == ["lrs3:train"]
    assert report.official == {"lrs3:pretrain": 118_516, "lrs3:test": 1321}
    assert any("2 clips in it, 1 not there" in note for note in report.notes)


@pytest.mark.parametrize(("name", "clip"), [("lrs2", "main/1/00001"), ("lrs3", "test/1/00001")])
def test_annotations_of_no_use_are_refused(tree, scan, name: str, clip: str) -> None:
    root = tree({f"{clip}.mp4": b"1", "some.txt": "x"})
    with pytest.raises(UsageError, match=f"holds nothing that {name} can use"):
        scan(name, root, annotations=root / "some.txt")
