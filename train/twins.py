"""One rank against two: do they learn the same? Two processes over gloo, on the CPU, in fp32.

BatchNorm keeps the statistics of the first batch and dropout is off, because those are each rank's
own by design; all else must agree: the loss is the mean over ranks, gradients are averaged by DDP.
Plain gradient descent carries errors of gradients over to the weights in proportion.
"""

import multiprocessing
import os
import socket
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from train.batch import Batch
from train.config import PretrainConfig
from train.cuts import RunFacts
from train.dist import Ranks, joined
from train.methods import MEMORY, METHODS, MethodEntry, method_named
from train.pretrain import build_model, forward_backward, parallel_model

WORLD = 2
STEPS = 3
PATH_LENGTH = 1e-3
"""How far the weights go in the first step, as a norm."""
TOLERANCE = 1e-5
"""Of losses (of their size, above 1) and of each weight."""
MEMORY_TOLERANCE = 1e-3
"""Of each number in the method's `memory`. Vectors there are outputs of the network, in which the
rounding of weights has grown: unit vectors were seen to differ by 7e-5 when weights did by 6e-7;
another order of the clips is a difference of about 0.1 and more."""
WAY_TOLERANCE = 1e-2
"""Of the way the weights went: 4e-5 was seen with a right method, a halved gradient is 0.5."""
TIMEOUT_SECONDS = 600

Twin = dict[str, Any]
"""`losses` of each step, `weights` before and after."""


def compare(
    config: PretrainConfig[Any], model: nn.Module, batch: Batch, folder: Path, facts: RunFacts
) -> tuple[bool, str]:
    """Train STEPS steps alone and as two ranks.

    Args:
        config: of the run.
        model: with fresh weights, in training mode; is trained.
        batch: augmented, of an even number of clips.
        folder: for the files by which processes talk.
        facts: for the module's `prepare`.

    Returns:
        Whether they agree, and a sentence.
    """
    with torch.no_grad():
        take_statistics(model, batch)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rate = PATH_LENGTH / max(_gradient_norm(model, batch, config), 1e-12)
    alone = descend(config, model, batch, Ranks(), rate)
    torch.save({"start": start, "rate": rate, "batch": _fields(batch)}, folder / "twins.pt")
    pair = _run_ranks(config, batch, folder, facts)
    if isinstance(pair, str):
        return False, pair
    return _judge(alone, pair, start)


def take_statistics(model: nn.Module, batch: Batch) -> None:
    """BatchNorm takes over this batch's statistics; then it and dropout stand still."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.momentum = 1.0
    model(batch)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
    stand_still(model)


def stand_still(model: nn.Module) -> None:
    """What is each rank's own by design: BatchNorm and dropout in evaluation mode."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm | _DropoutNd):
            module.eval()


def descend(
    config: PretrainConfig[Any], model: nn.Module, batch: Batch, ranks: Ranks, rate: float
) -> Twin:
    """STEPS steps of plain gradient descent on one batch; losses are means over ranks."""
    parallel = parallel_model(model, config, ranks)
    optimizer = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], rate)
    losses = []
    for _ in range(STEPS):
        facts = forward_backward(parallel, batch, config, ranks.device, True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses += ranks.mean([facts["loss"].item()])
    return {"losses": losses, "weights": model.state_dict()}


def _judge(alone: Twin, pair: Twin, start: dict[str, Tensor]) -> tuple[bool, str]:
    for step, (one, two) in enumerate(zip(alone["losses"], pair["losses"], strict=True), 1):
        if not abs(one - two) <= TOLERANCE * max(abs(one), 1):
            why = (
                "is it a mean over the rank's own clips, and are negatives gathered with `gather`?"
                if step == 1
                else "the steps before agreed, so gradients get lost or count twice between ranks"
            )
            return False, (
                f"step {step}: the loss of one rank is {one:.6f}, the mean of two {two:.6f}; {why}"
            )
    names = [name for name, tensor in start.items() if tensor.is_floating_point()]
    apart = {n: (alone["weights"][n] - pair["weights"][n]).abs().max().item() for n in names}
    share = {n: apart[n] / (MEMORY_TOLERANCE if n.startswith(MEMORY) else TOLERANCE) for n in names}
    worst = max(apart, key=lambda name: share[name])
    # Banks and queues go a thousand times further than weights; a wrong gradient would drown in it.
    learnt = [name for name in names if not name.startswith(MEMORY)]
    way = _norm({n: alone["weights"][n] - start[n] for n in learnt})
    off = _norm({n: alone["weights"][n] - pair["weights"][n] for n in learnt}) / max(way, 1e-12)
    said = f"after {STEPS} steps weights differ by {apart[worst]:.1e} at most ({worst})"
    if share[worst] > 1 or off > WAY_TOLERANCE:
        return False, f"the same losses, but {said}, {off:.1e} of the way they went"
    return True, f"losses agree within {TOLERANCE:g}; {said}"


# --- two processes --------------------------------------------------------------------------------


def _run_ranks(
    config: PretrainConfig[Any], batch: Batch, folder: Path, facts: RunFacts
) -> Twin | str:
    """What two ranks find, or a sentence why they did not get there."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    port = _free_port()
    method = method_named(config.method)
    processes = [
        context.Process(
            target=_rank, args=(rank, port, config, method, batch.keys, batch.labels, folder, facts)
        )
        for rank in range(WORLD)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_SECONDS)
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.kill()
        process.join()
    if alive:
        return f"two ranks were not done after {TIMEOUT_SECONDS} s: does one of them wait for ever?"
    trouble = [path.read_text() for path in sorted(folder.glob("rank*.txt"))]
    if trouble or any(process.exitcode for process in processes):
        return " ".join((trouble or ["a rank crashed"])[0].split())[-400:]
    found: Twin = torch.load(folder / "pair.pt", weights_only=True)
    return found


def _rank(
    rank: int, port: int, config: PretrainConfig[Any], method: MethodEntry, keys: tuple[str, ...],
    labels: Any, folder: Path, facts: RunFacts,
) -> None:  # fmt: skip
    """One of the two: its share of the batch. The method comes along, for it may be a plugin's."""
    METHODS[config.method] = method
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_RANK": str(rank),
                   "LOCAL_WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    torch.set_num_threads(1)
    try:
        given = torch.load(folder / "twins.pt", weights_only=True)
        batch = _share(Batch(**given["batch"], keys=keys, labels=labels), rank)
        with joined("cpu") as ranks:
            model = build_model(config, ranks.device, facts)
            model.load_state_dict(given["start"])
            stand_still(model)
            twin = descend(config, model, batch, ranks, given["rate"])
        if rank == 0:
            torch.save(twin, folder / "pair.pt")
    except Exception:
        (folder / f"rank{rank}.txt").write_text(traceback.format_exc())
        raise


def _share(batch: Batch, rank: int) -> Batch:
    clips = len(batch) // WORLD
    return batch.rows(slice(rank * clips, (rank + 1) * clips))


def _fields(batch: Batch) -> dict[str, Any]:
    """What of a batch travels by file."""
    names = ("video", "mel", "wave", "numbers", "views", "instance", "start")
    return {name: getattr(batch, name) for name in names}


def _gradient_norm(model: nn.Module, batch: Batch, config: PretrainConfig[Any]) -> float:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    forward_backward(model, batch, config, torch.device("cpu"), True)
    norm = _norm({n: w.grad for n, w in model.named_parameters() if w.grad is not None})
    model.zero_grad(set_to_none=True)
    model.load_state_dict(before)  # memory banks must not have seen the batch
    return norm


def _norm(tensors: dict[str, Tensor]) -> float:
    return float(torch.stack([tensor.float().norm() for tensor in tensors.values()]).norm())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
