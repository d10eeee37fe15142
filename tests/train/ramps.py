"""Small shard sets whose pictures and sound say when they are.

Frame k of a clip has gray level `GRAY_STEP * k`, and slice s of its mel has the value s in every
band, so that a window tells where it was cut. The clips of a set are told apart by instance id.
"""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline import format as shard_format
from pipeline.config import ShardConfig
from tests.pipeline.fabricate import Members, edit_json, make_members, write_set
from train.batch import Batch
from train.cache import Cache
from train.cuts import Reads
from train.mixture import Mixture, open_mixture, parse_shards

SIDE, WIDTH = 32, 42
GRAY_STEP = 4
CONFIG = ShardConfig("glcm", Fraction(10), SIDE, 22050)


def ramp(key: str, instance: int, frames: int, config: ShardConfig = CONFIG) -> Members:
    """One clip."""
    members = make_members(config, key, instance=instance, seconds=frames / 10, face=False)
    meta = json.loads(members["json"])
    jpegs = [
        shard_format.encode_jpeg(np.full((SIDE, WIDTH, 3), GRAY_STEP * k, np.uint8), 90)
        for k in range(frames)
    ]
    members["frames.mjpeg"], meta["jpeg_sizes"]["frames"] = shard_format.join_jpegs(jpegs)
    slices = np.arange(3 * frames, dtype=np.float16)
    members["mel.npy"] = shard_format.encode_npy(np.repeat(slices[None], 80, 0))
    return {**members, "json": shard_format.encode_json(meta)}


def ramp_set(
    out: Path, *, shards: int = 2, clips: int = 4, frames: int = 30, name: str = "demo"
) -> Path:
    """`shards` shards of `clips` clips each; keys NAME/clip000, ..."""
    contents = [
        [
            ramp(f"{name}/clip{shard * clips + i:03d}", shard * clips + i, frames)
            for i in range(clips)
        ]
        for shard in range(shards)
    ]
    return ramp_set_of(out, contents, name)


def ramp_set_of(
    out: Path, contents: list[list[Members]], name: str = "demo", config: ShardConfig = CONFIG
) -> Path:
    """A set of these clips, with the list of members the pipeline notes."""
    write_set(out, config, contents)
    title = f"{name}-{config.profile}"
    edit_json(out / "shardindex.json", members=list(config.members), name=title)
    return out


def mixture_of(
    text: str, frames: int = 8, cache: Cache | None = None, **options: object
) -> Mixture:
    sources = parse_shards(text, Path("data"), allow_http=True, cache=cache)
    return open_mixture(sources, reads=Reads(frames, frames), **options)  # type: ignore[arg-type]


def mel_of(batch: Batch) -> Tensor:
    """The mel of a batch that has one."""
    assert batch.mel is not None
    return batch.mel
