"""`python -m train explain`: a video with the attention map over it, and with its sound.

    python -m train explain my.mp4 --checkpoint runs/first
    python -m train explain my.mp4 --checkpoint runs/first --start 12 --end 30 --out there.mp4

The map says which places of the picture fit the sound, as the model learnt it: times uniform, so 1
is what every place would have. It is made for windows of the video that overlap, and averaged where
they do. The white square is what the network sees; outside of it nothing is known. One scale, that
of the colour bar, holds for the whole video. Of a video longer than --seconds the middle is taken.

To measure instead of looking: `python -m train eval --task localization`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro

from train.apply import encoding
from train.apply.clips import Clip, Sums, clips_of, covering, places_of
from train.apply.overlay import Canvas, pictures
from train.apply.videos import Recipe, Video, existing, shards_of
from train.cores import limit_threads
from train.dist import choose_device
from train.errors import TrainError, UsageError
from train.evaluation.clips import ClipView, batched, read_clips
from train.evaluation.encoders import Encoders, load_checkpoint
from train.evaluation.maps import require_attention
from train.heat import top_of
from train.index import ShardSet
from train.read import ShardReader

log = logging.getLogger(__name__)

ENDINGS = (".mp4", ".mkv", ".mov")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExplainOptions:
    """Which video, which part of it, and how it is shown."""

    video: tyro.conf.Positional[str]
    """A file with pictures and sound."""
    checkpoint: Path
    """A checkpoint, a run's folder, or an exported folder."""
    out: Path | None = None
    """.mp4, .mkv or .mov; None is NAME-attention.mp4 in the current folder."""
    start: float | None = None
    """Seconds from the beginning; None is the middle part."""
    end: float | None = None
    """Seconds from the beginning; None is --seconds after the start."""
    seconds: float = 60.0
    """Longest part that is shown unless --end says otherwise."""
    overlap: float = 0.75
    """Share of a window that the next one sees again, 0 or more, below 1."""
    short_side: int = 360
    """Pixels of the shorter side of the result."""
    profile: str = ""
    """What the pipeline makes of the video before the network sees it; empty is the one that the
    checkpoint's method reads."""
    batch_size: int = 8
    """Windows at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU; None leaves torch's choice."""

    def __post_init__(self) -> None:
        """Ranges."""
        if self.start is not None and self.start < 0:
            raise UsageError(f"--start is {self.start}; expected 0 or more seconds")
        if self.end is not None and self.end <= (self.start or 0):
            raise UsageError(f"--end is {self.end}; expected more than --start {self.start or 0}")
        if self.seconds <= 0 or not 0 <= self.overlap < 1 or self.batch_size < 1:
            raise UsageError("--seconds: more than 0; --overlap: 0 or more, below 1; --batch-size: "
                             "1 or more")  # fmt: skip
        if not 64 <= self.short_side <= 2160:
            raise UsageError(f"--short-side is {self.short_side}; expected 64 to 2160 pixels")


def explain(options: ExplainOptions) -> list[str]:
    """Write the video.

    Returns:
        Lines for people.

    Raises:
        UsageError: no such video, one without sound or pictures, or a part that is not there.
        TrainError: it cannot be decoded, or encoded.
    """
    limit_threads(options.threads)
    path = existing([options.video])[0]
    out = _out(options, path)
    encoders = load_checkpoint(options.checkpoint)
    require_attention(encoders)
    encoders.module.to(choose_device(options.device, 0))
    video = part_of(path, options)
    with shards_of(
        [video], Recipe(options.profile or encoders.profile, faces="off", sound_alone=False)
    ) as made:
        if not made.sets:
            raise TrainError(f"{path} cannot be shown: {made.failed[0][1]}")
        shard_set = made.sets[0].shard_set
        clip = clips_of(shard_set, [0])[0]
        if not clip.has_sound:
            raise UsageError(
                f"{path} has no sound{_told(video)}, and the map says which places fit the sound; "
                "features of its pictures: python -m train embed"
            )
        maps, windows = attention_maps(encoders, shard_set, clip, options)
        size = ShardReader(shard_set).read(0, ("json",)).meta["frame_size"]
    canvas = Canvas.like((int(size[0]), int(size[1])), options.short_side)
    top = top_of(maps)
    encoding.overlaid(
        path.resolve(), out, start_seconds=video.start_seconds or 0.0,
        seconds=None if video.end_seconds is None else
        video.end_seconds - (video.start_seconds or 0.0),
        size=(canvas.width, canvas.height), canvas=canvas.size,
        pictures=pictures(maps, canvas, top), fps=str(shard_set.fps),
    )  # fmt: skip
    return [
        f"{out}: {len(maps) / clip.fps:.1f} s{_told(video)}, mean of {windows} windows of "
        f"{encoders.frames / clip.fps:.1f} s",
        f"the map reaches {maps.max():.1f} times uniform (mean over frames of the largest: "
        f"{maps.max(axis=(1, 2)).mean():.1f}); the colour bar ends at {top:.1f}",
    ]


def _out(options: ExplainOptions, path: Path) -> Path:
    out = options.out or Path(f"{path.stem}-attention.mp4")
    if out.suffix not in ENDINGS:
        raise UsageError(f"--out {out} ends with {out.suffix or 'nothing'}; expected "
                         f"{', '.join(ENDINGS)}")  # fmt: skip
    if out.resolve() == path.resolve():
        raise UsageError(f"--out {out} is the video itself; name another file")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for --out {out.name}")
    return out


def _told(video: Video) -> str:
    """Which part, in words."""
    if video.start_seconds is None and video.end_seconds is None:
        return ""
    end = "the end" if video.end_seconds is None else f"{video.end_seconds:g} s"
    return f" from {video.start_seconds or 0:g} s to {end}"


def part_of(path: Path, options: ExplainOptions) -> Video:
    """What is shown: what is asked for, or the middle of what is too long.

    Raises:
        UsageError: the part begins after the end of the file.
    """
    length = encoding.duration_seconds(path.resolve())
    if length is not None and options.start is not None and options.start >= length:
        raise UsageError(f"--start is {options.start:g} s, and {path} lasts {length:g} s")
    if options.start is None and options.end is None:
        if length is not None and length <= options.seconds:
            return Video(path)
        if length is None:
            log.info("%s does not say how long it is: its first %g s are shown (--seconds)", path,
                     options.seconds)  # fmt: skip
            return Video(path, 0.0, options.seconds)
        middle = (length - options.seconds) / 2
        log.info("%s is longer than --seconds %g: the middle of it is shown", path, options.seconds)
        return Video(path, round(middle, 2), round(middle + options.seconds, 2))
    start = options.start or 0.0
    end = start + options.seconds if options.end is None else options.end
    return Video(path, start, end if length is None else min(end, length))


def attention_maps(
    encoders: Encoders, shard_set: ShardSet, clip: Clip, options: ExplainOptions
) -> tuple[Floats, int]:
    """The map of every frame, (T, H, W) times uniform, and of how many windows it is the mean."""
    looks = covering([clip.example], encoders.frames, options.overlap)
    batches = list(batched(looks, options.batch_size, equal=True))
    sums: Sums | None = None
    found = _maps(encoders, shard_set, clip, batches)
    for batch, maps in zip(batches, found, strict=True):
        sums = sums or Sums(clip.example.frames, maps.shape[1:])
        for look, one in zip(batch, maps, strict=True):
            places = np.unique(places_of(look, clip.example))
            sums.add(places, np.broadcast_to(one, (len(places), *one.shape)))
    assert sums is not None
    return sums.mean(), len(looks)


@torch.no_grad()
def _maps(
    encoders: Encoders, shard_set: ShardSet, clip: Clip, batches: list[Any]
) -> Iterator[Floats]:
    """(B, H, W) times uniform for each batch of windows."""
    device = next(encoders.module.parameters()).device
    view = ClipView("frames", encoders.sound)
    for raw in read_clips(shard_set, [clip.example], view, batches, workers=0):
        ready = raw.to(device).centred(encoders.crop)
        att = encoders.features(ready.video, ready.sound, ("att",))["att"].float().cpu().numpy()
        if not np.isfinite(att).all():
            raise TrainError("the attention map is not finite; is the checkpoint of a run that "
                             "diverged? `python -m train report` shows")  # fmt: skip
        yield att * att.shape[1] * att.shape[2]
