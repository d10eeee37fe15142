"""What a pretraining run is: one frozen dataclass with the method's own config inside.

Built from flags by `train.__main__`, stored as RUN/config.json, read again by `--config`. Fields
that say only how a run is carried out may change when it is resumed; all others may not.
"""

import dataclasses
import json
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro

from train.augment import AugmentConfig
from train.errors import UsageError

M = TypeVar("M")
Precision = Literal["auto", "bf16", "fp32"]
RUNS = Path("runs")
PAPER_BATCH = 32
TINY_BATCH = 4


@dataclass(frozen=True)
class PretrainConfig(Generic[M]):
    """One pretraining run."""

    model: M
    """The method's own config, such as --model.n-slow 4."""
    method: str = "glcm"
    """What is learned; a name of `train.methods.METHODS`."""
    preset: str = ""
    """Named config of the method; empty takes its first one."""
    shards: str = ""
    """Sets: path, path@n=120000 (a subset of so many clips), path@w=0.5 (times an epoch), with
    commas between; empty takes kinetics400-glcm and avspeech-glcm below DATA/shards."""
    data: Path = Path("data")
    """Where the default shard sets are looked for."""
    run: Annotated[str, tyro.conf.arg(aliases=("--run-dir",))] = ""
    """Name of a folder below runs/, or a path; empty is METHOD-PRESET. Under torchrun write
    --run-dir, because torchrun takes --run for one of its own flags."""
    split: str = "train"
    """Which split is read."""
    seed: int = 0
    """Of weights, order, windows and augmentation."""
    subset_seed: int = 0
    """Of the subsets `@n=`; its own, so that runs with several seeds share their clips."""
    epochs: int = 100
    """Length of the schedule in epochs, >= 1."""
    schedule_steps: int | None = None
    """Length of the schedule in steps, instead of epochs."""
    max_steps: int | None = None
    """Stop after this step; does not change the schedule, and a later call may go on."""
    batch_size: int | None = None
    """Clips a batch on each device; None is 32, with the preset `tiny` 4."""
    accumulation: int = 1
    """Batches whose gradients are added up before each step, >= 1."""
    lr: float = 1e-3
    """Peak learning rate of Adam."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam."""
    weight_decay: float = 0.0
    """Of Adam, added to the gradient."""
    warmup_steps: int = 500
    """Steps of linear warm-up, at most a tenth of the schedule."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 is off."""
    init: Path | None = None
    """Checkpoint, or folder of a run, whose weights a new run starts from."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What happens to pictures and mel on the device."""
    sync_bn: bool = False
    """BatchNorm statistics over all ranks; needs GPUs."""
    precision: Precision = "auto"
    """bf16 autocast or fp32; auto is bf16 on a GPU."""
    compile: bool = False
    """torch.compile the model."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    threads: int | None = None
    """Threads of torch on a CPU; None leaves torch's choice."""
    workers: int | None = None
    """Reading processes of each rank; None is the usable cores less one, 0 reads in the loop."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints that stay."""
    val_every: int | None = None
    """Steps between measurements on the held-out split, which choose `best` and show what was
    learnt; None is every 500 where the shards have that split, 0 is off."""
    val_split: str = "val"
    """The held-out split."""
    val_clips: int = 512
    """At most so many held-out clips, rounded up to whole batches; the same ones each time."""
    log_every: int = 10
    """Steps between progress lines; metrics.jsonl has every step."""

    def __post_init__(self) -> None:
        """Ranges."""
        object.__setattr__(self, "betas", tuple(self.betas))
        least = {"epochs": 1, "accumulation": 1, "checkpoint_every": 1, "keep": 1, "log_every": 1,
                 "val_clips": 1, "warmup_steps": 0, "clip_norm": 0, "weight_decay": 0}  # fmt: skip
        for name, low in least.items():
            _at_least(name, getattr(self, name), low)
        for name, low in {
            "schedule_steps": 1,
            "batch_size": 1,
            "workers": 0,
            "val_every": 0,
        }.items():
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), low)
        if not self.lr > 0:
            raise UsageError(f"lr is {self.lr}; expected more than 0")

    @property
    def clips_per_batch(self) -> int:
        """On one device."""
        tiny = self.preset.startswith("tiny")
        return self.batch_size or (TINY_BATCH if tiny else PAPER_BATCH)

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        name = self.run or f"{self.method}-{self.preset.removeprefix(self.method + '_')}"
        return Path(name) if "/" in name else RUNS / name

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return plain


FREE_FIELDS = {
    "run", "data", "max_steps", "batch_size", "accumulation", "compile", "device", "threads",
    "workers", "checkpoint_every", "keep", "log_every", "init", "precision", "val_every",
    "val_split", "val_clips", "epochs", "schedule_steps", "shards",
}  # fmt: skip
"""What may differ between a run and its resumption: how it is carried out and how long. Paths of
shards may move; that they hold the same clips is checked by their fingerprint."""


def differences(stored: dict[str, Any], config: PretrainConfig[Any]) -> list[str]:
    """Fields in which a resumed run's config may not, but does, differ from the stored one."""
    ours, theirs = _flat(config.as_dict()), _flat(stored)
    return [
        f"{name} was {theirs.get(name)!r}, is {ours.get(name)!r}"
        for name in sorted(ours.keys() | theirs.keys())
        if name.split(".")[0] not in FREE_FIELDS and ours.get(name) != theirs.get(name)
    ]


def from_dict(cls: Any, data: dict[str, Any]) -> Any:
    """A dataclass from the JSON types `as_dict` gives.

    Raises:
        UsageError: a field the class does not have, or a value it refuses.
    """
    hints = get_type_hints(cls)
    unknown = set(data) - {item.name for item in dataclasses.fields(cls)}
    if unknown:
        raise UsageError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
    try:
        return cls(**{name: _typed(hints[name], value) for name, value in data.items()})
    except (TypeError, ValueError) as error:
        raise UsageError(f"{cls.__name__}: {error}") from error


def _typed(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        return _typed(next(one for one in get_args(hint) if one is not type(None)), value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value)
    if get_origin(hint) is tuple:
        return tuple(value)
    return Path(value) if hint is Path else value


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise UsageError(f"{name} is {value}; expected {low} or more")
