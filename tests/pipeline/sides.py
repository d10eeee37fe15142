"""Sets that fields are added to, the command, and what it made."""

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.add_field import FieldWish, add_field
from pipeline.config import ShardConfig
from pipeline.format import encode_flac, read_shard
from pipeline.job import JobOptions
from tests.pipeline.fabricate import Members, make_members, write_set

SOUND = ShardConfig("sound", Fraction(10), None, 22050, 24000, 1)
HEADS = ShardConfig("glcm", Fraction(10), 128, 22050)
FRAMES = 8
ONE = JobOptions(executor="local", workers=1)


def add(out: Path, field: str, job: JobOptions = ONE, **wish: Any) -> Any:
    return add_field(out, FieldWish(field, **wish), job, lambda *_: None)


def hashes(folder: Path) -> dict[str, str]:
    tars = sorted((folder / "shards").glob("*.tar"))
    return {tar.name: hashlib.sha256(tar.read_bytes()).hexdigest() for tar in tars}


def noise(frames: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((frames * 2400, 1))).astype(np.float32)


def sound_members(number: int, frames: int = 20, seed: int | None = None) -> Members:
    members = make_members(
        SOUND, f"demo/sound{number}", instance=number, seconds=frames / 10, face=False
    )
    wave = noise(frames, number if seed is None else seed)
    return {**members, "audio.flac": encode_flac(wave, 24000)}


def sounds(out: Path, shards: int = 2) -> Path:
    """Two clips a shard."""
    contents = [[sound_members(2 * s), sound_members(2 * s + 1)] for s in range(shards)]
    return write_set(out, SOUND, contents)


def index_of(out: Path, field: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "fields" / field / "shardindex.json").read_bytes())
    return found


def side_samples(out: Path, field: str) -> dict[str, Members]:
    tars = sorted((out / "fields" / field / "shards").glob("*.tar"))
    return {name: members for tar in tars for name, members in read_shard(tar)}
