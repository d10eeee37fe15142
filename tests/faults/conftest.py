"""A folder of clips, and the set an undisturbed job makes of it."""

import pytest

from tests.faults.jobs import X264, run
from tests.pipeline.clips import ffmpeg, make_clip
from tests.train.conftest import demo, ten, undisturbed

__all__ = ["demo", "ten", "undisturbed"]  # of the trainer: sets and a run

GOOD = 9


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Good clips in two classes, a mute one, and a text that calls itself a video."""
    folder = tmp_path_factory.mktemp("clips")
    first = make_clip(folder / "clip0.mp4", seconds=2.5, size="192x144", options=X264)
    for number in range(1, GOOD):
        path = folder / f"label{number % 2}" / f"clip{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        ffmpeg("-i", first, "-vf", f"hue=h={number * 30}", *X264[:6], path)
    make_clip(folder / "mute.mp4", seconds=2, size="64x48", sound=False, options=X264)
    (folder / "text.mp4").write_text("no video at all\n" * 20)
    return folder


@pytest.fixture(scope="session")
def whole(clips, tmp_path_factory):
    """What nobody disturbed. Tests must not write here."""
    out = tmp_path_factory.mktemp("whole")
    run(clips, out, "--workers", "1")
    return out
