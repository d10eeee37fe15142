"""Shot changes between the pictures of the grid, from thumbnails of a few hundred pixels."""

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.frame import Frame
from pipeline.planes import Picture

THUMBNAIL = (32, 18)
SAMPLED_PIXELS = 96
"""The plane is strided down to about this many columns before it is averaged."""
CORRELATION_OF_A_CUT = 0.5
LEVELS_OF_A_CUT = 12.0
"""A cut changes structure *and* brightness; a flash keeps the structure, a pan the histogram."""


def is_cut(before: Frame, after: Frame) -> bool:
    """Whether two pictures that follow each other belong to different shots."""
    return _differ(_thumbnail(before.coded_luma), _thumbnail(after.coded_luma))


class ShotCounter:
    """Numbers the shots of a sequence of pictures from 0; it need not see all of them."""

    def __init__(self) -> None:
        self.shot = 0
        """The shot of the last picture seen."""
        self._last: npt.NDArray[np.float32] | None = None

    def begin(self, frame: Frame) -> None:
        """The picture before the next one that is seen."""
        self._last = _thumbnail(frame.coded_luma)

    def see(self, frame: Frame) -> bool:
        """Whether a new shot begins with this picture."""
        thumbnail = _thumbnail(frame.coded_luma)
        cut = self._last is not None and _differ(self._last, thumbnail)
        self._last = thumbnail
        self.shot += cut
        return cut


def _thumbnail(luma: Picture) -> npt.NDArray[np.float32]:
    step = max(1, luma.shape[1] // SAMPLED_PIXELS)
    sampled = np.ascontiguousarray(luma[::step, ::step])
    return cv2.resize(sampled, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)


def _differ(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    if float(np.abs(a - b).mean()) < LEVELS_OF_A_CUT:
        return False
    a, b = a - a.mean(), b - b.mean()
    energy = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return energy == 0 or float((a * b).sum()) / energy < CORRELATION_OF_A_CUT
