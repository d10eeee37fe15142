"""Two transforms of a clip, applied to clips whose pictures and samples are their own numbers."""

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from train.cuts import Clip, Cut, Stretch
from train.errors import UsageError
from train.objectives.temporal import ORDERED, OVERLAPPING, REVERSED, TwoTransforms, place

FRAMES, FPS, RATE_HZ = 16, 30.0, 24_000
PER_FRAME = 800  # samples
TEN_SECONDS = Clip(300, FPS, RATE_HZ)
DRAWS = 3000


def drawn(clip: Clip = TEN_SECONDS, seed: int = 0, **options) -> Cut:
    transforms = TwoTransforms(FRAMES, FPS, RATE_HZ, **options)
    return transforms(clip, np.random.default_rng(seed))


def heard(stretch: Stretch, wave: np.ndarray) -> np.ndarray:
    return wave[[stretch.first + stretch.step * k for k in range(stretch.count)]]


def views(cut: Cut) -> list[tuple[np.ndarray, np.ndarray]]:
    """Brightness of the pictures, values of the samples: of a clip where each is its number."""
    brightness, wave = np.arange(300), np.arange(300 * PER_FRAME)
    seen = brightness[list(cut.pictures)].reshape(2, FRAMES)
    return [(seen[k], heard(cut.stretches[k], wave)) for k in range(2)]


def test_labels_are_recovered_from_the_transformed_clip():
    for seed in range(200):
        recover(drawn(seed=seed))


def recover(cut: Cut) -> None:
    """Speed and direction from the steps of pictures and samples, order from their times alone."""
    intervals = []
    for number, (pictures, samples) in enumerate(views(cut)):
        speed = (1, 2, 4, 8)[cut.numbers["speed"][number]]
        step = -speed if cut.numbers["backward"][number] else speed
        assert {b - a for a, b in pairwise(pictures)} == {step}
        assert set(np.diff(samples)) == {step}
        assert len(samples) == FRAMES * PER_FRAME
        # Sound and pictures show the same interval: samples of the first picture to the last one's.
        assert samples.min() == pictures.min() * PER_FRAME
        assert samples.max() == (pictures.min() + FRAMES * speed) * PER_FRAME - speed
        intervals.append((pictures.min(), pictures.min() + FRAMES * speed))
    (start, end), (other_start, other_end) = intervals
    order = ORDERED if end <= other_start else REVERSED if other_end <= start else OVERLAPPING
    assert cut.numbers["order"] == [order]
    assert max(end, other_end) <= 300


def test_time_of_a_picture_is_time_of_its_sound():
    """Picture k of a view shows the time of sample k x 800, forwards, and of its end, backwards."""
    for seed in range(50):
        cut = drawn(seed=seed)
        for number, (pictures, samples) in enumerate(views(cut)):
            ends = cut.numbers["backward"][number]
            inside = samples.reshape(FRAMES, PER_FRAME)[:, -1 if ends else 0]
            assert (inside == pictures * PER_FRAME).all()


def test_classes_are_equally_likely_and_do_not_tell_each_other():
    cuts = [drawn(seed=seed) for seed in range(DRAWS)]
    tolerance = 4 * np.sqrt(DRAWS)  # counts of DRAWS draws scatter by less than its square root
    for name, view, classes in [("speed", 0, 4), ("speed", 1, 4), ("backward", 0, 2),
                                ("backward", 1, 2), ("order", 0, 3)]:  # fmt: skip
        counts = Counter(cut.numbers[name][view] for cut in cuts)
        assert sorted(counts) == list(range(classes))
        assert all(abs(count - DRAWS / classes) < tolerance for count in counts.values())
    pairs = Counter((cut.numbers["order"][0], *cut.numbers["speed"]) for cut in cuts)
    assert len(pairs) == 3 * 4 * 4
    assert all(abs(count - DRAWS / 48) < 5 * np.sqrt(DRAWS / 48) for count in pairs.values())


@pytest.mark.parametrize(("frames", "open_speeds"), [(32, 1), (63, 1), (64, 2), (255, 3), (256, 4)])
def test_short_clips_are_not_played_faster_than_they_last(frames, open_speeds):
    seen = set()
    for seed in range(100):
        cut = drawn(Clip(frames, FPS, RATE_HZ), seed)
        assert cut.numbers["open_speeds"] == [open_speeds]
        assert min(cut.pictures) >= 0 and max(cut.pictures) < frames
        seen |= set(cut.numbers["speed"])
    assert seen == set(range(open_speeds))


@pytest.mark.parametrize("order", [ORDERED, REVERSED])
def test_starts_are_uniform_over_all_there_are(order):
    """A clip of 8 frames, intervals of 2 and 3: every pair of starts of the class, counted."""
    lengths, frames = (2, 3), 8
    pairs = [(a, b) for a in range(7) for b in range(6)
             if (a + 2 <= b if order == ORDERED else b + 3 <= a)]  # fmt: skip
    rng = np.random.default_rng(0)
    counts = Counter(place(order, lengths, frames, rng) for _ in range(DRAWS))
    expected = DRAWS / len(pairs)
    assert sorted(counts) == sorted(pairs)
    assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in counts.values())


def test_every_overlap_comes_up():
    rng = np.random.default_rng(0)
    found = {place(OVERLAPPING, (2, 3), 8, rng) for _ in range(DRAWS)}
    assert found == {(a, b) for a in range(7) for b in range(6) if b < a + 2 and a < b + 3}


def test_whole_stretches_are_the_interval_as_recorded():
    cut = drawn(seed=3, whole=True, stft_steps=3)
    for number, stretch in enumerate(cut.stretches):
        pictures = list(cut.pictures)[number * FRAMES : (number + 1) * FRAMES]
        assert stretch == Stretch(min(pictures) * PER_FRAME, 8 * FRAMES * PER_FRAME, 1)
    steps = {
        step for seed in range(50) for step in drawn(seed=seed, stft_steps=3).numbers["stft_step"]
    }
    assert steps == {0, 1, 2}


def test_a_cut_repeats_itself_and_travels():
    transforms = pickle.loads(pickle.dumps(TwoTransforms(FRAMES, FPS, RATE_HZ)))
    assert transforms(TEN_SECONDS, np.random.default_rng(5)) == drawn(seed=5)
    assert drawn(seed=6) != drawn(seed=5)


def test_what_cannot_be_cut_is_said():
    with pytest.raises(UsageError, match="10 frames a second and the method's fps is 30"):
        drawn(Clip(300, 10.0, RATE_HZ))
    with pytest.raises(UsageError, match=r"has 31 frames; .* need 32"):
        drawn(Clip(31, FPS, RATE_HZ))
