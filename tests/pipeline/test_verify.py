"""`pipeline.verify` against sets made by hand: sound ones pass, every kind of damage is named."""

import hashlib
import io
import json
import shutil
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import PROFILES
from pipeline.format import encode_json, encode_npy
from pipeline.outputs import NotFinishedError
from pipeline.verify import ExitCode, verify
from tests.pipeline.fabricate import (
    edit_json,
    fabricate,
    failure,
    make_members,
    write_index,
    write_set,
)

GLCM = PROFILES["glcm"]


def found(out: Path, *, deep: bool = True) -> str:
    verdict = verify(out, deep, progress=None)
    return "\n".join([*verdict.corrupt, *verdict.missing])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_sound_set_of_every_profile_passes(tmp_path: Path, profile: str) -> None:
    out = fabricate(tmp_path / "out", PROFILES[profile])
    verdict = verify(out, deep=True, progress=None)
    assert (verdict.corrupt, verdict.missing) == ([], [])
    assert verdict.exit_code == ExitCode.OK
    assert (verdict.planned_rows, verdict.samples, verdict.errors) == (8, 6, 2)
    assert verdict.lines()[-1] == "every sample decodes"


def test_processes_find_the_same(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM, shards=3)
    (out / "shards/train-000001.tar").write_bytes(b"")
    verdict = verify(out, deep=True, workers=2, progress=None)
    assert verdict.corrupt == verify(out, deep=True, progress=None).corrupt
    assert verdict.exit_code == ExitCode.CORRUPT


def test_a_log_gets_a_line_every_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = fabricate(tmp_path / "out", GLCM, shards=7, samples=1)
    monkeypatch.setattr("pipeline.verify.time", SimpleNamespace(monotonic=count(0, 4).__next__))
    log = io.StringIO()
    verify(out, progress=log)
    assert log.getvalue() == "verify: 3 of 7 shards\nverify: 6 of 7 shards\n"


def test_a_set_without_plan_is_told_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(NotFinishedError, match="pipeline shards"):
        verify(tmp_path, progress=None)


def test_a_shard_not_committed_is_incomplete(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    (out / "shards/train-000001.json").unlink()
    write_index(out)
    verdict = verify(out, progress=None)
    assert verdict.exit_code == ExitCode.INCOMPLETE
    assert "train-000001 is not committed" in verdict.missing
    assert verdict.lines()[-2].endswith(": the ledger is open until what is missing is there")
    (out / "shards/stray.tar").write_bytes(b"")
    verdict = verify(out, progress=None)
    assert verdict.exit_code == ExitCode.CORRUPT
    assert verdict.lines()[-2].endswith(": THE LEDGER DOES NOT CLOSE")


def test_an_index_not_written_is_incomplete(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    (out / "shardindex.json").unlink()
    assert "pipeline finalize" in found(out)
    assert verify(out, progress=None).exit_code == ExitCode.INCOMPLETE


def test_rows_left_out_by_a_limit_are_said_and_no_fault(tmp_path: Path) -> None:
    contents = [[make_members(GLCM, "a")]]
    out = write_set(tmp_path / "out", GLCM, contents, [[failure("b", "not_run")]])
    verdict = verify(out)
    assert verdict.exit_code == ExitCode.OK
    said = "2 rows planned = 1 sample + 0 errors + 1 not run: the ledger closes"
    assert said in verdict.lines()


def test_a_changed_byte_is_found_by_its_hash(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    tar = out / "shards/train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    assert "train-000000: sha256 is" in found(out, deep=False)


def test_a_short_tar_and_a_lost_tar_are_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    tar = out / "shards/train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-20000])
    (out / "shards/train-000001.tar").unlink()
    text = found(out)
    assert "train-000000.tar has" in text
    assert "train-000001.tar is not" in text


def test_a_key_that_occurs_twice_is_named(tmp_path: Path) -> None:
    contents = [[make_members(GLCM, "a/b")], [make_members(GLCM, "a/b", instance=1)]]
    out = write_set(tmp_path / "out", GLCM, contents)
    assert found(out) == "the key 'a/b' occurs 2 times"


def test_a_sidecar_of_another_configuration_is_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    edit_json(out / "shards/train-000000.json", config_hash="0" * 64)
    assert "train-000000: config_hash is 000000000000" in found(out)


def test_a_sidecar_that_miscounts_is_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    edit_json(out / "shards/train-000000.json", rows=9, nsamples=5)
    text = found(out)
    assert "the plan has 4 rows, the sidecar 9: 3 samples and 1 error" in text
    assert "nsamples is 5, listed are 3" in text


def test_a_sidecar_that_is_no_json_is_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    (out / "shards/train-000000.json").write_text("\x1b[31m{")
    text = found(out)
    assert "is not JSON" in text
    assert "\x1b" not in text


def test_wrong_offsets_are_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    path = out / "shards/train-000000.json"
    samples = json.loads(path.read_text())["samples"]
    samples[0]["members"]["mel.npy"][0] += 512
    samples[1]["offset"] += 512
    edit_json(path, samples=samples)
    text = found(out)
    assert "demo--clip000: mel.npy is not at" in text
    assert "demo--clip001: ends at" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": 19}, "one size a frame"),
        ({"fps": "25/1"}, "fps is '25/1'"),
        ({"pts": [0.5] * 19}, "19 picture times"),
        ({"pts": [0.5 + 0.2 * k for k in range(20)]}, "after the middle of its interval"),
        ({"pts": [2.0 - 0.1 * k for k in range(20)], "held": [0]}, "run backwards"),
        ({"pts": [0.0] * 20}, "frame 0 is 0.550 s old at 25.0 pictures a second"),
        ({"labels": [5]}, "labels is [5], manifest.parquet says [0]"),
        ({"splits": ["demo:test"]}, "splits is ['demo:test'] in the sample"),
        ({"transcript": "set red"}, "transcript is 'set red', manifest.parquet says 'bin blue'"),
        ({"frame_size": [99, 99]}, "frames holds pictures"),
        ({"words": [{"w": "x", "start_s": 2, "end_s": 1}]}, "ends before it starts"),
        ({"key": "else"}, "belongs to another name"),
        ({"faces": []}, "0 tracks are described"),
        ({"schema": 2}, "schema 2"),
    ],
)
def test_json_that_disagrees_is_found(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    members = make_members(GLCM, "a")
    out = write_set(tmp_path / "out", GLCM, [[members]])
    meta = json.loads(members["json"])
    _rewrite(out, {**members, "json": encode_json({**meta, **change})})
    assert sentence in found(out)


def test_mel_and_members_that_disagree_are_found(tmp_path: Path) -> None:
    members = make_members(GLCM, "a")
    out = write_set(tmp_path / "out", GLCM, [[members]])
    _rewrite(out, {**members, "mel.npy": encode_npy(np.zeros((80, 3), np.float16))})
    assert "mel is float16 (80, 3)" in found(out)
    _rewrite(out, {name: data for name, data in members.items() if name != "lip.mjpeg"})
    assert "has the members" in found(out)


def _rewrite(out: Path, members: dict[str, bytes]) -> None:
    """Replace the tar, and make the sidecar and index agree with its hash, size and offsets."""
    place = out.parent / "other"
    shutil.rmtree(place, ignore_errors=True)
    base = json.loads((out / "shards/train-000000.json").read_text())
    honest = {**members, "json": _honest(members["json"], base["samples"][0]["key"])}
    write_set(place, GLCM, [[honest]])
    tar = (place / "shards/train-000000.tar").read_bytes()
    if honest["json"] != members["json"]:
        padding = len(honest["json"]) - len(members["json"])
        tar = tar.replace(honest["json"], members["json"] + b" " * padding)
    (out / "shards/train-000000.tar").write_bytes(tar)
    sidecar = json.loads((place / "shards/train-000000.json").read_text())
    sidecar |= {"sha256": hashlib.sha256(tar).hexdigest(), "fingerprint": base["fingerprint"]}
    (out / "shards/train-000000.json").write_text(json.dumps(sidecar))
    write_index(out)


def _honest(stored: bytes, key: str) -> bytes:
    """The JSON with room for what the test writes in its place."""
    meta = json.loads(stored)
    sound = json.loads(make_members(GLCM, key)["json"])
    return encode_json({**sound, "extra": {"room": " " * len(encode_json(meta))}})


def test_a_tar_that_nobody_planned_is_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    shutil.copy(out / "shards/train-000000.tar", out / "shards/extra.tar")
    assert "extra.tar is not in the plan" in found(out)


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("samples", "offset", 512),
        ("samples", "splits", ["demo:test"]),
        ("samples", "luma", 3.0),
        ("errors", "key", "demo/other"),
        ("errors", "reason", "no_video"),
    ],
)
def test_a_wrong_value_in_a_table_is_found(
    tmp_path: Path, name: str, column: str, value: object
) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    table = pq.read_table(out / f"{name}.parquet")
    rows = table.to_pylist()
    rows[1][column] = value
    pq.write_table(pa.Table.from_pylist(rows, table.schema), out / f"{name}.parquet")
    assert f"{name}.parquet, row 1: {column} is " in found(out)
    assert verify(out, deep=True, progress=None).exit_code == ExitCode.CORRUPT


def test_a_table_cut_short_is_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    table = pq.read_table(out / "samples.parquet")
    pq.write_table(table.slice(0, 5), out / "samples.parquet")
    assert "samples.parquet, row 5: key is null, the sidecars give" in found(out)


@pytest.mark.parametrize(
    "change",
    [
        {"members": ["json"]},
        {"labels": ["cat"]},
        {"splits": {}},
        {"reasons": {"crash": 2}},
        {"shardlist": []},
        {"surprise": 1},
    ],
)
def test_an_index_that_disagrees_in_any_field_is_found(
    tmp_path: Path, change: dict[str, object]
) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    edit_json(out / "shardindex.json", **change)
    assert "shardindex.json" in found(out)


@pytest.mark.parametrize("name", ["md5sum", "filesize", "part", "seconds"])
def test_a_shard_misstated_by_the_index_is_found(tmp_path: Path, name: str) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    shards = json.loads((out / "shardindex.json").read_text())["shardlist"]
    shards[1][name] = "0"
    edit_json(out / "shardindex.json", shardlist=shards)
    assert f"shardindex.json, shard 1: {name} is" in found(out)


def test_a_wrong_md5_of_the_sidecar_is_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    edit_json(out / "shards/train-000000.json", md5="0" * 32)
    assert "train-000000: md5 is" in found(out)


def test_a_lost_or_edited_manifest_is_found(tmp_path: Path) -> None:
    out = fabricate(tmp_path / "out", GLCM)
    rows = pq.read_table(out / "manifest.parquet")
    changed = rows.to_pylist()
    changed[1]["labels"] = [7]
    pq.write_table(pa.Table.from_pylist(changed, rows.schema), out / "manifest.parquet")
    text = found(out)
    assert "train-000000: its rows in manifest.parquet are not those of the plan" in text
    assert "demo--clip001: labels is [1], manifest.parquet says [7]" in text
    (out / "manifest.parquet").unlink()
    assert "manifest.parquet is not there" in found(out)
