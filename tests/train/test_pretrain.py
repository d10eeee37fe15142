"""The loop: metrics, stopping and going on exactly, refusals; with a toy method and with Glcm."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline.fabricate import edit_json
from tests.train.ramps import ramp_set
from tests.train.toy import ToyConfig
from train import checkpoint, session
from train.config import PretrainConfig, differences, from_dict
from train.errors import LockedError, UsageError
from train.meter import NotFiniteError
from train.methods import METHODS, preset_named
from train.pretrain import COMPLETE, PREEMPTED, pretrain

REPOSITORY = Path(__file__).parents[2]
SAME = ("loss", "video_norm", "grad_norm", "lr", "epoch")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ramp_set(tmp_path_factory.mktemp("sets") / "demo-glcm", shards=2, clips=5)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(session, "find_spec", lambda name: None)


def toy(demo: Path, run: Path, model: ToyConfig | None = None, **fields: Any) -> Any:
    """Ten clips in batches of 3: an epoch is 3 batches; five epochs are 15 steps."""
    settings: dict[str, Any] = {
        "shards": str(demo), "run": str(run), "epochs": 5, "batch_size": 3, "workers": 0,
        "checkpoint_every": 4, "device": "cpu", "method": "toy", "preset": "toy", **fields,
    }  # fmt: skip
    return PretrainConfig(model=model or ToyConfig(), **settings)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same(run: Path) -> list[dict[str, Any]]:
    return [{name: line[name] for name in ("step", *SAME)} for line in metrics(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.newest(run / "checkpoints")
    assert found is not None
    model: dict[str, torch.Tensor] = found["model"]
    return model


@pytest.fixture(scope="module")
def undisturbed(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert pretrain(toy(demo, run)) == COMPLETE
    return run


def assert_like(run: Path, undisturbed: Path) -> None:
    """The same losses at every step, and the same weights in the end."""
    assert same(run) == same(undisturbed)
    ours, theirs = weights(run), weights(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# --- a run and what it leaves -----------------------------------------------------------------


def test_a_run_leaves_metrics_config_clips_and_checkpoints(undisturbed: Path) -> None:
    lines = metrics(undisturbed)
    assert [line["step"] for line in lines] == list(range(1, 16))
    assert lines[-1]["epoch"] == 5
    expected = {"loss", "clips_per_second", "step_seconds", "data_wait_share", "memory_bytes",
                "mfu", "lr", "grad_norm", "epoch", "step"}  # fmt: skip
    assert expected <= set(lines[0])
    assert lines[0]["memory_bytes"] > 1e6
    names = sorted(path.name for path in undisturbed.iterdir())
    assert names == ["checkpoints", "clips.parquet", "config.json", "finished.json", "lock",
                     "metrics.jsonl"]  # fmt: skip
    steps = [path.stem[-2:] for path in checkpoint.checkpoints(undisturbed / "checkpoints")]
    assert steps == ["08", "12", "15"]


def test_a_checkpoint_says_where_it_comes_from(undisturbed: Path) -> None:
    saved = checkpoint.load(undisturbed)
    assert saved["position"] == {"epoch": 5, "clips": 0}
    assert saved["config"]["method"] == "toy"
    assert saved["first_instances"] == {"demo-glcm": 0}
    assert set(saved["git"]) == {"commit", "diff"}
    assert saved["plugins"] == os.environ.get("GLAV_PLUGINS", "")
    assert len(saved["random"]) == 1


def test_a_finished_run_says_so_and_names_the_ways_on(
    demo: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = same(undisturbed)
    with caplog.at_level(logging.INFO):
        assert pretrain(toy(demo, undisturbed)) == COMPLETE
    assert f"name another RUN and --init {undisturbed}" in caplog.text
    assert same(undisturbed) == before


def test_the_log_names_negatives_and_split(
    demo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        pretrain(toy(demo, tmp_path / "run", max_steps=1, accumulation=2))
    assert "3 clips a device x 1 ranks x 2 accumulated = 6 a step; 2 other clips" in caplog.text
    assert "10 clips of split train at 10 fps, 10 an epoch" in caplog.text
    assert "stopped at --max-steps 1 of 7" in caplog.text


# --- stopping and going on ----------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[1], [4], [2, 7, 14]])
def test_stop_points_change_nothing(
    demo: Path, tmp_path: Path, undisturbed: Path, stops: list[int]
) -> None:
    for stop in stops:
        assert pretrain(toy(demo, tmp_path / "run", max_steps=stop)) == COMPLETE
        assert len(metrics(tmp_path / "run")) == stop
    assert pretrain(toy(demo, tmp_path / "run")) == COMPLETE
    assert_like(tmp_path / "run", undisturbed)


def test_a_signal_saves_at_once_and_the_same_command_goes_on(
    demo: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.train.toy import Toy

    original = Toy.forward

    def forward(self: Any, batch: Any) -> Any:
        if self.calls == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Toy, "forward", forward)
        assert pretrain(toy(demo, tmp_path / "run")) == PREEMPTED
    note = json.loads((tmp_path / "run/preempted").read_text())
    assert note == {"step": 6, "signal": "SIGUSR1"}
    assert pretrain(toy(demo, tmp_path / "run")) == COMPLETE
    assert not (tmp_path / "run/preempted").exists()
    assert_like(tmp_path / "run", undisturbed)


def test_steps_after_the_last_checkpoint_are_measured_once(
    demo: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """A crash leaves metrics of steps that no checkpoint holds, and a torn line."""
    run = tmp_path / "run"
    pretrain(toy(demo, run, max_steps=8))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 1.0}\n{"step": 10, "lo')
    pretrain(toy(demo, run))
    assert_like(run, undisturbed)


def test_a_truncated_checkpoint_costs_only_its_own_steps(
    demo: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    pretrain(toy(demo, run, max_steps=12))
    last = checkpoint.checkpoints(run / "checkpoints")[-1]
    last.write_bytes(last.read_bytes()[:-300])
    pretrain(toy(demo, run))
    assert_like(run, undisturbed)


def test_accumulated_batches_are_one_step(demo: Path, tmp_path: Path) -> None:
    config = toy(demo, tmp_path / "whole", accumulation=2, schedule_steps=6)
    pretrain(config)
    for stop in (2, 5, None):
        pretrain(replace(config, run=str(tmp_path / "parts"), max_steps=stop))
    assert_like(tmp_path / "parts", tmp_path / "whole")
    assert metrics(tmp_path / "whole")[-1]["epoch"] == 4


def test_another_batch_size_goes_on_at_the_same_clip(demo: Path, tmp_path: Path) -> None:
    pretrain(toy(demo, tmp_path / "run", max_steps=4))
    pretrain(toy(demo, tmp_path / "run", batch_size=5, max_steps=5))
    saved = checkpoint.load(tmp_path / "run")
    assert saved["position"] == {"epoch": 2, "clips": 0}


# --- refusals -----------------------------------------------------------------------------------


def test_other_settings_are_refused_with_both_values(demo: Path, tmp_path: Path) -> None:
    pretrain(toy(demo, tmp_path / "run", max_steps=1))
    with pytest.raises(UsageError, match=r"lr was 0.001, is 0.01.*--init"):
        pretrain(toy(demo, tmp_path / "run", lr=0.01))
    with pytest.raises(UsageError, match=r"model.n_slow was 2, is 4"):
        pretrain(toy(demo, tmp_path / "run", ToyConfig(n_slow=4)))


def test_a_checkpoint_of_another_method_is_refused(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(toy(demo, tmp_path / "run", max_steps=1))
    monkeypatch.setitem(METHODS, "other", METHODS["toy"])
    with pytest.raises(UsageError, match="method was 'toy', is 'other'"):
        pretrain(toy(demo, tmp_path / "run", method="other"))


def test_other_clips_are_refused_or_begin_a_new_epoch(
    demo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(toy(demo, tmp_path / "run", max_steps=4))
    grown = ramp_set(tmp_path / "demo-glcm", shards=3, clips=5)
    pretrain(toy(grown, tmp_path / "run", max_steps=5))
    assert "going on with the next epoch" in caplog.text
    renamed = ramp_set(tmp_path / "new-glcm", name="new")
    with pytest.raises(UsageError, match="instance id"):
        pretrain(toy(renamed, tmp_path / "run", max_steps=6))


def test_a_loss_that_is_not_finite_stops_with_facts(demo: Path, tmp_path: Path) -> None:
    config = toy(demo, tmp_path / "run", ToyConfig(nan_at=5), checkpoint_every=3)
    with pytest.raises(
        NotFiniteError, match=r"loss and grad_norm not finite at step 6 .*demo/clip"
    ):
        pretrain(config)
    assert checkpoint.load(tmp_path / "run")["step"] == 3


def test_a_run_is_trained_by_one_process(demo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w');"
        "fcntl.lockf(f, fcntl.LOCK_EX); print('locked', flush=True); sys.stdin.read()"
    )
    run.mkdir()
    arguments = [sys.executable, "-c", code, str(run / "lock")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        with pytest.raises(LockedError, match="another process trains in"):
            pretrain(toy(demo, run, max_steps=1))
        other.stdin.close()
    assert pretrain(toy(demo, run, max_steps=1)) == COMPLETE


def test_too_few_clips_and_missing_shards_are_sentences(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="smaller --batch-size"):
        pretrain(toy(demo, tmp_path / "a", batch_size=11))
    with pytest.raises(UsageError, match="make shards DATASET=avspeech"):
        pretrain(toy(tmp_path / "avspeech-glcm", tmp_path / "b"))
    assert not list(tmp_path.iterdir())


# --- starting from, measuring, configuring --------------------------------------------------------


def test_a_new_run_starts_from_old_weights_and_lists_what_does_not_fit(
    demo: Path, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from train.pretrain import build_model
    from train.restart import start_from

    config = toy(demo, tmp_path / "new", init=undisturbed)
    model = build_model(config, torch.device("cpu"))
    with caplog.at_level(logging.INFO):
        start_from(config, model)
    expected = weights(undisturbed)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert "step 15, fresh optimiser" in caplog.text
    pretrain(replace(config, max_steps=1))
    assert len(metrics(tmp_path / "new")) == 1


def test_the_best_on_held_out_clips_is_kept(demo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(toy(demo, run, val_every=5, val_split="train"))
    measured = [line for line in metrics(run) if "val_loss" in line]
    assert [line["step"] for line in measured] == [5, 10, 15]
    best = min(measured, key=lambda line: float(line["val_loss"]))["step"]
    assert (run / "checkpoints/best").read_text() == f"step-{best:08d}.pt\n"


def test_a_stored_config_is_the_config(demo: Path, tmp_path: Path) -> None:
    config = toy(demo, tmp_path / "run", betas=(0.8, 0.99), init=Path("x/y"))
    stored = json.loads(json.dumps(config.as_dict()))
    again = from_dict(PretrainConfig, {**stored, "model": from_dict(ToyConfig, stored["model"])})
    assert again == config
    assert differences(stored, again) == []
    with pytest.raises(UsageError, match="has no field colour"):
        from_dict(ToyConfig, {"colour": 1})


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("lr", 0.0), ("batch_size", 0)])
def test_ranges_are_checked(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{field} is {value}"):
        PretrainConfig(model=ToyConfig(), **{field: value})  # type: ignore[arg-type]


def test_runs_have_names_and_tiny_has_small_batches() -> None:
    config = PretrainConfig(model=ToyConfig(), preset="glcm_r18")
    assert (config.folder, config.clips_per_batch) == (Path("runs/glcm-r18"), 32)
    tiny = replace(config, preset="tiny", run="first")
    assert (tiny.folder, tiny.clips_per_batch) == (Path("runs/first"), 4)
    assert replace(config, run="/tmp/x").folder == Path("/tmp/x")


def test_glcm_trains_on_the_same_loop(demo: Path, tmp_path: Path) -> None:
    model = replace(preset_named("glcm", "tiny"), frames=8, n_slow=2, crop=32, width=8)
    config = replace(toy(demo, tmp_path / "run", max_steps=2), method="glcm", model=model)
    assert pretrain(config) == COMPLETE
    assert {"loss_g", "loss_l", "a2v_r1"} <= set(metrics(tmp_path / "run")[0])


# --- as a program -------------------------------------------------------------------------------


def command(demo: Path, run: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "train", "pretrain", "--method", "toy", "--preset", "toy",
        "--shards", str(demo), "--run", str(run), "--epochs", "5", "--batch-size", "3",
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
    demo: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "run"
    slow = ("--model.seconds", "0.3")
    first = start(command(demo, run, *slow))
    wait_for_lines(run, 2, first)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == PREEMPTED
    assert (run / "preempted").exists()
    second = start(command(demo, run, *slow))
    wait_for_lines(run, 9, second)
    second.kill()
    second.wait(60)
    third = start(command(demo, run, *slow))  # at once: the lock went with its owner
    text, _ = third.communicate(timeout=120)
    assert third.returncode == COMPLETE, text
    assert "going on at step 8" in text
    assert same(run) == same(undisturbed)


@pytest.mark.slow
def test_two_ranks_under_torchrun_learn_what_one_learns(demo: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node", "2"]  # fmt: skip
    two = [name.replace("--run", "--run-dir") for name in command(demo, tmp_path / "two")]
    flags = ("--batch-size", "2", "--device", "cpu", "--model.dropout", "0")
    for more in (["--max-steps", "5"], []):
        done = start([*torchrun, *two[1:], *flags, *more])
        text, _ = done.communicate(timeout=200)
        assert done.returncode == 0, text
    assert "2 clips a device x 2 ranks x 1 accumulated = 4 a step; 3 other clips" in text
    one = toy(demo, tmp_path / "one", ToyConfig(dropout=0), batch_size=4)
    assert pretrain(one) == COMPLETE
    assert len(metrics(tmp_path / "two")) == 10
    for ours, theirs in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    alone = weights(tmp_path / "one")
    for name, tensor in weights(tmp_path / "two").items():
        assert torch.allclose(tensor, alone[name], atol=1e-5)


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_on_all_ranks(
    demo: Path, tmp_path: Path, undisturbed: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node", "2"]  # fmt: skip
    two = [name.replace("--run", "--run-dir") for name in command(demo, tmp_path / "run")]
    process = start([*torchrun, *two[1:], "--batch-size", "2", "--model.seconds", "0.3"])
    wait_for_lines(tmp_path / "run", 2, process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    step = json.loads((tmp_path / "run/preempted").read_text())["step"]
    assert checkpoint.load(tmp_path / "run")["step"] == step, text


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
    assert "make shards DATASET=lrw" in missing[1]
    out = ramp_set(tmp_path / "demo-glcm")
    edit_json(out / "shardindex.json", shardlist=[{"url": "pipe:x", "nsamples": 1, "filesize": 1}])
    assert code("pretrain", "--shards", str(out), "--run", run)[0] == 5
    (out / "shardindex.json").unlink()
    assert code("pretrain", "--shards", str(out), "--run", run)[0] == 3
    assert "known: glcm" in code("pretrain", "--method", "glmc")[1]
    assert code("pretrain", "--model.frames", "31")[0] == 2
    assert code("nonsense")[0] == 2
