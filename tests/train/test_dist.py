"""Ranks: who am I, and does gathering give the gradients of one large batch?"""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from train.dist import Ranks, choose_device, gather_with_grad, joined, placement
from train.errors import UsageError


def test_without_a_launcher_there_is_one_rank() -> None:
    assert placement({}) == (0, 1, 0, 1)
    with joined("cpu") as ranks:
        assert ranks.is_first
        assert ranks.any(True)
        assert not ranks.any(False)
        assert ranks.all_objects(3) == [3]
    x = torch.ones(2, requires_grad=True)
    assert gather_with_grad(x) is x


def test_torchrun_says_who_we_are() -> None:
    env = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert placement(env) == (5, 8, 1, 4)


def test_srun_says_who_we_are() -> None:
    env = {
        "SLURM_PROCID": "3",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_LOCALID": "3",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
        "MASTER_ADDR": "node-a",
    }
    assert placement(env) == (3, 8, 3, 4)
    with pytest.raises(UsageError, match="export MASTER_ADDR="):
        placement(_without(env, "MASTER_ADDR"))


def test_a_batch_script_is_not_a_task() -> None:
    assert placement({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == (0, 1, 0, 1)


def _without(env: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in env.items() if key != name}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said() -> None:
    assert choose_device("auto", 0) == torch.device("cpu")
    with pytest.raises(UsageError, match="torch sees no GPU"):
        choose_device("cuda", 0)


def test_what_is_no_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--device gpu; expected auto, cpu, cuda or cuda:1"):
        choose_device("gpu", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1", 0) == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="--device cuda:2, but torch sees cuda:0 to cuda:1"):
        choose_device("cuda:2", 0)


# --- two processes ------------------------------------------------------------------------------


def contrast(audio: torch.Tensor, video: torch.Tensor, first: int) -> torch.Tensor:
    """The mean over this rank's clips of a loss against everyone's audio."""
    logits = video @ audio.T
    return torch.nn.functional.cross_entropy(logits, first + torch.arange(len(video)))


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)


def one_rank(rank: int, meeting: str, results: "Queue[Any]") -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    audio, video = (x[2 * rank : 2 * rank + 2].requires_grad_() for x in embeddings())
    loss = contrast(gather_with_grad(audio), video, 2 * rank)
    loss.backward()
    ranks = Ranks(rank, 2, rank, 2, torch.device("cpu"), dist.group.WORLD)
    agreed = [ranks.any(rank == 1), ranks.any(False), ranks.all_objects(rank), ranks.mean([rank])]
    assert audio.grad is not None
    results.put((rank, loss.item(), audio.grad.tolist(), agreed))
    dist.destroy_process_group()


def test_two_ranks_have_the_gradients_of_one_large_batch(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [
        context.Process(target=one_rank, args=(rank, str(tmp_path / "meeting"), results))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    found = sorted(results.get(timeout=280) for _ in ranks)
    for process in ranks:
        process.join(10)
    audio, video = (x.requires_grad_() for x in embeddings())
    loss = contrast(audio, video, 0)
    loss.backward()
    assert audio.grad is not None
    assert sum(x[1] for x in found) / 2 == pytest.approx(loss.item(), rel=1e-6)
    gradient = torch.tensor([row for x in found for row in x[2]]) / 2  # DDP averages
    assert torch.allclose(gradient, audio.grad, atol=1e-6)
    assert [x[3] for x in found] == [[True, False, [0, 1], [0.5]]] * 2


def test_importing_the_trainer_loads_nothing_of_the_offline_half() -> None:
    code = (
        "import sys, train, train.pretrain, train.__main__, train.describe;"
        "print([m for m in ('ray', 'av', 'dlib', 'cv2', 'librosa') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_the_package_is_quick_and_secures_webdataset() -> None:
    code = (
        "import os, sys, train; print('torch' in sys.modules, os.environ['WDS_SECURE'],"
        " [m for m in ('ray', 'av', 'dlib', 'webdataset') if m in sys.modules])"
    )
    env = {name: value for name, value in os.environ.items() if name != "WDS_SECURE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "False 1 []", done.stderr


def test_webdataset_is_secured_even_where_it_was_imported_before() -> None:
    import webdataset

    import train.read  # noqa: F401

    assert webdataset.utils.enforce_security is True
