"""An attention map as colours over a picture: one scale, clear where there is nothing."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

COLOURS = "inferno"
STRONGEST_ALPHA = 0.65
"""How much of the picture the strongest attention hides; none is hidden where there is none."""
LEAST_TOP = 2.0
"""The end of the colour bar, times uniform, at least: a flat map must not look like knowledge."""
Floats = npt.NDArray[np.floating[Any]]
Pixels = npt.NDArray[np.uint8]


def top_of(maps: Floats) -> float:
    """The end of the colour bar, times uniform, of maps (N, H, W).

    Half of the maps reach it: by the strongest of all, most would look as if nothing were found.
    """
    return max(LEAST_TOP, float(np.median(maps.max(axis=(1, 2)))))


def heat(one: Floats, side: int, top: float) -> Pixels:
    """A map (H, W), times uniform, as RGBA (side, side, 4)."""
    from matplotlib import colormaps

    strength = np.clip(_enlarged(one, side) / top, 0, 1)
    coloured = np.empty((side, side, 4), np.uint8)
    coloured[..., :3] = (colormaps[COLOURS](strength)[..., :3] * 255).round()
    coloured[..., 3] = (strength * STRONGEST_ALPHA * 255).round()
    return coloured


def _enlarged(one: Floats, side: int) -> Floats:
    """(H, W) -> (side, side), bilinear."""
    grid = torch.from_numpy(np.ascontiguousarray(one))[None, None].float()
    large: Floats = functional.interpolate(grid, (side, side), mode="bilinear")[0, 0].numpy()
    return large
