"""`train check` passes what is right and finds what is wrong, by name."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tests.train.broken
import tests.train.toy  # noqa: F401
from stores.local import LocalStore
from tests.train.small import OURS, small
from train import check
from train.check import Trial, default_of
from train.cuts import Reads
from train.errors import UsageError
from train.generated import LOUD, SILENCE, bouncing_ball, write_generated_set
from train.index import open_shards
from train.mixture import open_mixture, parse_shards

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trial(method: str, folder: Path) -> Trial:
    return check._prepare(default_of(method, None), folder)


# --- generated clips ------------------------------------------------------------------------------


def test_generated_clips_sound_when_the_ball_is_at_the_floor() -> None:
    for seed in range(5):
        pictures, mel = bouncing_ball(40, 48, np.random.default_rng(seed))
        moving = (pictures != pictures[:, :1, :1]).any(-1)  # the corner shows the ground
        lowest = [np.nonzero(frame)[0].max() for frame in moving]
        loud = mel.astype(np.float32).max(0)
        jumps = np.diff(loud, prepend=loud[0])
        onsets = np.nonzero(jumps > 0.5 * (LOUD - SILENCE))[0] / 3
        assert len(onsets) >= 3
        for onset in onsets.astype(int):
            near = range(max(onset - 1, 0), min(onset + 2, 40))
            around = range(max(onset - 2, 0), min(onset + 3, 40))
            assert max(lowest[k] for k in near) == max(lowest[k] for k in around)


def test_a_generated_set_is_read_like_any_other(tmp_path: Path) -> None:
    out = write_generated_set(tmp_path / "set", clips=5, frames=12, short_side=40)
    assert len(open_shards(LocalStore(out))) == 5
    mixture = open_mixture(parse_shards(str(out), tmp_path), reads=Reads(8, 8))
    assert (mixture.clips, mixture.short_side, mixture.fps) == (5, 40, 10)


# --- what is right --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sound_method_passes_and_leaves_a_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = tmp_path / "page.html"
    with caplog.at_level("INFO"):
        assert check.check(replace(default_of("toy", None), page=page, lr=0.03)) == 0
    assert {r.name for r in caplog.records if r.levelname == "INFO"} == {"train.check"}
    lines = [r.getMessage() for r in caplog.records if r.name == "train.check"]
    words = [line.split()[0] for line in lines[:-1]]
    assert words == ["next:", "ok"] * len(check.CHECKS)  # each is told when it is known
    assert [line.split(":")[1].split(" (")[0].strip() for line in lines[:-1:2]] == [*check.CHECKS]
    assert all("(about" in line for line in lines[4:-1:2])
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 1 + 4  # the loss, and each clip
    assert len(re.findall(r"<h3>generated/clip\d{4}", html)) == 4


def test_the_page_shows_the_pixels_the_model_gets(tmp_path: Path) -> None:
    from train.checkpage import denormalised

    batch = trial("toy", tmp_path).batch
    shown = denormalised(batch.video).float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(batch.video.permute(0, 2, 3, 4, 1), (shown - mean) / std, atol=0.02)


def test_shards_are_used_where_they_are_named(ten: Path, tmp_path: Path) -> None:
    config = replace(default_of("toy", None), shards=str(ten), lr=0.03)
    prepared = check._prepare(config, tmp_path)
    assert all(key.startswith("demo/clip") for key in prepared.batch.keys)
    assert check.overfit(prepared)[0]
    assert check.resume(prepared)[0]


def test_held_out_clips_do_not_look_like_a_run_that_cannot_resume(
    split: Path, tmp_path: Path
) -> None:
    """A run that is stopped measures them where it stops, an undisturbed one does not."""
    config = replace(default_of("toy", None), shards=str(split))
    prepared = check._prepare(config, tmp_path)
    ok, said = check.resume(prepared)
    assert ok, said


def test_ranks_that_are_apart_by_design_are_not_compared(tmp_path: Path) -> None:
    ok, said = check.two_ranks(trial("apart", tmp_path))
    assert ok is None
    assert "gather=False" in said


@pytest.mark.slow
def test_glcm_is_ready(tmp_path: Path) -> None:
    config = replace(default_of("glcm", None), model=small("glcm"))
    assert check.check(replace(config, page=tmp_path / "page.html")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("name", ["contract", "gradients", "two ranks", "resume"])
def test_every_method_is_the_same_on_two_ranks_and_after_a_stop(
    method: str, name: str, tmp_path: Path
) -> None:
    config = replace(default_of(method, None), model=small(method))
    prepared = check._prepare(config, tmp_path)
    verdict = check._verdict(prepared, name, check.CHECKS[name])
    assert verdict.ok, verdict.said


@pytest.mark.slow
def test_the_stop_of_cma_comes_between_positives(tmp_path: Path) -> None:
    """They are found before the first step, and would be lost with the process."""
    prepared = check._prepare(replace(default_of("avid_cma", None), model=small("avid_cma")),
                              tmp_path)  # fmt: skip
    assert check.resume(prepared)[0]
    for line in check._lines(tmp_path / "whole"):
        assert line["loss_v2v_positives"] > 0


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "name", "said"),
    [
        ("raises", "contract", "raised ValueError: the seventh cell is missing"),
        ("bare", "contract", "gave Tensor; expected a dict"),
        ("holding", "contract", "twice keep their graph"),
        ("unused", "gradients", "no gradient reaches forgotten.weight, forgotten.bias"),
        ("notfinite", "gradients", "not finite: mel.bias"),
        ("stuck", "overfit", "expected a fall by 30%"),
        ("forgetful", "resume", "step 3 of a run stopped after 2 has another loss"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, method: str, name: str, said: str) -> None:
    verdict = check._verdict(trial(f"broken_{method}", tmp_path), name, check.CHECKS[name])
    assert verdict.ok is False
    assert said in verdict.said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("local", "step 1: the loss of one rank is"),
        ("summed", "step 1: the loss of one rank is"),
        ("halfgradient", "gradients get lost"),
        ("raises", "the seventh cell is missing"),
    ],
)
def test_two_ranks_that_learn_something_else_are_found(
    tmp_path: Path, method: str, said: str
) -> None:
    prepared = trial(f"broken_{method}", tmp_path)
    verdict = check._verdict(prepared, "two ranks", check.two_ranks)
    assert verdict.ok is False
    assert said in verdict.said


def test_sizes_that_make_no_sense_are_refused() -> None:
    config = default_of("toy", None)
    with pytest.raises(UsageError, match="batch_size is 3; two ranks share it"):
        replace(config, batch_size=3)
    with pytest.raises(UsageError, match="fall 2"):
        replace(config, fall=2.0)
    with pytest.raises(UsageError, match="unknown method 'nothing'; known: "):
        default_of("nothing", None)


@pytest.mark.slow
def test_as_a_program_a_plugins_method_is_checked_and_failure_is_exit_code_1(
    tmp_path: Path,
) -> None:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "GLAV_PLUGINS": "tests.train.broken", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "train", "check", *words]
        return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True)

    page = str(tmp_path / "page.html")
    good = run("toy", "--page", page, "--lr", "0.03")
    assert good.returncode == 0, good.stderr
    assert "ok       two ranks" in good.stderr
    bad = run("broken_unused", "--page", page, "--model.n-slow", "4")
    assert bad.returncode == 1
    assert "FAILED   gradients" in bad.stderr
    assert "FAILED" in Path(page).read_text()
    assert run("--steps", "3").returncode == 2
    missing = run("toy", "--shards", str(tmp_path / "lrw-glcm"))
    assert missing.returncode == 2
    assert "no shards under" in missing.stderr
