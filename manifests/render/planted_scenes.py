"""Backgrounds of the planted corpus: ten patterns in random muted colours, larger than the picture.

The pattern tells the class; colours, scale, angle, contrast and blur are nuisance, so that the mean
colour of a clip says nothing about its class.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Plane = NDArray[np.float64]


CHROMA = 0.35
"""Share of the drawn colour that is left: performers are colourful, scenes are muted."""


def clouds(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Noise at two scales."""
    plane = np.zeros(x.shape)
    for cells, depth in ((5, 0.7), (12, 0.4)):
        noise = random.standard_normal((cells, cells))
        plane += depth * cv2.resize(noise, x.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return plane


def stripes(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Straight bands."""
    del random, y
    return np.asarray(np.sign(np.sin(2 * np.pi * x)))


def checks(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """A chess board."""
    del random
    return np.asarray(np.sign(np.sin(np.pi * x) * np.sin(np.pi * y)))


def dots(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Discs on a grid."""
    del random
    return np.where(np.hypot(x % 1 - 0.5, y % 1 - 0.5) < 0.3, 1.0, -1.0)


def rings(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Circles about one place."""
    far = np.hypot(x - random.uniform(-2, 2), y - random.uniform(-2, 2))
    return np.sign(np.sin(2 * np.pi * far))


def bricks(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Bricks with joints."""
    del random
    along = (x / 2 + 0.5 * (np.floor(y) % 2)) % 1
    return np.where((along < 0.1) | (y % 1 < 0.2), -1.0, 1.0)


def lattice(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Thin crossed lines."""
    del random
    return np.where((x % 1 < 0.15) | (y % 1 < 0.15), 1.0, -1.0)


def waves(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Wavy bands."""
    del random
    return np.sign(np.sin(2 * np.pi * (y + 0.45 * np.sin(2 * np.pi * x / 1.8))))


def confetti(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Short strokes in all directions."""
    plane = np.full(x.shape, -1.0)
    height, width = x.shape
    for _ in range(90):
        start, angle = random.uniform(0, (width, height)), random.uniform(0, 2 * np.pi)
        end = start + random.uniform(7, 15) * np.array([np.cos(angle), np.sin(angle)])
        ends = tuple(map(int, start)), tuple(map(int, end))
        cv2.line(plane, *ends, 1.0, 3)
    return plane


def slope(random: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """A smooth run from one colour to the other, with a horizon."""
    height = y - float(y.mean()) - random.uniform(-0.6, 0.6)
    return np.where(height > 0, 0.9 - 0.3 * height, -0.9 + 0.1 * x / float(np.abs(x).max()))


SCENES: dict[str, Callable[[np.random.Generator, Plane, Plane], Plane]] = {
    scene.__name__: scene
    for scene in (clouds, stripes, checks, dots, rings, bricks, lattice, waves, confetti, slope)
}


def paint(random: np.random.Generator, kind: str, side: int) -> Image:
    """A background.

    Args:
        random: draws everything but the kind.
        kind: key of `SCENES`.
        side: pixels.
    """
    cell = random.uniform(14, 30)
    angle = random.uniform(-0.5, 0.5) + np.pi / 2 * random.integers(2)
    rows, columns = np.mgrid[:side, :side].astype(np.float64)
    rows, columns = rows - side / 2, columns - side / 2
    x = (columns * np.cos(angle) + rows * np.sin(angle)) / cell + random.uniform()
    y = (rows * np.cos(angle) - columns * np.sin(angle)) / cell + random.uniform()
    plane = np.clip(SCENES[kind](random, x, y), -1, 1)
    soft = cv2.GaussianBlur(plane, (0, 0), random.uniform(0.6, 1.6))[..., None]
    middle, reach = random.uniform(60, 190, 3), random.uniform(14, 45, 3) * random.choice((-1, 1))
    grain = random.normal(0, random.uniform(1, 5), soft.shape)
    painted = middle + reach * soft
    grey = painted.mean(axis=2, keepdims=True)
    return np.asarray(np.clip(grey + CHROMA * (painted - grey) + grain, 5, 250), np.uint8)
