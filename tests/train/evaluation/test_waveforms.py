"""Tasks with methods that hear waveforms: what they are given, and what they refuse."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import format as shard_format
from pipeline.config import ShardConfig
from stores.local import LocalStore
from tests.pipeline.fabricate import Members
from tests.train.evaluation.sets import SOUND, Clip, labelled_set
from tests.train.evaluation.test_clips import example
from tests.train.evaluation.test_driver import clips, config, toy_task
from tests.train.ramps import ramp, ramp_set_of
from train.cuts import Wave
from train.errors import UsageError
from train.evaluation.clips import ClipBatch, ClipView, Look, read_clips
from train.evaluation.driver import evaluate
from train.evaluation.encoders import from_scratch
from train.evaluation.labelled import open_labelled
from train.methods.avid_config import PRESETS
from train.tasks import TASKS

RATE_HZ, PER_FRAME = 24_000, 2_400
AVID = ShardConfig("avid", Fraction(10), 32, 22050, RATE_HZ, 1)
MONO = Wave(RATE_HZ, 1)


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample i of the waveform is i modulo 30000."""
    members = ramp("demo/long", 0, 40, AVID)
    samples = np.arange(40 * PER_FRAME) % 30_000
    members["audio.flac"] = shard_format.encode_flac(
        (samples / 32768)[:, None].astype(np.float32), RATE_HZ
    )
    return ramp_set_of(tmp_path_factory.mktemp("sets") / "demo-avid", [[members]], config=AVID)


def heard(folder: Path, look: Look, frames: int = 40, **view: Any) -> ClipBatch:
    shard_set = open_labelled(LocalStore(folder)).shard_set
    chosen = ClipView("none", MONO, **view)
    (batch,) = read_clips(shard_set, [example(0, frames)], chosen, [[look]], workers=0)
    return batch


def test_the_waveform_of_a_window_is_exact(counting: Path) -> None:
    batch = heard(counting, Look(0, 5, 3, 0.5))
    assert batch.sound is not None
    assert batch.sound.shape == (1, 1, 3 * PER_FRAME)
    assert batch.sound[0, 0].tolist() == [i % 30_000 for i in range(5 * PER_FRAME, 8 * PER_FRAME)]
    ready = batch.centred(16).sound
    assert ready is not None
    assert torch.equal(ready * 32768, batch.sound.float())


def test_past_the_end_it_is_silent_or_begins_again(counting: Path) -> None:
    look = Look(0, 0, 4, 0.5)
    silent = heard(counting, look, frames=2, padding="silence").sound
    again = heard(counting, look, frames=2).sound
    assert silent is not None
    assert again is not None
    assert not silent[0, 0, 2 * PER_FRAME :].any()
    assert torch.equal(again[0, 0, 2 * PER_FRAME :], again[0, 0, : 2 * PER_FRAME])


def pitched(clip: Clip, members: Members) -> Members:
    """A low or a high tone in noise, by the clip's label."""
    seconds = np.arange(round(clip.seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(len(clip.key) + clip.label).normal(0, 0.03, len(seconds))
    tone = 0.1 * np.sin(2 * np.pi * (300 + 2500 * clip.label) * seconds) + noise
    flac = shard_format.encode_flac(tone[:, None].astype(np.float32), RATE_HZ)
    return {**members, "audio.flac": flac}


@pytest.fixture
def nano(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(PRESETS["tiny"], depth=10, width=4, hidden=8, embedding=4)
    monkeypatch.setitem(PRESETS, "nano", small)


@pytest.mark.parametrize("protocol", ["svm", "finetune"])
def test_avid_hears_the_difference(
    nano: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, protocol: str
) -> None:
    monkeypatch.setitem(TASKS, "toy", toy_task())
    shards = labelled_set(tmp_path / "demo-sound", clips(), SOUND, edit=pitched)
    flags = {"method": "avid", "protocol": protocol, "epochs": 25, "validation": 0.0}
    found = evaluate(config(shards, tmp_path / "run", **flags))
    assert found["metrics"][0]["value"] == 1.0


def test_another_waveform_is_refused(nano: None, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(TASKS, "toy", toy_task())
    stereo = replace(SOUND, waveform_rate_hz=21_000, waveform_channels=2)
    shards = labelled_set(tmp_path / "demo-sound", clips(), stereo)
    with pytest.raises(UsageError, match=r"a waveform of 24000 Hz in 1 channel\(s\)"):
        evaluate(config(shards, tmp_path / "run", method="avid"))


def test_mel_is_not_taken_for_a_waveform_nor_stereo_for_mono(nano: None) -> None:
    avid = from_scratch("avid", "nano", 0)
    assert avid.features(None, torch.zeros(1, 1, 48_000))["fa"].ndim == 3
    for sound in (torch.zeros(1, 80, 24), torch.zeros(1, 2, 48_000), torch.zeros(1, 48_000)):
        with pytest.raises(ValueError, match=r"hears a waveform \(B, 1, samples\) at 24000"):
            avid.features(None, sound)
    with pytest.raises(ValueError, match=r"glcm hears mel \(B, 80, 3 T\)"):
        from_scratch("glcm", "tiny", 0).features(None, torch.zeros(1, 1, 48_000))
