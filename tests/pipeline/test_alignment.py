"""Flash and beep: how far picture and sound are from the truth, container by container.

The truth of a file is read from it by the ffmpeg program (`flash_times`, `beep_times`), because a
muxer may not write what it was told. Bounds (architecture §4): 2 ms on source timestamps; half a
grid interval + 2 ms on shards. `pytest -s` prints the table.
"""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from manifests.render.clock import _rises, envelope
from manifests.render.flash import MATRIX, beep_times, flash_times, make
from pipeline import PROFILES
from pipeline.config import Limits
from pipeline.format import decode
from pipeline.item import Item, Made
from pipeline.media import open_media
from pipeline.sample import outcomes
from pipeline.sound import decode_sound
from pipeline.video import Decoder, timeline

SOURCE_BOUND_SECONDS = 0.002
BRIGHT = 150
CONFIGS = {
    fps: dataclasses.replace(
        PROFILES["glcm"],
        fps=Fraction(fps),
        faces="off",
        waveform_rate_hz=24000,
        waveform_channels=1,
    )
    for fps in (10, 30)
}


@pytest.fixture(scope="module", params=MATRIX, ids=lambda clip: f"{clip.name}.{clip.container}")
def flashing(request, tmp_path_factory):
    """A clip of the matrix, and its true flash and beep times."""
    path = make(request.param, tmp_path_factory.mktemp("flash"))
    return path, [float(time) for time in flash_times(path)], beep_times(path)


def first_bright(pairs):
    """Times of the first bright picture of each flash, from (time, luma)."""
    times, was_bright = [], False
    for time, luma in pairs:
        bright = luma > BRIGHT
        times += [time] if bright and not was_bright else []
        was_bright = bright
    return times


def beeps(wave, rate_hz, start):
    return [start + onset / rate_hz for onset in _rises(envelope(wave, rate_hz))]


def nearest_errors(found, true):
    """Signed distance of each found time to the nearest true one, seconds."""
    return [min((f - t for t in true), key=abs) for f in found]


def source_errors(path, true_flashes, true_beeps):
    """Errors of our timestamps, before any grid: (flashes, beeps)."""
    with open_media(path, Limits()) as media:
        parts = media.read(media.start, None)
        line = timeline(parts["video"])
        pictures = [
            (float((line.pts[n] if line.by_order else picture.pts) * line.time_base), luma(picture))
            for n, picture in enumerate(Decoder(parts["video"]).frames())
        ]
        sound = decode_sound(parts["audio"], 1, media.start, None)
    assert sound is not None
    heard = beeps(sound.samples[:, 0], sound.rate_hz, sound.first / sound.rate_hz)
    seen = first_bright(pictures)
    assert len(seen) == len(true_flashes)
    assert len(heard) == len(true_beeps)
    return nearest_errors(seen, true_flashes), nearest_errors(heard, true_beeps)


def luma(picture):
    return float(picture.to_ndarray(format="gray8").mean())


def sample_of(path, config):
    row = {
        "key": "flash/clip", "dataset": "test", "instance": 0, "group_id": "g", "splits": [],
        "labels": [], "label_names": [], "transcript": None, "words": None, "segments": None,
        "uri": path.name, "audio_uri": None, "container": None, "start_s": 0.0, "end_s": None,
        "anchored": False, "face_xy": None, "extra": None,
    }  # fmt: skip
    made = list(outcomes(Item(str(path.parent), (row,)), config, Limits()))
    assert isinstance(made[-1], Made), made
    return decode(made[-1].members)


def shard_errors(path, config, true_flashes, true_beeps):
    """Errors in what a trainer reads, (flashes, beeps), but for those at the sample's edge."""
    sample = sample_of(path, config)
    meta, fps = sample.meta, float(config.fps)
    lumas = [float(np.mean(picture)) for picture in sample.pictures["frames"]]
    seen = first_bright((meta["t0"] + k / fps, value) for k, value in enumerate(lumas))
    heard = beeps(sample.waveform[:, 0], meta["waveform_rate_hz"], meta["t0"])
    inside = [t for t in true_flashes if meta["t0"] < t < meta["t0"] + len(lumas) / fps - 0.2]
    assert len(inside) >= 2
    assert len(seen) >= len(inside)
    late = [e for e, f in zip(nearest_errors(seen, true_flashes), seen, strict=True)
            if f > meta["t0"] + 1 / fps]  # fmt: skip
    return late, nearest_errors(heard, true_beeps)


def worst(errors):
    return max((abs(error) for error in errors), default=0.0)


def test_source_times_are_within_2_ms(flashing):
    flashes, sounds = source_errors(*flashing)
    assert worst(flashes) <= SOURCE_BOUND_SECONDS
    assert worst(sounds) <= SOURCE_BOUND_SECONDS


@pytest.mark.parametrize("fps", CONFIGS)
def test_shards_are_within_half_an_interval_and_2_ms(flashing, fps):
    path, true_flashes, true_beeps = flashing
    flashes, sounds = shard_errors(path, CONFIGS[fps], true_flashes, true_beeps)
    print(
        f"\n{path.name:<28}{fps:>4} fps  flash {1000 * worst(flashes):6.1f} ms"
        f"  beep {1000 * worst(sounds):6.2f} ms"
    )
    assert worst(flashes) <= 0.5 / fps + SOURCE_BOUND_SECONDS
    assert worst(sounds) <= SOURCE_BOUND_SECONDS
