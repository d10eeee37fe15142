"""Mel against librosa on the same waveform, and against a naive loop of the definition."""

import librosa
import numpy as np
import pytest

from pipeline import PROFILES
from pipeline.config import N_FFT, N_MELS
from pipeline.mel import SLICES_A_PIECE, log_mel, margin_samples, slaney_filterbank

CONFIGS = sorted({(c.mel_rate_hz, c.hop_samples) for c in PROFILES.values()})


def noise_and_tone(samples, rate_hz):
    random = np.random.default_rng(7)
    tone = np.sin(2 * np.pi * 1000 * np.arange(samples) / rate_hz)
    return (0.2 * tone + 0.05 * random.standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [22050, 24000])
def test_the_filterbank_is_librosas(rate_hz):
    ours = slaney_filterbank(rate_hz)
    theirs = librosa.filters.mel(sr=rate_hz, n_fft=N_FFT, n_mels=N_MELS)
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize(("rate_hz", "hop"), CONFIGS)
def test_log_mel_is_librosas_on_the_same_padded_signal(rate_hz, hop):
    slices = 90
    wave = noise_and_tone(slices * hop, rate_hz)
    margin = margin_samples(hop)
    padded = np.pad(wave, margin)
    ours = log_mel(padded, rate_hz, hop)
    assert ours.shape == (N_MELS, slices)
    starts = [int((j + 0.5) * hop) - N_FFT // 2 + margin for j in range(slices)]
    for j in range(0, slices, 7):  # librosa's frames start at multiples of the hop, ours need not
        piece = padded[starts[j] : starts[j] + N_FFT]
        power = librosa.feature.melspectrogram(
            y=piece, sr=rate_hz, n_fft=N_FFT, hop_length=N_FFT, n_mels=N_MELS, center=False
        )
        np.testing.assert_allclose(ours[:, j], np.log(np.maximum(power[:, 0], 1e-5)), atol=1e-3)


def test_a_long_clip_made_in_pieces_is_its_parts_side_by_side():
    slices, hop, margin = 2 * SLICES_A_PIECE + 100, 735, margin_samples(735)
    wave = noise_and_tone(slices * hop + 2 * margin, 22050)
    middle = 1500 * hop  # not where the pieces meet
    halves = [wave[: middle + 2 * margin], wave[middle:]]
    apart = np.hstack([log_mel(half, 22050, hop) for half in halves])
    np.testing.assert_allclose(log_mel(wave, 22050, hop), apart, atol=1e-4)


@pytest.mark.parametrize(("rate_hz", "hop"), CONFIGS)
def test_each_slice_is_centred_on_its_interval(rate_hz, hop):
    slices, margin = 30, margin_samples(hop)
    for j in (0, 11, 29):
        wave = np.zeros(slices * hop + 2 * margin, np.float32)
        wave[margin + int((j + 0.5) * hop)] = 1.0  # a click in the middle of slice j
        energy = np.exp(log_mel(wave, rate_hz, hop)).sum(axis=0)
        assert int(energy.argmax()) == j


def test_a_tone_lands_in_its_band():
    rate_hz, hop = 22050, 735
    mel = log_mel(np.pad(noise_and_tone(30 * hop, rate_hz), margin_samples(hop)), rate_hz, hop)
    centres = librosa.mel_frequencies(n_mels=N_MELS + 2, fmax=rate_hz / 2)[1:-1]
    assert abs(centres[mel.mean(axis=1).argmax()] - 1000) < 60


def test_silence_is_the_floor():
    mel = log_mel(np.zeros(30 * 735 + 2 * margin_samples(735), np.float32), 22050, 735)
    np.testing.assert_allclose(mel, np.log(1e-5), rtol=1e-6)
