"""Pooling, averaging and frozen features against loops over their definitions."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.train.evaluation.conftest import NANO
from train.errors import TrainError, UsageError
from train.evaluation import probes
from train.evaluation.classify import averaged
from train.evaluation.encoders import (
    from_scratch,
    in_time,
    map_on,
    over_frames,
    pooled,
    require_finite,
    wanted_features,
)
from train.evaluation.frozen import Frozen, mean_by
from train.evaluation.heads import Classifier
from train.evaluation.probes import standardised
from train.evaluation.task import Settings


@pytest.fixture
def found() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "fg": torch.randn(2, 5, 2, 3, 3),
        "fl": torch.randn(2, 4, 8, 3, 3),
        "fa": torch.randn(2, 6, 24),
        "att": torch.rand(2, 9).softmax(1).view(2, 3, 3),
    }


def test_means_over_place_and_time(found: dict[str, torch.Tensor]) -> None:
    vectors = pooled(found, ["fg", "fl", "fa"], Settings())
    for clip in range(2):
        for name, axes in (("fg", (1, 2, 3)), ("fl", (1, 2, 3)), ("fa", (1,))):
            expected = found[name][clip].numpy().mean(axes)
            assert vectors[name][clip].numpy() == pytest.approx(expected, abs=1e-6)


def test_attention_weighs_the_cells(found: dict[str, torch.Tensor]) -> None:
    steps = over_frames(found, "fl", Settings(pooling="full_attention"))
    for clip in range(2):
        for frame in range(8):
            expected = sum(
                found["att"][clip, y, x] * found["fl"][clip, :, frame, y, x]
                for y in range(3)
                for x in range(3)
            )
            assert torch.allclose(steps[clip, frame], torch.as_tensor(expected), atol=1e-6)


def test_a_map_on_a_finer_grid_still_sums_to_one(found: dict[str, torch.Tensor]) -> None:
    finer = map_on(found["att"], torch.zeros(2, 4, 8, 6, 6))
    assert finer.shape == (2, 36)
    assert torch.allclose(finer.sum(1), torch.ones(2))


def test_slow_features_are_repeated_and_slices_averaged() -> None:
    slow = torch.arange(3.0).view(1, 3, 1)
    assert in_time(slow, 10).flatten().tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    sound = torch.arange(12.0).view(1, 12, 1)
    assert in_time(sound, 4).flatten().tolist() == [1, 4, 7, 10]


def test_which_features_a_task_uses() -> None:
    channels = {"fg": 512, "fl": 64, "fa": 512}
    joined = {
        ("V", "both"): {"fg": 512, "fl": 64},
        ("V", "g"): {"fg": 512},
        ("V+A", "l"): {"fl": 64, "fa": 512},
    }
    for (modality, features), expected in joined.items():
        settings = Settings(modality=modality, features=features)  # type: ignore[arg-type]
        assert wanted_features(channels, settings) == expected
    sound = Settings(modality="A", pictures="none")
    assert wanted_features(channels, sound) == {"fa": 512}
    with pytest.raises(UsageError, match="uses the features fg, these encoders have fl, fa"):
        wanted_features({"fl": 64, "fa": 512}, Settings(features="g"))


def test_means_by_owner() -> None:
    values = np.array([[1.0], [5], [3], [7], [11]], np.float32)
    owner = np.array([1, 0, 1, 2, 0])
    assert mean_by(values, owner, 3).ravel().tolist() == [8, 2, 7]


def test_probabilities_or_logits_are_averaged() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    owner = np.array([0, 0, 1])
    mean = averaged(np.log(p), owner, 2, "prob")
    assert mean == pytest.approx(np.array([[0.55, 0.45], [0.5, 0.5]]), abs=1e-6)
    odds = np.sqrt(p[0] * p[1])  # the mean of logarithms is that of a geometric mean
    expected = odds / odds.sum()
    assert averaged(np.log(p), owner, 2, "logit")[0] == pytest.approx(expected, abs=1e-6)


def test_standardised_by_the_training_set() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(3, 5, (200, 3)).astype(np.float32)
    train[:, 2] = 7  # says nothing, and must not divide by zero
    one, other = standardised(train, train + np.float32(5))
    assert one.mean(0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert one[:, :2].std(0) == pytest.approx(np.ones(2), abs=1e-4)
    assert np.isfinite(other).all()
    assert other[:, 0].mean() == pytest.approx(5 / train[:, 0].std(), rel=1e-4)


@pytest.mark.parametrize("probe", [probes.svm, probes.linear])
def test_classes_that_nobody_taught(probe: Any) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2 * 2  # of three classes 0 and 2
    rows = rng.normal(0, 0.1, (24, 4)).astype(np.float32)
    rows[:, 0] += labels
    nobody = np.zeros(24, bool)
    clips = Frozen(rows, np.arange(24), 24, nobody)
    chooser = probes.Chooser(3, None, [str(number) for number in range(24)])
    scores = probe(clips, labels, clips, chooser)
    if probe is probes.linear:
        scores = averaged(scores, clips.owner, 24, "prob")
    assert np.isfinite(scores).all()
    assert (scores[:, 1] <= np.delete(scores, 1, 1).min(1)).all()
    assert scores.argmax(1).tolist() == labels.tolist()
    alone = probes.Chooser(3, None, ["a", "b"])
    with pytest.raises(UsageError, match="all 24 training examples are of the class 0; expected"):
        probe(clips, np.zeros(24, np.int64), clips, alone)


def test_logits_of_a_window_and_of_every_frame() -> None:
    encoders = from_scratch("glcm", "nano", 0)
    video, mel = torch.randn(2, 3, 8, 28, 28), torch.randn(2, 80, 24)
    settings = Settings(modality="V+A")
    window = Classifier(encoders, settings, 5)
    assert window(video, mel).shape == (2, 5)
    every = Classifier(encoders, settings, 5, per_frame=True)
    assert every(video, mel).shape == (2, 8, 5)
    sound = Classifier(encoders, Settings(modality="A", pictures="none"), 5)
    assert sound(None, mel).shape == (2, 5)


def test_encoders_of_a_task_of_sound_leave_pictures_alone() -> None:
    encoders = from_scratch("glcm", "nano", 0)
    model = Classifier(encoders, Settings(modality="A", pictures="none"), 5)
    trained = {id(p) for group in model.groups(1e-3, 1e-4) for p in group["params"]}  # type: ignore[attr-defined]
    assert not any(id(p) in trained for p in encoders.module.fast.parameters())  # type: ignore[union-attr]
    assert any(id(p) in trained for p in encoders.module.audio.parameters())  # type: ignore[union-attr]


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(123)
    before = torch.rand(3)
    torch.manual_seed(123)
    first = from_scratch("glcm", "nano", 7)
    assert torch.equal(torch.rand(3), before)
    again = from_scratch("glcm", "nano", 7)
    other = from_scratch("glcm", "nano", 8)
    assert first.config == NANO
    same = zip(first.module.parameters(), again.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    differ = zip(first.module.parameters(), other.module.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in differ)


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="full_attention looks for the source in whole frames"):
        Settings(pooling="full_attention", pictures="lip")
    with pytest.raises(UsageError, match="crops is 2; expected 1 or 3"):
        Settings(crops=2)
    with pytest.raises(UsageError, match=r"modality is 'VA'; expected one of V, A, V\+A"):
        Settings(modality="VA")  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_cells_keep_when_and_where(pool: str) -> None:
    torch.manual_seed(0)
    fl = torch.randn(2, 3, 8, 6, 4)
    settings = Settings(cells=(4, 3, 2), cell_pool=pool)  # type: ignore[arg-type]
    vector = pooled({"fl": fl}, ["fl"], settings)["fl"]
    expected = []
    for part in range(4):
        for channel in range(3):
            for row in range(3):
                for column in range(2):
                    cell = fl[1, channel, 2 * part : 2 * part + 2, 2 * row : 2 * row + 2]
                    cell = cell[:, :, 2 * column : 2 * column + 2].flatten(1)
                    each = cell.mean(1) if pool == "avg" else cell.amax(1)
                    expected.append(float(each.mean() if pool == "avg" else each.max()))
    assert vector.shape == (2, 4 * 3 * 3 * 2)
    assert sorted(vector[1].tolist()) == pytest.approx(sorted(expected), abs=1e-6)
    assert wanted_features({"fl": 3}, settings) == {"fl": 72}


def test_sound_has_cells_in_time_only(found: dict[str, torch.Tensor]) -> None:
    settings = Settings(modality="A", pictures="none", cells=(4, 1, 1))
    vector = pooled(found, ["fa"], settings)["fa"]
    expected = found["fa"].view(2, 6, 4, 6).mean(3)
    assert torch.allclose(vector.view(2, 6, 4), expected, atol=1e-6)
    assert wanted_features({"fa": 6}, settings) == {"fa": 24}


def test_cells_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="expected parts of time, rows and columns"):
        Settings(cells=(0, 1, 1))
    with pytest.raises(UsageError, match="one mean over the grid"):
        Settings(cells=(1, 2, 2), pooling="full_attention")
    with pytest.raises(UsageError, match="a task of sound alone has no pictures"):
        Settings(modality="A", pictures="none", cells=(4, 3, 3))
    with pytest.raises(UsageError, match="9 x 9 parts of fl, which has 6 x 4 places"):
        pooled({"fl": torch.randn(2, 3, 8, 6, 4)}, ["fl"], Settings(cells=(1, 9, 9)))
    with pytest.raises(UsageError, match="one part of time"):
        Classifier(from_scratch("glcm", "nano", 0), Settings(cells=(2, 1, 1)), 3, per_frame=True)


def test_a_layer_stands_for_the_features() -> None:
    encoders = from_scratch("glcm", "nano", 0)
    settings = Settings(layer="res3")
    video = torch.randn(1, 3, encoders.frames, 32, 32)
    found = encoders.looked_at(video, None, settings)
    fast = encoders.module.fast
    assert isinstance(fast, torch.nn.Module)
    by_hand = fast.res3(fast.res2(fast.pool(fast.stem(video))))  # type: ignore[operator]
    assert torch.equal(found["res3"], by_hand)
    assert encoders.wanted(settings) == {"res3": by_hand.shape[1]}
    with pytest.raises(UsageError, match=r"layer is 'res9'; glcm has res2, res3, res4, res5"):
        encoders.wanted(Settings(layer="res9"))


def test_what_is_not_finite_is_named() -> None:
    values = {"fg": np.zeros(3), "fl": np.array([0, np.nan, 0])}
    with pytest.raises(TrainError, match="the feature fl is not finite for some clips; is the che"):
        require_finite(values)
    with pytest.raises(TrainError, match="the score fl is not finite"):
        require_finite(values, "score")
    require_finite({"fg": values["fg"]})
