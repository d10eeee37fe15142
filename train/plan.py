"""(seed, epoch) -> the order of all clips, in equal batches for every rank. Pure arithmetic.

The order is one global list that does not depend on the number of ranks or workers, so two ranks
with batch 16 see what one rank with batch 32 sees. Randomness comes from SHA-256 of (seed, epoch,
what for): never from `hash()`, which is salted, nor from a library's generator, which may change.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from train.errors import UsageError
from train.index import Ints
from train.mixture import Mixture


class Draw(NamedTuple):
    """One clip of one epoch."""

    epoch: int
    visit: int
    """0 for the first time in this epoch; weights over 1 bring clips back."""
    part: int
    """Which set of the mixture."""
    row: int
    """Which clip of the set."""


@dataclass(frozen=True)
class Position:
    """Where in the stream of batches: everything before `batch` of `epoch` has been used."""

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Plan:
    """Who reads what, when."""

    mixture: Mixture
    seed: int
    batch_size: int
    """Clips a batch on one rank."""
    world: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        """Refuse an epoch without a single batch."""
        if self.clips_per_epoch < self.batch_size * self.world:
            raise UsageError(
                f"{self.clips_per_epoch} clips an epoch do not fill one batch of "
                f"{self.batch_size} on {self.world} rank(s); give a smaller --batch-size"
            )

    @property
    def clips_per_epoch(self) -> int:
        """Over all ranks, the rest that fills no batch included."""
        return self.mixture.clips_per_epoch

    @property
    def batches_per_epoch(self) -> int:
        """The same on every rank."""
        return self.clips_per_epoch // (self.batch_size * self.world)

    def position(self, batches: int) -> Position:
        """Where `batches` used batches from the very start lead."""
        return Position(*divmod(batches, self.batches_per_epoch))

    def order(self, epoch: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """(clips, 3): part, row, visit of every clip of an epoch, shuffled over all sets."""
        drawn = [self._drawn(epoch, number) for number in range(len(self.mixture.parts))]
        clips = np.concatenate(drawn)
        return clips[shuffled(len(clips), seed_of(self.seed, epoch, "order"))]

    def batches(self, start: Position) -> Iterator[list[Draw]]:
        """This rank's batches from a position on, epoch after epoch, without end."""
        epoch, batch = start.epoch, start.batch
        while True:
            order = self.order(epoch)
            for number in range(batch, self.batches_per_epoch):
                yield self._batch(order, epoch, number)
            epoch, batch = epoch + 1, 0

    def _batch(self, order: Ints, epoch: int, number: int) -> list[Draw]:
        first = (number * self.world + self.rank) * self.batch_size
        rows = order[first : first + self.batch_size].tolist()
        return [Draw(epoch, visit, part, row) for part, row, visit in rows]

    def _drawn(self, epoch: int, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """The clips of one set in one epoch: whole rounds, and a fraction drawn anew."""
        part = self.mixture.parts[number]
        rounds, rest = divmod(part.clips_per_epoch, len(part.rows))
        seed = seed_of(self.seed, epoch, "rest", number)
        chosen = shuffled(len(part.rows) if rest else 0, seed)[:rest]
        rows = np.concatenate([*[part.rows] * rounds, part.rows[np.sort(chosen)]])
        visits = np.repeat(np.arange(rounds + 1), [len(part.rows)] * rounds + [rest])
        return np.stack([np.full_like(rows, number), rows, visits], 1)


def seed_of(*what: object) -> int:
    """64 bits that depend on nothing but the arguments' text."""
    text = "/".join(map(str, what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def shuffled(count: int, seed: int) -> Ints:
    """0 .. count-1 in an order given by the seed: sorted by splitmix64 of seed and number.

    The same on every machine and with every version of numpy; two million in 0.2 s.
    """
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable").astype(np.int64)
