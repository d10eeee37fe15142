"""The training step of each preset: time, MFU, memory, the largest batch; on a GPU or a CPU.

Three ways over the same clips of random bytes, interleaved:

    ours       the trainer's own functions: augmentation on the device, its precision and memory
               format, losses, clipping of gradients, fused Adam
    plain      the same model as one would train it in an afternoon: fp32, eager, torch's defaults
               (on a GPU convolutions in TF32, matrix products not; kernels are not tried out), the
               loss read after every step; no augmentation
    encoders   forward and backward of the encoders alone, in the trainer's precision and format

Seconds are those of the clock on a GPU, from one synchronisation to the next, and CPU seconds on a
CPU. `python -m bench.steps PRESET BATCH` does a few steps in a process of its own, so that a CPU's
memory can be told apart, too.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from bench.goals import Measured
from bench.memory import peak_mib
from bench.stopwatch import Way, interleaved, timed
from train.augment import PLAIN_SIDE, Augment, centre
from train.batch import Batch
from train.config import PretrainConfig
from train.describe import describe_config
from train.dist import Ranks
from train.errors import TooLargeError
from train.meter import peak_flops
from train.methods import METHODS
from train.pretrain import build_model, forward_backward, parallel_model

METHOD, CPU_PRESET = "glcm", "tiny"
GPU_BATCH = 32
MOST_CLIPS = 4096
STEPS_A_ROUND = {"cuda": 10, "cpu": 1}


@dataclass(frozen=True)
class Step:
    """One row of the table."""

    preset: str
    device: str
    batch: int
    """Clips."""
    precision: str
    step_ms: float
    clips_per_second: float
    plain_ms: float
    """The eager fp32 loop."""
    encoders_ms: float
    """Forward and backward of the encoders alone."""
    compiled_ms: float | None
    """With torch.compile; None where that was not asked for."""
    mfu: float | None
    """Share of the device's peak; None where that is not known."""
    peak_memory_mib: float
    """Allocated on a GPU; resident in a process of its own on a CPU."""
    plain_memory_mib: float | None
    """Of the eager fp32 loop, on a GPU."""
    largest_batch: int | None
    """That fits; None on a CPU."""


def measure(presets: tuple[str, ...], repeats: int, *, compiled: bool = False) -> Iterator[Step]:
    """Rows, of all presets on a GPU and of `tiny` on a CPU if none is named."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = tuple(METHODS[METHOD].presets)
    for preset in presets or (known if device.type == "cuda" else (CPU_PRESET,)):
        yield row(preset, device, repeats, compiled=compiled)


def row(preset: str, device: torch.device, repeats: int, *, compiled: bool = False) -> Step:
    """Measure one preset."""
    config = config_of(preset, device)
    batch = random_batch(config, config.clips_per_batch, device)
    ways: dict[str, Way] = {
        "ours": trainer_step(config, batch, device),
        "plain": plain_step(config, batch, device),
        "encoders": encoders_step(config, batch, device),
    }
    if compiled:
        ways["compiled"] = trainer_step(replace(config, compile=True), batch, device)
    spent = interleaved(ways, repeats, timer=partial(seconds_a_step, device))
    seconds = {way: min(rounds) for way, rounds in spent.items()}
    ways.clear()
    flop = describe_config(METHOD, config.model)["gflop_per_clip"]["forward_backward"] * 1e9
    peak = peak_flops(device)
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else "cpu"
    return Step(
        preset=preset,
        device=name,
        batch=len(batch),
        precision="bf16" if on_gpu else "fp32",
        step_ms=1000 * seconds["ours"],
        clips_per_second=len(batch) / seconds["ours"],
        plain_ms=1000 * seconds["plain"],
        encoders_ms=1000 * seconds["encoders"],
        compiled_ms=1000 * seconds["compiled"] if compiled else None,
        mfu=flop * len(batch) / seconds["ours"] / peak if peak else None,
        peak_memory_mib=(
            gpu_peak_mib(trainer_step, config, batch, device)
            if on_gpu
            else cpu_peak_mib(preset, len(batch))
        ),
        plain_memory_mib=gpu_peak_mib(plain_step, config, batch, device) if on_gpu else None,
        largest_batch=largest(partial(fits, config, device), len(batch)) if on_gpu else None,
    )


# --- the ways -----------------------------------------------------------------------------------


def config_of(preset: str, device: torch.device) -> PretrainConfig[Any]:
    """The trainer's defaults; batch 32 on a GPU, as on a CPU the preset's own."""
    size = GPU_BATCH if device.type == "cuda" else None
    model = METHODS[METHOD].presets[preset]
    return PretrainConfig(model, METHOD, preset, batch_size=size, device=str(device))


def random_batch(config: PretrainConfig[Any], clips: int, device: torch.device) -> Batch:
    """A batch as loaded; what is in it does not change how long it takes."""
    generator = torch.Generator().manual_seed(0)
    frames, side = config.model.frames, round(config.model.crop / PLAIN_SIDE)
    shape = (clips, frames, side, side, 3)
    mel = torch.randn((clips, *config.model.input_shapes["mel"]), generator=generator)
    return Batch(
        video=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        mel=mel.half(),
        instance=torch.arange(clips),
        start=torch.zeros(clips, dtype=torch.int64),
        keys=tuple(f"random/{number}" for number in range(clips)),
    ).to(device)


def trainer_step(config: PretrainConfig[Any], batch: Batch, device: torch.device) -> Way:
    """The inner lines of `train.pretrain.train`, without loading and writing."""
    model = build_model(config, device)
    weights = list(model.parameters())
    optimizer = torch.optim.Adam(weights, config.lr, config.betas, fused=True)
    parallel = parallel_model(model, config, Ranks(device=device))
    augment = Augment(config.augment, config.model.crop, config.seed)

    def step() -> None:
        forward_backward(parallel, augment(batch, 0), config, device, True)
        nn.utils.clip_grad_norm_(weights, config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def plain_step(config: PretrainConfig[Any], batch: Batch, device: torch.device) -> Way:
    """Eager, fp32, contiguous, with cuDNN's flags as torch sets them: as the tutorials have it."""
    model: nn.Module = METHODS[METHOD].module(config.model).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), config.lr)
    clips = centre(batch, config.model.crop)

    def step() -> float:
        optimizer.zero_grad()
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=False, allow_tf32=True
        ):
            loss = model(clips)["loss"]
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        return float(loss.item())

    return step


def encoders_step(config: PretrainConfig[Any], batch: Batch, device: torch.device) -> Way:
    """What the method cannot do without: its encoders, forth and back."""
    model: Any = build_model(config, device)
    clips = centre(batch, config.model.crop)
    slow = clips.video[:, :, :: config.model.slow_step]

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            outputs = [model.fast(clips.video), model.audio(clips.mel)]
            outputs += [model.slow(slow)] if model.slow is not None else []
            total = torch.stack([output.float().mean() for output in outputs]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    return step


# --- time and memory ----------------------------------------------------------------------------


def seconds_a_step(device: torch.device, way: Way) -> float:
    """Of a few steps in a row, so that on a GPU they may overlap as they do in training."""
    steps = STEPS_A_ROUND[device.type]
    if device.type != "cuda":
        return timed(lambda: [way() for _ in range(steps)]) / steps
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(steps):
        way()
    torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / steps


def gpu_peak_mib(
    make: Callable[..., Way], config: PretrainConfig[Any], batch: Batch, device: torch.device
) -> float:
    """Most memory that is allocated in two steps: the optimiser's state comes with the first."""
    _forget()
    torch.cuda.reset_peak_memory_stats(device)
    way = make(config, batch, device)
    way(), way()
    return torch.cuda.max_memory_allocated(device) / 2**20


def cpu_peak_mib(preset: str, batch: int) -> float:
    """Most memory a fresh process had resident in two steps, torch itself included."""
    command = [sys.executable, "-m", "bench.steps", preset, str(batch)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def fits(config: PretrainConfig[Any], device: torch.device, clips: int) -> bool:
    """Whether two steps with so many clips go through."""
    _forget()
    try:
        way = trainer_step(config, random_batch(config, clips, device), device)
        way(), way()
        torch.cuda.synchronize(device)
    except (TooLargeError, torch.OutOfMemoryError):
        return False
    return True


def largest(fits: Callable[[int], bool], start: int, most: int = MOST_CLIPS) -> int:
    """The largest number that fits, to an eighth of a power of two; 0 if `start` does not.

    Args:
        fits: whether a number does; whatever is smaller than one that fits fits, too.
        start: where to begin.
        most: where to stop asking.
    """
    good, bad = 0, start
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    grain = max(good // 8, 1)
    while good and bad <= most and bad - good > grain:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def _forget() -> None:
    """Give back what earlier trials held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- text ---------------------------------------------------------------------------------------

HEADINGS = ("preset", "batch", "ms/step", "clips/s", "MFU", "x encoders", "plain fp32 ms", "gain",
            "compiled ms", "peak MiB", "plain MiB", "largest batch")  # fmt: skip


def rendered(rows: list[Step]) -> str:
    """The table; says so where there is no GPU."""
    cells = [HEADINGS, *(_cells(step) for step in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(HEADINGS))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    return "\n".join(
        [f"steps of the trainer on {rows[0].device}", *lines, NOTE[rows[0].device == "cpu"]]
    )


NOTE = {
    True: (
        "No GPU here: CPU seconds of the small preset only; MFU, memory of a device and the "
        "largest batches were\nnot measured. The same command measures them where torch sees one."
    ),
    False: "Seconds by the clock, the quickest round of each; MiB as allocated by torch.",
}


def _cells(step: Step) -> tuple[str, ...]:
    return (
        step.preset,
        str(step.batch),
        f"{step.step_ms:.1f}",
        f"{step.clips_per_second:.1f}",
        "-" if step.mfu is None else f"{step.mfu:.1%}",
        f"{step.step_ms / step.encoders_ms:.2f}",
        f"{step.plain_ms:.1f}",
        f"{step.plain_ms / step.step_ms:.2f}",
        "-" if step.compiled_ms is None else f"{step.compiled_ms:.1f}",
        f"{step.peak_memory_mib:.0f}",
        "-" if step.plain_memory_mib is None else f"{step.plain_memory_mib:.0f}",
        "-" if step.largest_batch is None else str(step.largest_batch),
    )


def as_json(rows: list[Step]) -> list[dict[str, Any]]:
    """Rows as JSON types."""
    return [asdict(step) for step in rows]


def goals(rows: list[Step]) -> list[Measured]:
    """What is promised: the default preset at batch 32 on the GPU the promise is about."""
    return [
        Measured("step", step.device, step.step_ms, step.plain_ms)
        for step in rows
        if step.preset == "glcm_r18" and step.batch == GPU_BATCH and "H200" in step.device
    ]


def main(arguments: list[str]) -> None:
    """Two steps on the CPU; prints this process's peak in MiB."""
    device = torch.device("cpu")
    config = config_of(arguments[0], device)
    way = trainer_step(config, random_batch(config, int(arguments[1]), device), device)
    way(), way()
    sys.stdout.write(json.dumps(peak_mib(os.getpid())))


if __name__ == "__main__":
    main(sys.argv[1:])
