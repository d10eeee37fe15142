"""Times and shares by a clock that only moves when told to; numbers read without waiting."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.runs import metrics, toy
from tests.train.toy import Toy
from train import meter as meters, trackers
from train.augment import Augment, AugmentConfig
from train.batch import Batch
from train.config import PretrainConfig
from train.dist import Ranks, gather_with_grad
from train.loader import ClipLoader
from train.meter import Meter, NotFiniteError, told
from train.methods.glcm import PRESETS, Glcm
from train.pretrain import COMPLETE, forward_backward, pretrain

LOADING, COMPUTING = 0.3, 0.1
CPU = torch.device("cpu")


@dataclass
class Clock:
    """`time.perf_counter`, by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeRun:
    folder: Path = Path("run")
    lines: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: Path = Path("run/checkpoints")

    def record(self, facts: dict[str, Any]) -> None:
        self.lines.append(facts)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def raw_batch(clips: int = 2, frames: int = 4, side: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    shape = (clips, frames, side, side, 3)
    return Batch(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        torch.randn(clips, 80, 3 * frames, generator=generator).half(),
        torch.arange(clips),
        torch.zeros(clips, dtype=torch.int64),
        tuple(f"clip{i}" for i in range(clips)),
    )


def meter_of(run: Any, **fields: Any) -> Meter:
    meter = Meter(run, CPU, clips_per_step=8, last_step=3, log_every=100, **fields)
    meter.watch.lap()
    return meter


def slow(clock: Clock) -> Iterator[Batch]:
    while True:
        clock.now += LOADING
        yield raw_batch()


def do_step(meter: Meter, batches: Iterator[Batch], clock: Clock, step: int, loss: float) -> None:
    batch = meter.next_of(batches)
    clock.now += COMPUTING
    facts = [{"loss": torch.tensor(loss)}]
    meter.record(step, step / 10, facts, 0.5, torch.tensor(2.0), [batch.keys])


def test_waiting_share_of_a_slow_loader(clock: Clock) -> None:
    run = FakeRun()
    meter, batches = meter_of(run), slow(clock)
    for step in (1, 2, 3):
        do_step(meter, batches, clock, step, 10.0 + step)
        clock.now += 7 if step == 2 else 0  # a checkpoint
        meter.watch.lap()
    meter.flush()
    assert [line["step"] for line in run.lines] == [1, 2, 3]
    assert [line["loss"] for line in run.lines] == [11, 12, 13]
    for line in run.lines:
        assert line["data_wait_share"] == pytest.approx(0.75)
        assert line["step_seconds"] == pytest.approx(0.4)
        assert line["clips_per_second"] == pytest.approx(20)


def test_the_progress_line_tells_the_time_between_two_lines(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Steps that get slower, and measurements between steps: as a clock on the wall has it."""
    caplog.set_level(logging.INFO)
    meter = Meter(FakeRun(), CPU, 8, last_step=40, log_every=10)  # type: ignore[arg-type]
    meter.watch.lap()
    for step in range(1, 31):
        clock.now += 5.0 if step == 1 else 0.2 if step <= 20 else 3.0
        meter.record(step, 0.1, [{"loss": torch.tensor(1.0)}], 0.5, torch.tensor(2.0), [("a", "b")])
        if step == 15:
            meter.flush()
            clock.now += 60.0
            meter.pause()
    meter.flush()
    first, second, third = (line for line in caplog.messages if "ms/step" in line)
    assert " 200 ms/step, 40.0 clips/s, ETA 0:00:06" in first  # without the start of readers
    assert " 200 ms/step, 40.0 clips/s, ETA 0:01:04" in second  # 20 x (0.2 + 60 / 20)
    assert " 3000 ms/step, 2.7 clips/s, ETA 0:00:50" in third  # 10 x (3 + 60 / 30)


def test_the_progress_line_is_short_and_knows_chance(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("loss", "loss_g", "loss_l", "a2v_r1", "a2v_r1_sync", "att_entropy", "pos_g", "neg_l")
    meter = Meter(FakeRun(), CPU, 8, 1, 1, clips_compared=8)  # type: ignore[arg-type]
    clock.now += 1
    facts = {name: torch.tensor(0.25) for name in names}
    meter.record(1, 0.1, [facts], 0.5, torch.tensor(2.0), [("a", "b")])
    with caplog.at_level(logging.INFO):
        meter.flush()
    (line,) = caplog.messages
    assert "a2v_r1 0.250 (chance 0.125)" in line
    assert "att_entropy" not in line and "pos_g" not in line
    assert len(line) < 160


def test_mfu_is_of_one_rank(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "peak_flops", lambda _: 1e11)
    monkeypatch.setattr(Ranks, "mean", lambda self, numbers: numbers)
    run = FakeRun()
    meter = meter_of(run, flop_per_clip=1e9, ranks=Ranks(world=2))
    do_step(meter, slow(clock), clock, 1, 1.0)
    meter.flush()
    assert run.lines[0]["mfu"] == pytest.approx(8 / 2 * 1e9 / 0.4 / 1e11)


def test_waiting_share_of_a_whole_run(
    ten: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, compute = ClipLoader.batches, Toy.forward

    def batches(self: ClipLoader, *start: Any) -> Iterator[Batch]:
        for batch in load(self, *start):
            clock.now += LOADING
            yield batch

    def forward(self: Toy, batch: Any) -> dict[str, Tensor]:
        clock.now += COMPUTING
        return compute(self, batch)

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.setattr(ClipLoader, "batches", batches)
    monkeypatch.setattr(Toy, "forward", forward)
    assert pretrain(toy(ten, tmp_path / "run", epochs=2, accumulation=2)) == COMPLETE
    first, *others = metrics(tmp_path / "run")  # the first one began by the true clock
    assert [first["step"], *(line["step"] for line in others)] == [1, 2, 3]
    assert [line["data_wait_share"] for line in others] == pytest.approx([0.75] * 2)
    assert [line["step_seconds"] for line in others] == pytest.approx([0.8] * 2)


def test_what_changes_after_a_step_is_not_what_is_written(clock: Clock) -> None:
    run, loss = FakeRun(), torch.tensor(1.0)
    meter, batches = meter_of(run), slow(clock)
    meter.record(1, 0.1, [{"loss": loss}], 0.5, torch.tensor(2.0), [next(batches).keys])
    loss += 5
    meter.flush()
    assert run.lines[0]["loss"] == 1


def test_not_finite_is_told_at_the_next_step(clock: Clock) -> None:
    meter, batches = meter_of(FakeRun()), slow(clock)
    do_step(meter, batches, clock, 1, float("nan"))
    with pytest.raises(NotFiniteError, match=r"loss not finite at step 1 .*clip0"):
        do_step(meter, batches, clock, 2, 1.0)


def accumulated(meter: Meter, losses: list[float], norm: float = 2.0) -> None:
    """A step of batches of two clips each: a0, a1; b0, b1; ..."""
    facts = [{"loss": torch.tensor(loss), "share": torch.tensor(loss / 10)} for loss in losses]
    keys = [(f"{letter}0", f"{letter}1") for letter in "abcd"[: len(losses)]]
    meter.record(1, 0.1, facts, 0.5, torch.tensor(norm), keys)


def test_facts_of_accumulated_batches_are_means() -> None:
    run = FakeRun()
    meter = meter_of(run)
    accumulated(meter, [1.0, 2.0, 6.0])
    meter.flush()
    line = run.lines[0]
    assert (line["loss"], line["share"]) == pytest.approx((3.0, 0.3))
    assert line["grad_norm"] == 2


@pytest.mark.parametrize(
    ("losses", "norm", "said"),
    [
        ([1.0, float("nan"), 2.0], float("nan"), "; clips b0, b1. "),
        ([1.0, float("inf"), float("nan")], 2.0, "; clips b0, b1, c0, c1. "),
        ([1.0, 2.0], float("inf"), "; clips a0, a1, b0, b1. "),
    ],
)
def test_the_batch_at_fault_is_named(losses: list[float], norm: float, said: str) -> None:
    meter = meter_of(FakeRun())
    accumulated(meter, losses, norm)
    with pytest.raises(NotFiniteError, match=said):
        meter.flush()


def test_another_rank_names_its_own_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "mean", lambda self, numbers: [float("nan"), *numbers[1:]])
    meter = meter_of(FakeRun())
    accumulated(meter, [1.0])
    with pytest.raises(NotFiniteError, match="the clips are another rank's"):
        meter.flush()


def test_from_where_to_go_on(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, checkpoints=tmp_path / "checkpoints")
    for saved, said in ((False, "There is no checkpoint yet"), (True, f"--init {tmp_path}")):
        if saved:
            run.checkpoints.mkdir()
            (run.checkpoints / "step-00000001.pt").touch()
        meter = meter_of(run)
        accumulated(meter, [float("nan")])
        with pytest.raises(NotFiniteError, match=said) as caught:
            meter.flush()
        assert ("--init" in str(caught.value)) == saved


# --- the host does not wait for the device ------------------------------------------------------


class Waits(TorchDispatchMode):
    """Notes operations at which the host would wait for a GPU."""

    NAMES = ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "unique", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name = func.__name__.partition(".")[0]
        by_mask = name.startswith("index") and any(
            isinstance(arg, Tensor) and arg.dtype == torch.bool
            for arg in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if name.strip("_").startswith(tuple(n.strip("_") for n in self.NAMES)) or by_mask:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "what",
    [lambda x: x.sum().item(), lambda x: x[x > 1], lambda x: x.new_tensor([1.0, 2.0]), bool],
)
def test_the_probe_sees_a_host_that_waits(what: Any) -> None:
    with Waits() as waits:
        what(torch.ones(1))
    assert waits.found


def test_a_step_never_waits_for_the_device() -> None:
    """From the second step on: augmentation, forward, backward, and clipping of gradients."""
    config = PretrainConfig(PRESETS["tiny"], preset="tiny", device="cpu")
    model = Glcm(config.model, gather_with_grad)
    options = AugmentConfig(colour_jitter=0.4, mask_bands=8, mask_slices=8)
    augment = Augment(options, config.model.crop, 0)
    raw = raw_batch(2, config.model.frames, 72)

    def step(number: int) -> None:
        forward_backward(model, augment(raw, number), config, CPU, True)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    step(0)
    with Waits() as waits:
        step(1)
    assert waits.found == []


def test_a_methods_own_metrics_are_on_the_progress_line() -> None:
    line = {"step": 1, "loss": 0.7, "queue_accuracy": 0.5, "views_r1": 0.1, "pos": 3.0, "a2v_r1": 1}
    assert told(line) == ["a2v_r1", "queue_accuracy", "views_r1"]
    assert told({f"head{n}_accuracy": 0.0 for n in range(9)}) == [
        f"head{n}_accuracy" for n in range(4)
    ]
