"""VDIM: global against local features of two views of a clip (methods §6; Hjelm & Bachman 2020).

One view shows the clip at its natural rate, the other one skips pictures; each is augmented by
itself. The mean feature of one view, g, must find every local feature l[t, y, x] of the other view,
taken after res3 and res4, among the cells of the other clips:

    s = <g, l> / sqrt(D),  s' = c tanh(s / c)
    loss = mean over cells p of  -log exp s'(i,ip) / (exp s'(i,ip) + sum_{j != i, q} exp s'(i,jq))
           + w mean(s^2)

averaged over both directions and both maps, with c = 20 and w = 0.04. A clip's other cells are no
negatives of its positive. Soft clipping and penalty are those of AMDIM (Bachman et al. 2019), as is
the division by sqrt(D), without which scores of 512 numbers would begin beyond the clip.

Each positive needs of its negatives only their log-sum, LSE_{j != i} LSE_q s'(i,jq). So the global
vectors are gathered over ranks (N x D), each rank scores them against its own cells, and the sums
over cells (N x B) are gathered; the cells, a thousand times more, stay where they are.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.cuts import Clip, Cut, Reads
from train.methods.table5 import EncoderConfig, VideoMethod, require_above, require_at_least
from train.models.attention import full_precision
from train.models.video import STAGES
from train.objectives.global_local import Gather, keep_local, own_first


@dataclass(frozen=True)
class VdimConfig(EncoderConfig):
    """Input, encoder and the contrast."""

    skip: int = 2
    """The second view shows every skip-th picture, >= 1; it spans skip x (frames - 1) + 1."""
    locals: tuple[str, ...] = ("res3", "res4")
    """Stages whose maps give local features."""
    D: int = 512
    """Width of global and local embeddings."""
    clip_score: float = 20.0
    """c: scores are bent into -c .. c, > 0."""
    penalty: float = 4e-2
    """w: weight of the mean squared score, >= 0."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, saying what could."""
        super().__post_init__()
        object.__setattr__(self, "locals", tuple(self.locals))
        require_at_least("skip", self.skip, 1)
        require_at_least("D", self.D, 1)
        require_at_least("penalty", self.penalty, 0)
        require_above("clip_score", self.clip_score, 0)
        if not self.locals or not set(self.locals) <= set(STAGES):
            raise ValueError(f"locals is {self.locals}; expected one or more of {STAGES}")

    @property
    def span(self) -> int:
        """Pictures from the second view's first to its last, both counted."""
        return self.skip * (self.frames - 1) + 1

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What one clip gives the module, without the batch dimension."""
        return self.views(2)

    @property
    def reads(self) -> Reads:
        """A run of pictures at the natural rate, and one that skips, without sound."""
        return Reads(
            frames=self.frames,
            least_frames=self.span,
            views=2,
            mel=False,
            cut=partial(two_rates, frames=self.frames, skip=self.skip),
        )


def two_rates(clip: Clip, rng: np.random.Generator, frames: int, skip: int) -> Cut:
    """Every skip-th picture of a stretch anywhere in the clip; before it, a run of its pictures."""
    span = skip * (frames - 1) + 1
    slow = int(rng.integers(clip.frames - span + 1))
    natural = slow + int(rng.integers(span - frames + 1))
    return Cut([*range(natural, natural + frames), *range(slow, slow + span, skip)])


class TwoViews(Protocol):
    """What of a batch the method looks at."""

    @property
    def video(self) -> Tensor:
        """Float (B, 2, 3, T, H, W), normalised: natural rate first."""


class Vdim(VideoMethod):
    """Encoder, the heads of global and local features, and the loss.

    Attributes:
        encoder: of both views.
        project_global: mean of the last stage -> D.
        project_local: one head a stage, applied at every cell (1 x 1 x 1 convolutions).
    """

    def __init__(self, config: VdimConfig, gather: Gather = keep_local) -> None:
        """Build the networks.

        Args:
            config: what to build.
            gather: differentiable gathering over ranks, see `GlobalLoss`.
        """
        super().__init__(config)
        self.config = config
        self.project_global = _head(self.encoder.out_channels, config.D)
        channels = self.encoder.stage_channels
        self.project_local = nn.ModuleDict(
            {name: _head(channels[name], config.D) for name in config.locals}
        )
        self.contrast = GlobalLocalContrast(config.clip_score, gather)

    def forward(self, batch: TwoViews) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            loss: what to minimise.
            loss_nce: the contrast alone.
            score_square: mean squared score before it is bent, which the penalty weighs.
            g2l_r1: share of clips whose global feature finds its own clip among all ranks' by the
                mean score of its cells.
        """
        return self._objective(self._embed(batch.video))

    def with_controls(self, batch: TwoViews) -> dict[str, Tensor]:
        """What held-out evaluation measures: what `forward` returns, and what drawing gives.

        Returns:
            loss_chance, loss_nce_chance, g2l_r1_chance: with scores of zero, drawn at random.
        """
        views = self._embed(batch.video)
        nothing = [View(vectors * 0, [cells * 0 for cells in maps]) for vectors, maps in views]
        clips = len(self.contrast.gather(views[0].vectors))
        drawn = self._objective(nothing)
        chances = {
            "loss": drawn["loss"].detach(),
            "loss_nce": drawn["loss_nce"],
            "g2l_r1": torch.tensor(1 / clips),
        }
        return self._objective(views) | {f"{name}_chance": x for name, x in chances.items()}

    def _embed(self, video: Tensor) -> list["View"]:
        """Global vector and local maps of each view; both views pass the encoder as one batch."""
        if video.ndim != 6 or video.shape[1:3] != (2, 3):
            raise ValueError(
                f"video is {tuple(video.shape)}; expected two views, (B, 2, 3, T, H, W)"
            )
        stages: dict[str, Tensor] = {}
        last = self.encoder(video.transpose(0, 1).flatten(0, 1), stages)
        vectors = self.project_global(last.mean(dim=(2, 3, 4))).chunk(2)
        cells = [
            self.project_local[name](stages[name].flatten(2).transpose(1, 2)).chunk(2)
            for name in self.config.locals
        ]
        return [View(own, list(maps)) for own, *maps in zip(vectors, *cells, strict=True)]

    def _objective(self, views: list["View"]) -> dict[str, Tensor]:
        natural, skipping = views
        found = [
            self.contrast(here.vectors, cells)
            for here, there in ((natural, skipping), (skipping, natural))
            for cells in there.maps
        ]
        nce, square, first = (torch.stack(values).mean() for values in zip(*found, strict=True))
        return {
            "loss": nce + self.config.penalty * square,
            "loss_nce": nce.detach(),
            "score_square": square.detach(),
            "g2l_r1": first,
        }


class View(NamedTuple):
    """What is compared of one view of the batch's clips."""

    vectors: Tensor
    """(B, D) global vectors."""
    maps: list[Tensor]
    """(B, P, D) local vectors of the T x H x W cells of each map."""


class GlobalLocalContrast(nn.Module):
    """Global vectors of one view against the cells of another, over the clips of all ranks."""

    def __init__(self, clip_score: float = 20.0, gather: Gather = keep_local) -> None:
        """Set the options.

        Args:
            clip_score: scores are bent into -clip_score .. clip_score.
            gather: (B, ...) -> (ranks x B, ...) with gradient, ranks in order.
        """
        super().__init__()
        self.clip_score = clip_score
        self.gather = gather

    def forward(self, vectors: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Contrast, mean squared score and retrieval.

        Args:
            vectors: (B, D) of this rank.
            cells: (B, P, D) of this rank.

        Returns:
            The contrast over the clips of all ranks; the mean squared score of this rank's cells
            with the vectors of all; the share of clips that score the cells of their own clip
            highest, without gradient.

        Raises:
            ValueError: there is one clip to learn from, and no negative.
        """
        with full_precision(cells):
            vectors = vectors.float() * vectors.shape[1] ** -0.5
            cells = cells.float()
            everyone = self.gather(vectors)
            if len(everyone) < 2 and torch.is_grad_enabled():
                raise ValueError("1 clip has no negatives; give a batch of 2 clips or more")
            scores = torch.einsum("nd,bpd->nbp", everyone, cells)
            square = scores.square().mean()
            bent = self.bent(scores)
            sums = self.gather(bent.logsumexp(dim=2).T.contiguous()).T  # (N, N): vector by clip
            own = torch.eye(len(sums), dtype=torch.bool, device=sums.device)
            negatives = sums.masked_fill(own, -torch.inf).logsumexp(dim=1, keepdim=True)
            positives = self.gather(self.bent(torch.einsum("bd,bpd->bp", vectors, cells)))
            loss = F.softplus(negatives - positives).mean()
            with torch.no_grad():
                means = self.gather(bent.mean(dim=2).T.contiguous()).T
        return loss, square, own_first(means)

    def bent(self, scores: Tensor) -> Tensor:
        """Scores within -clip_score .. clip_score; small ones stay as they are."""
        return self.clip_score * torch.tanh(scores / self.clip_score)


def _head(channels: int, width: int) -> nn.Module:
    """Two layers, at every vector (..., channels) by itself."""
    return nn.Sequential(
        nn.Linear(channels, width), nn.LayerNorm(width), nn.ReLU(inplace=True),
        nn.Linear(width, width),
    )  # fmt: skip


_VDIM = VdimConfig()
_TINY = VdimConfig(frames=8, crop=64, width=16, D=128)

PRESETS: dict[str, VdimConfig] = {
    "vdim": _VDIM,
    "vdim_grid": replace(_VDIM, frames=15),
    "tiny": _TINY,
    "tiny_grid": replace(_TINY, frames=15),
}
"""`vdim` is the size of Table 5; its second view spans 31 pictures, one more than GRID's clips of 3
s have, so the `_grid` ones show 15. `tiny` fits two CPU cores."""
