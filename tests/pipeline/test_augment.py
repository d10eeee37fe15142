"""Manipulated clips from end to end: on one clock, the same for everybody, said where they are."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from manifests.recipes import Recipe
from manifests.render.flash import MATRIX, beep_times, flash_times, make
from pipeline import PROFILES
from pipeline.augment import Augmentation, shortened
from pipeline.clock import Grid
from pipeline.errors import ClipError, Reason
from pipeline.format import decode
from pipeline.item import Failed, Made
from pipeline.peek import peek
from pipeline.playback import source_sound_of
from pipeline.sound import Sound
from tests.pipeline.clips import make_clip
from tests.pipeline.rows import cut, row
from tests.pipeline.test_alignment import beeps, first_bright, nearest_errors

CONFIG = dataclasses.replace(
    PROFILES["glcm"], fps=Fraction(30), faces="off", waveform_rate_hz=24000, waveform_channels=1
)
PICTURE = [
    {"name": "video_noise", "level": 30},
    {"name": "emoji", "size": 0.3, "x": 0.5, "y": 0.5, "opacity": 1},
]
SOUND = [{"name": "audio_noise", "snr_db": 10}]


def extra(*transforms, seed=0):
    return json.dumps({"reference_key": "k", "transforms": transforms, "seed": seed})


def made(folder, name, *transforms, config=CONFIG, **more):
    """The sample of one manipulated clip."""
    text = extra(*transforms) if transforms else None
    outcome = cut(folder, row(name, extra=text, **more), config=config)[0]
    assert isinstance(outcome, Made), outcome
    return decode(outcome.members)


def digest(outcome):
    return {name: hashlib.sha256(data).hexdigest() for name, data in outcome.members.items()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small clip of four seconds, 25 pictures a second."""
    options = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25")
    path = tmp_path_factory.mktemp("augment") / "clip.mp4"
    return make_clip(path, seconds=4, size="192x144", options=options)


@pytest.fixture(scope="module")
def flash(tmp_path_factory):
    """A flash-and-beep clip with its true flashes and beeps, by the ffmpeg program."""
    one = next(c for c in MATRIX if c.container == "mp4")
    path = make(one, tmp_path_factory.mktemp("flash"))
    return path, [float(time) for time in flash_times(path)], beep_times(path)


@pytest.mark.parametrize(
    "transforms",
    [
        [{"name": "speed", "factor": 1.4}],
        [{"name": "speed", "factor": 0.6}],
        [{"name": "trim", "duration": 0.6, "offset": 0.5}],
        [{"name": "trim", "duration": 0.7, "offset": 0.9}, {"name": "speed", "factor": 0.8}],
    ],
    ids=["faster", "slower", "shorter", "both"],
)
def test_flash_and_beep_stay_together(flash, transforms):
    """Architecture §4: half an interval and 2 ms for pictures, here 5 ms for stretched sound."""
    path, flashes, sounds = flash
    sample = made(path.parent, path.name, *transforms)
    meta = sample.meta
    speed = next((t["factor"] for t in transforms if t["name"] == "speed"), 1)
    t0, seconds = meta["t0"], meta["frames"] / 30
    assert len(sample.waveform) == seconds * 24000
    lumas = [float(np.mean(picture)) for picture in sample.pictures["frames"]]
    seen = first_bright((t0 + k / 30, value) for k, value in enumerate(lumas))
    heard = beeps(sample.waveform[:, 0], 24000, t0)
    expected = {
        name: [t0 + (time - t0) / speed for time in times]
        for name, times in (("flash", flashes), ("beep", sounds))
    }
    inside = [t for t in expected["flash"] if t0 + 0.1 < t < t0 + seconds - 0.2]
    assert len(inside) >= 2
    seen = [time for time in seen if time > t0 + 1 / 30]
    assert len(seen) >= len(inside)
    assert max(map(abs, nearest_errors(seen, expected["flash"]))) <= 0.5 / 30 + 0.002
    heard = [time for time in heard if time > t0 + 0.05]
    assert len(heard) >= len(inside)
    assert max(map(abs, nearest_errors(heard, expected["beep"]))) <= 0.005
    assert meta["held"] == [] and meta["padded"] == []


def test_time_is_carried_over_to_the_samples_clock(clip):
    plain, fast = (
        made(clip.parent, clip.name),
        made(clip.parent, clip.name, {"name": "speed", "factor": 2}),
    )
    assert fast.meta["frames"] == plain.meta["frames"] // 2
    # 25 pictures a second at twice the speed are 50: interval k shows source time (k + 1/2) / 15
    shown = [np.floor((k + 0.5) / 15 * 25) / 25 for k in range(fast.meta["frames"])]
    assert fast.meta["pts"] == pytest.approx([time / 2 for time in shown], abs=1e-5)
    half = made(clip.parent, clip.name, {"name": "trim", "duration": 0.5, "offset": 1})
    assert half.meta["frames"] == 60
    assert half.meta["t0"] == pytest.approx(plain.meta["t0"] + 2, abs=0.02)
    same = [k for k, time in enumerate(plain.meta["pts"]) if time in half.meta["pts"]]
    assert len(same) == 60
    for k, picture in zip(same, half.pictures["frames"], strict=True):
        assert np.array_equal(picture, plain.pictures["frames"][k])


def test_only_what_the_recipe_names_is_touched(clip):
    plain = made(clip.parent, clip.name)
    loud = made(clip.parent, clip.name, *SOUND)
    assert all(map(np.array_equal, loud.pictures["frames"], plain.pictures["frames"]))
    assert not np.array_equal(loud.mel, plain.mel)
    seen = made(clip.parent, clip.name, *PICTURE)
    assert np.array_equal(seen.mel, plain.mel)
    assert np.array_equal(seen.waveform, plain.waveform)
    assert not np.array_equal(seen.pictures["frames"][0], plain.pictures["frames"][0])
    noise = loud.waveform - plain.waveform
    ratio = 10 * np.log10(np.mean(plain.waveform**2) / np.mean(noise**2))
    # white up to 22.05 kHz in the file, stored up to 12 kHz
    assert ratio == pytest.approx(10 + 10 * np.log10(22050 / 12000), abs=0.3)
    assert plain.meta["pts"] == seen.meta["pts"] == loud.meta["pts"]


def test_cropped_and_padded_pictures_keep_one_size(clip):
    recipe = [{"name": "pad", "x": 0.25, "y": 0}, *PICTURE]
    sample = made(clip.parent, clip.name, *recipe)
    width, height = sample.meta["frame_size"]
    assert (width, height) == (256, 128)  # 4:3 with a quarter on each side is 2:1
    assert {p.shape for p in sample.pictures["frames"]} == {(128, 256, 3)}
    assert sample.pictures["frames"][0][:, :20].mean() < 40
    source = sample.meta["source"]
    assert source["width"] / source["height"] == pytest.approx(2, abs=0.01)


def test_a_sample_depends_on_its_row_alone(clip):
    """Alone, or decoded together with other windows of the file; and on key and seed."""
    text = extra(*PICTURE, *SOUND, {"name": "speed", "factor": 1.5})
    rows = [row(clip.name, s, s + 2, key=f"k{s}", extra=text) for s in (0.0, 1.0, 2.0)]
    together = cut(clip.parent, *rows, config=CONFIG)
    for number, one in enumerate(rows):
        alone = cut(clip.parent, one, config=CONFIG)[0]
        assert digest(alone) == digest(together[number])
    again = cut(clip.parent, {**rows[0], "extra": text.replace('"seed": 0', '"seed": 1')},
                config=CONFIG)[0]  # fmt: skip
    other = cut(clip.parent, {**rows[0], "key": "other"}, config=CONFIG)[0]
    assert len({digest(o)["frames.mjpeg"] for o in (again, other, together[0])}) == 3
    assert len({digest(o)["audio.flac"] for o in (again, other, together[0])}) == 3


def test_missing_sound_is_said_on_the_samples_clock():
    recipe = Recipe("i", ({"name": "speed", "factor": 2}, *SOUND))
    wave = np.full((3000, 1), 0.1, np.float32)
    sound = Sound(1000, 1000, wave, ((2000, 2500),), 0)  # from 1 to 4 s, a gap at 2 to 2.5
    grid = Grid(Fraction(0), Fraction(10), 25)  # 5 s of the source
    altered = Augmentation(recipe, grid.t0).sound(sound, grid)
    assert altered is not None
    assert altered.missing(grid) == [[0.0, 0.5], [1.0, 1.25], [2.0, 2.5]]


def test_a_clip_too_short_for_its_recipe_is_said(clip):
    config = dataclasses.replace(CONFIG, min_seconds=Fraction(1))
    text = extra({"name": "trim", "duration": 0.2, "offset": 0})
    failed = cut(clip.parent, row(clip.name, extra=text), config=config)[0]
    assert isinstance(failed, Failed) and failed.error.reason is Reason.TOO_SHORT
    nothing = Recipe("i", ({"name": "trim", "duration": 0.05, "offset": 0},))
    with pytest.raises(ClipError, match=r"0\.005 s are left of 0\.10 s by the recipe: trim"):
        shortened(nothing, Grid(Fraction(0), Fraction(10), 1))


def test_a_bad_recipe_is_an_error_of_its_row_alone(clip):
    rows = [row(clip.name, 0.0, 2.0, extra=extra({"name": "speed", "factor": 9})),
            row(clip.name, 2.0, 4.0)]  # fmt: skip
    found = cut(clip.parent, *rows, config=CONFIG)
    assert found[0].error.reason is Reason.UNSUPPORTED_FORMAT
    assert "speed with factor 9; expected 0.25 to 4" in found[0].error.detail
    assert isinstance(found[1], Made)


@pytest.fixture(scope="module")
def queries(clip, tmp_path_factory):
    """The four sets over one clip, made with one worker and with two."""
    outs = []
    for workers in "12":
        out = tmp_path_factory.mktemp("queries") / f"workers{workers}"
        command = [sys.executable, "-m", "pipeline", "shards", "--dataset", "augvgg",
                   "--reference", "folder", "--root", clip.parent, "--profile", "tempssl",
                   "--fps", "10", "--executor", "local", "--workers", workers,
                   "--out", out]  # fmt: skip
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        outs.append(out)
    return outs


def test_workers_do_not_change_a_byte(queries):
    one, two = ({t.name: t.read_bytes() for t in (out / "shards").glob("*.tar")} for out in queries)
    assert one == two
    assert sorted(one) == [f"{name}-000000.tar" for name in ("C", "IP", "S", "T")]


def test_manipulated_sets_verify_and_say_what_was_done(queries):
    command = [sys.executable, "-m", "pipeline", "verify", "--deep", str(queries[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = peek(queries[0], ["augvgg-T/clip_mp4"])
    (line,) = [line for line in lines if line.startswith("    recipe")]
    assert "from clip_mp4" in line and ("speed factor" in line or "trim duration" in line)


def test_a_page_plays_the_manipulated_sound(queries):
    from pipeline.outputs import Outputs
    from pipeline.peek import find_places

    outputs = Outputs(queries[0])
    for place in find_places(outputs, [f"augvgg-{n}/clip_mp4" for n in ("IP", "S", "T", "C")], 4):
        sample = decode(outputs.read_members(place))
        found = source_sound_of(queries[0])(sample.meta)
        assert found is not None and sample.waveform is not None
        (wave, rate), stored = found, sample.waveform[:, 0]
        ours = np.interp(np.arange(len(stored)) / 24000, np.arange(len(wave)) / rate, wave[:, 0])
        below_8_khz = slice(0, len(stored) // 3)
        one, other = (np.abs(np.fft.rfft(w))[below_8_khz] for w in (stored, ours))
        assert np.corrcoef(one, other)[0, 1] > 0.95
