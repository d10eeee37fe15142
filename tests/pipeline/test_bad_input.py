"""Files nobody vouches for: each ends in seconds, as the right sample or by its named reason."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from manifests.listing import to_uri
from pipeline import PROFILES
from pipeline.config import Limits
from pipeline.item import Failed, Item, Made
from pipeline.sandbox import Sandbox
from tests.pipeline.clips import ffmpeg, make_clip
from tests.pipeline.rows import damage, row

SECONDS_AT_MOST = 10
RESIDENT_MIB_AT_MOST = 400
CONFIG = replace(PROFILES["glcm"], faces="off")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-bf", "2", "-g", "25")
LAVFI = ("-f", "lavfi", "-i")
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nclip.mp4\n#EXT-X-ENDLIST\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>clip.mp4</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One good clip, `clip.mp4`, for files to be made of."""
    folder = tmp_path_factory.mktemp("bad")
    make_clip(folder / "clip.mp4", seconds=2.5, size="96x72", options=(*X264, "-shortest"))
    return folder


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(CONFIG, Limits()) as sandbox:
        yield sandbox


def ends(sandbox, folder, name, **window):
    """The outcome of a file, after checks of time, memory and tries."""
    started = time.monotonic()
    uri = name if isinstance(name, str) else name.name
    [(outcome, tries)] = sandbox.run(Item(str(folder), (row(uri, **window),)))
    assert time.monotonic() - started < SECONDS_AT_MOST
    assert tries == 1
    assert resident_mib(sandbox) < RESIDENT_MIB_AT_MOST
    return outcome


def resident_mib(sandbox):
    """The most memory the child ever held."""
    text = Path(f"/proc/{sandbox._child.pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) >> 10


def reason(outcome):
    assert isinstance(outcome, Failed), "it became a sample"
    return str(outcome.error.reason)


def meta(outcome):
    assert isinstance(outcome, Made), outcome
    return json.loads(outcome.members["json"])


# --- what is no video -------------------------------------------------------------------------

CONTENTS = {
    "empty.mp4": (b"", "empty_file"),
    "text.mp4": (b"no video at all\n" * 20, "unsupported_format"),
    "ffconcat.mp4": (b"ffconcat version 1.0\nfile 'clip.mp4'\n", "unsupported_format"),
    "ffconcat.txt.ffconcat": (b"ffconcat version 1.0\nfile clip.mp4\n", "unsupported_format"),
    "hls.mp4": (PLAYLIST.encode(), "unsupported_format"),
    "list.m3u8": (PLAYLIST.encode(), "unsupported_format"),
    "dash.mp4": (MPD.encode(), "unsupported_format"),
    "manifest.mpd": (MPD.encode(), "unsupported_format"),
    "concat.sdp": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\n", "unsupported_format"),
    "zeros.mp4": (bytes(50_000), "unsupported_format"),
    "random.ts": (bytes(range(7, 200)) * 200, "unsupported_format"),
    "counting.mp3": (bytes(range(256)) * 4, "unsupported_format"),
    "only_headers.mp3": (b"\xff\xfb" * 5000, "open_error"),
    "box.mp4": (b"\0\0\0\x18ftypisom" + bytes(100), "open_error"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_video_is_named_and_opens_nothing_else(sandbox, folder, name):
    content, expected = CONTENTS[name]
    (folder / name).write_bytes(content)
    assert reason(ends(sandbox, folder, name)) == expected


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_picture_named_mp4_is_no_video(sandbox, folder, kind):
    ffmpeg(*LAVFI, "testsrc2=size=64x48", "-frames:v", "1", folder / f"picture.{kind}")
    os.replace(folder / f"picture.{kind}", folder / f"{kind}.mp4")
    assert reason(ends(sandbox, folder, f"{kind}.mp4")) == "unsupported_format"


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("../../etc/passwd", "bad_path"),
        ("/etc/passwd", "bad_path"),
        ("http://127.0.0.1:9/x.mp4", "bad_path"),
        ("concat:clip.mp4|clip.mp4", "bad_path"),
        ("subfile,,start,0,end,100,,:clip.mp4", "bad_path"),
        ("file:clip.mp4", "bad_path"),
        ("pipe:0", "bad_path"),
        ("-i", "bad_path"),
        ("", "bad_path"),
        (".", "bad_path"),
        ("clip.mp4\0.txt", "bad_path"),
        ("a" * 300 + ".mp4", "bad_path"),
        ("clip.mp4/inside.mp4", "missing_file"),
        ("-abcdefghij.mp4", "missing_file"),
        ("Hello, world.mp4", "missing_file"),
    ],
)
def test_a_path_that_is_none_is_refused(sandbox, folder, uri, expected):
    assert reason(ends(sandbox, folder, uri)) == expected


def test_special_files_and_links_are_refused_without_hanging(sandbox, folder, tmp_path):
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "fifo.mp4")
    shutil.copy(folder / "clip.mp4", tmp_path / "outside.mp4")
    links = {"out.mp4": tmp_path / "outside.mp4", "loop.mp4": "loop.mp4", "gone.mp4": "nowhere"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "inside.mp4").symlink_to("clip.mp4")
    for name in ("folder.mp4", "fifo.mp4", "out.mp4", "loop.mp4"):
        assert reason(ends(sandbox, folder, name)) == "bad_path", name
    assert reason(ends(sandbox, folder, "gone.mp4")) == "missing_file"
    assert isinstance(ends(sandbox, folder, "inside.mp4"), Made)


@pytest.mark.parametrize(
    "name",
    [
        b"qu'o\"te.mp4", b"new\nline.mp4", "ünï–日本.mp4".encode(), b"a" * 250 + b".mp4", b"-i.mp4",
        b"%41 b.mp4", b"semi;rm.mp4", b"file:x.mp4", b"a|b.mp4", b"back\\slash.mp4",
        b"\xff\xfe.mp4",
    ],
)  # fmt: skip
def test_odd_names_are_opened_as_they_are(sandbox, folder, name):
    shutil.copy(folder / "clip.mp4", os.path.join(os.fsencode(folder), name))
    assert isinstance(ends(sandbox, folder, to_uri(os.fsdecode(name))), Made)


# --- cut, damaged, short ----------------------------------------------------------------------


def test_a_truncated_file_is_open_error_truncated_or_what_is_left(sandbox, folder):
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "no_moov.mp4").write_bytes(whole[: len(whole) // 2])
    ffmpeg("-i", folder / "clip.mp4", "-c", "copy", "-movflags", "+faststart", folder / "fast.mp4")
    fast = (folder / "fast.mp4").read_bytes()
    (folder / "cut40.mp4").write_bytes(fast[: len(fast) * 40 // 100])
    (folder / "cut80.mp4").write_bytes(fast[: len(fast) * 80 // 100])
    assert reason(ends(sandbox, folder, "no_moov.mp4")) == "open_error"
    assert reason(ends(sandbox, folder, "cut40.mp4")) == "truncated"
    facts = meta(ends(sandbox, folder, "cut80.mp4"))
    assert 12 <= facts["frames"] < 24
    assert facts["held"] == []
    assert facts["source"]["bad_packets"] > 0


def test_damaged_packets_are_passed_by_and_counted(sandbox, folder):
    for kind in ("video", "audio"):
        damage(folder / "clip.mp4", folder / f"{kind}.mkv", kind, {20, 21, 40})
        facts = meta(ends(sandbox, folder, f"{kind}.mkv"))
        assert facts["source"]["bad_packets"] == 3
        assert facts["frames"] == meta(ends(sandbox, folder, "clip.mp4"))["frames"]


def test_a_damaged_end_is_cut_off_rather_than_frozen(sandbox, folder):
    damage(folder / "clip.mp4", folder / "tail.mkv", "video", range(40, 80))
    facts = meta(ends(sandbox, folder, "tail.mkv"))
    assert 15 <= facts["frames"] <= 16
    assert len(set(facts["pts"])) == facts["frames"]


def test_a_stream_of_which_nothing_can_be_decoded_is_a_decode_error(sandbox, folder):
    damage(folder / "clip.mp4", folder / "none.mkv", "video", range(100))
    outcome = ends(sandbox, folder, "none.mkv")
    assert reason(outcome) == "decode_error"
    assert outcome.error.stage == "video"


@pytest.mark.parametrize(
    ("seconds", "more", "expected"),
    [
        (0.04, {}, "too_short"),
        (0.2, {}, "too_short"),
        (2, {"sound": False}, "no_audio"),
        (2, {"picture": False}, "no_video"),
    ],
)
def test_short_mute_and_blind_files_have_reasons_of_their_own(
    sandbox, tmp_path, seconds, more, expected
):
    options = X264 if more.get("picture", True) else ()
    path = make_clip(tmp_path / "x.mp4", seconds=seconds, size="64x48", options=options, **more)
    assert reason(ends(sandbox, tmp_path, path)) == expected


def test_short_clips_are_kept_where_the_set_asks_for_them(tmp_path):
    path = make_clip(tmp_path / "x.mp4", seconds=0.2, size="64x48", options=X264)
    with Sandbox(replace(CONFIG, faces="on", min_seconds=Fraction(1, 5)), Limits()) as sandbox:
        assert meta(ends(sandbox, tmp_path, path))["frames"] == 2
    with Sandbox(replace(CONFIG, min_seconds=Fraction(1, 4)), Limits()) as sandbox:
        outcome = ends(sandbox, tmp_path, path)
    assert reason(outcome) == "too_short"
    said = "0.20 s of picture and sound; at least 0.25 s, see --min-seconds"
    assert outcome.error.detail == said


# --- bombs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bomb.mov", ("-c:v", "png", "-pred", "none")),
        ("bomb.mp4", ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "gray")),
    ],
)
def test_a_picture_bomb_is_too_large_and_never_unpacked(tmp_path, name, options):
    sound = (*LAVFI, "sine=duration=1")
    picture = (*LAVFI, "color=size=9000x9000:rate=1:duration=1")
    ffmpeg(*picture, *sound, *options, "-frames:v", "1", tmp_path / name)
    with Sandbox(CONFIG, Limits()) as sandbox:
        assert reason(ends(sandbox, tmp_path, name)) == "too_large"
        assert resident_mib(sandbox) < 200


def test_a_bomb_in_mid_stream_ends_the_sample_and_is_never_unpacked(sandbox, tmp_path):
    for number, size in enumerate(("64x48", "4200x2400")):
        path = tmp_path / f"{number}.ts"
        make_clip(path, seconds=1.6, fps="5", size=size, options=X264)
    both = f"concat:{tmp_path / '0.ts'}|{tmp_path / '1.ts'}"
    ffmpeg("-i", both, "-c", "copy", tmp_path / "both.ts")
    facts = meta(ends(sandbox, tmp_path, "both.ts"))
    assert facts["frames"] == pytest.approx(16, abs=1)
    assert facts["source"]["bad_packets"] > 0


def test_a_hundred_and_twenty_streams_are_too_large(sandbox, tmp_path):
    maps = ["-map", "0:a"] * 120
    ffmpeg(*LAVFI, "sine=duration=1.5", *maps, "-c:a", "pcm_s16le", tmp_path / "many.mkv")
    outcome = ends(sandbox, tmp_path, "many.mkv")
    assert reason(outcome) == "too_large"
    assert "16 streams" in outcome.error.detail


def test_a_header_that_promises_a_million_seconds_is_truncated(sandbox, folder):
    ffmpeg("-i", folder / "clip.mp4", "-c", "copy", folder / "million.mkv")
    data = bytearray((folder / "million.mkv").read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Segment Info's Duration, a double of milliseconds
    data[at : at + 8] = struct.pack(">d", 1e9)
    (folder / "million.mkv").write_bytes(data)
    outcome = ends(sandbox, folder, "million.mkv")
    assert reason(outcome) == "truncated"
    assert "1000000.0 s" in outcome.error.detail


def test_a_picture_too_long_for_its_height_is_too_large(sandbox, tmp_path):
    path = make_clip(tmp_path / "thin.mp4", seconds=1.5, size="2000x16", options=X264)
    outcome = ends(sandbox, tmp_path, path)
    assert reason(outcome) == "too_large"
    assert "2000x16: the longer side of this shape is over 8 times" in outcome.error.detail


# --- odd but good -----------------------------------------------------------------------------

GOOD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "fps240.mp4": ({"fps": "240"}, X264),
    "fps1.mp4": ({"fps": "1", "seconds": 4}, X264),
    "odd_size.mkv": ({"size": "61x47"}, ("-c:v", "ffv1")),
    "tiny.mp4": ({"size": "16x16"}, X264),
    "ten_bits.mp4": ({}, (*X264, "-pix_fmt", "yuv420p10le")),
    "full_chroma.mp4": ({}, (*X264, "-pix_fmt", "yuv444p")),
    "gray.mp4": ({}, (*X264, "-pix_fmt", "gray")),
    "palette.mov": ({}, ("-c:v", "png", "-pix_fmt", "pal8")),
    "alpha.mov": ({}, ("-c:v", "qtrle", "-pix_fmt", "argb")),
    "sixteen_bits.mov": ({}, ("-c:v", "png", "-pix_fmt", "rgb48be")),
    "interlaced.mpg": ({}, ("-c:v", "mpeg2video", "-flags", "+ilme+ildct")),
    "surround.mkv": ({}, (*X264, "-ac", "6", "-c:a", "ac3")),
    "eight_bit_sound.mkv": ({}, (*X264, "-c:a", "pcm_u8", "-ar", "8000")),
    "double_sound.mkv": ({}, (*X264, "-c:a", "pcm_f64le", "-ar", "96000")),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_but_good_files_become_samples(sandbox, tmp_path, name):
    shape, options = GOOD[name]
    shape = {"seconds": 2, "size": "64x48", **shape}
    facts = meta(ends(sandbox, tmp_path, make_clip(tmp_path / name, **shape, options=options)))
    assert facts["frames"] == pytest.approx(shape["seconds"] * 10, abs=1)
    assert facts["source"]["bad_packets"] == 0
    assert not facts["quality"]["silent"]
    assert 50 < facts["quality"]["luma"] < 200


def test_a_size_that_changes_keeps_the_first_size(sandbox, tmp_path):
    for number, size in enumerate(("96x64", "192x144")):
        make_clip(tmp_path / f"{number}.ts", seconds=1.2, size=size, options=X264)
    both = f"concat:{tmp_path / '0.ts'}|{tmp_path / '1.ts'}"
    ffmpeg("-i", both, "-c", "copy", tmp_path / "both.ts")
    facts = meta(ends(sandbox, tmp_path, "both.ts"))
    assert facts["frame_size"] == [192, 128]  # 3:2, as at first; the rest is 4:3
    assert facts["frames"] > 20


def test_a_cover_picture_is_no_video_and_other_streams_are_left_alone(sandbox, folder, tmp_path):
    cover = ("-map", "0:a", "-map", "1:v", "-c:v", "mjpeg", "-disposition:v:0", "attached_pic")
    tone, picture = "sine=duration=2", "testsrc2=size=64x48:duration=0.04"
    ffmpeg(*LAVFI, tone, *LAVFI, picture, *cover, tmp_path / "cover.m4a")
    assert reason(ends(sandbox, tmp_path, "cover.m4a")) == "no_video"
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nhello\n\n")
    clip = folder / "clip.mp4"
    several = ("-map", "0", "-map", "1", "-map", "0:a", "-c:v", "copy", "-c:a", "copy")
    ffmpeg("-i", clip, "-i", tmp_path / "words.srt", *several, tmp_path / "several.mkv")
    assert meta(ends(sandbox, tmp_path, "several.mkv"))["frames"] == 24


@pytest.mark.parametrize("late", ["audio", "video"])
def test_a_stream_that_starts_late_begins_the_sample(sandbox, folder, tmp_path, late):
    clip, path = folder / "clip.mp4", tmp_path / "late.mkv"
    order = ("-i", clip, "-itsoffset", "0.8", "-i", clip)
    maps = ("0:v", "1:a") if late == "audio" else ("1:v", "0:a")
    ffmpeg(*order, "-map", maps[0], "-map", maps[1], "-c", "copy", path)
    facts = meta(ends(sandbox, tmp_path, path))
    assert facts["t0"] == pytest.approx(0.8, abs=0.041)
    assert facts["frames"] == pytest.approx(17, abs=1)
    assert facts["source"][f"{late}_start"] == pytest.approx(0.8, abs=0.041)
    assert (facts["held"], facts["padded"]) == ([], [])


def test_a_file_that_changed_after_the_scan_is_read_as_it_is(sandbox, folder, tmp_path):
    shutil.copy(folder / "clip.mp4", tmp_path / "grown.mp4")
    outcome = ends(sandbox, tmp_path, "grown.mp4", bytes=17)
    assert meta(outcome)["source"]["bytes"] == (folder / "clip.mp4").stat().st_size


def test_times_of_a_variable_rate_are_those_of_the_file(sandbox, tmp_path):
    drop = ("-vf", "select='mod(n,7)-3'", "-fps_mode", "passthrough")
    path = make_clip(tmp_path / "vfr.mkv", seconds=2, size="64x48", options=(*X264, *drop))
    facts = meta(ends(sandbox, tmp_path, path))
    assert facts["source"]["vfr"]
    steps = {round((b - a) * 25) for a, b in pairwise(facts["pts"])}
    assert steps <= {1, 2, 3, 4}


# --- the whole command ------------------------------------------------------------------------


def test_the_command_line_books_every_bad_file_and_hangs_on_none(folder, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("text.mp4", "hls.mp4", "empty.mp4", "list.m3u8"):
        (raw / name).write_bytes(CONTENTS[name][0])
    os.mkfifo(raw / "fifo.mp4")
    (raw / "passwd.mp4").symlink_to("/etc/passwd")
    shutil.copy(folder / "clip.mp4", raw / "clip.mp4")
    shutil.copy(folder / "clip.mp4", os.path.join(os.fsencode(raw), b"\xff\n\x1b[31m.mp4"))
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "pipeline", "shards", "--dataset", "folder", "--root", str(raw),
        "--out", str(out), "--faces", "off", "--executor", "local", "--max-error-rate", "1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr.decode()
    assert b"\x1b[31m" not in done.stdout + done.stderr
    errors = pq.read_table(out / "errors.parquet").to_pylist()
    assert {row["uri"]: row["reason"] for row in errors} == {
        "text.mp4": "unsupported_format", "hls.mp4": "unsupported_format",
        "empty.mp4": "empty_file", "list.m3u8": "unsupported_format",
        "fifo.mp4": "bad_path", "passwd.mp4": "bad_path",
    }  # fmt: skip
    assert pq.read_table(out / "samples.parquet").num_rows == 2
