"""Case 23: manifests and tables that are wrong, and names that are only odd."""

import csv
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.jobs import X264, run
from tests.pipeline.clips import make_clip
from tests.pipeline.rows import manifest as rows

MANIFESTS = {
    "a column less": (rows("a").drop_columns(["uri"]), ["lacks the column uri"]),
    "another type": (rows("a").set_column(7, "start_s", pa.array(["soon"])), ["start_s"]),
    "duplicate keys": (rows("a", "b", "a"), ["not unique", "row 0", "row 2"]),
    "a dot in a key": (rows("a", "a.b"), ["row 1", "a.b", "dot"]),
    "a key without end": (rows("x/"), ["row 0", "x/"]),
    "a label out of range": (rows("a", labels=[-1], label_names=["x"]), ["row 0", "negative"]),
    "25 faults": (rows(*(f"{n}.x" for n in range(25))), ["row 9", "15 more"]),
    "no rows": (rows("a").slice(0, 0), ["empty"]),
    "no table": (b"key,uri\n", ["m.parquet"]),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_23_manifest_with(tmp_path, name):
    content, words = MANIFESTS[name]
    path = tmp_path / "m.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(content, path)
    said = run(tmp_path, tmp_path / "out", "--manifest", path, code=2)
    assert said.startswith("error: ")
    assert [word for word in words if word not in said] == []
    assert "row 10 " not in said
    assert not (tmp_path / "out").exists()


NAMES = [
    "v1.2 clip.a.mp4", "sub.dir/ünï–日本.mp4", "a--b/c-.mp4", "x" * 200 + ".mp4",
    "deep/" * 20 + "e.mp4",
]  # fmt: skip


def test_23_table_with_bom_and_crlf_and_odd_names(tmp_path):
    """Dots, slashes, other alphabets and 200 characters: each becomes one sample of one key."""
    raw = tmp_path / "raw"
    clip = make_clip(tmp_path / "clip.mp4", seconds=1.5, size="64x48", options=X264)
    for name in NAMES:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, os.path.join(raw, name))
    with open(tmp_path / "t.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerows([["path", "label"], *([name, "a"] for name in NAMES)])
    out = tmp_path / "out"
    run(raw, out, "--dataset", "table", "--table", tmp_path / "t.csv")
    samples = pq.read_table(out / "samples.parquet").to_pylist()
    assert sorted(row["uri"] for row in samples) == sorted(NAMES)
    bases = [row["base"] for row in samples]
    assert len(set(bases)) == len(NAMES)
    assert not [base for base in bases if "." in base or "/" in base or not base.isascii()]
