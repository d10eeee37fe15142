"""Loading as one would write it in an afternoon, twice: what the loader is compared with.

`Mp4Clips` is a Dataset that decodes the video files themselves on the fly; `jpeg_tar` and
`jpeg_clips` keep one JPEG a tar member and read it with plain webdataset. Both give what our
loader gives: a random window as uint8 (frames, side, side, 3), and its mel as float16.
"""

import io
import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import webdataset
from torch.utils.data import DataLoader, Dataset

from bench.naive import FPS, RATE_HZ, SHORT_SIDE, log_mel

Pair = tuple[torch.Tensor, torch.Tensor]
SLICES = 3
"""Of the mel, a frame."""


class Mp4Clips(Dataset[Pair]):
    """A window of each file, decoded when it is asked for."""

    def __init__(self, paths: Sequence[Path], frames: int) -> None:
        """Opens nothing yet."""
        self._paths, self._frames = list(paths), frames

    def __len__(self) -> int:
        """Files."""
        return len(self._paths)

    def __getitem__(self, number: int) -> Pair:
        """All of the sound is decoded, and pictures up to the end of the window."""
        with av.open(str(self._paths[number])) as container:
            mel = log_mel(_sound(container))
        with av.open(str(self._paths[number])) as container:
            seconds = float(container.duration or 0) / av.time_base
            start = _start(min(int(seconds * FPS), mel.shape[1] // SLICES) - 1, self._frames)
            video = _pictures(container, start, self._frames)
        part = mel[:, SLICES * start : SLICES * (start + self._frames)]
        return torch.from_numpy(video), torch.from_numpy(part.astype(np.float16))


def _start(frames: int, window: int) -> int:
    return int(torch.randint(max(frames - window, 0) + 1, ()))


def _pictures(container: Any, start: int, count: int) -> Any:
    """The picture on screen at the middle of each tenth of a second, square."""
    wanted = [(start + k + 0.5) / FPS for k in range(count)]
    chosen: list[Any] = []
    last = None
    for frame in container.decode(video=0):
        while len(chosen) < count and last is not None and frame.time > wanted[len(chosen)]:
            chosen.append(_square(last.to_ndarray(format="rgb24")))
        if len(chosen) == count:
            break
        last = frame
    while last is not None and len(chosen) < count:
        chosen.append(_square(last.to_ndarray(format="rgb24")))
    return np.stack(chosen)


def _square(picture: Any) -> Any:
    height, width, _ = picture.shape
    scale = SHORT_SIDE / min(height, width)
    size = (max(round(width * scale), SHORT_SIDE), max(round(height * scale), SHORT_SIDE))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return _centre(small)


def _centre(picture: Any) -> Any:
    top, left = ((length - SHORT_SIDE) // 2 for length in picture.shape[:2])
    return picture[top : top + SHORT_SIDE, left : left + SHORT_SIDE]


def _sound(container: Any) -> Any:
    """The whole track, mono, at the rate of the mel."""
    resampler = av.AudioResampler("fltp", "mono", RATE_HZ)
    frames = itertools.chain(container.decode(audio=0), [None])  # None empties the resampler
    parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
    return np.concatenate(parts)


# --- one JPEG a member --------------------------------------------------------------------------


def jpeg_tar(path: Path, clips: Sequence[tuple[str, Sequence[bytes], bytes]]) -> Path:
    """Write a tar of `KEY.0000.jpg`, `KEY.0001.jpg`, ..., `KEY.mel.npy`, `KEY.json`.

    Args:
        path: of the tar.
        clips: key, JPEGs and `.npy` of each.
    """
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, jpegs, mel in clips:
            for name, data in [
                *((f"{number:04d}.jpg", jpeg) for number, jpeg in enumerate(jpegs)),
                ("mel.npy", mel),
                ("json", json.dumps({"key": key}).encode()),
            ]:
                entry = tarfile.TarInfo(f"{key}.{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return path


def jpeg_clips(path: Path, frames: int) -> Any:
    """The tar as an iterable data set; only the JPEGs of the window are decoded."""

    def window(sample: dict[str, Any]) -> Pair:
        names = sorted(name for name in sample if name.endswith(".jpg"))
        start = _start(len(names), frames)
        jpegs = [np.frombuffer(sample[n], np.uint8) for n in names[start : start + frames]]
        video = np.stack([_centre(cv2.imdecode(j, cv2.IMREAD_COLOR_RGB)) for j in jpegs])
        mel = np.load(io.BytesIO(sample["mel.npy"]))
        part = mel[:, SLICES * start : SLICES * (start + frames)]
        return torch.from_numpy(video), torch.from_numpy(np.ascontiguousarray(part))

    return webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False).map(window)


def batches(clips: Any, batch: int, count: int) -> Iterator[list[torch.Tensor]]:
    """`count` batches by torch's own DataLoader with one worker."""
    loader: Any = DataLoader(clips, batch, num_workers=1)
    yield from itertools.islice(loader, count)
