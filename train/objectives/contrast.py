"""Predictive contrast with neighbours from a queue (temporal-SSL paper, Eq. 1-3; methods §4).

For an anchor x = phi(nu_i) of length 1 and the view y of the same clip that it predicts,

    l = sum over (p, w) in P of  -w log( d(x, p) / (d(x, p) + sum over n in N of d(x, n)) )
    d(x, y) = exp(cos(x, y) / tau), without gradient to y

P holds y with weight 1 and the k nearest neighbours of y in the queue with weights in proportion to
their d to y; N holds vectors of other clips of the batch, and the m neighbours of y in the queue
from the middle of the order on. The neighbours' own vectors are never gathered: anchors are scored
against the whole queue, and scores are picked from that.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.objectives.queues import Queue

NOTHING = -1e4
"""A logit of what is not there. Its exponential is 0 in float32, and unlike -inf it leaves a
gradient of 0 where nothing else is there."""


class NeighbourContrast(nn.Module):
    """The loss of Eq. 1 for unit vectors; no parameters, the queue is the caller's."""

    def __init__(
        self,
        *,
        tau: float = 0.2,
        positives: int = 5,
        negatives: int = 2048,
        negatives_from: float = 0.5,
        uniform: bool = False,
    ) -> None:
        """Set the options.

        Args:
            tau: temperature lambda of Eq. 2, > 0.
            positives: k, neighbours of the view that are positives.
            negatives: m, neighbours of the view that are negatives.
            negatives_from: q over the queue's vectors: the part of them that is nearer to the view
                than the first negative.
            uniform: whether each neighbour weighs 1, instead of all together by Eq. 3.
        """
        super().__init__()
        self.tau = tau
        self.positives = positives
        self.negatives = negatives
        self.negatives_from = negatives_from
        self.uniform = uniform

    def forward(
        self, anchors: Tensor, views: Tensor, others: Tensor, foreign: Tensor, queue: Queue | None
    ) -> Tensor:
        """The loss of each anchor.

        Args:
            anchors: (N, D) float32 of length 1: what predicts.
            views: (N, D), of length 1: what is predicted, row by row.
            others: (M, D), of length 1: vectors of the batch.
            foreign: bool (N, M), which of them belong to another clip than the anchor does.
            queue: of the views' modality; None leaves neighbours out.

        Returns:
            (N,), 0 where there is not one negative.
        """
        exact = (anchors * views).sum(dim=1, keepdim=True) / self.tau
        batch = (anchors @ others.T / self.tau).masked_fill(~foreign, NOTHING)
        weights = torch.ones_like(exact)
        if queue is None or not self.positives + self.negatives:
            return _eq1(exact, weights, batch)
        near, far, weight = self._neighbours(anchors, views, queue)
        return _eq1(
            torch.cat([exact, near], dim=1),
            torch.cat([weights, weight], dim=1),
            torch.cat([batch, far], dim=1),
        )

    def _neighbours(
        self, anchors: Tensor, views: Tensor, queue: Queue
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the anchors with neighbours of their views.

        Before the queue is full, q is that part of what it holds, and what it lacks weighs 0.

        Returns:
            near: (N, k) logits of positives.
            far: (N, m) logits of negatives.
            weight: (N, k) of the positives.
        """
        first = (self.negatives_from * queue.filled.double()).long().clamp(min=self.positives)
        ranked = int(self.negatives_from * queue.size) + self.negatives
        similarity, rows = queue.nearest(views.detach(), max(ranked, self.positives))
        logits = queue.scores(anchors) / self.tau
        logits = logits.masked_fill(logits.isneginf(), NOTHING)
        places = first + torch.arange(self.negatives, device=rows.device)
        # What stands behind the last vector the queue holds is an empty row: NOTHING already.
        far = logits.gather(1, rows[:, places.clamp(max=rows.shape[1] - 1)])
        far = far.masked_fill(places >= queue.filled, NOTHING)
        near = logits.gather(1, rows[:, : self.positives])
        return near, far, self._weights(similarity[:, : self.positives])

    def _weights(self, similarity: Tensor) -> Tensor:
        """Eq. 3 from (N, k) cosines of the views with their neighbours; -inf weighs 0."""
        if self.uniform:
            return similarity.isfinite().float()
        d = (similarity / self.tau).exp()
        return d / d.sum(dim=1, keepdim=True).clamp(min=torch.finfo(d.dtype).tiny)


def _eq1(positives: Tensor, weights: Tensor, negatives: Tensor) -> Tensor:
    """Eq. 1 from (N, P) logits and weights and (N, M) logits.

    -log(e^p / (e^p + sum e^n)) is softplus(logsumexp(n) - p), which no exponential overflows.
    """
    against = negatives.logsumexp(dim=1, keepdim=True)
    return (weights * F.softplus(against - positives)).sum(dim=1)
