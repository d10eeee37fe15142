"""Cases 19 to 21: paths, texts and files nobody vouches for, each with its own reason."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pyarrow.parquet as pq
import pytest

from manifests.listing import to_uri
from pipeline.config import Limits
from pipeline.item import Made
from pipeline.sandbox import Sandbox
from tests.faults.media import CONFIG, LAVFI, X264, ends, folder, meta, reason, sandbox
from tests.pipeline.clips import ffmpeg, make_clip
from tests.pipeline.rows import damage

__all__ = ["folder", "sandbox"]

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nclip.mp4\n#EXT-X-ENDLIST\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>clip.mp4</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>"
)


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
def test_20_texts_that_call_themselves_videos(sandbox, folder, name):
    content, expected = CONTENTS[name]
    (folder / name).write_bytes(content)
    assert reason(ends(sandbox, folder, name)) == expected


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_21_picture_as_mp4(sandbox, folder, kind):
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
def test_19_paths_that_are_none(sandbox, folder, uri, expected):
    assert reason(ends(sandbox, folder, uri)) == expected


def test_19_links_out_of_the_root_fifo_folder(sandbox, folder, tmp_path):
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
def test_19_odd_names_are_only_names(sandbox, folder, name):
    shutil.copy(folder / "clip.mp4", os.path.join(os.fsencode(folder), name))
    assert isinstance(ends(sandbox, folder, to_uri(os.fsdecode(name))), Made)


# --- cut, damaged, short ----------------------------------------------------------------------


def test_21_truncated_mp4(sandbox, folder):
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


def test_21_damaged_packets(sandbox, folder):
    for kind in ("video", "audio"):
        damage(folder / "clip.mp4", folder / f"{kind}.mkv", kind, {20, 21, 40})
        facts = meta(ends(sandbox, folder, f"{kind}.mkv"))
        assert facts["source"]["bad_packets"] == 3
        assert facts["frames"] == meta(ends(sandbox, folder, "clip.mp4"))["frames"]


def test_21_damaged_end(sandbox, folder):
    damage(folder / "clip.mp4", folder / "tail.mkv", "video", range(40, 80))
    facts = meta(ends(sandbox, folder, "tail.mkv"))
    assert 15 <= facts["frames"] <= 16
    assert len(set(facts["pts"])) == facts["frames"]


def test_21_nothing_can_be_decoded(sandbox, folder):
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
def test_21_one_frame_short_mute_and_blind(sandbox, tmp_path, seconds, more, expected):
    options = X264 if more.get("picture", True) else ()
    path = make_clip(tmp_path / "x.mp4", seconds=seconds, size="64x48", options=options, **more)
    assert reason(ends(sandbox, tmp_path, path)) == expected


def test_21_short_clips_where_they_are_asked_for(tmp_path):
    path = make_clip(tmp_path / "x.mp4", seconds=0.2, size="64x48", options=X264)
    with Sandbox(replace(CONFIG, faces="on", min_seconds=Fraction(1, 5)), Limits()) as sandbox:
        assert meta(ends(sandbox, tmp_path, path))["frames"] == 2
    with Sandbox(replace(CONFIG, min_seconds=Fraction(1, 4)), Limits()) as sandbox:
        outcome = ends(sandbox, tmp_path, path)
    assert reason(outcome) == "too_short"
    said = "0.20 s of picture and sound; at least 0.25 s, see --min-seconds"
    assert outcome.error.detail == said


def test_21_cover_picture_is_no_video(sandbox, folder, tmp_path):
    cover = ("-map", "0:a", "-map", "1:v", "-c:v", "mjpeg", "-disposition:v:0", "attached_pic")
    tone, picture = "sine=duration=2", "testsrc2=size=64x48:duration=0.04"
    ffmpeg(*LAVFI, tone, *LAVFI, picture, *cover, tmp_path / "cover.m4a")
    assert reason(ends(sandbox, tmp_path, "cover.m4a")) == "no_video"
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nhello\n\n")
    clip = folder / "clip.mp4"
    several = ("-map", "0", "-map", "1", "-map", "0:a", "-c:v", "copy", "-c:a", "copy")
    ffmpeg("-i", clip, "-i", tmp_path / "words.srt", *several, tmp_path / "several.mkv")
    assert meta(ends(sandbox, tmp_path, "several.mkv"))["frames"] == 24


# --- the whole command ------------------------------------------------------------------------


def test_19_to_21_by_the_command_line(folder, tmp_path):
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
    done = subprocess.run(command, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr.decode()
    assert b"\x1b[31m" not in done.stdout + done.stderr
    errors = pq.read_table(out / "errors.parquet").to_pylist()
    assert {row["uri"]: row["reason"] for row in errors} == {
        "text.mp4": "unsupported_format", "hls.mp4": "unsupported_format",
        "empty.mp4": "empty_file", "list.m3u8": "unsupported_format",
        "fifo.mp4": "bad_path", "passwd.mp4": "bad_path",
    }  # fmt: skip
    assert pq.read_table(out / "samples.parquet").num_rows == 2
