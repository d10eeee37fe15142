"""Clips that are nothing alike, and copies of them, as members of shards: no codec but JPEG.

Pictures are a few blurred blobs that wander, sound is a mel of random bumps; both are drawn by a
seed, so that two seeds are strangers.
"""

import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline import PROFILES, format as shard_format
from tests.pipeline.fabricate import Members, make_members

GLCM = PROFILES["glcm"]
HEIGHT, WIDTH = 96, 128
FRAMES = 60
Pictures = npt.NDArray[np.uint8]
Mel = npt.NDArray[np.float32]


def pictures(seed: int, frames: int = FRAMES) -> Pictures:
    """(frames, 96, 128, 3) that change slowly."""
    rng = np.random.default_rng(seed)
    scene = rng.normal(size=(8, 6, 8)).astype(np.float32)
    times = np.linspace(0, len(scene) - 1.001, frames)
    found = []
    for time in times:
        first, share = int(time), time - int(time)
        small = (1 - share) * scene[first] + share * scene[first + 1]
        large = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        shaken = large + rng.normal() * 0.15  # brightness: what motion is known by
        found.append(np.clip(128 + 50 * shaken, 30, 250).astype(np.uint8))
    return np.repeat(np.stack(found)[..., None], 3, axis=-1)


def mel(seed: int, frames: int = FRAMES) -> Mel:
    """(80, 3 frames) of notes that come and go."""
    rng = np.random.default_rng(seed + 1000)
    coarse = rng.normal(size=(20, max(2, frames // 2))).astype(np.float32)
    return np.asarray(cv2.resize(3 * coarse, (3 * frames, 80)) - 4, np.float32)


def members(
    key: str, seed: int, change: Callable[[Pictures, Mel], tuple[Any, Any]] | None = None,
    **facts: Any,
) -> Members:  # fmt: skip
    """A sample of the profile glcm with these pictures and this sound, changed."""
    shown, heard = pictures(seed), mel(seed)
    if change is not None:
        shown, heard = change(shown, heard)
    made = make_members(GLCM, key, seconds=len(shown) / 10, face=False)
    meta = json.loads(made["json"])
    jpegs: list[bytes | None] = [shard_format.encode_jpeg(picture, 85) for picture in shown]
    made["frames.mjpeg"], meta["jpeg_sizes"]["frames"] = shard_format.join_jpegs(jpegs)
    made["mel.npy"] = shard_format.encode_npy(heard.astype(np.float16))
    meta["source"] |= {"sha1": f"{key} {seed}"}
    return {**made, "json": shard_format.encode_json({**meta, **facts})}


def rescaled(shown: Pictures, heard: Mel) -> tuple[Any, Any]:
    return np.stack(
        [cv2.resize(one, (80, 60), interpolation=cv2.INTER_AREA) for one in shown]
    ), heard


def mirrored(shown: Pictures, heard: Mel) -> tuple[Any, Any]:
    return shown[:, :, ::-1], heard


def letterboxed(shown: Pictures, heard: Mel) -> tuple[Any, Any]:
    return np.pad(shown, ((0, 0), (20, 20), (0, 0), (0, 0))), heard


def cropped(shown: Pictures, heard: Mel) -> tuple[Any, Any]:
    return shown[:, 2:-2, 3:-3], heard


def cut(shown: Pictures, heard: Mel) -> tuple[Any, Any]:
    """Two seconds later."""
    return shown[20:], heard[:, 60:]


def softer(shown: Pictures, heard: Mel) -> tuple[Any, Any]:
    """By 12 dB."""
    return shown, heard - 2.76


COPIES = {one.__name__: one for one in (rescaled, mirrored, letterboxed, cropped, cut, softer)}
