"""What evaluations draw: the surest mistakes as they were read, attention that moves with a box."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.train.evaluation.gray import STEP, ramp
from tests.train.evaluation.sets import CONFIG, SOUND, labelled_set
from tests.train.evaluation.test_driver import clips, config, toy_task
from train.evaluation import mistakes, rounds
from train.evaluation.driver import evaluate
from train.evaluation.mistakes import draw_mistakes, strips_of
from train.evaluation.overlay import CAPTION_PIXELS, CELL_PIXELS, Seen, Shown, animate, as_pixels
from train.evaluation.result import Mistake, Predictions
from train.tasks import TASKS


def guesses(targets: list[Any], said: list[Any], scores: Any, classes: Any) -> Predictions:
    names = [f"clip{number}" for number in range(len(targets))]
    return Predictions(names, names, targets, said, classes, scores)


# --- mistakes -------------------------------------------------------------------------------------


def test_mistakes_are_wrong_answers_with_the_score_of_what_was_said() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01]], np.float32)
    found = guesses([0, 0, 1], [0, 1, 0], scores, ("dog", "rooster")).mistakes()
    assert found == [
        Mistake(float(scores[1, 1]), 1, "clip1", "dog", "rooster"),
        Mistake(float(scores[2, 0]), 2, "clip2", "rooster", "dog"),
    ]


def test_texts_segments_and_several_labels_have_no_mistakes_of_a_class() -> None:
    scores = np.ones((2, 3), np.float32)
    assert not guesses(["a b", "c"], ["a", "c"], None, ()).mistakes()
    assert not guesses([[0, 1], [1]], [0, 0], scores, ("x", "y", "z")).mistakes()
    assert not guesses([[0, 1], [1, 1]], [[0, 0], [1, 1]], scores[:, None], ("x", "y")).mistakes()


def job_that_errs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: str) -> Any:
    """A job on two classes that cannot be told, its predictions, and the folder of the result."""
    kept: list[Any] = []
    monkeypatch.setattr(rounds, "draw_mistakes",
                        lambda *given: kept.append((*given, draw_mistakes(*given))))  # fmt: skip
    modality = "V" if pictures == "frames" else "A"
    monkeypatch.setitem(TASKS, "toy", toy_task(pictures=pictures, modality=modality, frames=6))
    shards = labelled_set(
        tmp_path / "demo-glcm", [*clips()], CONFIG if pictures == "frames" else SOUND,
        edit=(lambda _, members: ramp(members)) if pictures == "frames" else None,
    )  # fmt: skip
    evaluate(config(shards, tmp_path / "run", protocol="linear", rounds="fold1", labels=1))
    ((path, job, predictions, drawn),) = kept
    return path, job, predictions, drawn


def test_the_surest_mistakes_are_drawn_as_they_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, job, _, drawn = job_that_errs(tmp_path, monkeypatch, "frames")
    assert drawn
    assert path == tmp_path / "run/eval/toy-linear-labels1/mistakes-fold1.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
    # Frame k of a clip of 10 is as bright as 4 k; the middle window of 6 begins at 2.
    for strip in strips_of(job, [0, 5]):
        side = len(strip)
        assert strip.shape == (side, mistakes.FRAMES * side, 3)
        levels = strip.reshape(side, mistakes.FRAMES, side, 3).mean((0, 2, 3))
        assert levels == pytest.approx([STEP * k for k in range(2, 8)], abs=2)
    right = Predictions.of_scores(job, np.eye(2, dtype=np.float32)[[e.target for e in job.test]])
    assert not draw_mistakes(path, job, right)
    assert not path.exists(), "a picture of mistakes that are no more"


def test_what_is_only_heard_has_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, *_, drawn = job_that_errs(tmp_path, monkeypatch, "none")
    assert not drawn
    assert not path.exists()


# --- attention that moves -----------------------------------------------------------------------


def window(frames: int, level: int, box: list[float]) -> Seen:
    """Gray frames with the attention in the upper left quarter."""
    att = np.array([[1.0, 0.0], [0.0, 0.0]])
    pictures = np.full((frames, 16, 16, 3), level, np.uint8)
    pictures[:, :2, :2] += np.arange(frames, dtype=np.uint8)[:, None, None, None]  # told apart
    return Seen(0, 0, pictures, {"": att}, np.array([box] * frames))


def test_windows_follow_each_other_and_ended_clips_stand_still(tmp_path: Path) -> None:
    here, nowhere = [0.5, 0.5, 0.9, 0.9], [np.nan] * 4
    long = Shown("long", 5, [window(3, 0, here), window(3, 200, here)], "pointing 1.00, more")
    short = Shown("short", 5, [window(2, 100, nowhere)], "no box")
    animate(tmp_path / "a/attention.webp", [long, short])
    film: Any
    with Image.open(tmp_path / "a/attention.webp") as film:
        assert film.size == (2 * CELL_PIXELS, CELL_PIXELS + CAPTION_PIXELS)
        shown, lasted = [], []
        for step in range(film.n_frames):
            film.seek(step)
            shown.append(np.asarray(film.convert("RGB")).astype(int))
            lasted.append(film.info["duration"])
    assert sum(lasted) == 6 * 200, "6 frames at 5 a second"
    first, last = (sheet[CAPTION_PIXELS:] for sheet in (shown[0], shown[-1]))
    corner = (slice(int(0.1 * CELL_PIXELS), int(0.4 * CELL_PIXELS)),) * 2
    far = (slice(int(0.1 * CELL_PIXELS), int(0.4 * CELL_PIXELS)), slice(int(0.6 * CELL_PIXELS),
                                                                        CELL_PIXELS))  # fmt: skip
    assert last[far].mean() > first[far].mean() + 50, "the second window is brighter"
    assert first[corner].mean() > first[far].mean() + 50, "attention shines"
    edge = round(0.9 * (CELL_PIXELS - 1))
    red, green, _ = first[round(0.7 * CELL_PIXELS), edge - 1]
    assert green > 150 > red + 50, "the box's right edge"
    other_first, other_last = first[:, CELL_PIXELS:], last[:, CELL_PIXELS:]
    assert abs(other_first - other_last).mean() < 5
    assert not ((other_first[..., 1] > 150) & (other_first[..., 0] < 100)).any(), "no box"


def test_normalised_frames_are_stretched_to_all_their_contrast() -> None:
    frames = np.linspace(-2, 3, 60).reshape(1, 4, 5, 3)
    found = as_pixels(frames)
    assert found.dtype == np.uint8
    assert (found.min(), found.max()) == (0, 255)
    assert np.allclose(found.ravel(), np.linspace(0, 255, 60), atol=0.51)
    assert not as_pixels(np.full((1, 2, 2, 3), 0.7)).any()
