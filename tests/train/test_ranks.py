"""Every method: do two ranks with half of the batch each do what one does with all of it?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tests.train.ranks import WORLD, Threads
from tests.train.small import OURS, small
from train import check
from train.check import Trial, default_of
from train.methods import METHODS
from train.models.syncnorm import SyncedBatchNorm
from train.pretrain import build_model, forward_backward
from train.twins import _share, stand_still, take_statistics

CPU = torch.device("cpu")
BATCHES = 2
"""In the second one queues hold what the first one gave."""

CASES: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in OURS),
    ("avid", {"objective": "joint"}),
    ("tempssl", {"contrast": "simclr"}),
    ("tempssl", {"contrast": "nnclr"}),
    ("tempssl", {"shared_queue": True}),
]
"""Methods, and those of their switches by which other things are gathered."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trial(method: str, switches: dict[str, Any], folder: Path) -> Trial:
    model = replace(small(method), **switches)
    return check._prepare(replace(default_of(method, None), model=model), folder)


def learnt(model: torch.nn.Module, batch: Any, trial: Trial) -> tuple[list[float], Any]:
    """Losses of the same batch, again and again, and the gradients they sum up to."""
    losses = [
        forward_backward(model, batch, trial.config, CPU, True)["loss"].item()
        for _ in range(BATCHES)
    ]
    return losses, {name: w.grad for name, w in model.named_parameters() if w.requires_grad}


def still(model: torch.nn.Module) -> None:
    """All that is each rank's own stands still, such as BatchNorm that counts its clips alone."""
    stand_still(model)
    for module in model.modules():
        if isinstance(module, SyncedBatchNorm):
            module.train()


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a part of the largest number."""
    one, other = one.double(), other.double()
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-3))


@pytest.mark.parametrize(("method", "switches"), CASES)
def test_two_ranks_do_what_one_does(
    method: str, switches: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of the losses and of the gradients, and each rank's state afterwards."""
    given = trial(method, switches, tmp_path)
    alone = given.model()
    with torch.no_grad():
        take_statistics(alone, given.batch)
    still(alone)
    start = {name: x.clone() for name, x in alone.state_dict().items()}
    pair = [build_model(given.config, CPU, given.facts) for _ in range(WORLD)]
    for model in pair:
        model.load_state_dict(start)
        still(model)
    losses, gradients = learnt(alone, given.batch, given)
    found = Threads(monkeypatch).run(
        lambda rank: learnt(pair[rank], _share(given.batch, rank), given)
    )
    means = [sum(own) / WORLD for own in zip(*(x[0] for x in found), strict=True)]
    assert means == pytest.approx(losses, rel=1e-5)
    for name, gradient in gradients.items():
        averaged = torch.stack([own[name] for _, own in found]).mean(dim=0)
        assert apart(gradient, averaged) < 1e-3, name
    for name, expected in alone.state_dict().items():
        for model in pair:
            got = model.state_dict()[name]
            if expected.is_floating_point():
                assert apart(expected, got) < 1e-4, name
            else:
                assert torch.equal(got, expected), name


def test_the_heads_of_tempssl_count_the_clips_of_all_ranks() -> None:
    """And no other BatchNorm does: the paper has it there."""
    model = METHODS["tempssl"].module(small("tempssl"))
    synced = {name for name, m in model.named_modules() if isinstance(m, SyncedBatchNorm)}
    norms = {name for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    assert synced == {name for name in norms if name.split(".")[0] in ("project", "predict")}
    assert len(synced) == 2 * (3 + 1)
