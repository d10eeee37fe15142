"""Face and lip pictures of a track, cut when the whole track is known.

The scale of the lip crops is one number a clip (an opening mouth must stay visible, a closing one
must not be zoomed), so it is known only at the end. Until then each picture keeps a *patch*: the
face and its surroundings at a little more than the resolution the crops need.

Coordinates are pixel indices: (0, 0) is the centre of the first pixel, as landmarks have it.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.detector import Box
from pipeline.frame import Frame
from pipeline.planes import Colours, Corners, Picture, YuvPicture, whole_step

Matrix = npt.NDArray[np.float64]

FACE_MARGIN = 0.25
"""How far the face crop reaches beyond the box on each side, as a share of its size."""
LIP_WIDTH_SHARE = 1 / 3
"""Lip width over crop width (GLCM)."""
SMOOTHING_SECONDS = 0.06
"""Standard deviation of the smoothing over time: less than a phoneme, more than the jitter."""
PATCH_MARGINS = (0.5, 0.35, 0.5, 0.7)
"""Left, top, right and bottom of a patch beyond the face box: a lip crop reaches below the chin."""
PATCH_OVERSAMPLING = 1.6
"""Face width in a patch over crop size. The crops need 1; landmarks on the patch come within a
tenth of the detector's noise of those on the whole picture, a quarter at 1.15 (`make bench`)."""
RAW_PATCH_BYTES = 48 << 20
"""Patches beyond this are kept smaller and as JPEG: the first ten seconds at 25 fps stay raw."""
PACKED_OVERSAMPLING = 1.15
PATCH_QUALITY = 92

EYE_CORNERS = (36, 45)
NOSE_BASE = 33
"""The point under the nose, not its tip (30): it lies nearer to the plane of the eyes and moves
less against them when the head turns, so a turned head is not taken for a tilted one."""
MOUTH_CORNERS = (48, 54)
LIPS = slice(48, 68)
UPRIGHT_FACE = np.array([-0.5 - 0.15j, 0.5 - 0.15j, 0.3j])
"""Left eye corner, right eye corner, nose base of a straight face, in eye distances, centred."""


@dataclass(frozen=True)
class Patch:
    """The surroundings of a face in one picture."""

    planes: tuple[Picture | bytes, ...]
    """Y, U and V of a `YuvPicture`, or the same as JPEGs."""
    colours: Colours
    from_source: Matrix
    """(2, 3): displayed source pixels to patch pixels; no rotation."""

    def picture(self) -> YuvPicture:
        """The pixels."""
        y, u, v = (_unpacked(plane) for plane in self.planes)
        return YuvPicture((y, u, v), self.colours)


class PatchKeeper:
    """Cuts patches and bounds the memory they take: the first ones raw, later ones as JPEG."""

    def __init__(self, crop_size: int) -> None:
        self._crop_size = crop_size
        self._raw_bytes = 0

    def keep(self, frame: Frame, box: Box) -> Patch:
        """The patch around a face box."""
        packs = self._raw_bytes > RAW_PATCH_BYTES
        oversampling = PACKED_OVERSAMPLING if packs else PATCH_OVERSAMPLING
        scale = min(1.0, self._crop_size * oversampling / (box[2] - box[0]))
        x0, y0, x1, y1 = _patch_box(box, 2 * whole_step(scale))
        width, height = (2 * max(1, round(side * scale / 2)) for side in (x1 - x0, y1 - y0))
        picture = frame.yuv_region((x0, y0, x1, y1), width, height)
        planes: tuple[Picture | bytes, ...] = picture.planes
        self._raw_bytes += width * height * 3 // 2
        if packs:
            planes = tuple(_packed(plane) for plane in picture.planes)
        from_source = _scaling((x0, y0), (width / (x1 - x0), height / (y1 - y0)))
        return Patch(planes, picture.colours, from_source)


def _packed(plane: Picture) -> bytes:
    """One plane as a gray JPEG: a tenth of the bytes."""
    return cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, PATCH_QUALITY])[1].tobytes()


def _unpacked(plane: Picture | bytes) -> Picture:
    if not isinstance(plane, bytes):
        return plane
    return np.asarray(cv2.imdecode(np.frombuffer(plane, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def _patch_box(box: Box, step: int) -> Corners:
    """The face box with its surroundings; sides of whole steps, on even pixels for chroma."""
    size = max(box[2] - box[0], box[3] - box[1])
    left, top, right, bottom = (margin * size for margin in PATCH_MARGINS)
    x0, y0 = (2 * round(side / 2) for side in (box[0] - left, box[1] - top))
    width, height = box[2] + right - x0, box[3] + bottom - y0
    return x0, y0, x0 + step * math.ceil(width / step), y0 + step * math.ceil(height / step)


def _scaling(origin: tuple[int, int], scale: tuple[float, float]) -> Matrix:
    """Crop at an origin, then scale: pixel centres lie half a pixel from pixel edges."""
    shift = [(0.5 - start) * factor - 0.5 for start, factor in zip(origin, scale, strict=True)]
    return np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])


# --- geometry over a whole track --------------------------------------------------------------


def face_transforms(
    boxes: Matrix, groups: npt.NDArray[np.int64], size: int, sigma: float
) -> Matrix:
    """Square face crops around boxes, steadied over time.

    Args:
        boxes: (T, 4) boxes in displayed pixels, NaN where there is none.
        groups: (T,) numbers; times of different numbers are not smoothed together.
        size: pixels of the crop.
        sigma: standard deviation of the smoothing in grid steps.

    Returns:
        (T, 2, 3) source to crop, NaN where there is no box.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * (1 + 2 * FACE_MARGIN)
    steady = smooth(np.column_stack([centres, sides]), groups, sigma)
    return _similarities(
        (size / steady[:, 2]).astype(np.complex128), steady[:, 0] + 1j * steady[:, 1], size
    )


def lip_transforms(
    landmarks: npt.NDArray[np.float32], groups: npt.NDArray[np.int64], size: int, sigma: float
) -> Matrix:
    """Lip crops: roll removed, lips centred, one scale for the whole track.

    Args:
        landmarks: (T, 68, 2) displayed pixels, NaN where there is no face.
        groups: as in `face_transforms`.
        size: pixels of the crop.
        sigma: standard deviation of the smoothing in grid steps.

    Returns:
        (T, 2, 3) source to crop, NaN where there is no face.
    """
    points = landmarks[..., 0].astype(float) + 1j * landmarks[..., 1]
    upright = _uprightness(points)
    centres = points[:, LIPS].mean(axis=1)
    columns = (upright.real, upright.imag, centres.real, centres.imag)
    steady = smooth(np.column_stack(columns), groups, sigma)
    scale = size * LIP_WIDTH_SHARE / median_lip_width(points)
    turn = scale * np.conj(_unit(steady[:, 0] + 1j * steady[:, 1]))
    return _similarities(turn, steady[:, 2] + 1j * steady[:, 3], size)


def median_lip_width(points: npt.NDArray[np.complex128]) -> float:
    """The track's usual distance between the corners of the mouth, in pixels, at least 1."""
    widths = np.abs(points[:, MOUTH_CORNERS[1]] - points[:, MOUTH_CORNERS[0]])
    widths = widths[np.isfinite(widths)]
    return max(1.0, float(np.median(widths))) if len(widths) else 1.0


def _uprightness(points: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    """Unit complex numbers: the roll that best lays an upright face on eyes and nose."""
    seen = points[:, [*EYE_CORNERS, NOSE_BASE]]
    seen = seen - seen.mean(axis=1, keepdims=True)
    return _unit((seen * np.conj(UPRIGHT_FACE)).sum(axis=1))


def _unit(numbers: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    """The same directions with length 1; NaN stays."""
    with np.errstate(invalid="ignore"):
        return numbers / np.maximum(np.abs(numbers), 1e-9)


def _similarities(factor: npt.NDArray[Any], centre: npt.NDArray[Any], size: int) -> Matrix:
    """(T, 2, 3): rotate and scale by complex factors, moving the centres to the crop's middle."""
    shift = (size - 1) / 2 * (1 + 1j) - factor * centre
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.moveaxis(np.array(rows), -1, 0)


def smooth(values: Matrix, groups: npt.NDArray[np.int64], sigma: float) -> Matrix:
    """Gaussian smoothing of (T, n) over time that knows gaps and borders.

    NaN rows count nothing and stay NaN; rows of different groups do not touch each other.
    """
    valid = np.asarray(np.isfinite(values).all(axis=1))
    total, weight = np.zeros_like(values), np.zeros(len(values))
    filled = np.where(valid[:, None], values, 0.0)
    reach = min(int(3 * sigma + 0.5), len(values) - 1)
    for step in range(-reach, reach + 1):
        here = slice(max(0, -step), len(values) - max(0, step))
        there = slice(max(0, step), len(values) - max(0, -step))
        share = np.exp(-(step**2) / (2 * sigma**2)) if step else 1.0
        together = share * (valid[there] & (groups[here] == groups[there]))
        total[here] += together[:, None] * filled[there]
        weight[here] += together
    with np.errstate(invalid="ignore"):
        return np.where(valid[:, None], total / np.maximum(weight, 1e-12)[:, None], np.nan)


def cut(patch: Patch, source_to_crop: Matrix, size: int) -> Picture:
    """The crop (size, size, 3) that a source-to-crop transform describes, from a patch."""
    back = np.vstack([cv2.invertAffineTransform(patch.from_source), [0, 0, 1]])
    return patch.picture().warped(source_to_crop @ back, size)
