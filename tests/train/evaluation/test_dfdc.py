"""DFDC: a video's score from its seconds, clips without a face, two faces, sets of one class."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline import format as shard_format
from pipeline.config import ShardConfig
from stores import open_store
from tests.pipeline.fabricate import Members
from tests.train.evaluation.sets import Clip, labelled_set
from train.errors import UsageError
from train.evaluation import classify, driver, rounds
from train.evaluation.clips import ClipBatch
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import from_scratch
from train.evaluation.job import Job
from train.evaluation.labelled import open_labelled
from train.evaluation.result import Predictions
from train.tasks import task_named
from train.tasks.dfdc import auc_or_loss, fake_class, larger_of_two, measure

CLASSES = ("REAL", "FAKE")
VALUES = {"dfdc/a": [2.0, -1.0, 0.5], "dfdc/b": [-3.0, 0.25], "dfdc/short": [1.5]}


def faces(fps: int = 30) -> ShardConfig:
    return ShardConfig("deepfake", Fraction(fps), 32, 22050, faces="on", crop_size=24,
                       face_tracks=2, lips=False)  # fmt: skip


def clip(key: str, label: int, split: str, **fields: Any) -> Clip:
    return Clip(f"dfdc/{key}", label, (f"dfdc:{split}",), key, **{"seconds": 1.0, **fields})


def config_of(shards: Path, run: Path, **changes: Any) -> EvalConfig:
    settings: dict[str, Any] = {
        "task": "dfdc", "scratch": True, "preset": "nano", "workers": 0, "shards": str(shards),
        "run": str(run), "device": "cpu", "epochs": 1, "batch_size": 4, **changes,
    }  # fmt: skip
    return EvalConfig(**settings)


def job_of(shards: Path, folder: Path, **changes: Any) -> Job:
    config = config_of(shards, folder, **changes)
    task = task_named("dfdc").with_settings(**config.changes)
    labelled = open_labelled(open_store(str(shards)))
    source = from_scratch("glcm", "nano", 0)
    return rounds.job_of(config, task, labelled, source, folder, task.all_rounds[0])


def known_mel(clip: Clip, members: Members, rate: int = 30) -> Members:
    """Second s of a clip has the same value everywhere; what is left of the last one is huge."""
    if clip.key not in VALUES:
        return members
    count = shard_format.decode_npy(members["mel.npy"]).shape[1]
    mel = np.full((80, count), 100, np.float16)
    for second, value in enumerate(VALUES[clip.key]):
        mel[:, 3 * rate * second : 3 * rate * (second + 1)] = value
    return {**members, "mel.npy": shard_format.encode_npy(mel)}


class Listener(nn.Module):
    """p(fake) = sigmoid of the mean of the window's mel."""

    def forward(self, video: Tensor, mel: Tensor) -> Tensor:
        self.frames = video.shape[2]
        heard = mel.mean((1, 2))
        return torch.stack([torch.zeros_like(heard), heard], 1)


@pytest.mark.parametrize("fps", [25, 30])
def test_a_videos_score_is_the_mean_over_its_seconds(tmp_path: Path, fps: int) -> None:
    clips = [
        clip("t", 0, "train"), clip("u", 1, "train"),
        clip("a", 1, "test", seconds=3.4), clip("b", 0, "test", seconds=2.0),
        clip("short", 1, "test", seconds=0.8),
    ]  # fmt: skip
    shards = labelled_set(tmp_path / "set", clips, faces(fps), classes=CLASSES, name="dfdc",
                          edit=lambda one, members: known_mel(one, members, fps))  # fmt: skip
    job = job_of(shards, tmp_path, modality="V+A")
    listener = Listener()
    scores, faceless = classify.scored(job, listener, job.test)
    assert listener.frames == fps and not faceless.any()
    for example, (real, fake) in zip(job.test, scores.tolist(), strict=True):
        seconds = [1 / (1 + np.exp(-value)) for value in VALUES[example.name]]
        assert fake == pytest.approx(sum(seconds) / len(seconds), abs=1e-3)
        assert real == pytest.approx(1 - fake, abs=1e-6)


def mixed_set(folder: Path, **fields: Any) -> Path:
    """Four clips to learn from, a validation part, a test part with two clips without a face."""
    clips = [clip(f"t{i}", i % 2, "train", face=i < 3) for i in range(4)]
    clips += [clip(f"v{i}", i % 2, "val") for i in range(2)]
    clips += [clip(f"s{i}", i % 2, "test", face=i not in (1, 2)) for i in range(5)]
    return labelled_set(folder / "dfdc-deepfake", clips, faces(10), classes=CLASSES, name="dfdc",
                        **fields)  # fmt: skip


@pytest.mark.parametrize("protocol", ["finetune", "linear", "svm", "knn"])
def test_clips_without_a_face_are_undecided_and_counted(tmp_path: Path, protocol: Any) -> None:
    result = driver.evaluate(config_of(mixed_set(tmp_path), tmp_path / "run", protocol=protocol))
    assert result["n_scored"] == 5 and result["faceless"] == 2
    assert (
        "2 clips without a face were scored the same for all classes (of two: 0.5)"
        in (result["notes"])
    )
    name = "dfdc" if protocol == "finetune" else f"dfdc-{protocol}"
    found = Predictions.read(tmp_path / "run/eval" / name / "test/predictions.parquet")
    assert found.scores is not None
    middle = 0.0 if protocol == "svm" else 0.5
    assert found.scores[found.faceless].tolist() == [[middle, middle]] * 2
    if protocol in ("finetune", "linear"):  # of votes and margins of three clips many are even
        assert (found.scores[~np.array(found.faceless)] != middle).all()


def test_what_shows_no_face_teaches_nothing(tmp_path: Path) -> None:
    job = job_of(mixed_set(tmp_path), tmp_path)

    class Seer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LazyLinear(2)

        def forward(self, video: Tensor, mel: None) -> Tensor:
            out: Tensor = self.layer(video.flatten(1))
            return out

    model = Seer()
    video = torch.randint(0, 255, (4, 2, 24, 24, 3), dtype=torch.uint8)

    def gradient(faceless: list[bool], rows: list[int]) -> Tensor:
        model.zero_grad()
        batch = ClipBatch(video[rows], None, torch.full((len(rows),), 2), torch.tensor(rows),
                          torch.tensor(faceless))  # fmt: skip
        step = replace(job, task=replace(job.task, settings=replace(job.settings, modality="V")))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ClipBatch, "augmented", lambda self, *_: self.centred(24))
            loss = classify.classification_loss(step, model)(batch, 0)
        loss.backward()
        assert model.layer.weight.grad is not None
        return model.layer.weight.grad.clone()

    both = gradient([False, False, True, True], [0, 1, 2, 3])
    alone = gradient([False, False], [0, 1])
    assert torch.allclose(both, alone, atol=1e-6) and alone.abs().sum() > 0
    assert not gradient([True, True], [2, 3]).any()


def predictions(scores: list[float], labels: list[int], **fields: Any) -> Predictions:
    names = [f"v{i}" for i in range(len(scores))]
    both = np.array([[1 - score, score] for score in scores], np.float32)
    return Predictions(names, names, list(labels), both.argmax(1).tolist(), CLASSES, both, **fields)


def test_metrics_equal_counting_pairs() -> None:
    scores, labels = [0.9, 0.7, 0.55, 0.5, 0.5, 0.2, 0.65], [1, 0, 1, 1, 0, 0, 1]
    found = {score.name: score.value for score in measure(predictions(scores, labels))}
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, x in zip(scores, labels, strict=True) if x
        for b, y in zip(scores, labels, strict=True) if not y
    ]  # fmt: skip
    assert found["auc_video"] == pytest.approx(sum(pairs) / len(pairs))
    # At 0.6 or more: of four fakes 0.9 and 0.65; of three real ones 0.7.
    assert found["auc_video_hard@0.6"] == pytest.approx((2 / 4 + 2 / 3) / 2)
    losses = [-np.log(s if x else 1 - s) for s, x in zip(scores, labels, strict=True)]
    assert found["log_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert next(iter(found)) == "auc_video"


def test_the_class_fake_is_found_by_name() -> None:
    assert fake_class(("REAL", "FAKE")) == 1 and fake_class(("fake", "real")) == 0
    with pytest.raises(UsageError, match="classes of these shards are dog, cat; expected REAL"):
        fake_class(("dog", "cat"))
    turned = replace(predictions([0.1, 0.8], [0, 1]), classes=("fake", "real"))
    assert measure(turned)[0].value == 1  # class 0 is fake, and p(class 0) is larger there


def test_of_two_faces_the_larger_score_counts() -> None:
    first, second = [0.2, 0.8, 0.5, 0.5, 0.3], [0.9, 0.1, 0.7, 0.5, 0.99]
    # The third has no first face, the fourth none at all, the fifth no second one.
    faceless = [False, False, True, True, False, False, False, False, True, True]
    found = larger_of_two(predictions(first + second, [1, 0, 1, 0, 0] * 2, faceless=faceless), 1)
    assert found.scores is not None
    assert found.scores[:, 1].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5, 0.3])
    assert found.faceless == [False, False, False, True, False]
    assert found.names == ["v0", "v1", "v2", "v3", "v4"] and found.said == [1, 1, 1, 0, 0]
    assert "3 clips that show a second one" in found.notes[0]


def second_face(one: Clip, members: Members) -> Members:
    """The first face's pictures as those of a second one, of test clips."""
    if one.key not in ("dfdc/s0", "dfdc/s3"):
        return members
    meta = json.loads(members["json"])
    meta["jpeg_sizes"]["face2"] = meta["jpeg_sizes"]["face"]
    return {**members, "face2.mjpeg": members["face.mjpeg"],
            "json": shard_format.encode_json(meta)}  # fmt: skip


def test_two_tracks_go_through(tmp_path: Path) -> None:
    shards = mixed_set(tmp_path, edit=second_face)
    result = driver.evaluate(config_of(shards, tmp_path / "run", tracks=2))
    assert result["n_scored"] == 5 and result["faceless"] == 2
    assert any("2 clips that show a second one" in note for note in result["notes"])


def test_second_faces_that_are_not_stored_are_refused(tmp_path: Path) -> None:
    shards = labelled_set(
        tmp_path / "set",
        [clip(f"{part}{i}", i, part) for part in ("train", "val", "test") for i in range(2)],
        replace(faces(10), face_tracks=1), classes=CLASSES, name="dfdc",
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"--tracks 2 reads face2.mjpeg.*PROFILE=deepfake"):
        driver.evaluate(config_of(shards, tmp_path / "run", tracks=2))


@pytest.mark.parametrize(
    ("part", "label", "says"),
    [("test", 1, "are fake .*has no AUC. Add real ones"),
     ("train", 0, "are real .*teaches nothing. Add fake ones")],
)  # fmt: skip
def test_clips_of_one_class_are_a_sentence(
    tmp_path: Path, part: str, label: int, says: str
) -> None:
    clips = [
        clip(f"{name}{i}", label if name == part else i % 2, name)
        for name in ("train", "val", "test") for i in range(7)
    ]  # fmt: skip
    shards = labelled_set(tmp_path / "set", clips, faces(10), classes=CLASSES, name="dfdc")
    with pytest.raises(UsageError, match=rf"all 7 clips of dfdc:{part} {says}"):
        driver.evaluate(config_of(shards, tmp_path / "run"))


def test_the_epoch_is_chosen_by_auc() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]], np.float32)
    assert auc_or_loss(scores, np.array([0, 1, 0])) == 1  # although all are said to be real
    assert auc_or_loss(scores, np.array([0, 1, 1])) == 1
    better = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1]], np.float32)
    alone = np.zeros(3, np.int64)
    assert auc_or_loss(better, alone) > auc_or_loss(scores, alone)


def test_folds_and_lists_share_nothing_by_name() -> None:
    for one in task_named("dfdc_folds").all_rounds:
        assert len(one.train) == 4 and not {*one.test} & {*one.train}
    assert task_named("dfdc_mds").all_rounds[0].test == ("mds:test",)
