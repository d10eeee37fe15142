"""The loader: clips a CPU second on one core, against plain ways to the same windows.

A set of `CLIPS` copies of one file is made by the pipeline itself. Each way reads batches of
windows with one worker process; the seconds are those of worker and main process together, so that
handing a batch over counts as well.
"""

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from torch import Tensor

from bench import plainload
from bench.goals import Measured
from bench.media import Media
from bench.stopwatch import Way, interleaved
from pipeline.format import split_jpegs
from stores.local import LocalStore
from train.cache import Cache
from train.cuts import Reads
from train.index import open_shards
from train.loader import ClipLoader
from train.mixture import open_mixture, parse_shards
from train.plan import Plan
from train.read import FRAMES, MEL, ShardReader

CLIPS = 16
"""Copies of the file, and clips a batch."""
WINDOW_FRAMES = 32
BATCHES = {"ours": 16, "jpegs": 16, "members": 8, "mp4": 1}
"""Of each way, so many that starting a worker weighs little."""


def measure(media: Media, folder: Path, repeats: int) -> list[Measured]:
    """Clips a second of ours and of both plain ways; `folder` keeps the sets."""
    files = copies(media, folder / media.path.stem)
    shards = _shards(files[0].parent, folder / f"{media.path.stem}-glcm")
    tar = _jpeg_tar(shards, folder / f"{media.path.stem}-jpegs.tar")
    ways: dict[str, Way] = {
        "ours": partial(use, ours(shards, BATCHES["ours"])),
        "jpegs": partial(_decode, shards, CLIPS * BATCHES["jpegs"]),
        "members": partial(_plain, partial(plainload.jpeg_clips, tar), BATCHES["members"]),
        "mp4": partial(_plain, partial(plainload.Mp4Clips, files), BATCHES["mp4"]),
    }
    spent = interleaved(ways, repeats)
    rate = {way: CLIPS * BATCHES[way] / min(seconds) for way, seconds in spent.items()}
    rounds = {way: [round(s, 4) for s in seconds] for way, seconds in spent.items()}
    facts = {
        "clips_a_cpu_second": {way: round(value, 2) for way, value in rate.items()},
        "rounds": rounds,
        "clips_a_round": {way: CLIPS * count for way, count in BATCHES.items()},
        "made": media.made,
    }
    return [
        Measured("loader", media.name, rate["ours"], rate["mp4"], facts),
        Measured("loader members", media.name, rate["ours"] / rate["members"]),
        Measured("loader jpegs", media.name, rate["jpegs"]),
    ]


def ours(
    shards: Path | str, batches: int, workers: int = 1, cache: Cache | None = None
) -> ClipLoader:
    """Our loader, set to so many batches an epoch: the set is gone through as often."""
    sources = parse_shards(f"{shards}@w={batches}", Path("data"), cache=cache)
    mixture = open_mixture(sources, reads=Reads(WINDOW_FRAMES, WINDOW_FRAMES))
    return ClipLoader(Plan(mixture, 0, CLIPS), workers)


def use(loader: ClipLoader, epoch: int = 0) -> None:
    """An epoch, every batch looked at; the worker ends with it, so that its seconds count."""
    _look(batch.video for batch in loader.one_epoch(epoch))


def _plain(clips: Callable[..., Any], batches: int) -> None:
    """The same with torch's own loader."""
    data = clips(WINDOW_FRAMES)
    one = data.repeat(batches) if hasattr(data, "repeat") else data
    _look(video for video, _mel in plainload.batches(one, CLIPS, batches))


def _decode(shards: Path, clips: int) -> None:
    """Nothing but the decoder, on the JPEGs of as many windows: what no loader can be below."""
    reader = ShardReader(open_shards(LocalStore(shards)))
    clip = reader.read(0)
    reader.close()
    jpegs = split_jpegs(clip.members[FRAMES], clip.meta["jpeg_sizes"]["frames"])[:WINDOW_FRAMES]
    scratch = np.empty(3 * math.prod(clip.meta["frame_size"]), np.uint8)
    for _ in range(clips):
        for jpeg in jpegs:
            simplejpeg.decode_jpeg(jpeg, buffer=scratch)


def _look(videos: Iterable[Tensor]) -> None:
    """Touch every picture, as whoever copies a batch to a device does."""
    for video in videos:
        video.clone()


def copies(media: Media, folder: Path) -> list[Path]:
    """The file so many times, under other names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip{number:02d}{media.path.suffix}" for number in range(CLIPS)]
    for path in paths:
        if not path.exists():
            shutil.copyfile(media.path, path)
    return paths


def _shards(clips: Path, out: Path) -> Path:
    """What the pipeline makes of them with the profile `glcm`; kept from an earlier call."""
    if not (out / "shardindex.json").exists():
        command = ["-m", "pipeline", "shards", "--dataset", "folder", "--root", str(clips)]
        command += ["--out", str(out), "--profile", "glcm", "--executor", "local"]
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return out


def _jpeg_tar(shards: Path, path: Path) -> Path:
    """The very same JPEGs and mels as one member each."""
    if not path.exists():
        shard_set = open_shards(LocalStore(shards))
        reader = ShardReader(shard_set)
        clips = []
        for row in range(len(shard_set)):
            clip = reader.read(row)
            jpegs = split_jpegs(clip.members[FRAMES], clip.meta["jpeg_sizes"]["frames"])
            whole = [jpeg for jpeg in jpegs if jpeg is not None]
            clips.append((clip.meta["key"].replace("/", "--"), whole, clip.members[MEL]))
        reader.close()
        plainload.jpeg_tar(path, clips)
    return path
