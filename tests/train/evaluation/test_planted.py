"""Tasks on the planted corpus: words, boxes, shifted sound, seconds; each goes through."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifests.render.planted import CLASSES
from manifests.render.planted_script import WORDS as RENDERED
from pipeline import format as shard_format
from stores import open_store
from tests.pipeline.fabricate import Members
from tests.train.evaluation.sets import CONFIG, Clip, labelled_set
from train.errors import UsageError
from train.evaluation import driver
from train.evaluation.clips import ClipView, Look, read_clips
from train.evaluation.config import EvalConfig
from train.evaluation.labelled import LabelledSet, open_labelled
from train.evaluation.words import all_words
from train.tasks import TASKS
from train.tasks.mismatch import Coupling, pairs, shifts_of
from train.tasks.planted import EVENTS, NUMBERS, WORDS

SECONDS = 4.0
SAID = [("aiu", 0.5, 1.0), ("mao", 1.2, 1.7), ("imo", 2.6, 3.1)]


def clip(number: int, split: str, **facts: Any) -> Clip:
    words = [{"w": word, "start_s": start, "end_s": end} for word, start, end in SAID]
    known = {
        "words": words,
        "transcript": " ".join(word for word, _, _ in SAID),
        "segments": [{"start_s": 1.0, "end_s": 3.0, "label": number % 2}],
        **facts,
    }
    name = f"planted/{split}{number:02d}"
    return Clip(name, number % 2, (f"planted:{split}",), name, SECONDS, facts=known)


def followed(one: Clip, members: Members) -> Members:
    """A white square on black that moves to the right, its box, and mel that counts its slices."""
    meta = json.loads(members["json"])
    height, width, jpegs, boxes = int(CONFIG.short_side or 0), 42, [], []
    scale = meta["source"]["height"] / height
    for frame in range(meta["frames"]):
        picture = np.zeros((height, width, 3), np.uint8)
        left = 6 + frame % 16
        picture[10:22, left : left + 12] = 255
        jpegs.append(shard_format.encode_jpeg(picture, 95))
        shown = meta["pts"][frame] - meta["window_start"]
        box = (left, 10, left + 12, 22)
        boxes.append([shown, *(scale * value for value in box)])
    members["frames.mjpeg"], meta["jpeg_sizes"]["frames"] = shard_format.join_jpegs(jpegs)
    meta["truth"] = {"boxes": boxes}
    slices = np.arange(3 * meta["frames"], dtype=np.float16) / 10
    members["mel.npy"] = shard_format.encode_npy(np.repeat(slices[None], 80, 0))
    return {**members, "json": shard_format.encode_json(meta)}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = [clip(i, "train") for i in range(6)]
    clips += [clip(i, split) for split in ("val", "test") for i in range(2)]
    folder = tmp_path_factory.mktemp("sets") / "planted-glcm"
    path = labelled_set(folder, clips, classes=tuple(CLASSES), name="planted", edit=followed)
    return path


@pytest.fixture(scope="module")
def labelled(shards: Path) -> LabelledSet:
    return open_labelled(open_store(str(shards)))


def test_the_vocabulary_is_the_one_that_is_rendered() -> None:
    assert WORDS == RENDERED
    assert EVENTS.classes == len(CLASSES) + 1


def test_every_word_is_an_example_about_its_middle(labelled: LabelledSet) -> None:
    found = all_words(labelled, ["planted:test"], NUMBERS, 7, 1)
    assert [one.name for one in found[:3]] == [f"planted/test00#{place}" for place in range(3)]
    assert [WORDS[one.target] for one in found[:3]] == ["aiu", "mao", "imo"]
    # Middles at 0.75, 1.45 and 2.85 s: frames 7.5, 14.5 and 28.5; seven of them from 3.5 before.
    assert [(one.start, one.frames) for one in found[:3]] == [(3, 9), (10, 9), (24, 9)]
    assert len({one.group for one in found}) == 2


def test_words_that_are_none_are_refused(labelled: LabelledSet) -> None:
    with pytest.raises(UsageError, match="says 'imo'; expected one of aiu, mao"):
        all_words(labelled, ["planted:test"], {"aiu": 0, "mao": 1}, 7, 1)


def test_box_crops_follow_the_source(labelled: LabelledSet) -> None:
    examples = all_words(labelled, ["planted:test"], NUMBERS, 7, 0)
    (batch,) = read_clips(labelled.shard_set, examples, ClipView("box"), [[Look(2, 0, 7, 0.5)]], 0)
    assert batch.video is not None
    side = CONFIG.crop_size
    assert batch.video.shape == (1, 7, side, side, 3) and not batch.faceless.any()
    edge = round(0.1 * side)
    inner = batch.video[0, :, 2 * edge : -2 * edge, 2 * edge : -2 * edge].float()
    assert inner.mean() > 240  # the square is where the box is, in every frame
    assert batch.video[0, :, 0].float().mean() < 40  # and the margin about it is not


def test_without_a_box_the_middle_stands_for_it(tmp_path: Path) -> None:
    config = replace(CONFIG, crop_size=20)
    path = labelled_set(tmp_path / "planted-glcm", [clip(0, "test")], config, name="planted")
    labelled = open_labelled(open_store(str(path)))
    examples = all_words(labelled, ["planted:test"], NUMBERS, 7, 0)
    (batch,) = read_clips(labelled.shard_set, examples, ClipView("box"), [[Look(0, 0, 7, 0.5)]], 0)
    assert batch.video is not None and batch.video.shape == (1, 7, 20, 20, 3)
    assert batch.faceless.all()


# --- shifted sound ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "least", "most", "count"), [(10.0, 1, 3, 6), (25.0, 3, 7, 10), (30.0, 3, 9, 14)]
)
def test_shifts_are_100_to_300_ms(fps: float, least: int, most: int, count: int) -> None:
    shifts = shifts_of(fps)
    assert (min(map(abs, shifts)), max(shifts), len(shifts)) == (least, most, count)
    assert sorted(shifts) == sorted(-shift for shift in shifts)


def test_pairs_differ_in_the_time_of_their_sound_alone(labelled: LabelledSet) -> None:
    settings = TASKS["planted_mismatch"].settings
    examples = pairs(labelled, ["planted:train"], settings)
    assert [one.target for one in examples] == [0, 1] * 6
    assert len({one.group for one in examples}) == 6
    looks = [Look(number, 0, 34, 0.5) for number in range(12)]
    (batch,) = read_clips(labelled.shard_set, examples, ClipView("frames", "mel"), [looks], 0)
    assert batch.video is not None and batch.sound is not None
    for number in range(0, 12, 2):
        later = examples[number + 1].sound_later
        assert 1 <= abs(later) <= 3
        assert torch.equal(batch.video[number], batch.video[number + 1])
        own, shifted = batch.sound[number].float(), batch.sound[number + 1].float()
        assert torch.allclose(own[0], (9 + torch.arange(102)) / 10, atol=0.01)
        assert torch.allclose(shifted, own + 0.3 * later, atol=0.01)
    assert pairs(labelled, ["planted:train"], settings) == examples


# --- whole tasks --------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "planted_class": {"metric": "top1", "clips": 1},
    "planted_words": {"metric": "top1"},
    "planted_sentences": {"metric": "wer"},
    "planted_mismatch": {"metric": "auc_video", "clips": 1},
    "planted_events": {"metric": "segment_accuracy", "window_seconds": 4.0},
}


@pytest.mark.parametrize(
    ("task", "protocol"), [*((task, "finetune") for task in RUNS), ("planted_mismatch", "linear")]
)
def test_tasks_go_through(shards: Path, tmp_path: Path, task: str, protocol: Any) -> None:
    changes = {**RUNS[task], "protocol": protocol}
    metric = changes.pop("metric")
    config = EvalConfig(
        task=task, scratch=True, preset="nano", shards=str(shards), run=str(tmp_path), epochs=1,
        batch_size=4, workers=0, device="cpu", **changes,
    )  # fmt: skip
    result = driver.evaluate(config)
    assert result["metric"]["name"] == metric
    assert result["metric"]["n"] == {"planted_words": 6, "planted_mismatch": 4}.get(task, 2)
    assert np.isfinite(result["metric"]["value"])


def test_seconds_are_as_many_as_the_window(labelled: LabelledSet) -> None:
    settings = TASKS["planted_events"].with_settings(window_seconds=4.0).settings
    (one, two) = EVENTS.examples(labelled, ["planted:val"], settings)
    assert one.target == [10, 0, 0, 10] and two.target == [10, 1, 1, 10]
    with pytest.raises(UsageError, match="expected whole seconds"):
        EVENTS.examples(
            labelled, ["planted:val"], TASKS["planted_events"].with_settings(frames=35).settings
        )


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and sound follow a hidden wave, in class 1 two frames apart; neither tells alone."""
    random = np.random.default_rng(seed)
    wave = np.apply_along_axis(np.convolve, 1, random.normal(size=(count, 44)), np.ones(3), "same")
    labels = np.arange(count) % 2
    seen = wave[:, 4:36]
    heard = np.where(labels[:, None] == 1, wave[:, 6:38], wave[:, 4:36])
    noise = random.normal(0, 0.3, (count, 32, 6))
    signs = np.array([1, -1, 2, -1, 1, 0.5])
    frames = np.stack([seen] * 3 + [heard] * 3, axis=2) * signs + noise
    return torch.tensor(frames, dtype=torch.float32), torch.tensor(labels)


def test_a_coupling_learns_what_sums_cannot_tell() -> None:
    torch.manual_seed(0)
    model = Coupling(3, 3)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    frames, labels = drawn(256, 0)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(frames), labels).backward()
        optimizer.step()
    model.eval()
    frames, labels = drawn(128, 1)
    assert (model(frames).argmax(1) == labels).float().mean() > 0.9
