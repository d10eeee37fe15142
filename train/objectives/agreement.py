"""Cross-modal agreement (CMA): which instances belong together, by both banks (AVID paper §4).

Found anew every so many epochs by comparing all instances with all, which a GPU does in seconds to
minutes; between times each instance's positives are looked up.
"""

import logging
import time
from typing import Any, Literal

import torch
from torch import Tensor

from train.models.attention import full_precision
from train.objectives.memory_bank import MemoryBanks

log = logging.getLogger(__name__)

Agreement = Literal["consensus", "union", "video", "audio"]

CHUNK_NUMBERS = 2**26
"""Similarities that are compared at a time: 256 MiB of float32."""
LEAST_SEEN = 0.5
"""Positives are doubted when a smaller share of the instances has been trained on."""


class AgreementBanks(MemoryBanks):
    """Memory banks, and each instance's positives.

    The counter of batches that the schedule goes by is another than that of the banks: these may
    come from a run of AVID (`--init`), and the schedule begins with this run.

    Attributes:
        positives: int32 (N, P), rows sorted; zeros until they are found for the first time.
        scheduled: int64 (), training batches of this schedule so far.
    """

    positives: Tensor
    scheduled: Tensor

    def __init__(
        self,
        instances: int,
        width: int,
        momentum: float = 0.5,
        *,
        count: int,
        agreement: Agreement = "consensus",
        first: int = 0,
        every: int,
        trained: Tensor | None = None,
    ) -> None:
        """Draw the vectors; see `MemoryBanks` and `agreeing`.

        Args:
            instances: N.
            width: D.
            momentum: of the banks.
            count: P, positives of each instance.
            agreement: what it means to agree.
            first: batches before positives are looked for.
            every: batches between one search and the next, >= 1.
            trained: ids that batches have.

        Raises:
            ValueError: so many positives leave no instance to be a negative.
        """
        super().__init__(instances, width, momentum, trained)
        if count + 2 > len(self.trained):
            raise ValueError(
                f"found_positives is {count} with {len(self.trained)} clips; an instance, its "
                "positives and one negative at least must fit: give fewer positives, or more clips"
            )
        self.count, self.agreement, self.first, self.every = count, agreement, first, every
        self.register_buffer("positives", torch.zeros(instances, count, dtype=torch.int32))
        self.register_buffer("scheduled", torch.zeros((), dtype=torch.int64))
        self._done: int | None = None  # `scheduled` on the host, which decides; None: ask it

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # the host decides
    def ready(self) -> bool:
        """Whether there are positives for the next batch; looks for them first where it is time.

        Asks the device once after weights were loaded, and not again.
        """
        if self.positives.is_meta:
            return True
        done = self._batches_done()
        if done >= self.first and (done - self.first) % self.every == 0:
            self.search()
        return done >= self.first

    @torch.no_grad()
    def update(self, instance: Tensor, video: Tensor, audio: Tensor) -> None:
        """As `MemoryBanks.update`; one training batch more on the schedule, too."""
        super().update(instance, video, audio)
        self._count()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _count(self) -> None:
        self.scheduled += 1
        if self._done is not None:
            self._done += 1

    def search(self) -> None:
        """Find all positives anew, and say so."""
        start = time.monotonic()
        ids = self.trained
        found = agreeing(self.video[ids], self.audio[ids], self.count, self.agreement)
        self.positives[ids] = ids[found].int()
        seen = self.seen[ids].float().mean().item()
        log.info("%d positives for each of %d clips found by %s in %.1f s", self.count,
                 len(ids), self.agreement, time.monotonic() - start)  # fmt: skip
        if seen < LEAST_SEEN:
            log.warning(
                "positives come from memories of which %.0f%% are still random: start from a run "
                "of AVID on the same clips (--init), or give --model.warmup-epochs",
                100 * (1 - seen),
            )

    def _batches_done(self) -> int:
        if self._done is None:
            self._done = int(self.scheduled.item())
        return self._done

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._done = None
        super()._load_from_state_dict(*args, **kwargs)


@torch.no_grad()
def agreeing(video: Tensor, audio: Tensor, count: int, agreement: Agreement) -> Tensor:
    """Which instances belong with each one (paper Eq. 6 and 7).

    Args:
        video: (N, D) bank.
        audio: (N, D) bank.
        count: P, at most N - 1.
        agreement: an instance agrees as far as the worse of both similarities says (`consensus`,
            the paper's), the better one (`union`), or that of one modality (`video`, `audio`).

    Returns:
        int64 (N, P), each row sorted; never the instance itself.
    """
    instances = len(video)
    rows = max(1, CHUNK_NUMBERS // instances)
    found = []
    with full_precision(video):
        for first in range(0, instances, rows):
            own = torch.arange(first, min(first + rows, instances), device=video.device)
            scores = _agreement(video, audio, own, agreement)
            scores.scatter_(1, own[:, None], -torch.inf)
            best = scores.topk(count, dim=1).indices
            found.append(best.sort(dim=1).values)
    return torch.cat(found)


def _agreement(video: Tensor, audio: Tensor, own: Tensor, agreement: Agreement) -> Tensor:
    """(rows, N) of the instances `own` with all."""
    if agreement == "video":
        return video[own] @ video.T
    scores = audio[own] @ audio.T
    if agreement == "audio":
        return scores
    choose = torch.minimum if agreement == "consensus" else torch.maximum
    return choose(video[own] @ video.T, scores, out=scores)
