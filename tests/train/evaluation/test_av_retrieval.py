"""Sounds and pictures of different clips: who finds whom, and whose class."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.evaluation.conftest import NANO
from tests.train.evaluation.sets import Clip, labelled_set
from tests.train.toy import Toy, ToyConfig
from train.errors import TrainError, UsageError
from train.evaluation import driver
from train.evaluation.clips import ClipBatch, Look
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import Encoders
from train.evaluation.matching import KINDS, Embedded, auc_of_class, embed, match, ranks_of_own
from train.evaluation.result import Predictions
from train.methods.glcm import Glcm
from train.tasks import av_retrieval
from train.tasks.av_retrieval import measure, measured, windows


def test_ranks_are_those_of_a_loop_and_ties_are_misses() -> None:
    scores = np.random.default_rng(0).integers(0, 6, (30, 30)).astype(float)
    expected = [
        1 + sum(row[other] >= row[own] for other in range(30) if other != own)
        for own, row in enumerate(scores.tolist())
    ]
    assert ranks_of_own(scores).tolist() == expected
    assert ranks_of_own(np.zeros((5, 5))).tolist() == [5] * 5  # a collapsed model finds nothing


def test_class_auc_is_that_of_a_loop_over_pairs_of_other_clips() -> None:
    rng = np.random.default_rng(1)
    scores, classes = rng.normal(size=(25, 25)).round(1), rng.integers(-1, 4, 25)
    found = auc_of_class(scores, classes)
    for query in range(25):
        others = [n for n in range(25) if n != query and classes[n] >= 0]
        same = [scores[query, n] for n in others if classes[n] == classes[query]]
        rest = [scores[query, n] for n in others if classes[n] != classes[query]]
        wins = [(a > b) + (a == b) / 2 for a in same for b in rest]
        if classes[query] < 0:
            assert np.isnan(found[query])
        else:
            assert found[query] == pytest.approx(np.mean(wins))


def test_a_class_of_one_clip_and_a_single_class_say_nothing() -> None:
    scores = np.random.default_rng(2).normal(size=(3, 3))
    assert np.isnan(auc_of_class(scores, np.array([0, 0, 0]))).all()
    assert np.isfinite(auc_of_class(scores, np.array([0, 0, 1]))).tolist() == [True, True, False]


def test_who_knows_clips_and_who_knows_classes() -> None:
    """The own pair tells nothing of the class, and the class alone seldom finds the own pair."""
    classes = np.repeat(np.arange(5), 8)
    noise = np.random.default_rng(3).normal(size=(40, 40)) / 10
    numbers: dict[str, list[float]] = {}
    numbers |= measured("local", 9 * np.eye(40) + noise, classes)
    numbers |= measured("global", 9.0 * (classes[:, None] == classes) + noise, classes)
    names = [str(number) for number in range(40)]
    nothing: list[Any] = [None] * 40
    found = measure(Predictions(names, names, nothing, nothing, (), numbers=numbers))
    said = {score.name: score.value for score in found}
    assert found[0].name == "a2v_r1:local" and found[0].n == 40
    assert said["a2v_r1:local"] == said["v2a_r1:local"] == said["class_auc:global"] == 1
    assert said["class_auc:local"] == pytest.approx(0.5, abs=0.1)
    assert said["a2v_r10:global"] == 1 and said["a2v_r1:global"] < 0.4  # one of eight


def test_directions_are_told_apart() -> None:
    """One picture that all sounds like: sounds do not find their own, its sound does."""
    scores = np.eye(12)
    scores[:, 0] = 2
    numbers = dict(measured("local", scores, np.full(12, -1)))
    assert numbers["a2v_rank:local"] == [1] + [2] * 11
    assert numbers["v2a_rank:local"] == [12] + [1] * 11
    assert np.isnan(numbers["class_auc:local"]).all()


def encoders_of(**changes: Any) -> Encoders:
    torch.manual_seed(0)
    config = replace(NANO, **changes)
    return Encoders(Glcm(config).eval(), config, "glcm", "nano", None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoders": "l_only"},
        {"att_pool": "avg"},
        {"window_M": 7},
        {"multi_pair": "avg_single"},
    ],
)
def test_scores_are_those_of_the_method_pair_by_pair(changes: dict[str, Any]) -> None:
    """Also of more clips than are compared at once, in batches of another size.

    By the same three slices a frame, whatever the model's own windows are.
    """
    encoders, count = encoders_of(**changes), 19
    video = torch.randint(0, 255, (count, 8, 32, 32, 3), dtype=torch.uint8)
    sound = torch.randn(count, 80, 24).half()
    nothing = torch.zeros(0)
    batches = [
        ClipBatch(video[first : first + 18], sound[first : first + 18], nothing, nothing, nothing)
        for first in (0, 18)
    ]
    found = match(encoders, embed(encoders, batches, nullcontext()), torch.device("cpu"))
    model: Any = encoders_of(**{**changes, "window_M": 3, "multi_pair": "sum"}).module
    for heard, shown in ((0, 0), (3, 17), (18, 2), (18, 18)):
        one = ClipBatch(video[shown, None], sound[heard, None], nothing, nothing, nothing)
        clip = one.centred(NANO.crop)
        with torch.no_grad():
            (fg, fl), fa = model._look(clip.video), model.audio(clip.sound)
            audio, grid = model.embed_global(fg, fa)
            by_time = model.in_time(fl, fa, audio, grid)
            cells = torch.cosine_similarity(audio[0], grid[0], dim=-1)  # Eq. 1
            by_clip = torch.logsumexp(cells / encoders.config.temperature, dim=0)
        assert found["local"][heard, shown] == pytest.approx(float(by_time), abs=1e-4)
        assert found["global"][heard, shown] == pytest.approx(float(by_clip), abs=1e-4)


def test_bf16_changes_little() -> None:
    """As on a GPU: networks in bf16, comparisons in float32."""
    encoders = encoders_of()
    video = torch.randint(0, 255, (6, 8, 32, 32, 3), dtype=torch.uint8)
    clips = ClipBatch(video, torch.randn(6, 80, 24).half(), *[torch.zeros(0)] * 3)
    exact, rough = (
        match(encoders, embed(encoders, [clips], region), torch.device("cpu"))
        for region in (nullcontext(), torch.autocast("cpu", torch.bfloat16))
    )
    for kind in KINDS:
        assert rough[kind] == pytest.approx(exact[kind], abs=0.5)
        assert np.abs(rough[kind] - exact[kind]).max() > 0


def run(shards: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"task": "av_retrieval", "scratch": True, "preset": "nano",
                                "workers": 0, "shards": str(shards), "run": str(folder),
                                "device": "cpu", **changes}  # fmt: skip
    return driver.evaluate(EvalConfig(**settings))


def test_the_task_goes_through_without_training(tmp_path: Path) -> None:
    clips = [Clip(f"demo/{i}", i % 2, ("demo:val",), seconds=0.7 + i % 3) for i in range(12)]
    clips += [Clip("demo/t", splits=("demo:train",))]
    clips[3].facts["labels"] = [1, 0]
    clips[4].facts["labels"] = None
    shards = labelled_set(tmp_path / "demo-glcm", clips)
    result = run(shards, tmp_path / "run", clips=4)
    metrics = {metric["name"]: metric for metric in result["metrics"]}
    assert result["metric"]["name"] == "a2v_r1:local" and result["n_scored"] == 12
    assert {"a2v_r10:global", "v2a_r5:local"} <= metrics.keys()
    assert metrics["class_auc:global"]["n"] == metrics["class_auc:local"]["n"] == 11
    assert result["notes"][:3] == [
        "12 clips, windows of 0.8 s; chance: R@K K/12, class_auc 0.5",
        "4 clips are shorter than the window and repeated in it, pictures and sound alike, which "
        "may tell clips apart",
        "1 clips have several labels, of which class_auc takes the first",
    ]
    with pytest.raises(UsageError, match=r"1 clips in the split; expected 2 to 1,000"):
        run(shards, tmp_path / "run", split="train")
    with pytest.raises(UsageError, match="window by window"):
        run(shards, tmp_path / "run", crops=3)


def test_who_hears_the_class_finds_it_through_the_whole_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set's pictures and mel bands tell a clip's label: scores of their brightness find it."""

    def by_brightness(found: Encoders, windows: list[Embedded], device: torch.device) -> Any:
        sounds = torch.cat([one.audio for one in windows])[:, None]
        pictures = torch.cat([one.grid for one in windows])[None]
        return {kind: -(sounds - pictures).abs().numpy() for kind in KINDS}

    def brightness(found: Encoders, batches: Any, region: Any) -> list[Embedded]:
        nothing = torch.zeros(1)
        return [
            Embedded(nothing, nothing, (one.sound.float().mean(2).argmax(1) >= 20).double(),
                     (one.video.float().mean((1, 2, 3, 4)) > 70).double())
            for one in batches
        ]  # fmt: skip

    monkeypatch.setattr(av_retrieval, "embed", brightness)
    monkeypatch.setattr(av_retrieval, "match", by_brightness)
    clips = [Clip(f"demo/{i}", i * i % 7 % 2, ("demo:val",)) for i in range(11)]
    result = run(labelled_set(tmp_path / "demo-glcm", clips), tmp_path / "run")
    metrics = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert metrics["class_auc:global"] == 1
    assert metrics["a2v_r1:global"] == 0  # others of the class tie


def test_methods_without_such_scores_are_refused() -> None:
    toy = Encoders(Toy(ToyConfig()), ToyConfig(), "toy", "toy", None)
    with pytest.raises(UsageError, match="the method toy does not say how well"):
        embed(toy, [], nullcontext())
    module: Any = SimpleNamespace(in_time=0, embed_global=0, feature_channels={"fl": 8})
    other = Encoders(module, ToyConfig(), "other", "toy", None)
    with pytest.raises(UsageError, match="the method other has no scores of clips, `loss_g` and"):
        embed(other, [], nullcontext())


def test_clips_with_fewer_windows_give_their_last_one_again() -> None:
    looks = [Look(0, 0, 8, 0.5), Look(1, 0, 8, 0.5), Look(1, 4, 8, 0.5), Look(2, 3, 8, 0.5)]
    found = [[(look.example, look.start) for look in one] for one in windows(looks, 3)]
    assert found == [[(0, 0), (1, 0), (2, 3)], [(0, 0), (1, 4), (2, 3)], [(0, 0), (1, 4), (2, 3)]]


def test_a_model_that_diverged_is_refused() -> None:
    encoders = encoders_of()
    module: Any = encoders.module
    module.project_vl.weight.data.fill_(torch.nan)
    video, sound = torch.zeros(2, 8, 32, 32, 3, dtype=torch.uint8), torch.zeros(2, 80, 24).half()
    clips = ClipBatch(video, sound, *[torch.zeros(0)] * 3)
    with pytest.raises(TrainError, match="the score local is not finite for some clips"):
        match(encoders, embed(encoders, [clips], nullcontext()), torch.device("cpu"))
