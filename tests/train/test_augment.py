"""Augmentation: exact pixels where nothing is scaled, one draw a clip, repeatable, per rank."""

from dataclasses import replace

import pytest
import torch

from tests.train.ramps import mel_of
from train.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augment,
    AugmentConfig,
    centre,
    crop_resize,
    normalise,
    random_boxes,
)
from train.batch import Batch

PLAIN = AugmentConfig(resized_crop=False, flip=0, grayscale=0)


def random_batch(clips: int = 4, frames: int = 3, side: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (clips, frames, side, side, 3), generator=generator)
    return Batch(
        video=video.to(torch.uint8),
        mel=torch.randn(clips, 80, 3 * frames, generator=generator).half(),
        instance=torch.arange(clips),
        start=torch.zeros(clips, dtype=torch.int64),
        keys=tuple(map(str, range(clips))),
    )


def part_of(batch: Batch, rows: slice) -> Batch:
    return replace(
        batch,
        video=batch.video[rows],
        mel=mel_of(batch)[rows],
        instance=batch.instance[rows],
        start=batch.start[rows],
        keys=batch.keys[rows],
    )


def test_a_box_of_the_crops_size_gives_the_stored_pixels() -> None:
    video = random_batch(2).video
    boxes = torch.tensor([[4 / 32, 2 / 32, 0.5, 0.5], [0, 0.5, 0.5, 0.5]])
    cut = crop_resize(video, boxes, torch.tensor([False, True]), 16)
    stored = video.permute(0, 4, 1, 2, 3).float()
    assert torch.allclose(cut[0], stored[0, :, :, 2:18, 4:20], atol=2e-3)
    assert torch.allclose(cut[1], stored[1, :, :, 16:32, 0:16].flip(-1), atol=2e-3)


def test_shrinking_keeps_the_mean() -> None:
    video = random_batch(1).video
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    small = crop_resize(video, whole, torch.tensor([False]), 16)
    assert torch.allclose(small.mean(), video.float().mean(), atol=1)


def test_boxes_stay_inside_and_have_the_area_that_was_asked_for() -> None:
    draws = torch.rand(2000, 4, generator=torch.Generator().manual_seed(1))
    left, top, width, height = random_boxes(draws, AugmentConfig(crop_area=(0.3, 0.9))).unbind(1)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= 1 + 1e-6).all()
    assert (top + height <= 1 + 1e-6).all()
    area = width * height
    assert 0.29 < area.min() < 0.32
    assert 0.86 < area.max() < 0.91
    aspect = width / height
    assert 0.74 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < 1.34


def test_a_plain_crop_takes_seven_eighths() -> None:
    draws = torch.rand(100, 4)
    boxes = random_boxes(draws, PLAIN)
    assert torch.allclose(boxes[:, 2:], torch.tensor(7 / 8))


def test_normalised_colour_has_imagenets_statistics() -> None:
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1, 1) * 255
    video = (mean + 2 * std).expand(1, 3, 2, 4, 4)
    assert torch.allclose(normalise(video), torch.tensor(2.0), atol=1e-5)


def test_the_same_batch_number_gives_the_same_batch() -> None:
    augment = Augment(AugmentConfig(colour_jitter=0.4, mask_bands=9, mask_slices=3), 16, seed=3)
    first, again, other = (augment(random_batch(), number) for number in (5, 5, 6))
    assert torch.equal(first.video, again.video)
    assert torch.equal(mel_of(first), mel_of(again))
    assert not torch.equal(first.video, other.video)


def test_two_ranks_do_what_one_does() -> None:
    config = AugmentConfig(colour_jitter=0.4, mask_bands=9)
    whole = random_batch(4)
    one = Augment(config, 16, 0)(whole, 2)
    halves = [
        Augment(config, 16, 0, world=2, rank=rank)(part_of(whole, rows), 2)
        for rank, rows in enumerate((slice(0, 2), slice(2, 4)))
    ]
    assert torch.allclose(one.video, torch.cat([half.video for half in halves]), atol=1e-5)
    assert torch.equal(mel_of(one), torch.cat([mel_of(half) for half in halves]))


def test_all_frames_of_a_clip_are_treated_alike() -> None:
    batch = random_batch(3)
    still = replace(batch, video=batch.video[:, :1].expand(-1, 3, -1, -1, -1))
    video = Augment(AugmentConfig(colour_jitter=0.5), 16, 0)(still, 0).video
    assert torch.allclose(video[:, :, 0], video[:, :, 2], atol=1e-5)


def test_grayscale_leaves_no_colour_and_probability_zero_leaves_all() -> None:
    spread = []
    for probability in (1.0, 0.0):
        config = replace(PLAIN, grayscale=probability)
        video = Augment(config, 16, 0)(random_batch(), 0).video
        std = torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)
        mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1)
        colours = video * std + mean
        spread.append(float((colours.amax(1) - colours.amin(1)).mean()))
    assert spread[0] < 1e-5
    assert spread[1] > 0.2


def test_one_switch_does_not_shift_the_others_draws() -> None:
    plain = Augment(replace(PLAIN, flip=0.5), 16, 0)(random_batch(), 0)
    masked = Augment(replace(PLAIN, flip=0.5, mask_bands=20), 16, 0)(random_batch(), 0)
    assert torch.equal(plain.video, masked.video)
    assert not torch.equal(mel_of(plain), mel_of(masked))


def test_masks_hold_the_clips_mean() -> None:
    batch = random_batch()
    mel = mel_of(Augment(replace(PLAIN, mask_bands=40), 16, 0)(batch, 1))
    changed = (mel != mel_of(batch).float()).all(2)
    assert changed.any()
    for clip, rows in enumerate(changed):
        assert torch.allclose(mel[clip, rows], mel_of(batch)[clip].float().mean(), atol=1e-5)
        assert rows.sum() <= 40


def test_the_centre_is_the_middle_and_not_random() -> None:
    batch = random_batch(2)
    one, two = centre(batch, 28), centre(batch, 28)
    assert torch.equal(one.video, two.video)
    middle = batch.video[:, :, 2:30, 2:30].permute(0, 4, 1, 2, 3).float()
    assert torch.allclose(one.video, normalise(middle), atol=1e-4)


def test_ranges_are_checked() -> None:
    with pytest.raises(ValueError, match="crop_area"):
        AugmentConfig(crop_area=(0.9, 0.1))
    with pytest.raises(ValueError, match="flip is 2"):
        AugmentConfig(flip=2)
    with pytest.raises(ValueError, match="mask_bands is -1; expected 0 or more"):
        AugmentConfig(mask_bands=-1)
