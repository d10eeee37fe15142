"""Recordings cut or joined without decoding, holes, windows beyond the end: what is shown when.

The ffmpeg program's own frame list is the oracle for what can be decoded at all.
"""

import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline import PROFILES
from pipeline.errors import FAULTS, Reason
from tests.pipeline import rows
from tests.pipeline.clips import ffmpeg, listed_frames, make_clip
from tests.pipeline.rows import row

TS_PACKET_BYTES = 188
cut = partial(rows.cut, config=replace(PROFILES["glcm"], faces="off"))


def meta_of(made: Any) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(made.members["json"])
    return facts


def begun_between_keys(path: Path, codec: str) -> Path:
    """A transport stream whose first fifth is missing, but for the tables at its head."""
    options = ("-c:v", codec, "-g", "100", "-bf", "2", "-c:a", "aac")
    data = make_clip(path, seconds=8, options=options).read_bytes()
    begin = len(data) // TS_PACKET_BYTES // 5 * TS_PACKET_BYTES
    path.write_bytes(data[: 3 * TS_PACKET_BYTES] + data[begin:])
    return path


def cut_by_copying(path: Path) -> Path:
    """A program stream that begins with pictures which refer to others before them."""
    whole = path.with_name("whole.mpg")
    make_clip(whole, seconds=6, options=("-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"))
    ffmpeg("-ss", "1.13", "-i", whole, "-c", "copy", "-f", "vob", path)
    return path


HEADLESS: dict[str, Callable[[Path], Path]] = {
    "h264.ts": partial(begun_between_keys, codec="libx264"),
    "mpeg2.ts": partial(begun_between_keys, codec="mpeg2video"),
    "cut.mpg": cut_by_copying,
}


@pytest.mark.parametrize("name", HEADLESS)
def test_a_clip_starts_with_the_first_picture_that_can_be_decoded(name: str, tmp_path: Path):
    listed = [frame.time for frame in listed_frames(HEADLESS[name](tmp_path / name))]
    meta = meta_of(cut(tmp_path, row(name))[0])
    assert meta["t0"] == pytest.approx(float(listed[0]), abs=1e-5)
    for k, pts in enumerate(meta["pts"]):
        middle = Fraction(meta["t0"]).limit_denominator(90_000) + Fraction(2 * k + 1, 20)
        shown = listed[bisect_right(listed, middle + Fraction(1, 10**5)) - 1]
        assert pts == pytest.approx(float(shown), abs=1e-5)
    assert meta["source"]["bad_packets"] > 0 and not meta["held"]


def test_an_anchored_window_says_which_pictures_are_held(tmp_path: Path):
    path = begun_between_keys(tmp_path / "a.ts", "libx264")
    first = listed_frames(path)[0].time
    meta = meta_of(cut(tmp_path, row("a.ts", 0, 5, anchored=True))[0])
    early = [k for k in range(50) if meta["window_start"] + (k + 0.5) / 10 < first]
    assert early and meta["held"] == early
    assert all(meta["pts"][k] == pytest.approx(float(first)) for k in early)


def test_rows_that_fail_do_so_once_though_the_head_is_lost(tmp_path: Path):
    begun_between_keys(tmp_path / "a.ts", "libx264")
    found = cut(tmp_path, row("a.ts", 0, 7), row("a.ts", 0, 1))
    assert found[0].facts["frames"] > 10
    assert found[1].error.reason is Reason.TOO_SHORT


def test_rows_keep_their_own_reason_where_no_picture_can_be_decoded(tmp_path: Path):
    make_clip(tmp_path / "a.mp4", seconds=3)
    rows.damage(tmp_path / "a.mp4", tmp_path / "bad.mp4", "video", range(100))
    found = cut(tmp_path, row("bad.mp4", 0, 2), row("bad.mp4", 50, 60))
    assert [found[n].error.reason for n in (0, 1)] == [Reason.DECODE_ERROR, Reason.TOO_SHORT]


@pytest.mark.parametrize(("suffix", "form"), [(".ts", "mpegts"), (".vob", "vob")])
def test_recordings_joined_as_they_are(suffix: str, form: str, tmp_path: Path):
    """Copied end to end their clocks start twice; the advice makes one clip of both."""
    options = ("-c:v", "mpeg2video", "-c:a", "mp2", "-f", form)
    parts = [make_clip(tmp_path / f"{n}{suffix}", seconds=4, options=options) for n in "ab"]
    joined = tmp_path / f"joined{suffix}"
    joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    error = cut(tmp_path, row(joined.name))[0].error
    assert error.reason is Reason.DECODE_ERROR and "time stamps jump from" in error.detail
    ffmpeg("-i", joined, "-c", "copy", tmp_path / f"new{suffix}")
    assert cut(tmp_path, row(f"new{suffix}"))[0].facts["seconds"] > 7.5


def test_a_leap_over_a_day_is_no_long_clip(tmp_path: Path):
    for name, start in (("a.ts", "0"), ("b.ts", "90000")):
        make_clip(tmp_path / name, seconds=2, options=("-output_ts_offset", start))
    joined = tmp_path / "joined.ts"
    joined.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    error = cut(tmp_path, row("joined.ts"))[0].error
    assert error.reason is Reason.DECODE_ERROR and "time stamps jump from" in error.detail


@pytest.mark.parametrize("anchored", [False, True])
def test_windows_past_the_end_are_too_short_and_no_fault(anchored: bool, tmp_path: Path):
    make_clip(tmp_path / "a.mp4", seconds=3)
    starts = (2, 3.5, 30, 100, 300)
    windows = [row("a.mp4", at, at + 10, anchored=anchored) for at in starts]
    found = cut(tmp_path, *windows)
    assert found[0].facts["frames"] == (100 if anchored else 10)
    for number in range(1, len(starts)):
        assert found[number].error.reason is Reason.TOO_SHORT
    assert Reason.TOO_SHORT not in FAULTS


def test_a_window_in_a_long_pause_of_the_sound(tmp_path: Path):
    sound = "sine=frequency=440:duration=12,aselect='lt(t,1)+gt(t,11)'"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=12"),
        *("-f", "lavfi", "-i", sound, "-c:a", "libopus", tmp_path / "a.mkv"),
    )
    error = cut(tmp_path, row("a.mkv", 4, 8))[0].error
    assert (error.reason, error.detail) == (
        Reason.NO_AUDIO,
        "the sound pauses in all of the window",
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_other_streams_may_last_longer(suffix: str, tmp_path: Path):
    """A second language, or subtitles, promise nothing about the streams in use."""
    make_clip(tmp_path / "a.mp4", seconds=3)
    make_clip(tmp_path / "b.m4a", seconds=30, picture=False)
    target = tmp_path / f"both.{suffix}"
    maps = ("-map", "0", "-map", "1:a", "-disposition:a:0", "default", "-c", "copy")
    ffmpeg("-i", tmp_path / "a.mp4", "-i", tmp_path / "b.m4a", *maps, target)
    assert cut(tmp_path, row(target.name))[0].facts["seconds"] == pytest.approx(3, abs=0.1)


def test_what_a_hole_damages_is_counted(tmp_path: Path):
    """Lost packets of a transport stream: libav refuses none, but flags the damaged picture."""
    path = make_clip(tmp_path / "a.ts", seconds=6, size="640x480", options=("-g", "100"))
    data = path.read_bytes()
    begin, end = (len(data) * n // 2000 // TS_PACKET_BYTES * TS_PACKET_BYTES for n in (450, 460))
    path.write_bytes(data[:begin] + data[end:])
    with av.open(str(path)) as container:
        damaged = sum(picture.is_corrupt for picture in container.decode(video=0))
    assert damaged == 1
    assert meta_of(cut(tmp_path, row("a.ts"))[0])["source"]["bad_packets"] == damaged


def test_windows_of_a_file_agree_when_its_streams_start(tmp_path: Path):
    """The header's start is that of the other sound, 0; decoding knows."""
    make_clip(tmp_path / "a.mp4", seconds=6)
    make_clip(tmp_path / "b.m4a", seconds=11, picture=False)
    late = ("-itsoffset", "5", "-i", tmp_path / "a.mp4", "-i", tmp_path / "b.m4a")
    maps = ("-map", "0", "-map", "1", "-disposition:a:0", "default", "-c", "copy")
    ffmpeg(*late, *maps, tmp_path / "late.mkv")
    found = cut(tmp_path, *(row("late.mkv", at, at + 2) for at in (0, 5, 7, 9)))
    sources = [meta_of(found[number])["source"] for number in (1, 2, 3)]
    (starts,) = {(source["video_start"], source["audio_start"]) for source in sources}
    assert starts == pytest.approx((5, 0), abs=0.05)
