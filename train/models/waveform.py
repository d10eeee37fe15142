"""An audio encoder for waveforms: 1D convolutions as in multisensory networks (methods §5).

Co-attention (ACM MM 2020, §3.1) listens to the samples themselves, 21 kHz stereo, without any
spectrogram. A first convolution and six further steps shorten 4.2 s, 88,200 samples, to 7 vectors:
88,200 -> 22,050 -> 5,512 -> 1,378 -> 345 -> 87 -> 22 -> 7.
"""

import math

import torch
from torch import Tensor, nn

COMPRESSION = 255
"""mu of the logarithm that samples go through first."""
FIRST_KERNEL, FIRST_POOL = 65, 4
KERNEL, STRIDE = 15, 4
LAST_POOL, LAST_KERNEL = 3, 3
LEAST_SAMPLES = 8205
"""Of a waveform of which one vector is left: 0.39 s at 21 kHz."""


def compress(wave: Tensor) -> Tensor:
    """sign(x) log(1 + 255 |x|) / log 256: -1 .. 1 stays -1 .. 1, and quiet sound becomes audible.

    As the multisensory network (Owens and Efros 2018), whose sampling the paper follows, does.
    """
    loud = torch.log1p(COMPRESSION * wave.abs()) / math.log1p(COMPRESSION)
    return torch.copysign(loud, wave)


class WaveNet1d(nn.Module):
    """Six convolutions with BatchNorm and ReLU, two average poolings, and a linear layer.

    Attributes:
        channels: of the waveform.
        out_channels: of the features.
    """

    def __init__(self, *, channels: int = 2, width: int = 64, out_channels: int = 512) -> None:
        """Build the network.

        Args:
            channels: 2 for stereo.
            width: of the first convolution; the others have 2, 2, 4, 4 and 2 times that.
            out_channels: of the features.
        """
        super().__init__()
        self.channels, self.out_channels = channels, out_channels
        self.convolutions = nn.Sequential(
            _layer(channels, width, FIRST_KERNEL, STRIDE),
            nn.AvgPool1d(FIRST_POOL),
            _layer(width, 2 * width, KERNEL, STRIDE),
            _layer(2 * width, 2 * width, KERNEL, STRIDE),
            _layer(2 * width, 4 * width, KERNEL, STRIDE),
            _layer(4 * width, 4 * width, KERNEL, STRIDE),
            nn.AvgPool1d(LAST_POOL),
            _layer(4 * width, 2 * width, LAST_KERNEL, 1),
        )
        self.project = nn.Linear(2 * width, out_channels)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, channels, samples) in -1 .. 1 -> (B, out_channels, K), see `steps`.

        Raises:
            ValueError: another number of channels, or too few samples for one vector.
        """
        if wave.ndim != 3 or wave.shape[1] != self.channels or wave.shape[2] < LEAST_SAMPLES:
            raise ValueError(
                f"a waveform of shape {tuple(wave.shape)}; expected (clips, {self.channels}, "
                f"samples) with {LEAST_SAMPLES} samples or more; shards of PROFILE=coattention "
                "hold stereo at 21 kHz"
            )
        features: Tensor = self.convolutions(compress(wave))
        projected: Tensor = self.project(features.transpose(1, 2))
        return projected.transpose(1, 2)


def steps(samples: int) -> int:
    """K: vectors that `WaveNet1d` makes of so many samples, >= `LEAST_SAMPLES`."""
    pooled = -(-samples // STRIDE) // FIRST_POOL
    for _ in range(4):
        pooled = -(-pooled // STRIDE)
    return pooled // LAST_POOL


def _layer(c_in: int, c_out: int, kernel: int, stride: int) -> nn.Sequential:
    """A "same" convolution without bias, which BatchNorm has, then ReLU."""
    convolution = nn.Conv1d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm1d(c_out), nn.ReLU(inplace=True))
