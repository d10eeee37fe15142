"""One decoded picture as a viewer sees it: turned upright, square pixels, right colours.

Everything else of the pipeline counts in *displayed* pixels: the display matrix of the file is
applied, and a sample aspect ratio other than 1 scales the width. Only what is asked for is
converted: a small RGB picture in one swscale pass, the luma plane without any copy, or a region
straight from the Y, U and V planes.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from pipeline.planes import (
    Corners,
    Picture,
    Plane,
    YuvPicture,
    colours_of,
    crop,
    from_rgb,
    planar_layout,
    plane_view,
    resize,
    to_8_bits,
    yuv_crops,
)

RANGE_LIMITED, RANGE_FULL = 1, 2
MAX_PIXEL_ASPECT = 8
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

    def coded(self, corners: Corners, width: int, height: int) -> Corners:
        """The coded corners of a box in a displayed picture of width x height."""
        x0, y0, x1, y1 = corners
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
        orientation: `display_orientation` of the clip; None takes the frame's rotation, which
            knows quarter turns but no mirroring.
    """

    def __init__(
        self,
        picture: av.VideoFrame,
        sample_aspect_ratio: Fraction | None = None,
        orientation: Orientation | None = None,
    ) -> None:
        self._picture = picture
        self._orientation = orientation or QUARTER_TURNS[90 * round(picture.rotation / 90) % 360]
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

    @property
    def rotation(self) -> int:
        """Degrees by the file's display matrix, as PyAV counts them; already applied here."""
        return int(self._picture.rotation)

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
        colours = colours_of(self._picture)
        rgb = reformatter.reformat(
            self._picture,
            width,
            height,
            "rgb24",
            src_colorspace=colours.matrix,
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
            src_color_range=RANGE_FULL if colours.full else RANGE_LIMITED,
            threads=1,
        )
        # Copied as rows of bytes: numpy takes ten times longer over rows of pixels.
        pixels = plane_view(rgb, 0, channels=3)
        packed = np.ascontiguousarray(pixels.reshape(height, 3 * width)).reshape(pixels.shape)
        return np.ascontiguousarray(self._orientation.apply(packed))

    def gray(self) -> Picture:
        """Luma (H, W) as coded: limited-range video stays at 16 to 235. Not to be written to.

        A view of the decoder's memory for upright 8-bit video with square pixels.
        """
        return self._gray

    @cached_property
    def _gray(self) -> Picture:
        luma = self._orientation.apply(self.coded_luma)
        if self._is_square:
            return luma
        return resize(luma, self.width, self.height)

    def small_gray(self, width: int, height: int) -> Picture:
        """The whole luma scaled to (height, width), in one step whatever the pixels' aspect."""
        size = (height, width) if self._orientation.swap else (width, height)
        small = self._orientation.apply(resize(self.coded_luma, *size))
        return np.ascontiguousarray(small)

    @cached_property
    def coded_luma(self) -> Picture:
        """8-bit luma (h, w) as the decoder has it: neither turned nor in square pixels."""
        layout = planar_layout(self._picture.format.name)
        if layout is None:
            gray = _whole_pictures.reformat(self._picture, format="gray8", threads=1)
            return plane_view(gray, 0)
        return to_8_bits(plane_view(self._picture, 0, dtype=layout.dtype), layout.bits)

    def yuv_region(self, corners: Corners, width: int, height: int) -> YuvPicture:
        """The displayed box x0, y0, x1, y1 in pixels, as planes before the conversion of colours.

        The box may stick out of the picture, whose border is then repeated.
        Chroma is taken on its own grid: for 4:2:0 video an even box is exact, an odd one is off
        by half a chroma sample. Only the region is read, except in unusual formats.
        """
        layout = planar_layout(self._picture.format.name)
        if layout is None or not self._is_square:
            return from_rgb(resize(crop(self._whole_rgb, corners), width, height))
        coded = self._orientation.coded(corners, self.width, self.height)
        luma, *chroma = yuv_crops(self._picture, layout, coded)
        half = -(-width // 2), -(-height // 2)
        parts = [(luma, (width, height)), *((plane, half) for plane in chroma)]
        y, u, v = (self._scaled(plane, size, layout.bits) for plane, size in parts)
        return YuvPicture((y, u, v), colours_of(self._picture))

    def _scaled(self, plane: Plane, size: tuple[int, int], bits: int) -> Picture:
        """A coded plane as a displayed one of (width, height) and 8 bits, in memory of its own."""
        scaled = resize(plane, *(size[::-1] if self._orientation.swap else size))
        turned = self._orientation.apply(to_8_bits(scaled, bits))
        return turned.copy() if np.may_share_memory(turned, plane) else np.ascontiguousarray(turned)


QUARTER_TURNS = {
    0: UPRIGHT,
    90: Orientation(True, False, True),
    180: Orientation(False, True, True),
    270: Orientation(True, True, False),
}
"""By degrees counter-clockwise."""


def display_orientation(picture: av.VideoFrame) -> Orientation:
    """What the display matrix asks for, to the nearest quarter turn, mirrorings included.

    Meant for one picture of a clip: PyAV's side data and its frame refer to each other, so a
    frame once asked stays in memory until the garbage collector comes by.
    """
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
    if not aspect:
        return width
    wide, high = aspect.numerator, aspect.denominator
    if max(wide, high) > MAX_PIXEL_ASPECT * min(wide, high):
        return width
    return max(1, (2 * width * wide + high) // (2 * high))
