"""Plan + shards -> Batch after Batch: the loader.

Worker processes decode only the JPEGs of each cut (see cuts.py); the order comes from the plan
alone, so it is the same for any number of workers and wherever the shards lie, and starting at
(epoch, batch) reads nothing before it. A clip that cannot be read ends the run or is replaced, see
guard.py.
Pictures stay bytes and square (short side); `train.augment` does the rest on the device.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.batch import Batch
from train.cores import usable_cores
from train.cuts import Clip, Cut, window_at
from train.errors import FOR_PEOPLE, ShardError
from train.fields import field_members, read_fields
from train.guard import BadClip, Guard
from train.mixture import Mixture
from train.plan import Draw, Plan, Position, seed_of
from train.read import DAMAGE, ShardReader
from train.readers import empty_bytes, items_of, start_reader

MAX_WORKERS = 16
PREFETCHED_BATCHES = 3
MAX_STAND_INS = 20
"""Clips tried in the place of one that cannot be read."""


@dataclass(frozen=True)
class ClipLoader:
    """Batches of one rank."""

    plan: Plan
    workers: int = 0
    """Processes that read; 0 reads in this one."""
    pin_memory: bool = False
    """Hand out batches in page-locked memory; for a GPU."""
    random_windows: bool = True
    """False takes the middle of every clip, for held-out measurements."""
    guard: Guard = field(default_factory=Guard)
    """What to do about clips that cannot be read, and the count of them."""

    def __len__(self) -> int:
        """Batches an epoch, the same on every rank."""
        return self.plan.batches_per_epoch

    def batches(self, start: Position | None = None) -> Generator[Batch, None, None]:
        """Batches from a position on, without end.

        Raises:
            ShardError: a tar is damaged or is not the one the index means.
            StoreError: a tar cannot be reached.
            TooLargeError: there is no shared memory for a batch.
        """
        for item in items_of(self._data_loader(self.plan.batches(start or Position()))):
            yield self._checked(item)

    def one_epoch(self, epoch: int = 0) -> Generator[Batch, None, None]:
        """The batches of one epoch."""
        everything = self.plan.batches(Position(epoch))
        draws = [next(everything) for _ in range(len(self))]
        for item in items_of(self._data_loader(iter(draws))):
            yield self._checked(item)

    def _checked(self, item: Batch | Exception) -> Batch:
        if isinstance(item, Exception):
            raise item
        self.guard.note(item.bad)
        return item

    def _data_loader(self, draws: Iterator[list[Draw]]) -> "DataLoader[Batch | Exception]":
        clips = ClipDataset(
            self.plan.mixture, self.plan.seed, self.random_windows, self.guard.skips
        )
        return DataLoader(
            clips,
            batch_sampler=draws,  # draws stand where indices would
            num_workers=self.workers,
            prefetch_factor=PREFETCHED_BATCHES if self.workers else None,
            collate_fn=_as_is,
            pin_memory=self.pin_memory,
            worker_init_fn=start_reader,
            generator=torch.Generator(),  # or starting would advance the model's random numbers
        )


class ReadClip(NamedTuple):
    """A clip's part of a batch, but for the pictures."""

    cut: Cut
    mel: Any
    """float16 (80, 3 T), or None."""
    wave: Any
    """int16 (stretches, channels, samples), or None."""
    fields: dict[str, Any]
    """Arrays by name."""


class ClipDataset(Dataset[Batch | Exception]):
    """Reads whole batches; lives in the workers."""

    def __init__(self, mixture: Mixture, seed: int, random_windows: bool, skips: bool) -> None:
        """Opens nothing, so that it can be handed to worker processes."""
        self._mixture = mixture
        self._seed = seed
        self._random = random_windows
        self._skips = skips
        self._readers: list[ShardReader] = []

    def __getitems__(self, draws: Sequence[Draw]) -> Batch | Exception:
        """One batch; an error travels as a value, because a traceback helps nobody."""
        if not self._readers:
            self._readers = [
                ShardReader(part.shard_set, can_skip=True) for part in self._mixture.parts
            ]
        reads, side = self._mixture.reads, self._mixture.short_side
        taken, read = [], []
        bad: list[BadClip] = []
        try:
            video = empty_bytes(len(draws), reads.views * reads.frames, side, side, 3)
            for draw, out in zip(draws, video.numpy(), strict=True):
                draw, clip = self._read_or_replace(draw, out, bad)
                taken.append(draw)
                read.append(clip)
        except FOR_PEOPLE as error:
            return error
        return replace(self._batch(taken, video, read), bad=tuple(bad))

    def _read_or_replace(self, draw: Draw, out: Any, bad: list[BadClip]) -> tuple[Draw, ReadClip]:
        for number in range(MAX_STAND_INS + 1):
            candidate = self._stand_in(draw, number) if number else draw
            try:
                return candidate, self._read(candidate, out)
            except ShardError as error:
                if not self._skips or number == MAX_STAND_INS:
                    raise
                bad.append(BadClip(error.shard, str(error)))
        raise AssertionError("the last one returns or raises")

    def _stand_in(self, draw: Draw, number: int) -> Draw:
        """The clip to take where `draw` cannot be read; depends on nothing but the draw."""
        rows = self._mixture.parts[draw.part].rows
        place = seed_of(self._seed, "stand-in", *draw, number) % len(rows)
        return draw._replace(row=int(rows[place]))

    def _read(self, draw: Draw, out: Any) -> ReadClip:
        reader, reads = self._readers[draw.part], self._mixture.reads
        shard_set = self._mixture.parts[draw.part].shard_set
        clip = reader.read(draw.row, (*reads.members, *field_members(shard_set, reads.fields)))
        cut, shift = self._cut(draw, clip.meta)
        try:
            clip.pictures(cut.pictures, shift, self._mixture.short_side, out)
            mel = None
            if cut.mel_start is not None:
                mel = clip.mel(cut.mel_start, reads.frames, reads.mel_member)
            wave = clip.waveform(cut.stretches, reads.wave_channels) if cut.stretches else None
            fields = read_fields(shard_set, reads.fields, draw.row, clip, cut.pictures)
        except DAMAGE as error:
            raise reader.refusal(draw.row, error) from error
        return ReadClip(cut, mel, wave, fields)

    def _cut(self, draw: Draw, meta: dict[str, Any]) -> tuple[Cut, float]:
        """What is read of a clip in this visit, and where the square lies along the long side."""
        reads, key = self._mixture.reads, meta["key"]
        visit = (self._seed, draw.epoch, draw.visit) if self._random else ("still",)
        shift = seed_of(*visit, key, "shift") / 2**64 if self._random else 0.5
        if reads.cut is not None:
            part = self._mixture.parts[draw.part].shard_set
            clip = Clip(meta["frames"], float(part.fps), part.config.get("waveform_rate_hz"))
            return reads.cut(clip, np.random.default_rng(seed_of(*visit, key, "cut"))), shift
        room = meta["frames"] - reads.frames
        start = seed_of(*visit, key) % (room + 1) if self._random else room // 2
        return window_at(start, reads), shift

    def _batch(self, draws: Sequence[Draw], video: Tensor, read: list[ReadClip]) -> Batch:
        parts = [self._mixture.parts[draw.part] for draw in draws]
        pairs = list(zip(parts, draws, strict=True))
        instances = [
            part.first_instance + part.shard_set.instance[draw.row] for part, draw in pairs
        ]
        return Batch(
            video=video,
            mel=_stacked([clip.mel for clip in read]),
            wave=_stacked([clip.wave for clip in read]),
            numbers={
                name: torch.tensor([list(clip.cut.numbers[name]) for clip in read])
                for name in read[0].cut.numbers
            },
            fields={
                name: torch.from_numpy(np.stack([clip.fields[name] for clip in read]))
                for name in read[0].fields
            },
            views=self._mixture.reads.views,
            instance=torch.tensor(instances, dtype=torch.int64),
            start=torch.tensor([clip.cut.start for clip in read], dtype=torch.int64),
            keys=tuple(part.shard_set.keys[draw.row].as_py() for part, draw in pairs),
            labels=tuple(
                tuple(part.shard_set.labels[draw.row].as_py() or ()) for part, draw in pairs
            ),
        )


def _stacked(arrays: list[Any]) -> Tensor | None:
    return None if arrays[0] is None else torch.from_numpy(np.stack(arrays))


def on_device(batches: Iterator[Batch], device: torch.device) -> Generator[Batch, None, None]:
    """Copy one batch ahead, on a stream of its own, while the GPU computes."""
    if device.type != "cuda":
        yield from batches
        return
    side: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        ready, ahead = ahead, _copied(batch, device, side)
        if ready is not None:
            yield _handed_over(*ready)
    if ahead is not None:
        yield _handed_over(*ahead)


def _copied(
    batch: Batch, device: torch.device, side: torch.cuda.Stream
) -> tuple[Batch, torch.cuda.Event]:
    with torch.cuda.stream(side):
        return batch.to(device), side.record_event()


def _handed_over(batch: Batch, copied: torch.cuda.Event) -> Batch:
    now = torch.cuda.current_stream()
    now.wait_event(copied)  # this copy alone: the next batch's, begun already, may take its time
    batch.record_stream(now)  # or the next copy would write over what is still being read
    return batch


def default_workers(processes_here: int) -> int:
    """Reading processes of each rank: the usable cores, shared, one left for the rank itself."""
    return min(max(usable_cores() // max(processes_here, 1) - 1, 1), MAX_WORKERS)


def _as_is(batch: Any) -> Any:
    """`__getitems__` collates already."""
    return batch
