"""Reading processes end with whoever reads, and their death is told."""

import gc
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.train.ramps import mixture_of
from tests.train.runs import toy
from tests.train.toy import Toy
from train.errors import TooLargeError, TrainError
from train.loader import ClipLoader
from train.plan import Plan
from train.pretrain import pretrain
from train.read import ShardReader


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that do not end are waited for by torch for so many seconds each."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)


def readers() -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child.daemon]


def loader(demo: Path) -> ClipLoader:
    return ClipLoader(Plan(mixture_of(str(demo)), 0, 2), workers=2)


def test_without_shared_memory_it_says_what_to_do(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_bytes: int) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", refused)
    with pytest.raises(TooLargeError, match=r"No space left.*--shm-size=8g.*--workers 0"):
        next(loader(demo).batches())
    assert not readers()


def test_a_reader_that_fails_takes_the_others_with_it(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a reader raises, the process must be able to end."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(ShardReader, "read", broken)
    with pytest.raises(ZeroDivisionError) as held:  # and with it the frames of the iterator
        next(loader(demo).batches())
    assert not readers(), held


def test_a_reader_that_hangs_ends_with_the_loop(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ShardReader.read

    def slow(self: ShardReader, row: int, *wanted: tuple[str, ...]) -> object:
        if row > 5:
            time.sleep(3600)
        return original(self, row, *wanted)

    mixture = mixture_of(str(demo))
    plan = next(Plan(mixture, seed, 2) for seed in range(99) if _is_quick_first(mixture, seed))
    monkeypatch.setattr(ShardReader, "read", slow)
    batches = ClipLoader(plan, workers=2).batches()
    next(batches)
    assert len(readers()) == 2
    batches.close()
    gc.collect()
    assert not readers()


def _is_quick_first(mixture: object, seed: int) -> bool:
    """The first batch is of rows up to 5, the second is not."""
    first, second = Plan(mixture, seed, 2).order(0)[:4, 1].reshape(2, 2).tolist()  # type: ignore[arg-type]
    return max(first) <= 5 < max(second)


def test_a_reader_that_is_killed_is_told(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Toy.forward

    def forward(self: Toy, batch: object) -> dict[str, torch.Tensor]:
        if self.calls == 2:
            os.kill(readers()[0].pid or 0, signal.SIGKILL)
            time.sleep(30)  # the news comes earlier
        return original(self, batch)

    monkeypatch.setattr(Toy, "forward", forward)
    with pytest.raises(TrainError, match=r"killed by signal: Killed.*fewer --workers.*goes on"):
        pretrain(toy(ten, tmp_path / "run", workers=2))
    assert not readers()


def test_readers_of_held_out_clips_end_where_measuring_fails(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Toy.forward

    def forward(self: Toy, batch: object) -> dict[str, torch.Tensor]:
        if not self.training:
            raise ZeroDivisionError("a mistake in a method")
        return original(self, batch)

    monkeypatch.setattr(Toy, "forward", forward)
    with pytest.raises(ZeroDivisionError) as held:
        pretrain(toy(split, tmp_path / "run", workers=1, val_every=2, batch_size=1))
    assert not readers(), held
