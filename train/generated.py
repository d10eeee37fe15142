"""A shard set made of nothing, for trying a method where there are no shards yet.

A ball bounces over a plain ground; each bounce sounds. Colour and pitch belong to the clip, the
moment of the sound to the moment of the bounce, so that a method finds both what a clip is and when
something happens in it. The set is read by the same loader as every other one.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import format as shard_format
from pipeline.format import MEL_SLICES_PER_FRAME, N_MELS, SCHEMA_VERSION
from train.index import INDEX_NAME

FPS = 10
MEL_RATE_HZ = 22_050
MEMBERS = ("json", "frames.mjpeg", "mel.npy")
SILENCE = float(np.log(1e-5))
"""What the pipeline stores for no sound at all."""
LOUD = 2.0
CLASSES = 4
JPEG_QUALITY = 90


def write_generated_set(out: Path, clips: int, frames: int, short_side: int, seed: int = 0) -> Path:
    """A complete set of one shard.

    Args:
        out: the folder to be made.
        clips: how many.
        frames: length of each.
        short_side: pixels of the square pictures.
        seed: other clips with another one.
    """
    (out / "shards").mkdir(parents=True)
    buffer, rows = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(clips):
            rows.append(_add_clip(tar, number, frames, short_side, seed))
    (out / "shards/train-000000.tar").write_bytes(buffer.getvalue())
    pq.write_table(pa.Table.from_pylist(rows), out / "samples.parquet")
    _write_index(out, clips, short_side, len(buffer.getvalue()))
    return out


def _add_clip(
    tar: tarfile.TarFile, number: int, frames: int, side: int, seed: int
) -> dict[str, Any]:
    key = f"generated/clip{number:04d}"
    pictures, mel = bouncing_ball(frames, side, np.random.default_rng((seed, number)))
    jpegs = [shard_format.encode_jpeg(picture, JPEG_QUALITY) for picture in pictures]
    blob, sizes = shard_format.join_jpegs(jpegs)
    meta = {"schema": SCHEMA_VERSION, "key": key, "frames": frames, "jpeg_sizes": {"frames": sizes}}
    contents = (shard_format.encode_json(meta), blob, shard_format.encode_npy(mel))
    base, start = shard_format.base_name(key), tar.offset
    for extension, data in zip(MEMBERS, contents, strict=True):
        entry = tarfile.TarInfo(f"{base}.{extension}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return {
        "key": key, "base": base, "shard": "train-000000", "offset": start,
        "size": tar.offset - start, "instance": number, "frames": frames,
        "labels": [number % CLASSES], "splits": ["generated:train"],
    }  # fmt: skip


def bouncing_ball(
    frames: int, side: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """One clip.

    Returns:
        uint8 (T, side, side, 3) pictures and float16 (80, 3 T) log-mel power.
    """
    ground = rng.integers(0, 256, 3)
    ball = (ground + rng.integers(96, 160, 3)) % 256  # never the ground's colour
    period, phase, across = rng.uniform(5, 9), rng.uniform(), rng.uniform(0.2, 0.8)
    pitch = rng.integers(5, N_MELS - 5)
    along = (np.arange(frames) + 0.5) / period + phase  # in bounces; whole numbers are the floor
    height = 4 * (along % 1) * (1 - along % 1)
    y, x = np.mgrid[0:side, 0:side] / side
    inside = (x - across) ** 2 + (y - (0.85 - 0.7 * height[:, None, None])) ** 2 < 0.12**2
    pictures = np.where(inside[..., None], ball, ground).astype(np.uint8)

    slices = (np.arange(MEL_SLICES_PER_FRAME * frames) + 0.5) / MEL_SLICES_PER_FRAME
    since = ((slices / period + phase) % 1) * period  # frames since the last bounce
    loud = np.exp(-since)
    bands = np.exp(-(((np.arange(N_MELS) - pitch) / 3) ** 2))
    mel = SILENCE + (LOUD - SILENCE) * bands[:, None] * loud + rng.normal(0, 0.1, (N_MELS, 1))
    return pictures, mel.astype(np.float16)


def _write_index(out: Path, clips: int, short_side: int, tar_bytes: int) -> None:
    config = {
        "profile": "generated", "fps": f"{FPS}/1", "short_side": short_side,
        "mel_rate_hz": MEL_RATE_HZ,
    }  # fmt: skip
    index = {
        "schema": SCHEMA_VERSION,
        "name": "generated",
        "complete": True,
        "config": config,
        "config_hash": hashlib.sha256(json.dumps(config).encode()).hexdigest(),
        "members": list(MEMBERS),
        "instances": clips,
        "shardlist": [{"url": "shards/train-000000.tar", "nsamples": clips, "filesize": tar_bytes}],
    }
    (out / INDEX_NAME).write_text(json.dumps(index))
