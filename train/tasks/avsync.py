"""Are sound and pictures of a held-out clip in time? Nothing is trained.

The score is the method's own (`Glcm.in_time`: frames against the slices of their time, pooled by
the sound's attention). Windows of pictures meet their own sound and that of the same clip at other
times; shifted sound is sound as it was recorded, nothing is rolled around.

    sync_2afc              share of pairs in which the right sound scores higher than one shifted
                           by a multiple of 0.5 s, over all ordered pairs of windows on a grid of
                           0.5 s: who prefers a sound whatever the pictures is right in half of
                           them. @0.5s: shifted by just that, and so on. Chance 0.5
    offset_within_1@0.5s   share of windows in which the best of all offsets within +-0.5 s, frame
                           by frame, is at most one frame off; chance: 3 of these offsets
    avs_accuracy@2.0-5.8s  of the co-attention paper, where clips are long enough: is the sound of a
                           window of 4.2 s its own, or shifted by 2.0 to 5.8 s? As these scores have
                           no natural threshold, each half of the clips is judged by the threshold
                           that is best on the other half; chance 0.5

A clip counts once, with the mean over its windows. :foreign_pictures is the same with pictures of
another speaker or source: what clips have in common (speech lies in the middle) is no timing of
their own.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import repeat

import numpy as np
import numpy.typing as npt

from train.errors import UsageError
from train.evaluation.clips import Look, starts
from train.evaluation.job import Job
from train.evaluation.labelled import any_clips
from train.evaluation.result import Predictions
from train.evaluation.task import Round, Settings, Task
from train.evaluation.timing import Timing
from train.metrics import Score, average
from train.plan import seed_of, shuffled
from train.progress import with_progress

STEP_SECONDS = 0.5
"""Shifts of the two-alternative test are multiples of it."""
TOLD_SECONDS = (0.5, 1.0, 2.0)
"""Shifts that get a metric of their own, and ranges of the offset estimate."""
WITHIN_FRAMES = 1
"""An offset this wrong is right."""
AVS_WINDOW_SECONDS, AVS_SHIFT_SECONDS = 4.2, (2.0, 5.8)
"""Of the co-attention paper."""
PAIRS, OFFSETS = "sync_2afc", f"offset_within_{WITHIN_FRAMES}"
AVS = f"avs_accuracy@{AVS_SHIFT_SECONDS[0]}-{AVS_SHIFT_SECONDS[1]}s"
IN_TIME, OUT_OF_TIME = "avs_in_time", "avs_shifted"
FOREIGN = ":foreign_pictures"
FEWEST = 4
"""Clips that thresholds can be chosen on."""
Floats = npt.NDArray[np.float64]
ScoreOf = Callable[[list[int], list[int], int], Floats]
"""(first frames of pictures, first frames of sounds, window) -> (sounds, pictures)."""


def predict(job: Job) -> Predictions:
    """Score every clip's sounds.

    Raises:
        UsageError: the method has no score of timing, or no clip is long enough to be shifted.
    """
    encoders = job.encoders()
    encoders.module.eval()
    timing, fps, window = Timing(encoders), job.labelled.fps, job.window
    longest = max(example.frames for example in job.test)
    if longest < window + frames_of(STEP_SECONDS, fps):
        raise UsageError(
            f"the longest clip has {longest / fps:g} s, in which a window of {window / fps:g} s "
            f"cannot be shifted by {STEP_SECONDS} s; give a smaller --window-seconds"
        )
    whole = [[Look(number, 0, one.frames, 0.5)] for number, one in enumerate(job.test)]
    others, where = job.strangers()
    foreign = [[Look(number, 0, job.test[number].frames, 0.5)] for number in others]
    strange = job.read(job.test, foreign) if others else repeat(None, len(whole))
    batches = zip(job.test, job.read(job.test, whole), strange, strict=True)
    rows = []
    for example, own, other in with_progress(batches, "offsets", "clips", len(whole)):
        look = (fps, window, job.settings.clips)
        score = partial(timing.scores, own.video[0], own.sound[0])
        row = measured(score, example.frames, *look)
        if other is not None:
            score_strange = partial(timing.scores, other.video[0], own.sound[0])
            length = min(example.frames, len(other.video[0]))
            control = measured(score_strange, length, *look)
            row |= {name + FOREIGN: value for name, value in control.items()}
        seed = seed_of(job.config.seed, example.name, "avsync")
        rows.append(row | own_and_shifted(score, example.frames, fps, seed))
    numbers = {name: [row[name] for row in rows] for name in rows[0]}
    return Predictions.of_numbers(
        job, numbers, [*notes(numbers, window, fps), f"foreign pictures are from {where}"]
    )


# --- one clip -----------------------------------------------------------------------------------


def measured(score: ScoreOf, length: int, fps: float, window: int, clips: int) -> dict[str, float]:
    """The numbers of one clip; NaN for what it is too short for.

    Args:
        score: of its windows.
        length: frames of the clip.
        fps: frames a second.
        window: frames.
        clips: windows of the offset estimate.
    """
    step, room = frames_of(STEP_SECONDS, fps), length - window
    grid = range(0, room + 1, step)
    pairs = [(start, sound) for start in grid for sound in grid if start != sound]
    reaches = {seconds: frames_of(seconds, fps) for seconds in TOLD_SECONDS}
    centres = {
        seconds: [reach + start for start in starts(length - 2 * reach, window, clips)]
        for seconds, reach in reaches.items()
        if room >= 2 * reach
    }
    offsets = {
        (start, start + shift)
        for seconds, of in centres.items()
        for start in of
        for shift in range(-reaches[seconds], reaches[seconds] + 1)
    }
    at = looked_up(score, {*pairs, *((start, start) for start, _ in pairs), *offsets}, window)
    wins = {pair: won(at[pair[0], pair[0]], at[pair]) for pair in pairs}
    found = {PAIRS: mean(list(wins.values()))}
    for seconds, reach in reaches.items():
        apart = [win for (start, sound), win in wins.items() if abs(sound - start) == reach]
        found[f"{PAIRS}@{seconds}s"] = mean(apart)
        found[f"{OFFSETS}@{seconds}s"] = mean(
            [within(at, start, reach) for start in centres.get(seconds, [])]
        )
    return found


def looked_up(
    score: ScoreOf, wanted: set[tuple[int, int]], window: int
) -> dict[tuple[int, int], float]:
    """Score of each wanted (pictures, sound), by their first frames."""
    if not wanted:
        return {}
    pictures, sounds = (sorted({pair[side] for pair in wanted}) for side in (0, 1))
    table = score(pictures, sounds, window)
    column, row = ({start: n for n, start in enumerate(of)} for of in (pictures, sounds))
    return {pair: float(table[row[pair[1]], column[pair[0]]]) for pair in wanted}


def won(right: float, wrong: float) -> float:
    """1 if the right sound scores higher, a half if both do equally."""
    return 0.5 if right == wrong else float(right > wrong)


def within(at: dict[tuple[int, int], float], start: int, reach: int) -> float:
    """Whether the best of all offsets within the reach is nearly none."""
    line = [at[start, start + shift] for shift in range(-reach, reach + 1)]
    return float(abs(int(np.argmax(line)) - reach) <= WITHIN_FRAMES)


def own_and_shifted(score: ScoreOf, length: int, fps: float, seed: int) -> dict[str, float]:
    """Scores of a window of the co-attention paper with its own sound, and with a shifted one.

    Where the window lies and how far the sound is shifted is drawn by the seed.
    """
    window = frames_of(AVS_WINDOW_SECONDS, fps)
    least, most = (frames_of(seconds, fps) for seconds in AVS_SHIFT_SECONDS)
    possible = [
        (start, sound)
        for start in range(length - window + 1)
        for sound in range(length - window + 1)
        if least <= abs(sound - start) <= most
    ]
    if not possible:
        return {IN_TIME: np.nan, OUT_OF_TIME: np.nan}
    start, sound = possible[seed % len(possible)]
    right, wrong = score([start], [start, sound], window)[:, 0].tolist()
    return {IN_TIME: right, OUT_OF_TIME: wrong}


def mean(values: list[float]) -> float:
    """NaN of nothing."""
    return float(np.mean(values)) if values else np.nan


def frames_of(seconds: float, fps: float) -> int:
    """At least one."""
    return max(round(seconds * fps), 1)


# --- all clips ----------------------------------------------------------------------------------


def measure(predictions: Predictions) -> list[Score]:
    """Each metric over the clips that are long enough for it; intervals by clip."""
    numbers = predictions.numbers
    told = [name for name in numbers if name not in (IN_TIME, OUT_OF_TIME)]
    found = [average(name, numbers[name]) for name in told if np.isfinite(numbers[name]).any()]
    right, wrong = known_scores(numbers)
    if len(right) < FEWEST:
        return found
    accuracy = average(AVS, judged(right, wrong).mean(axis=1))
    return [*found, replace(accuracy, note="threshold of each half chosen on the other half")]


def known_scores(numbers: dict[str, list[float]]) -> tuple[Floats, Floats]:
    """The co-attention paper's scores of the clips that are long enough."""
    right, wrong = np.array(numbers[IN_TIME]), np.array(numbers[OUT_OF_TIME])
    known = np.isfinite(right)
    return right[known], wrong[known]


def judged(right: Floats, wrong: Floats) -> Floats:
    """(clips, 2): whether its own and its shifted sound were told right, as 1 or 0."""
    found = np.empty((len(right), 2))
    order = shuffled(len(right), 0)
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    for chosen_on, judged_on in (halves, halves[::-1]):
        limit = best_threshold(right[chosen_on], wrong[chosen_on])
        found[judged_on] = np.stack([right[judged_on] > limit, wrong[judged_on] <= limit], axis=1)
    return found


def best_threshold(right: Floats, wrong: Floats) -> float:
    """Between two neighbouring scores, where most are told right; the lowest of equally good."""
    values = np.unique(np.concatenate([right, wrong]))
    limits = np.concatenate([[values[0] - 1], (values[:-1] + values[1:]) / 2, [values[-1] + 1]])
    correct = [(right > limit).sum() + (wrong <= limit).sum() for limit in limits]
    return float(limits[int(np.argmax(correct))])


def notes(numbers: dict[str, list[float]], window: int, fps: float) -> list[str]:
    """Chance, and what clips were too short for."""
    chances = [f"{name} 0.5" for name in (PAIRS, AVS)]
    chances += [
        f"{OFFSETS}@{seconds}s {(2 * WITHIN_FRAMES + 1) / (2 * frames_of(seconds, fps) + 1):.3f}"
        for seconds in TOLD_SECONDS
    ]
    said = [f"windows of {window / fps:g} s; chance: {', '.join(chances)}"]
    for name, values in numbers.items():
        short = int(np.isnan(values).sum())
        if short and name != OUT_OF_TIME and not name.endswith(FOREIGN):
            what = AVS if name == IN_TIME else name
            said.append(f"{short} of {len(values)} clips are too short for {what}")
    return said


AVSYNC = Task(
    name="avsync",
    about="is a sound in time with its pictures: right against shifted sound, offset; frozen",
    dataset="demo",
    profile="glcm",
    obtain="make demo, or name other shards with held-out clips (SHARDS=path)",
    rounds=(Round("val", ("val",)),),
    settings=Settings(protocol="frozen", modality="V+A", window_seconds=2, clips=3),
    predict=predict,
    measure=measure,
    examples=any_clips,
    protocols=("frozen",),
)
