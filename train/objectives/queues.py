"""First in, first out: unit vectors of earlier batches, as positives or negatives of later ones.

A `Queue` is a ring of rows on the model's device. `scores` compares vectors with every row, with
gradient; `nearest` finds neighbours; `append` writes the newest vectors over the oldest. Nothing
makes the host wait for the device, and the queue is never copied: comparing is one matrix product,
whose gradient stays right although `append` overwrites rows before it is asked for.

    queue = Queue(size=16_384, width=256)
    similarity, rows = queue.nearest(vectors, count=5)
    logits = queue.scores(vectors)                      # (B, 16384)
    queue.append(gather(vectors))                       # of all ranks, so that their queues agree
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.attention import full_precision


class Queue(nn.Module):
    """The newest `size` unit vectors; no parameters, its state is two buffers.

    It begins empty: rows that nothing was written to yet score -inf. The gradient of `scores` is
    right until the second `append` after it: backward of a batch comes before the next batch.

    Attributes:
        entries: (size, width) float32, the ring; rows never written are zeros.
        written: int64 scalar, vectors appended so far.
    """

    entries: Tensor
    written: Tensor

    def __init__(self, size: int, width: int) -> None:
        """An empty queue.

        Args:
            size: vectors it holds, >= 1.
            width: of each.

        Raises:
            ValueError: it could hold nothing.
        """
        super().__init__()
        if size < 1 or width < 1:
            raise ValueError(
                f"a queue of {size} vectors of width {width}; expected 1 or more of both"
            )
        self.register_buffer("entries", torch.zeros(size, width))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))
        self._appends = 0
        self._replaced: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> int:
        """Vectors it holds when it is full."""
        return len(self.entries)

    @property
    def filled(self) -> Tensor:
        """Vectors it holds now: an int64 scalar on the device, never brought to the host."""
        return self.written.clamp(max=self.size)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def scores(self, queries: Tensor) -> Tensor:
        """Dot products with every row, cosines if the queries have length 1.

        Args:
            queries: (B, width).

        Returns:
            (B, size) float32 with gradient to the queries, -inf where a row is still empty: a
            logsumexp over it needs a finite term beside it, or its gradient is NaN.
        """
        with full_precision(queries):
            products: Tensor = _Products.apply(queries.float(), self)  # type: ignore[no-untyped-call]
        empty = torch.arange(self.size, device=products.device) >= self.filled
        return products.masked_fill(empty, -torch.inf)

    @torch.no_grad()
    def nearest(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The rows of largest score, the best one first.

        Args:
            queries: (B, width).
            count: neighbours of each, 1 .. size.

        Returns:
            (B, count) scores, -inf where the queue holds fewer, and their int64 rows.
        """
        similarity, rows = self.scores(queries).topk(count, dim=1)
        return similarity, rows

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def append(self, vectors: Tensor) -> None:
        """Write vectors over the oldest rows.

        Args:
            vectors: (N, width), made unit vectors here; the gathered ones of all ranks, in the same
                order on each. Of more than `size` the last ones stay.
        """
        newest = F.normalize(vectors[-self.size :].float(), dim=1)
        first = self.written + len(vectors) - len(newest)
        rows = (first + torch.arange(len(newest), device=newest.device)) % self.size
        self._replaced = rows, self.entries[rows]
        self._appends += 1
        self.entries[rows] = newest
        self.written += len(vectors)


class _Products(torch.autograd.Function):
    """queries @ entries.T; for its gradient the replaced rows are remembered, not the queue.

    Autograd would refuse the gradient of a product with a tensor that was written to in place, and
    what is commonly done, to multiply with a clone, copies the whole queue every time.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, queue: Queue) -> Tensor:
        ctx.queue, ctx.appends = queue, queue._appends
        return queries @ queue.entries.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient, queue = gradients[0], ctx.queue
        since = queue._appends - ctx.appends
        if since > 1:
            raise RuntimeError(
                f"the queue was appended to {since} times between scores and their gradient, which "
                "needs the rows as they were; go backward before the next batch goes forward"
            )
        if not since:
            return gradient @ queue.entries, None
        rows, before = queue._replaced
        kept = gradient.index_fill(1, rows, 0) @ queue.entries
        return kept + gradient[:, rows] @ before, None
