"""Performers of the planted corpus: ten bodies with eyes and a mouth, each of a hue of its own."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
Plane = NDArray[np.float64]

SHIFT_BITS = 4
"""Fraction bits of drawn coordinates: movements below a pixel are seen."""
_TURN = np.linspace(0, 2 * math.pi, 72, endpoint=False)


def _waved(count: int, depth: float, phase: float = -math.pi / 2) -> Plane:
    """An outline with so many bumps."""
    radius = 1 - depth + depth * np.cos(count * (_TURN - phase))
    return np.stack([radius * np.cos(_TURN), radius * np.sin(_TURN)], axis=1)


def _cornered(*corners: tuple[float, float]) -> Plane:
    return np.array(corners, np.float64)


BODIES: dict[str, Plane] = {
    "disc": _waved(1, 0.0),
    "box": _cornered((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "tent": _cornered((0, -1.15), (0.25, -0.9), (1.05, 0.9), (-1.05, 0.9), (-0.25, -0.9)),
    "star": _waved(5, 0.2),
    "flower": _waved(8, 0.13),
    "gem": _cornered((0, -1.15), (1.05, 0), (0, 1.15), (-1.05, 0)),
    "cat": _cornered((-0.85, -1.15), (-0.3, -0.75), (0.3, -0.75), (0.85, -1.15), (1, 0.2),
                     (0.5, 0.95), (-0.5, 0.95), (-1, 0.2)),
    "barrel": _cornered((-0.55, -1.1), (0.55, -1.1), (0.8, 0), (0.55, 1.1), (-0.55, 1.1),
                        (-0.8, 0)),
    "cross": _cornered((-0.5, -1.1), (0.5, -1.1), (0.5, -0.5), (1.1, -0.5), (1.1, 0.6), (0.5, 0.6),
                       (0.5, 1.1), (-0.5, 1.1), (-0.5, 0.6), (-1.1, 0.6), (-1.1, -0.5),
                       (-0.5, -0.5)),
    "loaf": np.stack([1.2 * np.cos(_TURN), 0.72 * np.sin(_TURN)], axis=1),
}  # fmt: skip
"""Outlines about the body's middle, in units of its radius, y downwards."""
MOUTH_BELOW, MOUTH_UNIT = 0.18, 0.5
"""The mouth's middle below the body's, and what a width or height of 1 is, in radii."""
HUES = 180
"""A turn of the colour circle, as OpenCV counts."""
HUE_TURN, HUE_SPREAD = HUES / len(BODIES), 5.0
"""From the hue of a body to the next one's, and how far a performer's own may be from it."""
EYES_ABOVE, EYES_APART, EYE_SIZE = 0.42, 0.3, 0.13


@dataclass(frozen=True)
class Look:
    """Colours and proportions of a performer."""

    body: str
    """Key of `BODIES`."""
    colour: Colour
    lips: Colour
    stretch: float
    """Factor on its height."""


@dataclass(frozen=True)
class Pose:
    """Where a performer is in one picture, and its mouth."""

    x: float
    y: float
    """Middle, pixels."""
    radius: float
    """Pixels."""
    roll: float
    """Radians."""
    mouth_height: float
    mouth_width: float
    """As `planted_script.Shape`."""


def look(random: np.random.Generator, body: str) -> Look:
    """Draw the colours of a performer: the body's about its class's hue, the lips any."""
    hue = HUE_TURN * list(BODIES).index(body) + random.uniform(-HUE_SPREAD, HUE_SPREAD)
    colour = _clear(random, hue % HUES)
    lips = _clear(random, random.uniform(0, HUES))
    return Look(body, colour, lips, float(random.uniform(0.9, 1.12)))


def draw(image: Image, who: Look, pose: Pose) -> Box:
    """Draw a performer and return the box of its body."""
    outline = BODIES[who.body] * (1.0, who.stretch)
    points = _placed(outline, pose)
    _fill(image, points, _dark(who.colour))
    _fill(image, _placed(outline * 0.88, pose), who.colour)
    for side in (-1, 1):
        eye = _placed(np.array([[side * EYES_APART, -EYES_ABOVE]]), pose)[0]
        _ellipse(image, eye, (EYE_SIZE * pose.radius,) * 2, pose.roll, (245, 245, 245))
        _ellipse(image, eye, (0.5 * EYE_SIZE * pose.radius,) * 2, pose.roll, (15, 15, 15))
    mouth = _placed(np.array([[0.0, MOUTH_BELOW]]), pose)[0]
    unit = MOUTH_UNIT * pose.radius
    inner = unit * pose.mouth_width, unit * pose.mouth_height
    _ellipse(image, mouth, (inner[0] + 1.8, inner[1] + 1.8), pose.roll, who.lips)
    if inner[1] > 0.6:
        _ellipse(image, mouth, inner, pose.roll, (25, 8, 12))
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def ball(image: Image, x: float, y: float, radius: float, colour: Colour) -> None:
    """A thing that drifts by."""
    _ellipse(image, np.array([x, y]), (radius, radius), 0.0, colour)


def _placed(outline: Plane, pose: Pose) -> Plane:
    """Pixels of points that are given in radii."""
    cos, sin = math.cos(pose.roll), math.sin(pose.roll)
    turned = outline @ np.array([[cos, sin], [-sin, cos]])
    return np.asarray(turned * pose.radius + (pose.x, pose.y))


def _fill(image: Image, points: Plane, colour: Colour) -> None:
    fixed = np.rint(points * 2**SHIFT_BITS).astype(np.int32)
    cv2.fillPoly(image, [fixed], colour, cv2.LINE_AA, SHIFT_BITS)


def _ellipse(
    image: Image, middle: Plane, axes: tuple[float, float], roll: float, colour: Colour
) -> None:
    unit = 2**SHIFT_BITS
    centre = round(float(middle[0]) * unit), round(float(middle[1]) * unit)
    sizes = max(1, round(axes[0] * unit)), max(1, round(axes[1] * unit))
    cv2.ellipse(image, centre, sizes, math.degrees(roll), 0, 360, colour, -1, cv2.LINE_AA,
                SHIFT_BITS)  # fmt: skip


def _clear(random: np.random.Generator, hue: float) -> Colour:
    """A colour of this hue that is neither dark nor grey."""
    pixel = np.array([[[hue, *random.uniform((120, 150), (220, 250))]]]).astype(np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return int(red), int(green), int(blue)


def _dark(colour: Colour) -> Colour:
    return tuple(value // 3 for value in colour)  # type: ignore[return-value]
