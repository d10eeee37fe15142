"""The rows of loader and step: every way gives the same windows, and the step is the trainer's."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

from bench import loading, plainload, queues, steps
from bench.goals import GOALS
from bench.media import Media
from bench.naive import SHORT_SIDE
from pipeline.format import encode_jpeg, encode_npy
from tests.pipeline.clips import make_clip
from train.config import PretrainConfig
from train.methods.glcm import PRESETS, Glcm

CPU = torch.device("cpu")
FRAMES = 12
NO_GPU = "No GPU here"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the bench itself runs: threads that wait for each other on a busy machine take minutes."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("load") / "clip.mp4", seconds=5, size="192x144")


# --- loading ------------------------------------------------------------------------------------


def test_the_plain_dataset_gives_a_window(clip: Path) -> None:
    torch.manual_seed(0)
    video, mel = plainload.Mp4Clips([clip], FRAMES)[0]
    assert (video.shape, video.dtype) == ((FRAMES, SHORT_SIDE, SHORT_SIDE, 3), torch.uint8)
    assert (mel.shape, mel.dtype) == ((80, 3 * FRAMES), torch.float16)
    assert torch.isfinite(mel).all()


def test_the_plain_dataset_shows_the_middle_of_each_tenth(clip: Path) -> None:
    with av.open(str(clip)) as container:
        frames = list(container.decode(video=0))
    with av.open(str(clip)) as container:
        found = plainload._pictures(container, 7, 4)
    for picture, middle in zip(found, (0.75, 0.85, 0.95, 1.05), strict=True):
        shown = [frame for frame in frames if frame.time <= middle][-1].to_ndarray(format="rgb24")
        whole = cv2.resize(shown, (171, 128), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(picture, whole[:, 21:149])


def test_one_jpeg_a_member_gives_the_window_it_was_given(tmp_path: Path) -> None:
    grays = [encode_jpeg(np.full((128, 170, 3), 8 * k, np.uint8), 95) for k in range(20)]
    mel = np.repeat(np.arange(60, dtype=np.float16)[None], 80, 0)
    tar = plainload.jpeg_tar(tmp_path / "a.tar", [("one", grays, encode_npy(mel))])
    torch.manual_seed(3)
    for video, part in plainload.jpeg_clips(tar, FRAMES).repeat(3):
        start = int(part[0, 0]) // 3
        levels = video.float().mean((1, 2, 3))
        assert torch.allclose(levels, 8.0 * (start + torch.arange(FRAMES)), atol=1.5)
        assert torch.equal(part[7].float(), 3 * start + torch.arange(3.0 * FRAMES))


def test_rows_of_the_loader(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CLIPS", 4)
    monkeypatch.setattr(loading, "BATCHES", {"ours": 3, "jpegs": 3, "members": 2, "mp4": 1})
    lines = loading.measure(Media("clip", "kinetics", clip, True), tmp_path, 1)
    ours, members, jpegs = lines
    assert [line.goal for line in lines] == ["loader", "loader members", "loader jpegs"]
    assert ours.facts["clips_a_round"] == {"ours": 12, "jpegs": 12, "members": 8, "mp4": 4}
    rates = ours.facts["clips_a_cpu_second"]
    assert rates["ours"] == pytest.approx(12 / ours.facts["rounds"]["ours"][0], rel=0.01)
    assert members.value == pytest.approx(rates["ours"] / rates["members"], rel=0.01)
    assert ours.naive == pytest.approx(rates["mp4"], rel=0.01)
    assert jpegs.value > ours.value  # decoding is a part of loading
    assert sum(len(batch) for batch in loading.ours(tmp_path / "clip-glcm", 3).one_epoch()) == 12


# --- steps --------------------------------------------------------------------------------------


def small() -> PretrainConfig[Any]:
    model = replace(PRESETS["tiny"], frames=4, n_slow=2, crop=28, width=8)
    return PretrainConfig(model, preset="tiny", batch_size=3, device="cpu", warmup_steps=0)


@pytest.mark.parametrize("make", [steps.trainer_step, steps.plain_step, steps.encoders_step])
def test_every_way_goes_back_through_all_encoders(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Glcm] = []
    build = Glcm.__init__

    def noted(self: Glcm, *args: Any) -> None:
        build(self, *args)
        models.append(self)

    monkeypatch.setattr(Glcm, "__init__", noted)
    for owner in (Glcm, torch.optim.Adam):  # gradients stay, to be looked at
        monkeypatch.setattr(owner, "zero_grad", lambda self, set_to_none=True: None)
    config = small()
    make(config, steps.random_batch(config, 3, CPU), CPU)()
    (model,) = models
    for encoder in (model.slow, model.fast, model.audio):
        assert encoder is not None
        assert all(weight.grad is not None for weight in encoder.parameters())


def test_the_row_of_a_cpu_invents_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "config_of", lambda preset, device: small())
    step = steps.row("tiny", CPU, 1)
    assert (step.device, step.batch, step.precision) == ("cpu", 3, "fp32")
    assert step.clips_per_second == pytest.approx(3000 / step.step_ms)
    assert (step.mfu, step.largest_batch, step.plain_memory_mib) == (None, None, None)
    assert step.peak_memory_mib > 100
    text = steps.rendered([step])
    assert NO_GPU in text
    assert steps.goals([step]) == []
    cells = text.splitlines()[2].split()
    assert cells[0] == "tiny"
    assert cells[4] == cells[-1] == "-"


def test_a_gpu_row_is_judged_where_the_goal_is_about_it() -> None:
    facts = {"batch": 32, "precision": "bf16", "clips_per_second": 800.0, "plain_ms": 200.0,
             "encoders_ms": 30.0, "compiled_ms": None, "mfu": 0.3, "peak_memory_mib": 9000.0,
             "plain_memory_mib": 20000.0, "largest_batch": 448}  # fmt: skip
    rows = [
        steps.Step(preset, device, step_ms=40.0, **facts)  # type: ignore[arg-type]
        for preset, device in [("glcm_r18", "NVIDIA H200"), ("glcm_r18", "NVIDIA L4"),
                               ("tiny", "NVIDIA H200")]
    ]  # fmt: skip
    (line,) = steps.goals(rows)
    assert (line.value, line.naive, line.is_met) == (40.0, 200.0, False)
    assert NO_GPU not in steps.rendered(rows)
    assert "30.0%" in steps.rendered(rows)
    assert GOALS["step"].limit == 35


@pytest.mark.parametrize("limit", [0, 31, 32, 33, 47, 48, 100, 127, 128, 1000, 10**6])
def test_the_largest_batch_is_found_within_an_eighth(limit: int) -> None:
    asked: list[int] = []

    def fits(clips: int) -> bool:
        asked.append(clips)
        return clips <= limit

    found = steps.largest(fits, 32, 4096)
    if limit < 32:
        assert found == 0
    else:
        assert found <= limit
        assert found >= min(limit, 4096) * 7 / 8 - 1
    assert max(asked) <= 4096
    assert len(asked) < 16


def test_peak_memory_grows_with_the_batch() -> None:
    assert steps.cpu_peak_mib("tiny", 4) > steps.cpu_peak_mib("tiny", 2)


@pytest.mark.slow
def test_the_command_measures_the_step_alone(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", "--only", "step", "--quick", "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    stored = json.loads(out.read_text())
    assert stored["machine"]["torch"]
    if not torch.cuda.is_available():
        assert NO_GPU in done.stdout
        assert [step["preset"] for step in stored["steps"]] == ["tiny"]
        assert stored["lines"] == []


# --- queues -------------------------------------------------------------------------------------


def test_both_queues_give_the_same_gradients_step_after_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues, "SIZE", 64)
    monkeypatch.setattr(queues, "NEIGHBOURS", 9)
    ways = queues.ways_of(CPU, 4)
    for _ in range(3):  # in the later ones the views are their own neighbours
        ours, plain = (ways[name]() for name in ("ours", "plain"))
        assert ours.abs().max() > 0  # type: ignore[attr-defined]
        torch.testing.assert_close(ours, plain)


def test_rows_of_the_queue() -> None:
    """Large enough for a copy to be seen in the memory of a fresh process.

    In this one, what other tests have left to the allocator would be taken again, unseen.
    """
    script = (
        "import json; from bench import queues; queues.SIZE = 32_768; "
        "print(json.dumps([vars(line) for line in queues.measure(1)]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, memory = json.loads(said.stdout)
    assert [line["goal"] for line in (seconds, memory)] == ["queue", "queue memory"]
    spent = seconds["facts"]["seconds"]
    assert seconds["value"] == pytest.approx(spent["ours"][0] / spent["plain"][0])
    copied = 32_768 * queues.WIDTH * 4 / 2**20
    assert memory["naive"] - memory["value"] > 0.5 * copied
