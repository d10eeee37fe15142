"""A batch checks itself and shows shapes."""

import pytest
import torch

from train.batch import Batch


def batch(**changes: object) -> Batch:
    clips, frames = 2, 4
    fields: dict[str, object] = {
        "video": torch.zeros(clips, frames, 8, 8, 3, dtype=torch.uint8),
        "mel": torch.zeros(clips, 80, 3 * frames, dtype=torch.float16),
        "instance": torch.arange(clips),
        "start": torch.zeros(clips, dtype=torch.int64),
        "keys": tuple(f"k{i}" for i in range(clips)),
        **changes,
    }
    return Batch(**fields)  # type: ignore[arg-type]


def test_repr_shows_shapes_not_pixels() -> None:
    assert repr(batch()) == (
        "Batch(video=uint8[2, 4, 8, 8, 3], mel=float16[2, 80, 12], instance=int64[2], "
        "start=int64[2], device=cpu)"
    )


def test_frames_are_found_in_both_layouts() -> None:
    assert (len(batch()), batch().frames, batch().is_raw) == (2, 4, True)
    floats = batch(video=torch.zeros(2, 3, 4, 8, 8))
    assert (floats.frames, floats.is_raw) == (4, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mel": torch.zeros(2, 80, 11)}, r"mel must be \(2, 80, 12\), got \(2, 80, 11\)"),
        ({"video": torch.zeros(2, 4, 8, 8)}, "5 dimensions"),
        ({"instance": torch.arange(3)}, r"must be \(2,\), got \(3,\)"),
        ({"keys": ("a",)}, "2 clips, 1 keys"),
        ({"labels": ((1,),)}, "1 labels"),
    ],
)
def test_shapes_that_disagree_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch(**changes)


def test_moving_keeps_everything() -> None:
    moved = batch().to(torch.device("cpu"))
    assert moved.keys == ("k0", "k1")
    assert moved.video.shape == (2, 4, 8, 8, 3)
