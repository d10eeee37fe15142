"""Whole sentences by CTC: what is learned from, what is read, and the rates of errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stores import open_store
from tests.pipeline.fabricate import Members
from tests.train.evaluation.gray import painted
from tests.train.evaluation.sets import FACES, Clip, labelled_set
from train import ctc
from train.errors import UsageError
from train.evaluation import driver, transcribe
from train.evaluation.clips import Look
from train.evaluation.config import EvalConfig
from train.evaluation.kept import load
from train.evaluation.labelled import Example, open_labelled
from train.evaluation.result import Predictions
from train.evaluation.task import Round, Settings, Task
from train.tasks import TASKS

LEVELS = {"a": 30, "b": 130, "c": 230}
"""Gray level of the lips while a letter is said."""


def utterance(number: int, text: str, split: str = "train", **facts: Any) -> Clip:
    """A letter lasts 0.4 s."""
    return Clip(
        f"demo/{split}{number}", splits=(f"demo:{split}",), group=f"speaker{number % 2}",
        seconds=0.4 * len(text.split()), facts={"transcript": text}, **facts,
    )  # fmt: skip


def lips(clip: Clip, members: Members) -> Members:
    letters = str(clip.facts["transcript"]).split()
    return painted(members, [LEVELS.get(letter, 30) for letter in letters for _ in range(10)])


TEXTS = ["a b", "b a", "b c", "c a b", "a c b", "b a c"]
"""Of two lengths, each of which fills a batch."""


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    task = Task(
        name="toy", about="toy", dataset="demo", profile="lips", obtain="make it",
        rounds=(Round("test", ("demo:test",), ("demo:train",)),),
        settings=Settings(pictures="lip", frames=0, clips=1, epochs=40, batch_size=3),
        predict=transcribe.transcribe, measure=transcribe.error_rates,
        examples=transcribe.utterances, protocols=("finetune", "linear"),
    )  # fmt: skip
    monkeypatch.setitem(TASKS, "toy", task)
    return task


def made(folder: Path, clips: Sequence[Clip]) -> Path:
    return labelled_set(folder / "demo-lips", clips, FACES, edit=lips)


def config(shards: Path, run: Path, **changes: Any) -> EvalConfig:
    settings: dict[str, Any] = {
        "task": "toy", "scratch": True, "preset": "nano", "workers": 0, "shards": str(shards),
        "run": str(run), "device": "cpu", "lr_head": 2e-3, "dropout": 0.0, "validation": 0.0,
        **changes,
    }  # fmt: skip
    return EvalConfig(**settings)


@pytest.mark.parametrize("beam", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_ctc_learns_what_is_said(task: Task, tmp_path: Path, beam: int) -> None:
    clips = [utterance(number, text) for number, text in enumerate(TEXTS)]
    clips += [utterance(number, text, "test") for number, text in enumerate(reversed(TEXTS))]
    result = driver.evaluate(config(made(tmp_path, clips), tmp_path / "run", beam=beam))
    assert result["metric"]["name"] == "wer"
    assert result["metric"]["value"] <= 0.2
    assert [metric["name"] for metric in result["metrics"]] == ["wer", "cer"]
    assert result["n_scored"] == len(TEXTS)
    said = Predictions.read(tmp_path / "run/eval/toy/test/predictions.parquet").said
    assert said[-1] == TEXTS[0].upper()  # of clips of other lengths none takes another's place
    kept = load(tmp_path / "run/eval/toy/test/model.pt")
    assert kept.output == "text"  # what `train predict` goes by


def test_a_linear_layer_learns_what_frozen_features_say(task: Task, tmp_path: Path) -> None:
    clips = [utterance(number, text) for number, text in enumerate(TEXTS)]
    clips += [utterance(number, text, "test") for number, text in enumerate(reversed(TEXTS))]
    clips += [utterance(9, "b", "test", face=False)]
    flags = {"protocol": "linear", "epochs": 200, "lr_head": 2e-2}
    result = driver.evaluate(config(made(tmp_path, clips), tmp_path / "run", **flags))
    assert result["metric"]["value"] <= 0.2
    assert result["faceless"] == 1
    said = Predictions.read(tmp_path / "run/eval/toy-linear/test/predictions.parquet").said
    assert said[5] == TEXTS[0].upper()


def test_what_ctc_cannot_learn_is_counted_in_training_and_scored_in_a_test(
    task: Task, tmp_path: Path
) -> None:
    # 10 frames for 13 labels, one of them twice in a row
    hasty = "aabcabcabcabc"
    clips = [utterance(0, "a b"), utterance(1, "b"), utterance(2, hasty)]
    clips += [utterance(0, "a b", "test"), utterance(1, hasty, "test")]
    result = driver.evaluate(config(made(tmp_path, clips), tmp_path / "run", epochs=1))
    (note,) = [note for note in result["notes"] if "fewer frames" in note]
    assert "1 of 3 training utterances" in note
    assert "demo/train2" in note
    assert result["n_scored"] == result["n_expected"] == 2


def test_long_utterances_are_left_out_of_training() -> None:
    long = Example("long", 0, "a", "x", 0, 401)
    just = Example("just", 0, "a", "x", 0, 400)
    kept, notes = transcribe.learnable([long, just], 25.0)
    assert kept == [just]
    assert len(notes) == 1
    assert "1 of 2 training utterances are longer than 16 s" in notes[0]
    with pytest.raises(UsageError, match="none of 1 training utterances is left"):
        transcribe.learnable([long], 25.0)


def test_clips_without_a_face_are_read_and_counted(task: Task, tmp_path: Path) -> None:
    clips = [utterance(0, "a b"), utterance(0, "a", "test"), utterance(1, "b", "test", face=False)]
    result = driver.evaluate(config(made(tmp_path, clips), tmp_path / "run", epochs=1))
    assert result["faceless"] == 1
    assert result["n_scored"] == 2
    assert any("1 clips without a face" in note for note in result["notes"])


def test_an_utterance_without_a_text_is_refused(tmp_path: Path) -> None:
    clips = [utterance(0, "a"), Clip("demo/mute", facts={"transcript": " "})]
    shards = labelled_set(tmp_path / "demo-lips", clips, FACES)
    labelled = open_labelled(open_store(str(shards)))
    with pytest.raises(UsageError, match="demo/mute of demo-lips has no transcript"):
        transcribe.utterances(labelled, ["train"], Settings())


def test_word_and_character_error_rates_by_hand() -> None:
    predictions = Predictions(
        names=["u0", "u1"], groups=["s1", "s2"],
        targets=["bin blue at f two now", "set red by a one soon"],
        said=["BIN BLUE F TWO NOW", "SET RED BY A NINE SOON PLEASE"],
        classes=(),
    )  # fmt: skip
    word_rate, character_rate = transcribe.error_rates(predictions)
    # one deletion; one substitution and one insertion: 3 of 12 words
    assert word_rate.value == pytest.approx(3 / 12)
    # "at " deleted: 3. ONE -> NINE: 2 (N I N E: insert N, O -> I); " PLEASE" inserted: 7
    assert character_rate.value == pytest.approx((3 + 2 + 7) / (21 + 21))
    assert not word_rate.higher_is_better


def test_batches_are_of_like_lengths_and_of_a_bounded_number_of_frames() -> None:
    lengths = [30, 100, 20, 90, 25, 400, 35]
    looks = [Look(number, 0, frames, 0.5) for number, frames in enumerate(lengths)]
    batches = transcribe.alike(looks, 3, 200)
    assert [[look.frames for look in batch] for batch in batches] == [
        [20, 25, 30], [35, 90], [100], [400]
    ]  # fmt: skip
    again = transcribe.alike(looks[::-1], 3, 200)
    assert [len(batch) for batch in again] == [3, 2, 1, 1]


def test_the_loss_looks_at_no_frame_of_the_padding() -> None:
    """By torch's CTC of each utterance alone, from the same logits."""
    torch.manual_seed(0)
    logits = torch.randn(2, 12, ctc.CLASSES)
    targets = [torch.tensor(ctc.encode(text)) for text in ("two", "at")]
    loss = transcribe.ctc_loss(logits, torch.tensor([7, 12]), targets)
    alone = []
    for row, frames, text in ((0, 7, "two"), (1, 12, "at")):
        labels = torch.tensor([ctc.encode(text)])
        log_p = logits[row, :frames, None].log_softmax(-1)
        value = torch.nn.functional.ctc_loss(
            log_p, labels, torch.tensor([frames]), torch.tensor([len(text)]), reduction="sum"
        )
        alone.append(value / len(text))
    assert loss.item() == pytest.approx(np.mean([value.item() for value in alone]), rel=1e-5)


@pytest.mark.parametrize(
    ("splits", "train", "val"),
    [
        (("trainval", "pretrain", "test"), {"lrs3:pretrain", "lrs3:trainval"}, ()),
        (("train", "val", "pretrain", "test"), {"lrs3:pretrain", "lrs3:train"}, ("lrs3:val",)),
    ],
)
def test_lrs3_chooses_by_the_list_of_validation_clips_where_there_is_one(
    tmp_path: Path, splits: Sequence[str], train: set[str], val: tuple[str, ...]
) -> None:
    clips = [
        Clip(f"lrs3/{split}/0", splits=(f"lrs3:{split}",), facts={"transcript": "a"})
        for split in splits
    ]
    labelled = open_labelled(open_store(str(labelled_set(tmp_path / "lrs3-lips", clips, FACES))))
    (one,) = TASKS["lrs3"].for_set(labelled).all_rounds
    assert (set(one.train), one.val, one.test) == (train, val, ("lrs3:test",))
