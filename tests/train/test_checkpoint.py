"""A checkpoint is whole or not there; the newest whole one is found."""

import logging
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from train import checkpoint
from train.checkpoint import DamagedCheckpointError
from train.errors import UsageError


def save(folder: Path, step: int, keep: int = 3, **options: bool) -> Path:
    content = {
        "model": {"w": torch.full((1000,), float(step))},
        "random": [{"cpu": torch.zeros(3)}],
    }
    return checkpoint.save(folder, step, content, keep, **options)


def test_a_disk_without_room_leaves_what_was_there(tmp_path: Path, small_files: None) -> None:
    """torch.save would say `unexpected pos 64 vs 0` and leave half a file."""
    first = checkpoint.save(tmp_path, 1, {"model": {"w": torch.zeros(10)}}, 3)
    with pytest.raises(OSError, match="File too large"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == [first.name]
    assert checkpoint.load(first)["step"] == 1


def test_what_is_saved_is_loaded_without_pickle(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    content = torch.load(path, weights_only=True)
    assert content["step"] == 7
    assert (content["model"]["w"] == 7).all()
    assert (tmp_path / "last").read_text() == "step-00000007.pt\n"
    assert not list(tmp_path.glob("*.tmp"))


def test_there_may_be_none_yet(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None


def test_the_oldest_go_and_the_best_stays(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, keep=2, best=step == 2)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == [
        f"step-0000000{step}.pt" for step in (2, 5, 6)
    ]
    assert (tmp_path / "best").read_text() == "step-00000002.pt\n"


@pytest.mark.parametrize("cut", [0, 100, -10])
def test_a_truncated_last_falls_back_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    save(tmp_path, 1)
    last = save(tmp_path, 2)
    last.write_bytes(last.read_bytes()[:cut])
    with caplog.at_level(logging.WARNING):
        found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found["step"] == 1
    assert "step-00000002.pt cannot be read" in caplog.text
    assert "looking at the one before" in caplog.text


def test_when_all_are_damaged_it_does_not_start_over_silently(tmp_path: Path) -> None:
    save(tmp_path, 1).write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match="none of the 1 checkpoints"):
        checkpoint.newest(tmp_path)


def test_a_crash_before_the_pointer_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    pointer = (tmp_path / "last").read_text()
    save(tmp_path, 2)
    (tmp_path / "last").write_text(pointer)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found["step"] == 2


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (exec, ("raise SystemExit('ran')",))

    path = tmp_path / "evil.pt"
    torch.save({"model": {}, "format": 1, "x": Evil()}, path)
    with pytest.raises(DamagedCheckpointError, match="cannot be read"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DamagedCheckpointError):
        checkpoint.load(path)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(DamagedCheckpointError, match="no checkpoint of this trainer"):
        checkpoint.load(tmp_path / "other.pt")
    with pytest.raises(UsageError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "none.pt")
    with pytest.raises(UsageError, match="has no checkpoint yet"):
        checkpoint.load(tmp_path)


def test_weights_are_copied_where_they_fit_and_the_rest_is_listed() -> None:
    old, new = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(3, 4))
    new.append(nn.Linear(4, 5))
    lines = checkpoint.copy_weights(new, {**old.state_dict(), "extra": torch.zeros(1)})
    assert torch.equal(old.state_dict()["0.weight"], new.state_dict()["0.weight"])
    assert lines == [
        "extra: not in this model",
        "1.weight: (2, 4) in the checkpoint, (5, 4) here",
        "1.bias: (2,) in the checkpoint, (5,) here",
    ]


def test_random_state_comes_back() -> None:
    device = torch.device("cpu")
    state = checkpoint.random_state(device)
    first = torch.rand(3)
    checkpoint.restore_random_state(state, device)
    assert torch.equal(torch.rand(3), first)


def test_the_code_that_ran_is_known() -> None:
    state = checkpoint.git_state()
    assert set(state) == {"commit", "diff", "untracked"}
