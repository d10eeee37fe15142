"""Words as windows of sentences: which frames they are, and what is done where there are none."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores import open_store
from tests.train.evaluation.gray import STEP, painted, ramp
from tests.train.evaluation.sets import FACES, Clip, labelled_set
from train.errors import UsageError
from train.evaluation.clips import ClipView, read_clips, scored_looks, training_looks
from train.evaluation.labelled import Example, LabelledSet, open_labelled
from train.evaluation.words import window, word_examples
from train.tasks import TASKS

CLASSES = {"at": 0, "by": 1}
SECONDS = 2.0
FRAMES = 50


def spoken(number: int, start_s: float, end_s: float, word: str = "by", **facts: Any) -> Clip:
    """Three words, of which the second lies at these times."""
    words = [
        {"w": "bin", "start_s": 0.0, "end_s": 0.1},
        {"w": word, "start_s": start_s, "end_s": end_s},
        {"w": "now", "start_s": 1.9, "end_s": 2.0},
    ]
    kind = {"splits": ("grid:fold1",), "seconds": SECONDS, "group": "s1", **facts}
    return Clip(f"grid/s1/clip{number}", facts={"words": words}, **kind)


def opened(folder: Path, clips: Sequence[Clip], edit: Any = lambda _, m: ramp(m)) -> LabelledSet:
    path = labelled_set(folder / "grid-lips", clips, FACES, name="grid", edit=edit)
    return open_labelled(open_store(str(path)))


def second_words(labelled: LabelledSet, jitter: int = 0, frames: int = 13) -> list[Example]:
    return word_examples(labelled, ["grid:fold1"], 1, 3, CLASSES, frames, jitter)


def seen(labelled: LabelledSet, examples: list[Example], looks: Any, pictures: Any) -> Any:
    """Numbers of the frames in each window, by their gray levels."""
    (batch,) = read_clips(labelled.shard_set, examples, ClipView(pictures), [looks], 0)
    assert batch.video is not None
    levels = batch.video.float().mean((2, 3, 4)).numpy()
    return np.rint(levels / STEP).astype(int), batch.faceless.tolist()


@pytest.mark.parametrize("pictures", ["lip", "face", "frames"])
def test_the_window_lies_about_the_middle_of_the_word(tmp_path: Path, pictures: Any) -> None:
    # 0.52 .. 0.80 s: the middle is 0.66 s, which is 16.5 frames of 0.04 s; six and a half before
    # and after it are frames 10 to 22. 1.20 .. 1.44 s: 33, and of 26.5 and 27 either is as near.
    labelled = opened(tmp_path, [spoken(0, 0.52, 0.80), spoken(1, 1.20, 1.44, "at")])
    examples = second_words(labelled)
    frames, faceless = seen(labelled, examples, scored_looks(examples, 13, 1, 1), pictures)
    assert frames[0].tolist() == list(range(10, 23))
    assert frames[1].tolist() in (list(range(26, 39)), list(range(27, 40)))
    assert faceless == [False, False]
    assert [(example.name, example.target) for example in examples] == [
        ("grid/s1/clip0#1", 1), ("grid/s1/clip1#1", 0)
    ]  # fmt: skip


def test_training_windows_are_off_the_middle_by_the_jitter_at_most(tmp_path: Path) -> None:
    labelled = opened(tmp_path, [spoken(0, 0.52, 0.80)])
    (example,) = second_words(labelled, jitter=2)
    drawn = set()
    for epoch in range(40):
        looks = training_looks([example], 13, 0, epoch)
        frames, _ = seen(labelled, [example], looks, "lip")
        drawn.add(int(frames[0][0]))
    assert drawn == {8, 9, 10, 11, 12}
    scored, _ = seen(labelled, [example], scored_looks([example], 13, 1, 1), "lip")
    assert scored[0][0] == 10


@pytest.mark.parametrize(
    ("start_s", "end_s", "first", "count"),
    [
        (0.00, 0.08, 0, 13),  # the middle is frame 1: the clip's first 13 frames
        (1.96, 2.00, 37, 13),  # its last
        (0.28, 0.32, 0, 15),  # 7.5 frames - 6.5 = 1: room for one frame on both sides
        (0.98, 1.02, 16, 17),  # 25 - 6.5 = 18.5, taken as 18; two on both sides
    ],
)
def test_windows_stay_in_the_clip(start_s: float, end_s: float, first: int, count: int) -> None:
    found = window({"start_s": start_s, "end_s": end_s}, 25.0, FRAMES, 13, 2)
    assert found == (first, count)


def test_a_clip_shorter_than_the_window_is_taken_whole() -> None:
    assert window({"start_s": 0.1, "end_s": 0.2}, 25.0, 9, 13, 2) == (0, 9)
    assert window({"start_s": 0.1, "end_s": 0.2}, 25.0, 9, 0, 2) == (0, 9)


def test_a_word_out_of_its_clip_is_kept_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labelled = opened(tmp_path, [spoken(0, 0.5, 0.7), spoken(1, 2.4, 2.6)])
    with caplog.at_level(logging.WARNING):
        examples = second_words(labelled)
    assert "1 clips of grid:fold1 end before the middle of their word 2" in caplog.text
    assert "grid/s1/clip1" in caplog.text
    assert (examples[1].start, examples[1].frames) == (FRAMES - 13, 13)


def test_clips_without_times_are_refused_by_name(tmp_path: Path) -> None:
    silent = Clip("grid/s1/silent", splits=("grid:fold1",), seconds=SECONDS, facts={"words": []})
    strange = spoken(2, 0.5, 0.7, "under")
    labelled = opened(tmp_path, [spoken(0, 0.5, 0.7), silent, strange])
    with pytest.raises(UsageError) as refused:
        second_words(labelled)
    text = str(refused.value)
    assert "2 clips of grid:fold1" in text
    assert "grid/s1/silent: no word has a time" in text
    assert "grid/s1/clip2: bin under now" in text
    assert "clip0" not in text


def test_one_speaker_is_held_out_by_clip_several_by_speaker(tmp_path: Path) -> None:
    one = opened(tmp_path / "one", [spoken(0, 0.5, 0.7), spoken(1, 0.5, 0.7)])
    assert [example.group for example in second_words(one)] == [
        "grid/s1/clip0", "grid/s1/clip1"
    ]  # fmt: skip
    clips = [spoken(0, 0.5, 0.7), spoken(1, 0.5, 0.7, group="s2")]
    assert [e.group for e in second_words(opened(tmp_path / "two", clips))] == ["s1", "s2"]


def test_missing_crops_are_held_and_clips_without_a_face_flagged(tmp_path: Path) -> None:
    clips = [spoken(0, 0.52, 0.80), spoken(1, 0.52, 0.80, face=False)]
    gap = [None if 12 <= k <= 17 else STEP * k for k in range(FRAMES)]
    labelled = opened(tmp_path, clips, lambda clip, m: painted(m, gap) if clip.face else ramp(m))
    examples = second_words(labelled)
    frames, faceless = seen(labelled, examples, scored_looks(examples, 13, 1, 1), "lip")
    # of the frames 10 to 22, 12 to 14 are nearer to 11, 15 to 17 to 18
    assert frames[0].tolist() == [10, 11, 11, 11, 11, 18, 18, 18, 18, 19, 20, 21, 22]
    assert frames[1].tolist() == list(range(10, 23))  # the middle of whole frames
    assert faceless == [False, True]


@pytest.mark.parametrize(
    ("name", "place", "count"),
    [("grid_commands", 0, 4), ("grid_colours", 1, 4), ("grid_prepositions", 2, 4),
     ("grid_letters", 3, 25), ("grid", 3, 25), ("grid_digits", 4, 10), ("grid_adverbs", 5, 4)],
)  # fmt: skip
def test_grid_tasks_take_their_own_word(tmp_path: Path, name: str, place: int, count: int) -> None:
    sentence = ["place", "blue", "at", "f", "two", "now"]
    times = [0.1, 0.3, 0.6, 0.9, 1.2, 1.5]
    words = [{"w": w, "start_s": t, "end_s": t + 0.2} for w, t in zip(sentence, times, strict=True)]
    clip = Clip("grid/s1/pbaf2n", splits=("grid:fold1",), seconds=SECONDS, facts={"words": words})
    labelled = opened(tmp_path, [clip])
    task = TASKS[name]
    assert task.examples is not None
    (example,) = task.examples(labelled, ["grid:fold1"], task.settings)
    assert len(task.classes) == count
    assert task.classes[example.target] == sentence[place]
    middle = example.start + example.frames / 2
    assert abs(middle - 25 * (times[place] + 0.1)) <= (0.5 if place else 5)  # the clip's start


def test_grid_has_the_rounds_of_its_manifest(tmp_path: Path) -> None:
    folds = opened(tmp_path / "a", [spoken(0, 0.5, 0.7, splits=("grid:train", "grid:fold1"))])
    task = TASKS["grid_letters"].for_set(folds)
    assert [one.name for one in task.all_rounds] == ["fold1", "fold2", "fold3", "fold4", "fold5"]
    assert task.all_rounds[1].test == ("grid:fold2",)
    assert set(task.all_rounds[1].train) == {f"grid:fold{n}" for n in (1, 3, 4, 5)}
    unseen = opened(tmp_path / "b", [spoken(0, 0.5, 0.7, splits=("grid:train",))])
    (one,) = TASKS["grid_letters"].for_set(unseen).all_rounds
    assert (one.train, one.val, one.test) == (("grid:train",), ("grid:val",), ("grid:test",))


def test_grid_says_what_else_there_is() -> None:
    (note,) = TASKS["grid"].notes
    for name in ("grid_digits", "grid_commands", "grid_sentences"):
        assert name in note
