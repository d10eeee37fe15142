"""Fields that come from tables: numbers by key, features; and readers of the ecosystem."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import UsageError
from pipeline.format import decode_npy
from pipeline.verify import ExitCode, verify
from tests.pipeline.sides import add, side_samples, sounds

# --- numbers -------------------------------------------------------------------------------------


def test_a_number_is_joined_by_key(tmp_path: Path) -> None:
    out = sounds(tmp_path / "set")
    scores = {"demo/sound2": 2.5, "demo/sound0": -1.0, "demo/sound1": float("nan"), "else": 3.0}
    table = pa.table({"key": list(scores), "score": list(scores.values())})
    pq.write_table(table, tmp_path / "scores.parquet")
    outcome = add(out, "sync", table=tmp_path / "scores.parquet", column="score")
    assert "4 samples = 2 with sync + 2 errors: the ledger closes" in outcome.lines
    found = pq.read_table(out / "fields/sync/table.parquet").to_pylist()
    assert found == [{"key": "demo/sound0", "sync": -1.0}, {"key": "demo/sound2", "sync": 2.5}]
    errors = pq.read_table(out / "fields/sync/errors.parquet").to_pylist()
    assert [(e["key"], e["reason"]) for e in errors] == [
        ("demo/sound1", "not_run"), ("demo/sound3", "not_run")
    ]  # fmt: skip
    assert verify(out, progress=None).exit_code == ExitCode.OK


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"key": ["demo/sound0"], "sync": ["high"]}, "holds string"),
        ({"key": ["demo/sound0"] * 2, "sync": [1, 2]}, "more than once"),
        ({"key": ["a/b"], "sync": [1]}, "none of the 4 samples"),
        ({"name": ["demo/sound0"], "sync": [1]}, "expected `key`"),
    ],
)
def test_tables_that_cannot_be_joined_are_refused(
    tmp_path: Path, columns: dict[str, list[Any]], said: str
) -> None:
    out = sounds(tmp_path / "set")
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=said):
        add(out, "sync", table=tmp_path / "t.parquet")


# --- features ------------------------------------------------------------------------------------


def test_features_of_train_embed_become_members(tmp_path: Path) -> None:
    out = sounds(tmp_path / "set")
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "embed.json").write_text(json.dumps({"per": "clip", "channels": {"fg": 3, "fa": 2}}))
    rows = [
        {"key": "demo/sound0", "fg": [1.0, 2.0, 3.0], "fa": None, "has_sound": False},
        {"key": "demo/sound1", "fg": [4.0, 5.0, 6.0], "fa": [7.0, 8.0], "has_sound": True},
    ]
    pq.write_table(pa.Table.from_pylist(rows), parts / "train-000000.parquet")
    add(out, "embed", features=parts)
    members = side_samples(out, "embed")
    assert list(members["demo--sound1"]) == ["embed.json", "embed.fg.npy", "embed.fa.npy"]
    assert decode_npy(members["demo--sound1"]["embed.fg.npy"]).tolist() == [4, 5, 6]
    assert json.loads(members["demo--sound0"]["embed.json"])["has"] == {"fg": True, "fa": False}
    errors = pq.read_table(out / "fields/embed/errors.parquet").to_pylist()
    assert {e["key"]: e["reason"] for e in errors} == {
        "demo/sound2": "not_run", "demo/sound3": "not_run"
    }  # fmt: skip


# --- readers of the ecosystem --------------------------------------------------------------------

JOINING = """
import glob, json, webdataset as wds

def beside(samples, sides):
    side = next(sides, None)
    for sample in samples:
        if side and side["__key__"] == sample["__key__"]:
            yield {**side, **sample}
            side = next(sides, None)

shards = sorted(glob.glob("data/shards/demo-glcm/shards/*.tar"))
sides = [shard.replace("/shards/t", "/fields/low/shards/t") for shard in shards]
clips, fields = (iter(wds.WebDataset(tars, shardshuffle=False)) for tars in (shards, sides))
for clip in beside(clips, fields):
    print(json.loads(clip["json"])["key"], json.loads(clip["low.json"])["key"])
"""


def test_plain_webdataset_reads_shards_and_side_shards_together(tmp_path: Path) -> None:
    """Also where a sample in the middle has no such field."""
    out = sounds(tmp_path / "data/shards/demo-glcm")
    (_, entry) = json.loads((out / "shards/train-000000.json").read_bytes())["samples"]
    start, size = entry["members"]["audio.flac"]
    with (out / "shards/train-000000.tar").open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))
    add(out, "low", mel_rate_hz=12000)
    (tmp_path / "reader.py").write_text(JOINING)
    done = subprocess.run(
        [sys.executable, "-I", "reader.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pairs = [line.split() for line in done.stdout.splitlines()]
    assert pairs == [[f"demo/sound{n}"] * 2 for n in (0, 2, 3)]
