"""Waveforms -> log-power spectrograms, on the device."""

import torch
from torch import Tensor, nn

DECIBEL = 10.0
FLOOR = 1e-10
"""Power under which all is silence."""


class LogSpectrogram(nn.Module):
    """Short-time Fourier transform, power in dB, neighbouring bins averaged (AVID paper §3.3, §5).

    The first bin (DC) stays by itself and the rest are averaged in equal groups: 513 bins of
    n_fft 1024 become 257 = 1 + 512 / 2. Frame k begins at sample k x hop, so a waveform of
    steps x hop samples gives `steps` frames; its end is padded with zeros for the last of them.
    """

    window: Tensor

    def __init__(
        self, rate_hz: int, n_fft: int, hop: int, bins: int, top_db: float = 100.0
    ) -> None:
        """Settle the sizes.

        Args:
            rate_hz: of the waveforms; only for `seconds_per_step`.
            n_fft: window (Hann), samples.
            hop: samples from frame to frame.
            bins: of the result; (n_fft / 2) must divide by bins - 1.
            top_db: what is softer than a clip's loudest bin by more is raised to that.

        Raises:
            ValueError: bins that cannot be averaged from n_fft.
        """
        super().__init__()
        if bins < 2 or (n_fft // 2) % (bins - 1):
            raise ValueError(
                f"bins is {bins} and n_fft {n_fft}; expected 1 + a divisor of {n_fft // 2}"
            )
        self.n_fft, self.hop, self.bins, self.top_db = n_fft, hop, bins, top_db
        self.seconds_per_step = hop / rate_hz
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, samples) in -1 .. 1 -> (B, 1, samples // hop, bins), dB in float32."""
        with torch.autocast(wave.device.type, enabled=False):
            padded = nn.functional.pad(wave.float(), (0, self.n_fft - self.hop))
            spectrum = torch.stft(
                padded, self.n_fft, self.hop, window=self.window, center=False, return_complex=True
            )
            power = torch.view_as_real(spectrum).square().sum(-1)
            bins = self._fewer(power.transpose(1, 2)[:, : wave.shape[-1] // self.hop])
            decibel = DECIBEL * bins.clamp(min=FLOOR).log10()
            loudest = decibel.amax((1, 2), keepdim=True)
            return torch.maximum(decibel, loudest - self.top_db).unsqueeze(1)

    def _fewer(self, power: Tensor) -> Tensor:
        """(B, K, 1 + n_fft / 2) -> (B, K, bins)."""
        rest = power[..., 1:].reshape(*power.shape[:-1], self.bins - 1, -1).mean(-1)
        return torch.cat([power[..., :1], rest], -1)
