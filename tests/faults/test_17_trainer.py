"""Cases 17, 18 and 25: damaged and hostile shards, and two ranks that are stopped and go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from stores.local import LocalStore
from tests.pipeline.fabricate import edit_json
from tests.train.ramps import mixture_of, ramp_set
from tests.train.runs import assert_like, metrics, same, toy, weights
from tests.train.test_pretrain_processes import command, environment, wait_for_lines
from train import checkpoint
from train.errors import ShardError
from train.index import open_shards
from train.loader import ClipLoader
from train.plan import Plan
from train.pretrain import pretrain

REPOSITORY = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def test_17_tar_cut_at_a_header(tmp_path: Path) -> None:
    """Webdataset would end there without a word: a silently shorter epoch."""
    out = ramp_set(tmp_path / "demo-glcm", shards=1, clips=4)
    tar = out / "shards/train-000000.tar"
    whole = tar.read_bytes()
    third = whole.index(b"demo--clip002.json")
    tar.write_bytes(whole[:third])
    done = subprocess.run(
        command(out, tmp_path / "run"), cwd=REPOSITORY, env=environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 5, done.stdout + done.stderr
    sizes = f"has {third} bytes, the index says {len(whole)}"
    assert f"{sizes}; expected 4 samples, got at most 2." in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "../other/train-000000.tar",
        "shards/../../x.tar",
        "pipe:cat /etc/passwd",
        "/shards/train-000000.tar",
        "http://host/a.tar",
        "shards/a.tar | sh",
        7,
    ],
)
def test_18_index_that_points_elsewhere(tmp_path: Path, url: object) -> None:
    out = ramp_set(tmp_path / "demo-glcm", shards=1)
    edit_json(out / "shardindex.json", shardlist=[{"url": url, "nsamples": 4, "filesize": 1}])
    with pytest.raises(ShardError, match="only tars below the set's own folder"):
        open_shards(LocalStore(out))


@pytest.mark.parametrize(
    "fields",
    [
        {"../../other": {"members": ["lip.mjpeg"]}},
        {"lip/../../other": {"members": ["lip.mjpeg"]}},
        {"lip": {"members": "lip.mjpeg"}},
        {"lip": []},
        ["lip"],
        "lip",
    ],
)
def test_18_index_whose_fields_lie_elsewhere(tmp_path: Path, fields: object) -> None:
    out = ramp_set(tmp_path / "demo-glcm", shards=1)
    edit_json(out / "shardindex.json", fields=fields)
    with pytest.raises(ShardError, match="does not name fields as `pipeline add-field` does"):
        open_shards(LocalStore(out))


def test_18_index_of_nested_lists(tmp_path: Path) -> None:
    out = ramp_set(tmp_path / "demo-glcm", shards=1)
    (out / "shardindex.json").write_text("[" * 100_000)
    with pytest.raises(ShardError, match=r"shardindex\.json is no JSON"):
        open_shards(LocalStore(out))


@pytest.mark.slow
def test_25_two_ranks_stopped_by_a_signal_to_one_and_killed(ten: Path, tmp_path: Path) -> None:
    """SIGTERM to one rank, then kill -9 of everything after a checkpoint, then to the end."""

    def ranks(run: Path, *more: str) -> "subprocess.Popen[str]":
        words = [word.replace("--run", "--run-dir") for word in command(ten, run)][1:]
        flags = ["--batch-size", "2", "--device", "cpu", "--checkpoint-every", "1", *more]
        return subprocess.Popen(
            [*TORCHRUN, *words, *flags], cwd=REPOSITORY, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    alone = ranks(whole)
    text, _ = alone.communicate(timeout=280)
    assert alone.returncode == 0, text

    slow = ("--model.seconds", "0.3")
    first = ranks(parts, *slow)
    wait_for_lines(parts, 2, first)
    one = psutil.Process(first.pid).children()[-1]
    one.send_signal(signal.SIGTERM)
    text, _ = first.communicate(timeout=280)
    assert (parts / "preempted").exists(), text
    stopped = len(metrics(parts))
    assert checkpoint.load(parts)["step"] == stopped
    second = ranks(parts, *slow)
    wait_for_lines(parts, stopped + 3, second)
    for process in [psutil.Process(second.pid), *psutil.Process(second.pid).children(True)]:
        os.kill(process.pid, signal.SIGKILL)
    second.communicate(timeout=280)
    assert 0 < checkpoint.load(parts)["step"] < 10
    third = ranks(parts, *slow)
    text, _ = third.communicate(timeout=280)
    assert third.returncode == 0, text
    assert same(parts) == same(whole)
    expected = weights(whole)
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights(parts).items())


def test_25_last_checkpoint_truncated(
    ten: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    pretrain(toy(ten, run, max_steps=12))
    last = checkpoint.checkpoints(run / "checkpoints")[-1]
    last.write_bytes(last.read_bytes()[:-300])
    pretrain(toy(ten, run))
    assert f"{last.name} cannot be read" in caplog.text
    assert_like(run, undisturbed)


def test_25_fewer_shards_than_workers(tmp_path: Path) -> None:
    """One shard and three workers: every clip comes once, in the order of the plan."""
    ramp_set(tmp_path / "one-glcm", shards=1, clips=6)
    plan = Plan(mixture_of(str(tmp_path / "one-glcm")), 0, 2)
    keys = [
        [key for batch in ClipLoader(plan, workers).one_epoch() for key in batch.keys]
        for workers in (0, 3)
    ]
    assert keys[0] == keys[1]
    assert sorted(keys[0]) == [f"demo/clip{number:03d}" for number in range(6)]


def test_25_uneven_last_shard_and_fewer_shards_than_ranks(tmp_path: Path) -> None:
    """Both ranks get as many batches, of different clips; what fills none is left out of both."""
    ramp_set(tmp_path / "one-glcm", shards=1, clips=7)
    mixture = mixture_of(str(tmp_path / "one-glcm"))
    epochs = [list(ClipLoader(Plan(mixture, 0, 3, 2, rank)).one_epoch()) for rank in range(2)]
    assert [len(batches) for batches in epochs] == [1, 1]
    keys = [key for batches in epochs for batch in batches for key in batch.keys]
    assert len(set(keys)) == 6
