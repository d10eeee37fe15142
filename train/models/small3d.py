"""A visual encoder of five 3D convolutions (co-attention, ACM MM 2020, §3.1; methods §5).

The paper's network that needs no ResNet: 0.52 M parameters. Every convolution halves time and, as
far as `strides` say so, the picture: 224 pixels end as 4 x 4 cells, each a vector.
"""

from torch import Tensor, nn

Strides = tuple[int, int, int, int]
FIRST_KERNEL, KERNEL = (5, 7, 7), (3, 3, 3)


class SmallVideoNet(nn.Module):
    """A convolution of 5 x 7 x 7, an average pooling, four of 3 x 3 x 3, and a linear layer.

    Attributes:
        out_channels: of the features.
        map_channels: of the convolutions.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        out_channels: int = 512,
        conv1_stride: int = 2,
        strides: Strides = (2, 2, 2, 2),
    ) -> None:
        """Build the network.

        Args:
            width: channels of all convolutions.
            out_channels: of the features.
            conv1_stride: of the first convolution, in time and space. The paper writes 1, which
                costs 645 GFLOP a clip of 126 frames instead of 81 (methods §5).
            strides: of the four others in space; in time it is 2.
        """
        super().__init__()
        self.map_channels, self.out_channels = width, out_channels
        layers = [
            *_layer(3, width, FIRST_KERNEL, (conv1_stride,) * 3),
            nn.AvgPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1), count_include_pad=False),
        ]
        for stride in strides:
            layers += _layer(width, width, KERNEL, (2, stride, stride))
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Linear(width, out_channels)

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W), normalised -> (B, out_channels, T', H', W')."""
        return self.projected(self.maps(video))

    def maps(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, width, T', H', W'): what the last convolution gives."""
        maps: Tensor = self.convolutions(video)
        return maps

    def projected(self, maps: Tensor) -> Tensor:
        """(B, width, T', H', W') -> (B, out_channels, T', H', W'), each cell by itself."""
        return self.project(maps.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]


def grid_side(crop: int, conv1_stride: int, strides: Strides) -> int:
    """Cells along a side that `SmallVideoNet` makes of `crop` pixels."""
    for stride in (conv1_stride, 2, *strides):
        crop = -(-crop // stride)
    return crop


def _layer(
    c_in: int, c_out: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> list[nn.Module]:
    """A "same" convolution without bias, which BatchNorm has, then ReLU."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    convolution = nn.Conv3d(c_in, c_out, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.BatchNorm3d(c_out), nn.ReLU(inplace=True)]
