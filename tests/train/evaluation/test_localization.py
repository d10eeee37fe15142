"""Attention maps against boxes: each measure against loops over pixels, and the whole task."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import format as shard_format
from tests.pipeline.fabricate import Members
from tests.train.evaluation.conftest import NANO
from tests.train.evaluation.sets import CONFIG, Clip, labelled_set
from tests.train.toy import Toy, ToyConfig
from train.errors import UsageError
from train.evaluation import driver
from train.evaluation.clips import Look
from train.evaluation.config import EvalConfig
from train.evaluation.encoders import Encoders
from train.evaluation.job import Job
from train.evaluation.labelled import Example
from train.evaluation.maps import (
    MEASURES,
    area_of,
    attention_maps,
    entropy_share,
    hits,
    ious,
    require_attention,
    resized,
)
from train.evaluation.result import Predictions
from train.livepage import REPORT, LivePage
from train.methods.glcm import Glcm
from train.tasks.localization import ENTROPY, elsewhere, how_to_read, measure


def peak(row: int, column: int, side: int = 8) -> Any:
    att = np.full((side, side), 0.5 / side**2)
    att[row, column] += 0.5
    return att / att.sum()


def test_the_peak_is_in_a_box_or_not() -> None:
    """Of the highest of 8 x 8 cells the part inside the box, mean over frames."""

    def pointing(att: Any, *boxes: list[float]) -> float:
        return hits(att, np.array(boxes), 16)["pointing_game"]

    right, left, whole = [0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]
    assert pointing(peak(1, 6), right, left, whole) == pytest.approx(2 / 3)
    assert pointing(peak(6, 1), right) == 0 and pointing(peak(6, 1), left) == 1
    # The cell at row 3, column 4 is 0.5 to 0.625 across and 0.375 to 0.5 down.
    assert pointing(peak(3, 4), [0.5625, 0.375, 0.6, 0.5]) == pytest.approx(0.0375 / 0.125)


def test_random_peaks_hit_as_often_as_the_box_is_large() -> None:
    box = np.array([[0.31, 0.22, 0.78, 0.49]])
    found = [hits(peak(row, column), box, 16)["pointing_game"] for row in range(8)
             for column in range(8)]  # fmt: skip
    assert np.mean(found) == pytest.approx(area_of(box)) == pytest.approx(0.47 * 0.27)


def by_pixels(marked: Any, box: Any) -> float:
    """IoU of a set of pixels and a box."""
    side = len(marked)
    x0, y0, x1, y1 = (int(edge * side) for edge in box)
    both = either = 0
    for row in range(side):
        for column in range(side):
            inside = y0 <= row < y1 and x0 <= column < x1
            both += bool(marked[row, column]) and inside
            either += bool(marked[row, column]) or inside
    return both / either


def test_iou_equals_counting_pixels() -> None:
    rng = np.random.default_rng(0)
    marked = rng.random((16, 16)) > 0.6
    boxes = np.array([[0.1, 0.2, 0.7, 0.9], [0.5, 0.5, 1.0, 0.75], [0.0, 0.0, 1.0, 1.0]])
    expected = [by_pixels(marked, box) for box in boxes]
    assert ious(marked, boxes).tolist() == pytest.approx(expected)


def published(att: Any, boxes: Any, side: int) -> tuple[float, float]:
    """CIoU and its AUC as the code of VGG-SS computes them, a frame as an image."""
    fine = resized(att, side)
    pred = (fine - fine.min()) / (fine.max() - fine.min())
    threshold = np.sort(pred.flatten())[int(side * side / 2)]
    marked = pred > threshold
    iou = [by_pixels(marked, box) for box in boxes]
    results = [np.sum(np.array(iou) >= 0.05 * i) / len(iou) for i in range(21)]
    x = [0.05 * i for i in range(21)]
    area = sum((results[i] + results[i + 1]) / 2 * (x[i + 1] - x[i]) for i in range(20))
    return float(np.mean(np.array(iou) >= 0.5)), float(area)


def test_measures_are_those_of_the_published_code() -> None:
    rng = np.random.default_rng(1)
    smooth = np.exp(-((np.arange(8)[:, None] - 2) ** 2 + (np.arange(8) - 5) ** 2) / 8)
    att = smooth + 0.01 * rng.random((8, 8))
    att /= att.sum()
    boxes = np.array([[0.3, 0.0, 1.0, 0.7], [0.4, 0.1, 0.9, 0.6], [0.0, 0.5, 0.5, 1.0]])
    found = hits(att, boxes, 32)
    assert (found["ciou@0.5"], found["ciou_auc"]) == pytest.approx(published(att, boxes, 32))
    assert 0 < found["ciou@0.5"] < 1
    half = resized(att, 32) >= att_max(att) / 2
    assert found["iou"] == pytest.approx(np.mean([by_pixels(half, box) for box in boxes]))
    assert found["pointing_game"] == pytest.approx(2 / 3)  # the cell at row 2, column 5


def att_max(att: Any) -> float:
    return float(resized(att, 32).max())


def test_frames_without_a_box_in_the_picture_do_not_count() -> None:
    box, outside, none = [0.0, 0.0, 0.5, 0.5], [1.2, 0.0, 1.5, 1.0], [np.nan] * 4
    alone, among = (hits(peak(1, 1), np.array(b), 16) for b in ([box], [box, outside, none]))
    for name in MEASURES[:4]:
        assert among[name] == alone[name]
    assert among["pointing_game"] == 1 and area_of(np.array([box, outside, none])) == 0.25
    empty = hits(peak(1, 1), np.array([none, outside]), 16)
    assert all(np.isnan(value) for value in empty.values())
    assert np.isnan(area_of(np.array([none])))


def test_entropy_of_flat_and_peaked_maps() -> None:
    assert entropy_share(np.full((4, 4), 1 / 16)) == pytest.approx(1)
    single = np.zeros((4, 4))
    single[0, 0] = 1
    assert entropy_share(single) == 0


def test_maps_with_foreign_sound_are_those_of_a_clip_that_has_it() -> None:
    torch.manual_seed(0)
    encoders = Encoders(Glcm(NANO).eval(), NANO, "glcm", "nano", None)
    video, sounds = torch.randn(3, 3, 8, 28, 28), torch.randn(3, 3, 80, 24)
    own, *foreign = attention_maps(encoders, video, sounds[0], list(sounds[1:]))
    for clip in range(3):
        for sound, found in zip(sounds, (own, *foreign), strict=True):
            (alone,) = attention_maps(encoders, video[[clip]], sound[[clip]])
            assert alone[0] == pytest.approx(found[clip], abs=1e-5)
    assert len(foreign) == 2 and not any(np.allclose(own, other) for other in foreign)


def test_methods_without_a_map_are_refused() -> None:
    with pytest.raises(UsageError, match="the method toy has no attention map"):
        require_attention(Encoders(Toy(ToyConfig()), ToyConfig(), "toy", "toy", None))


def test_foreign_windows_lie_where_the_own_ones_do() -> None:
    clips = [Example("a", 0, None, "a", 0, 110), Example("b", 1, None, "b", 0, 50),
             Example("c", 2, None, "c", 0, 8)]  # fmt: skip
    job = object.__new__(Job)
    object.__setattr__(job, "test", clips)
    assert elsewhere(job, Look(0, 50, 10, 0.5), 1) == Look(1, 20, 10, 0.5)
    assert elsewhere(job, Look(0, 100, 10, 0.5), 1) == Look(1, 40, 10, 0.5)
    assert elsewhere(job, Look(0, 50, 10, 0.5), 2) == Look(2, 0, 10, 0.5)
    assert elsewhere(job, Look(2, 0, 10, 0.5), 0) == Look(0, 0, 10, 0.5)


def test_how_to_read_it_depends_on_the_baselines() -> None:
    def said(learned: float, foreign: float, centre: float, **more: float) -> str:
        numbers = {"": learned, ":foreign_sound": foreign, ":centre": centre}
        numbers |= {f":{name}": x for name, x in more.items()}
        spread = np.array([-0.1, 0, 0.1] * 10)
        return how_to_read({f"mass_ratio{name}": x + spread for name, x in numbers.items()})

    assert "knows no more than 'look at the middle'" in said(1.4, 1.0, 1.4)
    assert "about as good with foreign sound (1.80)" in said(1.8, 1.8, 1.4)
    assert "it lies on what sounds" in said(2.5, 1.8, 1.4)
    assert "below :centre (1.40): it lies elsewhere" in said(0.8, 0.8, 1.4)
    assert "as good with sound of another class (1.90)" in said(1.9, 1.8, 1.4, other_class=1.9)
    assert "it lies on what sounds" in said(1.9, 1.9, 1.4, other_class=1.5), "of its own class"


# --- the whole task -----------------------------------------------------------------------------


def boxed(one: Clip, members: Members) -> Members:
    """A box over the left half of the picture, of all clips but the last."""
    meta = json.loads(members["json"])
    width, height = meta["source"]["width"], meta["source"]["height"]
    if one.key != "demo/4":
        meta["truth"] = {"boxes": [[0.0, 0.0, 0.0, width / 2, height]]}
    return {**members, "json": shard_format.encode_json(meta)}


def clips() -> list[Clip]:
    facts = {"label_names": ["bell"]}
    return [
        Clip(f"demo/{i}", splits=(f"demo:{'val' if i < 5 else 'train'}",), seconds=2, facts=facts)
        for i in range(7)
    ]


def run(shards: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"task": "localization", "scratch": True, "preset": "nano",
                                "workers": 0, "shards": str(shards), "run": str(folder),
                                "device": "cpu", "clips": 2, **changes}  # fmt: skip
    return driver.evaluate(EvalConfig(**settings))


def test_the_task_measures_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = labelled_set(tmp_path / "demo-glcm", clips(), edit=boxed)
    written = []
    monkeypatch.setattr(LivePage, "write", lambda self: written.append(self.folder))
    result = run(shards, tmp_path / "run")
    found = {metric["name"]: metric for metric in result["metrics"]}
    assert result["metric"]["name"] == "pointing_game" and found["mass_ratio"]["n"] == 4
    assert found["mass_ratio"]["unit"] == "ratio"
    for name in MEASURES:
        for ending in ("", ":foreign_sound", ":centre"):
            assert found[name + ending]["value"] >= 0
    # Of the middle square of a picture of 4 x 3, and 7/8 of that, the left half.
    assert found["pointing_game:chance"]["value"] == pytest.approx(0.5)
    assert "1 clips without a box in the picture are left out" in result["notes"]
    assert not written
    folder = tmp_path / "run/eval/localization"
    assert (folder / "attention-val.png").read_bytes().startswith(b"\x89PNG")
    with Image.open(folder / "attention-val.webp") as film:
        assert film.format == "WEBP"
    stored = Predictions.read(folder / "val/predictions.parquet")
    assert np.isnan(stored.numbers["mass_ratio"][4]) and len(stored.names) == 5
    values = stored.numbers["pointing_game"][:4]
    assert found["pointing_game"]["value"] == pytest.approx(np.mean(values))
    assert [score.as_json() for score in measure(stored)] == result["metrics"]
    (tmp_path / "run" / REPORT).write_text("a page")
    run(shards, tmp_path / "run", split="train", overwrite=True)
    assert written == [tmp_path / "run"]
    assert (tmp_path / "run/eval/localization-train/attention-train.png").is_file()


def test_a_clip_counts_once_with_the_mean_of_its_windows(tmp_path: Path) -> None:
    """The numbers of each clip are those of its windows, looked at alone."""
    shards = labelled_set(tmp_path / "demo-glcm", clips(), edit=boxed)
    run(shards, tmp_path / "run")
    run(shards, tmp_path / "first", clips=1)
    both, middle = (
        Predictions.read(tmp_path / name / "eval/localization/val/predictions.parquet").numbers
        for name in ("run", "first")
    )
    assert both["mass_ratio"][:4] != middle["mass_ratio"][:4]
    assert both["mass_ratio:centre"][:4] == pytest.approx(middle["mass_ratio:centre"][:4])


def test_sound_of_another_class_is_a_control_of_its_own(tmp_path: Path) -> None:
    """Where classes are known; whatever name comes next may be of the same one."""
    kinds = [replace(clip, facts={"label_names": [("bell", "dog")[place == 2]]})
             for place, clip in enumerate(clips())]  # fmt: skip
    found = {}
    for name, of in (("one", clips()), ("two", kinds)):
        shards = labelled_set(tmp_path / name / "demo-glcm", of, edit=boxed)
        found[name] = {m["name"]: m["value"] for m in run(shards, tmp_path / name)["metrics"]}
    named = {f"{name}:other_class" for name in MEASURES}
    assert not named & found["one"].keys() and named <= found["two"].keys()
    same = found["one"].keys()
    assert {name: found["two"][name] for name in same} == pytest.approx(found["one"])


def test_without_boxes_there_is_the_overlay_alone(tmp_path: Path) -> None:
    shards = labelled_set(tmp_path / "demo-glcm", clips())
    result = run(shards, tmp_path / "run")
    assert [metric["name"] for metric in result["metrics"]] == [ENTROPY]
    assert 0 < result["metric"]["value"] <= 1
    assert any("no clip has a box (truth)" in note for note in result["notes"])
    assert (tmp_path / "run/eval/localization/attention-val.png").is_file()


def test_faces_are_boxes_too(tmp_path: Path) -> None:
    config = replace(CONFIG, faces="on")
    shards = labelled_set(tmp_path / "demo-glcm", clips(), config)
    for which in ("face", "mouth"):
        result = run(shards, tmp_path / "run", boxes=which)
        assert result["metric"]["name"] == "pointing_game"
        assert (tmp_path / f"run/eval/localization-{which}/result.json").is_file()
    with pytest.raises(UsageError, match="boxes is 'nose'"):
        run(shards, tmp_path / "run", boxes="nose")


def test_pictures_of_faces_are_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, faces="on")
    shards = labelled_set(tmp_path / "demo-glcm", clips(), config)
    with pytest.raises(UsageError, match="boxes are places in whole frames"):
        run(shards, tmp_path / "run", pictures="face")


def test_sets_of_a_trained_task_have_no_other_split(tmp_path: Path) -> None:
    shards = labelled_set(tmp_path / "esc10-sound", clips())
    with pytest.raises(UsageError, match="--split val: task esc10 learns from some splits"):
        run(shards, tmp_path / "run", task="esc10", split="val")
