"""A talking head: the astronaut's portrait, moved gently, speaking what `voice` says.

`render` gives frames and the truth about them: the face box and the mouth opening at each frame.
Mouth and eyes are drawn once per level of opening (see `mouth`), pasted, and the head is then
moved by one smooth displacement that fades out towards shoulders and background.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from manifests.render import mouth
from manifests.render.mouth import Image
from manifests.render.voice import Utterance

Field = NDArray[Any]

FACE_BOX = (176.5, 77.0, 266.0, 166.5)
"""What dlib's detector answers on the portrait at twice its size, in portrait pixels."""
HEAD_CENTRE = (224.0, 112.0)
LEVELS = 16
"""Steps of mouth opening that are drawn."""
DRAWN_PIXELS = 2.0
"""Mouth and eyes are drawn at most at this scale and enlarged: the portrait has no more detail."""
BLINK_SECONDS = 0.22


@dataclass(frozen=True)
class Look:
    """What makes one speaker differ from another."""

    pitch_hz: float
    """Mean pitch of the voice."""
    mirrored: bool = False
    width: float = 1.0
    """Horizontal stretch of the whole portrait."""
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factor on red, green and blue."""
    gamma: float = 1.0
    """Above 1 darkens."""
    saturation: float = 1.0
    """0 gives a grey picture."""


@dataclass(frozen=True)
class HeadFrame:
    """One drawn picture and what is true of it."""

    image: Image
    box: tuple[float, float, float, float]
    """Face: x0, y0, x1, y1 in pixels."""
    opening: float
    """Mouth, 0..1."""


@dataclass(frozen=True)
class Head:
    """One speaker in front of one camera."""

    look: Look
    size: tuple[int, int]
    """Width and height of the picture in pixels."""
    zoom: float
    """Pixels of the picture per pixel of the portrait; the face is 90 of those wide."""
    seed: int

    def _grade(self, picture: Image) -> Image:
        """Gives a picture the colours of this speaker."""
        keep = self.look.saturation
        mix = (1 - keep) * np.tile([0.299, 0.587, 0.114], (3, 1)) + keep * np.eye(3)
        curve = (np.arange(256)[:, None] / 255) ** self.look.gamma * np.array(self.look.gains)
        table = np.rint(np.clip(curve, 0, 1) * 255).astype(np.uint8)[None]
        return np.asarray(cv2.LUT(cv2.transform(picture, mix), table), np.uint8)

    @cached_property
    def _origin(self) -> tuple[float, float]:
        """Portrait coordinates of the picture's top left corner."""
        width, height = self.size
        left = HEAD_CENTRE[0] - width / self.zoom / self.look.width / 2
        top = HEAD_CENTRE[1] + 8 - height / self.zoom / 2
        return max(0.0, left), max(0.0, top)

    @cached_property
    def _canvas(self) -> Image:
        """The whole portrait at the picture's vertical scale."""
        size = round(512 * self.zoom)
        large = cv2.resize(_portrait(), (size, size), interpolation=cv2.INTER_CUBIC)
        return self._grade(np.asarray(large, np.uint8))

    @cached_property
    def _mouths(self) -> list[Image]:
        levels = np.linspace(0, 1, LEVELS)
        return [self._drawn(mouth.mouth, float(level), mouth.MOUTH_AREA) for level in levels]

    @cached_property
    def _eyes(self) -> list[Image]:
        levels = (0.0, 0.35, 0.7, 1.0)
        return [self._drawn(mouth.eyes, level, mouth.EYES_AREA) for level in levels]

    def _drawn(
        self,
        draw: Callable[[Image, float, float], Image],
        level: float,
        area: mouth.Area,
    ) -> Image:
        """A drawn area in this speaker's colours and at the picture's scale."""
        patch = self._grade(_drawn(draw, level, min(self.zoom, DRAWN_PIXELS)))
        left, top, right, bottom = (round(value * self.zoom) for value in area)
        size = right - left, bottom - top
        return np.asarray(cv2.resize(patch, size, interpolation=cv2.INTER_CUBIC), np.uint8)

    @cached_property
    def _still(self) -> Image:
        """The picture at rest."""
        x, y = self._where
        border = cv2.BORDER_REFLECT
        picture = cv2.remap(self._canvas, x, y, cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(picture, np.uint8)

    @cached_property
    def _where(self) -> tuple[Field, Field]:
        """Column and row of the canvas that each pixel shows at rest."""
        width, height = self.size
        columns = (np.arange(width) + 0.5) / self.look.width + self._origin[0] * self.zoom - 0.5
        rows = np.arange(height) + self._origin[1] * self.zoom
        x, y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
        return x, y

    @cached_property
    def _moving(
        self,
    ) -> tuple[tuple[slice, slice], tuple[Field, Field, Field, Field, Field]]:
        """The part of the picture that the head moves in, and its fields.

        Returns:
            Rows and columns; then for each pixel there: column and row on the canvas at rest,
            share of the head (0..1), and this share times the distance in x and in y from the
            head's centre, in canvas pixels.
        """
        x, y = self._where
        far_x, far_y = x - HEAD_CENTRE[0] * self.zoom, y - HEAD_CENTRE[1] * self.zoom
        distance = np.hypot(far_x / 80, (far_y + 8 * self.zoom) / 88) / self.zoom
        share: Field = np.clip((1.5 - distance) / 0.5, 0, 1)
        share = share * share * (3 - 2 * share)
        rows, columns = (np.flatnonzero(share.any(axis=axis)) for axis in (1, 0))
        area = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        fields = (x, y, share, far_x * share, far_y * share)
        x, y, share, far_x, far_y = (np.ascontiguousarray(field[area]) for field in fields)
        return area, (x, y, share, far_x, far_y)

    @cached_property
    def _motion(self) -> NDArray[np.float64]:
        """Frequencies and phases of the sway: (shift x, shift y, roll) x two sinusoids."""
        random = np.random.default_rng([self.seed, 2])
        return np.stack([random.uniform(0.12, 0.45, (3, 2)), random.uniform(0, 6.28, (3, 2))])

    def render(self, utterance: Utterance, fps: float, frames: int) -> Iterator[HeadFrame]:
        """Draws the head saying something.

        Args:
            utterance: What is said.
            fps: Pictures a second.
            frames: Number of pictures.

        Yields:
            Pictures in time order with their truth.
        """
        for index in range(frames):
            seconds = index / fps
            opening = utterance.opening_at(seconds)
            yield self._frame(seconds, opening)

    def _frame(self, seconds: float, opening: float) -> HeadFrame:
        canvas = self._canvas
        _paste(
            canvas,
            self._mouths[round(opening * (LEVELS - 1))],
            mouth.MOUTH_AREA,
            self.zoom,
        )
        _paste(canvas, self._eyes[self._blink(seconds)], mouth.EYES_AREA, self.zoom)
        shift_x, shift_y, roll = self._pose(seconds)
        area, (x, y, share, far_x, far_y) = self._moving
        # Small angles: a rotation is a displacement proportional to the distance.
        source_x = cv2.scaleAdd(far_y, roll, cv2.scaleAdd(share, -shift_x * self.zoom, x))
        source_y = cv2.scaleAdd(far_x, -roll, cv2.scaleAdd(share, -shift_y * self.zoom, y))
        image = self._still.copy()
        image[area] = cv2.remap(
            canvas, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        light = 1 + 0.03 * np.sin(2 * np.pi * 0.13 * seconds + self.seed)
        image = np.asarray(cv2.convertScaleAbs(image, alpha=float(light)), np.uint8)
        if self.look.mirrored:
            image = np.asarray(cv2.flip(image, 1), np.uint8)
        return HeadFrame(image, self._box(shift_x, shift_y), opening)

    def _pose(self, seconds: float) -> tuple[float, float, float]:
        """Displacement in portrait pixels and roll in radians."""
        frequency, phase = self._motion
        sway = np.sin(2 * np.pi * frequency * seconds + phase).mean(axis=1)
        return float(5 * sway[0]), float(3 * sway[1]), float(0.05 * sway[2])

    def _blink(self, seconds: float) -> int:
        """Index into `_eyes`: shut for a moment every three to four seconds."""
        period = 3.1 + 0.37 * (self.seed % 3)
        into = (seconds + 0.7 * (self.seed % 5)) % period
        closing = max(0.0, 1 - abs(2 * into / BLINK_SECONDS - 1)) if into < BLINK_SECONDS else 0
        return round(3 * min(1.0, 1.5 * closing))

    def _box(self, shift_x: float, shift_y: float) -> tuple[float, float, float, float]:
        """The face's box in the picture (a small roll turns about its middle)."""
        left, top = self._origin
        x0, x1 = (
            (value + shift_x - left) * self.zoom * self.look.width
            for value in (FACE_BOX[0], FACE_BOX[2])
        )
        y0, y1 = ((value + shift_y - top) * self.zoom for value in (FACE_BOX[1], FACE_BOX[3]))
        if self.look.mirrored:
            x0, x1 = self.size[0] - x1, self.size[0] - x0
        return x0, y0, x1, y1


@cache
def _portrait() -> Image:
    """The portrait that everything is drawn from: Eileen Collins, NASA, public domain."""
    picture = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    return np.asarray(picture, np.uint8)


@cache
def _drawn(draw: Callable[[Image, float, float], Image], level: float, pixels: float) -> Image:
    """A drawn area of the portrait; several heads of one process share it."""
    return draw(_portrait(), level, pixels)


def _paste(canvas: Image, patch: Image, area: mouth.Area, zoom: float) -> None:
    """Puts a drawn area at its place."""
    left, top = round(area[0] * zoom), round(area[1] * zoom)
    canvas[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
