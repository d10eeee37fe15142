"""Fields of a set that changes: shards made again, damaged, indexed anew, clips taken back."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.add_field import FieldWish
from pipeline.drop import Wanted, drop
from pipeline.duplicates import duplicates
from pipeline.fields import FieldConfig, command, stored_field
from pipeline.offsets import offsets
from pipeline.outputs import Outputs
from pipeline.peek import peek
from pipeline.verify import ExitCode, verify
from pipeline.view import view_lines, view_of
from tests.pipeline.fabricate import edit_json, write_set
from tests.pipeline.sides import SOUND, add, hashes, index_of, side_samples, sound_members, sounds


def change_sound2(out: Path) -> None:
    """As after `--overwrite`: other bytes under the same key."""
    other = write_set(
        out.parent / "other", SOUND,
        [[sound_members(0), sound_members(1)], [sound_members(2, seed=9), sound_members(3)]],
    )  # fmt: skip
    for name in ("shards/train-000001.tar", "shards/train-000001.json", "shardindex.json",
                 "samples.parquet"):  # fmt: skip
        shutil.copy(other / name, out / name)
    edit_json(out / "shardindex.json", fields={})


def test_facts_of_clips_that_were_made_again_are_not_used_and_named(tmp_path: Path) -> None:
    """Numbers and columns of quality/ go by key, and the clip of a key is another one now."""
    out = sounds(tmp_path / "set")
    scores = tmp_path / "my scores.parquet"
    pq.write_table(pa.table({"key": [f"demo/sound{n}" for n in range(4)], "x": range(4)}), scores)
    add(out, "sync", table=scores, column="x")
    duplicates([out])
    offsets(out)
    every = "duplicate_rank == 0"
    assert verify(out, progress=None).exit_code == ExitCode.OK
    assert view_of(out, every).sizes[0].passing.clips == 4
    change_sound2(out)
    again = f"python -m pipeline add-field {out} sync --table '{scores}' --column x"
    found = verify(out, progress=None).missing
    assert (
        f"field sync: train-000001 is new, or was made again since; `{again}` mends it, where the "
        "table has the numbers of the clips as they are now"
    ) in found
    for table, by in (("duplicate_groups", "duplicates"), ("av_offsets", "offsets")):
        assert (
            f"quality/{table}.parquet does not know 2 clips as they are now; they have null there: "
            f"`python -m pipeline {by} {out}` makes it again"
        ) in found
    view = view_of(out, every)
    assert view.sizes[0].passing.clips == 2
    assert any("does not know 2 clips as they are now" in line for line in view_lines(view))
    duplicates([out])
    offsets(out)
    subprocess.run([sys.executable, *shlex.split(again)[1:]], check=True)
    assert verify(out, progress=None).exit_code == ExitCode.OK
    assert view_of(out, every).sizes[0].passing.clips == 4


@pytest.mark.parametrize(
    ("wish", "flags"),
    [
        ({"mel_rate_hz": 12000}, "--mel-rate 12000"),
        ({"mel_rate_hz": 12000, "from_source": True}, "--mel-rate 12000 --from-source"),
        ({"features": Path("/data/parts")}, "--features /data/parts"),
        ({"table": Path("/data/t.parquet"), "column": "x"}, "--table /data/t.parquet --column x"),
        ({}, ""),
    ],
)
def test_the_command_that_is_advised_has_the_flags(
    tmp_path: Path, wish: dict[str, Any], flags: str
) -> None:
    folder = tmp_path / "fields/low"
    folder.mkdir(parents=True)
    config = FieldConfig("low", "number", SOUND)
    stored = stored_field(config, "hash", FieldWish("low", **wish).flags)
    (folder / "field.json").write_text(json.dumps(stored))
    said = f"python -m pipeline add-field {tmp_path} low {flags}"
    assert command(tmp_path, "low") == said.rstrip()


def test_a_shard_that_was_made_again_has_its_side_shard_made_again_and_no_other(
    tmp_path: Path,
) -> None:
    out = sounds(tmp_path / "set")
    add(out, "low", mel_rate_hz=12000)
    before = hashes(out / "fields/low")
    change_sound2(out)
    verdict = verify(out, progress=None)
    assert verdict.exit_code == ExitCode.CORRUPT  # its index names no fields
    assert any("train-000001 is new, or was made again" in said for said in verdict.missing)
    assert "1 shard kept, 1 made" in add(out, "low", mel_rate_hz=12000).lines
    after = hashes(out / "fields/low")
    assert after["train-000000.tar"] == before["train-000000.tar"]
    assert after["train-000001.tar"] != before["train-000001.tar"]
    assert verify(out, progress=None).exit_code == ExitCode.OK


def test_a_damaged_side_shard_is_found_and_mended(tmp_path: Path) -> None:
    out = sounds(tmp_path / "set")
    add(out, "low", mel_rate_hz=12000)
    before = hashes(out / "fields/low")
    tar = out / "fields/low/shards/train-000001.tar"
    data = bytearray(tar.read_bytes())
    data[3000] ^= 1
    tar.write_bytes(data)
    verdict = verify(out, progress=None)
    assert verdict.exit_code == ExitCode.CORRUPT
    assert "field low: train-000001.tar" in verdict.corrupt[0]
    tar.with_suffix(".json").unlink()
    add(out, "low", mel_rate_hz=12000)
    assert hashes(out / "fields/low") == before


def test_side_shards_of_another_clip_are_found_by_decoding_all(tmp_path: Path) -> None:
    out = sounds(tmp_path / "set")
    add(out, "low", mel_rate_hz=12000)
    folder = out / "fields/low"
    index = index_of(out, "low")
    index["shardlist"][0], index["shardlist"][1] = (
        {**index["shardlist"][1 - n], "url": index["shardlist"][n]["url"]} for n in range(2)
    )
    tars = [folder / entry["url"] for entry in index["shardlist"]]
    tars[0].rename(folder / "aside")
    tars[1].rename(tars[0])
    (folder / "aside").rename(tars[1])
    (folder / "shardindex.json").write_text(json.dumps(index))
    found = verify(out, deep=True, progress=None).corrupt
    assert any("is not the clip of that name" in said for said in found)


def test_writing_the_index_again_keeps_the_fields(tmp_path: Path) -> None:
    from pipeline.index import finalize
    from pipeline.prepare import load

    out = sounds(tmp_path / "set")
    add(out, "low", mel_rate_hz=12000)
    named = Outputs(out).index()["fields"]
    finalize(load(out), partial=False)
    assert Outputs(out).index()["fields"] == named


def test_clips_that_are_taken_back_leave_the_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped, the loader does not see them; purged, their bytes are in no field either."""
    # The page takes longer than all the rest.
    monkeypatch.setattr("pipeline.drop.write_page", lambda out: out / "report.html")
    out = sounds(tmp_path / "set")
    add(out, "low", mel_rate_hz=12000)
    numbers = pa.table({"key": ["demo/sound0", "demo/sound3"], "sync": [1.0, 2.0]})
    pq.write_table(numbers, tmp_path / "t.parquet")
    add(out, "sync", table=tmp_path / "t.parquet")
    before = hashes(out / "fields/low")
    drop(out, Wanted(frozenset({"demo/sound3"}), runs=tmp_path))
    assert hashes(out / "fields/low") == before
    done = drop(out, Wanted(frozenset({"demo/sound3"}), purge=True, runs=tmp_path))
    assert any("field low: 1 side shard of" in line for line in done.lines)
    assert list(hashes(out / "fields/low")) == ["train-000000.tar"]
    there, gone = (
        next(line for line in peek(out, [f"demo/sound{n}"]) if "field    low" in line)
        for n in (0, 2)
    )
    assert "kB in train-000000.tar" in there
    assert "gone with its side shard train-000001" in gone and "pipeline add-field" in gone
    assert pq.read_table(out / "fields/sync/table.parquet")["key"].to_pylist() == ["demo/sound0"]
    drop(out, Wanted(frozenset({"demo/sound1"}), purge=True, runs=tmp_path))  # without a number
    assert pq.read_table(out / "fields/sync/errors.parquet")["key"].to_pylist() == ["demo/sound2"]
    assert index_of(out, "sync")["counts"] == {"planned": 2, "samples": 1, "errors": 1}
    assert index_of(out, "sync")["reasons"] == {"not_run": 1}
    add(out, "low", mel_rate_hz=12000)
    assert set(side_samples(out, "low")) == {"demo--sound0", "demo--sound2"}
    assert index_of(out, "low")["counts"] == {"planned": 2, "samples": 2, "errors": 0}
    assert verify(out, deep=False, progress=None).exit_code == ExitCode.OK
