"""TensorBoard's files say what metrics.jsonl says; W&B gets the same, or a sentence."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.train.runs import metrics, toy
from train import trackers
from train.errors import UsageError
from train.pretrain import pretrain


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def events(run: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of a scalar, as TensorBoard reads it: steps that were done again, once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


def test_tensorboard_reads_what_metrics_say(ten: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(toy(ten, run, max_steps=6, val_every=3, val_split="train", allow_overlap=True))
    lines = metrics(run)
    for name in ("loss", "grad_norm", "lr", "val_loss"):
        expected = [(line["step"], line[name]) for line in lines if name in line]
        found = events(run, name)
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [x for _, x in found] == pytest.approx([x for _, x in expected], rel=1e-6)


def test_steps_that_are_done_again_stand_there_once(ten: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(toy(ten, run, max_steps=6, checkpoint_every=4))
    (run / "checkpoints" / "step-00000006.pt").write_bytes(b"")  # as after a crash: 4 is the last
    pretrain(toy(ten, run, max_steps=8))
    steps = [step for step, _ in events(run, "loss")]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


def test_files_made_within_a_second_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names end in a counter, and "10" sorts before "9"."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    for steps in (range(1, 7), range(5, 9)):
        board = trackers.TensorBoard(tmp_path, steps[0] - 1)
        for step in steps:
            board.record(step, {"loss": float(step)})
        board.close()
    assert [step for step, _ in events(tmp_path, "loss")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_tensorboard_that_is_missing_is_said(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    pretrain(toy(ten, tmp_path / "run", max_steps=1))
    assert "tensorboard is not installed" in caplog.text
    assert len(metrics(tmp_path / "run")) == 1


# --- W&B, played: its package is not among ours ---------------------------------------------------


class FakeRun:
    def __init__(self, **given: Any) -> None:
        self.given, self.rows, self.finished = given, dict[int, dict[str, float]](), False

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.rows[step] = {**self.rows.get(step, {}), **numbers}

    def finish(self) -> None:
        self.finished = True


def play_wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    runs: list[FakeRun] = []
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)

    def init(**given: Any) -> FakeRun:
        runs.append(FakeRun(**given))
        return runs[-1]

    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_wandb_gets_every_step_in_one_run_over_resumes(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = play_wandb(monkeypatch)
    run = tmp_path / "first"
    for stop in (2, 5):
        pretrain(
            toy(
                ten,
                run,
                max_steps=stop,
                wandb="tries",
                val_every=2,
                val_split="train",
                allow_overlap=True,
            )
        )
    before, after = opened
    assert before.given["id"] == after.given["id"]
    assert before.given["project"] == "tries"
    assert before.given["name"] == "first"
    assert before.given["resume"] == "allow"
    assert before.given["config"]["method"] == "toy"
    assert before.finished
    rows = {**before.rows, **after.rows}
    for line in metrics(run):
        if "loss" in line:
            assert rows[line["step"]]["loss"] == line["loss"]
        else:
            assert rows[line["step"]]["val_loss"] == line["val_loss"]
    assert list(rows) == [1, 2, 3, 4, 5]
    pretrain(toy(ten, tmp_path / "second", max_steps=1, wandb="tries"))
    assert opened[-1].given["id"] != before.given["id"]


def test_wandb_that_is_missing_is_a_sentence_before_any_step(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--wandb tries: .*not installed; run `pip install wandb`"
    ):
        pretrain(toy(ten, tmp_path / "run", wandb="tries"))
    assert not (tmp_path / "run").exists()


def test_trackers_are_loaded_only_by_a_run() -> None:
    names = ("tensorboard", "wandb", "sklearn", "matplotlib")
    code = f"import sys, train.pretrain; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
