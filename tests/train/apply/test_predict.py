"""`train predict`: what an evaluation scored, scored again from the file itself."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pipeline import PROFILES
from stores import open_store
from tests.train.apply.conftest import VideoMaker
from train.apply.predict import PredictOptions, Said, lines_of, model_of, predict
from train.errors import TrainError, UsageError
from train.evaluation.config import EvalConfig
from train.evaluation.driver import evaluate
from train.evaluation.encoders import from_scratch
from train.evaluation.heads import Classifier
from train.evaluation.kept import MODEL, keep, load
from train.evaluation.result import Predictions
from train.evaluation.task import Settings
from train.index import open_shards
from train.read import ShardReader
from train.tasks import TASKS

REPOSITORY = Path(__file__).parents[3]
RATE_HZ = 22050


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve sounds of 4 s, high or low; the generic task fine-tuned on eight of them."""
    folder = tmp_path_factory.mktemp("predict")
    times = np.arange(4 * RATE_HZ) / RATE_HZ
    lines = ["path,label,split,anchored"]
    for number in range(12):
        kind = ("low", "high")[number % 2]
        wave = 0.3 * np.sin(2 * np.pi * (300 + 2000 * (number % 2) + 20 * number) * times)
        soundfile.write(folder / f"{number}.wav", wave, RATE_HZ)
        lines.append(f"{number}.wav,{kind},{'train' if number < 8 else 'test'},true")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    command = ["-m", "pipeline", "shards", "--dataset", "table", "--table",
               str(folder / "clips.csv"), "--root", str(folder), "--out", str(folder / "set"),
               "--profile", "sound", "--executor", "local"]  # fmt: skip
    subprocess.run([sys.executable, *command], check=True, cwd=REPOSITORY, capture_output=True)
    return folder


@pytest.fixture
def result(evaluated: Path) -> Path:
    """RUN/eval/classify; made once, the nano preset is known inside of a test only."""
    config = EvalConfig(
        task="classify", scratch=True, preset="nano", protocol="finetune", modality="A",
        pictures="none", shards=str(evaluated / "set"), run=str(evaluated / "run"), workers=0,
        device="cpu", epochs=8, frames=8, clips=3, batch_size=4, lr_head=3e-3, name="classify",
    )  # fmt: skip
    evaluate(config)
    return evaluated / "run" / "eval" / "classify"


def options(result: Path, *videos: Path, **changes: Any) -> PredictOptions:
    return PredictOptions(tuple(map(str, videos)), result, device="cpu", workers=0, **changes)


@pytest.mark.slow
def test_a_test_clip_gets_the_scores_that_the_evaluation_gave_it(
    result: Path, evaluated: Path, tmp_path: Path
) -> None:
    paths = [evaluated / f"{number}.wav" for number in (11, 8, 9)]
    outcome = predict(options(result, *paths, out=tmp_path / "out.json"))
    assert outcome.exit_code == 0
    found = json.loads((tmp_path / "out.json").read_text())
    scored = Predictions.read(result / "test" / "predictions.parquet")
    assert scored.scores is not None
    known = dict(zip(scored.names, scored.scores, strict=True))
    assert [one["path"] for one in found["videos"]] == list(map(str, paths))
    for one, number in zip(found["videos"], (11, 8, 9), strict=True):
        ours = [one["scores"][name] for name in scored.classes]
        assert np.allclose(ours, known[f"{number}_wav"], atol=1e-6)
        assert one["said"] == scored.classes[int(np.argmax(ours))]
        assert [part["start_seconds"] for part in one["by_second"]] == [0, 1, 2, 3]
        shares = np.array([list(part["scores"].values()) for part in one["by_second"]])
        assert np.allclose(shares.sum(1), 1, atol=1e-5)
    assert any(line.startswith(f"{paths[0]}, 4.0 s") for line in outcome.lines)


@pytest.mark.slow
def test_a_second_is_the_mean_of_the_windows_that_show_it(
    result: Path, evaluated: Path, tmp_path: Path
) -> None:
    """Forty frames in five windows of eight: second 0 is window 0 and two frames of window 1."""
    out = tmp_path / "out.csv"
    predict(options(result, evaluated / "9.wav", out=out))
    rows = list(csv.DictReader(out.open()))
    assert [row["start_seconds"] for row in rows] == ["", "0", "1", "2", "3"]
    assert [row["end_seconds"] for row in rows] == ["4.000", "1.000", "2.000", "3.000", "4.000"]
    shard_set = open_shards(open_store(str(evaluated / "set")))
    row = shard_set.keys.to_pylist().index("9_wav")
    mel = ShardReader(shard_set).read(row, ("json", "mel.npy")).mel(0, 40)
    model = load(result / "test" / MODEL).model
    windows = torch.from_numpy(mel.astype(np.float32)).view(80, 5, 24).transpose(0, 1)
    with torch.no_grad():
        shares = model(None, windows).softmax(-1).numpy()
    by_frame = shares.repeat(8, axis=0)
    assert by_frame.std() > 1e-3  # or any order of windows would do
    for second in range(4):
        ours = [float(rows[1 + second][name]) for name in ("high", "low")]
        assert np.allclose(ours, by_frame[10 * second : 10 * second + 10].mean(0), atol=1e-5)


@pytest.mark.slow
def test_what_cannot_be_scored_is_told(result: Path, evaluated: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    outcome = predict(options(result, evaluated / "8.wav", broken))
    assert outcome.exit_code == 3
    assert any(line.startswith(f"{broken}: not scored: ") for line in outcome.lines)
    with pytest.raises(UsageError, match="there is no file"):
        predict(options(result, tmp_path / "nothing.wav"))


@pytest.mark.slow
def test_a_kept_model_is_found_read_and_refused(result: Path, tmp_path: Path) -> None:
    file = result / "test" / MODEL
    assert model_of(result, "") == model_of(result, "test") == model_of(file, "") == file
    kept = load(file)
    assert kept.classes == ("high", "low")
    assert kept.settings.frames == 8
    assert kept.shards["profile"] == "sound"
    with pytest.raises(UsageError, match="fine-tune first"):
        model_of(tmp_path / "nothing", "")
    with pytest.raises(UsageError, match="evaluations with --protocol finetune keep"):
        load(model_of(result, "fold9"))
    (tmp_path / MODEL).write_bytes(file.read_bytes()[:5000])
    with pytest.raises(TrainError, match="cannot be read"):
        load(tmp_path / MODEL)
    with pytest.raises(UsageError, match=r"ends with \.txt; expected"):
        options(result, tmp_path, out=tmp_path / "x.txt")


def test_models_of_an_earlier_result_are_not_taken(tmp_path: Path) -> None:
    """Folds that lie beside those of result.json are of another checkpoint."""
    for fold in ("fold1", "fold2"):
        (tmp_path / fold).mkdir()
        (tmp_path / fold / MODEL).write_bytes(b"")
    assert model_of(tmp_path, "") == tmp_path / "fold1" / MODEL
    names = ("task", "dataset", "protocol", "n_scored", "n_expected", "coverage", "checkpoint")
    facts = {**dict.fromkeys(names), "metrics": [], "rounds": [{"name": "fold2"}]}
    (tmp_path / "result.json").write_text(json.dumps(facts))
    assert model_of(tmp_path, "") == tmp_path / "fold2" / MODEL


@pytest.mark.slow
def test_nobody_has_to_keep_a_model(evaluated: Path) -> None:
    config = EvalConfig(
        task="classify", scratch=True, preset="nano", protocol="finetune", modality="A",
        pictures="none", shards=str(evaluated / "set"), run=str(evaluated / "run"), workers=0,
        device="cpu", epochs=1, frames=8, name="without", keep_model=False,
    )  # fmt: skip
    evaluate(config)
    assert not list((evaluated / "run" / "eval" / "without").rglob(MODEL))


def test_a_table_says_what_is_missing_and_shows_the_likeliest() -> None:
    kept: Any = SimpleNamespace(
        classes=("a", "b", "c", "d"), settings=Settings(modality="V+A"), output="classes"
    )
    said = Said(Path("x.mp4"), 1.5, False, True, [0.1, 0.2, 0.3, 0.4], [[0.7, 0.1, 0.1, 0.1]] * 2)
    assert lines_of(said, kept) == [
        "x.mp4, 1.5 s (no sound: scored with silence; no face: not what the task looks at)",
        "  video     d 0.400  c 0.300  b 0.200",
        "  0-1 s     a 0.700  d 0.100  c 0.100",
        "  1-1.5 s   a 0.700  d 0.100  c 0.100",
    ]
    kept.settings = Settings(modality="V")
    text = Said(Path("x.mp4"), 2.0, False, False, text="bin blue")
    assert lines_of(text, kept) == ["x.mp4, 2.0 s", "  text      bin blue"]


@pytest.mark.slow
def test_a_video_without_a_face_is_undecided_where_the_task_does_not_guess(
    tmp_path: Path, video: VideoMaker
) -> None:
    """A model of dfdc, not trained; a video in which there is no face."""
    torch.manual_seed(0)
    task, encoders = TASKS["dfdc"], from_scratch("glcm", "nano", 0)
    config = PROFILES["deepfake"].as_dict()
    job: Any = SimpleNamespace(
        config=SimpleNamespace(keep_model=True), folder=tmp_path, source=encoders, task=task,
        round=SimpleNamespace(name="test"), settings=task.settings, classes=("FAKE", "REAL"),
        labelled=SimpleNamespace(shard_set=SimpleNamespace(config=config)),
    )  # fmt: skip
    keep(job, Classifier(encoders, task.settings, 2))
    outcome = predict(PredictOptions((str(video("gray.mp4")),), tmp_path, device="cpu", workers=0))
    assert outcome.lines[1:] == [
        f"{tmp_path / 'gray.mp4'}, 3.0 s (no face: not what the task looks at)",
        "  video     FAKE 0.500  REAL 0.500",
    ]
