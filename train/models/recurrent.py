"""Memory over maps: a GRU whose products are convolutions (DPC, methods §6)."""

import torch
from torch import Tensor, nn


class ConvGru(nn.Module):
    """One GRU cell shared by all cells of a grid: every product is a 1x1 convolution.

        z = sigmoid(W_z [x, h])      r = sigmoid(W_r [x, h])
        o = tanh(W_o [x, r * h])     h' = (1 - z) * h + z * o

    The reset gate acts on the state before the product, as in the released code of DPC; torch's GRU
    has it after the product and its z is 1 - z here.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        """Build the gates; orthogonal weights, zero biases, as in the released code.

        Args:
            channels: of what it is given.
            hidden: of its state.
        """
        super().__init__()
        self.hidden = hidden
        self.update = nn.Conv2d(channels + hidden, hidden, 1)
        self.reset = nn.Conv2d(channels + hidden, hidden, 1)
        self.out = nn.Conv2d(channels + hidden, hidden, 1)
        orthogonal(self)

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """One step.

        Args:
            x: (B, channels, H, W).
            state: (B, hidden, H, W); None are zeros.

        Returns:
            (B, hidden, H, W).
        """
        if state is None:
            state = x.new_zeros(len(x), self.hidden, *x.shape[2:])
        both = torch.cat([x, state], dim=1)
        update, reset = torch.sigmoid(self.update(both)), torch.sigmoid(self.reset(both))
        new = torch.tanh(self.out(torch.cat([x, reset * state], dim=1)))
        return (1 - update) * state + update * new


def orthogonal(module: nn.Module) -> None:
    """Orthogonal weights and zero biases for all convolutions below a module."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
