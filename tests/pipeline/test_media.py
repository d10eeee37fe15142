"""Windows deep inside long files, and how far a file is read: whatever the container can seek."""

import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from pipeline import PROFILES
from pipeline.config import Limits
from pipeline.errors import Reason
from pipeline.item import Made
from pipeline.media import Media
from tests.pipeline import rows
from tests.pipeline.clips import ffmpeg, make_clip
from tests.pipeline.rows import damage, row

LONG_SECONDS = 50
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-bf", "2")
LONG = {
    "indexed.mp4": (*X264, "-g", "250"),
    "open_gop.mp4": (*X264, "-x264-params", "open-gop=1:keyint=100:bframes=3"),
    "cues.mkv": (*X264, "-g", "100"),
    "sparse_keys.ts": (*X264, "-g", "250"),
    "one_key.ts": (*X264, "-g", "9999", "-keyint_min", "9999", "-sc_threshold", "0"),
    "program.mpg": ("-c:v", "mpeg2video", "-bf", "2", "-g", "30", "-r", "25"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-bf", "2", "-g", "100", "-c:a", "libmp3lame"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "250"),
    "flash.flv": (*X264, "-g", "100"),
}
cut = partial(rows.cut, config=replace(PROFILES["avid"], faces="off"))


def meta_of(made):
    return json.loads(made.members["json"])


@pytest.fixture(scope="module")
def long_clips(tmp_path_factory):
    """One long recording in many containers: a moving picture, and noise unlike itself."""
    folder = tmp_path_factory.mktemp("long")
    picture = f"testsrc2=size=64x48:rate=25:duration={LONG_SECONDS}"
    sound = f"anoisesrc=duration={LONG_SECONDS}:sample_rate=44100:amplitude=0.5:seed=3"
    source = folder / "source.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound,
        "-c:v", "ffv1", "-c:a", "pcm_s16le", source,
    )  # fmt: skip
    for name, options in LONG.items():
        ffmpeg("-i", source, "-pix_fmt", "yuv420p", *options, folder / name)
    return folder


@pytest.mark.parametrize("name", LONG)
def test_a_deep_window_is_the_same_alone_and_after_an_early_one(long_clips, name):
    deep = row(name, 45.0, 48.0)
    alone = cut(long_clips, deep)[0]
    together = cut(long_clips, row(name, 0.0, 2.0), deep)[1]
    one, other = meta_of(alone), meta_of(together)
    assert one["pts"] == other["pts"]
    for stream in ("video_start", "audio_start"):  # one is the header's word, one was decoded
        starts = one["source"].pop(stream), other["source"].pop(stream)
        assert starts[0] == pytest.approx(starts[1], abs=0.041)
    assert one["source"] == other["source"]
    assert (one["held"], one["padded"], other["frames"]) == ([], [], one["frames"])
    assert one["frames"] >= 47
    assert alone.members["frames.mjpeg"] == together.members["frames.mjpeg"]
    blobs = [made.members["mel.npy"] for made in (alone, together)]
    mels = [np.load(io.BytesIO(blob)).astype(float) for blob in blobs]
    # Matroska and FLV round times to 1 ms, so the sound may be placed up to that apart.
    assert np.abs(mels[0] - mels[1]).mean() < 0.1


def test_a_seek_that_finds_no_key_picture_is_followed_by_reading_from_the_start(long_clips):
    media = Media(long_clips / "one_key.ts", Limits())
    found = media.read(media.start + 45, media.start + 48)
    media.close()
    assert found["video"].from_start


def test_a_seek_in_a_transport_stream_begins_with_a_key_picture(long_clips):
    media = Media(long_clips / "sparse_keys.ts", Limits())
    found = media.read(media.start + 45, media.start + 48)
    media.close()
    packets = found["video"].packets
    assert not found["video"].from_start
    assert packets[0].is_keyframe
    assert packets[0].pts * packets[0].time_base <= media.start + 45
    assert len(packets) < 25 * 25


def test_a_window_in_mid_file_knows_when_the_streams_start(long_clips):
    name = "cues.mkv"
    made = cut(long_clips, row(name, 40.0, 42.0))[0]
    source = meta_of(made)["source"]
    assert source["video_start"] == pytest.approx(0, abs=0.1)
    assert source["audio_start"] == pytest.approx(0, abs=0.1)


def test_an_open_window_stops_reading_at_the_longest_clip(long_clips):
    limits = Limits(max_clip_seconds=20)
    failed = cut(long_clips, row("indexed.mp4"), limits=limits)[0]
    assert failed.error.reason == Reason.TOO_LONG
    assert "--window" in failed.error.detail


def test_a_stream_that_ends_early_does_not_make_a_window_read_the_whole_file(tmp_path):
    path = tmp_path / "early.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=5:duration=200",
        "-f", "lavfi", "-i", "sine=duration=3", "-c:v", "mpeg4", path,
    )  # fmt: skip
    media = Media(path, Limits())
    found = media.read(media.start, media.start + 2)
    media.close()
    assert len(found["video"].packets) < 5 * 80
    assert not found["video"].complete


def test_two_minutes_of_windows_open_the_file_once(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "clip.mp4", seconds=10, size="64x48", options=X264)
    opened: list[int] = []
    really_open = Media._open

    def counted(media):
        opened.append(1)
        really_open(media)

    monkeypatch.setattr(Media, "_open", counted)
    made = cut(tmp_path, *(row(path.name, float(s), s + 2.0) for s in range(0, 10, 2)))
    assert [type(outcome) for outcome in made.values()] == [Made] * 5
    assert len(opened) == 1


def test_damage_in_the_sound_costs_no_picture(tmp_path):
    """One interval at the end was lost whenever any packet was bad."""
    path = make_clip(tmp_path / "clip.mkv", seconds=4, size="64x48", options=(*X264, "-shortest"))
    whole = meta_of(cut(tmp_path, row(path.name))[0])
    damage(path, tmp_path / "broken.mkv", "audio", {40})
    hurt = meta_of(cut(tmp_path, row("broken.mkv"))[0])
    assert hurt["source"]["bad_packets"] > 0
    assert (hurt["frames"], hurt["pts"]) == (whole["frames"], whole["pts"])
