"""The picture transforms of recipes: RGB (h, w, 3) in, RGB out, parameters as in the recipe.

They work on pictures of one size, `WORKING_SHORT_SIDE`, so that noise, blur and squares are as
strong on a phone's 240 lines as on 1080. What each parameter means: `manifests.recipes`.
"""

from collections.abc import Callable
from functools import lru_cache

import av
import cv2
import numpy as np

from pipeline.frame import UPRIGHT, Frame
from pipeline.planes import Picture, resize

WORKING_SHORT_SIDE = 256
_YELLOW, _BLACK = (255, 204, 51), (60, 40, 10)
_EMOJI_DRAWN_PIXELS = 512

PictureTransform = Callable[..., Picture]
"""(picture, chance, **parameters) -> picture."""


def framed(picture: Picture) -> Frame:
    """A picture as the frame that the rest of the road takes."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return Frame(frame, None, UPRIGHT)


def at_working_size(picture: Picture) -> Picture:
    """A picture that a transform has cropped or padded, at the size that the next one expects."""
    height, width = picture.shape[:2]
    scale = WORKING_SHORT_SIDE / min(height, width)
    return resize(picture, round(width * scale), round(height * scale))


def video_noise(picture: Picture, chance: np.random.Generator, *, level: float) -> Picture:
    """Gaussian noise of level / sqrt(3) on every value, as ffmpeg's `noise=alls=LEVEL:allf=t`."""
    noise = chance.standard_normal(picture.shape, np.float32) * np.float32(level / 3**0.5)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def blur(picture: Picture, chance: np.random.Generator, *, sigma_pixels: float) -> Picture:
    """Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_pixels), np.uint8)


def pixelize(picture: Picture, chance: np.random.Generator, *, ratio: float) -> Picture:
    """Averaged over blocks, each shown as one square."""
    height, width = picture.shape[:2]
    small = max(1, round(width * ratio)), max(1, round(height * ratio))
    blocks = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    squares = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(squares, np.uint8)


def emoji(
    picture: Picture,
    chance: np.random.Generator,
    *,
    size: float,
    x: float,
    y: float,
    opacity: float,
) -> Picture:
    """A smiley over the picture."""
    height, width = picture.shape[:2]
    side = max(2, round(size * min(height, width)))
    left, top = round(x * (width - side)), round(y * (height - side))
    face, cover = _smiley(side)
    covered = picture.copy()
    below = covered[top : top + side, left : left + side]
    share = opacity * cover[..., None]
    below[:] = np.rint(face * share + below * (1 - share)).astype(np.uint8)
    return covered


def crop(
    picture: Picture, chance: np.random.Generator, *, scale: float, x: float, y: float
) -> Picture:
    """A part of the picture, of the same shape."""
    height, width = picture.shape[:2]
    high, wide = max(2, round(height * scale)), max(2, round(width * scale))
    top, left = round(y * (height - high)), round(x * (width - wide))
    return picture[top : top + high, left : left + wide]


def pad(picture: Picture, chance: np.random.Generator, *, x: float, y: float) -> Picture:
    """Black borders."""
    across, down = int(x * picture.shape[1]), int(y * picture.shape[0])
    return np.pad(picture, ((down, down), (across, across), (0, 0)))


def rotate(picture: Picture, chance: np.random.Generator, *, degrees: float) -> Picture:
    """Turned clockwise about the middle, black corners, as ffmpeg's `rotate`."""
    height, width = picture.shape[:2]
    middle = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(middle, -degrees, 1.0)
    turned = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(turned, np.uint8)


PICTURE_TRANSFORMS: dict[str, PictureTransform] = {
    "video_noise": video_noise,
    "blur": blur,
    "pixelize": pixelize,
    "emoji": emoji,
    "crop": crop,
    "pad": pad,
    "rotate": rotate,
}
"""By the names of `manifests.recipes.TRANSFORMS`."""


@lru_cache(maxsize=4)
def _smiley(side: int) -> tuple[Picture, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """A smiling face of side x side pixels, and how far it covers what is below (0 to 1)."""
    drawn = _EMOJI_DRAWN_PIXELS
    middle, radius = drawn // 2, drawn // 2 - 2
    face = np.full((drawn, drawn, 3), _YELLOW, np.uint8)
    for across in (-1, 1):
        eye = middle + across * radius * 3 // 8, middle - radius // 4
        cv2.ellipse(face, eye, (radius // 9, radius // 6), 0, 0, 360, _BLACK, cv2.FILLED)
    mouth = middle, middle + radius // 10
    cv2.ellipse(face, mouth, (radius * 5 // 9, radius // 2), 0, 15, 165, _BLACK, radius // 10)
    cover = np.zeros((drawn, drawn), np.float32)
    cv2.circle(cover, (middle, middle), radius, 1.0, cv2.FILLED)
    small, share = (
        cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in (face, cover)
    )
    return np.asarray(small, np.uint8), np.asarray(share, np.float32)
