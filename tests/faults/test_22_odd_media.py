"""Case 22: bombs, headers that lie, and odd but good files.

That variable rates, delayed streams and rotated pictures come out right is held against other
programs in tests/pipeline: test_alignment, test_video and test_frame.
"""

import shutil
import struct
from itertools import pairwise
from typing import Any

import pytest

from pipeline.config import Limits
from pipeline.sandbox import Sandbox
from tests.faults.media import (
    CONFIG,
    LAVFI,
    X264,
    ends,
    folder,
    meta,
    reason,
    resident_mib,
    sandbox,
)
from tests.pipeline.clips import ffmpeg, make_clip

__all__ = ["folder", "sandbox"]

# --- bombs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bomb.mov", ("-c:v", "png", "-pred", "none")),
        ("bomb.mp4", ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "gray")),
    ],
)
def test_22_bomb_of_9000_x_9000(tmp_path, name, options):
    sound = (*LAVFI, "sine=duration=1")
    picture = (*LAVFI, "color=size=9000x9000:rate=1:duration=1")
    ffmpeg(*picture, *sound, *options, "-frames:v", "1", tmp_path / name)
    with Sandbox(CONFIG, Limits()) as sandbox:
        assert reason(ends(sandbox, tmp_path, name)) == "too_large"
        assert resident_mib(sandbox) < 200


def test_22_bomb_in_mid_stream(sandbox, tmp_path):
    for number, size in enumerate(("64x48", "4200x2400")):
        path = tmp_path / f"{number}.ts"
        make_clip(path, seconds=1.6, fps="5", size=size, options=X264)
    both = f"concat:{tmp_path / '0.ts'}|{tmp_path / '1.ts'}"
    ffmpeg("-i", both, "-c", "copy", tmp_path / "both.ts")
    facts = meta(ends(sandbox, tmp_path, "both.ts"))
    assert facts["frames"] == pytest.approx(16, abs=1)
    assert facts["source"]["bad_packets"] > 0


def test_22_120_streams(sandbox, tmp_path):
    maps = ["-map", "0:a"] * 120
    ffmpeg(*LAVFI, "sine=duration=1.5", *maps, "-c:a", "pcm_s16le", tmp_path / "many.mkv")
    outcome = ends(sandbox, tmp_path, "many.mkv")
    assert reason(outcome) == "too_large"
    assert "16 streams" in outcome.error.detail


def test_22_header_says_a_million_seconds(sandbox, folder):
    ffmpeg("-i", folder / "clip.mp4", "-c", "copy", folder / "million.mkv")
    data = bytearray((folder / "million.mkv").read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Segment Info's Duration, a double of milliseconds
    data[at : at + 8] = struct.pack(">d", 1e9)
    (folder / "million.mkv").write_bytes(data)
    outcome = ends(sandbox, folder, "million.mkv")
    assert reason(outcome) == "truncated"
    assert "1000000.0 s" in outcome.error.detail


def test_22_picture_far_too_wide(sandbox, tmp_path):
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
def test_22_odd_but_good(sandbox, tmp_path, name):
    shape, options = GOOD[name]
    shape = {"seconds": 2, "size": "64x48", **shape}
    facts = meta(ends(sandbox, tmp_path, make_clip(tmp_path / name, **shape, options=options)))
    assert facts["frames"] == pytest.approx(shape["seconds"] * 10, abs=1)
    assert facts["source"]["bad_packets"] == 0
    assert not facts["quality"]["silent"]
    assert 50 < facts["quality"]["luma"] < 200


def test_22_size_changes_in_mid_stream(sandbox, tmp_path):
    for number, size in enumerate(("96x64", "192x144")):
        make_clip(tmp_path / f"{number}.ts", seconds=1.2, size=size, options=X264)
    both = f"concat:{tmp_path / '0.ts'}|{tmp_path / '1.ts'}"
    ffmpeg("-i", both, "-c", "copy", tmp_path / "both.ts")
    facts = meta(ends(sandbox, tmp_path, "both.ts"))
    assert facts["frame_size"] == [192, 128]  # 3:2, as at first; the rest is 4:3
    assert facts["frames"] > 20


@pytest.mark.parametrize("late", ["audio", "video"])
def test_22_stream_starts_late(sandbox, folder, tmp_path, late):
    clip, path = folder / "clip.mp4", tmp_path / "late.mkv"
    order = ("-i", clip, "-itsoffset", "0.8", "-i", clip)
    maps = ("0:v", "1:a") if late == "audio" else ("1:v", "0:a")
    ffmpeg(*order, "-map", maps[0], "-map", maps[1], "-c", "copy", path)
    facts = meta(ends(sandbox, tmp_path, path))
    assert facts["t0"] == pytest.approx(0.8, abs=0.041)
    assert facts["frames"] == pytest.approx(17, abs=1)
    assert facts["source"][f"{late}_start"] == pytest.approx(0.8, abs=0.041)
    assert (facts["held"], facts["padded"]) == ([], [])


def test_22_file_changed_after_the_scan(sandbox, folder, tmp_path):
    shutil.copy(folder / "clip.mp4", tmp_path / "grown.mp4")
    outcome = ends(sandbox, tmp_path, "grown.mp4", bytes=17)
    assert meta(outcome)["source"]["bytes"] == (folder / "clip.mp4").stat().st_size


def test_22_variable_rate(sandbox, tmp_path):
    drop = ("-vf", "select='mod(n,7)-3'", "-fps_mode", "passthrough")
    path = make_clip(tmp_path / "vfr.mkv", seconds=2, size="64x48", options=(*X264, *drop))
    facts = meta(ends(sandbox, tmp_path, path))
    assert facts["source"]["vfr"]
    steps = {round((b - a) * 25) for a, b in pairwise(facts["pts"])}
    assert steps <= {1, 2, 3, 4}
