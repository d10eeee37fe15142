"""The sound of the planted corpus: ten timbres, shaped by the mouth, over a background.

A timbre is a source with energy all over the spectrum, so that formants are heard in each, and a
body that rings in a band of its own; together they tell the class. Pitch, tract length, tilt and
what else is heard are nuisance.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from manifests.render.planted_script import CONTROL_HZ, Script
from manifests.render.voice import shape

Wave = NDArray[np.float64]

FORMANTS_HZ = ((250.0, 600.0), (700.0, 1500.0))
"""First formant with the mouth closed, and what opening it adds; second one rounded, and spread."""
UPPER_FORMANTS_HZ = (2700.0, 3600.0)


def turns(random: np.random.Generator, pitch_hz: float, count: int, rate_hz: int) -> Wave:
    """Phase in turns, with a pitch that wanders by a few per cent."""
    time = np.arange(count) / rate_hz
    knots = np.arange(0, count / rate_hz + 1, 0.35)
    melody = np.interp(time, knots, random.normal(0, 0.06, len(knots)))
    return np.cumsum(pitch_hz * np.exp(melody) / rate_hz) + random.uniform()


def saw(random: np.random.Generator, turn: Wave) -> Wave:
    """All harmonics."""
    del random
    return 2 * (turn % 1) - 1


def square(random: np.random.Generator, turn: Wave) -> Wave:
    """Odd harmonics, as of a clarinet."""
    del random
    return np.where(turn % 1 < 0.5, 1.0, -1.0)


def breath(random: np.random.Generator, turn: Wave) -> Wave:
    """Noise."""
    return random.standard_normal(len(turn))


def rattle(random: np.random.Generator, turn: Wave) -> Wave:
    """Noise in short bursts, one in two periods."""
    return 2.5 * random.standard_normal(len(turn)) * (turn / 2 % 1 < 0.15)


def glottis(random: np.random.Generator, turn: Wave) -> Wave:
    """Glottal flow derivative (Rosenberg pulse) with a little breath."""
    phase = turn % 1
    rising = 0.5 * (1 - np.cos(np.pi * phase / 0.6))
    falling = np.cos(0.5 * np.pi * (phase - 0.6) / 0.25)
    flow = np.where(phase < 0.6, rising, np.where(phase < 0.85, falling, 0.0))
    return 6 * np.diff(flow, prepend=0.0) + 0.1 * random.standard_normal(len(turn))


def croak(random: np.random.Generator, turn: Wave) -> Wave:
    """A saw whose level goes up and down some 30 times a second, hardly ever to nothing."""
    pieces = turn / random.uniform(3.5, 5.5)
    return saw(random, turn) * (1.15 + np.sin(2 * np.pi * pieces))


def chord(random: np.random.Generator, turn: Wave) -> Wave:
    """A triad of saws."""
    return sum((saw(random, turn * ratio) for ratio in (1.0, 1.2599, 1.4983)), np.zeros(1)) * 0.6


def chorus(random: np.random.Generator, turn: Wave) -> Wave:
    """Four squares out of tune by up to 4 %, which beat."""
    detuned = (1.0, 1.017, 0.978, 1.041)
    return sum((square(random, turn * ratio) for ratio in detuned), np.zeros(1)) * 0.5


def stiff(random: np.random.Generator, turn: Wave) -> Wave:
    """Stretched partials, as of a stiff string or a bar."""
    wave = np.zeros(len(turn))
    for number in range(1, 25):
        ratio = number * np.sqrt(1 + 0.012 * number**2)
        wave += np.sin(2 * np.pi * (ratio * turn + random.uniform())) / number**0.5
    return wave


def clang(random: np.random.Generator, turn: Wave) -> Wave:
    """Frequency modulation with a ratio that is no harmonic."""
    del random
    inner = np.sin(2 * np.pi * 1.414 * 2.5 * turn)
    return np.asarray(1.5 * np.sin(2 * np.pi * 2 * turn + 6 * inner))


TIMBRES: dict[str, Callable[[np.random.Generator, Wave], Wave]] = {
    source.__name__: source
    for source in (saw, square, breath, rattle, glottis, croak, chord, chorus, stiff, clang)
}


RING_DB, RING_OCTAVES = 27.0, 0.25
"""How much louder the band is in which a body rings, and half its width."""
RINGS_HZ = {timbre: 450.0 * 14 ** (place / 9) for place, timbre in enumerate(TIMBRES)}
"""Middle of that band: 450 to 6,300 Hz, 0.42 octaves apart."""
RING_SPREAD = 0.04
"""Standard deviation of the performers of a class about it, as a share."""


def ringing(wave: Wave, ring_hz: float, rate_hz: int) -> Wave:
    """As from a body that rings: one band is louder, the mean square stays."""
    hertz = np.fft.rfftfreq(len(wave), 1 / rate_hz).clip(1)
    octaves = np.log2(hertz / ring_hz)
    gain = 10 ** (RING_DB / 20 * np.exp(-((octaves / RING_OCTAVES) ** 2)))
    heard = np.fft.irfft(np.fft.rfft(wave) * gain, len(wave))
    level = np.sqrt(np.mean(wave**2) / (np.mean(heard**2) + 1e-12))
    return np.asarray(level * heard)


def perform(
    random: np.random.Generator,
    script: Script,
    timbre: str,
    pitch_hz: float,
    tract: float,
    rate_hz: int,
) -> Wave:
    """What a performer is heard to say.

    Args:
        random: draws melody and noise.
        script: what is said.
        timbre: key of `TIMBRES`.
        pitch_hz: mean pitch.
        tract: factor on all formants.
        rate_hz: sample rate.

    Returns:
        Mono waveform; its loudest second of sound has a mean square of about 0.01.
    """
    count = round(script.seconds * rate_hz)
    tracks = script.tracks()
    source = TIMBRES[timbre](random, turns(random, pitch_hz, count, rate_hz))
    (first, opened), (second, spread) = FORMANTS_HZ
    formants = [first + opened * tracks["height"], second + spread * (tracks["width"] - 0.3) / 0.9]
    formants += [np.full_like(tracks["height"], value) for value in UPPER_FORMANTS_HZ]
    filters = {f"formant{number}": tract * track for number, track in enumerate(formants)}
    shaped = shape(source, {**filters, "voice": np.ones_like(formants[0])}, rate_hz)
    # A moving filter changes the level of a steady source: it is taken out, the script's put in.
    level = np.sqrt(_smooth(shaped**2, round(0.03 * rate_hz)) + 1e-12)
    loudness = np.interp(
        np.arange(count) / rate_hz * CONTROL_HZ, np.arange(len(formants[0])), tracks["loudness"]
    )
    return 0.12 * shaped / level * loudness


def background(random: np.random.Generator, count: int, rate_hz: int) -> Wave:
    """Coloured noise, and in some clips a hum or bursts from nowhere to be seen."""
    noise = _coloured(random, count)
    wave = noise * 10 ** (random.uniform(-46, -32) / 20)
    time = np.arange(count) / rate_hz
    if random.uniform() < 0.35:
        hum = np.sin(2 * np.pi * random.uniform(60, 1500) * time)
        wave += hum * 10 ** (random.uniform(-48, -36) / 20)
    if random.uniform() < 0.35:
        for _ in range(int(random.integers(1, 4))):
            start, length = random.uniform(0, count / rate_hz), random.uniform(0.1, 0.5)
            inside = np.clip((time - start) / length, 0, 1)
            burst = _coloured(random, count) * np.sin(np.pi * inside)
            wave += burst * 10 ** (random.uniform(-38, -28) / 20)
    return wave


def tilted(random: np.random.Generator, wave: Wave) -> Wave:
    """As another microphone hears it: a random slope and two random bells of the spectrum."""
    spectrum = np.fft.rfft(wave)
    octaves = np.log2(np.linspace(1e-3, 1, len(spectrum)))
    gain_db = random.uniform(-2.5, 2.5) * (octaves + 4)
    for _ in range(2):
        centre, width = random.uniform(-7, -0.5), random.uniform(0.4, 1.2)
        gain_db = gain_db + random.uniform(-8, 8) * np.exp(-(((octaves - centre) / width) ** 2))
    return np.asarray(np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(wave)))


def _coloured(random: np.random.Generator, count: int) -> Wave:
    """Noise of mean square 1 whose power falls by 0 to 6 dB an octave."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    frequency = np.linspace(1e-3, 1, len(spectrum))
    wave = np.fft.irfft(spectrum * frequency ** -random.uniform(0, 1), count)
    return np.asarray(wave / np.sqrt(np.mean(wave**2)))


def _smooth(values: Wave, width: int) -> Wave:
    """Running mean."""
    total = np.cumsum(np.pad(values, (width - width // 2, width // 2), mode="edge"))
    return np.asarray((total[width:] - total[:-width]) / width)
