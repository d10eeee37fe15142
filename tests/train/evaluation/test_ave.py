"""AVE: classes of seconds, the sound's attention, both losses, clips that are too short."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifests.ave import scan
from manifests.dataset import ScanOptions
from pipeline import format as shard_format
from pipeline.mel import FLOOR
from stores import open_store
from tests.pipeline.fabricate import Members
from tests.train.evaluation.conftest import NANO
from tests.train.evaluation.sets import Clip, labelled_set
from train.errors import UsageError
from train.evaluation import driver
from train.evaluation.clips import SILENCE, ClipView, Look, read_clips
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import Encoders
from train.evaluation.events import by_segment, by_video, video_class
from train.evaluation.labelled import open_labelled
from train.evaluation.result import Predictions
from train.evaluation.segments import SegmentClassifier
from train.evaluation.task import Settings
from train.methods.glcm import Glcm
from train.metrics import segment_accuracy
from train.tasks.ave import EVENTS, SEGMENTS

BACKGROUND = EVENTS.background

LISTS = Path(__file__).parents[3].parent / "shared/lists/ave"
SETTINGS = Settings(modality="V+A", features="l", pooling="full_attention", window_seconds=10)


def planned(*segments: tuple[float, float, int]) -> dict[str, Any]:
    names = ("start_s", "end_s", "label")
    return {"key": "ave/x", "segments": [dict(zip(names, one, strict=True)) for one in segments]}


def test_classes_of_seconds_by_hand() -> None:
    none = BACKGROUND
    assert EVENTS.seconds_of(planned((6.0, 8.0, 3)), SEGMENTS) == [none] * 6 + [3, 3] + [none] * 2
    assert EVENTS.seconds_of(planned((0.0, 10.0, 27)), SEGMENTS) == [27] * 10
    assert (
        EVENTS.seconds_of(planned(), SEGMENTS)
        == [none] * 10
        == EVENTS.seconds_of({"key": "x", "segments": None}, SEGMENTS)
    )
    with pytest.raises(UsageError, match="class 28; expected 0 to 27"):
        EVENTS.seconds_of(planned((0.0, 1.0, 28)), SEGMENTS)


def test_windows_whose_segments_are_not_the_labels_are_refused(tmp_path: Path) -> None:
    shards = labelled_set(tmp_path / "ave-glcm", [Clip("ave/x", 0, ("ave:test",))], name="ave")
    labelled = open_labelled(open_store(str(shards)))
    for wrong in ({"window_seconds": 5.0}, {"frames": 50}, {"frames": 0}):
        with pytest.raises(UsageError, match="expected 10 s, one for each label"):
            EVENTS.examples(labelled, ("ave:test",), replace(SETTINGS, **wrong))


@pytest.mark.skipif(not LISTS.is_dir(), reason="the published annotations are not here")
def test_background_everywhere_is_right_in_17_8_percent(tmp_path: Path) -> None:
    """The published baseline of the published test split."""
    (tmp_path / "AVE").mkdir()
    rows, _ = scan(tmp_path, ScanOptions(annotations=LISTS))
    test = [row for row in rows.to_pylist() if "ave:test" in row["splits"]]
    truth = [EVENTS.seconds_of(row, SEGMENTS) for row in test]
    assert len(truth) == 402
    score = segment_accuracy([[BACKGROUND] * 10] * 402, truth)
    assert f"{score.value:.1%}" == "17.8%"
    assert sum(row.count(BACKGROUND) for row in truth) == round(score.value * 4020)


# --- the network --------------------------------------------------------------------------------


def model_of(settings: Settings = SETTINGS, **changes: Any) -> SegmentClassifier:
    torch.manual_seed(0)
    config = replace(NANO, **changes)
    encoders = Encoders(Glcm(config), config, "glcm", "nano", None)
    return SegmentClassifier(encoders, settings, 5, 4, hidden=8, dropout=0.5).eval()


def test_pooling_equals_a_loop_over_the_formula() -> None:
    model = model_of(sim="dot", tau=1.0)
    video, mel = torch.randn(2, 3, 8, 28, 28), torch.randn(2, 80, 24)
    with torch.no_grad():
        found = model.module.features(_clips(video, mel))
        logits = model(video, mel)
    p_al, p_vl = model.module.project_al, model.module.project_vl
    for clip in range(2):
        rows = []
        for segment in range(4):  # two frames and six slices each
            slices = found["fa"][clip, :, 6 * segment : 6 * segment + 6]
            sound = sum(p_al.weight @ slices[:, k] + p_al.bias for k in range(6)) / 6
            frames = []
            for t in (2 * segment, 2 * segment + 1):
                cells = found["fl"][clip, :, t].flatten(1)
                dots = torch.stack(
                    [(p_vl.weight @ cells[:, p] + p_vl.bias) @ sound for p in range(cells.shape[1])]
                )
                att = dots.exp() / dots.exp().sum()
                frames.append(sum(att[p] * cells[:, p] for p in range(cells.shape[1])))
            rows.append(torch.cat([(frames[0] + frames[1]) / 2, slices.mean(1)]))
        with torch.no_grad():
            expected = model.head(torch.stack(rows))
        assert torch.allclose(logits[clip], expected, atol=1e-4)


def _clips(video: torch.Tensor, mel: torch.Tensor) -> Any:
    return type("Clips", (), {"video": video, "mel": mel})()


def test_attention_follows_the_sound_of_its_own_segment() -> None:
    model = model_of()
    video, mel = torch.randn(1, 3, 8, 28, 28), torch.randn(1, 80, 24)
    with torch.no_grad():
        found = model.module.features(_clips(video, mel))
        other = found["fa"].clone()
        other[:, :, 18:] = torch.randn_like(other[:, :, 18:])
        first = model.module.segment_attention(found["fl"], found["fa"], 4)
        second = model.module.segment_attention(found["fl"], other, 4)
    assert torch.allclose(first.sum(2), torch.ones(1, 8))
    assert torch.equal(first[:, :6], second[:, :6]) and not torch.allclose(
        first[0, 6], second[0, 6]
    )


def test_without_local_projections_cells_are_averaged() -> None:
    model = model_of(replace(SETTINGS, pooling="full_avg"))
    assert not model.attends
    video, mel = torch.randn(1, 3, 8, 28, 28), torch.randn(1, 80, 24)
    with torch.no_grad():
        found = model.module.features(_clips(video, mel))
        seen = found["fl"].mean((3, 4))[0].T.reshape(4, 2, -1).mean(1)
        heard = found["fa"][0].T.reshape(4, 6, -1).mean(1)
        expected = model.head(torch.cat([seen, heard], 1))
        assert torch.allclose(model(video, mel)[0], expected, atol=1e-5)


def log_softmax(row: Sequence[float], place: int) -> float:
    return row[place] - math.log(sum(math.exp(value) for value in row))


def test_losses_equal_loops() -> None:
    logits = torch.randn(3, 10, 29)
    seconds = torch.full((3, 10), BACKGROUND)
    seconds[0, 2:5], seconds[1, 9] = 4, 7  # the third is background alone
    full = [
        -log_softmax(logits[b, s].tolist(), int(seconds[b, s])) for b in range(3) for s in range(10)
    ]
    assert float(by_segment(logits, seconds)) == pytest.approx(sum(full) / 30, abs=1e-5)
    weak = []
    for b, label in enumerate((4, 7, BACKGROUND)):
        largest = [max(logits[b, s, c].item() for s in range(10)) for c in range(29)]
        weak.append(-log_softmax(largest, label))
    assert float(by_video(logits, seconds)) == pytest.approx(sum(weak) / 3, abs=1e-5)
    assert video_class([BACKGROUND, 3, 3], BACKGROUND) == 3


# --- clips --------------------------------------------------------------------------------------


def with_event(one: Clip, members: Members) -> Members:
    """Loud in the band of its event, while that lasts."""
    mel = np.random.default_rng(len(one.key)).normal(0, 0.3, (80, 300)).astype(np.float16)
    mel = mel[:, : shard_format.decode_npy(members["mel.npy"]).shape[1]]
    for segment in one.facts["segments"]:
        low = 20 * segment["label"]
        mel[low : low + 20, 30 * int(segment["start_s"]) : 30 * int(segment["end_s"])] += 3
    return {**members, "mel.npy": shard_format.encode_npy(mel)}


def event(number: int, split: str, seconds: float = 10.0) -> Clip:
    label, start = number % 3, number % 5
    facts = planned((float(start), float(start + 4), label))["segments"]
    name = f"ave/{split}{number:02d}"
    return Clip(name, label, (f"ave:{split}",), name, seconds, facts={"segments": facts})


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = [event(i, "train") for i in range(12)] + [event(i, "val") for i in range(3)]
    clips += [event(i, "test", 9.5 if i == 0 else 10.0) for i in range(5)]
    folder = tmp_path_factory.mktemp("sets") / "ave-glcm"
    return labelled_set(folder, clips, classes=("a", "b", "c"), name="ave", edit=with_event)


def run(shards: Path, folder: Path, task: str, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 4, "workers": 0, "device": "cpu",
                                **changes}  # fmt: skip
    return driver.evaluate(
        EvalConfig(task=task, scratch=True, preset="nano", shards=str(shards), run=str(folder),
                   **settings)
    )  # fmt: skip


@pytest.mark.parametrize("task", ["ave", "ave_weak"])
def test_both_settings_go_through(events: Path, tmp_path: Path, task: str) -> None:
    result = run(events, tmp_path / "run", task)
    assert result["metric"]["name"] == "segment_accuracy" and result["metric"]["n"] == 5
    assert "saying background everywhere is right in 60.0% of the test segments" in result["notes"]
    assert any(note.startswith("1 clips are shorter than 10 s") for note in result["notes"])
    assert any("178 background videos" in note for note in result["notes"]) == (task == "ave_weak")
    found = Predictions.read(tmp_path / "run/eval" / task / "test/predictions.parquet")
    assert found.scores is not None and found.scores.shape == (5, 10, 29)
    right = [
        guess == truth
        for said, wanted in zip(found.said, found.targets, strict=True)
        for guess, truth in zip(said, wanted, strict=True)
    ]
    assert result["metric"]["value"] == pytest.approx(sum(right) / 50)


def test_pictures_and_sound_under_bf16_as_on_a_gpu(events: Path, tmp_path: Path) -> None:
    result = run(events, tmp_path / "run", "ave", precision="bf16")
    assert 0 <= result["metric"]["value"] <= 1
    assert np.isfinite(result["rounds"][0]["history"][0]["loss"])


def test_events_that_can_be_heard_are_learnt(events: Path, tmp_path: Path) -> None:
    result = run(events, tmp_path / "run", "ave", modality="A", epochs=25, lr_head=3e-3)
    assert result["metric"]["value"] >= 0.85


def test_what_is_missing_at_the_end_is_the_last_frame_and_silence(events: Path) -> None:
    labelled = open_labelled(open_store(str(events)))
    short = next(
        one for one in EVENTS.examples(labelled, ["ave:test"], SETTINGS) if one.frames == 95
    )
    view = ClipView("frames", "mel", padding="silence")
    (batch,) = read_clips(labelled.shard_set, [short], view, [[Look(0, 0, 100, 0.5)]], 0)
    (whole,) = read_clips(labelled.shard_set, [short], view, [[Look(0, 0, 95, 0.5)]], 0)
    assert batch.video is not None and batch.sound is not None
    assert whole.video is not None and whole.sound is not None
    assert torch.equal(batch.video[0, :95], whole.video[0])
    assert all(torch.equal(frame, whole.video[0, 94]) for frame in batch.video[0, 95:])
    assert torch.equal(batch.sound[0, :, :285], whole.sound[0])
    assert pytest.approx(math.log(FLOOR)) == SILENCE
    assert torch.all(batch.sound[0, :, 285:] == torch.tensor(SILENCE, dtype=torch.float16))


def test_shards_that_know_no_events_are_refused(tmp_path: Path) -> None:
    clips = [
        Clip(f"ave/{split}{i}", 0, (f"ave:{split}",)) for split in ("train", "val", "test")
        for i in range(2)
    ]  # fmt: skip
    shards = labelled_set(tmp_path / "ave-glcm", clips, name="ave")
    with pytest.raises(UsageError, match="says when its event is"):
        run(shards, tmp_path / "run", "ave")
