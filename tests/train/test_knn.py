"""Frozen kNN against loops over lists, and what chooses `best`."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.ramps import mel_of
from tests.train.runs import metrics, toy
from tests.train.test_batch import batch
from tests.train.toy import Toy, ToyConfig
from train import heldout, trackers
from train.best import Best, best_of
from train.errors import UsageError
from train.knn import LABELS_OF_A_SET, NEIGHBOURS, Rows, knn_accuracy, labelled_rows
from train.methods import METHODS, MethodEntry
from train.pretrain import pretrain


class Seeing(Toy):
    """A toy that gives features: the mean colour, and the mean mel."""

    feature_channels = {"look": 3, "sound": 80}  # noqa: RUF012

    def features(self, batch: Any) -> dict[str, Tensor]:
        return {"look": batch.video, "sound": batch.mel}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.setitem(METHODS, "seeing", MethodEntry(ToyConfig, Seeing, {"toy": ToyConfig()}))


def rows(clips: int, seed: int, classes: int = 3) -> Rows:
    """Noisy directions, a class each; some clips have two labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, 6))
    found: Rows = []
    for number in range(clips):
        label = number % classes
        vector = (centres[label] + rng.normal(0, 1.2, 6)).astype(np.float32)
        found.append((vector, (label,) if number % 5 else (label, (label + 1) % classes)))
    return found


def naive_accuracy(known: Rows, asked: Rows) -> float:
    """With loops; of labels with as many votes the smallest one."""
    right = 0
    k = max(min(NEIGHBOURS, len(known) // 2), 1)
    for vector, labels in asked:

        def cosine(other: Any, own: Any = vector) -> float:
            dot = sum(float(a) * float(b) for a, b in zip(own, other, strict=True))
            return dot / math.hypot(*map(float, own)) / math.hypot(*map(float, other))

        nearest = sorted(known, key=lambda clip: -cosine(clip[0]))[:k]
        counts = Counter(label for _, labels_there in nearest for label in labels_there)
        most = max(counts.values())
        right += min(label for label, n in counts.items() if n == most) in labels
    return right / len(asked)


@pytest.mark.parametrize("clips", [6, 31, 90])
def test_the_accuracy_is_that_of_a_naive_loop(clips: int) -> None:
    known, asked = rows(clips, 1), rows(40, 2)
    assert knn_accuracy(known, asked) == naive_accuracy(known, asked)


def test_features_are_averaged_scaled_and_put_side_by_side() -> None:
    model = Seeing(ToyConfig())
    clips = batch(video=torch.rand(2, 3, 4, 8, 8), mel=torch.rand(2, 80, 12), labels=((1,), ()))
    ((vector, labels),) = labelled_rows(model, [clips])  # the clip without a label is left out
    assert labels == (LABELS_OF_A_SET + 1,)
    look = [clips.video[0, c].mean().item() for c in range(3)]
    sound = [mel_of(clips)[0, band].mean().item() for band in range(80)]
    expected = [x / math.hypot(*look) for x in look] + [x / math.hypot(*sound) for x in sound]
    assert vector.tolist() == pytest.approx(expected, rel=1e-4)


def test_classes_of_different_sets_are_different() -> None:
    clips = batch(video=torch.rand(2, 3, 4, 8, 8), mel=torch.rand(2, 80, 12),
                  labels=((1,), (1,)), instance=torch.tensor([9, 10]))  # fmt: skip
    found = labelled_rows(Seeing(ToyConfig()), [clips], first_instances=[0, 10])
    assert found[0][1] != found[1][1]


def test_what_cannot_be_asked_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="no training clip has a label"):
        knn_accuracy([], rows(3, 0))
    with pytest.raises(UsageError, match="no held-out clip has a label"):
        knn_accuracy(rows(3, 0), [])
    with pytest.raises(UsageError, match="Toy has no `features`"):
        labelled_rows(Toy(ToyConfig()), [batch(video=torch.rand(2, 3, 4, 8, 8))])


# --- what chooses best ----------------------------------------------------------------------------


def test_signals_are_averaged_and_the_loss_is_the_last_resort() -> None:
    assert best_of({"loss": 2.0}) == Best("loss", -2.0, 2.0)
    assert best_of({"loss": 2.0, "a2v_r1": 0.5}) == Best("a2v_r1", 0.5, 2.0)
    in_time = best_of({"loss": 2.0, "a2v_r1": 0.5, "a2v_r1_sync": 1.0, "a2v_r1_swapped": 0.1})
    assert in_time == Best("a2v_r1 + a2v_r1_sync", 0.75, 2.0)
    both = best_of({"loss": 2.0, "a2v_r1": 0.5, "knn_accuracy": 0.75})
    assert both == Best("knn_accuracy + a2v_r1", 0.625, 2.0)
    assert not both.is_better_than(both)
    assert Best(both.signal, both.score, 1.9).is_better_than(both)  # equal: the smaller loss
    assert not Best(both.signal, 0.6, 0.1).is_better_than(both)
    assert both.is_better_than(None)
    for other in (Best("a2v_r1", 0.9, 0.1), replace(both, score=0.9, among="2 clips")):
        assert not other.compares_with(both)
        assert not other.is_better_than(both)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "a2v_r1"])
def test_what_is_not_finite_is_never_the_best(name: str, value: float) -> None:
    assert best_of({"loss": 2.0, "a2v_r1": 0.5, name: value}) is None
    assert best_of({"loss": 2.0, "a2v_r1": 0.5, "entropy": value}) is not None


def test_features_that_are_not_finite_have_no_neighbours() -> None:
    known = rows(6, 0)
    broken = [(vector * math.nan, labels) for vector, labels in known]
    assert math.isnan(knn_accuracy(known, broken))
    assert math.isnan(knn_accuracy(broken, known))


def test_neighbours_are_asked_every_n_measurements_and_choose(
    ten: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    config = toy(
        ten,
        run,
        method="seeing",
        val_every=2,
        val_split="train",
        allow_overlap=True,
        knn=3,
        max_steps=13,
    )
    with caplog.at_level("INFO"):
        pretrain(config)
    held_out = [line for line in metrics(run) if "val_loss" in line]
    assert [line["step"] for line in held_out] == [2, 4, 6, 8, 10, 12, 13]
    asked = {line["step"]: line["val_knn_accuracy"] for line in held_out
             if "val_knn_accuracy" in line}  # fmt: skip
    assert set(asked) == {6, 12, 13}
    assert all(0 <= value <= 1 for value in asked.values())
    loss = {line["step"]: line["val_loss"] for line in held_out}
    best = max(asked, key=lambda step: (asked[step], -loss[step], -step))
    assert (run / "checkpoints/best").read_text() == f"step-{best:08d}.pt\n"
    assert "best so far by knn_accuracy (" in caplog.text


@pytest.mark.parametrize("weight", ["2", "0.5", "1"])
def test_every_training_clip_answers_once(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: str
) -> None:
    """However often it is trained on: a clip that is there twice would have two votes."""
    given: list[tuple[Rows, Rows]] = []

    def accuracy(known: Rows, asked: Rows) -> float:
        given.append((known, asked))
        return 0.5

    monkeypatch.setattr(heldout, "knn_accuracy", accuracy)
    pretrain(toy(ten, tmp_path / "run", method="seeing", shards=f"{ten}@w={weight}", batch_size=2,
                 max_steps=1, knn=1, val_split="train", allow_overlap=True))  # fmt: skip
    ((known, asked),) = given
    assert len(known) == len(asked) == 10


def test_measuring_changes_nothing_of_the_training(ten: Path, tmp_path: Path) -> None:
    plain = toy(ten, tmp_path / "plain", method="seeing")
    asked = toy(
        ten,
        tmp_path / "asked",
        method="seeing",
        val_every=2,
        val_split="train",
        allow_overlap=True,
        knn=1,
    )
    for config in (plain, asked):
        pretrain(config)
    ours = [line["loss"] for line in metrics(tmp_path / "asked") if "loss" in line]
    assert ours == [line["loss"] for line in metrics(tmp_path / "plain")]


def test_the_best_of_before_is_known_after_going_on(ten: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(toy(ten, whole, val_every=2, val_split="train", allow_overlap=True))
    for stop in (5, 8, None):
        pretrain(
            toy(ten, parts, val_every=2, val_split="train", allow_overlap=True, max_steps=stop)
        )
    at_stops = {5}  # the last step of a call is measured, too
    measured = {line["step"]: line["val_loss"] for line in metrics(parts) if "val_loss" in line}
    assert set(measured) == {2, 4, 6, 8, 10, 12, 14, 15} | at_stops
    best = min(measured, key=lambda step: measured[step])
    assert (parts / "checkpoints/best").read_text() == f"step-{best:08d}.pt\n"


def test_knn_without_held_out_clips_is_a_sentence(ten: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --val-every"):
        toy(ten, tmp_path / "run", knn=2, val_every=0)


def test_knn_where_the_shards_have_no_held_out_split_is_a_sentence(
    ten: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="has no clip in split"):
        pretrain(toy(ten, tmp_path / "run", knn=2))


def test_knn_of_a_method_with_cuts_of_its_own_is_a_sentence(ten: Path, tmp_path: Path) -> None:
    moco = METHODS["moco"].presets["tiny"]
    config = replace(toy(ten, tmp_path / "run"), method="moco", model=moco, knn=1)
    with pytest.raises(UsageError, match=r"--knn compares whole windows, and moco .*classify"):
        pretrain(config)
