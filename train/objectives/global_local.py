"""The two contrastive objectives of GLCM (paper §3.1-3.2, methods §1.5-1.6).

Both have one form: an anchor's positives are summed inside the logarithm (multiple instances), and

    loss = mean over anchors of  LSE(positives + negatives) - LSE(positives)

`GlobalLoss` (L_g) contrasts the audio of a clip with the cells of its own grid against other clips;
`LocalLoss` (L_l) contrasts a frame with the audio slices of its window against other times of the
same clip. Logits are float32 whatever autocast says, and what is no negative is filled with -inf,
never multiplied by 0. Both return the loss and facts for people to read, without gradient.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from train.models.attention import Similarity, embedding, full_precision

Directions = Literal["both", "a2v", "code"]
MultiPair = Literal["sum", "avg_single"]
Gather = Callable[[Tensor], Tensor]

SLICES_PER_FRAME = 3


def keep_local(tensor: Tensor) -> Tensor:
    """The gather of a single process: nothing to gather."""
    return tensor


class GlobalLoss(nn.Module):
    """L_g, S-local/T-global (paper Eq. 1, methods §1.5).

    S[i,j,p] = <a_i, v_jp> / tau. The positives of clip i are the P cells of its own grid; negatives
    are its audio with the cells of other clips (row) and the audio of other clips with its cells
    (column); nothing inside a clip is a negative.

    Summing over cells first leaves one score for each pair of clips, s[i,j] = LSE_p S[i,j,p], which
    is all the loss needs. That makes the negatives of other ranks cheap: the audio vectors are
    gathered (N x D), each rank scores them against its own grids, and the scores (N x B) are
    gathered; the grids, 200 times larger, stay where they are. Every rank then holds all N x N
    scores and returns the same loss, that of the whole batch.

    `gather` must be differentiable, and its backward must sum the gradients of all ranks (as
    all_gather's does): each rank then has R times its share of the gradient of the mean over all N
    clips, which DDP's average over ranks brings back to exactly that gradient.
    """

    def __init__(
        self,
        *,
        directions: Directions = "both",
        pos_twice: bool = False,
        sim: Similarity = "dot",
        tau: float = 1.0,
        gather: Gather = keep_local,
    ) -> None:
        """Set the options.

        Args:
            directions: `both` rows and columns; `a2v` rows only (Eq. 1 read literally); `code` both
                with the positives once more, as in the released code.
            pos_twice: counts the positives twice in the first LSE; `code` implies it.
            sim: `dot` (paper) or `cosine`.
            tau: temperature, > 0.
            gather: (B, ...) -> (R * B, ...) with gradient, ranks in order.
        """
        super().__init__()
        self.columns = directions != "a2v"
        self.pos_twice = pos_twice or directions == "code"
        self.sim: Similarity = sim
        self.tau = tau
        self.gather = gather

    def scores(self, audio: Tensor, grid: Tensor) -> Tensor:
        """s[i,j]: the audio of clip i with all cells of clip j.

        Args:
            audio: (B, D) of this rank.
            grid: (B, P, D) of this rank.

        Returns:
            (N, N) float32 over the clips of all ranks.
        """
        clips, cells, width = grid.shape
        with full_precision(grid):
            everyone = self.gather(embedding(audio, self.sim))
            own = embedding(grid, self.sim).reshape(clips * cells, width)
            logits = (everyone @ own.T / self.tau).view(-1, clips, cells)
            return self.gather(logits.logsumexp(dim=2).T.contiguous()).T

    def forward(self, audio: Tensor, grid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the whole batch, and facts; arguments as in `scores`."""
        scores = self.scores(audio, grid)
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        positives = scores.diagonal()[:, None]
        rows = scores.masked_fill(own, -torch.inf)
        terms = [positives, rows] + [rows.T] * self.columns + [positives] * self.pos_twice
        loss = (torch.cat(terms, dim=1).logsumexp(dim=1) - positives[:, 0]).mean()
        return loss, global_facts(scores.detach())


def global_facts(scores: Tensor) -> dict[str, Tensor]:
    """Facts of (N, N) clip scores: do clips that belong together score higher?

    Returns:
        a2v_r1: share of clips whose audio ranks its own clip first (audio -> video R@1); a tie
            counts as a miss, so that a collapsed model is not a perfect one.
        pos_g, neg_g: mean score of pairs that belong together, and of others (0 where there are
            none).
    """
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    positives = scores.diagonal()
    others = scores.masked_fill(own, 0).sum() / max(1, len(scores) * (len(scores) - 1))
    return {
        "a2v_r1": own_first(scores),
        "pos_g": positives.mean(),
        "neg_g": others,
    }


def own_first(scores: Tensor) -> Tensor:
    """Recall at 1: the share of rows whose diagonal entry is the largest; a tie is a miss."""
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    best_other = scores.masked_fill(own, -torch.inf).amax(dim=1)
    return (scores.diagonal() > best_other).float().mean()


class LocalLoss(nn.Module):
    """L_l, S-global/T-local (paper Eq. 2, methods §1.6).

    The window of frame t is W(t) = {3t+1+d : |d| <= (M-1)/2}; slices outside the clip are masked.
    R[t,t',m] = <frame t, slice W(t')_m> / tau. The positives of frame t are R[t,t,:]; negatives are
    frame t with other windows (row) and other frames with its window (column), all of the same clip
    (paper §3.2). No rank needs another's clips.
    """

    def __init__(
        self,
        *,
        window_M: int = 3,
        multi_pair: MultiPair = "sum",
        mask_shared: bool = True,
        pos_twice: bool = False,
        cross_video: bool = False,
        sim: Similarity = "dot",
        tau: float = 1.0,
    ) -> None:
        """Set the options.

        Args:
            window_M: slices of a window, odd; 3 tiles the clip (paper Table 9).
            multi_pair: `sum` the positives inside the logarithm, or `avg_single`: average the
                slices of a window and have one positive a frame (paper Table 7).
            mask_shared: drops from t's negatives the slices its own window shares with another
                (M > 3 only); without it a pair can be positive and negative at once. An averaged
                window has no slices to drop.
            pos_twice: counts the positives twice in the first LSE, as the released code does.
            cross_video: other clips of the rank's batch are negatives too, as in the released code.
            sim: `dot` (paper) or `cosine`.
            tau: temperature, > 0.
        """
        super().__init__()
        self.window_M = window_M
        self.average = multi_pair == "avg_single"
        self.mask_shared = mask_shared and not self.average
        self.pos_twice = pos_twice
        self.cross_video = cross_video
        self.sim: Similarity = sim
        self.tau = tau

    def forward(self, frames: Tensor, slices: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of this rank's clips, and facts.

        Args:
            frames: (B, T, D) a vector for each video frame.
            slices: (B, 3T, D) a vector for each audio slice.

        Raises:
            ValueError: there are not three slices for each frame.
        """
        n_clips, n_frames, _ = frames.shape
        if slices.shape[1] != SLICES_PER_FRAME * n_frames:
            raise ValueError(
                f"{slices.shape[1]} audio slices for {n_frames} frames; the local objective needs "
                f"{SLICES_PER_FRAME} a frame, {SLICES_PER_FRAME * n_frames} in all"
            )
        with full_precision(frames):
            index, valid, negative = self._windows(n_frames, frames.device)
            windows = self._window_vectors(slices.float(), index, valid)  # (B, T, M, D)
            if self.average:
                valid = valid.any(dim=1, keepdim=True)
            frames = embedding(frames, self.sim)
            if self.cross_video:
                frames, windows = frames.flatten(0, 1)[None], windows.flatten(0, 1)[None]
                valid, negative = _across_clips(valid, negative, n_clips)
            logits = torch.einsum("gtd,gumd->gtum", frames, windows) / self.tau
            return self._contrast(logits, valid, negative)

    def clip_scores(self, frames: Tensor, slices: Tensor) -> Tensor:
        """How well each sound goes with each clip's pictures, frame by frame.

        The score is what the positives of L_l would be if picture and sound were one clip's:
        the mean over frames t of LSE_m <frame t, slice m of W(t)> / tau.

        Args:
            frames: (A, B, T, D) frames of clip b, pooled for sound a.
            slices: (A, 3T, D) of the sounds.

        Returns:
            (A, B) float32.
        """
        with full_precision(frames):
            index, valid, _ = self._windows(frames.shape[2], frames.device)
            windows = self._window_vectors(slices.float(), index, valid)  # (A, T, M, D)
            valid = valid.any(dim=1, keepdim=True) if self.average else valid
            logits = torch.einsum("abtd,atmd->abtm", embedding(frames, self.sim), windows)
            positives = (logits / self.tau).masked_fill(~valid, -torch.inf)
            return positives.logsumexp(dim=3).mean(dim=2)

    def _windows(self, n_frames: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Which slices make a window, and which pairs are negatives.

        Returns:
            index: (T, M) slice of each place of a window, clamped into the clip.
            valid: (T, M) whether that place lies in the clip.
            negative: (T, T', M) whether frame t and slice m of window t' are a negative pair; M is
                1 for averaged windows.
        """
        half = (self.window_M - 1) // 2
        n_slices = SLICES_PER_FRAME * n_frames
        centre = SLICES_PER_FRAME * torch.arange(n_frames, device=device) + 1
        places = centre[:, None] + torch.arange(-half, half + 1, device=device)
        valid = (places >= 0) & (places < n_slices)
        other = ~torch.eye(n_frames, dtype=torch.bool, device=device)[..., None]
        if self.average:
            return places.clamp(0, n_slices - 1), valid, other
        negative = other & valid
        if self.mask_shared:
            negative &= (places - centre[:, None, None]).abs() > half
        return places.clamp(0, n_slices - 1), valid, negative

    def _window_vectors(self, slices: Tensor, index: Tensor, valid: Tensor) -> Tensor:
        """The slices of each window (B, T, M, D), or their mean (B, T, 1, D) if so configured."""
        windows = slices[:, index]
        if self.average:
            weight = valid / valid.sum(dim=1, keepdim=True)
            windows = (windows * weight[..., None]).sum(dim=2, keepdim=True)
        return embedding(windows, self.sim)

    def _contrast(
        self, logits: Tensor, valid: Tensor, negative: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss from logits (G, T, T', M), valid (T', M), negative (T, T', M)."""
        positives = logits.diagonal(dim1=1, dim2=2).transpose(1, 2)  # (G, T, M)
        positives = positives.masked_fill(~valid, -torch.inf)
        others = logits.masked_fill(~negative, -torch.inf)
        # One flat LSE: an LSE over a set that is masked altogether would have a NaN gradient.
        terms = [positives, others.flatten(2), others.transpose(1, 2).flatten(2)]
        terms += [positives] * self.pos_twice
        loss = (torch.cat(terms, dim=2).logsumexp(dim=2) - positives.logsumexp(dim=2)).mean()
        return loss, local_facts(logits.detach(), valid, negative)


def _across_clips(valid: Tensor, negative: Tensor, n_clips: int) -> tuple[Tensor, Tensor]:
    """Masks for all clips laid end to end: every pair of different clips is negative if valid."""
    n_frames, n_places = valid.shape
    clip = torch.arange(n_clips, device=valid.device).repeat_interleave(n_frames)
    same_clip = (clip[:, None] == clip)[..., None]
    valid = valid.repeat(n_clips, 1)
    inside = negative.expand(-1, -1, n_places).repeat(n_clips, n_clips, 1)
    return valid, torch.where(same_clip, inside, valid)


def local_facts(logits: Tensor, valid: Tensor, negative: Tensor) -> dict[str, Tensor]:
    """Facts of (G, T, T', M) logits: does a frame know its own window?

    Returns:
        v2a_r1_l: share of frames that score their own window first (a tie is a miss).
        pos_l, neg_l: mean similarity of pairs that belong together, and of negatives (0 where there
            are none).
    """
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    windows = logits.masked_fill(~valid, -torch.inf).logsumexp(dim=3)
    best_other = windows.masked_fill(own, -torch.inf).amax(dim=2)
    belongs = own[..., None] & valid
    return {
        "v2a_r1_l": (windows.diagonal(dim1=1, dim2=2) > best_other).float().mean(),
        "pos_l": _masked_mean(logits, belongs),
        "neg_l": _masked_mean(logits, negative),
    }


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the batch of the masked entries, 0 where there is none."""
    mask = mask.expand(values.shape[1:])
    return values.masked_fill(~mask, 0).sum() / (mask.sum() * len(values)).clamp(min=1)
