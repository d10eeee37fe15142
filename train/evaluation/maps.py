"""Attention maps of windows, with their own and with foreign sound, and how well they hit a box.

A map is one for a whole window, in which what sounds may move; each frame's box counts on its own,
as an image does in the sets that these measures are from.

    pointing_game  does the map's peak lie in the box, mean over frames (Zhang et al. 2018). A map
                   knows no place finer than its cell: of the highest cell the part that lies in the
                   box counts, instead of a margin about its middle
    ciou@0.5       share of frames whose box and marked pixels have an IoU of 0.5 or more; marked
                   are the pixels above the map's median, half of the picture, as in the code that
                   evaluates VGG-SS (Chen et al. 2021, test.py)
    ciou_auc       area under that share over the thresholds 0, 0.05 .. 1, as there
    iou            mean IoU of the box and the pixels of at least half the map's maximum
    mass_ratio     share of the map's mass in the boxes over a uniform map's (`train.boxes`)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from train.boxes import covered, mass_ratio
from train.errors import UsageError
from train.evaluation.encoders import Encoders

Floats = npt.NDArray[np.float64]
MEASURES = ("pointing_game", "ciou@0.5", "ciou_auc", "iou", "mass_ratio")
AUC_THRESHOLDS = np.arange(21) * 0.05
HALF = 0.5


def require_attention(encoders: Encoders) -> None:
    """Refuse a method without an attention map.

    Raises:
        UsageError: it has none.
    """
    if not hasattr(encoders.module, "attention"):
        raise UsageError(
            f"the method {encoders.method} has no attention map (`attention`, and `att` among its "
            "features); name a checkpoint of glcm or coattention"
        )


@torch.no_grad()
def attention_maps(
    encoders: Encoders, video: Tensor, sound: Tensor, foreign: Sequence[Tensor] = ()
) -> list[Floats]:
    """Maps of prepared windows.

    Args:
        encoders: with an attention map.
        video: float (B, 3, T, H, W), normalised.
        sound: what the encoders hear, see `Encoders.features`.
        foreign: other sounds for the same pictures, each as `sound` is.

    Returns:
        (B, H, W) with each window's own sound, then with each foreign one.
    """
    found = encoders.features(video, sound, ("fg", "fl", "att"))
    module: Any = encoders.module
    maps = [found["att"]]
    for other in foreign:
        if hasattr(module, "embed_global"):  # the pictures have been seen already
            heard = encoders.features(None, other, ("fa",))["fa"]
            query, cells = module.embed_global(found.get("fg", found["fl"]), heard)
            maps.append(module.attention(query, cells).view_as(found["att"]))
        else:
            maps.append(encoders.features(video, other, ("att",))["att"])
    return [one.double().cpu().numpy() for one in maps]


def hits(att: Floats, boxes: Floats, side: int) -> dict[str, float]:
    """The measures of one map.

    Args:
        att: (H, W), sums to 1.
        boxes: (T, 4) x0, y0, x1, y1 over the picture's side; NaN where a frame has none.
        side: pixels of the picture, which the map is resized to for the IoU.

    Returns:
        By `MEASURES`; NaN where no box lies in the picture.
    """
    inside = np.clip(boxes[np.isfinite(boxes).all(axis=1)], 0, 1)
    inside = inside[(inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])]
    if not len(inside):
        return dict.fromkeys(MEASURES, np.nan)
    fine = resized(att, side)
    half = ious(fine > np.sort(fine, axis=None)[fine.size // 2], inside)
    reached = (half[:, None] >= AUC_THRESHOLDS - 1e-9).mean(axis=0)
    return {
        "pointing_game": float(covered(inside, len(att)).flat[int(att.argmax())]),
        "ciou@0.5": float((half >= HALF).mean()),
        "ciou_auc": float(np.trapezoid(reached, AUC_THRESHOLDS)),
        "iou": float(ious(fine >= HALF * fine.max(), inside).mean()),
        "mass_ratio": mass_ratio(att, covered(boxes, len(att))),
    }


def ious(marked: npt.NDArray[np.bool_], boxes: Floats) -> Floats:
    """(T,): intersection over union of marked pixels and each box, cut to whole pixels."""
    side = len(marked)
    found = np.zeros(len(boxes))
    total = int(marked.sum())
    for number, (x0, y0, x1, y1) in enumerate((boxes * side).astype(int).tolist()):
        both = int(marked[y0:y1, x0:x1].sum())
        union = (y1 - y0) * (x1 - x0) + total - both
        found[number] = both / union if union else 0.0
    return found


def resized(att: Floats, side: int) -> Floats:
    """A map in pixels, bilinear."""
    plane = torch.from_numpy(att)[None, None]
    fine = functional.interpolate(plane, (side, side), mode="bilinear", align_corners=False)
    found: Floats = fine[0, 0].numpy()
    return found


def area_of(boxes: Floats) -> float:
    """Mean share of the picture that the boxes take: the chance of pointing into them."""
    inside = np.clip(boxes[np.isfinite(boxes).all(axis=1)], 0, 1)
    sizes = (inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])
    sizes = sizes[sizes > 0]
    return float(sizes.mean()) if len(sizes) else np.nan


def entropy_share(att: Floats) -> float:
    """Entropy of a map over that of a uniform one: 1 is flat, 0 a single cell."""
    positive = att[att > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(att.size))
