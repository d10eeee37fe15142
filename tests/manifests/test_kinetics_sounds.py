"""Kinetics-Sounds: a view over Kinetics-400 with its own class numbers."""

from __future__ import annotations

import pytest

from manifests.kinetics_sounds import CLASSES_32

HEADER = "label,youtube_id,time_start,time_end,split\n"
CSV = HEADER + "".join(
    f"{label},{c * 11},0,10,{split}\n"
    for c, label, split in [
        ("a", "abseiling", "train"),
        ("b", "bowling", "train"),
        ("c", "tap dancing", "val"),
        ("d", "strumming guitar", "train"),
    ]
)


def test_the_list_has_32_known_names() -> None:
    assert len(set(CLASSES_32)) == 32
    assert "playing bass guitar" in CLASSES_32 and "playing xylophone" in CLASSES_32
    assert "typing" not in CLASSES_32


@pytest.mark.parametrize(("label_set", "keys"), [(32, "bcd"), (31, "bc")])
def test_view(tree, scan, label_set: int, keys: str) -> None:
    files = {f"train/{c * 11}_000000_000010.mp4": b"1" for c in "abd"}
    rows, report = scan(
        "kinetics-sounds", tree({**files, "annotations/train.csv": CSV}), label_set=label_set
    )
    assert set(rows) == {f"k400/{c * 11}_000000_000010" for c in keys}
    assert len(report.vocabulary) == label_set
    row = rows["k400/ccccccccccc_000000_000010"]
    assert row["dataset"] == "kinetics_sounds"
    assert row["labels"] == [report.vocabulary.index("tap dancing")]
    assert (row["splits"], row["anchored"], row["bytes"]) == (["k400:val"], True, None)
    assert any("lacks" in note for note in report.notes)
