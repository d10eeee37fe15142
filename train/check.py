"""`python -m train check METHOD`: is a method ready to be trained? For whoever writes one.

    python -m train check glcm
    GLAV_PLUGINS=my_package python -m train check my_method --shards data/shards/demo-glcm

On a CPU, with clips of --shards or generated ones, in this order: what forward returns; gradients;
one batch overfitted; one rank against two; a run stopped and resumed. A page shows the batch as the
model sees it.
"""

import json
import logging
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import tyro
from torch import Tensor, nn

from train import checkpoint
from train.augment import PLAIN_SIDE, Augment
from train.batch import Batch
from train.config import RUNS, PretrainConfig
from train.cuts import RunFacts, reads_of
from train.errors import UsageError
from train.generated import FPS, write_generated_set
from train.loader import ClipLoader
from train.methods import method_named, preset_named
from train.mixture import open_mixture, parse_shards, require_mel_slices
from train.plan import Plan
from train.pretrain import PREEMPTED, build_model, facts_of_run, forward_backward, pretrain
from train.session import METRICS

M = TypeVar("M")
log = logging.getLogger(__name__)

GENERATED_BATCHES = 3
"""Batches an epoch of generated clips: a run of four steps is stopped inside an epoch."""
LONGER_FRAMES = 8
"""By how much generated clips are longer than the window, so that windows move."""
RESUME_STEPS, STOP_AT = 4, 2
TWIN_STEPS = 6
"""Of one rank and of two together, for the guess how long it takes."""
OF_THE_MACHINE = {"clips_per_second", "step_seconds", "data_wait_share", "memory_bytes", "mfu",
                  "time"}  # fmt: skip
"""What two equal runs may differ in."""
SHOWN_NAMES = 5


@dataclass(frozen=True)
class CheckConfig(Generic[M]):
    """What is checked, and on what."""

    model: M
    """The method's own config, such as --model.window-M 5."""
    method: tyro.conf.Positional[str]
    """A name of `train.methods.METHODS`, or of a plugin's."""
    preset: str = ""
    """Named config of the method; empty takes `tiny` where there is one, else the first."""
    shards: str = ""
    """Sets as for pretrain; empty generates clips."""
    split: str = "train"
    """Which split of the shards is read."""
    batch_size: int = 4
    """Clips of the batch, an even number."""
    steps: int = 30
    """Steps on the one batch."""
    lr: float = 1e-3
    """Learning rate of these steps."""
    fall: float = 0.3
    """The loss must fall by this share of its first value, 0 .. 1."""
    seed: int = 0
    """Of weights, clips and augmentation."""
    page: Path | None = None
    """Where the page goes; None is runs/check-METHOD.html."""

    def __post_init__(self) -> None:
        """Ranges."""
        if self.batch_size < 2 or self.batch_size % 2:
            raise UsageError(
                f"batch_size is {self.batch_size}; two ranks share it: give an even number of clips"
            )
        if self.steps < 1 or not 0 < self.fall < 1:
            raise UsageError(f"steps is {self.steps}, fall {self.fall}; expected 1 or more, and a "
                             "share between 0 and 1")  # fmt: skip

    def for_pretrain(self, shards: str) -> PretrainConfig[M]:
        """The run that is tried: small, on the CPU, without autocast."""
        how = {
            **method_named(self.method).recipe_of(self.preset),
            "batch_size": self.batch_size, "lr": self.lr, "schedule_steps": RESUME_STEPS,
        }  # fmt: skip
        return PretrainConfig(
            model=self.model, method=self.method, preset=self.preset, shards=shards,
            split=self.split, seed=self.seed, workers=0, device="cpu", precision="fp32",
            checkpoint_every=1, page=False, val_every=0, **how,
        )  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What one check found."""

    name: str
    ok: bool | None
    """None where the check does not apply."""
    said: str

    @property
    def word(self) -> str:
        """For the table."""
        return {True: "ok", False: "FAILED", None: "left out"}[self.ok]


@dataclass
class Trial:
    """What the checks share."""

    check: CheckConfig[Any]
    config: PretrainConfig[Any]
    folder: Path
    """Temporary."""
    batch: Batch
    """Augmented, as the model gets it in step 1."""
    facts: RunFacts
    losses: list[float] = field(default_factory=list)
    """Of the overfitted batch, for the page."""

    def model(self) -> nn.Module:
        """With the weights a run begins with, in training mode."""
        return build_model(self.config, torch.device("cpu"), self.facts)


def default_of(method: str, preset: str | None) -> CheckConfig[Any]:
    """The config that flags are applied to.

    Raises:
        UsageError: unknown method or preset.
    """
    if preset is None:
        presets = method_named(method).presets
        preset = "tiny" if "tiny" in presets else method_named(method).default_preset
    return CheckConfig(model=preset_named(method, preset), method=method, preset=preset)


def check(config: CheckConfig[Any]) -> int:
    """Run all checks, write the page, print the table.

    Returns:
        0 if all is well, 1 if a check failed.

    Raises:
        TrainError: there is no batch to check with: shards are missing or damaged.
    """
    from train.checkpage import write_page

    with tempfile.TemporaryDirectory(prefix="glav-check-") as name, _quiet():
        trial = _prepare(config, Path(name))
        verdicts = list(_verdicts(trial))
    page = config.page or RUNS / f"check-{config.method}.html"
    write_page(page, trial, verdicts)
    log.info("the batch as the model sees it: %s", page)
    return int(any(verdict.ok is False for verdict in verdicts))


def _verdicts(trial: Trial) -> Iterator[Verdict]:
    """One check after the other, each told as soon as it is known, with what comes next.

    How long that takes is told once a step was timed, by the steps a check takes at least.
    """
    seconds_a_step = None
    steps = {"overfit": trial.check.steps, "two ranks": TWIN_STEPS, "resume": 2 * RESUME_STEPS}
    for name, function in CHECKS.items():
        told = function.__doc__ or ""
        about = f" (about {steps[name] * seconds_a_step:.0f} s or more)" if seconds_a_step else ""
        log.info("next: %s%s: %s", name, about, told.strip().rstrip("."))
        start = time.monotonic()
        verdict = _verdict(trial, name, function)
        seconds = time.monotonic() - start
        if name == "gradients":
            seconds_a_step = seconds
        log.info("%-8s %-10s %s (%.0f s)", verdict.word, name, verdict.said, seconds)
        yield verdict


def _prepare(check: CheckConfig[Any], folder: Path) -> Trial:
    shards = check.shards
    if not shards:
        side = -(-check.model.crop // PLAIN_SIDE)
        clips, reads = GENERATED_BATCHES * check.batch_size, reads_of(check.model)
        wave = (reads.wave_rate_hz, reads.wave_channels) if reads.wave_rate_hz else None
        shards = str(
            write_generated_set(
                folder / "set", clips, reads.least_frames + LONGER_FRAMES, int(side), check.seed,
                fps=int(method_named(check.method).fps or FPS), wave=wave,
            )
        )  # fmt: skip
    config = check.for_pretrain(shards)
    mixture = open_mixture(parse_shards(shards, config.data), reads=reads_of(config.model),
                           split=config.split)  # fmt: skip
    require_mel_slices(mixture, config.model)
    plan = Plan(mixture, config.seed, config.clips_per_batch)
    loaded = next(ClipLoader(plan).batches())
    batch = Augment(config.augment, config.model.crop, config.seed)(loaded, 0)
    facts = facts_of_run(config, mixture, plan.batches_per_epoch)
    return Trial(check, config, folder, batch, facts)


def _verdict(
    trial: Trial, name: str, function: Callable[[Trial], tuple[bool | None, str]]
) -> Verdict:
    """What a check says; what it raises is a failure, and the traceback shows where."""
    try:
        return Verdict(name, *function(trial))
    except Exception as error:  # whatever a method under construction may raise
        log.warning("%s:\n%s", name, traceback.format_exc())
        said = " ".join(str(error).split())[:300]
        return Verdict(name, False, f"raised {type(error).__name__}: {said} (traceback above)")


# --- the checks -----------------------------------------------------------------------------------


def contract(trial: Trial) -> tuple[bool, str]:
    """Forward returns a dict of scalars, a finite `loss` among them."""
    model = trial.model()
    facts = model(trial.batch)
    if not isinstance(facts, dict) or "loss" not in facts:
        return False, f"forward(batch) gave {type(facts).__name__}; expected a dict with 'loss'"
    wrong = [f"{name} {tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}"
             for name, x in facts.items() if not isinstance(x, Tensor) or x.ndim]  # fmt: skip
    if wrong:
        return False, f"expected scalar tensors, got {', '.join(wrong)}"
    held = [name for name, x in facts.items() if name != "loss" and x.requires_grad]
    if held:
        return False, f"{', '.join(held)} keep their graph, and its memory, alive; detach() them"
    if not facts["loss"].requires_grad or not facts["loss"].isfinite():
        return (
            False,
            f"loss is {facts['loss'].item()}, with gradient: {facts['loss'].requires_grad}",
        )
    shown = ", ".join(f"{name} {x.item():.3f}" for name, x in facts.items())
    return True, f"forward gives {shown}"


def gradients(trial: Trial) -> tuple[bool, str]:
    """Every trainable parameter gets a finite gradient from one batch."""
    model = trial.model()
    forward_backward(model, trial.batch, trial.config, torch.device("cpu"), True)
    trainable = {name: w.grad for name, w in model.named_parameters() if w.requires_grad}
    frozen = sum(1 for _ in model.parameters()) - len(trainable)
    none = [name for name, grad in trainable.items() if grad is None]
    found = {name: grad for name, grad in trainable.items() if grad is not None}
    bad = [name for name, grad in found.items() if not grad.isfinite().all()]
    if bad:
        return False, f"not finite: {_some(bad)}"
    if none:
        return False, (f"no gradient reaches {_some(none)}; DistributedDataParallel would wait for "
                       "them: use them, or freeze them with requires_grad_(False)")  # fmt: skip
    zero = [name for name, grad in found.items() if not grad.any()]
    said = f"{len(found)} parameters have finite gradients" + (
        f", {frozen} frozen" if frozen else ""
    )
    return True, said + (f"; exactly zero at the first step: {_some(zero)}" if zero else "")


def overfit(trial: Trial) -> tuple[bool, str]:
    """The loss of one and the same batch falls clearly."""
    model, check = trial.model(), trial.check
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.Adam(weights, check.lr)
    for _ in range(check.steps):
        facts = forward_backward(model, trial.batch, trial.config, torch.device("cpu"), True)
        nn.utils.clip_grad_norm_(weights, trial.config.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trial.losses.append(facts["loss"].item())
    first, end = trial.losses[0], trial.losses[-5:]
    last = sum(end) / len(end)
    said = f"loss {first:.3f} -> {last:.3f} in {check.steps} steps on {check.batch_size} clips"
    if last < first and first - last >= check.fall * abs(first):
        return True, said
    return False, (f"{said}; expected a fall by {check.fall:.0%}: look at the gradients and the "
                   "page, try another --lr or more --steps")  # fmt: skip


def two_ranks(trial: Trial) -> tuple[bool | None, str]:
    """One rank with the whole batch learns what two ranks with half of it learn."""
    from train.twins import compare

    if not getattr(trial.config.model, "gather", True):
        return None, "its config says gather=False: other ranks' clips are no negatives, by design"
    return compare(trial.config, trial.model(), trial.batch, trial.folder, trial.facts)


def resume(trial: Trial) -> tuple[bool, str]:
    """A run that is stopped and goes on gives the same losses and weights, bit by bit."""
    whole = replace(trial.config, run=str(trial.folder / "whole"))
    parts = replace(trial.config, run=str(trial.folder / "parts"))
    for run in (whole, replace(parts, max_steps=STOP_AT), parts):
        if pretrain(run) == PREEMPTED:  # the person, or the machine, wants the check to end
            raise KeyboardInterrupt
    ours, theirs = (_lines(run.folder) for run in (parts, whole))
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
        if one != other:
            names = [name for name in other if one.get(name) != other[name]]
            return False, (
                f"step {number} of a run stopped after {STOP_AT} has another {_some(names)} than "
                "an undisturbed run; is there state that is neither parameter nor buffer?"
            )
    weights, expected = (checkpoint.load(run.folder)["model"] for run in (parts, whole))
    differ = [name for name in expected if not torch.equal(weights[name], expected[name])]
    if differ:
        return False, f"the same losses, but other values in {_some(differ)}"
    return True, (f"stopped after step {STOP_AT} of {RESUME_STEPS} and resumed: the same losses "
                  "and weights, bit by bit")  # fmt: skip


CHECKS: dict[str, Callable[[Trial], tuple[bool | None, str]]] = {
    "contract": contract,
    "gradients": gradients,
    "overfit": overfit,
    "two ranks": two_ranks,
    "resume": resume,
}


# --- small helpers --------------------------------------------------------------------------------


def _lines(run: Path) -> list[dict[str, Any]]:
    """What a run measured, without what depends on the machine."""
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    return [{k: x for k, x in line.items() if k not in OF_THE_MACHINE} for line in lines]


def _some(names: list[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """The runs inside do not tell their own steps."""
    names = ("train.pretrain", "train.restart", "train.meter", "train.heldout")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
