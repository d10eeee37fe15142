"""Boxes and maps drawn by hand, and boxes counted pixel by pixel."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline import format as shard_format
from train.augment import centre
from train.batch import Batch
from train.boxes import boxes_in_crop, centre_map, covered, mass_ratio
from train.read import StoredClip, Window, _square


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
