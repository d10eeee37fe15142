"""Shard sets that several tests read, and what holds for all of them."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from stores import retry
from tests.train.ramps import ramp, ramp_set, ramp_set_of
from tests.train.runs import toy


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


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Nine clips to train on and five held out; speakers a and b in training, b and c held out."""
    clips = [ramp(f"demo/clip{number:03d}", number, 12) for number in range(14)]
    for number, members in enumerate(clips):
        meta = json.loads(members["json"])
        held_out = number >= 9
        meta["splits"] = ["demo:val" if held_out else "demo:train"]
        meta["group"] = "b" if number % 2 else "c" if held_out else "a"
        members["json"] = json.dumps(meta).encode()
    return ramp_set_of(tmp_path / "sets" / "demo-glcm", [clips])


@pytest.fixture
def small_files() -> Iterator[None]:
    """As `ulimit -f`: no file can have more than 4 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
