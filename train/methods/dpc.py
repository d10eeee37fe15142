"""DPC: each cell of the blocks to come, said from the blocks so far (methods §6).

The way of a clip: blocks of a few frames -> encoder -> mean over the block's time, a grid of cells
-> ReLU -> ConvGRU with 1x1 convolutions over the blocks of the context -> prediction of the next
block's grid by two 1x1 convolutions. Its ReLU is the ConvGRU's next input, and so on for K blocks.
Targets are the cells before the ReLU.

    L = mean over (clip, t, s) of  -log softmax over (clip', t', s') of <pred_(t,s), feat_(t',s')>
        at clip' = clip, t' = t, s' = s

t runs over the K predicted blocks, s over cells. Negatives are other cells of the clip (spatial),
the same cell at other times (temporal) and other clips (easy), all that the batch has.

Table 5 of the GLCM paper compares objectives on one backbone, so that is the default; the backbone
of the DPC paper is an option. Of the released code, the dropout of the ConvGRU's state (0.1) and
BatchNorm without running statistics are left out; equal draws on one rank and two, and features of
single clips need that.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from train.methods.predictive import BlockConfig, Choice, PredictiveMethod, choose, in_blocks
from train.methods.table5 import (
    RECIPE as TABLE5_RECIPE,
    Pictures,
    require_at_least,
    require_one_of,
    video_encoder,
)
from train.models.attention import resize_grid
from train.models.recurrent import ConvGru, orthogonal
from train.models.video import ResidualBlock, VideoResNet
from train.models.video2d3d import ResNet2d3d
from train.objectives.global_local import Gather, keep_local

__all__ = ["PRESETS", "RECIPE", "Dpc", "DpcConfig"]

Backbone = Literal["common", "2d3d"]
RECIPE = {**TABLE5_RECIPE, "weight_decay": 1e-5}
"""Of Table 5, with the weight decay of the released code."""


@dataclass(frozen=True)
class DpcConfig(BlockConfig):
    """The whole method: input, encoder, context and predictions."""

    backbone: Backbone = "common"
    """`common` is the encoder of all objectives of Table 5; `2d3d` the DPC paper's, to which depth,
    block, strides and temporal_padding mean nothing."""
    grid_out: int | None = 4
    """Side of the grid of cells that are predicted, to which the encoder's is averaged; None keeps
    the encoder's. 4 is the DPC backbone's, at 112 and 128 pixels; the scores grow with its fourth
    power."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built or trained, saying what could."""
        super().__post_init__()
        require_one_of("backbone", self.backbone, get_args(Backbone))
        if self.grid_out is not None:
            require_at_least("grid_out", self.grid_out, 1)


class Dpc(PredictiveMethod):
    """Encoder, context and predictor.

    Attributes:
        context: ConvGRU over the blocks of a clip.
        predict: from the context to the next block's cells.
    """

    name = "dpc"

    def __init__(self, config: DpcConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: differentiable gathering of candidates over ranks, if the config says so.
        """
        encoder = _encoder(config)
        super().__init__(config, encoder, gather)
        self.grid_out = config.grid_out
        width = encoder.out_channels
        self.context = ConvGru(width, config.hidden)
        self.predict = nn.Sequential(
            nn.Conv2d(config.hidden, config.hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(config.hidden, width, 1),
        )
        orthogonal(self.predict)

    def contrast(self, video: Tensor) -> Choice:
        """What is predicted of the last blocks' cells, among those cells of all clips."""
        cells = self._cells(video)
        first = self.blocks - self.steps_ahead
        predicted = self._predicted(torch.relu(cells[:, :first]))
        candidates = _as_rows(cells[:, first:])
        same = torch.arange(candidates.shape[1], device=video.device)
        return choose(_as_rows(predicted), candidates, same, self.gather)

    def features(self, clips: Pictures, wanted: Collection[str] = ("fv",)) -> dict[str, Tensor]:
        """As every method's, with the ReLU that the encoder has not."""
        return {name: torch.relu(x) for name, x in super().features(clips, wanted).items()}

    def _cells(self, video: Tensor) -> Tensor:
        """(B, N, C, H', W'): a grid for each block, before the ReLU."""
        seen = self.encoder(in_blocks(video, self.block_frames))
        found = seen.mean(dim=2, keepdim=True, dtype=torch.float32)
        if self.grid_out is not None:
            found = resize_grid(found, self.grid_out)
        cells: Tensor = found.squeeze(2)
        return cells.view(-1, self.blocks, *cells.shape[1:])

    def _predicted(self, seen: Tensor) -> Tensor:
        """(B, K, C, H', W') from the context (B, N - K, C, H', W')."""
        state = None
        for block in seen.unbind(1):
            state = self.context(block, state)
        predicted = [self.predict(state)]
        while len(predicted) < self.steps_ahead:
            state = self.context(torch.relu(predicted[-1]), state)
            predicted.append(self.predict(state))
        return torch.stack(predicted, dim=1)


def _encoder(config: DpcConfig) -> VideoResNet | ResNet2d3d:
    """The backbone, without the ReLU at its end."""
    if config.backbone == "2d3d":
        return ResNet2d3d(config.width)
    common = video_encoder(config)
    cast(ResidualBlock, common.res5[-1]).rectified = False
    return common


def _as_rows(cells: Tensor) -> Tensor:
    """(B, K, C, H', W') -> (B, K H' W', C), in this order."""
    return cells.permute(0, 1, 3, 4, 2).flatten(1, 3)


_DPC = DpcConfig()
_TINY = DpcConfig(frames=24, blocks=6, crop=64, width=16, hidden=64)

PRESETS: dict[str, DpcConfig] = {
    "dpc": _DPC,
    "dpc_grid": replace(_DPC, frames=28, blocks=7),
    "dpc_2d3d": replace(_DPC, backbone="2d3d", crop=128, grid_out=None),
    "tiny": _TINY,
    "tiny_grid": replace(_TINY, frames=28, blocks=7),
}
"""`dpc` are 8 blocks of 4 frames on the encoder of Table 5, `dpc_2d3d` the backbone and the
picture size of the DPC paper; the `_grid` ones have 7 blocks, nearly all of GRID's 30 frames.
`tiny` fits two CPU cores."""
