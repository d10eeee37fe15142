"""The loop: metrics, stopping and going on exactly, refusals; with a toy method and with Glcm."""

import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.train.ramps import ramp_set
from tests.train.runs import assert_like, metrics, same, toy, weights
from tests.train.toy import Toy, ToyConfig
from train import checkpoint, pretrain as pretraining, session, trackers
from train.batch import Batch
from train.config import PretrainConfig, differences, from_dict
from train.dist import Ranks
from train.errors import DiskError, LockedError, UsageError
from train.meter import NotFiniteError
from train.methods import METHODS, MethodEntry, preset_named
from train.pretrain import (
    COMPLETE,
    PREEMPTED,
    build_model,
    flop_per_clip,
    forward_backward,
    parallel_model,
    pretrain,
)

REPOSITORY = Path(__file__).parents[2]
SAME = ("loss", "video_norm", "grad_norm", "lr", "epoch")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)


# --- a run and what it leaves -----------------------------------------------------------------


def test_a_run_leaves_metrics_config_clips_and_checkpoints(undisturbed: Path) -> None:
    lines = metrics(undisturbed)
    assert [line["step"] for line in lines] == list(range(1, 16))
    assert lines[-1]["epoch"] == 5
    expected = {"loss", "clips_per_second", "step_seconds", "data_wait_share", "memory_bytes",
                "mfu", "lr", "grad_norm", "epoch", "step"}  # fmt: skip
    assert expected <= set(lines[0])
    assert lines[0]["memory_bytes"] > 1e6
    names = sorted(path.name for path in undisturbed.iterdir() if path.name != "tensorboard")
    assert names == ["checkpoints", "clips.parquet", "config.json", "finished.json", "lock",
                     "metrics.jsonl", "origin.json"]  # fmt: skip
    steps = [path.stem[-2:] for path in checkpoint.checkpoints(undisturbed / "checkpoints")]
    assert steps == ["08", "12", "15"]


def test_a_checkpoint_says_where_it_comes_from(undisturbed: Path) -> None:
    saved = checkpoint.load(undisturbed)
    assert saved["position"] == {"epoch": 5, "clips": 0}
    assert saved["config"]["method"] == "toy"
    assert saved["first_instances"] == {"demo-glcm": 0}
    assert set(saved["git"]) == {"commit", "diff", "untracked"}
    assert saved["plugins"] == os.environ.get("GLAV_PLUGINS", "")
    assert len(saved["random"]) == 1


def test_a_finished_run_says_so_and_names_the_ways_on(
    ten: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = same(undisturbed)
    with caplog.at_level(logging.INFO):
        assert pretrain(toy(ten, undisturbed)) == COMPLETE
    assert f"name another RUN and --init {undisturbed}" in caplog.text
    assert same(undisturbed) == before


def test_the_log_names_negatives_and_split(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        pretrain(toy(ten, tmp_path / "run", max_steps=1, accumulation=2))
    assert "3 clips a device x 1 ranks x 2 accumulated = 6 a step; 2 other clips" in caplog.text
    assert "10 of 10 clips of split train, 10 an epoch; windows of 8 frames = 0.80 s at 10 fps" in (
        caplog.text
    )
    assert "stopped at --max-steps 1 of 7" in caplog.text


# --- stopping and going on ----------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[1], [4], [2, 7, 14]])
def test_stop_points_change_nothing(
    ten: Path, tmp_path: Path, undisturbed: Path, stops: list[int]
) -> None:
    for stop in stops:
        assert pretrain(toy(ten, tmp_path / "run", max_steps=stop)) == COMPLETE
        assert len(metrics(tmp_path / "run")) == stop
    assert pretrain(toy(ten, tmp_path / "run")) == COMPLETE
    assert_like(tmp_path / "run", undisturbed)


def test_a_signal_saves_at_once_and_the_same_command_goes_on(
    ten: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.train.toy import Toy

    original = Toy.forward

    def forward(self: Any, batch: Any) -> Any:
        if self.calls == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Toy, "forward", forward)
        assert pretrain(toy(ten, tmp_path / "run")) == PREEMPTED
    note = json.loads((tmp_path / "run/preempted").read_text())
    assert note == {"step": 6, "signal": "SIGUSR1"}
    assert pretrain(toy(ten, tmp_path / "run")) == COMPLETE
    assert not (tmp_path / "run/preempted").exists()
    assert_like(tmp_path / "run", undisturbed)


def ctrl_c_at(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Send SIGINT to ourselves when the toy is called the n-th time, with a second in between."""
    from tests.train.toy import Toy

    original = Toy.forward

    def forward(self: Any, batch: Any) -> Any:
        for _ in range(calls.count(self.calls)):
            os.kill(os.getpid(), signal.SIGINT)
            monkeypatch.setattr(session, "ECHO_SECONDS", 0.0)
        return original(self, batch)

    monkeypatch.setattr(Toy, "forward", forward)


def test_ctrl_c_finishes_the_step_and_saves(
    ten: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        ctrl_c_at(patch, 6)  # two steps after a checkpoint
        assert pretrain(toy(ten, tmp_path / "run")) == PREEMPTED
    assert "a second Ctrl-C stops at once" in capfd.readouterr().err
    note = json.loads((tmp_path / "run/preempted").read_text())
    assert note == {"step": 7, "signal": "SIGINT"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert pretrain(toy(ten, tmp_path / "run")) == COMPLETE
    assert_like(tmp_path / "run", undisturbed)


def test_a_second_ctrl_c_stops_at_once_and_says_what_is_lost(
    ten: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        ctrl_c_at(patch, 6, 6)
        with pytest.raises(KeyboardInterrupt, match="nothing saved since step 4;"):
            pretrain(toy(ten, tmp_path / "run"))
    assert not (tmp_path / "run/preempted").exists()
    assert pretrain(toy(ten, tmp_path / "run")) == COMPLETE
    assert_like(tmp_path / "run", undisturbed)


def test_one_ctrl_c_that_comes_twice_is_one(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the terminal to the whole process group, and from a launcher once more."""
    stop = session.Stop(saved_step=0)
    clock = iter([100.0, 100.1, 101.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stop(signal.SIGINT, None)
    stop(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt, match="since step 0"):
        stop(signal.SIGINT, None)


def test_ctrl_c_before_the_first_step_ends_at_once() -> None:
    with session.stop_on_signals() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop.wanted


def test_steps_after_the_last_checkpoint_are_measured_once(
    ten: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """A crash leaves metrics of steps that no checkpoint holds, and a torn line."""
    run = tmp_path / "run"
    pretrain(toy(ten, run, max_steps=8))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 1.0}\n{"step": 10, "lo')
    pretrain(toy(ten, run))
    assert_like(run, undisturbed)


def test_a_disk_without_room_is_a_sentence(ten: Path, tmp_path: Path, small_files: None) -> None:
    with pytest.raises(DiskError, match=r"\(File too large.*Make room.*goes on"):
        pretrain(toy(ten, tmp_path / "run", checkpoint_every=1))


def test_accumulated_batches_are_one_step(ten: Path, tmp_path: Path) -> None:
    config = toy(ten, tmp_path / "whole", accumulation=2, schedule_steps=6)
    pretrain(config)
    for stop in (2, 5, None):
        pretrain(replace(config, run=str(tmp_path / "parts"), max_steps=stop))
    assert_like(tmp_path / "parts", tmp_path / "whole")
    assert metrics(tmp_path / "whole")[-1]["epoch"] == 4


def test_another_batch_size_goes_on_at_the_same_clip(ten: Path, tmp_path: Path) -> None:
    pretrain(toy(ten, tmp_path / "run", max_steps=4))
    pretrain(toy(ten, tmp_path / "run", batch_size=5, max_steps=5))
    saved = checkpoint.load(tmp_path / "run")
    assert saved["position"] == {"epoch": 2, "clips": 0}


# --- refusals -----------------------------------------------------------------------------------


def test_other_settings_are_refused_with_both_values(ten: Path, tmp_path: Path) -> None:
    pretrain(toy(ten, tmp_path / "run", max_steps=1))
    with pytest.raises(UsageError, match=r"lr was 0.001, is 0.01.*--init"):
        pretrain(toy(ten, tmp_path / "run", lr=0.01))
    with pytest.raises(UsageError, match=r"model.n_slow was 2, is 4"):
        pretrain(toy(ten, tmp_path / "run", ToyConfig(n_slow=4)))


def test_a_checkpoint_of_another_method_is_refused(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(toy(ten, tmp_path / "run", max_steps=1))
    monkeypatch.setitem(METHODS, "other", METHODS["toy"])
    with pytest.raises(UsageError, match="method was 'toy', is 'other'"):
        pretrain(toy(ten, tmp_path / "run", method="other"))


def test_other_clips_are_refused_or_begin_a_new_epoch(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(toy(ten, tmp_path / "run", max_steps=4))
    grown = ramp_set(tmp_path / "demo-glcm", shards=3, clips=5)
    pretrain(toy(grown, tmp_path / "run", max_steps=5))
    assert "going on with the next epoch" in caplog.text
    caplog.clear()
    pretrain(toy(grown, tmp_path / "at-end", max_steps=5))  # of the first epoch
    pretrain(toy(ten, tmp_path / "at-end", max_steps=6))
    assert "the clips have changed" in caplog.text
    renamed = ramp_set(tmp_path / "new-glcm", name="new")
    with pytest.raises(UsageError, match="instance id"):
        pretrain(toy(renamed, tmp_path / "run", max_steps=6))


def test_a_loss_that_is_not_finite_stops_with_facts(ten: Path, tmp_path: Path) -> None:
    config = toy(ten, tmp_path / "run", ToyConfig(nan_at=5), checkpoint_every=3)
    with pytest.raises(
        NotFiniteError, match=r"loss and grad_norm not finite at step 6 .*demo/clip"
    ):
        pretrain(config)
    assert checkpoint.load(tmp_path / "run")["step"] == 3


def test_sync_bn_without_a_gpu_is_a_sentence(ten: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sync-bn needs GPUs"):
        pretrain(toy(ten, tmp_path / "run", sync_bn=True))


def test_a_run_is_trained_by_one_process(ten: Path, tmp_path: Path) -> None:
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
            pretrain(toy(ten, run, max_steps=1))
        other.stdin.close()
    assert pretrain(toy(ten, run, max_steps=1)) == COMPLETE


def test_too_few_clips_and_missing_shards_are_sentences(ten: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="smaller --batch-size"):
        pretrain(toy(ten, tmp_path / "a", batch_size=11))
    with pytest.raises(UsageError, match="make shards DATASET=avspeech"):
        pretrain(toy(tmp_path / "avspeech-glcm", tmp_path / "b"))
    assert not list(tmp_path.iterdir())


# --- starting from, measuring, configuring --------------------------------------------------------


def test_a_new_run_starts_from_old_weights_and_lists_what_does_not_fit(
    ten: Path, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from train.pretrain import build_model
    from train.restart import start_from

    config = toy(ten, tmp_path / "new", init=undisturbed)
    model = build_model(config, torch.device("cpu"))
    with caplog.at_level(logging.INFO):
        start_from(config, model, {})
    expected = weights(undisturbed)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert "step 15, fresh optimiser" in caplog.text
    pretrain(replace(config, max_steps=1))
    assert len(metrics(tmp_path / "new")) == 1


def test_the_best_on_held_out_clips_is_kept(ten: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(toy(ten, run, val_every=5, val_split="train", allow_overlap=True))
    measured = [line for line in metrics(run) if "val_loss" in line]
    assert [line["step"] for line in measured] == [5, 10, 15]
    best = min(measured, key=lambda line: float(line["val_loss"]))["step"]
    assert (run / "checkpoints/best").read_text() == f"step-{best:08d}.pt\n"


def test_a_stored_config_is_the_config(ten: Path, tmp_path: Path) -> None:
    config = toy(ten, tmp_path / "run", betas=(0.8, 0.99), init=Path("x/y"))
    stored = json.loads(json.dumps(config.as_dict()))
    again = from_dict(PretrainConfig, {**stored, "model": from_dict(ToyConfig, stored["model"])})
    assert again == config
    assert differences(stored, again) == []
    with pytest.raises(UsageError, match="has no field colour"):
        from_dict(ToyConfig, {"colour": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("lr", 0.0), ("lr", math.inf), ("batch_size", 0), ("max_steps", 0),
     ("threads", -1), ("betas", (0.9, 1.0)), ("weight_decay", math.nan), ("clip_norm", math.nan),
     ("cache_gb", math.inf)],
)  # fmt: skip
def test_ranges_are_checked(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{field} is {value}")):
        PretrainConfig(model=ToyConfig(), **{field: value})


def test_a_run_folder_that_cannot_be_made_is_a_sentence(ten: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/run cannot be made \(Not a directory\)"):
        pretrain(toy(ten, tmp_path / "file/run"))


def test_runs_have_names_and_tiny_has_small_batches() -> None:
    config = PretrainConfig(model=ToyConfig(), preset="glcm_r18")
    assert (config.folder, config.clips_per_batch) == (Path("runs/glcm-r18"), 32)
    tiny = replace(config, preset="tiny", run="first")
    assert (tiny.folder, tiny.clips_per_batch) == (Path("runs/first"), 4)
    assert replace(config, run="/tmp/x").folder == Path("/tmp/x")


def test_glcm_trains_on_the_same_loop(ten: Path, tmp_path: Path) -> None:
    model = replace(preset_named("glcm", "tiny"), frames=8, n_slow=2, crop=32, width=8)
    config = toy(
        ten, tmp_path / "run", max_steps=2, val_every=2, val_split="train", allow_overlap=True
    )
    assert pretrain(replace(config, method="glcm", model=model)) == COMPLETE
    steps = metrics(tmp_path / "run")
    assert {"loss_g", "loss_l", "a2v_r1"} <= set(steps[0])
    measured = steps[-1]
    gap = measured["val_loss_l_swapped"] - measured["val_loss_l"]
    assert measured["val_loss_l_gap"] == pytest.approx(gap, abs=1e-5)
    assert measured["val_v2a_r1_l_chance"] == pytest.approx(1 / 8)


def test_held_out_clips_are_measured_where_there_are_some(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        pretrain(toy(ten, tmp_path / "none", max_steps=1))
    assert "no held-out measurement" in caplog.text
    with pytest.raises(UsageError, match="val"):
        pretrain(toy(ten, tmp_path / "asked", max_steps=1, val_every=1))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        pretrain(
            toy(
                ten,
                tmp_path / "some",
                max_steps=1,
                val_split="train",
                allow_overlap=True,
                val_clips=4,
            )
        )
    assert "held out: 6 of 10 clips of split train every 500 steps" in caplog.text
    assert [line["step"] for line in metrics(tmp_path / "some") if "val_loss" in line] == [1]


# --- the model between config and loop ------------------------------------------------------------


@pytest.mark.parametrize("block", ["hara", "sf", "code"])
def test_gradients_have_the_strides_of_their_weights(
    monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    """What DDP warns of at its first step otherwise; seen without its processes."""
    with_no_processes = type("Alone", (), {"__new__": lambda cls, model, **_: model})
    monkeypatch.setattr(pretraining, "DistributedDataParallel", with_no_processes)
    small = replace(preset_named("glcm", "tiny"), frames=4, n_slow=2, crop=32, block=block)
    config = PretrainConfig(model=small, preset="tiny", device="cpu")
    model = build_model(config, torch.device("cpu"))
    model = parallel_model(model, config, Ranks(world=2))
    generator = torch.Generator().manual_seed(0)
    for channels_last in (False, True):
        video = torch.randn(2, 3, 4, 32, 32, generator=generator)
        if channels_last:
            video = video.to(memory_format=torch.channels_last_3d)
        mel = torch.randn(2, 80, 12, generator=generator)
        numbers = torch.arange(2)
        batch = Batch(video, mel, numbers, numbers, ("a", "b"))
        model.zero_grad(set_to_none=True)
        forward_backward(model, batch, config, torch.device("cpu"), sync=True)
        for name, weight in model.named_parameters():
            assert weight.grad is not None
            assert weight.grad.stride() == weight.stride(), name


def test_fp32_is_fp32_and_kernels_are_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch does not do by itself on a GPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    build_model(PretrainConfig(model=ToyConfig(), method="toy"), torch.device("cpu"))
    assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_model_that_needs_more_mel_is_refused(ten: Path, tmp_path: Path) -> None:
    model = replace(preset_named("glcm", "tiny"), frames=8, n_slow=2, crop=32, audio_stride=4)
    with pytest.raises(
        UsageError, match=r"needs 12 mel slices a frame, 120 a second; demo-glcm has 3, 30 a second"
    ):
        pretrain(replace(toy(ten, tmp_path / "run"), method="glcm", model=model))


def test_a_signal_that_another_rank_got_has_its_name(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Ranks, "any", lambda self, flag: True)
    monkeypatch.setattr(
        Ranks, "all_objects", lambda self, item: ["", "SIGUSR1"] if item == "" else [item]
    )
    with caplog.at_level(logging.INFO):
        assert pretrain(toy(ten, tmp_path / "run")) == PREEMPTED
    assert "SIGUSR1: saved at step 1" in caplog.text
    assert json.loads((tmp_path / "run/preempted").read_text())["signal"] == "SIGUSR1"


class Peeking(Toy):
    """Looks at a value, which the meta device does not have."""

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        return {"loss": self.mel.weight.sum() * self.mel.bias.sum().item()}


class Sized(ToyConfig):
    """A toy whose input is known."""

    input_shapes: ClassVar[Any] = {"video": (3, 8, 16, 16), "mel": (80, 24)}


@pytest.mark.parametrize(("model", "said"), [(Sized(), "meta"), (ToyConfig(), "input_shapes")])
def test_flops_that_cannot_be_counted_do_not_stop_a_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, model: Any, said: str
) -> None:
    monkeypatch.setitem(METHODS, "peeking", MethodEntry(ToyConfig, Peeking, {"toy": ToyConfig()}))
    config = PretrainConfig(model=model, method="peeking", preset="toy")
    assert flop_per_clip(config, torch.device("cuda")) is None
    assert re.search(f"no MFU: the FLOPs of peeking cannot be counted .*{said}", caplog.text)
    known = PretrainConfig(model=preset_named("glcm", "tiny"), preset="tiny")
    assert flop_per_clip(known, torch.device("cuda")) > 1e8  # type: ignore[operator]


def test_the_log_says_how_long_a_window_is_and_how_many_clips_are_left_out(
    ten: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten clips of 30 frames in one set, six of 12 in the other; at 10 fps."""
    with caplog.at_level(logging.INFO):
        model = ToyConfig(frames=20)
        pretrain(toy(ten, tmp_path / "run", model, max_steps=1))
    assert "demo-glcm: 10 of 10 clips" in caplog.text
    assert "windows of 20 frames = 2.00 s at 10 fps" in caplog.text
    with pytest.raises(UsageError, match=r"all 6 clips .* 20 frames = 2.00 s .* longest has 12"):
        pretrain(toy(other, tmp_path / "short", model, max_steps=1))


def test_another_rate_than_the_presets_are_made_for_is_told(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for meant, said in ((25, True), (10, False), (None, False)):
        caplog.clear()
        monkeypatch.setitem(METHODS, "toy", replace(METHODS["toy"], fps=meant))
        pretrain(toy(ten, tmp_path / f"run{meant}", max_steps=1))
        assert ("made for 25 fps, these shards have 10: a window of 8 frames lasts 0.80 s instead "
                "of 0.32 s" in caplog.text) is said  # fmt: skip
