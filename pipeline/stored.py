"""A finished track as it is stored: boxes, states, landmarks and crops for every tick."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline import crops, detector
from pipeline.config import ShardConfig
from pipeline.crops import Matrix, Patch
from pipeline.detector import Box
from pipeline.format import N_LANDMARKS, encode_jpeg
from pipeline.tracks import Track, filled_boxes


@dataclass(frozen=True)
class FaceTrack:
    """One face of a clip; every list has one entry a tick. Coordinates: displayed pixels."""

    boxes: list[list[float] | None]
    """[x0, y0, x1, y1]."""
    scores: list[float | None]
    """Of the detector; None where the box is filled or there is none."""
    states: list[str]
    """`detected`, `filled` between two detections, or `none`."""
    landmarks: npt.NDArray[np.float32]
    """(T, 68, 2), NaN where there is no face."""
    chosen_by: str
    """`point` or `largest`."""
    face_jpegs: list[bytes | None] = field(repr=False)
    lip_jpegs: list[bytes | None] = field(repr=False)
    """Empty where the config stores no lips."""
    face_transforms: list[list[list[float]] | None] = field(repr=False)
    """2x3, source to crop, pixel centres at whole numbers."""
    lip_transforms: list[list[list[float]] | None] = field(repr=False)
    """Likewise; all None where the config stores no lips."""


def stored_track(
    track: Track, chosen_by: str, frames: int, config: ShardConfig, fps: float, longest_gap: int
) -> FaceTrack:
    """Fill gaps, predict landmarks and cut the crops of a track."""
    found = track.detections(frames)
    filled = filled_boxes(track, frames, longest_gap)
    boxes: dict[int, Box] = filled | {tick: face.box for tick, face in found.items()}
    patches = {tick: track.sights[tick].patch for tick in sorted(boxes)}
    landmarks = _landmarks(patches, boxes, frames)
    shots = np.array([track.sights[t].shot if t in boxes else -1 for t in range(frames)], np.int64)
    sigma = crops.SMOOTHING_SECONDS * fps
    face = crops.face_transforms(_rows(boxes, frames), shots, config.crop_size, sigma)
    lip = np.full((frames, 2, 3), np.nan)
    if config.lips:
        lip = crops.lip_transforms(landmarks, shots, config.crop_size, sigma)
    return FaceTrack(
        boxes=[_rounded(boxes.get(t)) for t in range(frames)],
        scores=[round(found[t].score, 4) if t in found else None for t in range(frames)],
        states=[_state(t in found, t in filled) for t in range(frames)],
        landmarks=landmarks,
        chosen_by=chosen_by,
        face_jpegs=_jpegs(patches, face, config),
        lip_jpegs=_jpegs(patches, lip, config) if config.lips else [],
        face_transforms=_lists(face),
        lip_transforms=_lists(lip),
    )


def _state(is_detected: bool, is_filled: bool) -> str:
    return "detected" if is_detected else "filled" if is_filled else "none"


def _landmarks(
    patches: dict[int, Patch], boxes: dict[int, Box], frames: int
) -> npt.NDArray[np.float32]:
    """(T, 68, 2), predicted on the patches and taken back to the source."""
    landmarks = np.full((frames, N_LANDMARKS, 2), np.nan, np.float32)
    for tick, patch in patches.items():
        scale, shift = patch.from_source[:, :2].diagonal(), patch.from_source[:, 2]
        corners = (np.reshape(boxes[tick], (2, 2)) - 0.5) * scale + shift + 0.5
        x0, y0, x1, y1 = corners.ravel().tolist()
        points = detector.predict_landmarks(patch.picture().luma, (x0, y0, x1, y1))
        landmarks[tick] = (points - shift) / scale
    return landmarks


def _rows(boxes: dict[int, Box], frames: int) -> Matrix:
    rows = np.full((frames, 4), np.nan)
    for tick, box in boxes.items():
        rows[tick] = box
    return rows


def _jpegs(
    patches: dict[int, Patch], transforms: Matrix, config: ShardConfig
) -> list[bytes | None]:
    """One JPEG a tick that has a patch."""
    jpegs: list[bytes | None] = [None] * len(transforms)
    for tick, patch in patches.items():
        crop = crops.cut(patch, transforms[tick], config.crop_size)
        jpegs[tick] = encode_jpeg(crop, config.jpeg_quality)
    return jpegs


def _rounded(box: Box | None) -> list[float] | None:
    return None if box is None else [round(side, 2) for side in box]


def _lists(transforms: Matrix) -> list[list[list[float]] | None]:
    """Six digits: a hundredth of a pixel over 4096 of them."""
    seen = np.asarray(np.isfinite(transforms).all(axis=(1, 2)))
    return [
        np.round(transform, 6).tolist() if ok else None
        for transform, ok in zip(transforms, seen, strict=True)
    ]
