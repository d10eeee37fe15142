"""Sound transforms against closed forms and scipy's filters."""

import numpy as np
import pytest
import scipy.signal

from pipeline.alter_sound import (
    PEAKING_QUALITY,
    SOUND_TRANSFORMS,
    Stretch,
    audio_noise,
    clicks,
    faster,
    high_pass,
    low_pass,
    peaking,
    pitch_shift,
    reverb,
)
from pipeline.errors import ClipError

RATE = 44100
SECONDS = 6
INSIDE = slice(RATE, (SECONDS - 1) * RATE)
TIME = np.arange(SECONDS * RATE) / RATE


def chance(seed=0):
    return np.random.default_rng(seed)


def column(wave):
    return np.asarray(wave, np.float32)[:, None]


def stretch(wave, channels=1):
    return Stretch(np.repeat(column(wave), channels, axis=1), RATE, INSIDE)


def tone(hz, level=0.1):
    return level * np.sin(2 * np.pi * hz * TIME)


def bursts(times, level=0.3):
    """Tones of 20 ms in soft clothes, at the given times."""
    shape = sum(np.exp(-(((TIME - at) / 0.01) ** 2)) for at in times)
    return level * np.sin(2 * np.pi * 2000 * TIME) * shape


def centres(wave, times, reach=0.1):
    """Where the energy lies around each of the given times, seconds."""
    seconds = np.arange(len(wave)) / RATE
    found = []
    for at in times:
        near = np.abs(seconds - at) < reach
        energy = wave[near].astype(float) ** 2
        found.append(float((seconds[near] * energy).sum() / energy.sum()))
    return np.array(found)


def pitch_hz(wave):
    """The strongest frequency, between the bins by a parabola."""
    spectrum = np.log(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) + 1e-12)
    k = int(spectrum.argmax())
    left, middle, right = spectrum[k - 1 : k + 2]
    return (k + (left - right) / 2 / (left - 2 * middle + right)) * RATE / len(wave)


def rms(wave):
    return float(np.sqrt(np.mean(np.square(wave, dtype=float))))


@pytest.mark.parametrize("snr_db", [0, 7.5, 30])
@pytest.mark.parametrize("channels", [1, 2])
def test_noise_has_the_wanted_power(snr_db, channels):
    clean = stretch(tone(440) * (TIME > 2), channels)
    noise = audio_noise(clean, chance(), snr_db=snr_db).samples - clean.samples
    ratio = 20 * np.log10(rms(clean.samples[INSIDE]) / rms(noise[INSIDE]))
    assert ratio == pytest.approx(snr_db, abs=0.05)
    middle = np.abs(np.fft.rfft(noise[INSIDE, 0])) ** 2  # white: equal power in both halves
    assert middle[: len(middle) // 2].sum() / middle.sum() == pytest.approx(0.5, abs=0.01)


def test_clicks_come_at_equal_distances_and_loud_enough():
    clean = stretch(tone(440))
    track = (clicks(clean, chance(), seconds_between=0.5, snr_db=3).samples - clean.samples)[:, 0]
    assert 20 * np.log10(rms(clean.samples[INSIDE]) / rms(track[INSIDE])) == pytest.approx(
        3, abs=0.1
    )
    loud = np.flatnonzero(np.abs(track) > 0.1 * np.abs(track).max()) / RATE
    starts = loud[np.diff(loud, prepend=-1) > 0.2]
    assert starts == pytest.approx(1.25 + 0.5 * np.arange(8), abs=0.002)


@pytest.mark.parametrize("semitones", [-5, 3, 12])
def test_pitch_moves_and_time_does_not(semitones):
    shifted = pitch_shift(stretch(tone(440)), chance(), semitones=semitones)
    assert shifted.samples.shape == (SECONDS * RATE, 1)
    inside = shifted.samples[INSIDE, 0]
    assert pitch_hz(inside) == pytest.approx(440 * 2 ** (semitones / 12), abs=0.5)
    assert rms(inside) == pytest.approx(0.1 / 2**0.5, rel=0.05)
    times = np.array([1.5, 2.5, 3.5, 4.5])
    moved = pitch_shift(stretch(bursts(times)), chance(), semitones=semitones)
    assert centres(moved.samples[:, 0], times) == pytest.approx(times, abs=0.005)


@pytest.mark.parametrize("speed", [0.5, 0.77, 1.3, 2.0])
def test_speed_moves_events_and_keeps_the_pitch(speed):
    length = int(SECONDS * RATE / speed)
    played = faster(column(tone(440)), speed, length, RATE)
    assert played.shape == (length, 1)
    inside = played[RATE // 2 : -RATE // 2, 0]
    assert pitch_hz(inside) == pytest.approx(440, abs=0.5)
    assert rms(inside) == pytest.approx(0.1 / 2**0.5, rel=0.05)
    times = np.array([1.5, 2.5, 3.5, 4.5])
    moved = faster(column(bursts(times)), speed, length, RATE)[:, 0]
    assert centres(moved, times / speed) == pytest.approx(times / speed, abs=0.005)


def test_sound_at_its_own_speed_is_untouched():
    wave = column(tone(440))
    assert np.array_equal(faster(wave, 1, len(wave), RATE), wave)
    assert faster(wave, 1, len(wave) + 5, RATE)[-5:].tolist() == [[0.0]] * 5


def test_reverberation_decays_by_60_db_in_its_time():
    impulse = np.zeros(SECONDS * RATE)
    impulse[RATE] = 1
    response = reverb(stretch(impulse), chance(), decay_seconds=1.2, wet=0.5).samples[RATE:, 0]
    direct, tail = float(response[0]) ** 2, np.square(response[1:], dtype=float)
    assert direct == pytest.approx(0.5, rel=0.05)
    assert tail.sum() == pytest.approx(0.5, rel=0.01)
    left = 10 * np.log10(np.cumsum(tail[::-1])[::-1][: round(0.8 * RATE)] / tail.sum())
    slope = np.polyfit(np.arange(len(left)) / RATE, left, 1)[0]  # Schroeder's backward integration
    assert slope == pytest.approx(-60 / 1.2, rel=0.05)


def test_reverberation_keeps_the_power_of_noise():
    noise = stretch(0.1 * chance(3).standard_normal(SECONDS * RATE))
    wet = reverb(noise, chance(), decay_seconds=0.5, wet=0.7)
    assert wet.power == pytest.approx(noise.power, rel=0.05)


def gains_db(transform, frequencies, **numbers):
    found = []
    for hz in frequencies:
        clean = stretch(tone(hz))
        found.append(
            20
            * np.log10(
                rms(transform(clean, chance(), **numbers).samples[INSIDE])
                / rms(clean.samples[INSIDE])
            )
        )
    return np.array(found)


FREQUENCIES = np.array([100, 500, 1000, 2000, 6000])


@pytest.mark.parametrize(("transform", "kind"), [(high_pass, "highpass"), (low_pass, "lowpass")])
def test_filters_are_butterworths_of_second_order(transform, kind):
    b, a = scipy.signal.butter(2, 1000, kind, fs=RATE)
    _, response = scipy.signal.freqz(b, a, FREQUENCIES, fs=RATE)
    expected = 20 * np.log10(np.abs(response))
    assert gains_db(transform, FREQUENCIES, cutoff_hz=1000) == pytest.approx(expected, abs=0.1)
    assert expected[2] == pytest.approx(-3.01, abs=0.01)


@pytest.mark.parametrize("gain_db", [-12, 9])
def test_a_bell_is_highest_in_its_middle(gain_db):
    found = gains_db(peaking, [50, 1000, 15000], center_hz=1000, gain_db=gain_db)
    assert found[1] == pytest.approx(gain_db, abs=0.1)
    assert np.abs(found[[0, 2]]).max() < 0.3
    # analogue prototype H(s) = (s^2 + s A/Q + 1) / (s^2 + s / (A Q) + 1), A = 10^(gain/40)
    a, q, s = 10 ** (gain_db / 40), PEAKING_QUALITY, 0.5j
    expected = 20 * np.log10(abs((s**2 + s * a / q + 1) / (s**2 + s / (a * q) + 1)))
    assert gains_db(peaking, [500], center_hz=1000, gain_db=gain_db)[0] == pytest.approx(
        expected, abs=0.2
    )


@pytest.mark.parametrize("transform", [high_pass, low_pass])
def test_a_filter_above_the_sound_is_refused(transform):
    low = Stretch(np.zeros((8000, 1), np.float32), 8000, slice(0, 8000))
    with pytest.raises(ClipError, match="filters at 4000 Hz, sound of 8000 samples a second ends"):
        transform(low, chance(), cutoff_hz=4000)


NUMBERS: dict[str, dict[str, float]] = {
    "audio_noise": {"snr_db": 0},
    "clicks": {"seconds_between": 0.3, "snr_db": 0},
    "pitch_shift": {"semitones": 4},
    "reverb": {"decay_seconds": 1, "wet": 0.5},
    "high_pass": {"cutoff_hz": 500},
    "low_pass": {"cutoff_hz": 500},
    "peaking": {"center_hz": 500, "gain_db": 12},
}


@pytest.mark.parametrize("name", SOUND_TRANSFORMS)
def test_silence_stays_silence_and_channels_stay_apart(name):
    transform = SOUND_TRANSFORMS[name]
    silence = transform(stretch(np.zeros(SECONDS * RATE), 2), chance(), **NUMBERS[name])
    assert np.abs(silence.samples).max() == 0
    both = stretch(bursts([2, 3]) + tone(300), 2)
    made = transform(both, chance(), **NUMBERS[name]).samples
    assert made.shape == (SECONDS * RATE, 2)
    assert made.dtype.name == "float32"
    assert np.array_equal(made[:, 0], made[:, 1])
    again = transform(both, chance(), **NUMBERS[name]).samples
    assert np.array_equal(made, again)
    left = stretch(tone(300), 2)
    left.samples[:, 1] = 0
    right = transform(left, chance(), **NUMBERS[name]).samples[:, 1]
    if name not in ("audio_noise", "clicks"):
        assert np.abs(right).max() == 0
