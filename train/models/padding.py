"""What a convolution over time finds before the first and after the last step of a clip.

Zeros stand out from real features, and every layer carries the news further inwards: after the
last stage of the 3D- and 1D-ResNets each frame and slice knows its place in the window. The local
objective can then be solved without listening: "third frame, third slice". Repeating the end steps
leaves no such mark; `train.methods.glcm_config` has the numbers.
"""

from typing import Literal

import torch
from torch import Tensor

TemporalPadding = Literal["replicate", "zeros"]


def repeat_ends(x: Tensor, count: int) -> Tensor:
    """Repeat the first and the last step of (B, C, T, ...) `count` times: T + 2 x count steps.

    By concatenation: it keeps channels-last memory, and its gradient is deterministic on GPUs,
    neither of which holds for `torch.nn.functional.pad(mode="replicate")`.
    """
    if not count:
        return x
    return torch.cat([x[:, :, :1]] * count + [x] + [x[:, :, -1:]] * count, dim=2)
