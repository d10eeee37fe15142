"""The attention measurement against maps drawn by hand and boxes counted pixel by pixel."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import format as shard_format
from tests.train.ramps import mixture_of, ramp, ramp_set_of
from tests.train.runs import toy
from train.attention_mass import (
    MAPS,
    AttentionOptions,
    Seen,
    _caption,
    attention_of,
    clip_ratios,
    how_to_read,
    interval,
    measure,
    spread,
    told,
    write,
)
from train.augment import centre
from train.batch import Batch
from train.boxes import boxes_in_crop, centre_map, covered, mass_ratio
from train.errors import UsageError
from train.methods import preset_named
from train.methods.glcm import Glcm
from train.pretrain import pretrain
from train.read import StoredClip, Window, _square
from train.strangers import elsewhere, source_of, strangers


def by_pixels(boxes: Any, side: int, fine: int = 40) -> Any:
    """Coverage by sampling each cell on a fine grid of points."""
    count = np.zeros((side * fine, side * fine))
    points = (np.arange(side * fine) + 0.5) / (side * fine)
    for x0, y0, x1, y1 in boxes:
        inside_y, inside_x = (points > y0) & (points < y1), (points > x0) & (points < x1)
        count += np.outer(inside_y, inside_x)
    cells = count.reshape(side, fine, side, fine).mean(axis=(1, 3))
    return cells / len(boxes)


def test_coverage_equals_counting_points():
    boxes = np.array([[0.1, 0.2, 0.55, 0.9], [0.5, -0.3, 1.4, 0.35], [-1, -1, 0.2, 0.1]])
    assert np.allclose(covered(boxes, 4), by_pixels(boxes, 4), atol=0.02)


def test_frames_without_a_box_do_not_count():
    box, none = [0.0, 0.0, 0.5, 0.5], [np.nan] * 4
    expected = [[1, 0], [0, 0]]
    assert covered(np.array([box, none]), 2).tolist() == expected
    assert not covered(np.array([none, none]), 2).any()
    assert not covered(np.array([[1.2, 0.0, 1.5, 1.0]]), 2).any()


def test_ratio_of_maps_drawn_by_hand():
    cover = covered(np.array([[0.0, 0.0, 0.5, 0.5]]), 4)  # the four cells at the top left
    inside, outside, half = np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 4))
    inside[1, 1] = outside[0, 2] = 1
    half[0, 0] = half[3, 3] = 0.5
    assert mass_ratio(np.full((4, 4), 1 / 16), cover) == pytest.approx(1)
    assert mass_ratio(inside, cover) == 4
    assert mass_ratio(outside, cover) == 0
    assert mass_ratio(half, cover) == 2
    assert np.isnan(mass_ratio(half, np.zeros((4, 4))))


def test_ratio_knows_rows_from_columns():
    right = covered(np.array([[0.5, 0.0, 1.0, 1.0]]), 2)
    assert mass_ratio(np.array([[0.0, 1.0], [0.0, 0.0]]), right) == 2
    assert mass_ratio(np.array([[0.0, 0.0], [1.0, 0.0]]), right) == 0


def test_centre_map_is_symmetric_and_highest_in_the_middle():
    found = centre_map(5)
    assert found.sum() == pytest.approx(1) and found.argmax() == 12
    assert np.allclose(found, found.T) and np.allclose(found, found[::-1])
    # One sigma from the middle the density is exp(-1/2) of the middle's.
    assert centre_map(8)[2, 4] / centre_map(8)[4, 4] == pytest.approx(
        np.exp(-0.5 * ((1.5 / 8 / 0.25) ** 2 - (0.5 / 8 / 0.25) ** 2))
    )


@pytest.mark.parametrize(("width", "height"), [(320, 160), (160, 320), (160, 160)])
def test_a_box_falls_on_what_it_marks(width: int, height: int):
    """A lit rectangle goes the loader's and the augmentation's way; the box must follow it."""
    box = [width / 2 - 40, height / 2 - 60, width / 2 - 10, height / 2 + 20]
    stored = np.zeros((height // 2, width // 2, 3), np.uint8)  # half of the source's size
    x0, y0, x1, y1 = (int(v / 2) for v in box)
    stored[y0:y1, x0:x1] = 255
    square = _square(stored, 80, 0.5)
    batch = Batch(
        torch.from_numpy(square[None, None].copy()),
        torch.zeros(1, 80, 3),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        ("a",),
    )
    seen = centre(batch, 70).video[0, 0, 0].numpy()
    meta = {
        "source": {"width": width, "height": height},
        "truth": {"boxes": [[0.0, *box]]},
        "pts": [0.04],
        "window_start": 0.0,
    }
    (found,) = boxes_in_crop(StoredClip(meta, {}), Window(0, 1, 0.5), "truth")
    rows, columns = np.nonzero(seen > seen.mean())
    expected = [
        columns.min() / 70,
        rows.min() / 70,
        (columns.max() + 1) / 70,
        (rows.max() + 1) / 70,
    ]
    assert found == pytest.approx(expected, abs=1.01 / 70)


def test_truth_is_taken_when_the_picture_was_shown():
    """Written down every 0.1 s from the window's start, which is 1.44 s on the file's clock."""
    boxes = [[0.1 * k, k, k, k + 1, k + 1] for k in range(20)]
    meta = {
        "source": {"width": 8, "height": 8},
        "truth": {"boxes": boxes},
        "pts": [1.5, 1.6, 1.7, 1.815, 1.94],
        "t0": 1.5,
        "window_start": 1.44,
    }
    found = boxes_in_crop(StoredClip(meta, {}), Window(3, 2, 0.5), "truth")
    assert (found[:, 0] * 7 + 0.5).tolist() == pytest.approx([3.75, 5])


def test_faces_are_taken_frame_by_frame():
    faces = [{"box": [None, [0, 0, 8, 8], [1, 1, 3, 3]]}]
    meta = {"source": {"width": 8, "height": 8}, "faces": faces}
    found = boxes_in_crop(StoredClip(meta, {}), Window(1, 2, 0.5), "face")
    assert (found * 7 + 0.5).tolist() == [[0, 0, 8, 8], [1, 1, 3, 3]]
    none = boxes_in_crop(StoredClip({**meta, "faces": []}, {}), Window(0, 2, 0.5), "face")
    assert np.isnan(none).all()


def test_mouths_are_taken_from_the_lips_alone():
    points = np.full((4, 68, 2), 7.0, np.float32)  # a chin far away
    points[2, 48:68] = np.stack([np.linspace(1, 3, 20), np.linspace(4, 5, 20)], axis=1)
    points[3] = np.nan
    meta = {"source": {"width": 8, "height": 8}}
    stored = StoredClip(meta, {"landmarks.npy": shard_format.encode_npy(points)})
    found = boxes_in_crop(stored, Window(2, 2, 0.5), "mouth")
    assert (found[0] * 7 + 0.5).tolist() == pytest.approx([1, 4, 3, 5])
    assert np.isnan(found[1]).all()
    untracked = StoredClip(meta, {"landmarks.npy": shard_format.encode_npy(points[:0])})
    for clip in (untracked, StoredClip(meta, {})):
        assert np.isnan(boxes_in_crop(clip, Window(0, 2, 0.5), "mouth")).all()


def test_windows_are_spread_evenly():
    assert spread(94, 1) == [47]
    assert spread(90, 2) == [30, 60]
    assert spread(0, 3) == [0, 0, 0]


def test_interval_holds_the_mean_and_shrinks_with_clips():
    random = np.random.default_rng(1)
    few, many = (interval(2 + random.standard_normal(count)) for count in (10, 1000))
    assert few.low < few.mean < few.high
    # Of 1000 normal values: mean +- 1.96 / sqrt(1000).
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.1)
    same = interval(np.full(5, 1.5))
    assert (same.mean, same.low, same.high, same.clips) == (1.5, 1.5, 1.5, 5)


def test_a_clip_counts_once_however_many_windows_it_has():
    left = np.array([[0.0, 0.0, 0.5, 1.0]])
    inside, outside = np.array([[1.0, 0], [0, 0]]), np.array([[0, 1.0], [0, 0]])
    seen = [
        Seen(key, "x", boxes, dict.fromkeys(MAPS, att))
        for key, boxes, att in [
            ("a", left, inside),
            ("a", left, outside),
            ("b", left, inside),
            ("c", left * np.nan, inside),
        ]
    ]
    found = clip_ratios(seen)
    assert {key: one["learned"] for key, one in found.items()} == {"a": 1, "b": 2}


def test_maps_with_foreign_sound_are_those_of_a_clip_that_has_it():
    torch.manual_seed(0)
    config = replace(preset_named("glcm", "tiny"), frames=8, n_slow=2, crop=32, width=8)
    model = Glcm(config).eval()
    video, mel, sounds = torch.randn(3, 3, 8, 32, 32), *torch.randn(2, 3, 80, 24)
    numbers = torch.arange(3)
    batch = Batch(video, mel, numbers, numbers, ("a", "b", "c"))
    own, foreign = attention_of(model, batch, sounds)
    for clip in range(3):
        for sound, found in ((mel, own), (sounds, foreign)):
            alone = Batch(video[[clip]], sound[[clip]], numbers[:1], numbers[:1], ("x",))
            assert attention_of(model, alone, None)[0][0] == pytest.approx(found[clip], abs=1e-5)
    assert np.isnan(attention_of(model, batch, None)[1]).all()


def test_keys_of_windows_are_those_of_their_file():
    assert source_of("folder/cats/tom-00010000") == "folder/cats/tom"
    assert source_of("folder/cats/tom-123456789") == "folder/cats/tom"
    assert source_of("demo/head/010") == "demo/head/010"
    assert source_of("folder/cats/tom-2024") == "folder/cats/tom-2024"


@pytest.mark.parametrize("names", ["ab", "aab", "abab", "aaaab", "aabbcc", "cabbage", "ba" * 9])
def test_everyone_has_a_stranger(names: str):
    found = elsewhere(list(names))
    assert all(names[other] != names[one] for one, other in enumerate(found))
    for name in set(names):  # and not all of them the same one
        same = [other for one, other in enumerate(found) if names[one] == name]
        assert len(set(same)) == min(len(same), len(names) - len(same))


def grouped(folder: Path, facts: list[tuple[str, str]]) -> Any:
    """The part of a set of (key, group)."""
    clips = []
    for number, (key, group) in enumerate(facts):
        members = ramp(key, number, 12)
        meta = {**json.loads(members["json"]), "group": group}
        clips.append({**members, "json": shard_format.encode_json(meta)})
    return mixture_of(str(ramp_set_of(folder / "demo-glcm", [clips]))).parts[0]


@pytest.mark.parametrize(
    ("facts", "expected", "said"),
    [
        ([("d/a", "eve"), ("d/b", "eve"), ("d/c", "bob")], {0: {2}, 1: {2}, 2: {0, 1}}, "group"),
        ([("d/a-00000000", "s1"), ("d/a-00001000", "s1"), ("d/b", "s1")],
         {0: {2}, 1: {2}, 2: {0, 1}}, "source file of the same group"),
        ([("d/a-00000000", "d:a"), ("d/a-00001000", "d:a")], {}, "nowhere"),
    ],
)  # fmt: skip
def test_foreign_sound_is_of_another_group_or_source(
    tmp_path: Path, facts: Any, expected: Any, said: str
):
    part = grouped(tmp_path, facts)
    found, where = strangers(part.shard_set, part.rows.tolist())
    assert said in where
    assert found.keys() == expected.keys()
    assert all(found[row] in may for row, may in expected.items())


# --- the whole command --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(ten: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = replace(preset_named("glcm", "tiny"), frames=8, n_slow=2, crop=32, width=8)
    run = tmp_path_factory.mktemp("runs") / "glcm"
    pretrain(replace(toy(ten, run, max_steps=1), method="glcm", model=model))
    return run


def with_boxes(folder: Path) -> Path:
    """Five clips of the ramp corpus, four with a box over the left half of the picture."""
    clips = [ramp(f"demo/clip{number:03d}", number, 30) for number in range(5)]
    for members in clips[:4]:
        meta = json.loads(members["json"])
        width, height = meta["source"]["width"], meta["source"]["height"]
        meta["truth"] = {"boxes": [[0.0, 0.0, 0.0, width / 2, height]]}
        members["json"] = shard_format.encode_json(meta)
    return ramp_set_of(folder / "demo-glcm", [clips])


def test_the_command_measures_a_run(trained: Path, tmp_path: Path):
    shards = with_boxes(tmp_path)
    options = AttentionOptions(trained, str(shards), split="train", windows=2)
    result = measure(options)
    write(result)
    assert result["learned"]["clips"] == 4 and result["without_box"] == 1 and result["step"] == 1
    assert result["learned"]["low"] <= result["learned"]["mean"] <= result["learned"]["high"]
    assert Path(result["picture"]).read_bytes().startswith(b"\x89PNG")
    stored = json.loads(Path(result["picture"]).with_suffix(".json").read_text())
    assert stored == result
    assert "foreign sound is from nowhere" not in told(result) and "4 clips" in told(result)
    assert "foreign_sound" in result


def test_how_to_read_it_depends_on_the_baselines():
    def said(learned: float, foreign: float, centre: float) -> str:
        numbers = {"learned": learned, "foreign_sound": foreign, "centre": centre}
        parts = {name: {"mean": x, "low": x - 0.1, "high": x + 0.1} for name, x in numbers.items()}
        return how_to_read({**parts, "step": 200, "split": "train"})

    assert "knows no more than 'look at the middle'" in said(1.2, 1.0, 1.4)
    assert "about as good with foreign sound (1.80)" in said(1.8, 1.8, 1.4)
    assert "it lies on what sounds" in said(2.5, 1.8, 1.4)
    assert "after step 200, on split train" in said(2.5, 1.8, 1.4)


def test_a_caption_tells_its_window_and_the_clips_mean():
    """Its numbers are those of the table, however its one window turned out."""
    left = np.array([[0.0, 0.0, 0.5, 1.0]])
    inside = np.array([[1.0, 0], [0, 0]])
    seen = Seen("a", "x", left, dict.fromkeys(MAPS, inside), 1.25)
    assert _caption(seen, {"a": 1.1}, 4) == "a, window at 1.2 s\n2.00; mean of its 4 windows 1.10"
    assert _caption(replace(seen, boxes=left * np.nan), {}, 4) == "a, window at 1.2 s\nno box"


def test_shards_without_boxes_are_refused(trained: Path, ten: Path):
    with pytest.raises(UsageError, match="no clip of split train has a box"):
        measure(AttentionOptions(trained, str(ten), split="train"))


def test_ranges_are_checked():
    with pytest.raises(UsageError, match="windows is 0"):
        AttentionOptions(Path("x"), "y", windows=0)
    with pytest.raises(UsageError, match="boxes is 'nose'"):
        AttentionOptions(Path("x"), "y", boxes="nose")  # type: ignore[arg-type]
