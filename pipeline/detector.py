"""Where faces are and where their landmarks lie: dlib's HOG detector and 68-point predictor.

HOG has a size floor: a face must be about 75 pixels wide in the picture that is searched, and the
time grows with the pixels searched. So the scale is everything. A *look* searches the whole
picture at the scale its budget of pixels allows; *near* searches around a known box, scaled so
that the face is 80 pixels wide.

The measured cost is about 80 ms a megapixel for a look and 2 to 3 ms for `near`, on one core of a
Xeon with AVX-512.
"""

import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dlib
import numpy as np
import numpy.typing as npt

from pipeline.frame import Frame
from pipeline.planes import Picture, resize, whole_step

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in displayed pixels; x1 and y1 are just outside."""

MODEL_FILE = "shape_predictor_68_face_landmarks.dat"
MODEL_VARIABLE = "GLAV_LANDMARKS"
NEAR_FACE_PIXELS = 80.0
"""Width a known face is scaled to: the finest pyramid level sees 73 pixels, the next 87."""
SURE_SCORE = 0.0
"""dlib's own threshold."""
WEAK_SCORE = -0.4
"""Scores from here on count only together with a box that was there before. On 30 clips without
faces a look at this threshold raised less than one false proposal in a hundred."""


class ModelMissingError(FileNotFoundError):
    """The landmark model is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Detection:
    """One answer of the detector."""

    box: Box
    score: float
    """Distance from the decision border; above 0 is a face to dlib."""

    @property
    def width(self) -> float:
        """Displayed pixels."""
        return self.box[2] - self.box[0]


def landmarks_model_path(path: str | Path | None = None) -> Path:
    """The 68-point model: as given, from $GLAV_LANDMARKS, or of face_recognition_models.

    The package is located without importing it (it imports pkg_resources).

    Raises:
        ModelMissingError: there is no such file.
    """
    named = path or os.environ.get(MODEL_VARIABLE)
    spec = None if named else importlib.util.find_spec("face_recognition_models")
    if spec is not None and spec.origin is not None:
        named = Path(spec.origin).parent / "models" / MODEL_FILE
    if named is None or not Path(named).is_file():
        raise ModelMissingError(
            f"the landmark model {named or MODEL_FILE} is not there; install the package "
            f"face_recognition_models, or set {MODEL_VARIABLE} to a copy of {MODEL_FILE}"
        )
    return Path(named)


def look(frame: Frame, pixels: float) -> list[Detection]:
    """Faces of the whole picture scaled to so many pixels, weak ones included, best first."""
    scale = (pixels / (frame.width * frame.height)) ** 0.5
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    small = frame.small_gray(width, height)
    return _run(small, (frame.width / width, frame.height / height), (0, 0))


def near(frame: Frame, box: Box, margin: float) -> Detection | None:
    """The face around a known box, if it is still there.

    Args:
        frame: the picture to search.
        box: where the face was.
        margin: how far to search beyond the box, as a share of its size.
    """
    size = max(box[2] - box[0], box[3] - box[1])
    scale = NEAR_FACE_PIXELS / size
    step = whole_step(scale)
    x0, x1 = _span(box[0] - margin * size, box[2] + margin * size, frame.width, step)
    y0, y1 = _span(box[1] - margin * size, box[3] + margin * size, frame.height, step)
    if min(x1 - x0, y1 - y0) < size / 2:
        return None
    width, height = round((x1 - x0) * scale), round((y1 - y0) * scale)
    crop = np.ascontiguousarray(resize(frame.gray()[y0:y1, x0:x1], width, height))
    found = _run(crop, ((x1 - x0) / width, (y1 - y0) / height), (x0, y0))
    return next((face for face in found if _same_face(face, box)), None)


def _span(start: float, end: float, length: int, step: int) -> tuple[int, int]:
    """The whole steps of pixels of [start, end) that lie in [0, length)."""
    first, last = int(max(start, 0)), int(min(end + 1, length))
    return first, last - (last - first) % step


def _same_face(face: Detection, box: Box) -> bool:
    """A sure face may have moved; a weak one must be where the face was."""
    return overlap(face.box, box) > (0.3 if face.score >= SURE_SCORE else 0.5)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (areas - both)


def predict_landmarks(picture: Picture, box: Box) -> npt.NDArray[np.float32]:
    """(68, 2) landmarks in pixels of a gray or RGB picture, for the face in the box."""
    corners = (round(box[0]), round(box[1]), round(box[2]) - 1, round(box[3]) - 1)
    shape = _predictor()(picture, dlib.rectangle(*corners))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float32)


def _run(picture: Picture, step: tuple[float, float], origin: tuple[int, int]) -> list[Detection]:
    """All answers above the weak threshold in source pixels, best first."""
    rectangles, scores, _ = _detector().run(picture, 0, WEAK_SCORE)
    (sx, sy), (ox, oy) = step, origin
    found = [
        Detection((r.left() * sx + ox, r.top() * sy + oy, (r.right() + 1) * sx + ox,
                   (r.bottom() + 1) * sy + oy), float(score))
        for r, score in zip(rectangles, scores, strict=True)
    ]  # fmt: skip
    return sorted(found, key=lambda face: (-face.score, face.box))


@lru_cache(maxsize=1)
def _detector() -> Any:
    """Takes about 0.3 s once a process."""
    return dlib.get_frontal_face_detector()


@lru_cache(maxsize=1)
def _predictor() -> Any:
    """The model takes about a second and 100 MB, so it is loaded when a face is there."""
    return dlib.shape_predictor(str(landmarks_model_path()))
