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


def write_generated_set(
    out: Path,
    clips: int,
    frames: int,
    short_side: int,
    seed: int = 0,
    *,
    fps: int = FPS,
    wave: tuple[int, int] | None = None,
) -> Path:
    """A complete set of one shard.

    Args:
        out: the folder to be made.
        clips: how many.
        frames: length of each.
        short_side: pixels of the square pictures.
        seed: other clips with another one.
        fps: frames a second.
        wave: rate in Hz and channels of the waveforms; None stores none.
    """
    (out / "shards").mkdir(parents=True)
    buffer, rows = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(clips):
            made = _clip_members(number, frames, short_side, seed, fps, wave)
            rows.append(_add_clip(tar, number, frames, made))
    (out / "shards/train-000000.tar").write_bytes(buffer.getvalue())
    pq.write_table(pa.Table.from_pylist(rows), out / "samples.parquet")
    config = {
        "profile": "generated", "fps": f"{fps}/1", "short_side": short_side,
        "mel_rate_hz": MEL_RATE_HZ, "waveform_rate_hz": wave and wave[0],
        "waveform_channels": wave[1] if wave else 0,
    }  # fmt: skip
    _write_index(out, clips, config, len(buffer.getvalue()))
    return out


def _clip_members(
    number: int, frames: int, side: int, seed: int, fps: int, wave: tuple[int, int] | None
) -> dict[str, bytes]:
    """A sample by extension."""
    rng = np.random.default_rng((seed, number))
    pictures, mel = bouncing_ball(frames, side, rng)
    jpegs = [shard_format.encode_jpeg(picture, JPEG_QUALITY) for picture in pictures]
    blob, sizes = shard_format.join_jpegs(jpegs)
    meta = {
        "schema": SCHEMA_VERSION, "key": _key(number), "frames": frames, "fps": f"{fps}/1",
        "waveform_rate_hz": wave and wave[0], "jpeg_sizes": {"frames": sizes},
    }  # fmt: skip
    members = {
        "json": shard_format.encode_json(meta),
        "frames.mjpeg": blob,
        "mel.npy": shard_format.encode_npy(mel),
    }
    if wave is not None:
        sound = bounces(mel, frames * wave[0] // fps, wave[0], rng)
        members["audio.flac"] = shard_format.encode_flac(np.repeat(sound, wave[1], 1), wave[0])
    return members


def bounces(
    mel: npt.NDArray[np.float16], samples: int, rate_hz: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A waveform (samples, 1) as loud as a mel at each time: a tone of the clip's own pitch."""
    loud = np.exp(mel.astype(np.float64).max(0) / 2 - LOUD / 2)
    envelope = np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, len(loud)), loud)
    tone = np.sin(2 * np.pi * rng.uniform(200, 4000) / rate_hz * np.arange(samples))
    sound: npt.NDArray[np.float32] = (0.5 * envelope * tone)[:, None].astype(np.float32)
    return sound


def _key(number: int) -> str:
    return f"generated/clip{number:04d}"


def _add_clip(
    tar: tarfile.TarFile, number: int, frames: int, members: dict[str, bytes]
) -> dict[str, Any]:
    base, start = shard_format.base_name(_key(number)), tar.offset
    for extension, data in members.items():
        entry = tarfile.TarInfo(f"{base}.{extension}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return {
        "key": _key(number), "base": base, "shard": "train-000000", "offset": start,
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


def _write_index(out: Path, clips: int, config: dict[str, Any], tar_bytes: int) -> None:
    index = {
        "schema": SCHEMA_VERSION,
        "name": "generated",
        "complete": True,
        "config": config,
        "config_hash": hashlib.sha256(json.dumps(config).encode()).hexdigest(),
        "members": [*MEMBERS, *(["audio.flac"] if config["waveform_rate_hz"] else [])],
        "instances": clips,
        "shardlist": [{"url": "shards/train-000000.tar", "nsamples": clips, "filesize": tar_bytes}],
    }
    (out / INDEX_NAME).write_text(json.dumps(index))
