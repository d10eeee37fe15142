"""The sounds of things that are struck: one short waveform per kind, laid down at each event."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float64]


def clack(random: np.random.Generator, pitch_hz: float, rate_hz: int) -> Wave:
    """A ball on a hard floor: a click, then a tone that is gone after 60 ms."""
    time = np.arange(int(0.12 * rate_hz)) / rate_hz
    tone = np.sin(2 * np.pi * 4 * pitch_hz * time) * np.exp(-time / 0.02)
    click = random.standard_normal(len(time)) * np.exp(-time / 0.003)
    return tone + 0.5 * click


def ring(random: np.random.Generator, pitch_hz: float, rate_hz: int) -> Wave:
    """A bell: inharmonic partials (Risset's ratios, shortened) that die at their own pace."""
    time = np.arange(int(0.9 * rate_hz)) / rate_hz
    wave = np.zeros(len(time))
    for ratio, decay_seconds in (
        (0.56, 0.4),
        (0.92, 0.35),
        (1.19, 0.3),
        (1.7, 0.25),
        (2.74, 0.12),
        (3.76, 0.08),
    ):
        phase = random.uniform(0, 0.5)
        partial = np.sin(2 * np.pi * 3 * pitch_hz * ratio * time + phase)
        wave += partial * np.exp(-time / decay_seconds) * np.minimum(1, time / 0.002)
    return wave


def thump(random: np.random.Generator, pitch_hz: float, rate_hz: int) -> Wave:
    """A drum: a tone that falls by an octave, and the skin's noise."""
    time = np.arange(int(0.35 * rate_hz)) / rate_hz
    frequency = 0.5 * pitch_hz * (1 + np.exp(-time / 0.04))
    tone = np.sin(2 * np.pi * np.cumsum(frequency) / rate_hz) * np.exp(-time / 0.09)
    return tone + 0.35 * random.standard_normal(len(time)) * np.exp(-time / 0.02)


def pluck(random: np.random.Generator, pitch_hz: float, rate_hz: int) -> Wave:
    """A plucked string (Karplus and Strong 1983): a noisy loop that averages itself."""
    loop = random.uniform(-1, 1, round(rate_hz / pitch_hz / 2))
    pieces = []
    for _ in range(int(0.8 * rate_hz / len(loop))):
        pieces.append(loop)
        loop = 0.4985 * (loop + np.roll(loop, 1))
    return np.asarray(1.5 * np.concatenate(pieces))


def beep(random: np.random.Generator, pitch_hz: float, rate_hz: int) -> Wave:
    """50 ms of 1 kHz, switched on and off within a quarter of a period."""
    del random, pitch_hz
    time = np.arange(round(0.05 * rate_hz)) / rate_hz
    edge = np.clip(np.minimum(time, time[-1] - time) / 0.00025, 0, 1)
    return np.asarray(np.sin(2 * np.pi * 1000 * time) * edge)


SOUNDS: dict[str, Callable[[np.random.Generator, float, int], Wave]] = {
    "ball": clack, "bell": ring, "drum": thump, "string": pluck, "flash": beep,
}  # fmt: skip


def soundtrack(
    kind: str,
    events: Sequence[float],
    seconds: float,
    pitch_hz: float,
    rate_hz: int,
    seed: int,
) -> NDArray[np.float32]:
    """Lays the sound of a kind at each event, over quiet room noise.

    Args:
        kind: A key of `SOUNDS`.
        events: Onsets in seconds from the first sample.
        seconds: Length of the result.
        pitch_hz: Pitch of the thing, about 100 to 300.
        rate_hz: Sample rate.
        seed: Chooses noise and phases.

    Returns:
        Mono waveform within -1..1.
    """
    random = np.random.default_rng([seed, 3])
    count = round(seconds * rate_hz)
    track = np.zeros(count)
    wave = SOUNDS[kind](random, pitch_hz, rate_hz)
    for event in events:
        start = round(event * rate_hz)
        piece = wave[: max(0, count - start)] * random.uniform(0.85, 1.0)
        track[start : start + len(piece)] += piece
    peak = float(np.abs(track).max()) or 1.0
    return (0.7 * track / peak + 1e-3 * random.standard_normal(count)).astype(np.float32)
