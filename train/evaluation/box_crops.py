"""Frames cut to the box of what sounds: what a perfect detector would give.

Corpora that are generated know the box (`truth` of a sample); nothing is stored for it.
"""

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from torch.nn import functional

from pipeline.format import FormatError, split_jpegs
from train.boxes import SOURCES
from train.read import FRAMES, StoredClip, Window

MARGIN = 1.1
"""Side of the crop over the longer side of the box."""


def box_crops(
    clip: StoredClip, places: npt.NDArray[np.int64], short_side: int, side: int
) -> npt.NDArray[np.uint8] | None:
    """Squares about the source, all of one size, each about the box of its frame.

    Args:
        clip: with its frames.
        places: numbers of the frames.
        short_side: pixels of the stored frames.
        side: pixels of the result.

    Returns:
        (T, side, side, 3); None where the sample knows no box.
    """
    boxes = SOURCES["truth"](clip, Window(0, clip.meta["frames"], 0.5))
    if not np.isfinite(boxes).all():
        return None
    source = clip.meta["source"]
    boxes *= short_side / min(source["width"], source["height"])
    reach = MARGIN * float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))) / 2
    middles = (boxes[places, :2] + boxes[places, 2:]) / 2
    return _cut(_whole_frames(clip, places), middles, reach, side)


def _whole_frames(clip: StoredClip, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """(T, H, W, 3), not cut to squares."""
    jpegs = split_jpegs(clip.members[FRAMES], clip.meta["jpeg_sizes"]["frames"])
    wanted, where = np.unique(places, return_inverse=True)
    decoded = []
    for place in wanted.tolist():
        jpeg = jpegs[place]
        if jpeg is None:
            raise FormatError(f"frame {place} is not stored")
        decoded.append(simplejpeg.decode_jpeg(jpeg, colorspace="RGB"))
    frames: npt.NDArray[np.uint8] = np.stack(decoded)[where]
    return frames


def _cut(
    frames: npt.NDArray[np.uint8], middles: npt.NDArray[np.float64], reach: float, side: int
) -> npt.NDArray[np.uint8]:
    """Bilinear squares of +-reach pixels about places (x, y); beyond the edge its last pixel."""
    size = torch.tensor([frames.shape[2], frames.shape[1]])
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    offsets = torch.stack([columns, rows], dim=-1) * reach
    grid = (torch.from_numpy(middles)[:, None, None] + offsets) / size * 2 - 1
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    found = functional.grid_sample(
        pictures, grid.float(), padding_mode="border", align_corners=False
    )
    cut: npt.NDArray[np.uint8] = found.round().byte().permute(0, 2, 3, 1).numpy()
    return cut
