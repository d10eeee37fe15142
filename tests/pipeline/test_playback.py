"""The sound of a sample from its source: not in this process, which a hostile file could end."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.playback import source_sound_of
from tests.faults.jobs import X264, plugin
from tests.pipeline.clips import make_clip
from tests.pipeline.factory import Factory, factory, rows

__all__ = ["factory"]


@pytest.fixture
def made(factory: Factory, tmp_path: Path) -> Path:
    """A set of a clip and of a file that is no longer what it was."""
    names = ("clip", "segfault")
    factory.add(*names)
    factory.make(tmp_path / "out", rows(*names))
    make_clip(factory.root / "clip.mp4", seconds=2, size="64x48", options=X264)
    return tmp_path / "out"


def asked(name: str) -> dict[str, object]:
    return {"key": f"demo/{name}", "source": {"uri": f"{name}.mp4"}, "extra": {},
            "t0": 0.5, "fps": "10/1", "frames": 10}  # fmt: skip


def test_a_source_is_opened_in_a_child(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av.open", lambda *_, **__: pytest.fail("opened in this process"))
    found = source_sound_of(made)(asked("clip"))
    assert found is not None
    wave, rate = found
    assert (wave.shape, rate) == ((22050, 1), 22050)
    assert wave.dtype == np.float32
    assert wave.std() > 0.01


def test_a_source_that_crashes_costs_its_sound_alone(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in plugin("glav_faults").items():
        monkeypatch.setenv(name, value)
    sound_of = source_sound_of(made)
    assert sound_of(asked("segfault")) is None
    assert sound_of(asked("nowhere")) is None
    assert sound_of(asked("clip")) is not None
