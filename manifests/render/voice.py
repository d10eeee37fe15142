"""A small formant synthesiser: syllables with known onsets, and the mouth that says them.

Control tracks (loudness of the voice and of the breath, four formants, mouth opening) run from
syllable to syllable every 5 ms; a pulse train and noise are shaped by them in overlapping
spectral frames. The same tracks give `head` its mouth, so what is heard is what is seen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Track = NDArray[np.float64]

CONTROL_HZ = 200
"""Rate of the control tracks."""
BANDWIDTHS_HZ = (70.0, 100.0, 140.0, 220.0)
"""Bandwidths of the four resonators (Klatt 1980, rounded)."""


@dataclass(frozen=True)
class Vowel:
    """A steady vowel."""

    formants_hz: tuple[float, float, float, float]
    """Centre frequencies (Peterson and Barney 1952 means, fourth by hand)."""
    opening: float
    """How far the mouth is open, 0 (lips closed) to 1."""


@dataclass(frozen=True)
class Consonant:
    """The sound before a vowel."""

    seconds: float
    """Length from its audible start to the vowel."""
    formants_hz: tuple[float, float, float, float]
    """Where the formants come from."""
    voice: float
    """Loudness of the voiced part, 0..1."""
    breath: float
    """Loudness of the noise, 0..1."""
    breath_hz: float
    """Centre of the noise band."""
    opening: float
    """Mouth opening while it lasts, 0..1."""


VOWELS = {
    "a": Vowel((730, 1090, 2440, 3400), 1.0),
    "i": Vowel((270, 2290, 3010, 3600), 0.35),
    "o": Vowel((570, 840, 2410, 3300), 0.65),
}
CONSONANTS = {
    "b": Consonant(0.02, (200, 900, 2200, 3300), 0.3, 0.25, 900, 0.0),
    "d": Consonant(0.02, (200, 1700, 2600, 3300), 0.3, 0.35, 3800, 0.15),
    "f": Consonant(0.10, (300, 1000, 2300, 3300), 0.0, 0.25, 5500, 0.05),
    "l": Consonant(0.07, (350, 1100, 2700, 3400), 0.45, 0.0, 4000, 0.3),
    "m": Consonant(0.08, (250, 1000, 2200, 3300), 0.4, 0.0, 1000, 0.0),
    "s": Consonant(0.12, (300, 1700, 2600, 3400), 0.0, 0.5, 6500, 0.12),
}
SYLLABLES = ("ba", "da", "ma", "la", "si", "fa", "mo", "so", "bi", "do")


@dataclass(frozen=True)
class Word:
    """One syllable and when it is heard, in seconds."""

    text: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Utterance:
    """What was said."""

    words: tuple[Word, ...]
    samples: Samples
    """Mono waveform, -1..1."""
    rate_hz: int
    opening: Track
    """Mouth opening, 0..1, `CONTROL_HZ` values a second from 0 s."""

    def opening_at(self, seconds: float) -> float:
        """Mouth opening at a time."""
        return float(np.interp(seconds * CONTROL_HZ, np.arange(len(self.opening)), self.opening))


def speak(seed: int, seconds: float, pitch_hz: float, rate_hz: int = 44100) -> Utterance:
    """Says random syllables in short phrases.

    Args:
        seed: Chooses syllables, timing and melody.
        seconds: Length of the waveform.
        pitch_hz: Mean pitch of the voice; high voices also get a shorter vocal tract.
        rate_hz: Sample rate.

    Returns:
        The waveform with its syllables and mouth curve.
    """
    random = np.random.default_rng([seed, 1])
    words = _schedule(random, seconds)
    tracks = _tracks(words, seconds, tract=(pitch_hz / 150.0) ** 0.25)
    voiced = shape(_pulses(random, pitch_hz, seconds, rate_hz), tracks, rate_hz)
    noise = random.standard_normal(len(voiced))
    breath = shape(noise * 0.02, {**tracks, **_breath_filter(tracks)}, rate_hz)
    samples = voiced / max(1e-9, float(np.abs(voiced).max())) + breath
    room = random.standard_normal(len(samples)) * 1e-3
    peak = float(np.abs(samples).max())
    return Utterance(
        words,
        (0.6 * samples / peak + room).astype(np.float32),
        rate_hz,
        tracks["opening"],
    )


def _schedule(random: np.random.Generator, seconds: float) -> tuple[Word, ...]:
    """Phrases of three to five syllables with pauses, done 0.3 s before the end."""
    words: list[Word] = []
    start, left_in_phrase = 0.5, 4
    while True:
        length = float(random.uniform(0.24, 0.34))
        if start + length > seconds - 0.3:
            return tuple(words)
        text = str(random.choice(SYLLABLES))
        words.append(Word(text, round(start, 3), round(start + length, 3)))
        start, left_in_phrase = start + length + 0.04, left_in_phrase - 1
        if left_in_phrase == 0:
            start += float(random.uniform(0.35, 0.7))
            left_in_phrase = int(random.integers(3, 6))


def _knots(word: Word) -> list[tuple[float, dict[str, float]]]:
    """The control values of one syllable at its turning points."""
    consonant, vowel = CONSONANTS[word.text[0]], VOWELS[word.text[1]]
    start, end = word.start_seconds, word.end_seconds
    release = start + consonant.seconds
    silent = {"voice": 0.0, "breath": 0.0}
    spoken = {"voice": consonant.voice, "breath": consonant.breath}
    sung = {"voice": 1.0, "breath": 0.01}
    before = _place(consonant.formants_hz, consonant.breath_hz, consonant.opening)
    after = _place(vowel.formants_hz, consonant.breath_hz, vowel.opening)
    return [
        (start - 0.01, {**silent, **before}),
        (start, {**spoken, **before}),
        (release, {**spoken, **before}),
        (release + 0.04, {**sung, **after}),
        (end - 0.05, {**sung, **after, "voice": 0.7}),
        (end, {**silent, **after, "opening": 0.4 * vowel.opening}),
        (end + 0.09, {**silent, **after, "opening": 0.0}),
    ]


def _place(formants_hz: tuple[float, ...], breath_hz: float, opening: float) -> dict[str, float]:
    """A position of the mouth as control values."""
    formants = {f"formant{i}": value for i, value in enumerate(formants_hz)}
    return {**formants, "breath_hz": breath_hz, "opening": opening}


def _tracks(words: tuple[Word, ...], seconds: float, tract: float) -> dict[str, Track]:
    """Joins the knots of all syllables by lines, `CONTROL_HZ` values a second."""
    rest = {"voice": 0.0, "breath": 0.0, **_place(VOWELS["a"].formants_hz, 4000.0, 0.0)}
    knots = [(0.0, rest)]
    for word, following in zip(words, [*words[1:], None], strict=True):
        limit = following.start_seconds - 0.01 if following else seconds
        knots += [knot for knot in _knots(word) if knot[0] < limit]
    knots.append((seconds, {**knots[-1][1], "voice": 0.0, "breath": 0.0, "opening": 0.0}))
    times = np.array([time for time, _ in knots])
    grid = np.arange(int(np.ceil(seconds * CONTROL_HZ)) + 1) / CONTROL_HZ
    tracks = {
        name: np.interp(grid, times, np.array([values[name] for _, values in knots]))
        for name in rest
    }
    for index in range(4):
        tracks[f"formant{index}"] *= tract
    # Jaws have mass: the mouth follows its corners smoothly, without moving the onsets.
    window = np.hanning(11)[1:-1]
    tracks["opening"] = np.convolve(tracks["opening"], window / window.sum(), mode="same")
    return tracks


def _breath_filter(tracks: dict[str, Track]) -> dict[str, Track]:
    """Control tracks that shape noise instead of the voice: one wide band."""
    return {"voice": tracks["breath"], "band": tracks["breath_hz"]}


def _pulses(
    random: np.random.Generator, pitch_hz: float, seconds: float, rate_hz: int
) -> NDArray[np.float64]:
    """Glottal flow derivative (Rosenberg pulse) with a wandering pitch."""
    count = round(seconds * rate_hz)
    time = np.arange(count) / rate_hz
    melody = np.interp(
        time,
        np.arange(0, seconds + 1, 0.4),
        random.normal(0, 0.07, len(np.arange(0, seconds + 1, 0.4))),
    )
    vibrato = 0.01 * np.sin(2 * np.pi * 5.1 * time)
    phase = np.cumsum(pitch_hz * np.exp(melody + vibrato) / rate_hz) % 1.0
    rising = 0.5 * (1 - np.cos(np.pi * phase / 0.6))
    falling = np.cos(0.5 * np.pi * (phase - 0.6) / 0.25)
    flow = np.where(phase < 0.6, rising, np.where(phase < 0.85, falling, 0.0))
    return np.diff(flow, prepend=0.0)


def shape(
    source: NDArray[np.float64], tracks: dict[str, Track], rate_hz: int
) -> NDArray[np.float64]:
    """Filters a source by the moving resonators: overlap-add of spectral frames."""
    size, hop = 1024, 512
    frames = len(source) // hop + 1
    padded = np.pad(source, (size // 2, size * 2))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:frames]
    # Windows of this shape, half overlapping, add up to one.
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    spectra = np.fft.rfft((pieces * window).astype(np.float32), 2 * size)
    at = np.arange(frames) * hop / rate_hz * CONTROL_HZ
    shaped = np.fft.irfft(spectra * _response(tracks, at, 2 * size, rate_hz), 2 * size)
    result = np.zeros(len(padded) + 2 * size)
    for index in range(frames):
        result[index * hop : index * hop + 2 * size] += shaped[index]
    return result[size // 2 : size // 2 + len(source)]


def _response(
    tracks: dict[str, Track], at: Track, size: int, rate_hz: int
) -> NDArray[np.complexfloating]:
    """Complex gain of each frame (rows) at each frequency (columns)."""
    frequency = np.fft.rfftfreq(size, 1 / rate_hz)[None, :]

    def sample(name: str) -> Track:
        return np.interp(at, np.arange(len(tracks[name])), tracks[name])[:, None]

    if "band" in tracks:
        centre = sample("band")
        band = np.exp(-0.5 * ((frequency - centre) / (0.35 * centre)) ** 2)
        return sample("voice") * band * 20 + 0j
    gain: NDArray[np.complexfloating] = sample("voice") + 0j
    for index, bandwidth in enumerate(BANDWIDTHS_HZ):
        centre = sample(f"formant{index}")
        gain = gain * centre**2 / (centre**2 - frequency**2 + 1j * frequency * bandwidth)
    return gain
