"""A shard set -> its clips, what is known of each, and windows that cover it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from train.evaluation.clips import Look, looks_at, starts
from train.evaluation.labelled import Example
from train.index import ShardSet
from train.read import ShardReader


@dataclass(frozen=True)
class Clip:
    """What the JSON member of a sample says."""

    example: Example
    """The whole clip."""
    uri: str
    start_seconds: float
    """Of the first frame, from the first picture or sound of the file."""
    fps: float
    has_sound: bool
    """False where the file has no sound in this window: its mel is silence."""

    def seconds_at(self, frame: float) -> float:
        """A frame's time in the file."""
        return self.start_seconds + frame / self.fps


def clips_of(shard_set: ShardSet, rows: Sequence[int]) -> list[Clip]:
    """The clips of some rows, in their order.

    Raises:
        ShardError, StoreError: a tar is damaged, or cannot be reached.
    """
    reader = ShardReader(shard_set)
    try:
        return [_clip(shard_set, row, reader.read(row, ("json",)).meta) for row in rows]
    finally:
        reader.close()


def _clip(shard_set: ShardSet, row: int, meta: dict[str, Any]) -> Clip:
    source = meta.get("source") or {}
    known = [source.get(name) for name in ("video_start", "audio_start")]
    file_start = min((float(start) for start in known if start is not None), default=0.0)
    frames = int(meta["frames"])
    return Clip(
        Example(meta["key"], row, None, meta.get("group") or meta["key"], 0, frames),
        str(source.get("uri") or ""),
        float(meta["t0"]) - file_start,
        float(shard_set.fps),
        _has_sound(meta, frames / float(shard_set.fps)),
    )


def _has_sound(meta: dict[str, Any], seconds: float) -> bool:
    """Whether not all of the mel is silence that stands for missing sound."""
    missing = float(sum(end - start for start, end in meta.get("padded") or []))
    return missing < seconds - 1e-3


def covering(
    examples: Sequence[Example], frames: int, overlap: float, crops: int = 1
) -> list[Look]:
    """Windows at equal distances that reach from the first frame to the last.

    Args:
        examples: of which.
        frames: window; 0 is each example's own length. Shorter examples are repeated.
        overlap: share of a window that the next one sees again, at least, 0 <= overlap < 1.
        crops: 1 (centre) or 3 squares along the long side.
    """
    return looks_at(examples, frames, crops, lambda length, window: _cover(length, window, overlap))


def _cover(length: int, frames: int, overlap: float) -> list[int]:
    stride = max(1, math.floor(frames * (1 - overlap)))
    return starts(length, frames, math.ceil(max(length - frames, 0) / stride) + 1)


class Sums:
    """Values of frames that several windows have seen, to be averaged."""

    def __init__(self, frames: int, shape: tuple[int, ...]) -> None:
        """Nothing seen yet.

        Args:
            frames: of the clip, or of several one after the other.
            shape: of one frame's value.
        """
        self._sums = np.zeros((frames, *shape))
        self._counts = np.zeros(frames, np.int64)

    def add(self, places: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
        """Values (n, *shape) of the frames at `places` (n,), which may repeat."""
        np.add.at(self._sums, places, values)
        np.add.at(self._counts, places, 1)

    def mean(self) -> npt.NDArray[np.float32]:
        """(frames, *shape); NaN where nothing was seen."""
        counts = self._counts.reshape(-1, *[1] * (self._sums.ndim - 1))
        with np.errstate(invalid="ignore"):
            return (self._sums / counts).astype(np.float32)


def places_of(look: Look, example: Example) -> npt.NDArray[np.int64]:
    """The example's frames that a window shows; a short example is repeated."""
    return (look.start + np.arange(look.frames)) % example.frames
