"""--on-bad-shard: what happens when a clip cannot be read.

`raise` ends the run with a sentence. `skip` puts another clip of the same set in its place, drawn
by (seed, epoch, clip), so that every rank keeps its number of batches and its batch size, and the
same clips are replaced in any run over the same damaged shards: for any number of ranks and
workers, and after a resume. Each clip that is replaced is counted, each shard with such clips is
named once, and more than --max-bad-shards of them end the run on all ranks at the same step.

Only damage is skipped: a store that cannot be reached says nothing about its shards, so that ends
the run in any case, to go on from its last checkpoint.
"""

import logging
from dataclasses import dataclass, field
from typing import NamedTuple

from train.dist import Ranks
from train.errors import ShardError

log = logging.getLogger(__name__)


class BadClip(NamedTuple):
    """A clip that could not be read."""

    shard: str
    """Address of its tar."""
    said: str


@dataclass
class Guard:
    """Counts what was replaced, since the run was started or resumed."""

    skips: bool = False
    """False: the first bad clip ends the run."""
    max_shards: int = 10
    """Shards with bad clips that are borne, over all ranks."""
    clips: int = 0
    """Replaced on this rank."""
    shards: set[str] = field(default_factory=set)
    """With bad clips: those met by this rank, and after `facts` those of all ranks."""
    _told: float = 0.0

    def note(self, bad: tuple[BadClip, ...]) -> None:
        """Clips of a batch of this rank that were replaced."""
        self.clips += len(bad)
        for clip in bad:
            if clip.shard not in self.shards:
                log.warning("replaced by another clip: %s", clip.said)
                self.shards.add(clip.shard)

    def facts(self, ranks: Ranks, clips_per_rank: float) -> dict[str, int]:
        """For the metrics; all ranks must call this at the same step.

        Args:
            ranks: of the run.
            clips_per_rank: mean of `clips` over ranks, which is the same number on all of them
                and so decides for all alike whether there is something to agree on.

        Raises:
            ShardError: there are too many bad shards; on all ranks alike.
        """
        if not self.skips:
            return {}
        if clips_per_rank != self._told:
            self._told = clips_per_rank
            self.agree(ranks)
        return {"replaced_clips": round(clips_per_rank * ranks.world),
                "bad_shards": len(self.shards)}  # fmt: skip

    def agree(self, ranks: Ranks) -> None:
        """Learn of the other ranks' bad shards; all ranks must call this at the same step.

        Raises:
            ShardError: there are too many of them; on all ranks alike.
        """
        self.shards = set().union(*ranks.all_objects(self.shards))
        if self.skips and len(self.shards) > self.max_shards:
            some = ", ".join(sorted(self.shards)[:5])
            raise ShardError(
                f"{len(self.shards)} shards have clips that cannot be read, --max-bad-shards "
                f"allows {self.max_shards}: {some}, ... Check the set with `python -m pipeline "
                "verify`, and make or copy these shards again"
            )
