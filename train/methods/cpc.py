"""CPC on video: what comes next, said from what was seen (Table 5 of the GLCM paper, methods §6).

The way of a clip: blocks of a few frames -> encoder -> mean over time and place z_t -> GRU over
blocks -> context c_t. For k = 1 .. K, W_k c_t is the prediction of z_(t+k), for every t that has a
block k later. It is to be told from all other blocks of the batch: those of other clips, and those
of the same clip at other times, also earlier ones that the context has seen.

    L = mean over (clip, t, k) of  -log softmax over (clip', t') of <W_k c_t, z_(t',clip')>
        at clip' = clip, t' = t + k

The objective knows no place within the picture and one vector a block (Table 5: G, G). The paper
says no more than the name of the objective; sizes are those of methods §6.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from train.methods.predictive import BlockConfig, Choice, PredictiveMethod, choose, in_blocks
from train.methods.table5 import video_encoder
from train.models.attention import full_precision
from train.objectives.global_local import Gather, keep_local

__all__ = ["PRESETS", "Cpc", "CpcConfig"]


@dataclass(frozen=True)
class CpcConfig(BlockConfig):
    """The whole method: input, encoder, context and predictions."""


class Cpc(PredictiveMethod):
    """Encoder, context and predictors.

    Attributes:
        context: GRU over the blocks of a clip.
        predict: W_1 .. W_K.
    """

    name = "cpc"

    def __init__(self, config: CpcConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: differentiable gathering of candidates over ranks, if the config says so.
        """
        encoder = video_encoder(config)
        super().__init__(config, encoder, gather)
        width = encoder.out_channels
        self.context = nn.GRU(width, config.hidden, batch_first=True)
        self.predict = nn.ModuleList(
            nn.Linear(config.hidden, width, bias=False) for _ in range(config.steps_ahead)
        )

    def contrast(self, video: Tensor) -> Choice:
        """What is predicted from all contexts, among all blocks."""
        seen = self.encoder(in_blocks(video, self.block_frames))
        z = seen.mean(dim=(2, 3, 4), dtype=torch.float32).unflatten(0, (-1, self.blocks))
        with full_precision(z):  # autocast would make float16 of it on GPUs, unscaled
            context, _ = self.context(z)
        predicted = [w(context[:, : self.blocks - k]) for k, w in enumerate(self.predict, 1)]
        times = torch.arange(self.blocks, device=z.device)
        met = [times[k:] for k in range(1, self.steps_ahead + 1)]
        return choose(torch.cat(predicted, dim=1), z, torch.cat(met), self.gather)


_CPC = CpcConfig()
_TINY = CpcConfig(frames=24, blocks=6, crop=64, width=16, hidden=64)

PRESETS: dict[str, CpcConfig] = {
    "cpc": _CPC,
    "cpc_grid": replace(_CPC, frames=28, blocks=7),
    "tiny": _TINY,
    "tiny_grid": replace(_TINY, frames=28, blocks=7),
}
"""`cpc` are 8 blocks of 4 frames on the encoder of Table 5; the `_grid` ones have 7, nearly all
of GRID's 30 frames. `tiny` fits two CPU cores."""
