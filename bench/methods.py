"""The step of each method over its encoders alone: what losses, banks and heads cost beside them.

Both are forward and backward on one batch of random numbers, of the preset `tiny` on a CPU and of
the first preset on a GPU. Encoders alone are `module.features` of every view and every stretch of
sound that the method looks at, each once.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.goals import Measured
from bench.steps import seconds_a_step
from bench.stopwatch import Way, interleaved, ratio
from train.batch import Batch
from train.config import PretrainConfig
from train.cuts import RunFacts, reads_of
from train.evaluation.encoders import Clips
from train.methods import METHODS
from train.pretrain import build_model

CPU_CLIPS, GPU_CLIPS = 4, 32
INSTANCES = 10_000
"""Clips that banks remember."""


def measure(repeats: int) -> Iterator[Measured]:
    """A line a method."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for method, entry in METHODS.items():
        preset = entry.default_preset if device.type == "cuda" else "tiny"
        ways = ways_of(method, preset, device)
        spent = interleaved(ways, repeats, timer=partial(seconds_a_step, device))
        facts = {"preset": preset, "device": device.type, "seconds": spent}
        yield Measured(
            "method", f"{method} {preset}", ratio(spent, "step", "encoders"), facts=facts
        )


def ways_of(method: str, preset: str, device: torch.device) -> dict[str, Way]:
    """The whole method, and its encoders alone."""
    config: PretrainConfig[Any] = PretrainConfig(METHODS[method].presets[preset], method, preset)
    model: Any = build_model(config, device, RunFacts(INSTANCES, 1000, 100))
    batch = ready_batch(config.model, CPU_CLIPS if device.type == "cpu" else GPU_CLIPS).to(device)
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    def step() -> None:
        with half:
            loss = model(batch)["loss"]
        loss.backward()
        model.zero_grad(set_to_none=True)

    def encoders() -> None:
        with half:
            maps = [x for clips in seen_by(batch) for x in model.features(clips).values()]
            total = torch.stack([x.float().mean() for x in maps if x.requires_grad]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    return {"step": step, "encoders": encoders}


def ready_batch(model: Any, clips: int) -> Batch:
    """What augmentation would give; what is in it does not change how long it takes."""
    generator = torch.Generator().manual_seed(0)
    given: dict[str, Any] = {
        name: torch.randn((clips, *shape), generator=generator)
        for name, shape in model.input_shapes.items()
    }
    widths: dict[str, int] = getattr(model, "input_numbers", {})
    return Batch(
        **{"mel": None, **given},
        numbers={name: torch.zeros(clips, n, dtype=torch.int64) for name, n in widths.items()},
        views=reads_of(model).views,
        instance=torch.arange(clips),
        start=torch.zeros(clips, dtype=torch.int64),
        keys=tuple(f"random/{number}" for number in range(clips)),
    )


def seen_by(batch: Batch) -> list[Clips]:
    """Each view, with mel where there is some, and each stretch of waveform."""
    views = batch.video.unbind(1) if batch.views > 1 else (batch.video,)
    stretches: list[Tensor] = []
    if batch.wave is not None:
        stretches = [batch.wave[:, k : k + 1] for k in range(batch.wave.shape[1])]
    return [
        *(Clips(view, batch.mel, None) for view in views),
        *(Clips(None, None, wave) for wave in stretches),
    ]
