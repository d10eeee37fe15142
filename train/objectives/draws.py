"""Random numbers of clips, drawn on the device: the same for the same clip at the same count.

A method that draws inside its module needs numbers that do not depend on which rank a clip is on,
on the batch around it, or on whether the run was stopped in between. They are hashes of the clip's
id and of how many batches there were, not steps of a generator: no state, no way back to the host.
The hash is the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), in wrapping 64-bit integers.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_SHIFTS = (30, 27, 31)
_MANTISSA = 24


def uniform(instance: Tensor, count: Tensor, purpose: int) -> Tensor:
    """A number for each clip, uniform in [0, 1).

    Args:
        instance: int64 (B,) ids of clips.
        count: int64 scalar, of batches so far; another one gives other numbers.
        purpose: 0, 1, ...; each use of its own gets numbers that have nothing to do with others'.

    Returns:
        float32 (B,), multiples of 2**-24.
    """
    bits = _mix(_mix(_mix(instance + _GOLDEN) + count) + purpose)
    return _shifted(bits, 64 - _MANTISSA).float() * 2.0**-_MANTISSA


def _mix(x: Tensor) -> Tensor:
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1), strict=True):
        x = (x ^ _shifted(x, shift)) * factor
    return x


def _shifted(x: Tensor, count: int) -> Tensor:
    """To the right, with zeros from the left as if there were no sign."""
    return torch.bitwise_and(x >> count, 2 ** (64 - count) - 1)
