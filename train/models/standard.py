"""Standardised spectrograms: each bin less its mean, over its standard deviation, of the data set.

The released code of AVID comes with both numbers for its corpora. Here they are learnt on the way:
the mean and the variance of everything trained on so far, each clip counting the same, the batch at
hand included. They settle within the first batches, stay as they are outside of training, and lie
in checkpoints.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

FIRST_MEAN_DB, FIRST_DEVIATION_DB = -50.0, 25.0
"""Of a network that has seen nothing, so that what it says of a clip is not far off the mark."""
LEAST_DEVIATION_DB = 1.0
"""Of a bin in which nothing is ever heard: rounding errors should not become a signal."""


class RunningStandard(nn.Module):
    """(B, 1, steps, bins) in dB -> the same, standardised by bin.

    Attributes:
        mean, variance: float64 (bins,).
        clips: float64 (), how many they are of.
    """

    mean: Tensor
    variance: Tensor
    clips: Tensor

    def __init__(self, bins: int, gather: Callable[[Tensor], Tensor]) -> None:
        """Begin without data.

        Args:
            bins: of the spectrogram.
            gather: (B, ...) of each rank -> (R * B, ...).
        """
        super().__init__()
        self.gather = gather
        first = torch.full((bins,), FIRST_MEAN_DB, dtype=torch.float64)
        self.register_buffer("mean", first)
        self.register_buffer("variance", torch.full_like(first, FIRST_DEVIATION_DB**2))
        self.register_buffer("clips", torch.zeros((), dtype=torch.float64))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Standardise; in training learn first."""
        if self.training:
            self.learn(spectrogram)
        deviation = self.variance.sqrt().clamp(min=LEAST_DEVIATION_DB)
        return (spectrogram - self.mean.float()) / deviation.float()

    @torch.no_grad()
    def learn(self, spectrogram: Tensor) -> None:
        """Count a batch in, of all ranks (Chan, Golub and LeVeque's sum of two samples)."""
        variance, mean = torch.var_mean(spectrogram[:, 0].double(), dim=1, correction=0)
        means, variances = self.gather(torch.stack([mean, variance], dim=1)).unbind(dim=1)
        mean, new = means.mean(dim=0), len(means)
        variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
        share = new / (self.clips + new)
        step = mean - self.mean
        self.variance.lerp_(variance, share).add_(step**2 * share * (1 - share))
        self.mean.add_(step * share)
        self.clips += new
