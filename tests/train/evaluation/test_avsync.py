"""Timing: right against shifted sound and the offset, by scores that know the time, or nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.evaluation.conftest import NANO
from tests.train.evaluation.sets import Clip, labelled_set
from tests.train.toy import Toy, ToyConfig
from train.augment import centre_pictures
from train.errors import UsageError
from train.evaluation import driver
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import Encoders
from train.evaluation.result import Predictions
from train.evaluation.timing import Timing
from train.methods.glcm import Glcm
from train.tasks.avsync import (
    AVS,
    IN_TIME,
    OUT_OF_TIME,
    best_threshold,
    judged,
    measure,
    measured,
    notes,
    own_and_shifted,
)


def knows(error: int = 0) -> Any:
    """A score that is highest where the sound is `error` frames late."""

    def score(pictures: list[int], sounds: list[int], window: int) -> Any:
        return -np.abs(np.subtract.outer(np.array(sounds), np.array(pictures)) - error).astype(
            float
        )

    return score


@pytest.mark.parametrize(("error", "within"), [(0, 1), (1, 1), (-1, 1), (2, 0), (-3, 0)])
def test_who_knows_the_time_is_right(error: int, within: int) -> None:
    found = measured(knows(error), length=110, fps=10, window=20, clips=3)
    for seconds in (0.5, 1.0, 2.0):
        assert found[f"offset_within_1@{seconds}s"] == within
    if abs(error) <= 2:  # half a second is 5 frames: up to 2 the right one is nearer
        assert found["sync_2afc"] == found["sync_2afc@0.5s"] == 1
    assert measured(lambda p, s, w: -knows()(p, s, w), 110, 10, 20, 3)["sync_2afc"] == 0
    assert measured(lambda p, s, w: 0 * knows()(p, s, w), 110, 10, 20, 3)["sync_2afc"] == 0.5


def test_pairs_equal_a_loop_over_all_shifts() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 200))

    def score(pictures: list[int], sounds: list[int], window: int) -> Any:
        assert all(0 <= start <= 70 - window for start in (*pictures, *sounds))
        return table[np.ix_(sounds, pictures)]

    found = measured(score, length=70, fps=10, window=20, clips=3)
    wins, near = [], []
    for start in range(0, 51, 5):
        for sound in range(51):
            if sound != start and (sound - start) % 5 == 0:
                right = float(table[start, start] > table[sound, start])
                wins.append(right)
                near += [right] if abs(sound - start) == 10 else []
    assert found["sync_2afc"] == pytest.approx(np.mean(wins))
    assert found["sync_2afc@1.0s"] == pytest.approx(np.mean(near))
    hits = []
    for start in (10, 25, 40):  # with a second on either side
        best = max(range(-10, 11), key=lambda shift: table[start + shift, start])
        hits.append(abs(best) <= 1)
    assert found["offset_within_1@1.0s"] == pytest.approx(np.mean(hits))


def test_who_prefers_some_sounds_and_some_pictures_is_at_chance() -> None:
    """However strong the preference: pairs are ordered, so it is wrong as often as right."""
    rng = np.random.default_rng(0)
    sounds_alone, pictures_alone = rng.normal(size=200), rng.normal(size=200)

    def score(pictures: list[int], sounds: list[int], window: int) -> Any:
        return np.add.outer(sounds_alone[sounds], pictures_alone[pictures])

    found = measured(score, length=83, fps=10, window=20, clips=3)
    assert found["sync_2afc"] == found["sync_2afc@0.5s"] == found["sync_2afc@2.0s"] == 0.5


def test_clips_too_short_for_something_say_so() -> None:
    found = measured(knows(), length=30, fps=10, window=20, clips=3)
    assert found["sync_2afc"] == found["offset_within_1@0.5s"] == 1
    found |= own_and_shifted(knows(), length=30, fps=10, seed=0)
    for name in ("sync_2afc@2.0s", "offset_within_1@1.0s", IN_TIME, OUT_OF_TIME):
        assert np.isnan(found[name])
    tiny = measured(knows(), length=15, fps=10, window=20, clips=3)
    tiny |= own_and_shifted(knows(), length=15, fps=10, seed=0)
    assert all(np.isnan(value) for value in tiny.values())
    said = notes({name: [found[name], tiny[name]] for name in found}, 20, 10)
    assert "windows of 2 s; chance: sync_2afc 0.5" in said[0] and "@0.5s 0.273" in said[0]
    assert "1 of 2 clips are too short for sync_2afc" in said
    assert f"2 of 2 clips are too short for {AVS}" in said


def test_the_papers_window_and_shift() -> None:
    asked = []

    def score(pictures: list[int], sounds: list[int], window: int) -> Any:
        if window == 42:
            asked.append((pictures[0], *sounds))
        return knows()(pictures, sounds, window)

    for seed in range(200):
        own_and_shifted(score, length=100, fps=10, seed=seed)
    shifts = {abs(own - other) for start, own, other in asked if start == own}
    assert len(asked) == 200 and min(shifts) >= 20 and max(shifts) <= 58 and len(shifts) > 20


def test_thresholds_are_those_of_the_other_half() -> None:
    rng = np.random.default_rng(3)
    nothing = judged(rng.normal(size=2000), rng.normal(size=2000))
    assert nothing.mean() == pytest.approx(0.5, abs=0.04)  # no gain from choosing
    apart = judged(rng.normal(4, 1, 500), rng.normal(0, 1, 500))
    assert apart.mean() == pytest.approx(0.977, abs=0.02)  # Phi(2)
    assert best_threshold(np.array([1.0, 2.0, 5.0]), np.array([0.0, 0.5, 1.5])) == 0.75


def test_metrics_are_means_over_clips_that_are_long_enough() -> None:
    names = ["a", "b", "c", "d", "e"]
    numbers = {"sync_2afc": [1.0, 0.5, np.nan, 0.0, 1.0], "sync_2afc@0.5s": [np.nan] * 5,
               IN_TIME: [3.0, 4, 5, 6, np.nan], OUT_OF_TIME: [1.0, 0, -1, 2, np.nan]}  # fmt: skip
    none: list[Any] = [None] * 5
    found = measure(Predictions(names, names, none, none, (), numbers=numbers))
    assert [(score.name, score.n) for score in found] == [("sync_2afc", 4), (AVS, 4)]
    assert found[0].value == pytest.approx(2.5 / 4) and found[1].value == 1


# --- with a network -----------------------------------------------------------------------------


def encoders_of() -> Encoders:
    torch.manual_seed(0)
    return Encoders(Glcm(NANO).eval(), NANO, "glcm", "nano", None)


def test_scores_are_those_of_the_method_one_by_one() -> None:
    encoders = encoders_of()
    video = torch.randint(0, 255, (40, 32, 32, 3), dtype=torch.uint8)
    mel = torch.randn(80, 120).half()
    pictures, sounds = list(range(20)), list(range(0, 32, 2))
    found = Timing(encoders).scores(video, mel, pictures, sounds, 8)
    assert found.shape == (16, 20)
    model: Any = encoders.module
    for row, column in ((0, 0), (3, 17), (15, 19)):
        shown, heard = pictures[column], sounds[row]
        frames = centre_pictures(video[None, shown : shown + 8], NANO.crop)
        with torch.no_grad():
            fg, fl = model._look(frames)
            fa = model.audio(mel[None, :, 3 * heard : 3 * (heard + 8)].float())
            alone = model.in_time(fl, fa, *model.embed_global(fg, fa))
        assert found[row, column] == pytest.approx(float(alone), abs=1e-4)


def test_methods_without_such_a_score_are_refused() -> None:
    toy = Encoders(Toy(ToyConfig()), ToyConfig(), "toy", "toy", None)
    with pytest.raises(UsageError, match="the method toy does not say how well"):
        Timing(toy)


def run(shards: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"task": "avsync", "scratch": True, "preset": "nano", "workers": 0,
                                "shards": str(shards), "run": str(folder), "device": "cpu",
                                **changes}  # fmt: skip
    return driver.evaluate(EvalConfig(**settings))


def test_the_task_goes_through_without_training(tmp_path: Path) -> None:
    clips = [Clip(f"demo/{i}", splits=("demo:val",), seconds=3 + i % 2) for i in range(3)]
    clips += [Clip("demo/t", splits=("demo:train",), seconds=1)]
    shards = labelled_set(tmp_path / "demo-glcm", clips)
    result = run(shards, tmp_path / "run")
    names = [metric["name"] for metric in result["metrics"]]
    assert "sync_2afc:foreign_pictures" in names
    assert names[0] == "sync_2afc" and "offset_within_1@1.0s" in names and AVS not in names
    assert 0 <= result["metric"]["value"] <= 1 and result["metric"]["n"] == 3
    assert result["n_scored"] == result["n_expected"] == 3 and result["protocol"] == "frozen"
    stored = json.loads((tmp_path / "run/eval/avsync/result.json").read_bytes())
    assert stored == result
    with pytest.raises(UsageError, match="the longest clip has 1 s"):
        run(shards, tmp_path / "run", split="train")
