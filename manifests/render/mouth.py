"""Opens and closes the mouth (and the eyes) of the portrait by warping its columns.

All geometry was measured by hand on scikit-image's 512 x 512 astronaut portrait (NASA, public
domain), in pixels with integer pixel centres. She smiles: the inner lips are 6.5 px apart in the
middle and show the upper teeth, which belong to the skull and therefore stay where they are;
the lower lip and the chin move, and what opens below the teeth is dark.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Field = NDArray[Any]
Area = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the portrait."""

UPPER_LIP = (
    (202.5, 139.3),
    (206, 140.6),
    (212, 141.9),
    (217, 142.9),
    (223, 143.2),
    (229, 143.1),
    (235, 142.4),
    (240, 141.3),
    (243.5, 140.6),
)
"""Lower edge of the upper lip."""
LOWER_LIP = (
    (202.5, 139.3),
    (206, 143.0),
    (210, 146.2),
    (214, 148.2),
    (218, 149.3),
    (223, 149.8),
    (228, 149.6),
    (232, 148.4),
    (236, 146.0),
    (240, 143.2),
    (243.5, 140.6),
)
"""Upper edge of the lower lip."""
NOSE_BASE, LIP_THICKNESS, CHIN, COLLAR = 133.0, 5.5, 178.0, 202.0
"""Rows that anchor the warp: still, rigid below the lip, moving with the jaw, still."""
SMILE_GAP_PIXELS = 6.5
CLOSED_GAP_PIXELS, OPEN_GAP_PIXELS = 0.3, 16.0
EYES = ((194.5, 213.5, 97.6, 105.2), (236.5, 256.5, 99.6, 107.4))
"""Left, right, top and bottom of each eye."""
MOUTH_AREA = (160, 126, 288, 208)
EYES_AREA = (188, 88, 262, 112)
"""Left, top, right and bottom of what the two warps can change."""
DARK, TONGUE = (46.0, 16.0, 16.0), (128.0, 58.0, 58.0)
"""RGB of the inside of a mouth."""


def mouth(portrait: Image, opening: float, pixels: float) -> Image:
    """Draws the mouth area with a given opening.

    Args:
        portrait: The astronaut, RGB.
        opening: 0 (lips closed) to 1.
        pixels: Pixels of the result per pixel of the portrait.

    Returns:
        `MOUTH_AREA` at that scale, RGB.
    """
    x, y = _grid(MOUTH_AREA, pixels)
    upper, lower = _curve(UPPER_LIP, x), _curve(LOWER_LIP, x)
    # A wide mouth is rounder than a smile.
    shape = np.clip((lower - upper) / SMILE_GAP_PIXELS, 0, 1) ** (1 - 0.45 * opening)
    gap = CLOSED_GAP_PIXELS + opening * (OPEN_GAP_PIXELS - CLOSED_GAP_PIXELS)
    # Closing a smile also brings the upper lip down; opening wide lifts it a little.
    upper_shift = shape * np.interp(opening, [0, 0.4, 1], [2.0, 0.0, -1.0])
    upper_new = upper + upper_shift
    lower_new = upper_new + shape * gap
    jaw = 0.8 * (gap - SMILE_GAP_PIXELS + upper_shift.max()) * _bump(x, 178, 270)
    outside = [
        NOSE_BASE,
        upper_new,
        lower_new,
        lower_new + LIP_THICKNESS,
        CHIN + jaw,
        COLLAR,
    ]
    inside: list[Field | float] = [NOSE_BASE, upper, lower, lower + LIP_THICKNESS, CHIN, COLLAR]
    source = _piecewise(y, outside, inside)
    skin = _sample(portrait, x, source)
    cavity = _cavity(
        portrait,
        x,
        y - upper_new + upper,
        (lower - upper),
        lower_new - upper_new,
        y - upper_new,
    )
    within = _ramp((y - upper_new) * 1.3 + 0.5) * _ramp((lower_new - y) * 1.3 + 0.5)
    within = within * _ramp(shape * 6)
    return _mix(skin, cavity, within)


def eyes(portrait: Image, closing: float, pixels: float) -> Image:
    """Draws the eyes area with the lids lowered.

    Args:
        portrait: The astronaut, RGB.
        closing: 0 (as in the portrait) to 1 (shut).
        pixels: Pixels of the result per pixel of the portrait.

    Returns:
        `EYES_AREA` at that scale, RGB.
    """
    x, y = _grid(EYES_AREA, pixels)
    source, lash = y, np.zeros_like(y)
    for left, right, top, bottom in EYES if closing else ():
        arch = _bump(x, left - 3, right + 3) ** 0.4
        lid = top + closing * arch * (bottom + 0.5 - top)
        # The lid's skin stretches down to its new edge; the eye stays where it is, covered.
        stretched = _piecewise(y, [top - 5, lid], [top - 5, top - 1.2])
        source = np.where((arch > 0) & (y < lid), stretched, source)
        lash = np.maximum(lash, arch * _ramp(1 - np.abs(y - lid)))
    skin = _sample(portrait, x, source)
    return _mix(skin, np.full(skin.shape, 40, np.float32), 0.6 * closing * lash)


def _grid(area: Area, pixels: float) -> tuple[Field, Field]:
    """Portrait coordinates of each pixel of a scaled area, sampled at pixel centres."""
    left, top, right, bottom = area
    columns = (np.arange(round((right - left) * pixels)) + 0.5) / pixels + left - 0.5
    rows = (np.arange(round((bottom - top) * pixels)) + 0.5) / pixels + top - 0.5
    x, y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    return x, y


def _curve(points: tuple[tuple[float, float], ...], x: Field) -> Field:
    """Height of a polyline at each column, rounded a little; level beyond its ends."""
    fine = np.arange(150, 300, 0.25)
    height = np.interp(fine, [px for px, _ in points], [py for _, py in points])
    window = np.hanning(11) / np.hanning(11).sum()
    smooth = np.convolve(np.pad(height, 5, mode="edge"), window, mode="valid")
    return np.interp(x, fine, smooth).astype(np.float32)


def _bump(x: Field, left: float, right: float) -> Field:
    """A raised cosine between two columns, zero outside."""
    phase = np.clip((x - left) / (right - left), 0, 1)
    return (0.5 - 0.5 * np.cos(2 * np.pi * phase)).astype(np.float32)


def _ramp(value: Field) -> Field:
    """Clips to 0..1."""
    return np.asarray(np.clip(value, 0, 1))


def _piecewise(
    y: Field, targets: Sequence[Field | float], sources: Sequence[Field | float]
) -> Field:
    """Maps rows so that each target height shows its source height, linear in between."""
    result = y.copy()
    for i in range(len(targets) - 1):
        low, high = targets[i], targets[i + 1]
        share = (y - low) / np.maximum(high - low, 1e-3)
        value = sources[i] + share * (sources[i + 1] - sources[i])
        result = np.where((y >= low) & (y < high), value, result)
    return result.astype(np.float32)


def _sample(portrait: Image, x: Field, y: Field) -> Image:
    """Portrait colours at fractional positions."""
    map_x, map_y = x.astype(np.float32), y.astype(np.float32)
    border = cv2.BORDER_REPLICATE
    colours = cv2.remap(portrait, map_x, map_y, cv2.INTER_CUBIC, borderMode=border)
    return np.asarray(colours, np.uint8)


def _mix(below: Image, above: Field, share: Field) -> Image:
    """Lays one picture over another."""
    mixed = below + (above - below) * share[..., None]
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def _cavity(
    portrait: Image,
    x: Field,
    teeth_row: Field,
    teeth_length: Field,
    gap: Field,
    depth: Field,
) -> Field:
    """The inside of the mouth: upper teeth, darkness below them, a tongue in a wide one.

    Args:
        portrait: The astronaut, RGB.
        x: Column of each pixel.
        teeth_row: Row of the portrait that would be here if the teeth went on.
        teeth_length: Length of the visible teeth in each column.
        gap: Distance of the lips in each column.
        depth: Distance of each pixel from the upper lip.

    Returns:
        Colours, RGB 0..255.
    """
    teeth = _sample(portrait, x, teeth_row).astype(np.float32)
    below = _ramp((depth - 0.88 * teeth_length) * 0.9 + 0.5)
    tongue = _ramp((depth / np.maximum(gap, 1e-3) - 0.72) * 4) * _ramp((gap - 8) / 6)
    tongue = tongue * _bump(x, 206, 240)
    dark = np.array(DARK, np.float32) + tongue[..., None] * np.subtract(TONGUE, DARK).astype(
        np.float32
    )
    # Lips that almost touch show a dark line, lips far apart shade the teeth.
    shade = (0.35 + 0.65 * _ramp((gap - 0.5) / 2.5) - 0.25 * _ramp((gap - 7) / 9))[..., None]
    return np.asarray(teeth * shade * (1 - below[..., None]) + dark * below[..., None])
