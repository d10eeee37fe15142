"""Two temporal transforms of one clip: where, how fast, forwards or backwards.

What the temporal-SSL paper calls tau_r and tau_s ("Temporal Self-Supervision for Video and Audio";
methods §4). A view of speed s takes every s-th picture of an interval of s x `frames` pictures; its
sound is every s-th sample of the raw waveform of the same interval, without a filter ("we subsample
the signal"). Backwards, both are reversed. So the stretches of all speeds have the same count.

What is drawn, in this order and all uniformly: the order class of the two intervals; the speed of
each, out of those the clip is long enough for; the direction of each; where they begin. The class
comes first, because two intervals anywhere in a long clip hardly ever overlap, and speeds do not
depend on it, so that they do not tell it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from train.cuts import Clip, Cut, Stretch
from train.errors import UsageError

ORDERED, OVERLAPPING, REVERSED = range(3)
"""Classes of temporal order, by the time in the source: the first interval ends before the second
begins, they share time, or the second ends before the first begins."""
ORDER_CLASSES = 3


class Transform(NamedTuple):
    """One of a clip's two transforms."""

    start: int
    """First frame of the interval in the clip."""
    speed: int
    """1 is as recorded."""
    backward: bool

    def pictures(self, frames: int) -> range:
        """Frame numbers in the order shown."""
        forward = range(self.start, self.start + self.speed * frames, self.speed)
        return forward[::-1] if self.backward else forward

    def samples(self, count: int, samples_per_frame: float) -> Stretch:
        """The sound of the interval, subsampled and reversed as its pictures are."""
        first = round(self.start * samples_per_frame)
        if self.backward:
            return Stretch(first + self.speed * (count - 1), count, -self.speed)
        return Stretch(first, count, self.speed)


@dataclass(frozen=True)
class TwoTransforms:
    """Draws the two views of a clip; the `cut` of `train.cuts.Reads`.

    The numbers of a cut, a column a view unless said otherwise:
        speed: class of the speed, an index into `speeds`.
        backward: 1 if it plays backwards.
        order: one column: ORDERED, OVERLAPPING or REVERSED, of view 0 and view 1.
        open_speeds: one column: how many of the speeds the clip is long enough for.
        stft_step: index of the spectrogram's step, below `stft_steps`.
    """

    frames: int
    """Pictures of a view."""
    fps: float
    """Frames a second of the clips; others are refused, for their sound would last otherwise."""
    wave_rate_hz: int | None
    """Of the waveform; None has no stretches."""
    speeds: tuple[int, ...] = (1, 2, 4, 8)
    """Rising."""
    whole: bool = False
    """Stretches of every speed are those of the largest one, as recorded: forwards, no sample left
    out. Speed and direction are then a matter of the spectrogram."""
    stft_steps: int = 1
    """Steps of the spectrogram to choose from."""

    @property
    def least_frames(self) -> int:
        """Two views of the lowest speed, one after the other."""
        return 2 * self.frames * self.speeds[0]

    @property
    def samples(self) -> int:
        """Samples of a stretch that is as long as the pictures at speed 1."""
        return round(self.frames * (self.wave_rate_hz or 0) / self.fps)

    @property
    def stretch_samples(self) -> int:
        """Samples of a stretch as it is read."""
        return self.samples * (self.speeds[-1] if self.whole else 1)

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Cut:
        """Draw the two views of one clip in one visit."""
        self._check(clip)
        order = int(rng.integers(ORDER_CLASSES))
        open_speeds = self._open(clip.frames)
        speeds = [int(x) for x in rng.integers(open_speeds, size=2)]
        backward = [int(x) for x in rng.integers(2, size=2)]
        rate = self.wave_rate_hz
        lengths = [self.frames * self.speeds[x] for x in speeds]
        starts = place(order, lengths, clip.frames, rng)
        views = [
            Transform(start, self.speeds[speed], bool(back))
            for start, speed, back in zip(starts, speeds, backward, strict=True)
        ]
        return Cut(
            pictures=[number for view in views for number in view.pictures(self.frames)],
            stretches=tuple(self._stretch(view, rate) for view in views) if rate else (),
            numbers={
                "speed": speeds,
                "backward": backward,
                "order": [order],
                "open_speeds": [open_speeds],
                "stft_step": [int(x) for x in rng.integers(self.stft_steps, size=2)],
            },
        )

    def _open(self, frames: int) -> int:
        """How many speeds both views may have at once in a clip of this length.

        Whatever the other view's speed and the order are: a speed that were open in some cases only
        would tell which case it is.
        """
        return sum(2 * self.frames * speed <= frames for speed in self.speeds)

    def _stretch(self, view: Transform, wave_rate_hz: int) -> Stretch:
        per_frame = wave_rate_hz / self.fps
        if self.whole:
            return Stretch(round(view.start * per_frame), self.stretch_samples)
        return view.samples(self.samples, per_frame)

    def _check(self, clip: Clip) -> None:
        if abs(clip.fps - self.fps) > 1e-3:
            raise UsageError(
                f"clips have {clip.fps:g} frames a second and the method's fps is {self.fps:g}; "
                "use shards of profile tempssl (30), or set --model.fps"
            )
        if clip.frames < self.least_frames:
            raise UsageError(
                f"a clip has {clip.frames} frames; two views of {self.frames} pictures, one after "
                f"the other, need {self.least_frames}"
            )


def place(
    order: int, lengths: Sequence[int], frames: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Where two intervals begin, so that they are of an order class.

    Args:
        order: ORDERED, OVERLAPPING or REVERSED.
        lengths: of the two intervals, frames; together no longer than the clip.
        frames: of the clip.
        rng: source of the draws.

    Returns:
        Starts, uniform over all that there are of the class; for OVERLAPPING the distance of the
        starts is uniform, and then their place: else most pairs would overlap in the middle.
    """
    first, second = lengths
    if order == OVERLAPPING:
        later = int(rng.integers(1 - second, first))  # by how much the second begins later
        low, high = max(0, -later), min(frames - first, frames - second - later)
        start = int(rng.integers(low, high + 1))
        return start, start + later
    if order == REVERSED:
        start_second, start_first = place(ORDERED, (second, first), frames, rng)
        return start_first, start_second
    # Pairs with start <= later start are as many as pairs of different numbers, one more of them.
    room = frames - first - second
    low, high = sorted(int(x) for x in rng.choice(room + 2, size=2, replace=False))
    return low, high - 1 + first
