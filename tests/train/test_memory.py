"""Out of memory: what torch raises is recognised, and the batch that fits is found by trying."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.runs import toy
from tests.train.test_batch import batch
from tests.train.toy import Toy, ToyConfig
from train import memory, pretrain as pretraining, trackers
from train.errors import TrainError
from train.memory import is_out_of_memory, largest_that_fits
from train.methods import METHODS, MethodEntry
from train.pretrain import out_of_memory_line, pretrain


def out_of_memory() -> RuntimeError:
    """What torch itself raises on a CPU for more than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    return caught.value


class Hungry(Toy):
    """Has memory for `n_slow` clips."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        if len(batch) > self.config.n_slow:
            torch.empty(1 << 60)
        return super().forward(batch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.setitem(METHODS, "hungry", MethodEntry(ToyConfig, Hungry, {"toy": ToyConfig()}))


def test_both_kinds_are_recognised_and_nothing_else() -> None:
    assert is_out_of_memory(out_of_memory())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize(("room", "fits"), [(1, 1), (3, 2), (5, 5), (9, 5), (0, 0)])
def test_the_largest_half_that_fits_is_found(room: int, fits: int) -> None:
    tried = []

    def step(clips: Any) -> None:
        tried.append(len(clips))
        assert len(clips.keys) == len(clips.labels) == len(clips.mel)
        if len(clips) > room:
            torch.empty(1 << 60)

    video = torch.zeros(10, 4, 8, 8, 3, dtype=torch.uint8)
    whole = batch(
        video=video, mel=torch.zeros(10, 80, 12), instance=torch.arange(10), start=torch.zeros(10),
        keys=tuple("abcdefghij"), labels=((1,),) * 10,
    )  # fmt: skip
    assert largest_that_fits(step, torch.nn.Linear(2, 2), whole) == fits
    assert tried[0] == 5


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (4, r"6 clips do not fit .* 3 do \(tried\): --batch-size 3 --accumulation 2 takes"),
        (1, r"1 do \(tried\): --batch-size 1 --accumulation 6"),
        (0, "nor does a single one; try --precision bf16, or a smaller preset"),
    ],
)
def test_a_run_names_the_batch_that_fits(ten: Path, tmp_path: Path, room: int, said: str) -> None:
    config = toy(ten, tmp_path / "run", ToyConfig(n_slow=room), method="hungry", batch_size=6)
    with pytest.raises(TrainError, match=said) as caught:
        pretrain(config)
    assert caught.value.exit_code == 1


def test_the_proposal_trains(ten: Path, tmp_path: Path) -> None:
    config = toy(ten, tmp_path / "run", ToyConfig(n_slow=3), method="hungry",
                 batch_size=3, accumulation=2, max_steps=2)  # fmt: skip
    assert pretrain(config) == 0


def test_several_ranks_do_not_try_but_propose_half(ten: Path, tmp_path: Path) -> None:
    config = toy(ten, tmp_path / "run", batch_size=6)
    line = out_of_memory_line(config, torch.device("cpu"), None)
    assert "half as many may: --batch-size 3 --accumulation 2" in line
    gib = f"{memory.memory_limit_bytes(torch.device('cpu')) / 2**30:.0f} GiB"
    assert gib in line


@pytest.mark.parametrize(
    ("precision", "device", "advised"),
    [
        ("auto", "cpu", True),
        ("fp32", "cuda", True),
        ("bf16", "cpu", False),
        ("auto", "cuda", False),
    ],
)
def test_bf16_is_advised_where_it_is_not_in_use(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, device: str,
    advised: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(pretraining, "memory_limit_bytes", lambda device: 1 << 30)
    config = toy(ten, tmp_path / "run", precision=precision)
    for fits in (None, 0, 2):
        line = out_of_memory_line(config, torch.device(device), fits)
        assert ("--precision bf16" in line) == advised
        assert "a smaller preset" in line
