"""`pipeline add-field`: fields of a finished set, made of what it stores."""

import hashlib
import json
import os
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
import pyarrow.parquet as pq
import pytest

from manifests.errors import UsageError
from pipeline import PROFILES
from pipeline.config import Limits, ShardConfig
from pipeline.field_check import field_lines
from pipeline.format import decode_jpeg, decode_npy, read_shard, split_jpegs
from pipeline.item import Item, Made
from pipeline.job import JobOptions
from pipeline.outputs import Outputs
from pipeline.peek import peek
from pipeline.sample import outcomes
from pipeline.summary import error_lines
from pipeline.verify import ExitCode, verify
from tests.pipeline.fabricate import edit_json, fabricate, write_set
from tests.pipeline.heads import head_members, write_video
from tests.pipeline.rows import row
from tests.pipeline.sides import (
    FRAMES,
    HEADS,
    SOUND,
    add,
    hashes,
    index_of,
    noise,
    side_samples,
    sounds,
)

MOUTH = np.array([78, 131])
"""The middle of the lips in the pasted head, in its pixels, as a person sees it."""
MOUTH_CORNERS = np.array([78.5, 125.5])
"""The middle between the corners of the mouth."""
MEL_TOLERANCE = 0.02
"""Of natural log power, away from the clip's ends: 16 bits, and one resampling more."""


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


def test_nobody_is_sent_in_a_circle_between_a_source_and_a_waveform_that_are_not_there(
    tmp_path: Path,
) -> None:
    out = fabricate(tmp_path / "set", PROFILES["glcm"], shards=1, samples=1)
    edit_json(out / "plan.json", manifest_root=str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="no waveform is stored either") as refused:
        add(out, "mel_2", mel_rate_hz=24000, from_source=True)
    assert "without that flag" not in str(refused.value)


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
    outcome = add(out, "low", mel_rate_hz=12000)
    assert outcome.exit_code == 0
    assert outcome.lines[-1] == f"Why: python -m pipeline errors {out}/fields/low"
    assert any(entry["key"] in line for line in error_lines(out / "fields/low", None, 20))
    (lost,) = pq.read_table(out / "fields/low/errors.parquet").to_pylist()
    assert (lost["key"], lost["reason"]) == (entry["key"], "decode_error")
    counts = index_of(out, "low")["counts"]
    assert counts == {"planned": 4, "samples": 3, "errors": 1}
