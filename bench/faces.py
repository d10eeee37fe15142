"""Following faces against detecting them on every whole picture: as many, as good, how much faster.

What is as good as can be is told by dlib itself: its answers on the same pictures scaled by 0.9
differ from its answers on the pictures as they are by what we call its noise.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from bench import naive, ours
from bench.goals import Measured
from bench.media import Media
from bench.naive import Points
from bench.stopwatch import timed
from pipeline.clock import Grid
from pipeline.config import Limits
from pipeline.faces import FaceFollower, FaceTrack
from pipeline.frame import Frame
from pipeline.media import open_media
from pipeline.video import Decoder, show, timeline

FPS = 10
SCALED = 0.9
ROUNDS = 3


def measure(media: Media) -> list[Measured]:
    """Coverage, error and speed on one file.

    Boxes filled between two detections count as found, and are marked as filled in a sample; the
    error, which is compared with dlib's own, is of what was detected.
    """
    frames = pictures(media.path)
    luma = [frame.gray() for frame in frames]
    found: list[Points | None] = []
    slow = timed(lambda: found.extend(naive.landmarks(picture) for picture in luma))
    noisy = [_rescaled(picture) for picture in luma]
    quick = min(timed(lambda: follow(frames)) for _ in range(ROUNDS))
    track = follow(frames)[0]
    mine, detected = _points(track), _points(track, ("detected",))
    noise = error(found, noisy)
    facts: dict[str, Any] = {
        "pictures": len(frames),
        "states": dict(Counter(track.states)),
        "noise": noise,
        "error": error(found, detected),
        "error, filled included": error(found, mine),
    }
    facts["cpu_ms_a_picture"] = {
        "ours, crops included": round(1e3 * quick / len(frames), 2),
        "every whole picture, no crops": round(1e3 * slow / len(frames), 2),
    }
    return [
        Measured("coverage", media.name, coverage(found, mine), coverage(found, noisy), facts),
        Measured("error", media.name, error(found, detected) / noise),
        Measured("faster", media.name, slow / quick, 1.0),
    ]


def pictures(path: Path) -> list[Frame]:
    """The pictures of a clip at 10 a second."""
    with open_media(path, Limits()) as media:
        packets = media.read(media.start, None)["video"]
        line = timeline(packets)
        seconds = line.extent.end - line.extent.start
        grid = Grid(line.extent.start, ours.config("on").fps, int(seconds * FPS))
        return [shown.frame for shown in show(Decoder(packets), line, [grid])]


def follow(frames: Sequence[Frame]) -> list[FaceTrack]:
    """What the pipeline does with them: boxes, landmarks, face and lip crops."""
    follower = FaceFollower(ours.config("auto"), FPS)
    for tick, frame in enumerate(frames):
        follower.see(tick, frame)
    return follower.finish(len(frames))


def coverage(wanted: Sequence[Points | None], found: Sequence[Points | None]) -> float:
    """Share of the pictures with a face in `wanted` that have one in `found`."""
    there = [b is not None for a, b in zip(wanted, found, strict=True) if a is not None]
    return sum(there) / max(1, len(there))


def error(wanted: Sequence[Points | None], found: Sequence[Points | None]) -> float:
    """Mean distance of landmarks where both have them, in distances between outer eye corners."""
    pairs = [(a, b) for a, b in zip(wanted, found, strict=True) if a is not None and b is not None]
    errors = [
        np.linalg.norm(a - b, axis=1).mean() / np.linalg.norm(a[45] - a[36]) for a, b in pairs
    ]
    return float(np.mean(errors)) if errors else float("nan")


def _rescaled(picture: npt.NDArray[np.uint8]) -> Points | None:
    """Dlib's answer on the picture scaled by 0.9, in pixels of the picture as it is."""
    small = cv2.resize(picture, None, fx=SCALED, fy=SCALED, interpolation=cv2.INTER_AREA)
    points = naive.landmarks(np.asarray(small, np.uint8))
    return None if points is None else (points + 0.5) / np.float32(SCALED) - 0.5


def _points(
    track: FaceTrack, states: Collection[str] = ("detected", "filled")
) -> list[Points | None]:
    pairs = zip(track.landmarks, track.states, strict=True)
    return [points if state in states else None for points, state in pairs]
