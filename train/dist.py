"""Ranks: who am I, gather with gradient, agree on stopping. Works without any launcher.

Started by torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or by srun with one task a GPU (SLURM_PROCID);
by nothing, there is one rank. Small agreements between ranks run over gloo, so that they never make
the host wait for the GPU.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from train.errors import UsageError

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: the first batch of a cold file system takes a while."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    """Ranks on this host."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: Any = None
    """The gloo group for small agreements; None where there is one rank."""

    @property
    def is_first(self) -> bool:
        """The rank that writes files."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; all ranks must call this."""
        if self.world == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self.control)
        return bool(flags.item())

    def mean(self, numbers: list[float]) -> list[float]:
        """Each number's mean over ranks; all ranks must call this."""
        if self.world == 1:
            return numbers
        sums = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(sums, group=self.control)
        averages: list[float] = (sums / self.world).tolist()
        return averages

    def all_objects(self, item: Any) -> list[Any]:
        """The item of every rank, in order."""
        if self.world == 1:
            return [item]
        items: list[Any] = [None] * self.world
        dist.all_gather_object(items, item, group=self.control)
        return items

    def take_from_first(self, tensor: Tensor) -> None:
        """Overwrite it, on the run's device, with the first rank's; all ranks must call this."""
        if self.world > 1:
            dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Until all ranks are here."""
        self.any(False)


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Join the process group for the length of a block.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:1`; auto takes this rank's GPU if there is one.
    """
    rank, world, local_rank, local_world = placement(os.environ)
    chosen = choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Ranks(0, 1, 0, 1, chosen)
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        control = dist.new_group(backend="gloo", timeout=TIMEOUT) if backend == "nccl" else None
        yield Ranks(rank, world, local_rank, local_world, chosen, control or dist.group.WORLD)
    finally:
        dist.destroy_process_group()


def placement(env: Any) -> tuple[int, int, int, int]:
    """Rank, world size, local rank, local world size from a launcher's environment.

    SLURM_PROCID alone proves nothing: a batch script has it too, without being a task of a step.

    Raises:
        UsageError: several tasks, but no address where they meet.
    """
    if "RANK" in env and "WORLD_SIZE" in env:
        local_world = int(env.get("LOCAL_WORLD_SIZE", 1))
        return int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0)), local_world
    world = int(env.get("SLURM_STEP_NUM_TASKS", 1))
    if world == 1:
        return 0, 1, 0, 1
    if "MASTER_ADDR" not in env:
        raise UsageError(
            f"srun started {world} tasks, but MASTER_ADDR is not set; in the sbatch script: export "
            "MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1) "
            "MASTER_PORT=29500"
        )
    os.environ.setdefault("MASTER_PORT", "29500")
    local_world = int(env.get("SLURM_STEP_TASKS_PER_NODE", "1").split("(")[0].split(",")[0])
    return int(env["SLURM_PROCID"]), world, int(env["SLURM_LOCALID"]), local_world


def choose_device(wish: str, local_rank: int) -> torch.device:
    """The device of this rank.

    Raises:
        UsageError: a GPU is wished for, and there is none, or not that one; or it is no device.
    """
    count = torch.cuda.device_count()
    known = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", wish)
    if not known:
        raise UsageError(f"--device {wish}; expected auto, cpu, cuda or cuda:1")
    if wish == "auto":
        return torch.device("cuda", local_rank % count) if count else torch.device("cpu")
    if wish.startswith("cuda") and not count:
        raise UsageError(
            f"--device {wish}, but torch sees no GPU; leave --device out to train on CPU"
        )
    if known[1] and int(known[1]) >= count:
        raise UsageError(f"--device {wish}, but torch sees cuda:0 to cuda:{count - 1} only")
    return torch.device("cuda", local_rank % count) if wish == "cuda" else torch.device(wish)


class _Gather(torch.autograd.Function):
    """all_gather whose backward adds up what every rank wants of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        own = tensor.contiguous()
        pieces = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, own)
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole.chunk(dist.get_world_size())[dist.get_rank()]


def gathered(tensor: Tensor) -> Tensor:
    """(B, ...) of every rank -> (ranks x B, ...), ranks in order, without gradient.

    For what memory banks and queues take in, numbers of clips too. Every rank must bring the same
    shape and type.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor.detach()
    own = tensor.detach().contiguous()
    pieces = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, own)
    return torch.cat(pieces)


def gather_with_grad(tensor: Tensor) -> Tensor:
    """(B, ...) of every rank -> (ranks x B, ...), ranks in order, differentiable.

    Every rank must bring the same shape. The gradient of a row is the sum over ranks, so with
    DDP's averaging a mean over each rank's own clips becomes the mean over all clips.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)  # type: ignore[no-untyped-call]
    return gathered
