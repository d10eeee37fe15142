"""`train explain`: maps against a loop over windows, the video against one that is read back."""

import re
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from manifests.listing import FFMPEG_FORMATS
from manifests.render.encode import run as ffmpeg
from pipeline.config import ShardConfig
from stores import open_store
from tests.pipeline.fabricate import fabricate
from tests.train.apply.conftest import VideoMaker
from train.apply import encoding, explain as explaining
from train.apply.clips import clips_of
from train.apply.explain import ExplainOptions, attention_maps, explain, part_of
from train.apply.overlay import LEGEND_PIXELS, Canvas, pictures
from train.augment import centre_pictures
from train.errors import TrainError, UsageError
from train.evaluation.encoders import load_checkpoint
from train.heat import top_of
from train.index import open_shards
from train.read import ShardReader

PROGRAM = imageio_ffmpeg.get_ffmpeg_exe()


def seconds_of(path: Path, stream: str) -> float:
    """Length of what is decoded of a stream: the last time that the program reports."""
    command = [PROGRAM, "-nostdin", "-i", str(path), "-map", f"0:{stream}", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    hours, minutes, seconds = re.findall(r"time=(\d+):(\d+):([\d.]+)", said)[-1]
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def frames_of(path: Path, filters: str = "null") -> np.ndarray:
    """All pictures, RGB (T, H, W, 3)."""
    reader = imageio_ffmpeg.read_frames(str(path), output_params=["-vf", filters])
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(one, np.uint8).reshape(height, width, 3) for one in reader])


def wave_of(path: Path, *before: str) -> np.ndarray:
    command = [PROGRAM, "-v", "error", *before, "-i", str(path), "-ac", "1", "-ar", "8000", "-f",
               "f32le", "-"]  # fmt: skip
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4")


def constant_maps(monkeypatch: pytest.MonkeyPatch, draw: Callable[[int], np.ndarray]) -> None:
    """Maps of frames that are known, instead of a network's."""

    def maps(encoders: Any, shard_set: Any, clip: Any, options: Any) -> Any:
        return np.stack([draw(k) for k in range(clip.example.frames)]).astype(np.float32), 1

    monkeypatch.setattr(explaining, "attention_maps", maps)


def test_maps_are_averaged_over_the_windows_that_show_a_frame(run: Path, tmp_path: Path) -> None:
    shards = fabricate(tmp_path / "set", ShardConfig("glcm", Fraction(10), 32, 22050), shards=1,
                       samples=1, errors=0)  # fmt: skip
    shard_set = open_shards(open_store(str(shards)))
    encoders = load_checkpoint(run)
    reader = ShardReader(shard_set)
    stored = reader.read(0)
    per_frame: list[list[np.ndarray]] = [[] for _ in range(20)]
    for start in (0, 4, 8, 12):
        video = np.empty((1, 8, 32, 32, 3), np.uint8)
        stored.pictures(range(start, start + 8), 0.5, 32, video[0])
        mel = torch.from_numpy(stored.mel(start, 8)[None].astype(np.float32))
        with torch.no_grad():
            found = encoders.features(centre_pictures(torch.from_numpy(video), 28), mel)
        for frame in range(start, start + 8):
            per_frame[frame].append(found["att"][0].numpy())
    options = ExplainOptions("x.mp4", run, overlap=0.5, device="cpu")
    maps, windows = attention_maps(encoders, shard_set, clips_of(shard_set, [0])[0], options)
    assert windows == 4
    assert np.allclose(maps.mean((1, 2)), 1, atol=1e-4)  # times uniform
    cells = maps[0].size
    for frame, values in enumerate(per_frame):
        assert np.allclose(maps[frame], np.mean(values, 0) * cells, atol=1e-4)


def test_half_of_the_maps_reach_the_end_of_the_colours() -> None:
    """One map that knows its place well leaves the colours of the others."""
    maps = np.ones((5, 2, 2), np.float32)
    maps[:, 0, 1] = [3, 4, 5, 6, 100]
    assert top_of(maps) == 5
    assert top_of(maps[:, :, :1]) == 2, "flat maps stay pale"


def test_the_strongest_place_is_coloured_and_the_rest_is_left_alone() -> None:
    canvas = Canvas.like((96, 64), 128)
    assert (canvas.width, canvas.height) == (192, 128)
    assert canvas.crop == (40, 8, 112)
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 1, 3] = 16
    (picture,) = pictures(maps, canvas, top_of(maps))
    alpha = picture[..., 3]
    assert picture.shape == (128, 192 + LEGEND_PIXELS, 4)
    assert (alpha[:, 192:] == 255).all()
    assert (alpha[:, :40] == 0).all()
    row, column = np.unravel_index(alpha[12:116, 44:148].argmax(), (104, 104))
    assert 28 <= row + 4 < 56  # cell 1 of 4 in 112 pixels
    assert column + 4 >= 84
    assert alpha[80, 60] == 0


@pytest.mark.slow
def test_the_video_keeps_its_length_its_sound_and_its_pictures(
    run: Path, video: VideoMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map sits at the top left in the first second, at the bottom right afterwards."""

    def corner(frame: int) -> np.ndarray:
        one = np.zeros((4, 4))
        one[(0, 0) if frame < 10 else (3, 3)] = 16
        return one

    constant_maps(monkeypatch, corner)
    path, out = video("clip.mp4"), tmp_path / "out.mp4"
    explain(ExplainOptions(str(path), run, out, short_side=128, device="cpu"))
    assert seconds_of(out, "v:0") == pytest.approx(seconds_of(path, "v:0"), abs=0.02)
    assert seconds_of(out, "a:0") == pytest.approx(seconds_of(path, "a:0"), abs=0.05)
    before, after = wave_of(path), wave_of(out)
    count = min(len(before), len(after))
    assert np.corrcoef(before[:count], after[:count])[0, 1] > 0.99
    shown, plain = frames_of(out), frames_of(path, "scale=192:128")
    assert shown.shape == (75, 128, 192 + LEGEND_PIXELS, 3)
    change = np.abs(shown[:, :, :192].astype(int) - plain.astype(int)).mean(-1)
    upper, lower = change[:, 14:34, 46:66].mean((1, 2)), change[:, 94:114, 126:146].mean((1, 2))
    assert upper[2:24].min() > 20
    assert upper[26:].max() < 8
    assert lower[26:].min() > 20
    assert lower[:24].max() < 8
    assert change[:, 20:108, 5:35].mean() < 5  # outside of what the network sees


@pytest.mark.slow
def test_a_turned_video_is_shown_upright_and_a_part_is_that_part(
    run: Path, video: VideoMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant_maps(monkeypatch, lambda frame: np.zeros((4, 4)))
    path, out = video("turned.mp4", size=(64, 96), rotation=90), tmp_path / "out.mp4"
    explain(ExplainOptions(str(path), run, out, start=1.0, end=2.0, short_side=128, device="cpu"))
    shown, plain = frames_of(out), frames_of(path, "scale=128:192")
    assert shown.shape == (25, 192, 128 + LEGEND_PIXELS, 3)
    inner = np.s_[:, 60:130, 30:100]
    change = np.abs(shown[inner].astype(int) - plain[25:50][inner].astype(int)).mean((1, 2, 3))
    assert change.max() < 4
    before, after = wave_of(path)[8000:16000], wave_of(out)
    count = min(len(before), len(after))
    assert np.corrcoef(before[:count], after[:count])[0, 1] > 0.95


@pytest.mark.slow
def test_sound_before_the_first_picture_is_kept(
    run: Path, video: VideoMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map is on the file's clock: from 2 s on, which is 1.2 s after the first picture."""

    def late(frame: int) -> np.ndarray:
        return np.full((4, 4), 16.0 if frame >= 20 else 0.0)

    constant_maps(monkeypatch, late)
    path, out = tmp_path / "late.mp4", tmp_path / "out.mp4"
    whole = str(video("clip.mp4"))
    ffmpeg(["-itsoffset", "0.8", "-i", whole, "-i", whole, "-map", "0:v", "-map", "1:a", "-c",
            "copy", str(path)])  # fmt: skip
    explain(ExplainOptions(str(path), run, out, short_side=128, device="cpu"))
    before, after = wave_of(path), wave_of(out)
    assert len(after) == pytest.approx(len(before), abs=800)
    count = min(len(before), len(after))
    assert np.corrcoef(before[:count], after[:count])[0, 1] > 0.99
    shown, plain = frames_of(out), frames_of(path, "scale=192:128")
    middle = np.s_[:, 30:100, 60:130]
    change = np.abs(shown[middle].astype(int) - plain[middle].astype(int)).mean((1, 2, 3))
    # 45 of the 75 pictures begin at 2 s or later; readers may fill the time before the first one.
    assert change[:-47].max() < 5
    assert change[-43:].min() > 20


def test_the_middle_of_a_long_video_is_taken(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(length: float | None, **given: float) -> tuple[float | None, float | None]:
        monkeypatch.setattr(encoding, "duration_seconds", lambda path: length)
        found = part_of(tmp_path, ExplainOptions("x.mp4", run, seconds=10, **given))  # type: ignore[arg-type]
        return found.start_seconds, found.end_seconds

    assert part(8.0) == (None, None)
    assert part(30.0) == (10.0, 20.0)
    assert part(None) == (0.0, 10.0)
    assert part(30.0, start=25.0) == (25.0, 30.0)
    assert part(30.0, end=12.0) == (0.0, 12.0)
    assert part(30.0, start=2.0, end=3.5) == (2.0, 3.5)
    with pytest.raises(UsageError, match=r"--start is 31 s, and .* lasts 30 s"):
        part(30.0, start=31.0)


def test_a_file_of_unknown_length_is_not_called_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    text = tmp_path / "notes.txt"
    text.write_text("hello\n")
    found = part_of(text, ExplainOptions(str(text), tmp_path, seconds=10))
    assert (found.start_seconds, found.end_seconds) == (0, 10)
    assert "does not say how long it is" in caplog.text and "longer" not in caplog.text


@pytest.mark.slow
def test_what_cannot_be_shown_is_said(run: Path, video: VideoMaker, tmp_path: Path) -> None:
    def tried(path: Path, **changes: Any) -> None:
        given = {"out": tmp_path / "out.mp4", "device": "cpu", **changes}
        explain(ExplainOptions(str(path), run, **given))

    with pytest.raises(UsageError, match=r"mute\.mp4 has no sound, and the map says"):
        tried(video("mute.mp4", sound=False))
    with pytest.raises(TrainError, match=r"voice\.wav cannot be shown: no_video"):
        tried(video("voice.wav", pictures=False))
    path = video("clip.mp4")
    with pytest.raises(UsageError, match="is the video itself"):
        tried(path, out=path)
    with pytest.raises(UsageError, match=r"ends with \.gif; expected"):
        tried(path, out=tmp_path / "out.gif")
    with pytest.raises(UsageError, match="there is no folder"):
        tried(path, out=tmp_path / "nowhere" / "out.mp4")
    with pytest.raises(UsageError, match="there is no file"):
        tried(tmp_path / "nothing.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_the_length_of_a_file_is_what_it_says(video: VideoMaker, tmp_path: Path) -> None:
    found = encoding.duration_seconds(video("clip.mp4", seconds=2.0))
    assert found == pytest.approx(2.0, abs=0.1)
    (tmp_path / "notes.txt").write_text("no video")
    assert encoding.duration_seconds(tmp_path / "notes.txt") is None


def test_files_are_opened_as_the_same_containers_everywhere() -> None:
    assert encoding.CONTAINERS == FFMPEG_FORMATS
