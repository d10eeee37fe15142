"""A textured wall with one sounding thing and one silent one in front of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from manifests.render.objects import SILENT_PARTNER, THINGS, Box, Colour, Image, Place


@dataclass(frozen=True)
class Stage:
    """A background with one sounding thing and one silent one."""

    kind: str
    """Key of `THINGS`: the sounding thing."""
    size: tuple[int, int]
    """Width and height in pixels."""
    events: tuple[float, ...]
    """When it sounds, in seconds."""
    seed: int

    @property
    def on_left(self) -> bool:
        """Whether the sounding thing is in the left half."""
        return bool(np.random.default_rng([self.seed, 6]).integers(2))

    def render(self, fps: float, frames: int) -> Iterator[tuple[Image, Box]]:
        """Draws pictures in time order, each with the box of the sounding thing."""
        random = np.random.default_rng([self.seed, 4])
        back = background(random, self.size)
        places = []
        for events, on_left in ((self.events, self.on_left), ((), not self.on_left)):
            colour = _colour(random)
            phase = float(random.uniform(0, 2 * math.pi))
            places.append(Place(self.size, 0.28 if on_left else 0.72, events, phase, colour))
        silent = SILENT_PARTNER[self.kind]
        for index in range(frames):
            image = back.copy()
            THINGS[silent](image, places[1], index / fps)
            box = THINGS[self.kind](image, places[0], index / fps)
            yield image, _clip(box, self.size)


def irregular(seed: int, seconds: float, low: float, high: float) -> tuple[float, ...]:
    """Event times whose distances are drawn between two bounds, from 0.5 s to 0.4 s before the end.

    Args:
        seed: Chooses the times.
        seconds: Length of the clip.
        low: Shortest distance in seconds.
        high: Longest distance in seconds.

    Returns:
        Times in seconds, rounded to milliseconds.
    """
    steps = np.random.default_rng([seed, 5]).uniform(low, high, int(seconds / low) + 1)
    times = 0.5 + np.cumsum(steps) - steps[0] / 2
    return tuple(round(float(time), 3) for time in times if time < seconds - 0.4)


def background(random: np.random.Generator, size: tuple[int, int]) -> Image:
    """A dim textured wall with a floor: clouds of noise at three scales."""
    width, height = size
    clouds = np.zeros((height, width), np.float32)
    for cells, depth in ((4, 22.0), (14, 13.0), (60, 7.0)):
        noise = random.standard_normal((cells * height // width + 1, cells)).astype(np.float32)
        clouds += depth * cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    wall = (66 + clouds)[..., None] * random.uniform(0.75, 1.2, 3)
    wall[round(0.88 * height) :] *= 0.7
    return np.clip(wall, 8, 130).astype(np.uint8)


def _colour(random: np.random.Generator) -> Colour:
    """A clear colour that stands out from the wall."""
    hue = np.uint8(random.integers(180))
    pixel = cv2.cvtColor(np.array([[[hue, 190, 215]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def _clip(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box that is in the picture."""
    x0, y0, x1, y1 = box
    return max(0.0, x0), max(0.0, y0), min(float(size[0]), x1), min(float(size[1]), y1)
