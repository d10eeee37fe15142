"""`pretrain --profile N`: where the time of a step goes, and a trace to look at.

After warm-up N steps are timed phase by phase, waiting for the device at each phase's end, and the
next N steps are traced by torch.profiler without such waits, so that the trace shows the overlap
that is really there. They are steps of training like all others.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

log = logging.getLogger(__name__)

PHASES = ("data", "forward", "backward", "optimizer", "saving")
"""`saving` is what happens once in a while: measuring held-out clips, and checkpoints."""
WARMUP_STEPS = 5
"""Steps before: allocators, autotuning and workers settle."""
TOP_OPERATORS = 15


class StepProfile:
    """Follows the loop of one rank; does nothing with `steps=0`."""

    def __init__(self, steps: int, folder: Path, device: torch.device, rank: int = 0) -> None:
        """Begin with the warm-up.

        Args:
            steps: how many are timed, and how many are traced after those.
            folder: the run's.
            device: where the steps are computed.
            rank: goes into the name of the trace.
        """
        self._steps = steps
        self._device = device
        self._folder, self._rank = folder, rank
        self._done = 0
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._whole, self._lap = 0.0, 0.0
        self._profiler: Any = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A part of a step, one of `PHASES`; several times a step where batches are added up."""
        if not self._steps:
            yield
            return
        start = time.perf_counter()
        with record_function(name):
            yield
        if self._is_timing:
            self._wait()
            self._seconds[name] += time.perf_counter() - start

    def end_of_step(self, step: int) -> None:
        """Go on to timing, to tracing, and to the table and the file.

        Args:
            step: finished steps of the run.
        """
        if not self._steps:
            return
        self._done += 1
        if self._done == WARMUP_STEPS:
            self._wait()
            self._lap = time.perf_counter()
        elif self._done == WARMUP_STEPS + self._steps:
            self._wait()
            self._whole = time.perf_counter() - self._lap
            self._start_trace()
        elif self._done == WARMUP_STEPS + 2 * self._steps:
            self._finish(step)

    def abandon(self) -> None:
        """Say so if the loop has ended before the profile had."""
        if self._steps and self._done < WARMUP_STEPS + 2 * self._steps:
            if self._profiler is not None:
                self._profiler.stop()
            log.warning(
                "--profile %d needs %d steps in one call, this one had %d: no trace was written; "
                "give a larger --max-steps, or a smaller --profile",
                self._steps, WARMUP_STEPS + 2 * self._steps, self._done,
            )  # fmt: skip

    @property
    def _is_timing(self) -> bool:
        return WARMUP_STEPS <= self._done < WARMUP_STEPS + self._steps

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _start_trace(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.start()

    def _finish(self, step: int) -> None:
        self._wait()
        self._profiler.stop()
        path = self._folder / f"trace-step{step:08d}-rank{self._rank}.json.gz"
        self._profiler.export_chrome_trace(str(path))
        device = self._device.type
        order = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
        operators = self._profiler.key_averages().table(
            sort_by=order, row_limit=TOP_OPERATORS, max_name_column_width=50
        )
        table = path.with_name(path.name.replace(".json.gz", ".txt"))
        table.write_text(f"operators that take longest, over {self._steps} steps\n{operators}\n")
        log.info("where a step's time goes:\n%s", "\n".join(self.table()))
        log.info("trace of steps %d to %d: %s (open it at ui.perfetto.dev); the operators that "
                 "take longest: %s", step - self._steps + 1, step, path, table.name)  # fmt: skip

    def table(self) -> list[str]:
        """Milliseconds and share of each phase; the rest is metrics and agreeing between ranks."""
        rest = max(self._whole - sum(self._seconds.values()), 0.0)
        return [
            f"  {name:<10} {seconds / self._steps * 1000:9.1f} ms {seconds / self._whole:6.1%}"
            for name, seconds in {**self._seconds, "rest": rest}.items()
        ]
