"""Conv2D-10: the audio network of AVID, over a spectrogram seen as a picture (methods §3).

A stem and four blocks of two 3 x 3 convolutions, without shortcuts: the nine layers of the paper,
"depth 10" in its code. The last map is not pooled; how to is the head's business.
"""

from collections.abc import Collection

from torch import Tensor, nn

from train.models.stages import run_stages

AUDIO_STAGES = ("conv2x", "conv3x", "conv4x", "conv5x")


class Conv2D10(nn.Module):
    """Spectrogram in, map of steps and bins out.

    Attributes:
        out_channels: 8 x width.
    """

    def __init__(self, *, width: int = 64) -> None:
        """Build the network, with torch's default initialisation as in AVID's code.

        Args:
            width: channels of the stem and of conv2x.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.conv2x = _block(width, width, 2)
        self.conv3x = _block(width, 2 * width, 2)
        self.conv4x = _block(2 * width, 4 * width, 2)
        self.conv5x = _block(4 * width, 8 * width, 1)
        self.out_channels = 8 * width

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, steps, bins) -> (B, out_channels, ceil(steps/16), ceil(bins/16))."""
        return self.stages(spectrogram, ("conv5x",))["conv5x"]

    def stages(
        self, spectrogram: Tensor, wanted: Collection[str] = AUDIO_STAGES
    ) -> dict[str, Tensor]:
        """The maps of the wanted stages, by name; what comes behind the last one is not computed.

        Returns:
            conv2x: (B, width, steps/4, bins/4); conv3x and conv4x halve both and double the
                channels, conv5x doubles the channels only. Sizes are rounded up.
        """
        return run_stages(self, self.stem(spectrogram), AUDIO_STAGES, wanted)


def _block(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )
