"""Hostile media and hostile shards: refused in words, nobody called, nothing touched, no memory.

One listening server and one folder of canaries for all of them.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from pipeline import PROFILES
from pipeline.config import Limits
from pipeline.item import Failed, Item
from pipeline.sandbox import Sandbox
from tests.faults import attacks
from tests.faults.jobs import X264, run
from tests.faults.media import resident_mib
from tests.pipeline.clips import make_clip
from tests.pipeline.fabricate import make_members, write_set
from tests.pipeline.rows import row

MEDIA_MIB_AT_MOST = 400
SHARDS_MIB_AT_MOST = 250
"""On top of what the reading program holds after a good set; the flac bomb alone is 700 MiB."""


@pytest.fixture(scope="module")
def server():
    with attacks.listening() as server:
        yield server
    assert server.knocks == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Canaries: a video outside the root and one beside the hostile files, and one not there."""
    place = tmp_path_factory.mktemp("security")
    (place / "raw").mkdir()
    make_clip(place / "canary.mp4", seconds=2, size="64x48", options=X264)
    shutil.copy(place / "canary.mp4", place / "raw" / "near.mp4")
    return place


@pytest.fixture(autouse=True)
def _nothing_touched(place, server):
    before = {name: (place / name).read_bytes() for name in ("canary.mp4", "raw/near.mp4")}
    yield
    assert before == {name: (place / name).read_bytes() for name in before}
    assert not (place / "written").exists()
    assert server.knocks == []


def test_18_shards_that_attack_are_refused(place):
    """Each by the trainer (exit code 5) and by `verify --deep` (5), in bounded memory."""
    sets = [_good_set(place / "good")]
    sets += [attacks.hostile_set(place / name, name, place / "written") for name in attacks.SHARDS]
    command = [sys.executable, "-m", "tests.faults.shard_probe", *map(str, sets)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    good, *found = [json.loads(line) for line in done.stdout.splitlines()]
    assert good["trainer"] == ""
    assert good["verify"].startswith("0 ")
    assert [line["set"] for line in found] == list(attacks.SHARDS)
    wrong = [line for line in found if not _refused(line)]
    assert wrong == []
    assert found[-1]["peak_mib"] - good["peak_mib"] < SHARDS_MIB_AT_MOST


def _good_set(out):
    """What the others were made of."""
    members = make_members(attacks.PLAIN, "demo/clip000", seconds=2, face=False)
    return write_set(out, attacks.PLAIN, [[members]])


def _refused(line):
    words = attacks.SHARDS[line["set"]][2]
    return (
        line["trainer"].startswith("ShardError 5 ")
        and words in line["trainer"]
        and line["verify"].startswith("5 ")
    )


def test_19_manifests_that_name_addresses_are_refused(place, server):
    config = replace(PROFILES["glcm"], faces="off")
    uris = attacks.addresses(server.url, place / "canary.mp4")
    with Sandbox(config, Limits()) as sandbox:
        for uri in uris:
            for asked in (row(uri), row("near.mp4", audio_uri=uri)):
                [(outcome, _)] = sandbox.run(Item(str(place / "raw"), (asked,)))
                assert isinstance(outcome, Failed), uri
                assert str(outcome.error.reason) in ("bad_path", "missing_file"), uri
                assert str(outcome.error).isprintable()


def test_20_texts_and_tracks_that_lead_elsewhere_are_refused(place, server, tmp_path):
    """A whole job over them all; beside them lie links, a FIFO and a device."""
    raw = shutil.copytree(place / "raw", tmp_path / "raw")
    made = attacks.texts(server.url, place / "canary.mp4")
    made |= {name.replace("near", "beside"): text.replace(b"canary.mp4", b"near.mp4")
             for name, text in made.items() if "near" in name}  # fmt: skip
    for name, content in made.items():
        (raw / name).write_bytes(content)
    (raw / "link.mp4").symlink_to(place / "canary.mp4")
    (raw / "device.mp4").symlink_to("/dev/zero")
    os.mkfifo(raw / "fifo.mp4")
    dref = attacks.with_external_data((raw / "near.mp4").read_bytes(), str(place / "canary.mp4"))
    (raw / "dref.mov").write_bytes(dref)
    said = run(raw, tmp_path / "out", "--max-error-rate", "1")
    errors = pq.read_table(tmp_path / "out" / "errors.parquet").to_pylist()
    reasons = {row["uri"]: row["reason"] for row in errors}
    assert {reasons.pop(name) for name in ("link.mp4", "device.mp4", "fifo.mp4")} == {"bad_path"}
    assert reasons.pop("dref.mov") in ("open_error", "decode_error", "no_video", "truncated")
    assert reasons == dict.fromkeys(made, "unsupported_format")
    assert f"{len(errors) + 1} rows = 1 sample " in said


def test_a_track_with_external_data_is_a_trap_that_libav_knows(place, tmp_path):
    """Otherwise the test above would prove nothing of it: asked to, ffmpeg goes for that file."""
    import imageio_ffmpeg

    data = (place / "raw" / "near.mp4").read_bytes()
    (tmp_path / "dref.mov").write_bytes(attacks.with_external_data(data, "/nowhere/canary.mp4"))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-enable_drefs", "1",
               "-use_absolute_path", "1", "-i", str(tmp_path / "dref.mov")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert "canary.mp4" in done.stderr


def test_22_a_file_that_fills_memory_stays_bounded(place, tmp_path):
    """A header that announces a box of 4 GiB, and one of 2^62 bytes."""
    config = replace(PROFILES["glcm"], faces="off")
    movie = (place / "raw" / "near.mp4").read_bytes()
    at = movie.index(b"stsz") - 4
    for name, size in (("box.mp4", b"\xff\xff\xff\xf0"), ("zero.mp4", b"\0\0\0\x01")):
        (tmp_path / name).write_bytes(movie[:at] + size + movie[at + 4 :])
    counts = movie[: at + 16] + b"\x7f\xff\xff\xff" + movie[at + 20 :]
    (tmp_path / "count.mp4").write_bytes(counts)
    with Sandbox(config, Limits()) as sandbox:
        for name in ("box.mp4", "zero.mp4", "count.mp4"):
            [(outcome, _)] = sandbox.run(Item(str(tmp_path), (row(name),)))
            assert isinstance(outcome, Failed), name
            assert resident_mib(sandbox) < MEDIA_MIB_AT_MOST, name
