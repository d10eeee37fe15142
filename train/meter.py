"""Numbers of each step: checked, written to metrics.jsonl, told in a progress line.

A step's numbers are sent to the host as soon as they are computed and looked at one step late, so
that the GPU always has the next step to do while the host reads; they are averaged over ranks.
Whatever is not finite ends the run with the facts a person needs.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor

from train import checkpoint
from train.batch import Batch
from train.dist import Ranks
from train.errors import TrainError
from train.guard import Guard
from train.session import Run, Stopwatch

log = logging.getLogger(__name__)

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "V100": 125}
"""Dense bf16 (V100: fp16), from the data sheets."""
SHOWN = ("loss_g", "loss_l", "a2v_r1", "a2v_r1_sync", "a2v_r1_memory")
"""Facts of a method that come first on the progress line, where it gives them;"""
SHOWN_ENDINGS, MOST_SHOWN = ("_accuracy", "_r1"), 4
"""after them what ends so: its own tasks. The rest is in metrics.jsonl."""
MUCH_WAITING = 0.1
"""From this share of a step's time on the wait for data is told."""

SHOWN_CLIPS = 32
"""Of those that made a loss NaN: a usual batch."""


class NotFiniteError(TrainError):
    """The loss or a gradient is NaN or infinite."""


@dataclass
class Meter:
    """Follows one run on one rank."""

    run: Run
    device: torch.device
    clips_per_step: int
    """Over all ranks and accumulated batches."""
    last_step: int
    """Where this call ends, for the ETA."""
    log_every: int
    flop_per_clip: float | None = None
    """Forward and backward; None gives no MFU."""
    ranks: Ranks = field(default_factory=Ranks)
    guard: Guard = field(default_factory=Guard)
    """The loader's count of clips that could not be read."""
    watch: Stopwatch = field(default_factory=Stopwatch)
    clips_compared: int | None = None
    """Clips among which `a2v_r1` looks for one; None says no chance level."""
    _pending: dict[str, Any] | None = None
    _recent: list[float] = field(default_factory=list)
    """Seconds of the steps since the last progress line."""
    _steps: int = 0
    """Of this call."""
    _between: float = 0.0
    """Seconds between steps, for measurements and checkpoints, in this call."""

    def next_of(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time it takes counts as waiting."""
        start = time.perf_counter()
        batch = next(batches)
        self.watch.waiting(time.perf_counter() - start)
        return batch

    def record(self, step: int, epoch: float, facts: Sequence[dict[str, Tensor]], rate: float,
               norm: Tensor, keys: Sequence[tuple[str, ...]]) -> None:  # fmt: skip
        """Note a step; numbers of the step before are read now.

        Args:
            step: its number.
            epoch: how far the run is.
            facts: of each batch whose gradients were added up; their means are recorded.
            rate: the learning rate.
            norm: of the gradient.
            keys: of the clips of each batch.
        """
        tensors = [*(value for one in facts for value in one.values()), norm]
        values = sent_to_host(torch.stack([value.detach().float() for value in tensors]))
        self.flush()
        seconds, waited = self.watch.lap()
        self._pending = {
            "step": step, "epoch": epoch, "names": list(facts[0]), "values": values, "lr": rate,
            "keys": keys, "seconds": seconds, "waited": waited,
        }  # fmt: skip

    def pause(self) -> None:
        """What happened since the last step was no part of a step; the ETA counts it, though."""
        self._between += self.watch.lap()[0]

    def flush(self) -> None:
        """Read, check and write what is pending.

        Raises:
            NotFiniteError: a loss or gradient is not.
        """
        if self._pending is None:
            return
        step, self._pending = self._pending, None
        names, (*values, norm) = step["names"], step["values"]()
        batches = [dict(zip(names, values[i:], strict=False))
                   for i in range(0, len(values), len(names))]  # fmt: skip
        means = [sum(one[name] for one in batches) / len(batches) for name in names]
        *means, replaced = self.ranks.mean([*means, norm, float(self.guard.clips)])
        facts = dict(zip([*names, "grad_norm"], means, strict=True))
        self._check(step, facts, batches)
        line = {
            "step": step["step"],
            "epoch": round(step["epoch"], 4),
            **facts,
            "lr": step["lr"],
            **self._speed(step["seconds"], step["waited"]),
            **self.guard.facts(self.ranks, replaced),
            "time": round(time.time(), 3),
        }
        self.run.record(line)
        if step["step"] % self.log_every == 0 or step["step"] == self.last_step:
            log.info("%s", self._progress(line))

    def _speed(self, seconds: float, waited: float) -> dict[str, Any]:
        self._recent.append(seconds)
        self._steps += 1
        flop = (self.flop_per_clip or 0) * self.clips_per_step / self.ranks.world
        peak = peak_flops(self.device)
        return {
            "clips_per_second": round(self.clips_per_step / seconds, 3),
            "step_seconds": round(seconds, 5),
            "data_wait_share": round(waited, 4),
            "memory_bytes": memory_bytes(self.device),
            "mfu": round(flop / seconds / peak, 4) if peak and flop else None,
        }

    def _progress(self, line: dict[str, Any]) -> str:
        seconds = self._seconds_a_step()
        left = int((self.last_step - line["step"]) * (seconds + self._between / self._steps))
        facts = ", ".join(self._shown(name, line) for name in ("loss", *told(line)))
        waited = line["data_wait_share"]
        waiting = f", waiting {waited:.0%} for data" if waited >= MUCH_WAITING else ""
        mfu = f", mfu {line['mfu']:.0%}" if line["mfu"] else ""
        return (
            f"step {line['step']}/{self.last_step}, epoch {line['epoch']:.2f}: {facts} | "
            f"{seconds * 1000:.0f} ms/step, {self.clips_per_step / seconds:.1f} clips/s"
            f"{waiting}{mfu}, ETA {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        )

    def _seconds_a_step(self) -> float:
        """Mean since the last progress line; without a call's first step, in which readers start.

        A mean, so that steps a line times it are the seconds between two lines.
        """
        recent, self._recent = self._recent, []
        if self._steps == len(recent) > 1:
            recent = recent[1:]
        return sum(recent) / len(recent)

    def _shown(self, name: str, line: dict[str, Any]) -> str:
        chance = line.get(f"{name}_chance")
        if name == "a2v_r1" and self.clips_compared:
            chance = 1 / self.clips_compared
        return f"{name} {line[name]:.3f}" + (f" (chance {chance:.3f})" if chance else "")

    def _check(
        self, step: dict[str, Any], facts: dict[str, float], batches: list[dict[str, float]]
    ) -> None:
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(facts[name])]
        if bad:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in facts.items())
            saved = checkpoint.checkpoints(self.run.checkpoints)
            go_on = (
                "No checkpoint holds this step. Go on from the last one in another RUN: --init "
                f"{self.run.folder}" if saved else "There is no checkpoint yet: begin another RUN"
            )  # fmt: skip
            raise NotFiniteError(
                f"{' and '.join(bad)} not finite at step {step['step']} (epoch "
                f"{step['epoch']:.3f}): {shown}; learning rate {step['lr']:.3g}; "
                f"{_clips_at_fault(step['keys'], facts, batches)}. {go_on} with a smaller --lr, "
                "--precision fp32 or --model.sim cosine"
            )


def _clips_at_fault(
    keys: Sequence[tuple[str, ...]], facts: dict[str, float], batches: list[dict[str, float]]
) -> str:
    """The clips of those batches whose loss is not finite; of all, where only a gradient is not."""
    wrong = [not math.isfinite(one["loss"]) for one in batches]
    if not any(wrong) and not math.isfinite(facts["loss"]):
        return "the clips are another rank's, which names them"
    chosen = [one for one, is_wrong in zip(keys, wrong, strict=True) if is_wrong or not any(wrong)]
    clips = [key for batch in chosen for key in batch]
    more = f" and {len(clips) - SHOWN_CLIPS} more" if len(clips) > SHOWN_CLIPS else ""
    return f"clips {', '.join(clips[:SHOWN_CLIPS])}{more}"


def told(line: dict[str, Any]) -> list[str]:
    """Names of the facts that are on the progress line."""
    known = [name for name in SHOWN if line.get(name) is not None]
    own = [name for name in line if name.endswith(SHOWN_ENDINGS) and name not in SHOWN]
    return known + own[:MOST_SHOWN]


def sent_to_host(values: Tensor) -> Callable[[], list[float]]:
    """Send numbers on their way without waiting; what is returned waits for them, and only them.

    Asking for them later would be too late: a copy is done in order, after all the work that has
    been handed to the GPU by then.
    """
    if values.device.type != "cuda":
        return values.tolist
    there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    there.copy_(values, non_blocking=True)
    sent = torch.cuda.current_stream(values.device).record_event()

    def wait() -> list[float]:
        sent.synchronize()
        return there.tolist()

    return wait


def memory_bytes(device: torch.device) -> int:
    """Peak on the GPU; resident memory of this process elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def peak_flops(device: torch.device) -> float | None:
    """What the GPU could do; None for one that is not in the table, and for a CPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((tera * 1e12 for known, tera in PEAK_TFLOPS.items() if known in name), None)
