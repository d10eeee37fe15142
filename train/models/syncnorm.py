"""BatchNorm whose statistics are of all ranks' rows, on CPUs too.

`nn.SyncBatchNorm` does the same on GPUs only, and needs a process group even to be tried out. This
one exchanges means and variances by the gathering that the method has anyway.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SyncedBatchNorm(nn.BatchNorm1d):
    """(B, C) -> (B, C), as one rank with all rows would have it; gradients too.

    Its state is that of `nn.BatchNorm1d`, which it is where there is one rank, and in evaluation.
    """

    def __init__(self, channels: int, gather: Callable[[Tensor], Tensor]) -> None:
        """Begin as BatchNorm does.

        Args:
            channels: C.
            gather: (1, ...) of each rank -> (R, ...), differentiable; ranks have equally many rows.
        """
        super().__init__(channels)
        self.gather = gather

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; in training remember the statistics as well."""
        if not self.training:
            return super().forward(x)
        variance, mean = torch.var_mean(x.float(), dim=0, correction=0)
        moments = self.gather(torch.stack([mean, variance])[None])
        if len(moments) == 1:
            return super().forward(x)
        means, variances = moments.unbind(dim=1)
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
        self._remember(mean, variance, len(x) * len(moments))
        scaled = (x.float() - mean) * (variance + self.eps).rsqrt()
        return (scaled * self.weight + self.bias).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, rows: int) -> None:
        assert self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (rows / (rows - 1)), self.momentum)
        self.num_batches_tracked += 1
