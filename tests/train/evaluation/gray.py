"""Clips of a face whose gray level is up to the test, frame by frame."""

import json
from collections.abc import Sequence

import numpy as np

from pipeline import format as shard_format
from tests.pipeline.fabricate import Members
from tests.train.evaluation.sets import FACES

STEP = 4
"""Gray levels between frames of a ramp."""


def ramp(members: Members) -> Members:
    """Frame k has the gray level 4 k, in the pictures, the face and the lips."""
    meta = json.loads(members["json"])
    return painted(members, [STEP * k for k in range(meta["frames"])])


def painted(members: Members, levels: Sequence[int | None]) -> Members:
    """Pictures of these gray levels; None: the crops of the frame are missing, its picture black.

    Crops of clips without a face stay away.
    """
    meta = json.loads(members["json"])
    height, crop = int(FACES.short_side or 0), FACES.crop_size
    for name in ("frames", "face", "lip"):
        shape = (height, 42, 3) if name == "frames" else (crop, crop, 3)
        jpegs = [
            None if level is None and name != "frames"
            else shard_format.encode_jpeg(np.full(shape, level or 0, np.uint8), 95)
            for level in levels
        ]  # fmt: skip
        if name == "frames" or meta["faces"]:
            members[f"{name}.mjpeg"], meta["jpeg_sizes"][name] = shard_format.join_jpegs(jpegs)
    return {**members, "json": shard_format.encode_json(meta)}
