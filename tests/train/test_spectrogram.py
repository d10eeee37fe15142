"""Log-spectrograms against librosa, and tones in the bin of their frequency."""

import librosa
import numpy as np
import pytest
import torch

from train.models.spectrogram import LogSpectrogram

RATE_HZ = 24_000


def test_agrees_with_librosa() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    ours = LogSpectrogram(RATE_HZ, 1024, 240, 257)(torch.from_numpy(wave)[None])
    assert ours.shape == (1, 1, 200, 257)
    padded = np.pad(wave, (0, 1024 - 240))
    power = np.abs(librosa.stft(padded, n_fft=1024, hop_length=240, center=False)) ** 2
    fewer = np.concatenate([power[:1], power[1:].reshape(256, 2, -1).mean(1)])
    theirs = librosa.power_to_db(fewer, ref=1.0, top_db=100)
    assert np.allclose(ours[0, 0].numpy().T, theirs[:, :200], atol=2e-3)


def test_a_tone_lies_in_its_bin_and_time() -> None:
    seconds = torch.arange(RATE_HZ) / RATE_HZ
    tone = torch.where(seconds < 0.5, torch.sin(2 * torch.pi * 3000 * seconds), torch.zeros(()))
    found = LogSpectrogram(RATE_HZ, 1024, 240, 257)(tone[None])[0, 0]
    hz_per_bin = RATE_HZ / 2 / 256
    assert abs(int(found[:40].mean(0).argmax()) * hz_per_bin - 3000) <= hz_per_bin
    assert found[:40].max() - found[60:].max() > 90


def test_bins_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="1 \\+ a divisor of 512"):
        LogSpectrogram(RATE_HZ, 1024, 240, 200)
