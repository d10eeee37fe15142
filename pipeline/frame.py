"""One decoded picture as a viewer sees it: turned upright, square pixels, right colours.

Everything else of the pipeline counts in *displayed* pixels: the display matrix of the file is
applied, and a sample aspect ratio other than 1 scales the width. Only what is asked for is
converted: a small RGB picture in one swscale pass, the luma plane without any copy, or a region
straight from the Y, U and V planes.

Colours follow the ffmpeg program: the frame's own matrix and range, BT.601 limited range where
the file says nothing, no tone mapping of HDR.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

Picture = npt.NDArray[np.uint8]
Plane = npt.NDArray[Any]

COLORSPACE_UNSPECIFIED = 2
COLORSPACE_BT601 = 5
RANGE_LIMITED, RANGE_FULL = 1, 2
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""(red, blue) weights by H.273 matrix number: BT.709, FCC, SMPTE 240M, BT.2020."""
BT601_WEIGHTS = (0.299, 0.114)
MAX_ASPECT = 8
"""Sample aspect ratios beyond 8:1 are damage, not anamorphic video; they are ignored."""

# Each keeps a scaler for its last geometry, so that the uses do not evict one another's.
_small_pictures = VideoReformatter()
_whole_pictures = VideoReformatter()


@dataclass(frozen=True)
class Orientation:
    """How coded pixels become displayed ones: swap the axes, then mirror."""

    swap: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, picture: Plane) -> Plane:
        """A view of (H, W, ...) turned as displayed."""
        if self.swap:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]

    def coded_box(
        self, box: tuple[int, int, int, int], width: int, height: int
    ) -> tuple[int, int, int, int]:
        """The coded box (x0, y0, x1, y1) of one in a displayed picture of width x height."""
        x0, y0, x1, y1 = box
        if self.mirror_x:
            x0, x1 = width - x1, width - x0
        if self.mirror_y:
            y0, y1 = height - y1, height - y0
        return (y0, x0, y1, x1) if self.swap else (x0, y0, x1, y1)


UPRIGHT = Orientation()


class Frame:
    """One `av.VideoFrame` as a displayed picture; holds the decoder's memory while it lives.

    Args:
        picture: the decoded frame.
        sample_aspect_ratio: width of a coded pixel over its height, from the stream (PyAV does
            not carry it on the frame); None, 0 and absurd values mean square.
    """

    def __init__(self, picture: av.VideoFrame, sample_aspect_ratio: Fraction | None = None) -> None:
        self._picture = picture
        self._orientation = _orientation(picture)
        width = _square_width(picture.width, sample_aspect_ratio)
        self._is_square = width == picture.width
        turned = self._orientation.swap
        self.width: int = picture.height if turned else width
        """Displayed pixels."""
        self.height: int = width if turned else picture.height
        """Displayed pixels."""

    def __repr__(self) -> str:
        """Displayed size and coded format."""
        return f"Frame({self.width}x{self.height}, {self._picture.format.name})"

    def resized_size(self, short_side: int) -> tuple[int, int]:
        """(width, height) of `resized`: the long side rounded to the nearest even number."""
        long_side = max(self.width, self.height) * short_side / min(self.width, self.height)
        long_side = max(2 * int(long_side / 2 + 0.5), short_side)
        return (long_side, short_side) if self.width >= self.height else (short_side, long_side)

    def resized(self, short_side: int) -> Picture:
        """RGB (h, w, 3) with the given short side in pixels, aspect kept."""
        return self._rgb(_small_pictures, *self.resized_size(short_side))

    @cached_property
    def _whole_rgb(self) -> Picture:
        return self._rgb(_whole_pictures, self.width, self.height)

    def _rgb(self, reformatter: VideoReformatter, width: int, height: int) -> Picture:
        """One swscale pass at the coded orientation; the small result is turned afterwards."""
        if self._orientation.swap:
            width, height = height, width
        shrinks = width * height <= self._picture.width * self._picture.height
        matrix, full = _colours(self._picture)
        rgb = reformatter.reformat(
            self._picture,
            width,
            height,
            "rgb24",
            src_colorspace=matrix,
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
            src_color_range=RANGE_FULL if full else RANGE_LIMITED,
            threads=1,
        )
        return np.ascontiguousarray(self._orientation.apply(_plane(rgb, 0, channels=3)))

    def gray(self) -> Picture:
        """Luma (H, W) as coded: limited-range video stays at 16 to 235. Not to be written to.

        A view of the decoder's memory for upright 8-bit video with square pixels.
        """
        return self._gray

    @cached_property
    def _gray(self) -> Picture:
        luma = self._orientation.apply(self._coded_luma())
        if self._is_square:
            return luma
        return cv2.resize(luma, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def _coded_luma(self) -> Plane:
        layout = _planar_layout(self._picture.format.name)
        if layout is None:
            gray = _whole_pictures.reformat(self._picture, format="gray8", threads=1)
            return _plane(gray, 0)
        luma = _plane(self._picture, 0, dtype=layout.dtype)
        if layout.bits == 8:
            return luma
        return cv2.convertScaleAbs(luma, alpha=2.0 ** (8 - layout.bits))

    def region(self, x0: int, y0: int, x1: int, y1: int, width: int, height: int) -> Picture:
        """RGB (height, width, 3) of the displayed box [x0, x1) x [y0, y1), in pixels.

        The box may stick out of the picture, whose border is then repeated. Chroma is taken on
        its own grid: for 4:2:0 video an even box is exact, an odd one is off by half a chroma
        sample. Only the region is converted, except in unusual formats.
        """
        box = (x0, y0, x1, y1)
        layout = _planar_layout(self._picture.format.name)
        if layout is None or not self._is_square:
            return _resize(_crop(self._whole_rgb, box), width, height)
        box = self._orientation.coded_box(box, self.width, self.height)
        size = (height, width) if self._orientation.swap else (width, height)
        planes = self._yuv_crops(layout, box)
        resized = cv2.merge([_resize(plane, *size) for plane in planes])
        rgb = cv2.transform(resized, _rgb_matrix(*_colours(self._picture), layout.bits))
        if layout.bits > 8:
            rgb = np.clip(rgb, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(self._orientation.apply(rgb))

    def _yuv_crops(self, layout: "Layout", box: tuple[int, int, int, int]) -> list[Plane]:
        luma = _crop(_plane(self._picture, 0, dtype=layout.dtype), box)
        x0, y0, x1, y1 = box
        sx, sy = layout.chroma_x, layout.chroma_y
        chroma_box = (x0 // sx, y0 // sy, -(-x1 // sx), -(-y1 // sy))
        if layout.interleaved:
            pairs = _crop(_plane(self._picture, 1, channels=2), chroma_box)
            return [luma, pairs[..., 0], pairs[..., 1]]
        chroma = (_plane(self._picture, index, dtype=layout.dtype) for index in (1, 2))
        return [luma, *(_crop(plane, chroma_box) for plane in chroma)]


@dataclass(frozen=True)
class Layout:
    """Where the samples of a planar YUV format lie."""

    bits: int
    chroma_x: int
    chroma_y: int
    interleaved: bool

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """One or two bytes a sample."""
        return np.uint8 if self.bits == 8 else np.uint16


@lru_cache(maxsize=64)
def _planar_layout(name: str) -> Layout | None:
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


def _orientation(picture: av.VideoFrame) -> Orientation:
    """What the display matrix asks for, to the nearest quarter turn."""
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    # Displayed x = a·x + c·y and y = b·x + d·y; the matrix is stored in rows of three.
    a, b, _, c, d = np.frombuffer(cast(Any, matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def _square_width(width: int, aspect: Fraction | None) -> int:
    """The width in square pixels."""
    if not aspect or not Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT:
        return width
    return max(1, int(width * aspect + Fraction(1, 2)))


def _colours(picture: av.VideoFrame) -> tuple[int, bool]:
    """(H.273 matrix number, whether the range is full) with the ffmpeg program's defaults."""
    matrix = picture.colorspace if picture.colorspace in LUMA_WEIGHTS else COLORSPACE_BT601
    full = picture.color_range == RANGE_FULL or picture.format.name.startswith("yuvj")
    return matrix, full


@lru_cache(maxsize=16)
def _rgb_matrix(matrix: int, full: bool, bits: int) -> npt.NDArray[np.float32]:
    """(3, 4) from Y, U, V samples of so many bits to 8-bit R, G, B."""
    red, blue = LUMA_WEIGHTS.get(matrix, BT601_WEIGHTS)
    green = 1 - red - blue
    depth = 2.0 ** (bits - 8)
    luma = 255 / ((2**bits - 1) if full else 219 * depth)
    chroma = 255 / ((2**bits - 1) if full else 224 * depth)
    to_red, to_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    weights = np.array(
        [
            [luma, 0, to_red],
            [luma, -to_blue * blue / green, -to_red * red / green],
            [luma, to_blue, 0],
        ]
    )
    black = np.array([0 if full else 16 * depth, 128 * depth, 128 * depth])
    return np.hstack([weights, -(weights @ black)[:, None]]).astype(np.float32)


def _plane(
    picture: av.VideoFrame, index: int, *, channels: int = 1, dtype: type[np.generic] = np.uint8
) -> Plane:
    """A view (h, w) or (h, w, channels) of one plane; it keeps the frame's memory alive."""
    plane = picture.planes[index]
    rows: Plane = np.frombuffer(cast(Any, plane), dtype)
    stride = plane.line_size // rows.itemsize
    rows = rows[: plane.height * stride].reshape(plane.height, stride)
    view = rows[:, : plane.width * channels]
    return view if channels == 1 else view.reshape(plane.height, plane.width, channels)


def _crop(picture: Plane, box: tuple[int, int, int, int]) -> Plane:
    """The pixels of a box, the border repeated where it sticks out."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box
    inside_x = min(max(x0, 0), width - 1), max(min(x1, width), 1)
    inside_y = min(max(y0, 0), height - 1), max(min(y1, height), 1)
    crop = picture[inside_y[0] : max(inside_y[1], inside_y[0] + 1)]
    crop = crop[:, inside_x[0] : max(inside_x[1], inside_x[0] + 1)]
    missing_y = _padding(y0, y1, height)
    missing_x = _padding(x0, x1, width)
    if not any(missing_y + missing_x):
        return crop
    return cv2.copyMakeBorder(crop, *missing_y, *missing_x, cv2.BORDER_REPLICATE)


def _padding(start: int, end: int, length: int) -> tuple[int, int]:
    """How many pixels of [start, end) lie before and behind [0, length); one always stays."""
    before = min(max(-start, 0), end - start - 1)
    behind = min(max(end - length, 0), end - start - 1)
    return before, behind


def _resize(picture: Plane, width: int, height: int) -> Plane:
    """Area averaging where it shrinks, linear where it grows."""
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = width * height <= picture.shape[0] * picture.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=method)
