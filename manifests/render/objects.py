"""Things that move and sound: a bouncing ball, a swinging bell, a drum, a plucked string, a lamp.

Each is a function of time given its events: at an event something visible happens (bounce, turn,
hit, pluck, flash) and a sound starts. Beside the sounding thing a silent one of another kind
moves about, so that only who listens can tell which of the two to look at.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]
SUBPIXEL_BITS = 4
KINDS = ("ball", "bell", "drum", "string", "flash")
SILENT_PARTNER = {"ball": "bell", "bell": "drum", "drum": "string", "string": "ball",
                  "flash": "drum"}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a thing lives and when something happens to it."""

    size: tuple[int, int]
    """Width and height of the picture in pixels."""
    centre_x: float
    """Middle of its range, as a share of the width."""
    events: tuple[float, ...]
    """Seconds; empty for a silent thing."""
    phase: float
    """Radians, sets the slow drift apart."""
    colour: Colour
    """RGB."""

    @property
    def unit(self) -> float:
        """A hundredth of the picture's height in pixels."""
        return self.size[1] / 100

    def drift(self, seconds: float) -> float:
        """Horizontal position in pixels: a slow sway about the centre."""
        sway = 0.10 * math.sin(2 * math.pi * 0.11 * seconds + self.phase)
        return (self.centre_x + sway) * self.size[0]

    def around(self, seconds: float) -> tuple[float, float]:
        """Seconds since the last event and until the next one (10 where there is none)."""
        index = int(np.searchsorted(self.events, seconds + 1e-9))
        since = seconds - self.events[index - 1] if index else 10.0
        until = self.events[index] - seconds if index < len(self.events) else 10.0
        return since, until


class Thing(Protocol):
    """Something that can be drawn at a time."""

    def __call__(self, image: Image, place: Place, seconds: float) -> Box:
        """Draws itself and says where it is."""


def ball(image: Image, place: Place, seconds: float) -> Box:
    """Bounces at each event, by the laws of free fall; a silent ball floats."""
    radius, floor = 9 * place.unit, 88 * place.unit
    since, until = place.around(seconds)
    height = 380 * place.unit * min(since, 0.45) * min(until, 0.45)
    if not place.events:
        height = place.unit * (35 + 10 * math.sin(1.9 * seconds + place.phase))
    squash = 0.25 * math.exp(-((min(since, until) / 0.03) ** 2)) if place.events else 0.0
    x, y = place.drift(2 * seconds), floor - radius * (1 - squash) - height
    axes = (radius * (1 + squash), radius * (1 - squash))
    _ellipse(image, (x, floor + 2 * place.unit), (radius * 0.9, 2 * place.unit), (24, 22, 20))
    _ellipse(image, (x, y), axes, place.colour)
    turn = 3.0 * seconds + place.phase
    stripe = (x + 0.5 * radius * math.cos(turn), y + 0.5 * radius * math.sin(turn))
    _ellipse(image, stripe, (0.35 * radius, 0.35 * radius), (250, 250, 235))
    return x - axes[0], y - axes[1], x + axes[0], y + axes[1]


def bell(image: Image, place: Place, seconds: float) -> Box:
    """Swings on a rope and rings where it turns; glows while it rings."""
    since, until = place.around(seconds)
    index = int(np.searchsorted(place.events, seconds + 1e-9))
    # Before the first event it waits at one side, after the last it stays at the other.
    share = since / (since + until) if max(since, until) < 10 else min(1.0, since / 0.7)
    if since >= 10:
        share = max(0.0, 1 - until / 0.7)
    angle = 0.55 * (-1) ** index * math.cos(math.pi * share)
    if not place.events:
        angle = 0.12 * math.sin(1.1 * seconds + place.phase)
    pivot, rope, r = (
        (place.drift(seconds), 4 * place.unit),
        42 * place.unit,
        11 * place.unit,
    )
    down = np.array([math.sin(angle), math.cos(angle)])
    across = np.array([down[1], -down[0]])
    top = np.array(pivot) + rope * down
    glow = math.exp(-since / 0.2)
    outline = (
        (-0.45, 0.0),
        (0.45, 0.0),
        (0.65, 0.9),
        (1.0, 1.7),
        (-1.0, 1.7),
        (-0.65, 0.9),
    )
    points = np.array([top + r * (u * across + v * down) for u, v in outline])
    _line(image, pivot, (top[0], top[1]), (130, 110, 80), max(1, round(place.unit)))
    _polygon(image, points, _lit(place.colour, glow))
    clapper = top + r * 1.85 * down
    _ellipse(image, (clapper[0], clapper[1]), (0.25 * r, 0.25 * r), _lit((120, 95, 50), glow))
    points = np.vstack([points, clapper - 0.25 * r, clapper + 0.25 * r])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def drum(image: Image, place: Place, seconds: float) -> Box:
    """Is hit by a stick; the skin lights up."""
    since, until = place.around(seconds)
    x, y, r = place.drift(seconds), 62 * place.unit, 17 * place.unit
    skin, glow = 0.38 * r, math.exp(-since / 0.12)
    _ellipse(image, (x, y + r), (r, skin), _shade(place.colour, 0.7))
    _polygon(
        image,
        np.array([(x - r, y), (x + r, y), (x + r, y + r), (x - r, y + r)]),
        place.colour,
    )
    _ellipse(image, (x, y), (r, skin), _lit((196, 186, 165), glow))
    lift = min(1.0, min(since / 0.25, until / 0.12)) if place.events else 0.8
    lift += 0.1 * math.sin(2.3 * seconds + place.phase) * (lift > 0.7)
    tip = (x + 0.1 * r, y - 1.3 * r * lift)
    _line(
        image,
        (x + 1.9 * r, y - 0.9 * r),
        tip,
        (170, 120, 70),
        max(2, round(1.6 * place.unit)),
    )
    _ellipse(image, tip, (2 * place.unit, 2 * place.unit), (200, 150, 95))
    return x - r, y - skin, x + r, y + r + skin


def string(image: Image, place: Place, seconds: float) -> Box:
    """Hangs between two pegs, shakes and glows when plucked."""
    since, _ = place.around(seconds)
    swing = math.exp(-since / 0.3)
    x, top, bottom = place.drift(seconds), 20 * place.unit, 84 * place.unit
    half = 8 * place.unit
    _polygon(
        image,
        np.array(
            [
                (x - half, top),
                (x + half, top),
                (x + 1.2 * half, bottom),
                (x - 1.2 * half, bottom),
            ]
        ),
        _shade(place.colour, 0.55),
    )
    along = np.linspace(0, 1, 24)
    shake = swing * 0.75 * half * math.cos(2 * math.pi * 11 * min(since, 5.0))
    path = np.stack([x + shake * np.sin(np.pi * along), top + along * (bottom - top)], axis=1)
    colour = _lit(place.colour, swing)
    cv2.polylines(
        image,
        [_fixed(path)],
        False,
        colour,
        max(2, round(1.5 * place.unit)),
        cv2.LINE_AA,
        SUBPIXEL_BITS,
    )
    for y in (top, bottom):
        _ellipse(image, (x, y), (1.5 * half, 2.5 * place.unit), _shade(place.colour, 0.8))
    return (
        x - 1.5 * half,
        top - 2.5 * place.unit,
        x + 1.5 * half,
        bottom + 2.5 * place.unit,
    )


def lamp(image: Image, place: Place, seconds: float) -> Box:
    """Flashes white for a tenth of a second."""
    since, _ = place.around(seconds)
    x, y, r = place.drift(seconds), 42 * place.unit, 20 * place.unit
    _ellipse(image, (x, y), (r, r), _shade(place.colour, 0.4))
    lit = since < LAMP_SECONDS
    _ellipse(
        image,
        (x, y),
        (0.9 * r, 0.9 * r),
        (255, 255, 255) if lit else _shade(place.colour, 0.8),
    )
    return x - r, y - r, x + r, y + r


LAMP_SECONDS = 0.1
THINGS: dict[str, Thing] = {"ball": ball, "bell": bell, "drum": drum, "string": string,
                            "flash": lamp}  # fmt: skip


def _lit(colour: Colour, glow: float) -> Colour:
    """Moves a colour towards white by `glow`, 0..1."""
    red, green, blue = (round(value + (255 - value) * glow) for value in colour)
    return red, green, blue


def _shade(colour: Colour, factor: float) -> Colour:
    """Darkens a colour."""
    red, green, blue = (round(value * factor) for value in colour)
    return red, green, blue


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Fixed-point coordinates, so that slow motion is smooth."""
    return np.rint(points * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _ellipse(
    image: Image, centre: tuple[float, float], axes: tuple[float, float], colour: Colour
) -> None:
    x, y, a, b = (int(value) for value in _fixed(np.array([*centre, *axes])))
    cv2.ellipse(image, (x, y), (a, b), 0, 0, 360, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)


def _polygon(image: Image, points: NDArray[np.float64], colour: Colour) -> None:
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, SUBPIXEL_BITS)


def _line(
    image: Image,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: Colour,
    width: int,
) -> None:
    points = _fixed(np.array([start, end]))
    cv2.polylines(image, [points], False, colour, width, cv2.LINE_AA, SUBPIXEL_BITS)
