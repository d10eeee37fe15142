"""Which picture each interval shows, against the frame list of the ffmpeg program."""

import hashlib
from fractions import Fraction

import pytest

from pipeline.clock import Window, grid_for
from pipeline.config import Limits
from pipeline.errors import ClipError
from pipeline.media import open_media
from pipeline.sound import decode_sound
from pipeline.video import Decoder, show, timeline
from tests.pipeline.clips import REAL_MEDIA, listed_frames, make_clip

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-threads", "1")
MAKES = {
    "b_frames.mp4": (*X264, "-bf", "3"),
    "open_gop.mkv": (*X264, "-bf", "3", "-x264-params", "open-gop=1:keyint=12"),
    "no_b_frames.mov": (*X264, "-bf", "0"),
    "transport.ts": (*X264, "-bf", "2"),
    "program.mpg": ("-c:v", "mpeg2video", "-bf", "2"),
    "divx.avi": ("-c:v", "mpeg4", "-bf", "2"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "vfr.mp4": (*X264, "-bf", "2", "-vf", "select='mod(n,7)-3'", "-fps_mode", "passthrough"),
}

WITHOUT_PICTURES = frozenset(
    {
        "AudioVideoInterleave.avi",
        "invalid-bitstream.webm",
        "mp4-with-audio.mp4",
        "quicktime-jpeg.mov",
        "sample_ac3.mp4",
        "sample_h262_mpeg_audio.ts",
        "subsample_encrypted_noaltref.webm",
        "webm.webm",
    }
)
"""Real files without a video stream, with an empty or a broken one."""


def chosen(path, fps, *, skip=True):
    """(source pts seconds, md5 of the planes) of every interval, by our code."""
    with open_media(path, Limits()) as media:
        parts = media.read(media.start, None)
        sound = decode_sound(parts["audio"], 1, media.start, None) if "audio" in parts else None
        line = timeline(parts["video"])
        grid = grid_for(
            Window(media.start, None, sound is None),
            fps,
            video=line.extent,
            audio=sound.extent if sound else None,
            picture_times=line.times,
            time_base=line.time_base,
        )
        decoder = Decoder(parts["video"], line.wanted([grid]) if skip else None)
        shown = [
            (item.pts * line.time_base, hashlib.md5(planes(item.frame)).hexdigest())
            for item in show(decoder, line, [grid])
        ]
    return grid, shown


def planes(frame):
    """The picture's bytes as ffmpeg's framemd5 hashes them."""
    picture, data = frame._picture, b""
    for plane, part in zip(picture.planes, picture.format.components, strict=False):
        width = part.width * (1 if part.bits == 8 else 2)
        rows = memoryview(plane)
        starts = range(0, plane.height * plane.line_size, plane.line_size)
        data += b"".join(rows[start : start + width] for start in starts)
    return data


def expected(path, grid):
    """The same by the rule: the last listed picture with a time not after the middle."""
    with open_media(path, Limits()) as media:
        stream = media.video.index
    listed = sorted(listed_frames(path, str(stream)), key=lambda frame: frame.time)
    wanted = []
    for k in range(grid.frames):
        middle = grid.t0 + (k + Fraction(1, 2)) / grid.fps
        before = [frame for frame in listed if frame.time <= middle]
        wanted.append(before[-1] if before else listed[0])
    return wanted


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("fps", [Fraction(10), Fraction(25)])
def test_every_interval_shows_the_picture_that_ffmpeg_lists(tmp_path, name, fps):
    path = make_clip(tmp_path / name, fps="24", options=MAKES[name])
    grid, shown = chosen(path, fps)
    wanted = expected(path, grid)
    assert [time for time, _ in shown] == [frame.time for frame in wanted]
    assert [md5 for _, md5 in shown] == [frame.md5 for frame in wanted]


@pytest.mark.parametrize("name", MAKES)
def test_skipping_changes_no_byte(tmp_path, name):
    path = make_clip(tmp_path / name, options=MAKES[name])
    assert chosen(path, Fraction(10))[1] == chosen(path, Fraction(10), skip=False)[1]


def test_skipping_skips(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", fps="30", options=MAKES["b_frames.mp4"])
    with open_media(path, Limits()) as media:
        part = media.read(media.start, None)["video"]
        line = timeline(part)
        window = Window(media.start, None, True)
        extent = line.extent
        grid = grid_for(window, Fraction(10), video=extent, audio=None, time_base=line.time_base)
        decoder = Decoder(part, line.wanted([grid]))
        list(show(decoder, line, [grid]))
    assert decoder.decoded < 0.8 * len(line.pts)


def real_videos():
    """Real files that are not of the large uniform sets, and a few of those."""
    if not REAL_MEDIA.exists():
        return []
    kinds = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".ts", ".mpg", ".3gp", ".MOV"}
    paths = [p for p in sorted(REAL_MEDIA.rglob("*")) if p.suffix in kinds and p.stat().st_size]
    grid = [p for p in paths if "grid-s1" in p.parts[len(REAL_MEDIA.parts)]]
    return [p for p in paths if p not in grid] + grid[::200]


def test_packets_are_let_go_as_they_are_decoded(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=2, size="64x48", options=X264)
    with open_media(path, Limits()) as media:
        part = media.read(media.start, None)["video"]
        kept = [frame.pts for frame in Decoder(part).frames()]
        decoder = Decoder(part, uses_up=True)
        used = [frame.pts for frame in decoder.frames()]
    assert used == kept
    assert part.packets == [None] * decoder.given
    assert decoder.given == len(kept)


@pytest.mark.slow
@pytest.mark.parametrize("path", real_videos(), ids=lambda p: str(p.relative_to(REAL_MEDIA)))
def test_real_files_show_the_pictures_that_ffmpeg_lists(path):
    if path.name in WITHOUT_PICTURES:
        assert nothing_to_show(path)
        return
    grid, shown = chosen(path, Fraction(10))
    wanted = expected(path, grid)
    differing = [k for k in range(grid.frames) if shown[k][1] != wanted[k].md5]
    assert not differing, f"{len(differing)} of {grid.frames}: intervals {differing[:10]}"


def nothing_to_show(path):
    """Whether a file ends in the ledger for lack of pictures."""
    try:
        return not chosen(path, Fraction(10))[1]
    except (ClipError, KeyError):  # KeyError: there is no video stream
        return True
