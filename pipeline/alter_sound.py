"""The sound transforms of recipes: a stretch of sound in, one of the same length out.

Powers are those inside of the sample, so that a signal-to-noise ratio is what one measures there;
silence stays silence. Noise is the same on all channels. What each parameter means:
`manifests.recipes`.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, log
from typing import Any

import av
import av.filter
import numpy as np
import numpy.typing as npt
import soxr

from pipeline.errors import ClipError, Reason
from pipeline.sound import Wave

CLICK_HZ = 1000.0
CLICK_SECONDS = 0.1
CLICK_DECAY_SECONDS = 0.015
PEAKING_QUALITY = 0.7
VOCODER_SECONDS = 0.023
"""Length of the phase vocoder's window: 1024 samples at 44.1 kHz."""
ONSET_RATIO = 2.0
"""Growth of the energy from window to window that tells of an event. With these two beeps stay
within 1 ms of their place at speeds from 0.5 to 2; with windows of 46 ms within 9 ms."""
_BLOCK_SAMPLES = 4096


@dataclass(frozen=True)
class Stretch:
    """Sound with more before and after the sample than the sample holds."""

    samples: Wave
    """(samples, channels) in -1 .. 1."""
    rate_hz: int
    inside: slice
    """The sample's part of `samples`."""

    @property
    def power(self) -> float:
        """Mean square inside of the sample."""
        return _power(self.samples[self.inside])

    def of(self, samples: npt.NDArray[np.floating[Any]]) -> "Stretch":
        """The same with other samples."""
        return replace(self, samples=np.asarray(samples, np.float32))

    def with_noise(self, noise: Wave, snr_db: float) -> "Stretch":
        """With noise (samples,) added, so loud that the ratio of powers inside is `snr_db`."""
        wanted = self.power / 10 ** (snr_db / 10)
        gain = (wanted / max(_power(noise[self.inside]), 1e-20)) ** 0.5
        return self.of(self.samples + np.float32(gain) * noise[:, None])


def _power(wave: Wave) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64))) if wave.size else 0.0


SoundTransform = Callable[..., Stretch]
"""(stretch, chance, **parameters) -> stretch."""


def audio_noise(stretch: Stretch, chance: np.random.Generator, *, snr_db: float) -> Stretch:
    """White Gaussian noise."""
    noise = chance.standard_normal(len(stretch.samples), np.float32)
    return stretch.with_noise(noise, snr_db)


def clicks(
    stretch: Stretch, chance: np.random.Generator, *, seconds_between: float, snr_db: float
) -> Stretch:
    """Dying tones of 1 kHz at equal distances, the first half a distance into the sample."""
    seconds = np.arange(round(CLICK_SECONDS * stretch.rate_hz)) / stretch.rate_hz
    click = np.sin(2 * np.pi * CLICK_HZ * seconds) * np.exp(-seconds / CLICK_DECAY_SECONDS)
    track = np.zeros(len(stretch.samples) + len(click), np.float32)
    step = seconds_between * stretch.rate_hz
    for number in range(ceil((stretch.inside.stop - stretch.inside.start) / step)):
        at = stretch.inside.start + round((number + 0.5) * step)
        track[at : at + len(click)] += click[: len(track) - at].astype(np.float32)
    return stretch.with_noise(track[: len(stretch.samples)], snr_db)


def pitch_shift(stretch: Stretch, chance: np.random.Generator, *, semitones: float) -> Stretch:
    """Stretched in time at the same pitch, then played faster by as much."""
    ratio, length = 2 ** (semitones / 12), len(stretch.samples)
    longer = faster(stretch.samples, 1 / ratio, ceil(length * ratio), stretch.rate_hz)
    shifted = soxr.resample(longer, stretch.rate_hz * ratio, stretch.rate_hz, quality="HQ")
    return stretch.of(_fitted(shifted, length))


def reverb(
    stretch: Stretch, chance: np.random.Generator, *, decay_seconds: float, wet: float
) -> Stretch:
    """Convolved with noise that decays exponentially, by 60 dB in `decay_seconds`."""
    seconds = np.arange(ceil(decay_seconds * stretch.rate_hz)) / stretch.rate_hz
    response = chance.standard_normal(len(seconds)) * np.exp(-log(1000) * seconds / decay_seconds)
    response *= (wet / np.sum(response**2)) ** 0.5
    response[0] += (1 - wet) ** 0.5
    size = 1 << (len(stretch.samples) + len(response) - 1).bit_length()
    spectrum = np.fft.rfft(stretch.samples, size, axis=0) * np.fft.rfft(response, size)[:, None]
    return stretch.of(np.fft.irfft(spectrum, size, axis=0)[: len(stretch.samples)])


def high_pass(stretch: Stretch, chance: np.random.Generator, *, cutoff_hz: float) -> Stretch:
    """Second-order Butterworth."""
    return _filtered(stretch, "highpass", cutoff_hz)


def low_pass(stretch: Stretch, chance: np.random.Generator, *, cutoff_hz: float) -> Stretch:
    """Second-order Butterworth."""
    return _filtered(stretch, "lowpass", cutoff_hz)


def peaking(
    stretch: Stretch, chance: np.random.Generator, *, center_hz: float, gain_db: float
) -> Stretch:
    """A bell of quality 0.7."""
    return _filtered(stretch, "equalizer", center_hz, f":t=q:w={PEAKING_QUALITY}:g={gain_db}")


SOUND_TRANSFORMS: dict[str, SoundTransform] = {
    "audio_noise": audio_noise,
    "clicks": clicks,
    "pitch_shift": pitch_shift,
    "reverb": reverb,
    "high_pass": high_pass,
    "low_pass": low_pass,
    "peaking": peaking,
}
"""By the names of `manifests.recipes.TRANSFORMS`."""


def faster(samples: Wave, speed: float, length: int, rate_hz: int) -> Wave:
    """Sound played faster (below 1: slower) at the same pitch, by a phase vocoder.

    Flanagan and Golden (Bell System Technical Journal, 1966). ffmpeg's `atempo`, which AugLy uses,
    moves events by up to 50 ms to make its pieces fit; here the middle of each window stays where
    the speed puts it, so that picture and sound keep together.

    Args:
        samples: (samples, channels).
        speed: seconds of them in a second of the result.
        length: samples of the result.
        rate_hz: samples a second.

    Returns:
        (length, channels); time t of it is time `t x speed` of `samples`.
    """
    if speed == 1:
        return _fitted(samples, length)
    size = 1 << round(float(np.log2(VOCODER_SECONDS * rate_hz)))
    hop, half = size // 4, size // 2
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)[:, None]
    count = ceil(length / hop) + 1
    padded = np.pad(samples, ((half, size + half + ceil(count * hop * speed)), (0, 0)))

    def spectrum(at: int) -> np.ndarray[tuple[int, int], np.dtype[np.complex128]]:
        return np.asarray(np.fft.rfft(padded[at : at + size] * window, axis=0), np.complex128)

    result = np.zeros((count * hop + size, samples.shape[1]), np.float32)
    phase, energy = np.angle(spectrum(0)), 0.0
    for k in range(count):
        at = round(k * hop * speed)
        here, next_one = spectrum(at), spectrum(at + hop)
        before, energy = energy, float(np.sum(np.abs(here) ** 2))
        if energy > ONSET_RATIO * before:  # an event comes in: its own phases keep it in place
            phase = np.angle(here)
        wave = np.fft.irfft(np.abs(here) * np.exp(1j * phase), size, axis=0)
        result[k * hop : k * hop + size] += wave.astype(np.float32) * window
        # what a hop adds to the phase is the same in source and result
        phase += np.angle(next_one) - np.angle(here)
    # squares of Hann windows a quarter apart add up to 3/2
    return _fitted(result[half:] / np.float32(1.5), length)


def _fitted(samples: Wave, length: int) -> Wave:
    """Cut to a length, or filled up with silence."""
    cut = samples[:length]
    return np.pad(cut, ((0, length - len(cut)), (0, 0)))


def _filtered(stretch: Stretch, name: str, hz: float, options: str = "") -> Stretch:
    """Through a filter of libavfilter.

    Raises:
        ClipError: the frequency is above what the sound can hold.
    """
    if hz >= stretch.rate_hz / 2:
        detail = (
            f"the recipe filters at {hz:g} Hz, sound of {stretch.rate_hz} samples a second ends at "
            f"{stretch.rate_hz / 2:g} Hz; choose a lower frequency"
        )
        raise ClipError(Reason.UNSUPPORTED_FORMAT, detail, "sample")
    layout = {1: "mono", 2: "stereo"}[stretch.samples.shape[1]]
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        format="fltp",
        sample_rate=stretch.rate_hz,
        layout=layout,
        time_base=Fraction(1, stretch.rate_hz),
    )
    sink = graph.add("abuffersink")
    graph.link_nodes(source, graph.add(name, f"f={hz}{options}"), sink).configure()
    out: list[Wave] = []
    for start in range(0, len(stretch.samples), _BLOCK_SAMPLES):
        block = np.ascontiguousarray(stretch.samples[start : start + _BLOCK_SAMPLES].T)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = stretch.rate_hz, start
        source.push(frame)
        out += _pulled(sink)
    source.push(None)
    out += _pulled(sink)
    return stretch.of(np.concatenate(out))


def _pulled(sink: Any) -> list[Wave]:
    """What a filter graph has ready."""
    ready: list[Wave] = []
    with suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            ready.append(np.asarray(sink.pull().to_ndarray().T, np.float32))
    return ready
