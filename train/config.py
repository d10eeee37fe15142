"""What a pretraining run is: one frozen dataclass with the method's own config inside.

Built from flags by `train.__main__`, stored as RUN/config.json, read again by `--config`. Fields
that say only how a run is carried out may change when it is resumed; all others may not.
"""

import dataclasses
import json
import math
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

import torch
import tyro

from train.augment import AugmentConfig
from train.cache import Cache
from train.cuts import Reads, reads_of
from train.errors import UsageError
from train.fields import names_of
from train.guard import Guard
from train.view import View

M = TypeVar("M")
Precision = Literal["auto", "bf16", "fp32"]
RUNS = Path("runs")
PAPER_BATCH = 32
TINY_BATCH = 4


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether networks run under bf16 autocast on a device."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


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
    allow_http: bool = False
    """Read shards from web servers (http, https), too."""
    cache_gb: float = 0.0
    """Gigabytes (10^9 bytes) of shards from s3, gs or http to keep on a local disk; 0 is none."""
    cache_dir: Path | None = None
    """Where they are kept, shared by all processes of a host; None is DATA/cache."""
    on_bad_shard: Literal["raise", "skip"] = "raise"
    """A clip that cannot be read ends the run, or is replaced by another one and counted."""
    max_bad_shards: int = 10
    """With `skip`: more shards with such clips, over all ranks, end the run."""
    run: Annotated[str, tyro.conf.arg(aliases=("--run-dir",))] = ""
    """Name of a folder below runs/, or a path; empty is METHOD-PRESET. Under torchrun write
    --run-dir, because torchrun takes --run for one of its own flags."""
    split: str = "train"
    """Which split is read."""
    fields: str = ""
    """Fields that were added to the sets (`python -m pipeline add-field`), with commas between:
    `lip,embed` come with each clip, a mel takes the place of the samples' own."""
    where: str | None = None
    """Only clips for which this is true, of all sets and of the held-out split, too: such as
    "silent == false and face_rate > 0.8"; `python -m pipeline report OUT --where` counts them."""
    without: Path | None = None
    """Leave out the clips that a file lists: .parquet or .csv with a column `key`, as `python -m
    pipeline leaks` writes it, or a text of one key a line."""
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
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam, Adam with decoupled weight decay, or gradient descent with momentum."""
    lr: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam and AdamW."""
    momentum: float = 0.9
    """Of sgd, 0 .. 1."""
    weight_decay: float = 0.0
    """Added to the gradient; AdamW decouples it."""
    warmup_steps: int = 500
    """Steps of linear warm-up, at most a tenth of the schedule."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 is off."""
    init: Path | None = None
    """Checkpoint, or folder of a run, whose weights a new run starts from; also s3://, gs://."""
    copy_to: str = ""
    """s3://bucket/runs/first or gs://...: a copy of the run, brought up to date after every
    checkpoint. Where RUN is empty, as on a fresh machine, the run goes on from its copy."""
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
    learnt; None is 500 where the shards have that split, 0 is off."""
    val_split: str = "val"
    """The held-out split."""
    allow_overlap: bool = False
    """Measure although held-out clips are trained on, too; for trying things out."""
    val_clips: int = 512
    """At most so many held-out clips, rounded up to whole batches; the same ones each time."""
    knn: int = 0
    """Every so many of those measurements classify the held-out clips by their neighbours among
    the training clips (frozen features, labels of the shards); it then chooses `best` together
    with retrieval. 0 is off."""
    log_every: int = 10
    """Steps between progress lines; metrics.jsonl has every step."""
    page: bool = True
    """Write RUN/report.html, the run's curves and facts, at held-out measurements and at the end;
    measurements that follow quickly share a page, so that it takes 2 % of the time at most."""
    wandb: str = ""
    """Name of a W&B project that gets the numbers, too; WANDB_MODE=offline keeps them in RUN."""
    profile: int = 0
    """After a few steps of warm-up print where the time of so many steps goes, and trace as many
    to RUN/trace-*.json.gz (for ui.perfetto.dev or chrome://tracing). 0 is off."""

    def __post_init__(self) -> None:
        """Ranges."""
        object.__setattr__(self, "betas", tuple(self.betas))
        least = {"epochs": 1, "accumulation": 1, "checkpoint_every": 1, "keep": 1, "log_every": 1,
                 "val_clips": 1, "warmup_steps": 0, "clip_norm": 0, "weight_decay": 0,
                 "cache_gb": 0, "max_bad_shards": 0, "knn": 0, "profile": 0}  # fmt: skip
        for name, low in least.items():
            _at_least(name, getattr(self, name), low)
        for name, low in {
            "schedule_steps": 1,
            "max_steps": 1,
            "batch_size": 1,
            "threads": 1,
            "workers": 0,
            "val_every": 0,
        }.items():
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), low)
        if not 0 < self.lr < math.inf:
            raise UsageError(f"lr is {self.lr}; expected more than 0")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum is {self.momentum}; expected 0 to less than 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas is {self.betas}; expected two numbers from 0 to less than 1")
        if self.knn and self.val_every == 0:
            raise UsageError(
                "--knn counts measurements on held-out clips, and there are none; give --val-every"
            )

    @property
    def clips_per_batch(self) -> int:
        """On one device."""
        return clips_per_batch(self.batch_size, self.preset)

    @property
    def reads(self) -> Reads:
        """What is read of each clip: what the method wants, and the fields."""
        reads = reads_of(self.model)
        both = dict.fromkeys((*reads.fields, *names_of(self.fields)))
        return dataclasses.replace(reads, fields=tuple(both))

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        name = self.run or f"{self.method}-{self.preset.removeprefix(self.method + '_')}"
        return Path(name) if "/" in name else RUNS / name

    def uses_bf16(self, device: torch.device) -> bool:
        """Whether the model runs under bf16 autocast there."""
        return uses_bf16(self.precision, device)

    def cache(self) -> Cache | None:
        """The folder for shards from elsewhere, made if it is wished for.

        Raises:
            UsageError: it cannot be written.
        """
        folder = self.cache_dir or self.data / "cache"
        return Cache(folder.expanduser(), int(self.cache_gb * 1e9)) if self.cache_gb else None

    def view(self) -> View:
        """Which clips pass."""
        return View(self.where, self.without)

    def guard(self) -> Guard:
        """What to do about clips that cannot be read."""
        return Guard(self.on_bad_shard == "skip", self.max_bad_shards)

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return plain


FREE_FIELDS = {
    "run", "data", "max_steps", "batch_size", "accumulation", "compile", "device", "threads",
    "workers", "checkpoint_every", "keep", "log_every", "init", "precision", "val_every",
    "val_split", "val_clips", "allow_overlap", "epochs", "schedule_steps", "shards", "allow_http",
    "cache_gb", "cache_dir", "copy_to", "on_bad_shard", "max_bad_shards", "knn", "page", "wandb",
    "profile", "fields", "without",
}  # fmt: skip
"""What may differ between a run and its resumption: how it is carried out and how long. Paths of
shards and of lists may move; that they hold the same clips and fields is checked by their
fingerprint."""


def differences(stored: dict[str, Any], config: PretrainConfig[Any]) -> list[str]:
    """Fields in which a resumed run's config may not, but does, differ from the stored one."""
    ours, theirs = flat(config.as_dict()), flat(stored)
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


def clips_per_batch(batch_size: int | None, preset: str) -> int:
    """Clips a batch on one device, where a config says it and where it does not."""
    return batch_size or (TINY_BATCH if preset.startswith("tiny") else PAPER_BATCH)


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"tau": 1}} -> {"model.tau": 1}."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _at_least(name: str, value: float, low: float) -> None:
    if not low <= value < math.inf:  # nor NaN
        raise UsageError(f"{name} is {value}; expected {low} or more")
