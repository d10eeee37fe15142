"""Audio-visual attention over the spatial grid (paper §3.3) and the pooling it guides.

A clip's audio vector is compared with each cell of its grid; the softmax over cells is the map. It
weighs the cells when the fast features are pooled to one vector a frame, so that the local
objective looks where the sound is. Everything here is float32: raw 512-wide dot products saturate
a softmax quickly, and in bfloat16 they would do so unseen.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Similarity = Literal["dot", "cosine"]


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A region in which autocast leaves float32 operations alone."""
    if tensor.device.type == "meta":  # autocast does not know this device, nor does it act there
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


def embedding(x: Tensor, sim: Similarity) -> Tensor:
    """Float32 vectors (..., D) whose plain dot products are the similarity; zeros stay zeros."""
    x = x.float()
    return F.normalize(x, dim=-1) if sim == "cosine" else x


class AttentionMap(nn.Module):
    """softmax over cells of <z_a, z_v[p]>; no parameters.

    The logits are those of the global objective (same similarity and temperature), so the map is
    the share each cell has in the positive score of Eq. 1; `att_tau` flattens or sharpens it.
    """

    def __init__(
        self,
        *,
        sim: Similarity = "dot",
        tau: float = 1.0,
        att_tau: float = 1.0,
        detach: bool = False,
    ) -> None:
        """Set the similarity.

        Args:
            sim: `dot` or `cosine`.
            tau: temperature of the global objective, > 0.
            att_tau: further temperature of the map alone, > 0.
            detach: whether no gradient flows from the map back to audio and grid.
        """
        super().__init__()
        self.sim: Similarity = sim
        self.tau = tau * att_tau
        self.detach = detach

    def forward(self, audio: Tensor, grid: Tensor) -> Tensor:
        """Attention of each clip.

        Args:
            audio: (B, D) audio vectors z_a.
            grid: (B, P, D) cells z_v.

        Returns:
            (B, P) float32, each row sums to 1.
        """
        with full_precision(grid):
            cells, query = embedding(grid, self.sim), embedding(audio, self.sim)
            logits = (cells @ query.unsqueeze(-1)).squeeze(-1) / self.tau
            att = logits.softmax(dim=-1)
        return att.detach() if self.detach else att

    def across(self, audio: Tensor, grid: Tensor) -> Tensor:
        """Attention of each sound on each clip's pictures, for retrieval.

        Args:
            audio: (A, D) audio vectors z_a.
            grid: (B, P, D) cells z_v.

        Returns:
            (A, B, P) float32, each row sums to 1; where A and B are the same clips, the diagonal is
            what `forward` gives.
        """
        with full_precision(grid):
            cells, query = embedding(grid, self.sim), embedding(audio, self.sim)
            return (torch.einsum("ad,bpd->abp", query, cells) / self.tau).softmax(dim=-1)


def pool_cells(features: Tensor, att: Tensor) -> Tensor:
    """Weighted mean over the grid, a vector for each frame.

    Args:
        features: (B, C, T, H, W).
        att: (B, H * W), rows sum to 1; the same map serves every frame of its clip.

    Returns:
        (B, T, C) float32.
    """
    with full_precision(features):
        cells = features.float().permute(0, 2, 3, 4, 1).flatten(2, 3)  # (B, T, P, C)
        return (att[:, None, None, :] @ cells).squeeze(2)


def uniform_attention(features: Tensor) -> Tensor:
    """The map that makes `pool_cells` average pooling: (B, H * W), all 1 / (H * W)."""
    batch, _, _, height, width = features.shape
    cells = height * width
    return torch.full((batch, cells), 1 / cells, dtype=torch.float32, device=features.device)


def resize_grid(features: Tensor, size: int) -> Tensor:
    """Resize the grid of (B, C, T, H, W) to size x size, frame by frame (methods §1.3).

    Larger grids are interpolated bilinearly, smaller ones averaged over their cells' areas.
    """
    batch, channels, frames, height, width = features.shape
    if (height, width) == (size, size):
        return features
    flat = features.transpose(1, 2).flatten(0, 1)  # (B * T, C, H, W)
    if min(height, width) < size:
        flat = F.interpolate(flat, (size, size), mode="bilinear", align_corners=False)
    else:
        flat = F.adaptive_avg_pool2d(flat, (size, size))
    return flat.reshape(batch, frames, channels, size, size).transpose(1, 2)


def resize_attention(att: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of maps (B, H, W) to `size` (for example the frame's), summing to 1 again."""
    resized = F.interpolate(att.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)
    return resized / resized.sum(dim=(1, 2), keepdim=True)


def attention_facts(att: Tensor) -> dict[str, Tensor]:
    """How peaked the maps (B, P) are: entropy in nats, and its share of a uniform map's."""
    entropy = torch.special.entr(att.detach()).sum(dim=1).mean()
    uniform = max(math.log(att.shape[1]), torch.finfo(torch.float32).tiny)
    return {"att_entropy": entropy, "att_entropy_share": entropy / uniform}
