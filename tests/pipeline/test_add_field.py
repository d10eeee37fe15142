"""`pipeline add-field`: fields of a finished set, made of what it stores."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import UsageError
from pipeline import PROFILES
from pipeline.add_field import FieldWish, add_field
from pipeline.config import Limits, ShardConfig
from pipeline.drop import Wanted, drop
from pipeline.duplicates import duplicates
from pipeline.field_check import field_lines
from pipeline.fields import FieldConfig, command, stored_field
from pipeline.format import (
    decode_jpeg,
    decode_npy,
    encode_flac,
    read_shard,
    split_jpegs,
)
from pipeline.item import Item, Made
from pipeline.job import JobOptions
from pipeline.offsets import offsets
from pipeline.outputs import Outputs
from pipeline.peek import peek
from pipeline.sample import outcomes
from pipeline.verify import ExitCode, verify
from pipeline.view import view_lines, view_of
from tests.pipeline.fabricate import (
    Members,
    edit_json,
    fabricate,
    make_members,
    write_set,
)
from tests.pipeline.heads import head_members, write_video
from tests.pipeline.rows import row

SOUND = ShardConfig("sound", Fraction(10), None, 22050, 24000, 1)
HEADS = ShardConfig("glcm", Fraction(10), 128, 22050)
FRAMES = 8
MOUTH = np.array([78, 131])
"""The middle of the lips in the pasted head, in its pixels, as a person sees it."""
MOUTH_CORNERS = np.array([78.5, 125.5])
"""The middle between the corners of the mouth."""
ONE = JobOptions(executor="local", workers=1)
MEL_TOLERANCE = 0.02
"""Of natural log power, away from the clip's ends: 16 bits, and one resampling more."""


def add(out: Path, field: str, job: JobOptions = ONE, **wish: Any) -> Any:
    return add_field(out, FieldWish(field, **wish), job, lambda *_: None)


def hashes(folder: Path) -> dict[str, str]:
    tars = sorted((folder / "shards").glob("*.tar"))
    return {tar.name: hashlib.sha256(tar.read_bytes()).hexdigest() for tar in tars}


def noise(frames: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((frames * 2400, 1))).astype(np.float32)


def sound_members(number: int, frames: int = 20, seed: int | None = None) -> Members:
    members = make_members(
        SOUND, f"demo/sound{number}", instance=number, seconds=frames / 10, face=False
    )
    wave = noise(frames, number if seed is None else seed)
    return {**members, "audio.flac": encode_flac(wave, 24000)}


def sounds(out: Path, shards: int = 2) -> Path:
    """Two clips a shard."""
    contents = [[sound_members(2 * s), sound_members(2 * s + 1)] for s in range(shards)]
    return write_set(out, SOUND, contents)


def index_of(out: Path, field: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "fields" / field / "shardindex.json").read_bytes())
    return found


# --- faces of stored frames ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of clips with a head, and one clip without."""
    out = tmp_path_factory.mktemp("heads") / "set"
    contents = [[head_members(HEADS, f"demo/head{n}", n, FRAMES)] for n in range(3)]
    contents[0].append(head_members(HEADS, "demo/nobody", 3, FRAMES, with_head=False))
    return write_set(out, HEADS, contents)


@pytest.fixture(scope="module")
def lips(heads: Path) -> Path:
    before = hashes(heads)
    assert add(heads, "lip").exit_code == 0
    assert hashes(heads) == before
    return heads


def side_samples(out: Path, field: str) -> dict[str, Members]:
    tars = sorted((out / "fields" / field / "shards").glob("*.tar"))
    return {name: members for tar in tars for name, members in read_shard(tar)}


def test_side_shards_have_the_samples_of_their_shards_in_that_order(lips: Path) -> None:
    for tar in sorted((lips / "shards").glob("*.tar")):
        beside = lips / "fields/lip/shards" / tar.name
        names = [name for name, _ in read_shard(tar)]
        assert [name for name, _ in read_shard(beside)] == names
        assert all(list(m) == ["lip.json", "lip.mjpeg"] for _, m in read_shard(beside))


def test_a_clip_without_a_face_has_an_empty_member(lips: Path) -> None:
    nobody = side_samples(lips, "lip")["demo--nobody"]
    assert nobody["lip.mjpeg"] == b""
    assert json.loads(nobody["lip.json"])["faces"] == []
    assert index_of(lips, "lip")["faceless"] == 1


def test_lips_follow_the_head_in_source_pixels(lips: Path) -> None:
    for number in range(3):
        members = side_samples(lips, "lip")[f"demo--head{number}"]
        head = json.loads(members["lip.json"])
        centres = []
        for matrix in head["faces"][0]["lip_transform"]:
            matrix = np.array(matrix)
            centres.append(np.linalg.solve(matrix[:, :2], [55.5, 55.5] - matrix[:, 2]))
        steps = np.arange(FRAMES)[:, None] * [2, 1]
        mouth = np.array([90 + 40 * number, 40]) + MOUTH + steps
        assert np.abs(np.array(centres) - mouth).max() < 3
        jpegs = split_jpegs(members["lip.mjpeg"], head["jpeg_sizes"]["lip"])
        assert {decode_jpeg(jpeg).shape for jpeg in jpegs if jpeg} == {(112, 112, 3)}
        assert None not in jpegs
        assert head["enlarged"] > 1


def test_the_index_opens_with_wids_and_is_named_by_the_set(lips: Path) -> None:
    import wids

    folder = lips / "fields/lip"
    data = wids.ShardListDataset(str(folder / "shardindex.json"), base=str(folder))
    assert len(data) == 4
    named = Outputs(lips).index()["fields"]["lip"]
    digest = hashlib.sha256((folder / "shardindex.json").read_bytes()).hexdigest()
    assert (named["samples"], named["errors"], named["sha256"]) == (4, 0, digest)


def test_other_commands_know_the_field(lips: Path) -> None:
    assert verify(lips, deep=False, progress=None).exit_code == ExitCode.OK
    assert field_lines(lips) == ["lip: 4 samples, 0 errors"]
    assert any("field    lip: " in line for line in peek(lips, ["demo/head1"]))
    assert any("no face" in line for line in peek(lips, ["demo/nobody"]))


def test_two_workers_write_the_same_bytes(lips: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(lips, out, ignore=shutil.ignore_patterns("fields"))
    add(out, "lip", JobOptions(executor="local", workers=2))
    assert hashes(out / "fields/lip") == hashes(lips / "fields/lip")


def test_landmarks_agree_with_the_lips(lips: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(lips, out)
    add(out, "landmarks")
    members = side_samples(out, "landmarks")["demo--head0"]
    points = decode_npy(members["landmarks.npy"])
    assert points.shape == (FRAMES, 68, 2)
    corners = points[:, [48, 54]].mean(axis=1)
    steps = np.arange(FRAMES)[:, None] * [2, 1]
    assert np.abs(corners - (MOUTH_CORNERS + steps + [90, 40])).max() < 3
    assert set(Outputs(out).index()["fields"]) == {"landmarks", "lip"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of the same two videos: `on` with faces, `off` without."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "raw").mkdir()
    for number in range(2):
        write_video(str(folder / f"raw/head{number}.mp4"), number, 12)
    for faces in ("on", "off"):
        command = ["shards", "--dataset", "folder", "--root", folder / "raw", "--faces", faces,
                   "--out", folder / faces, "--executor", "local", "--workers", "1",
                   "--seconds-per-shard", "1"]  # fmt: skip
        subprocess.run([sys.executable, "-m", "pipeline", *map(str, command)], check=True)
    return folder


@pytest.mark.slow
def test_lips_of_the_source_are_those_of_a_set_with_faces(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(videos / "off", out)
    add(out, "lip", from_source=True)
    with_faces = {n: m for tar in (videos / "on/shards").glob("*.tar") for n, m in read_shard(tar)}
    added = side_samples(out, "lip")
    assert added.keys() == with_faces.keys()
    for name, members in added.items():
        assert members["lip.mjpeg"] == with_faces[name]["lip.mjpeg"]


@pytest.mark.slow
def test_lips_of_stored_frames_agree_with_those_of_the_source(videos: Path, tmp_path: Path) -> None:
    """A crop's middle within 1.5 source pixels, its scale within 4 %, its roll within 2 degrees."""
    out = tmp_path / "set"
    shutil.copytree(videos / "off", out)
    (videos / "raw").rename(videos / "gone")  # nothing is decoded again
    try:
        add(out, "lip")
    finally:
        (videos / "gone").rename(videos / "raw")
    with_faces = {n: m for tar in (videos / "on/shards").glob("*.tar") for n, m in read_shard(tar)}
    for name, members in side_samples(out, "lip").items():
        metas = [json.loads(members["lip.json"]), json.loads(with_faces[name]["json"])]
        ours, theirs = (np.array(meta["faces"][0]["lip_transform"]) for meta in metas)
        middles = [
            np.array([np.linalg.solve(m[:, :2], [55.5, 55.5] - m[:, 2]) for m in of])
            for of in (ours, theirs)
        ]
        assert np.abs(middles[0] - middles[1]).max() < 1.5
        scales = [np.sqrt(np.linalg.det(of[:, :, :2])) for of in (ours, theirs)]
        assert np.abs(scales[0] / scales[1] - 1).max() < 0.04
        rolls = [np.arctan2(of[:, 1, 0], of[:, 0, 0]) for of in (ours, theirs)]
        assert np.abs(np.degrees(rolls[0] - rolls[1])).max() < 2


@pytest.mark.slow
def test_killed_in_the_middle_the_same_command_goes_on(heads: Path, tmp_path: Path) -> None:
    """Killed with all its children as soon as a shard is committed, three times."""
    out, whole = tmp_path / "set", tmp_path / "whole"
    for copy in (out, whole):
        shutil.copytree(heads, copy, ignore=shutil.ignore_patterns("fields"))
    add(whole, "lip")
    command = [sys.executable, "-m", "pipeline", "add-field", str(out), "lip", "--executor",
               "local", "--workers", "1"]  # fmt: skip
    shards = out / "fields/lip/shards"
    for count in (1, 2):
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while job.poll() is None and len(list(shards.glob("*.json"))) < count:
            time.sleep(0.02)
        children = psutil.Process(job.pid).children(recursive=True) if job.poll() is None else []
        job.kill()
        for child in children:
            if child.is_running():
                os.kill(child.pid, signal.SIGKILL)
        job.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert hashes(out / "fields/lip") == hashes(whole / "fields/lip")
    assert not list(shards.glob("*tmp*"))


# --- mel -----------------------------------------------------------------------------------------


def test_a_mel_of_the_stored_waveform_is_that_of_the_source(tmp_path: Path) -> None:
    """Away from the ends, where a source goes on and the stored waveform does not."""
    import soundfile

    wave = noise(40, 7)
    soundfile.write(tmp_path / "noise.wav", wave, 24000, subtype="PCM_16")
    item = Item(str(tmp_path), (row("noise.wav", 0.5, 3.5, anchored=True, key="demo/noise"),))
    stored, direct = (
        next(o for o in outcomes(item, config, Limits()) if isinstance(o, Made)).members
        for config in (SOUND, ShardConfig("sound", Fraction(10), None, 12000, 24000, 1))
    )
    out = write_set(tmp_path / "set", SOUND, [[stored]])
    assert add(out, "mel_12000", mel_rate_hz=12000).exit_code == 0
    (members,) = side_samples(out, "mel_12000").values()
    ours = decode_npy(members["mel_12000.npy"]).astype(float)
    theirs = decode_npy(direct["mel.npy"]).astype(float)
    assert ours.shape == theirs.shape == (80, 90)
    hop, reach = 12000 / 30, 512
    edge = int(np.ceil(reach / hop))
    assert np.abs(ours - theirs)[:, edge:-edge].max() < MEL_TOLERANCE
    assert json.loads(members["mel_12000.json"])["hop_samples"] == hop
    other = decode_npy(stored["mel.npy"]).astype(float)
    assert np.abs(ours - other).mean() > 10 * MEL_TOLERANCE  # the set's own mel is another one


@pytest.mark.parametrize(
    ("profile", "field", "wish", "said"),
    [
        ("glcm", "mel_2", {"mel_rate_hz": 24000}, "stores no waveform"),
        ("sound", "mel_2", {"mel_rate_hz": 16000}, "rates that are: "),
        ("sound", "mel_2", {"mel_rate_hz": 48000}, "nothing above 12000 Hz"),
        ("sound", "mel", {"mel_rate_hz": 12000}, "a member mel already"),
        ("sound", "lip", {}, "stores no frames"),
        ("lips", "lip", {}, "a member lip already"),
        ("glcm", "emotion", {}, "is made of is not said"),
        ("glcm", "Lip!", {"mel_rate_hz": 24000}, "small letters"),
        ("avid", "lip", {"from_source": True}, "is not there"),
    ],
)
def test_what_cannot_be_made_is_refused(
    tmp_path: Path, profile: str, field: str, wish: dict[str, Any], said: str
) -> None:
    out = fabricate(tmp_path / "set", PROFILES[profile], shards=1, samples=1)
    with pytest.raises(UsageError, match=said):
        add(out, field, **wish)
    assert not (out / "fields").exists()


def test_sources_on_a_store_are_not_said_to_be_gone(tmp_path: Path) -> None:
    out = sounds(tmp_path / "set")
    edit_json(out / "plan.json", manifest_root="s3://bucket/raw")
    with pytest.raises(UsageError, match=r"s3://bucket/raw, which is no folder of this machine"):
        add(out, "low", mel_rate_hz=12000, from_source=True)


def test_a_field_made_otherwise_is_not_mixed_with(tmp_path: Path) -> None:
    out = sounds(tmp_path / "set")
    add(out, "low", mel_rate_hz=12000)
    before = hashes(out / "fields/low")
    with pytest.raises(UsageError, match="mel_rate_hz: 12000 -> 24000"):
        add(out, "low", mel_rate_hz=24000)
    assert hashes(out / "fields/low") == before
    add(out, "low", mel_rate_hz=24000, overwrite=True)
    assert index_of(out, "low")["config"]["mel_rate_hz"] == 24000


def test_a_damaged_sample_is_an_error_row_and_the_others_have_the_field(tmp_path: Path) -> None:
    out = sounds(tmp_path / "set")
    (entry, _) = json.loads((out / "shards/train-000000.json").read_bytes())["samples"]
    start, size = entry["members"]["audio.flac"]
    with (out / "shards/train-000000.tar").open("r+b") as file:
        file.seek(start + size // 2)
        file.write(bytes(range(256)) * 4)
    assert add(out, "low", mel_rate_hz=12000).exit_code == 0
    (lost,) = pq.read_table(out / "fields/low/errors.parquet").to_pylist()
    assert (lost["key"], lost["reason"]) == (entry["key"], "decode_error")
    counts = index_of(out, "low")["counts"]
    assert counts == {"planned": 4, "samples": 3, "errors": 1}


# --- versions of the set -------------------------------------------------------------------------


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
            f"`python -m pipeline {by} OUT` makes it again"
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
    assert "1 shards kept, 1 made" in add(out, "low", mel_rate_hz=12000).lines
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
    assert any("field low: 1 side shards" in line for line in done.lines)
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
