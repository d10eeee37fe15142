"""The planes of a decoded picture: where their samples lie, cutting, scaling, and colour.

Colours follow the ffmpeg program: the frame's own matrix and range, BT.601 limited range where
the file says nothing, no tone mapping of HDR.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import av
import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Plane = npt.NDArray[Any]
Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are just outside."""

BT601 = 5
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""(red, blue) weights by H.273 matrix number: BT.709, FCC, SMPTE 240M, BT.2020."""
BT601_WEIGHTS = (0.299, 0.114)


@dataclass(frozen=True)
class Colours:
    """What the samples of a YUV picture mean."""

    matrix: int = BT601
    """H.273 matrix number."""
    full: bool = False
    """Whether luma runs from 0 to 255, not from 16 to 235."""


@dataclass(frozen=True)
class Layout:
    """Where the samples of a planar YUV format lie."""

    bits: int
    chroma_x: int
    """Luma columns for each chroma column."""
    chroma_y: int
    """Luma rows for each chroma row."""
    interleaved: bool
    """U and V alternate in one plane (nv12)."""

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """One or two bytes a sample."""
        return np.uint8 if self.bits == 8 else np.uint16

    def chroma_corners(self, corners: Corners) -> Corners:
        """The chroma samples of a luma box, outwards where it does not fit the grid."""
        x0, y0, x1, y1 = corners
        sx, sy = self.chroma_x, self.chroma_y
        return x0 // sx, y0 // sy, -(-x1 // sx), -(-y1 // sy)


@dataclass(frozen=True)
class YuvPicture:
    """A small picture of 8-bit planes, Y (h, w), U and V (h/2, w/2), turned as displayed."""

    planes: tuple[Picture, Picture, Picture]
    colours: Colours

    @property
    def luma(self) -> Picture:
        """Y (h, w)."""
        return self.planes[0]

    def rgb(self) -> Picture:
        """RGB (h, w, 3)."""
        height, width = self.luma.shape
        return to_rgb([resize(plane, width, height) for plane in self.planes], self.colours)

    def warped(self, matrix: npt.NDArray[np.float64], size: int) -> Picture:
        """RGB (size, size, 3) through a 2x3 matrix from pixel indices here to pixel indices there.

        The border is repeated outside.
        """
        # Chroma sample c covers the luma columns 2c and 2c + 1: its centre is at 2c + 1/2.
        to_luma = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
        square = np.vstack([matrix, [0, 0, 1]])
        for_chroma = (np.linalg.inv(to_luma) @ square @ to_luma)[:2]
        luma, *chroma = self.planes
        half = -(-size // 2)
        small = (_warp(plane, for_chroma, half) for plane in chroma)
        warped = [_warp(luma, matrix, size), *(resize(plane, size, size) for plane in small)]
        return to_rgb(warped, self.colours)


def _warp(plane: Picture, matrix: npt.NDArray[np.float64], size: int) -> Picture:
    warped = cv2.warpAffine(
        plane, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.uint8)


def to_rgb(planes: list[Picture], colours: Colours) -> Picture:
    """RGB (h, w, 3) of 8-bit Y, U and V of one size."""
    return np.asarray(cv2.transform(cv2.merge(planes), _rgb_matrix(colours)), np.uint8)


def from_rgb(picture: Picture) -> YuvPicture:
    """The planes of an RGB picture (h, w, 3), BT.601 limited range."""
    height, width = picture.shape[:2]
    forward = np.linalg.inv(_rgb_matrix(Colours())[:, :3].astype(float))
    rows = np.hstack([forward, [[16.0], [128.0], [128.0]]])
    y, u, v = np.ascontiguousarray(np.moveaxis(cv2.transform(picture, rows), 2, 0))
    size = -(-width // 2), -(-height // 2)
    return YuvPicture((y, resize(u, *size), resize(v, *size)), Colours())


@lru_cache(maxsize=16)
def _rgb_matrix(colours: Colours) -> npt.NDArray[np.float32]:
    """(3, 4) from 8-bit Y, U, V to R, G, B."""
    red, blue = LUMA_WEIGHTS.get(colours.matrix, BT601_WEIGHTS)
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if colours.full else (255 / 219, 255 / 224)
    to_red, to_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    weights = np.array(
        [
            [luma, 0, to_red],
            [luma, -to_blue * blue / green, -to_red * red / green],
            [luma, to_blue, 0],
        ]
    )
    black = np.array([0 if colours.full else 16, 128, 128])
    return np.hstack([weights, -(weights @ black)[:, None]]).astype(np.float32)


def colours_of(picture: av.VideoFrame) -> Colours:
    """The matrix and range of a frame, with the ffmpeg program's defaults."""
    matrix = picture.colorspace if picture.colorspace in LUMA_WEIGHTS else BT601
    full = picture.color_range == 2 or picture.format.name.startswith("yuvj")
    return Colours(matrix, full)


@lru_cache(maxsize=64)
def planar_layout(name: str) -> Layout | None:
    """The layout of planar YUV formats that are read directly; None for every other format."""
    if name == "nv12":
        return Layout(8, 2, 2, interleaved=True)
    pixel_format = av.VideoFormat(name, 64, 64)
    if not name.startswith("yuv") or not pixel_format.is_planar or pixel_format.is_big_endian:
        return None
    luma, chroma = pixel_format.components[:2]
    if luma.plane != 0 or chroma.plane != 1:
        return None
    return Layout(luma.bits, 64 // chroma.width, 64 // chroma.height, interleaved=False)


def plane_view(
    picture: av.VideoFrame, index: int, *, channels: int = 1, dtype: type[np.generic] = np.uint8
) -> Plane:
    """A view (h, w) or (h, w, channels) of one plane; it keeps the frame's memory alive."""
    plane = picture.planes[index]
    rows: Plane = np.frombuffer(cast(Any, plane), dtype)
    stride = plane.line_size // rows.itemsize
    rows = rows[: plane.height * stride].reshape(plane.height, stride)
    view = rows[:, : plane.width * channels]
    return view if channels == 1 else view.reshape(plane.height, plane.width, channels)


def yuv_crops(picture: av.VideoFrame, layout: Layout, corners: Corners) -> list[Plane]:
    """Y, U and V of a box of coded pixels, at the depth they have."""
    luma = crop(plane_view(picture, 0, dtype=layout.dtype), corners)
    chroma_corners = layout.chroma_corners(corners)
    if layout.interleaved:
        pairs = crop(plane_view(picture, 1, channels=2), chroma_corners)
        return [luma, pairs[..., 0], pairs[..., 1]]
    chroma = (plane_view(picture, index, dtype=layout.dtype) for index in (1, 2))
    return [luma, *(crop(plane, chroma_corners) for plane in chroma)]


def crop(picture: Plane, corners: Corners) -> Plane:
    """The pixels of a box, the border repeated where it sticks out."""
    (y0, y1, above, below) = _inside(corners[1], corners[3], picture.shape[0])
    (x0, x1, left, right) = _inside(corners[0], corners[2], picture.shape[1])
    inside = picture[y0:y1, x0:x1]
    if not any((above, below, left, right)):
        return inside
    return cv2.copyMakeBorder(inside, above, below, left, right, cv2.BORDER_REPLICATE)


def _inside(start: int, end: int, length: int) -> tuple[int, int, int, int]:
    """The part of [start, end) in [0, length), at least one pixel, and what misses on each side."""
    first = min(max(start, 0), length - 1)
    last = max(min(end, length), first + 1)
    before = min(max(-start, 0), end - start - 1)
    return first, last, before, end - start - before - (last - first)


def whole_step(scale: float) -> int:
    """The whole number of source pixels averaged into one before the rest is interpolated.

    A box whose sides are multiples of it is shrunk ten times faster than any other.
    """
    return max(1, int(1 / scale))


def resize(picture: Plane, width: int, height: int) -> Plane:
    """Linear interpolation, after averaging whole blocks where it shrinks to a half or less.

    OpenCV's area averaging is quick for whole factors only; where the sides are no multiples of
    the factor it does the whole way.
    """
    if picture.shape[:2] == (height, width):
        return picture
    height_now, width_now = picture.shape[:2]
    largest = whole_step(max(width / width_now, height / height_now))
    step = next(n for n in range(largest, 0, -1) if width_now % n == height_now % n == 0)
    if largest > 2 * step:
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    if step > 1:
        blocks = width_now // step, height_now // step
        picture = cv2.resize(picture, blocks, interpolation=cv2.INTER_AREA)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def to_8_bits(plane: Plane, bits: int) -> Picture:
    """Samples of more bits, rounded."""
    return plane if bits == 8 else np.asarray(cv2.convertScaleAbs(plane, alpha=2.0 ** (8 - bits)))
