"""Recipes carried out: what a manipulated clip (`augvgg`) shows and sounds like.

    row's recipe -> stretch of the file and its speed -> pictures one by one, sound at one go

A manipulated sample is what one would get from a manipulated video file, without writing one: the
transforms act on decoded pictures and sound, nothing is encoded twice. Its clock is that file's.
Time t of the sample shows time `t0 + (t - t0) x speed` of the source, in picture and sound alike,
so its `pts` are the source's times carried over to the sample's clock; with a picture transform
`source.width` and `height`, like all face coordinates, are pixels of the manipulated picture.

Everything depends on the row alone: noise is drawn from the recipe's seed, the key, the transform's
place in the recipe and the number of the interval. Without a recipe nothing is touched.
"""

import hashlib
from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np

from manifests.recipes import Recipe, parameters
from pipeline.alter_picture import PICTURE_TRANSFORMS, WORKING_SHORT_SIDE, at_working_size, framed
from pipeline.alter_sound import SOUND_TRANSFORMS, Stretch, faster
from pipeline.clock import TOLERANCE_SECONDS, Grid
from pipeline.errors import ClipError, Reason
from pipeline.frame import Frame
from pipeline.sound import MARGIN_SECONDS, Sound


def shortened(recipe: Recipe, whole: Grid) -> Grid:
    """The grid of the manipulated sample: the stretch that is kept, at the recipe's speed.

    Args:
        recipe: what is done.
        whole: the grid of the clip as it is.

    Raises:
        ClipError: `too_short` if not even one interval is left.
    """
    if not recipe.of("time"):
        return whole
    first, last = recipe.kept
    seconds = whole.frames / whole.fps
    left = (last - first) * seconds / recipe.speed
    frames = floor((left + TOLERANCE_SECONDS) * whole.fps)
    if frames < 1:
        detail = f"{float(left):.3f} s are left of {float(seconds):.2f} s by the recipe: {recipe}"
        raise ClipError(Reason.TOO_SHORT, detail, "sample")
    return Grid(whole.t0 + first * seconds, whole.fps, frames)


class Augmentation:
    """What a recipe does to the pictures and the sound of one clip."""

    def __init__(self, recipe: Recipe, t0: Fraction) -> None:
        """`t0` of the sample, in seconds on the source's clock: where both clocks agree."""
        self._recipe = recipe
        self._t0 = t0
        self._seed = int.from_bytes(hashlib.sha256(recipe.identity.encode()).digest()[:8])
        self._pictures = recipe.of("picture")

    def on_source(self, grid: Grid) -> Grid:
        """The intervals of a grid on the source's clock: there they are `speed` times as long."""
        return replace(grid, fps=grid.fps / self._recipe.speed)

    def on_sample(self, time: Fraction) -> Fraction:
        """A time of the source, in seconds, on the sample's clock."""
        return self._t0 + (time - self._t0) / self._recipe.speed

    def picture(self, k: int, frame: Frame) -> Frame:
        """The picture of interval k, manipulated."""
        if not self._pictures:
            return frame
        picture = frame.resized(WORKING_SHORT_SIDE)
        for place, transform in self._pictures:
            chance, numbers = np.random.default_rng([self._seed, place, k]), parameters(transform)
            picture = PICTURE_TRANSFORMS[transform["name"]](
                at_working_size(picture), chance, **numbers
            )
        return framed(picture)

    def sound(self, sound: Sound | None, grid: Grid) -> Sound | None:
        """The sound under a grid of the sample, on the sample's clock, and some around it.

        Raises:
            ClipError: a filter lies above what this sound can hold.
        """
        transforms, speed = self._recipe.of("sound"), self._recipe.speed
        if sound is None or (not transforms and speed == 1):
            return sound
        rate, margin = sound.rate_hz, MARGIN_SECONDS / speed
        first = round((grid.t0 - margin) * rate)
        length = round((grid.frames / grid.fps + 2 * margin) * rate)
        begin = round((grid.t0 - MARGIN_SECONDS) * rate)
        source = sound.piece(begin, begin + round(length * speed) + 1)
        inside = slice(round(margin * rate), length - round(margin * rate))
        stretch = Stretch(faster(source, float(speed), length, rate), rate, inside)
        for place, transform in transforms:
            chance, numbers = np.random.default_rng([self._seed, place]), parameters(transform)
            stretch = SOUND_TRANSFORMS[transform["name"]](stretch, chance, **numbers)
        samples = np.clip(stretch.samples, -1, 1)  # as a file would hold them
        return Sound(rate, first, samples, self._gaps(sound, first, length), sound.bad_packets)

    def _gaps(self, sound: Sound, first: int, length: int) -> tuple[tuple[int, int], ...]:
        """Where the source has no sound, in samples of the manipulated stretch."""
        last = sound.first + len(sound.samples)
        beyond = 10 * len(sound.samples) + 10 * sound.rate_hz
        holes = [(sound.first - beyond, sound.first), *sound.gaps, (last, last + beyond)]
        rate = sound.rate_hz
        moved = (
            [round(self.on_sample(Fraction(at, rate)) * rate) for at in hole] for hole in holes
        )
        clipped = ((max(a, first), min(b, first + length)) for a, b in moved)
        return tuple((a, b) for a, b in clipped if b > a)
