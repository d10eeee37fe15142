"""The sound of a sample for a page: stored, from the source, or made again from the mel.

A page always says which. Sound made from the mel (Griffin and Lim, IEEE TASSP 1984) has invented
phases, but it is what the trainer is given, on the trainer's clock: it shows whether the stored mel
is in step with the stored pictures.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import MEL_SLICES_PER_FRAME, N_FFT
from pipeline.format import Sample
from pipeline.mel import FLOOR

Wave = npt.NDArray[np.float32]
SoundOf = Callable[[dict[str, Any]], tuple[Wave, int] | None]
"""From a sample's JSON to the source's sound: (samples, channels) from t0 on and the rate in Hz;
None where the source is not at hand."""

OGG_BLOCK_SAMPLES = 8192
"""libvorbis keeps a block on the stack; a whole clip at once has crashed it."""
MAX_HOP_SAMPLES = N_FFT // 4
GRIFFIN_LIM_ROUNDS = 32
PEAK = 0.9


@dataclass(frozen=True)
class PageSound:
    """What a page plays."""

    ogg: bytes
    """OGG/Vorbis, from t0 on."""
    origin: str
    """Where it comes from, in words."""


def page_sound(sample: Sample, seconds: float, sound_of: SoundOf | None) -> PageSound | None:
    """The first `seconds` of a sample's sound, None if it has none."""
    meta = sample.meta
    if sample.waveform is not None:
        return _encoded(sample.waveform, meta["waveform_rate_hz"], seconds, "the stored waveform")
    found = sound_of(meta) if sound_of else None
    if found is not None:
        by_recipe = ", by the recipe" if "reference_key" in meta["extra"] else ""
        return _encoded(*found, seconds, f"the source file{by_recipe}")
    if sample.mel is None or float(sample.mel.max()) <= np.log(FLOOR) + 0.01:
        return None
    slices = int(seconds * Fraction(meta["fps"]) * MEL_SLICES_PER_FRAME)
    hop = int(meta["mel_rate_hz"] / (Fraction(meta["fps"]) * MEL_SLICES_PER_FRAME))
    wave = from_mel(sample.mel[:, :slices].astype(np.float32), meta["mel_rate_hz"], hop)
    return _encoded(wave, meta["mel_rate_hz"], seconds, "resynthesised from the stored mel")


def _encoded(wave: Wave, rate_hz: int, seconds: float, origin: str) -> PageSound:
    samples = wave[: round(seconds * rate_hz)]
    return PageSound(encode_ogg(samples.reshape(len(samples), -1), rate_hz), origin)


def encode_ogg(wave: Wave, rate_hz: int) -> bytes:
    """(samples, channels) in -1 .. 1 as OGG/Vorbis, which browsers play."""
    import soundfile

    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", rate_hz, wave.shape[1], format="OGG", subtype="VORBIS"
    ) as file:
        for start in range(0, len(wave), OGG_BLOCK_SAMPLES):
            file.write(np.clip(wave[start : start + OGG_BLOCK_SAMPLES], -1, 1))
    return buffer.getvalue()


def from_mel(log_mel: Wave, rate_hz: int, hop_samples: int) -> Wave:
    """A waveform (samples,) whose log-mel spectrogram is near the given one.

    Args:
        log_mel: (80, slices), slice j centred at (j + 1/2) hop samples.
        rate_hz: rate of the waveform.
        hop_samples: samples between slices.
    """
    from librosa import griffinlim
    from librosa.feature.inverse import mel_to_stft

    # Slices 33 ms apart hardly overlap, and phases cannot be found; slices between them can be.
    parts = -(-hop_samples // MAX_HOP_SAMPLES)
    while hop_samples % parts:
        parts += 1
    fine_hop = hop_samples // parts
    magnitude = mel_to_stft(np.exp(log_mel), sr=rate_hz, n_fft=N_FFT, power=2.0)
    fine = _interpolated(magnitude, parts)
    wave = griffinlim(
        fine, n_iter=GRIFFIN_LIM_ROUNDS, hop_length=fine_hop, n_fft=N_FFT, random_state=0
    )
    # librosa centres slice j at j hops, ours are half a hop later.
    shifted = np.pad(wave, (fine_hop // 2, fine_hop))[: log_mel.shape[1] * hop_samples]
    return np.asarray(
        shifted * min(1.0, PEAK / max(float(np.abs(shifted).max()), 1e-6)), np.float32
    )


def _interpolated(magnitude: Wave, parts: int) -> Wave:
    """`parts` slices for each one, linear between the centres."""
    slices = magnitude.shape[1]
    wanted = (np.arange(slices * parts) + 0.5) / parts - 0.5
    left = np.clip(np.floor(wanted).astype(int), 0, max(slices - 2, 0))
    right = np.minimum(left + 1, slices - 1)
    share = np.clip(wanted - left, 0, 1).astype(np.float32)
    return np.asarray(magnitude[:, left] * (1 - share) + magnitude[:, right] * share, np.float32)
