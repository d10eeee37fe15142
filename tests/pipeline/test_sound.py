"""Sound on the container's clock, in closed form: where it is, what is missing, how it is mixed."""

from fractions import Fraction

import numpy as np
import pytest
import soundfile

from pipeline.clock import Grid
from pipeline.config import Limits
from pipeline.errors import ClipError
from pipeline.media import open_media
from pipeline.sound import Sound, decode_sound
from tests.pipeline.clips import ffmpeg

RATE = 44100
CLICK_SECONDS = 1.25
SILENCE = Grid(Fraction(0), Fraction(10), 20)


def read(path, channels=1, start=None, end=None):
    with open_media(path, Limits()) as media:
        begin = media.start if start is None else Fraction(start)
        return decode_sound(media.read(begin, end)["audio"], channels, begin, end)


def click(path, seconds=2.0, channels=1):
    """A wave file with one sample of full scale at CLICK_SECONDS."""
    wave = np.zeros((round(seconds * RATE), channels))
    wave[round(CLICK_SECONDS * RATE)] = 0.9
    soundfile.write(path, wave, RATE, subtype="PCM_16")
    return path


def peak_seconds(sound):
    return (sound.first + int(np.abs(sound.samples).max(axis=1).argmax())) / sound.rate_hz


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.wav", ("-c", "copy"), 0),
        ("a.mkv", ("-c", "copy"), 0.0006),
        ("a.flac", (), 0),
        ("a.mov", ("-c", "copy"), 0),
        ("a.m4a", ("-c:a", "aac"), 0.002),
        ("a.mka", ("-c:a", "libvorbis"), 0.002),
    ],
)
def test_an_impulse_stays_where_it_is(tmp_path, name, options, tolerance):
    source = click(tmp_path / "source.wav")
    ffmpeg("-i", source, *options, tmp_path / name)
    assert peak_seconds(read(tmp_path / name)) == pytest.approx(
        CLICK_SECONDS, abs=tolerance + 0.5 / RATE
    )


@pytest.mark.parametrize("name", ["late.mkv", "late.ts"])
def test_a_stream_that_starts_late_is_placed_late(tmp_path, name):
    source = click(tmp_path / "source.wav")
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=3")
    delayed = ("-itsoffset", "0.8", "-i", source, "-c:v", "mpeg2video", "-c:a", "mp2")
    ffmpeg(*picture, *delayed, tmp_path / name)
    with open_media(tmp_path / name, Limits()) as media:
        zero = float(media.start)
    assert peak_seconds(read(tmp_path / name)) - zero == pytest.approx(
        CLICK_SECONDS + 0.8, abs=0.03
    )


def test_a_window_in_mid_file_has_the_same_samples(tmp_path):
    chance = np.random.default_rng(0)
    soundfile.write(tmp_path / "noise.wav", chance.uniform(-0.5, 0.5, 4 * RATE), RATE)
    whole = read(tmp_path / "noise.wav")
    part = read(tmp_path / "noise.wav", start=2, end=Fraction(3))
    assert part.first <= 2 * RATE
    assert part.first + len(part.samples) >= 3 * RATE
    assert np.array_equal(part.samples, whole.samples[part.first : part.first + len(part.samples)])


def test_resampling_keeps_the_impulse_in_its_place(tmp_path):
    sound = read(click(tmp_path / "click.wav"))
    for rate_hz in (22050, 24000):
        cut = sound.cut(SILENCE, rate_hz, margin=300)
        assert cut.shape == (2 * rate_hz + 600, 1)
        at = int(np.abs(cut).max(axis=1).argmax()) - 300
        assert at / rate_hz == pytest.approx(CLICK_SECONDS, abs=1 / rate_hz)


def test_a_cut_beyond_the_sound_is_zeros_and_is_said(tmp_path):
    tone = Sound(1000, 500, np.ones((1000, 1), np.float32), ((700, 800),), 0)
    cut = tone.cut(Grid(Fraction(0), Fraction(10), 20), 1000, margin=0)
    assert np.flatnonzero(cut[:, 0]).tolist() == list(range(500, 1500))
    assert tone.missing(Grid(Fraction(0), Fraction(10), 20)) == [[0, 0.5], [0.7, 0.8], [1.5, 2.0]]
    assert tone.missing(Grid(Fraction(1), Fraction(10), 3)) == []


def test_a_gap_in_the_packets_is_zeros_and_is_remembered(tmp_path):
    noise = ("-f", "lavfi", "-i", "anoisesrc=duration=3:sample_rate=44100:amplitude=0.5")
    ffmpeg(*noise, "-c:a", "pcm_s16le", tmp_path / "whole.mkv")
    with open_media(tmp_path / "whole.mkv", Limits()) as media:
        part = media.read(media.start, None)["audio"]
        gone = [p for p in part.packets if 1 <= p.pts * p.time_base < Fraction(3, 2)]
        part.packets[:] = [p for p in part.packets if p not in gone]
        sound = decode_sound(part, 1, Fraction(0), None)
    assert sound is not None
    [[start, end]] = sound.missing(Grid(Fraction(0), Fraction(10), 29))
    assert [start, end] == pytest.approx([1.0, 1.5], abs=0.03)
    begin, stop = round((start + 0.001) * RATE), round((end - 0.001) * RATE)
    assert not sound.samples[begin:stop].any()


def test_mono_is_the_mean_and_stereo_is_both(tmp_path):
    wave = np.tile([0.5, -0.25], (RATE, 1))
    soundfile.write(tmp_path / "two.wav", wave, RATE, subtype="FLOAT")
    assert np.allclose(read(tmp_path / "two.wav", 1).samples, 0.125)
    assert np.allclose(read(tmp_path / "two.wav", 2).samples, [0.5, -0.25])
    soundfile.write(tmp_path / "one.wav", wave[:, :1], RATE, subtype="FLOAT")
    assert np.allclose(read(tmp_path / "one.wav", 2).samples, [0.5, 0.5])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("rate", [8000, 96000])
def test_every_sample_format_has_the_same_scale(tmp_path, subtype, rate):
    time = np.arange(rate) / rate
    wave = 0.5 * np.sin(2 * np.pi * 100 * time)
    soundfile.write(tmp_path / "tone.wav", wave, rate, subtype=subtype)
    found = read(tmp_path / "tone.wav").samples[:, 0]
    assert np.abs(found - wave).max() < (0.01 if subtype == "PCM_U8" else 1e-4)


def test_surround_sound_keeps_its_level_in_stereo(tmp_path):
    wave = np.zeros((RATE, 6))
    wave[:, 0] = wave[:, 1] = 0.3 * np.sin(np.arange(RATE) / 20)
    soundfile.write(tmp_path / "six.wav", wave, RATE, subtype="FLOAT")
    stereo = read(tmp_path / "six.wav", 2).samples
    assert stereo.shape == (RATE, 2)
    assert 0.05 < np.abs(stereo).max() <= 1


def test_rounded_timestamps_do_not_click(tmp_path):
    """Matroska rounds to 1 ms; following that would put a step every block."""
    tone = ("-f", "lavfi", "-i", "sine=frequency=50:sample_rate=44100:duration=3")
    ffmpeg(*tone, "-c:a", "pcm_s16le", tmp_path / "tone.mkv")
    sound = read(tmp_path / "tone.mkv")
    assert len(sound.samples) == pytest.approx(3 * RATE, abs=100)
    assert sound.gaps == ()
    steps = np.abs(np.diff(sound.samples[:, 0]))
    assert steps.max() < 0.002


def test_a_rate_that_changes_in_mid_stream_is_refused_by_name(tmp_path):
    for number, rate in enumerate((44100, 48000)):
        tone = ("-f", "lavfi", "-i", f"sine=duration=1:sample_rate={rate}")
        ffmpeg(*tone, "-c:a", "mp2", tmp_path / f"{number}.ts")
    both = f"concat:{tmp_path / '0.ts'}|{tmp_path / '1.ts'}"
    ffmpeg("-i", both, "-c", "copy", tmp_path / "both.ts")
    with pytest.raises(ClipError, match="from 44100 to 48000"):
        read(tmp_path / "both.ts")
