"""The loop as a program: signals, torchrun, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.pipeline.fabricate import edit_json
from tests.train.ramps import ramp_set
from tests.train.runs import metrics, same, toy, weights
from tests.train.toy import ToyConfig
from train import checkpoint
from train.pretrain import COMPLETE, PREEMPTED, pretrain

REPOSITORY = Path(__file__).parents[2]


# --- as a program -------------------------------------------------------------------------------


def command(shards: Path, run: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "train", "pretrain", "--method", "toy", "--preset", "toy",
        "--shards", str(shards), "--run", str(run), "--epochs", "5", "--batch-size", "3",
        "--checkpoint-every", "4", "--workers", "1", *more,
    ]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "GLAV_PLUGINS": "tests.train.toy", "OMP_NUM_THREADS": "1", **more}


def start(arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        arguments, cwd=REPOSITORY, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for_lines(run: Path, count: int, process: "subprocess.Popen[str]") -> None:
    path = run / "metrics.jsonl"
    for _ in range(1200):
        if path.exists() and path.read_text().count("\n") >= count:
            return
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.05)
    raise AssertionError("no progress within a minute")


@pytest.mark.slow
def test_sigterm_and_kill_in_a_process_of_its_own(
    ten: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    slow = ("--model.seconds", "0.3")
    first = start(command(ten, run, *slow))
    wait_for_lines(run, 2, first)
    first.send_signal(signal.SIGTERM)
    assert first.wait(280) == PREEMPTED
    assert (run / "preempted").exists()
    second = start(command(ten, run, *slow))
    wait_for_lines(run, 9, second)
    second.kill()
    second.wait(280)
    third = start(command(ten, run, *slow))  # at once: the lock went with its owner
    text, _ = third.communicate(timeout=280)
    assert third.returncode == COMPLETE, text
    assert "going on at step 8" in text
    assert same(run) == same(undisturbed)


@pytest.mark.slow
def test_two_ranks_under_torchrun_learn_what_one_learns(ten: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node", "2"]  # fmt: skip
    two = [name.replace("--run", "--run-dir") for name in command(ten, tmp_path / "two")]
    flags = ("--batch-size", "2", "--device", "cpu", "--model.dropout", "0")
    for more in (["--max-steps", "5"], []):
        done = start([*torchrun, *two[1:], *flags, *more])
        text, _ = done.communicate(timeout=280)
        assert done.returncode == 0, text
    assert "2 clips a device x 2 ranks x 1 accumulated = 4 a step; 3 other clips" in text
    one = toy(ten, tmp_path / "one", ToyConfig(dropout=0), batch_size=4)
    assert pretrain(one) == COMPLETE
    assert len(metrics(tmp_path / "two")) == 10
    for ours, theirs in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    alone = weights(tmp_path / "one")
    for name, tensor in weights(tmp_path / "two").items():
        assert torch.allclose(tensor, alone[name], atol=1e-5)


@pytest.mark.slow
def test_two_ranks_that_stopped_measure_held_out_clips_as_if_they_had_not(
    split: Path, tmp_path: Path
) -> None:
    """What is measured is the model that is saved, though each rank has statistics of its own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node", "2"]  # fmt: skip
    for run, stops in (("whole", [[]]), ("stopped", [["--max-steps", "3"], []])):
        two = [name.replace("--run", "--run-dir") for name in command(split, tmp_path / run)]
        flags = ("--batch-size", "2", "--val-every", "2", "--model.batch-norm")
        for more in stops:
            done = start([*torchrun, *two[1:], *flags, *more])
            text, _ = done.communicate(timeout=280)
            assert done.returncode == 0, text
    whole, stopped = (
        {line["step"]: line["val_loss"] for line in metrics(tmp_path / run) if "val_loss" in line}
        for run in ("whole", "stopped")
    )
    assert len(whole) == 5
    assert {step: stopped[step] for step in whole} == whole
    assert len(set(whole.values())) == 5


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_on_all_ranks(
    ten: Path, tmp_path: Path, undisturbed: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node", "2"]  # fmt: skip
    two = [name.replace("--run", "--run-dir") for name in command(ten, tmp_path / "run")]
    process = start([*torchrun, *two[1:], "--batch-size", "2", "--model.seconds", "0.3"])
    wait_for_lines(tmp_path / "run", 2, process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=280)
    assert process.returncode != 0
    step = json.loads((tmp_path / "run/preempted").read_text())["step"]
    assert checkpoint.load(tmp_path / "run")["step"] == step, text


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True])
def test_ctrl_c_under_torchrun_saves_on_all_ranks(ten: Path, tmp_path: Path, to_all: bool) -> None:
    """To torchrun alone, which hands it on; and to the workers as well."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node", "2"]  # fmt: skip
    two = [name.replace("--run", "--run-dir") for name in command(ten, tmp_path / "run")]
    process = start([*torchrun, *two[1:], "--batch-size", "2", "--model.seconds", "0.3"])
    wait_for_lines(tmp_path / "run", 2, process)
    for one in [*(psutil.Process(process.pid).children() if to_all else []), process]:
        one.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=280)
    assert process.returncode != 0
    assert text.count("a second Ctrl-C stops at once") == 1
    step = json.loads((tmp_path / "run/preempted").read_text())["step"]
    assert checkpoint.load(tmp_path / "run")["step"] == step, text


@pytest.mark.slow
def test_a_second_ctrl_c_in_a_process_of_its_own(ten: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(command(ten, run, "--model.seconds", "2"))
    wait_for_lines(run, 1, process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=280)
    assert process.returncode == 130, text
    assert "nothing saved since step 0" in text
    assert "Traceback" not in text
    assert not (run / "preempted").exists()


@pytest.mark.slow
def test_refusals_have_their_exit_codes(tmp_path: Path) -> None:
    def code(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "train", *arguments],
            cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr + done.stdout

    run = str(tmp_path / "run")
    missing = code("pretrain", "--shards", str(tmp_path / "lrw-glcm"), "--run", run)
    assert missing[0] == 2
    assert "no shards under" in missing[1]
    out = ramp_set(tmp_path / "demo-glcm")
    edit_json(out / "shardindex.json", shardlist=[{"url": "pipe:x", "nsamples": 1, "filesize": 1}])
    assert code("pretrain", "--shards", str(out), "--run", run)[0] == 5
    (out / "shardindex.json").unlink()
    assert code("pretrain", "--shards", str(out), "--run", run)[0] == 3
    assert "known: avid" in code("pretrain", "--method", "glmc")[1]
    assert code("pretrain", "--model.frames", "31")[0] == 2
    assert code("nonsense")[0] == 2
