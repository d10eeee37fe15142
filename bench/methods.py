"""The step of each method over its encoders alone: what losses, banks and heads cost beside them.

Both are forward and backward on one batch of random numbers, of the preset `tiny` on a CPU and of
the first preset on a GPU. Encoders alone are the same calls of the same networks as in a step, with
the same inputs, and the mean of what they give in the place of losses.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map_only

from bench.goals import Measured
from bench.steps import seconds_a_step
from bench.stopwatch import Way, interleaved, ratio
from train.batch import Batch
from train.config import PretrainConfig
from train.cuts import RunFacts, reads_of
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

    calls = calls_of_encoders(model, lambda: model(batch))

    def encoders() -> None:
        with half:
            maps = [called(call) for call in calls]
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


@dataclass(frozen=True)
class Call:
    """An encoder's turn in a step."""

    encoder: nn.Module
    inputs: tuple[Any, ...]
    learns: bool
    """Momentum encoders do not."""


def calls_of_encoders(model: nn.Module, step: Callable[[], object]) -> list[Call]:
    """Which encoders a step calls, and with what.

    An encoder is a network of `train.models` that says how many channels it gives, and that is not
    part of another one.
    """
    calls: list[Call] = []

    def note(encoder: nn.Module, inputs: tuple[Any, ...]) -> None:
        given = tree_map_only(Tensor, Tensor.detach, inputs)
        calls.append(Call(encoder, given, torch.is_grad_enabled()))

    handles = [encoder.register_forward_pre_hook(note) for encoder in _encoders(model)]
    step()
    for handle in handles:
        handle.remove()
    return calls


def _encoders(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        is_ours = type(child).__module__.startswith("train.models.")
        if is_ours and hasattr(child, "out_channels") and not isinstance(child, _ConvNd):
            yield child
        else:
            yield from _encoders(child)


def called(call: Call) -> Tensor:
    """The last map of an encoder's turn."""
    with torch.set_grad_enabled(call.learns):
        output: Any = call.encoder(*call.inputs)
    while not isinstance(output, Tensor):  # several paths give several maps
        maps = vars(output) if is_dataclass(output) else dict(enumerate(output))
        output = list(maps.values())[-1]
    return output
