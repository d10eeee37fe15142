"""`python -m train describe`: how large a method is, and what a clip costs, without computing.

    python -m train describe --preset glcm_code
    python -m train describe --preset tiny --model.n-slow 8 --batch-size 32
    python -m train describe --config runs/first/config.json
    GLAV_PLUGINS=my_package python -m train describe --method my_method

Prints JSON: the config, parameters of each part, GFLOP a clip (forward, forward and backward, each
encoder), and the shapes of inputs, stages and outputs of one clip. The model and its input live on
the meta device, which knows shapes but holds no numbers, so the largest preset is described in
seconds on any machine. A FLOP is half a multiply-add (methods §9).
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from train.cuts import RunFacts
from train.errors import UsageError
from train.methods import method_named

M = TypeVar("M")
CLIPS = 2
"""A contrast needs two clips; counts are divided by them."""
DESCRIBED_RUN = RunFacts(instances=100_000, steps=10_000, steps_per_epoch=1_000)
"""For methods that ask; what they keep of it is no parameter."""


@dataclass(frozen=True)
class DescribeConfig(Generic[M]):
    """What is described."""

    model: M
    """The method's own config, such as --model.n-slow 4."""
    method: str = "glcm"
    """A name of `train.methods.METHODS`, or of a plugin's."""
    preset: str = ""
    """Named config of the method; empty takes its first one."""
    batch_size: int = CLIPS
    """Clips of the batch, >= 2: the losses' cost a clip grows a little with it."""

    def __post_init__(self) -> None:
        """Ranges."""
        if self.batch_size < 2:
            raise UsageError(f"batch_size is {self.batch_size}; a contrast needs 2 clips or more")


def describe(config: DescribeConfig[Any]) -> dict[str, Any]:
    """Size and cost, as JSON types."""
    facts = describe_config(config.method, config.model, config.batch_size)
    return {
        "method": config.method,
        "preset": config.preset,
        "batch_size": config.batch_size,
        **facts,
    }


def describe_config(method: str, config: Any, clips: int = CLIPS) -> dict[str, Any]:
    """Size and cost of any config of a method.

    Returns:
        config: its fields.
        parameters: `total`, and one entry a part of the model.
        gflop_per_clip: `forward`, `forward_backward`, and the forward pass of each encoder. A
            little of the losses' cost grows with the batch.
        shapes: inputs, stages and outputs of one clip, without the batch dimension.
    """
    with torch.device("meta"):
        model: Any = method_named(method).module(config)
        if hasattr(model, "prepare"):
            model.prepare(DESCRIBED_RUN)
        batch = example_batch(config, clips)
    with _recorded_shapes(model) as shapes, FlopCounterMode(display=False) as forward:
        loss = model(batch)["loss"]
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    per_clip = {
        "forward": forward.get_total_flops(),
        "forward_backward": forward.get_total_flops() + backward.get_total_flops(),
        **_flops_of_children(forward, model),
    }
    return {
        "config": dataclasses.asdict(config),
        "parameters": _parameters(model),
        "gflop_per_clip": {part: round(n / clips / 1e9, 4) for part, n in per_clip.items()},
        "shapes": {
            **{name: list(shape) for name, shape in config.input_shapes.items()},
            **shapes,
        },
    }


def example_batch(config: Any, clips: int = CLIPS) -> Any:
    """An empty batch of the config's input shapes on the current default device."""
    shapes = config.input_shapes
    given = {"mel": None, "wave": None}
    widths: dict[str, int] = getattr(config, "input_numbers", {})
    number = torch.zeros(clips, dtype=torch.int64)
    return SimpleNamespace(
        **given | {name: torch.empty(clips, *shape) for name, shape in shapes.items()},
        numbers={name: number.new_zeros(clips, width) for name, width in widths.items()},
        instance=number,
        start=number,
    )


def _parameters(model: nn.Module) -> dict[str, int]:
    parts = {name: _count(child) for name, child in model.named_children()}
    return {"total": _count(model), **{name: n for name, n in parts.items() if n}}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flops_of_children(counter: FlopCounterMode, model: nn.Module) -> dict[str, int]:
    counts = counter.get_flop_counts()
    prefix = type(model).__name__
    flops = {
        name: sum(counts.get(f"{prefix}.{name}", {}).values()) for name, _ in model.named_children()
    }
    return {name: n for name, n in flops.items() if n}


@contextmanager
def _recorded_shapes(model: nn.Module) -> Iterator[dict[str, list[int]]]:
    """Collect the output shapes of the model's parts and of the stages inside them."""
    shapes: dict[str, list[int]] = {}
    named = [(name, module) for name, module in model.named_modules() if 0 <= name.count(".") <= 1]
    handles = [
        module.register_forward_hook(_shape_hook(name, shapes)) for name, module in named if name
    ]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


def _shape_hook(name: str, shapes: dict[str, list[int]]) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 1:
            shapes[name] = list(output.shape[1:])

    return note
