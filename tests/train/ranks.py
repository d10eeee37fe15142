"""Two ranks as two threads of one process: what `torch.distributed` does for them, done here.

A process a rank takes seconds to start; so every method can be asked in the quick tests whether it
gathers all that it should. `train.twins` asks the same of real processes.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

WORLD = 2
PATIENCE_SECONDS = 60


class Threads:
    """Stands in for `torch.distributed` within threads that have a rank."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take its place until the test ends."""
        self._place = threading.local()
        self._barrier = threading.Barrier(WORLD, timeout=PATIENCE_SECONDS)
        self._given: list[Tensor] = [torch.empty(0)] * WORLD
        own = {"get_rank": lambda: self._place.rank, "get_world_size": lambda: WORLD,
               "is_initialized": lambda: hasattr(self._place, "rank"),
               "all_gather": self._all_gather, "all_reduce": self._all_reduce}  # fmt: skip
        for name, function in own.items():
            monkeypatch.setattr(dist, name, function)

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """`work(rank)` of every rank at the same time; what each gives, or what one raised."""
        results: list[Any] = [None] * WORLD

        def one(rank: int) -> None:
            self._place.rank = rank
            try:
                results[rank] = work(rank)
            except BaseException as error:
                results[rank] = error
                self._barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(WORLD)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raised = [x for x in results if isinstance(x, BaseException)]
        # The other one only says that it waited in vain.
        for error in sorted(raised, key=lambda x: isinstance(x, threading.BrokenBarrierError)):
            raise error
        return results

    def _exchanged(self, tensor: Tensor) -> list[Tensor]:
        self._given[self._place.rank] = tensor.detach().clone()
        self._barrier.wait()
        everything = list(self._given)
        self._barrier.wait()
        return everything

    def _all_gather(self, pieces: list[Tensor], own: Tensor) -> None:
        for piece, given in zip(pieces, self._exchanged(own), strict=True):
            piece.copy_(given)

    def _all_reduce(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self._exchanged(tensor)).sum(dim=0))
