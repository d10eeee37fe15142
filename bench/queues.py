"""A queue of 65,536 vectors in a step: compared, searched and written to, without a copy of it.

Both ways find each view's nearest rows, compare the anchors with every row, take the rows in which
the neighbours stand out of that, go back through it and write the newest vectors. The plain way
does it as the released code of MoCo does: autograd refuses the gradient of a product with a tensor
that is written to in place, so each batch compares with a clone.
"""

import ctypes
import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.goals import Measured
from bench.memory import peak_mib
from bench.steps import seconds_a_step
from bench.stopwatch import Way, interleaved, ratio
from train.objectives.queues import Queue

SIZE, WIDTH = 65_536, 256
CPU_VIEWS, GPU_VIEWS = 32, 512
NEIGHBOURS = 2048
TAU = 0.2


def measure(repeats: int) -> Iterator[Measured]:
    """Seconds, then memory beside the queue's own."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    views = GPU_VIEWS if device.type == "cuda" else CPU_VIEWS
    ways = ways_of(device, views)
    spent = interleaved(ways, repeats, timer=partial(seconds_a_step, device))
    subject = f"{views} x {WIDTH} {device.type}"
    seconds = {way: min(rounds) for way, rounds in spent.items()}
    facts = {"seconds": spent, "queue": SIZE, "device": device.type}
    yield Measured("queue", subject, ratio(spent, "ours", "plain"), facts=facts)
    extra = {name: extra_mib(way, device) for name, way in ways.items()}
    facts = {"extra_mib": extra, "least_seconds": seconds}
    yield Measured("queue memory", subject, extra["ours"], extra["plain"], facts=facts)


def ways_of(device: torch.device, views: int) -> dict[str, Way]:
    """A step with our queue, and with a copy of it in every step."""
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(views, WIDTH, generator=generator).to(device)
    queue, plain = (kind(SIZE, WIDTH).to(device) for kind in (Queue, PlainQueue))
    filled = torch.randn(SIZE, WIDTH, generator=generator).to(device)
    for one in (queue, plain):
        one.append(filled)
    return {"ours": partial(step, queue, given), "plain": partial(step, plain, given)}


class PlainQueue(Queue):
    """As one would write it: what has a gradient is compared with a clone."""

    def scores(self, queries: Tensor) -> Tensor:
        """Dot products with every row."""
        rows = self.entries.clone() if queries.requires_grad else self.entries
        return queries @ rows.T


def step(queue: Queue, given: Tensor) -> Tensor:
    """What a contrastive term does with a queue; the gradient of the anchors."""
    anchors = F.normalize(given, dim=1).requires_grad_()
    views = anchors.detach()
    _, rows = queue.nearest(views, NEIGHBOURS)
    logits = queue.scores(anchors) / TAU
    loss = logits.gather(1, rows).logsumexp(dim=1).mean()
    queue.append(views)
    (gradient,) = torch.autograd.grad(loss, anchors)
    return gradient


def extra_mib(way: Way, device: torch.device) -> float:
    """By how much a run raises what is held at a time: on the GPU, or resident in this process.

    Raises:
        OSError: the kernel does not let the mark of VmHWM be set back.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        way()
        return (torch.cuda.max_memory_allocated(device) - held) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would be taken again, unseen
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mib()
    way()
    return peak_mib() - before
