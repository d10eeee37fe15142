"""Shard sets that several tests read, and what holds for all of them."""

from pathlib import Path

import pytest

from tests.train.ramps import ramp_set
from tests.train.runs import toy
from train.stores import retry


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries at a place that does not answer."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ramp_set(tmp_path_factory.mktemp("sets") / "demo-glcm", shards=3, clips=4)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "other-glcm"
    return ramp_set(folder, shards=1, clips=6, frames=12, name="other")


@pytest.fixture(scope="session")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips."""
    return ramp_set(tmp_path_factory.mktemp("sets") / "demo-glcm", shards=2, clips=5)


@pytest.fixture(scope="session")
def undisturbed(ten: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy method from beginning to end."""
    from train.pretrain import COMPLETE, pretrain

    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert pretrain(toy(ten, run)) == COMPLETE
    return run
