"""Boxes that are known, and how much of a map lies inside them: geometry only.

The grid of a map covers the picture that the model sees; a sample's boxes are in displayed pixels
of its source. Between the two lie the loader's square and the evaluation's centre crop.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.format import decode_npy
from train.augment import PLAIN_SIDE
from train.read import StoredClip, Window

Floats = npt.NDArray[np.float64]
Boxes = Literal["truth", "face", "mouth"]

LANDMARKS = "landmarks.npy"
LIPS = slice(48, 68)
"""Of the 68 landmarks."""
GAUSSIAN_SIGMA = 0.25
"""Of the centre baseline, over the picture's side."""


def covered(boxes: Floats, side: int) -> Floats:
    """How much of each cell of a side x side grid the boxes cover, averaged over them.

    Args:
        boxes: (T, 4) x0, y0, x1, y1 over the picture's side; rows with NaN do not count.
        side: cells in a row of the grid.

    Returns:
        (side, side), row by row from the top, 0 .. 1; zeros where there is no box at all.
    """
    known = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(known):
        return np.zeros((side, side))
    edges = np.arange(side)
    spans = []
    for first, last in ((1, 3), (0, 2)):  # down, across
        low, high = known[:, first, None] * side, known[:, last, None] * side
        spans.append((np.minimum(high, edges + 1) - np.maximum(low, edges)).clip(0, 1))
    cover: Floats = np.einsum("ty,tx->yx", *spans) / len(known)
    return cover


def mass_ratio(att: Floats, cover: Floats) -> float:
    """Share of a map's mass inside the box over that of a uniform map.

    Args:
        att: (H, W), sums to 1.
        cover: (H, W) from `covered`.

    Returns:
        1 for a uniform map, 0 for one that misses the box; NaN where no box is in the picture.
    """
    share = float(cover.mean())
    return float((att * cover).sum()) / share if share > 0 else float("nan")


def centre_map(side: int) -> Floats:
    """(side, side): a Gaussian about the middle, summing to 1."""
    place = (np.arange(side) + 0.5) / side - 0.5
    line = np.exp(-0.5 * (place / GAUSSIAN_SIGMA) ** 2)
    plane: Floats = np.outer(line, line) / line.sum() ** 2
    return plane


def boxes_in_crop(clip: StoredClip, window: Window, which: Boxes) -> Floats:
    """The boxes of a window's frames, in the coordinates of the evaluation's crop.

    A sample's boxes are in displayed pixels of its source; the loader cuts the middle square out
    of the stored frame, and `train.augment.centre` the middle 7/8 of that.

    Returns:
        (T, 4): x0, y0, x1, y1 over the crop's side, 0 .. 1 inside it; NaN where there is none.
    """
    source = SOURCES[which](clip, window)
    width, height = (float(clip.meta["source"][side]) for side in ("width", "height"))
    crop = PLAIN_SIDE * min(width, height)
    corner = np.array([width - crop, height - crop]) / 2
    return (source - np.tile(corner, 2)) / crop


def _truth_boxes(clip: StoredClip, window: Window) -> Floats:
    """Where the box was in the pictures that are shown, between the times it was written down."""
    meta = clip.meta
    rows = np.array(meta["truth"]["boxes"], np.float64).reshape(-1, 5)
    if not len(rows):
        return np.full((window.frames, 4), np.nan)
    pts = np.array(meta["pts"][window.start : window.start + window.frames], np.float64)
    shown = pts - meta["window_start"]  # the truth counts from the window's start
    return np.stack([np.interp(shown, rows[:, 0], edge) for edge in rows[:, 1:].T], axis=1)


def _face_boxes(clip: StoredClip, window: Window) -> Floats:
    boxes = np.full((window.frames, 4), np.nan)
    for track in clip.meta["faces"][:1]:
        part = track["box"][window.start : window.start + window.frames]
        for index, box in enumerate(part):
            if box is not None:
                boxes[index] = box
    return boxes


def _mouth_boxes(clip: StoredClip, window: Window) -> Floats:
    """About the landmarks of the lips; they are stored where a face was followed."""
    boxes = np.full((window.frames, 4), np.nan)
    if LANDMARKS in clip.members:
        lips = decode_npy(clip.members[LANDMARKS])[:, LIPS].astype(np.float64)
        part = lips[window.start : window.start + window.frames]
        boxes[: len(part)] = np.concatenate([part.min(axis=1), part.max(axis=1)], axis=1)
    return boxes


SOURCES: dict[Boxes, Callable[[StoredClip, Window], Floats]] = {
    "truth": _truth_boxes,
    "face": _face_boxes,
    "mouth": _mouth_boxes,
}
"""(T, 4) in displayed pixels of the source, NaN where a frame has none."""
