"""The way a researcher would script it: the same members of a sample, with no thought of cost.

Two ffmpeg calls to pipes, one for the pictures at 10 a second and one for the sound; OpenCV for
resizing, crops and JPEG; librosa for the mel spectrogram; dlib's detector and landmarks on every
whole picture. It trusts the file: no timestamps, no odd sound, one face.
"""

import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import dlib
import librosa
import numpy as np
import numpy.typing as npt

from manifests.render import encode
from pipeline.detector import landmarks_model_path

FPS, SHORT_SIDE, CROP, RATE_HZ, HOP = 10, 128, 112, 22050, 735
QUALITY = 90
FACE_MARGIN = 0.25

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """What comes out, as the members of a tar."""

    members: dict[str, bytes]
    pictures: int
    faces: list[Points | None]
    """Landmarks (68, 2) of each picture in pixels of the source, None where no face was found."""
    mel: npt.NDArray[np.float32]
    """(80, slices)."""


def sample(path: Path, *, faces: bool, size: tuple[int, int]) -> Sample:
    """A clip's members.

    Args:
        path: the file.
        faces: whether to look for a face and cut it out.
        size: displayed width and height of the source.
    """
    pictures = _pictures(path, size)
    found = [landmarks(picture) if faces else None for picture in pictures]
    mel = log_mel(_sound(path))
    members = {"frames.mjpeg": b"".join(_jpeg(_small(picture)) for picture in pictures)}
    members["mel.npy"] = mel.astype(np.float16).tobytes()
    if faces:
        pairs = [(p, f) for p, f in zip(pictures, found, strict=True) if f is not None]
        members["landmarks.npy"] = b"".join(points.tobytes() for _, points in pairs)
        members["face.mjpeg"] = b"".join(_jpeg(_face(p, points)) for p, points in pairs)
        members["lip.mjpeg"] = b"".join(_jpeg(_lip(p, points)) for p, points in pairs)
    return Sample(members, len(pictures), found, mel)


def shard(path: Path, *, faces: bool, size: tuple[int, int]) -> bytes:
    """A tar of that one sample."""
    buffer = BytesIO()
    with tarfile.open(None, "w", buffer) as tar:
        for name, data in sample(path, faces=faces, size=size).members.items():
            entry = tarfile.TarInfo(f"{path.stem}.{name}")
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    return buffer.getvalue()


def landmarks(picture: Picture) -> Points | None:
    """The 68 landmarks of the first face dlib finds in a whole picture."""
    boxes = _detector()(picture, 0)
    if not boxes:
        return None
    shape = _predictor()(picture, boxes[0])
    return np.array([(point.x, point.y) for point in shape.parts()], np.float32)


def log_mel(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Librosa's spectrogram."""
    power = librosa.feature.melspectrogram(
        y=waveform, sr=RATE_HZ, n_fft=1024, hop_length=HOP, n_mels=80
    )
    return np.asarray(np.log(np.maximum(power, 1e-5)), np.float32)


def _pictures(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(T, h, w, 3) at 10 a second."""
    options = ["-vf", f"fps={FPS}", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    return np.frombuffer(_pipe(path, options), np.uint8).reshape(-1, size[1], size[0], 3)


def _sound(path: Path) -> npt.NDArray[np.float32]:
    options = ["-f", "s16le", "-ac", "1", "-ar", str(RATE_HZ)]
    samples = np.frombuffer(_pipe(path, options), np.int16)
    return np.asarray(samples / 32768, np.float32)


def _pipe(path: Path, options: list[str]) -> bytes:
    """What one ffmpeg call writes to its standard output."""
    command = [encode.program(), "-v", "error", "-nostdin", "-threads", "1", "-i", str(path)]
    return subprocess.run([*command, *options, "-"], capture_output=True, check=True).stdout


def _small(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    scale = SHORT_SIDE / min(width, height)
    size = round(width * scale), round(height * scale)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _face(picture: Picture, points: Points) -> Picture:
    """A square around the landmarks."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = CROP / ((1 + 2 * FACE_MARGIN) * (high - low).max())
    return _warped(picture, scale * np.eye(2), (low + high) / 2)


def _lip(picture: Picture, points: Points) -> Picture:
    """The lips, a third of the crop wide, eyes level."""
    eyes = points[45] - points[36]
    cosine, sine = eyes / np.linalg.norm(eyes)
    scale = CROP / 3 / np.linalg.norm(points[54] - points[48])
    turn = scale * np.array([[cosine, sine], [-sine, cosine]])
    return _warped(picture, turn, points[48:].mean(axis=0))


def _warped(picture: Picture, turn: npt.NDArray[Any], centre: npt.NDArray[Any]) -> Picture:
    matrix = np.column_stack([turn, CROP / 2 - turn @ centre])
    return np.asarray(cv2.warpAffine(picture, matrix, (CROP, CROP)), np.uint8)


def _jpeg(picture: Picture) -> bytes:
    blue_first = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def load_models() -> None:
    """Load what takes a second, so that no clip pays for it."""
    _detector()
    _predictor()


@cache
def _detector() -> Any:
    return dlib.get_frontal_face_detector()


@cache
def _predictor() -> Any:
    return dlib.shape_predictor(str(landmarks_model_path()))
