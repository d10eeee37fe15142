"""The audio encoder `E_a`: a 1D ResNet-18 over the mel spectrogram (methods §1.2).

The 80 mel bands are the channels of a 1D signal (paper §4). Nothing is strided at the default 30
slices a second, so three outputs belong to each video frame, as the local objective needs.
`audio_stride=4` starts from 120 slices a second and ends at the same 30 (methods §1.4).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from train.models.padding import TemporalPadding, repeat_ends

N_MELS = 80
AUDIO_STRIDES = (1, 4)
NEGATIVE_SLOPE = 0.01
STAGES = ("res2", "res3", "res4", "res5")


class SameConv1d(nn.Conv1d):
    """A "same" convolution of an odd kernel; parameters and names are those of `nn.Conv1d`."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, padding: TemporalPadding, stride: int = 1
    ) -> None:
        """Zeros are left to the convolution itself, which then needs no copy of its input."""
        self.repeated_slices = kernel // 2 if padding == "replicate" else 0
        zeros = kernel // 2 - self.repeated_slices
        super().__init__(c_in, c_out, kernel, stride=stride, padding=zeros)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, K) -> (B, C_out, K / stride)."""
        return super().forward(repeat_ends(x, self.repeated_slices))


class AudioBlock(nn.Module):
    """Two convolutions of three slices with BatchNorm, plus the shortcut; LeakyReLU."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int = 1,
        *,
        project: bool = False,
        padding: TemporalPadding = "zeros",
    ) -> None:
        """Build one block.

        Args:
            c_in: width before.
            c_out: width after.
            stride: of the first convolution.
            project: whether the shortcut is a 1x1 convolution rather than the input itself.
            padding: what stands before the first and after the last slice.
        """
        super().__init__()
        self.residual = nn.Sequential(
            SameConv1d(c_in, c_out, 3, padding, stride),
            nn.BatchNorm1d(c_out),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            SameConv1d(c_out, c_out, 3, padding),
            nn.BatchNorm1d(c_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(
                nn.Conv1d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm1d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, K) -> (B, C_out, K / stride)."""
        return F.leaky_relu(self.residual(x) + self.shortcut(x), NEGATIVE_SLOPE)


class AudioResNet(nn.Module):
    """Stem and four stages of two blocks; the length is kept (or divided by `audio_stride`).

    Attributes:
        out_channels: 8 x width.
    """

    def __init__(
        self, *, width: int = 64, audio_stride: int = 1, temporal_padding: TemporalPadding = "zeros"
    ) -> None:
        """Build the network and initialise it (Xavier).

        Args:
            width: channels of the stem and of res2.
            audio_stride: 1, or 4 for a mel of 120 slices a second.
            temporal_padding: what the convolutions find before the first and after the last slice.
        """
        super().__init__()
        strided = audio_stride == 4
        stem: list[nn.Module] = [
            SameConv1d(N_MELS, width, 7, temporal_padding),
            nn.BatchNorm1d(width),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
        ]
        stem += [nn.MaxPool1d(3, stride=2, padding=1)] if strided else []
        self.stem = nn.Sequential(*stem)
        self.res2 = _stage(width, width, temporal_padding, stride=2 if strided else 1)
        self.res3 = _stage(width, 2 * width, temporal_padding)
        self.res4 = _stage(2 * width, 4 * width, temporal_padding)
        self.res5 = _stage(4 * width, 8 * width, temporal_padding)
        self.out_channels = 8 * width
        self.apply(_initialise)

    @property
    def stage_channels(self) -> dict[str, int]:
        """C of each map of `stages`."""
        return {name: self.out_channels >> (3 - index) for index, name in enumerate(STAGES)}

    def forward(self, mel: Tensor, collect: dict[str, Tensor] | None = None) -> Tensor:
        """The last stage's map.

        Args:
            mel: (B, 80, K).
            collect: is filled with the map of every stage, by name.

        Returns:
            (B, out_channels, K / audio_stride).
        """
        x: Tensor = self.stem(mel)
        for name in STAGES:
            x = getattr(self, name)(x)
            if collect is not None:
                collect[name] = x
        return x

    def stages(self, mel: Tensor) -> dict[str, Tensor]:
        """The maps after res2, res3, res4 and res5: (B, C, K / audio_stride), each with its C."""
        maps: dict[str, Tensor] = {}
        self(mel, maps)
        return maps


def _stage(c_in: int, c_out: int, padding: TemporalPadding, stride: int = 1) -> nn.Sequential:
    # The first block of every stage projects its shortcut, also in res2 where width and length
    # stay: the released code does, and its parameter count is ours to match.
    return nn.Sequential(
        AudioBlock(c_in, c_out, stride, project=True, padding=padding),
        AudioBlock(c_out, c_out, padding=padding),
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d):
        nn.init.xavier_normal_(module.weight)
