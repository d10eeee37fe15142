"""What held-out clips choose: by a model that scores as it is told, at batch sizes that change."""

import json
import logging
import math
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.train.ramps import ramp, ramp_set_of
from tests.train.runs import metrics, toy, weights
from tests.train.toy import Toy, ToyConfig
from train import trackers
from train.errors import UsageError
from train.heldout import suspicions, told
from train.methods import METHODS, MethodEntry
from train.pretrain import COMPLETE, PREEMPTED, pretrain


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.setitem(METHODS, "graded", MethodEntry(ToyConfig, Graded, {"toy": ToyConfig()}))


class Graded(Toy):
    """Held-out facts by step, as a test writes them down; the step is a buffer."""

    grades: ClassVar[dict[int, dict[str, Any]]] = {}
    asked: ClassVar[list[tuple[int, int]]] = []
    """(steps of the weights, clips) of each measurement."""

    def __init__(self, config: ToyConfig, gather: Any = None) -> None:
        super().__init__(config, gather)
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        if self.training:
            self.steps.add_(1)
            return super().forward(batch)
        step = int(self.steps)
        self.asked.append((step, len(batch)))
        return {"loss": torch.tensor(1.0), **{
            name: torch.tensor(value(len(batch)) if callable(value) else value)
            for name, value in self.grades[step].items()
        }}  # fmt: skip


def graded(shards: Path, run: Path, grades: "dict[int, dict[str, Any]]", **fields: Any) -> int:
    Graded.grades, Graded.asked = grades, []
    return pretrain(toy(shards, run, method="graded", val_every=1, **fields))


def best(run: Path) -> str:
    return (run / "checkpoints/best").read_text().strip()


@pytest.mark.parametrize(("precision", "expected"), [("bf16", True), ("fp32", False)])
def test_held_out_clips_run_in_the_precision_of_training(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, expected: bool
) -> None:
    seen: list[tuple[bool, bool]] = []
    original = Toy.forward

    def forward(self: Toy, batch: Any) -> dict[str, torch.Tensor]:
        seen.append((self.training, torch.is_autocast_enabled("cpu")))
        return original(self, batch)

    monkeypatch.setattr(Toy, "forward", forward)
    pretrain(toy(split, tmp_path / "run", val_every=1, max_steps=1, precision=precision))
    assert seen == [(True, expected), (False, expected)]


# --- what is not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loss", "a2v_r1", "thing"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_sentence_and_null(
    split: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, value: float
) -> None:
    run = tmp_path / "run"
    grades = {1: {"a2v_r1": 0.1}, 2: {"a2v_r1": 0.9, name: value}}
    assert graded(split, run, grades, max_steps=2) == COMPLETE
    assert f"{name} not finite" in caplog.text
    rows = [line for line in metrics(run) if "val_loss" in line]
    assert rows[1][f"val_{name}"] is None
    assert rows[0]["val_a2v_r1"] == pytest.approx(0.1)
    chosen = 2 if name == "thing" else 1
    assert best(run) == f"step-{chosen:08d}.pt"


def test_nothing_is_chosen_while_nothing_is_finite(split: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    graded(split, run, {step: {"loss": math.nan} for step in (1, 2)}, max_steps=2)
    assert not (run / "checkpoints/best").exists()


# --- told to stop meanwhile -----------------------------------------------------------------------


def sigterm_at(batch: int, value: float) -> Any:
    """A grade that tells the process to stop when the n-th batch is measured."""
    batches = iter(range(1, 1000))

    def grade(clips: int) -> float:
        if next(batches) == batch:
            os.kill(os.getpid(), signal.SIGTERM)
        return value

    return grade


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_stop_does_not_wait_for_the_rest_of_the_held_out_clips(
    split: Path, tmp_path: Path, step: int, batch: int
) -> None:
    """Five batches are measured; a machine that is taken away leaves seconds."""
    run, how = tmp_path / "run", {"batch_size": 1, "schedule_steps": 3}
    grades: dict[int, dict[str, Any]] = {n: {"a2v_r1": 0.1 * n} for n in (1, 2, 3)}
    assert graded(split, tmp_path / "undisturbed", grades, **how) == COMPLETE
    assert graded(split, run, {**grades, step: {"a2v_r1": sigterm_at(batch, 0.9)}}, **how) == (
        PREEMPTED
    )
    before = [(n, 1) for n in range(1, step) for _ in range(5)]
    assert Graded.asked == before + [(step, 1)] * batch
    assert json.loads((run / "preempted").read_text()) == {"step": step, "signal": "SIGTERM"}
    assert not (run / "finished.json").exists()
    assert [line["step"] for line in metrics(run) if "val_loss" in line] == [*range(1, step)]
    # Even where the machine is taken away again before it is through.
    again = {**grades, step: {"a2v_r1": sigterm_at(1, 0.9)}}
    assert graded(split, run, again, **how) == PREEMPTED
    assert Graded.asked == [(step, 1)]
    assert graded(split, run, grades, **how) == COMPLETE
    assert Graded.asked[:5] == [(step, 1)] * 5
    assert [line for line in metrics(run) if "val_loss" in line] == [
        line for line in metrics(tmp_path / "undisturbed") if "val_loss" in line
    ]
    ours, theirs = weights(run), weights(tmp_path / "undisturbed")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert best(run) == best(tmp_path / "undisturbed")


def test_a_stop_in_a_step_does_not_wait_for_the_held_out_clips(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Toy.forward

    def forward(self: Toy, batch: Any) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Toy, "forward", forward)
        assert graded(split, tmp_path / "run", {}) == PREEMPTED
    assert Graded.asked == []
    for expected in ([(1, 3)], []):  # once, also where it does not become `best`
        graded(split, tmp_path / "run", {1: {"loss": math.nan}}, max_steps=1)
        assert Graded.asked == expected


# --- another number of clips ----------------------------------------------------------------------


def test_other_batch_sizes_are_compared_by_measuring_the_best_again(
    split: Path, tmp_path: Path
) -> None:
    """By chance half of two clips are found; the best so far finds 0.9 of them."""
    run = tmp_path / "run"
    grades: dict[int, dict[str, Any]] = {
        1: {"a2v_r1": lambda clips: {3: 0.5, 2: 0.9}[clips]},
        2: {"a2v_r1": lambda clips: {3: 0.4, 2: 0.8}[clips]},
        3: {"a2v_r1": 0.6},
        4: {"a2v_r1": 0.95},
    }
    graded(split, run, grades, max_steps=2)
    assert best(run) == "step-00000001.pt"
    graded(split, run, grades, max_steps=3, batch_size=2)
    assert best(run) == "step-00000001.pt"
    assert Graded.asked == [(3, 2), (3, 2), (1, 2), (1, 2)]
    graded(split, run, grades, max_steps=4, batch_size=2)
    assert best(run) == "step-00000004.pt"
    assert Graded.asked == [(4, 2), (4, 2)]  # it was measured so before
    assert torch.load(run / "checkpoints/step-00000004.pt")["model"]["steps"] == 4


def test_a_best_checkpoint_that_is_gone_begins_anew(
    split: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    grades = {1: {"a2v_r1": 0.5}, 2: {"a2v_r1": 0.3}}
    graded(split, run, grades, max_steps=1)
    (run / "checkpoints/best").unlink()
    graded(split, run, grades, max_steps=2, batch_size=2)
    assert "`best` begins anew: there is no best checkpoint" in caplog.text
    assert best(run) == "step-00000002.pt"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "3 of 5 clips of split val every 1 steps, 3 at a time; 2 left out"),
        ({"batch_size": 2}, "4 of 5 clips of split val every 1 steps, 2 at a time; 1 left out"),
        ({"batch_size": 5}, "5 of 5 clips of split val every 1 steps, 5 at a time\n"),
        ({"batch_size": 1, "val_clips": 2}, "2 of 5 clips of split val every 1 steps, 1 at a time "
         "(as many as --val-clips asks for)"),
    ],
)  # fmt: skip
def test_clips_that_are_left_out_are_told(
    split: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, fields: Any, said: str
) -> None:
    with caplog.at_level(logging.INFO):
        graded(split, tmp_path / "run", {1: {}}, max_steps=1, **fields)
    assert f"held out: {said}" in caplog.text


# --- what is trained on, too ----------------------------------------------------------------------


def test_clips_of_both_splits_are_refused(split: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"9 of 9 held-out clips \(split train\) are trained on"):
        pretrain(toy(split, tmp_path / "run", val_split="train"))
    assert not (tmp_path / "run").exists()


def test_one_clip_of_two_splits_is_refused_or_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = [ramp(f"demo/clip{number:03d}", number, 12) for number in range(8)]
    for number, members in enumerate(clips):
        meta = json.loads(members["json"])
        meta["splits"] = [name for name, range_ in (("demo:train", (0, 5)), ("demo:val", (4, 8)))
                          if range_[0] <= number < range_[1]]  # fmt: skip
        members["json"] = json.dumps(meta).encode()
    shards = ramp_set_of(tmp_path / "sets" / "demo-glcm", [clips])
    with pytest.raises(UsageError, match=r"1 of 4 held-out clips .*: demo/clip004; .*--val-every"):
        pretrain(toy(shards, tmp_path / "run", max_steps=1))
    assert pretrain(toy(shards, tmp_path / "none", max_steps=1, val_every=0)) == COMPLETE
    pretrain(toy(shards, tmp_path / "said", max_steps=1, allow_overlap=True))
    assert "1 of 4 held-out clips" in caplog.text


def test_groups_of_both_splits_are_told(
    split: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Held out are clips 9 to 13: speaker b has 9, 11 and 13."""
    pretrain(toy(split, tmp_path / "run", max_steps=1))
    assert "3 of 5 held-out clips are of groups" in caplog.text
    assert "trained on, too: b;" in caplog.text


# --- what is said ---------------------------------------------------------------------------------


def test_a_loss_that_needs_no_sound_is_suspected() -> None:
    solved = {"loss_l": 0.93, "loss_l_swapped": 0.94, "loss_l_chance": 3.43}
    (sentence,) = suspicions(solved)
    assert "2.50 below chance, and 2.49 below it with another clip's sound" in sentence
    assert not suspicions({**solved, "loss_l_swapped": 5.0})
    assert not suspicions({**solved, "loss_l": 3.4, "loss_l_swapped": 3.4})
    assert not suspicions({"loss_l": 0.93, "loss_l_chance": 3.43})


def test_controls_stand_behind_their_fact() -> None:
    facts = {"loss": 3.0, "loss_l": 2.1, "loss_l_chance": 3.434, "loss_l_swapped": 3.39}
    assert told(facts) == "loss 3.00, loss_l 2.10 (swapped 3.39, chance 3.43)"
    assert told({**facts, "pos_l": 1.0}) == told(facts)  # in metrics.jsonl
    assert told({"loss": 1.0, "own": 2.0}) == "loss 1.00, own 2.00"  # a method without controls
