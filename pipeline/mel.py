"""Log-mel spectrogram, aligned with the frames: three slices tile one interval of the grid.

Power (2.0) spectrogram, Hann window of 1024 samples, 80 Slaney bands, natural
`log(max(mel, 1e-5))`; slice j is centred at (j + 1/2) hop samples (architecture §4). It follows
librosa's definition of the Slaney filterbank (Slaney, Auditory Toolbox, 1998), written out here
because importing librosa costs a worker 3 s and 230 MB; the tests hold it against librosa.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.config import N_FFT, N_MELS

FLOOR = 1e-5
SLICES_A_PIECE = 1024
"""Spectra held at a time: those of a two-minute clip would take 250 MB."""
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27


def margin_samples(hop_samples: int) -> int:
    """Samples of real sound a cut needs before t0 and after its end for the outer slices."""
    return N_FFT // 2 - hop_samples // 2


def log_mel(
    waveform: npt.NDArray[np.float32], rate_hz: int, hop_samples: int
) -> npt.NDArray[np.float32]:
    """The log-mel spectrogram of a mono waveform with `margin_samples` more on either side.

    Args:
        waveform: (margin + slices x hop + margin,).
        rate_hz: samples a second.
        hop_samples: samples between slices.

    Returns:
        (80, slices) natural logarithm of mel power.
    """
    offset = margin_samples(hop_samples)
    slices = (len(waveform) - 2 * offset) // hop_samples
    starts = (np.arange(slices) * 2 + 1) * hop_samples // 2 - N_FFT // 2 + offset
    views = np.lib.stride_tricks.sliding_window_view(waveform, N_FFT)
    mel = np.empty((N_MELS, slices), np.float32)
    for begin in range(0, slices, SLICES_A_PIECE):
        piece = slice(begin, begin + SLICES_A_PIECE)
        spectrum = np.fft.rfft(views[starts[piece]] * _hann(), axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        mel[:, piece] = np.log(np.maximum(slaney_filterbank(rate_hz) @ power.T, FLOOR))
    return mel


@lru_cache(maxsize=4)
def slaney_filterbank(rate_hz: int) -> npt.NDArray[np.float32]:
    """(80, 513) triangular filters of equal area between 0 Hz and half the rate."""
    edges_hz = _mel_to_hz(np.linspace(0, _hz_to_mel(rate_hz / 2), N_MELS + 2))
    bins_hz = np.linspace(0, rate_hz / 2, N_FFT // 2 + 1)
    rising = (bins_hz - edges_hz[:-2, None]) / np.diff(edges_hz)[:-1, None]
    falling = (edges_hz[2:, None] - bins_hz) / np.diff(edges_hz)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    area = 2 / (edges_hz[2:] - edges_hz[:-2])
    return np.asarray(triangles * area[:, None], np.float32)


def slaney_centres_mel(rate_hz: int) -> npt.NDArray[np.float64]:
    """(80,) centres of the filters in mel, Slaney's: 15 is 1 kHz."""
    return np.linspace(0, _hz_to_mel(rate_hz / 2), N_MELS + 2)[1:-1]


@lru_cache(maxsize=1)
def _hann() -> npt.NDArray[np.float32]:
    """A periodic Hann window."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT), np.float32)


def _hz_to_mel(hz: float) -> float:
    """Linear below 1 kHz, logarithmic above."""
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return float(_BREAK_HZ / _LINEAR_HZ_PER_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse of `_hz_to_mel`."""
    break_mel = _BREAK_HZ / _LINEAR_HZ_PER_MEL
    curved = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, break_mel) - break_mel))
    return np.where(mel < break_mel, mel * _LINEAR_HZ_PER_MEL, curved)
