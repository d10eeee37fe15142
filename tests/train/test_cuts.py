"""Methods that read clips in ways of their own: the loader follows their cuts."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import format as shard_format
from pipeline.config import ShardConfig
from tests.pipeline.fabricate import Members
from tests.train.ramps import GRAY_STEP, SIDE, ramp, ramp_set_of
from train.augment import Augment, AugmentConfig, centre
from train.batch import Batch
from train.cuts import Clip, Cut, Reads, Stretch
from train.errors import ShardError, UsageError
from train.loader import ClipLoader
from train.mixture import Mixture, open_mixture, parse_shards
from train.plan import Plan

RATE_HZ = 24_000
CONFIG = ShardConfig("avid", Fraction(10), SIDE, 22050, RATE_HZ, 1)
FRAMES = 30
PER_FRAME = RATE_HZ // 10


def counting(instance: int) -> Members:
    """A clip whose waveform counts its samples: sample i is i modulo 30000."""
    members = ramp(f"demo/clip{instance}", instance, FRAMES, CONFIG)
    samples = np.arange(FRAMES * PER_FRAME) % 30_000
    members["audio.flac"] = shard_format.encode_flac(
        (samples / 32768)[:, None].astype(np.float32), RATE_HZ
    )
    return members


def backwards_and_skipping(clip: Clip, rng: np.random.Generator) -> Cut:
    """Two views: four frames backwards, and every third; sound from before the clip on."""
    first = int(rng.integers(0, clip.frames - 10))
    views = [*range(first + 3, first - 1, -1), *range(first, first + 12, 3)]
    stretches = (Stretch(-2, 5), Stretch(8, 5, -2))
    return Cut([min(frame, clip.frames - 1) for frame in views], stretches, {"first": [first]})


READS = Reads(4, 12, views=2, mel=False, wave_rate_hz=RATE_HZ, cut=backwards_and_skipping)


@pytest.fixture
def mixture(tmp_path: Path) -> Mixture:
    out = ramp_set_of(tmp_path / "demo-avid", [[counting(k) for k in range(4)]], config=CONFIG)
    return open_mixture(parse_shards(str(out), tmp_path), reads=READS)


def one_batch(mixture: Mixture, still: bool = False) -> Batch:
    return next(ClipLoader(Plan(mixture, 0, 4), random_windows=not still).batches())


def test_pictures_come_in_the_order_of_the_cut(mixture: Mixture) -> None:
    batch = one_batch(mixture)
    assert batch.video.shape == (4, 8, SIDE, SIDE, 3)
    assert batch.mel is None
    firsts = batch.numbers["first"]
    assert firsts.shape == (4, 1)
    for video, (first,) in zip(batch.video, firsts.tolist(), strict=True):
        shown = (video.float().mean((1, 2, 3)) / GRAY_STEP).round().long().tolist()
        skipping = [min(first + 3 * k, FRAMES - 1) for k in range(4)]
        assert shown == [first + 3, first + 2, first + 1, first, *skipping]


def test_stretches_of_waveform_are_exact_and_zero_outside(mixture: Mixture) -> None:
    batch = one_batch(mixture)
    assert batch.wave is not None
    assert batch.wave.shape == (4, 2, 1, 5)
    assert batch.wave[:, 0, 0].tolist() == [[0, 0, 0, 1, 2]] * 4
    assert batch.wave[:, 1, 0].tolist() == [[8, 6, 4, 2, 0]] * 4


def test_a_run_repeats_itself_and_held_out_cuts_stay(mixture: Mixture) -> None:
    assert torch.equal(one_batch(mixture).numbers["first"], one_batch(mixture).numbers["first"])
    loader = ClipLoader(Plan(mixture, 0, 4), random_windows=False)
    first, second = (next(loader.one_epoch(epoch)) for epoch in (0, 1))
    by_key = [dict(zip(b.keys, b.numbers["first"].tolist(), strict=True)) for b in (first, second)]
    assert by_key[0] == by_key[1]
    epochs = ClipLoader(Plan(mixture, 0, 4)).batches()
    cuts = [sorted(next(epochs).numbers["first"].flatten().tolist()) for _ in range(4)]
    assert len({tuple(cut) for cut in cuts}) > 1


def test_views_are_augmented_apart_and_put_together_again(mixture: Mixture) -> None:
    batch = one_batch(mixture)
    ready = Augment(AugmentConfig(flip=0, grayscale=0), 16, 0)(batch, 0)
    assert ready.video.shape == (4, 2, 3, 4, 16, 16)
    plain = centre(batch, 28)
    reversed_view, skipping = plain.video[:, 0], plain.video[:, 1]
    assert (reversed_view.mean((1, 3, 4)).diff(dim=1) < 0).all()
    assert (skipping.mean((1, 3, 4))[:, :2].diff(dim=1) > 0).all()
    assert plain.frames == 4


def test_volume_changes_all_stretches_of_a_clip_alike(mixture: Mixture) -> None:
    batch = one_batch(mixture)
    ready = Augment(AugmentConfig(volume=0.5), 16, 0)(batch, 0)
    assert ready.wave is not None
    assert batch.wave is not None
    ratio = ready.wave * 32768 / batch.wave
    heard = ratio[batch.wave != 0].view(4, -1)
    assert torch.allclose(heard, heard[:, :1].expand_as(heard))
    assert len(heard[:, 0].unique()) == 4
    assert ((heard > 0.5) & (heard < 1.5)).all()


def test_clips_that_are_too_short_are_left_out(mixture: Mixture, tmp_path: Path) -> None:
    long = replace(READS, least_frames=FRAMES + 1)
    sources = parse_shards(str(tmp_path / "demo-avid"), tmp_path)
    with pytest.raises(UsageError, match=f"the longest has {FRAMES} frames"):
        open_mixture(sources, reads=long)


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        (replace(READS, wave_rate_hz=21_000, profile="coattention"), "21000 Hz.*PROFILE=coatt"),
        (replace(READS, wave_channels=2), "in 2 channel"),
    ],
)
def test_another_waveform_than_is_stored_is_refused(
    mixture: Mixture, tmp_path: Path, reads: Reads, said: str
) -> None:
    sources = parse_shards(str(tmp_path / "demo-avid"), tmp_path)
    with pytest.raises(UsageError, match=said):
        open_mixture(sources, reads=reads)


def test_a_waveform_of_another_length_is_damage(tmp_path: Path) -> None:
    members = counting(0)
    members["audio.flac"] = shard_format.encode_flac(np.zeros((100, 1), np.float32), RATE_HZ)
    out = ramp_set_of(tmp_path / "demo-avid", [[members, counting(1)]], config=CONFIG)
    mixture = open_mixture(parse_shards(str(out), tmp_path), reads=READS)
    with pytest.raises(ShardError, match=r"audio\.flac has 100 samples of PCM_16, expected 72000"):
        next(ClipLoader(Plan(mixture, 0, 2)).batches())


def test_reads_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="mel belongs to a single view"):
        Reads(4, 4, views=2)
    with pytest.raises(ValueError, match="need a `cut`"):
        Reads(4, 4, wave_rate_hz=RATE_HZ)
