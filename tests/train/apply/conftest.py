"""A checkpoint small enough for tests, and videos that are made here."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manifests.render.encode import Encoding, encode
from tests.train.evaluation.conftest import NANO, _nano
from train import checkpoint
from train.config import PretrainConfig
from train.evaluation.encoders import from_scratch

__all__ = ["_nano"]
RATE_HZ = 22050
VideoMaker = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint: random weights."""
    module = from_scratch("glcm", "nano", 3).module
    config = PretrainConfig(model=NANO, preset="nano", shards="/some/where/demo-glcm@n=3")
    folder = tmp_path / "run"
    checkpoint.save(
        folder / "checkpoints", 7, {"model": module.state_dict(), "config": config.as_dict()}, 1
    )
    return folder


@pytest.fixture
def video(tmp_path: Path) -> VideoMaker:
    """Makes a video: gray that rises with time, a tone that rises, too."""

    def make(
        name: str = "clip.mp4", *, seconds: float = 3.0, pictures: bool = True, sound: bool = True,
        size: tuple[int, int] = (96, 64), **encoding: object,
    ) -> Path:  # fmt: skip
        times = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
        wave = (0.3 * np.sin(2 * np.pi * (300 + 200 * times) * times)).astype(np.float32)
        path = tmp_path / name
        if not pictures:
            import soundfile

            soundfile.write(path, wave, RATE_HZ)
            return path

        def frames() -> Iterator[np.ndarray]:
            count = int(seconds * 25)
            for number in range(count):
                picture = np.full((size[1], size[0], 3), 40 + 120 * number // count, np.uint8)
                picture[:, number % size[0]] = 255
                yield picture

        how = Encoding(path.suffix, fps=Fraction(25), **encoding)  # type: ignore[arg-type]
        return encode(path, how, frames(), wave if sound else None, RATE_HZ)

    return make
