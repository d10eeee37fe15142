"""Plan + shards -> Batch after Batch: the loader.

Worker processes decode only the JPEGs of each window; the order comes from the plan alone, so it
is the same for any number of workers and wherever the shards lie, and starting at (epoch, batch)
reads nothing before it. A clip that cannot be read ends the run or is replaced, see guard.py.
Pictures stay bytes and square (short side); `train.augment` does the rest on the device.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.batch import Batch
from train.cores import usable_cores
from train.errors import ShardError, TrainError
from train.guard import BadClip, Guard
from train.mixture import Mixture
from train.plan import Draw, Plan, Position, seed_of
from train.read import DAMAGE, FRAMES, MEL, ShardReader, Window
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

    def _checked(self, item: Batch | TrainError) -> Batch:
        if isinstance(item, TrainError):
            raise item
        self.guard.note(item.bad)
        return item

    def _data_loader(self, draws: Iterator[list[Draw]]) -> "DataLoader[Batch | TrainError]":
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


class ClipDataset(Dataset[Batch | TrainError]):
    """Reads whole batches; lives in the workers."""

    def __init__(self, mixture: Mixture, seed: int, random_windows: bool, skips: bool) -> None:
        """Opens nothing, so that it can be handed to worker processes."""
        self._mixture = mixture
        self._seed = seed
        self._random = random_windows
        self._skips = skips
        self._readers: list[ShardReader] = []

    def __getitems__(self, draws: Sequence[Draw]) -> Batch | TrainError:
        """One batch; an error travels as a value, because a traceback helps nobody."""
        if not self._readers:
            self._readers = [
                ShardReader(part.shard_set, can_skip=True) for part in self._mixture.parts
            ]
        frames, side = self._mixture.frames, self._mixture.short_side
        taken, mels, windows = [], [], []
        bad: list[BadClip] = []
        try:
            video = empty_bytes(len(draws), frames, side, side, 3)
            for draw, out in zip(draws, video.numpy(), strict=True):
                draw, window, mel = self._read_or_replace(draw, out, bad)
                taken.append(draw)
                windows.append(window)
                mels.append(mel)
        except TrainError as error:
            return error
        return replace(self._batch(taken, video, mels, windows), bad=tuple(bad))

    def _read_or_replace(
        self, draw: Draw, out: Any, bad: list[BadClip]
    ) -> tuple[Draw, Window, Any]:
        for number in range(MAX_STAND_INS + 1):
            candidate = self._stand_in(draw, number) if number else draw
            try:
                return candidate, *self._read(candidate, out)
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

    def _read(self, draw: Draw, out: Any) -> tuple[Window, Any]:
        reader = self._readers[draw.part]
        clip = reader.read(draw.row, ("json", FRAMES, MEL))
        window = self._window(draw, clip.meta["key"], clip.meta["frames"])
        try:
            clip.pictures(window, self._mixture.short_side, out)
            return window, clip.mel(window)
        except DAMAGE as error:
            raise reader.refusal(draw.row, error) from error

    def _window(self, draw: Draw, key: str, frames: int) -> Window:
        """One draw a clip: when the window starts, and where the square lies."""
        room = frames - self._mixture.frames
        if not self._random:
            return Window(room // 2, self._mixture.frames, 0.5)
        seed = seed_of(self._seed, draw.epoch, draw.visit, key)
        shift = seed_of(self._seed, draw.epoch, draw.visit, key, "shift") / 2**64
        return Window(seed % (room + 1), self._mixture.frames, shift)

    def _batch(
        self, draws: Sequence[Draw], video: Tensor, mels: list[Any], windows: list[Window]
    ) -> Batch:
        parts = [self._mixture.parts[draw.part] for draw in draws]
        pairs = list(zip(parts, draws, strict=True))
        instances = [
            part.first_instance + part.shard_set.instance[draw.row] for part, draw in pairs
        ]
        return Batch(
            video=video,
            mel=torch.from_numpy(np.stack(mels)),
            instance=torch.tensor(instances, dtype=torch.int64),
            start=torch.tensor([window.start for window in windows], dtype=torch.int64),
            keys=tuple(part.shard_set.keys[draw.row].as_py() for part, draw in pairs),
            labels=tuple(
                tuple(part.shard_set.labels[draw.row].as_py() or ()) for part, draw in pairs
            ),
        )


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
