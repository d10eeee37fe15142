"""Faces of stored frames: crops and landmarks of one clip, as sharp as its frames are stored.

The detector, tracks and crops are those of the shard job; only the pictures are smaller than the
source's. Coordinates are the source's all the same, as in the JSON of every sample.
"""

from dataclasses import replace
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from pipeline import format as shard_format
from pipeline.config import ShardConfig
from pipeline.faces import FaceFollower, FaceTrack
from pipeline.fields import FieldConfig
from pipeline.frame import Frame

Scale = npt.NDArray[np.float64]
"""Source pixels a stored pixel, in x and y."""


def face_member(
    config: FieldConfig, meta: dict[str, Any], blob: bytes, point: tuple[float, float] | None
) -> tuple[bytes, dict[str, Any]]:
    """The member of a face's field, and what its JSON says of it.

    Args:
        config: which field.
        meta: JSON of the sample.
        blob: its `frames.mjpeg`.
        point: AVSpeech's, as the shard job has it.

    Raises:
        FormatError: the stored frames cannot be read.
    """
    jpegs = shard_format.split_jpegs(blob, meta["jpeg_sizes"]["frames"])
    if len(jpegs) != meta["frames"] or None in jpegs:
        raise shard_format.FormatError(f"{len(jpegs)} pictures for {meta['frames']} frames")
    track = _track(config, [jpeg for jpeg in jpegs if jpeg], point)
    width, height = meta["frame_size"]
    scale = np.array([meta["source"]["width"] / width, meta["source"]["height"] / height])
    data, sizes = _member(config, track, scale)
    return data, {
        "stored_size": meta["frame_size"],
        "enlarged": _enlarged(config, track),
        "jpeg_sizes": sizes,
        "faces": [_told(track, scale)] if track else [],
    }


def face_config(config: FieldConfig) -> ShardConfig:
    """How faces are looked for: everywhere, one track."""
    return replace(config.base, faces="on", face_tracks=1, lips=config.kind == "lip")


def _track(
    config: FieldConfig, jpegs: list[bytes], point: tuple[float, float] | None
) -> FaceTrack | None:
    """The best face; a picture that is stored twice in a row is one picture."""
    follower = FaceFollower(face_config(config), config.base.fps, point)
    decoder = _PictureDecoder()
    frame: Frame | None = None
    for tick, jpeg in enumerate(jpegs):
        if frame is None or jpeg != jpegs[tick - 1]:
            frame = decoder.frame(jpeg)
        follower.see(tick, frame)
    tracks = follower.finish(len(jpegs))
    return tracks[0] if tracks else None


class _PictureDecoder:
    """JPEG -> Frame with its planes as they are stored: no colour is converted twice."""

    def __init__(self) -> None:
        self._context: Any = av.CodecContext.create("mjpeg", "r")
        self._context.thread_count = 1

    def frame(self, jpeg: bytes) -> Frame:
        """One picture.

        Raises:
            FormatError: it is none.
        """
        shard_format.check_jpeg(jpeg)
        try:
            pictures = self._context.decode(av.Packet(jpeg))
        except av.error.FFmpegError as error:
            raise shard_format.FormatError(f"a stored frame is no picture: {error}") from error
        if len(pictures) != 1:
            raise shard_format.FormatError("a stored frame is not one picture")
        return Frame(pictures[0])


def _to_source(points: npt.NDArray[Any], scale: Scale) -> npt.NDArray[np.float32]:
    """Pixel indices: (0, 0) is the centre of the first pixel in both."""
    return np.asarray((points + 0.5) * scale - 0.5, np.float32)


def _told(track: FaceTrack, scale: Scale) -> dict[str, Any]:
    """An entry of `faces`, as in the JSON of a sample."""
    sides = np.concatenate([scale, scale])
    return {
        "track": 0,
        "box": [None if b is None else np.round(b * sides, 2).tolist() for b in track.boxes],
        "score": track.scores,
        "state": track.states,
        "face_transform": [_of_source(matrix, scale) for matrix in track.face_transforms],
        "lip_transform": [_of_source(matrix, scale) for matrix in track.lip_transforms],
        "chosen_by": track.chosen_by,
    }


def _of_source(matrix: list[list[float]] | None, scale: Scale) -> list[list[float]] | None:
    """A transform of stored pixels as one of source pixels."""
    if matrix is None:
        return None
    x, y = 1 / scale
    to_stored = np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])
    rows: list[list[float]] = np.round(np.array(matrix) @ to_stored, 6).tolist()
    return rows


def _enlarged(config: FieldConfig, track: FaceTrack | None) -> float | None:
    """Pixels of a crop for each stored pixel, the middle over the clip: above 1 it is blurred."""
    if track is None or config.kind == "landmarks":
        return None
    of = track.lip_transforms if config.kind == "lip" else track.face_transforms
    areas = [abs(float(np.linalg.det(np.array(m)[:, :2]))) for m in of if m is not None]
    return round(float(np.sqrt(np.median(areas))), 3)


def _member(
    config: FieldConfig, track: FaceTrack | None, scale: Scale
) -> tuple[bytes, dict[str, list[int]]]:
    """The member itself, and the sizes of its pictures."""
    if config.kind == "landmarks":
        points = np.empty((0, 68, 2)) if track is None else track.landmarks
        return shard_format.encode_npy(_to_source(points, scale)), {}
    jpegs: list[bytes | None] = []
    if track is not None:
        jpegs = track.lip_jpegs if config.kind == "lip" else track.face_jpegs
    data, sizes = shard_format.join_jpegs(jpegs)
    return data, {config.field: sizes}
