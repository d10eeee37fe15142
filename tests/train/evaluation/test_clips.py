"""Which windows of an example are read, and that they are what the sample holds there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import format as shard_format
from stores.local import LocalStore
from tests.pipeline.fabricate import Members, edit_json
from tests.train.evaluation.sets import CONFIG, FACES, Clip, labelled_set
from tests.train.ramps import GRAY_STEP, ramp, ramp_set_of
from train.augment import Augment, AugmentConfig
from train.errors import ShardError, UsageError
from train.evaluation.clips import (
    ClipBatch,
    ClipView,
    Look,
    batched,
    read_clips,
    scored_looks,
    starts,
    training_looks,
)
from train.evaluation.labelled import Example, few_of_each, held_out_groups, open_labelled


def example(row: int, frames: int, start: int = 0, group: str = "g") -> Example:
    return Example(f"clip{row}", row, 0, group, start, frames)


# --- which windows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "frames", "clips", "expected"),
    [
        (100, 32, 1, [34]),
        (100, 32, 3, [0, 34, 68]),
        (32, 32, 10, [0]),
        (10, 32, 10, [0]),  # shorter than its window: once
        (90, 30, 0, [0, 30, 60]),  # tiles
        (100, 30, 0, [0, 30, 60]),  # the rest fills none
        (20, 30, 0, [0]),
        (34, 32, 10, [0, 1, 2]),  # never the same twice
    ],
)
def test_starts(length: int, frames: int, clips: int, expected: list[int]) -> None:
    assert starts(length, frames, clips) == expected


def test_three_crops_of_each_window() -> None:
    looks = scored_looks([example(0, 20), example(1, 10)], 8, 2, 3)
    assert [(look.example, look.start, look.shift) for look in looks] == [
        (number, start, shift)
        for number, last in ((0, 12), (1, 2))
        for start in (0, last)
        for shift in (0.0, 0.5, 1.0)
    ]


def test_training_windows_depend_on_seed_epoch_and_name_alone() -> None:
    some = [example(row, 50) for row in range(40)]
    first, again, next_epoch = (training_looks(some, 8, 3, epoch) for epoch in (0, 0, 1))
    assert first == again != next_epoch
    assert sorted(look.example for look in first) == list(range(40))
    assert all(0 <= look.start <= 42 for look in first)
    assert len({look.start for look in first}) > 20
    by_name = {some[look.example].name: look.start for look in first}
    fewer = training_looks(some[:7], 8, 3, 0)
    assert all(by_name[some[look.example].name] == look.start for look in fewer)


def test_windows_of_one_length_share_a_batch() -> None:
    looks = [Look(i, 0, frames, 0.5) for i, frames in enumerate((8, 8, 8, 5, 5, 8))]
    sizes = [[look.frames for look in batch] for batch in batched(looks, 2, equal=True)]
    assert sizes == [[8, 8], [8], [5, 5], [8]]
    assert [len(batch) for batch in batched(looks, 4, equal=False)] == [4, 2]


def test_whole_groups_are_held_out() -> None:
    some = [example(i, 10, group=f"speaker{i % 10}") for i in range(100)]
    kept, held = held_out_groups(some, 0.2, seed=1)
    assert len(held) == 20
    assert len(kept) == 80
    assert not {e.group for e in kept} & {e.group for e in held}
    assert held_out_groups(some[:1], 0.5, 0) == (some[:1], [])  # one group stays whole
    others = {held_out_groups(some, 0.2, seed)[1][0].group for seed in range(9)}
    assert len(others) > 1


def test_few_of_each_class_are_drawn_by_the_seed_and_nested() -> None:
    some = [Example(f"k{n:02d}", n, n % 3, "", 0, 1) for n in range(20)]
    one, two, many = (few_of_each(some, count, seed=1) for count in (1, 2, 50))
    assert sorted(example.target for example in one) == [0, 1, 2]
    assert sorted(example.target for example in two) == [0, 0, 1, 1, 2, 2]
    assert set(one) < set(two) and many == some
    assert two == sorted(two, key=some.index), "in the order in which they were"
    assert few_of_each(some[::-1], 1, seed=1) == one[::-1], "whatever the order was"
    assert len({tuple(few_of_each(some, 1, seed)) for seed in range(9)}) > 3
    words = [Example("k", 0, "bin blue", "", 0, 1)]
    with pytest.raises(UsageError, match="--labels 5 counts examples of a class, but k has no"):
        few_of_each(words, 5, seed=0)


# --- what they hold -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame k has gray GRAY_STEP k, mel slice s the value s."""
    contents = [[ramp("demo/long", 0, 40), ramp("demo/short", 1, 6)]]
    folder = ramp_set_of(tmp_path_factory.mktemp("sets") / "demo-glcm", contents)
    edit_json(folder / "shardindex.json", labels=["one"])
    return folder


def read(folder: Path, examples: list[Example], looks: list[Look], **view: Any) -> ClipBatch:
    labelled = open_labelled(LocalStore(folder))
    chosen = ClipView(**{"pictures": "frames", "sound": "mel", **view})
    (batch,) = read_clips(labelled.shard_set, examples, chosen, [looks], workers=0)
    return batch


def grays(batch: ClipBatch) -> Any:
    assert batch.video is not None
    return (batch.video.float().mean((2, 3, 4)) / GRAY_STEP).round().int().tolist()


def slices(batch: ClipBatch) -> Any:
    assert batch.sound is not None
    return batch.sound[:, 0].int().tolist()


def test_pictures_and_sound_of_a_window(ramps: Path) -> None:
    batch = read(ramps, [example(0, 40)], [Look(0, 5, 3, 0.5)])
    assert grays(batch) == [[5, 6, 7]]
    assert slices(batch) == [list(range(15, 24))]


def test_a_part_of_a_clip_counts_from_its_start(ramps: Path) -> None:
    """As a word of a sentence; what is longer than the part begins it again."""
    batch = read(ramps, [example(0, 4, start=10)], [Look(0, 1, 5, 0.5)])
    assert grays(batch) == [[11, 12, 13, 10, 11]]
    assert slices(batch) == [[3 * k + i for k in (11, 12, 13, 10, 11) for i in range(3)]]


def test_a_short_clip_is_repeated(ramps: Path) -> None:
    batch = read(ramps, [example(1, 6)], [Look(0, 0, 8, 0.5)])
    assert grays(batch) == [[0, 1, 2, 3, 4, 5, 0, 1]]
    assert batch.lengths.tolist() == [8]


def test_windows_of_different_length_are_filled_up(ramps: Path) -> None:
    some = [example(0, 40), example(1, 6)]
    batch = read(ramps, some, [Look(0, 0, 4, 0.5), Look(1, 0, 6, 0.5)])
    assert grays(batch) == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert batch.lengths.tolist() == [4, 6]


def test_what_is_not_looked_at_is_not_read(ramps: Path) -> None:
    assert read(ramps, [example(0, 40)], [Look(0, 0, 4, 0.5)], sound=None).sound is None
    silent = read(ramps, [example(0, 40)], [Look(0, 0, 4, 0.5)], pictures="none")
    assert silent.video is None
    assert slices(silent) == [list(range(12))]


def test_prepared_batches(ramps: Path) -> None:
    batch = read(ramps, [example(0, 40)], [Look(0, 0, 4, 0.5), Look(0, 3, 4, 0.5)])
    centred = batch.centred(16)
    assert centred.video is not None
    assert centred.video.shape == (2, 3, 4, 16, 16)
    assert centred.sound is not None
    assert centred.sound.dtype == torch.float32
    augment = Augment(AugmentConfig(colour_jitter=0.5), 16, 0)
    one, again, other = (batch.augmented(augment, n) for n in (0, 0, 1))
    assert one.video is not None
    assert again.video is not None
    assert other.video is not None
    assert torch.equal(one.video, again.video)
    assert not torch.equal(one.video, other.video)


def test_a_damaged_tar_is_named(ramps: Path, tmp_path: Path) -> None:
    folder = ramp_set_of(tmp_path / "demo-glcm", [[ramp("demo/long", 0, 40)]])
    tar = next((folder / "shards").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[600:1200] = b"x" * 600
    tar.write_bytes(bytes(data))
    with pytest.raises(ShardError, match="demo/long") as raised:
        read(folder, [example(0, 40)], [Look(0, 0, 4, 0.5)])
    assert "--on-bad-shard" not in str(raised.value)  # evaluations have no such flag


# --- faces --------------------------------------------------------------------------------------


def faces(known: list[int], frames: int) -> Any:
    """Crops of gray 10 k in the frames that have a face."""

    def edit(_: Clip, members: Members) -> Members:
        meta = json.loads(members["json"])
        jpegs = [
            shard_format.encode_jpeg(np.full((24, 24, 3), 10 * k, np.uint8), 95)
            if k in known
            else None
            for k in range(frames)
        ]
        members["lip.mjpeg"], meta["jpeg_sizes"]["lip"] = shard_format.join_jpegs(jpegs)
        return {**members, "json": shard_format.encode_json(meta)}

    return edit


def lips_of(batch: ClipBatch) -> Any:
    assert batch.video is not None
    return (batch.video.float().mean((2, 3, 4)) / 10).round().int().tolist()


def test_frames_without_a_face_show_the_nearest(tmp_path: Path) -> None:
    folder = labelled_set(
        tmp_path / "demo-lips", [Clip("demo/a")], FACES, edit=faces([3, 4, 10], 25)
    )
    batch = read(folder, [example(0, 25)], [Look(0, 0, 12, 0.5)], pictures="lip")
    assert lips_of(batch) == [[3, 3, 3, 3, 4, 4, 4, 4, 10, 10, 10, 10]]
    assert batch.faceless.tolist() == [False]


def test_a_clip_without_a_face_shows_its_middle_and_says_so(tmp_path: Path) -> None:
    folder = labelled_set(tmp_path / "demo-lips", [Clip("demo/a", 1)], FACES, edit=faces([], 25))
    batch = read(folder, [example(0, 25)], [Look(0, 0, 4, 0.5)], pictures="lip")
    assert batch.faceless.tolist() == [True]
    assert lips_of(batch) == [[10] * 4]  # whole frames of the label 1 are gray 100
    assert CONFIG.crop_size != FACES.crop_size
