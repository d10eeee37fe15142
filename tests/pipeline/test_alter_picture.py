"""Picture transforms against the ffmpeg program's filters, or in closed form."""

import cv2
import numpy as np
import pytest

from pipeline.alter_picture import (
    PICTURE_TRANSFORMS,
    WORKING_SHORT_SIDE,
    at_working_size,
    blur,
    crop,
    emoji,
    framed,
    pad,
    pixelize,
    rotate,
    video_noise,
)
from tests.pipeline.clips import ffmpeg

HEIGHT, WIDTH = 240, 320


def chance(seed=0):
    return np.random.default_rng(seed)


def smooth_picture():
    """Waves of every colour, not symmetric in any way."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / 17 + y / 41), np.cos(x / 29 - y / 13), np.sin(x * y / 4000)]
    return np.clip(128 + 100 * np.stack(waves, axis=2), 0, 255).astype(np.uint8)


def filtered(tmp_path, picture, graph, *, gray=False):
    """A picture through a filter graph of the ffmpeg program."""
    height, width = picture.shape[:2]
    (tmp_path / "in.raw").write_bytes(picture.tobytes())
    pixels = "gray" if gray else "rgb24"
    raw = ("-f", "rawvideo", "-pixel_format", pixels, "-video_size", f"{width}x{height}")
    ffmpeg(*raw, "-i", tmp_path / "in.raw", "-vf", f"{graph},format={pixels}", "-f", "rawvideo",
           tmp_path / "out.raw")  # fmt: skip
    return np.frombuffer((tmp_path / "out.raw").read_bytes(), np.uint8)


def shaped(raw, height, width):
    return raw.reshape(height, width, 3).astype(int)


@pytest.mark.parametrize("level", [10, 25, 60])
def test_noise_is_as_strong_as_ffmpegs(tmp_path, level):
    gray = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    ours = video_noise(gray, chance(), level=level).astype(float)
    theirs = filtered(tmp_path, gray[..., 0], f"noise=alls={level}:allf=t", gray=True).astype(float)
    assert ours.std() == pytest.approx(level / 3**0.5, rel=0.02)
    assert ours.std() == pytest.approx(theirs.std(), abs=0.5)  # theirs is cut to whole numbers
    assert ours.mean() == pytest.approx(128, abs=0.3)
    assert not np.array_equal(ours, video_noise(gray, chance(1), level=level))


def test_blur_is_ffmpegs(tmp_path):
    picture = smooth_picture()
    picture[100:140, 100:200] = 255
    theirs = shaped(filtered(tmp_path, picture, "gblur=sigma=3:steps=6"), HEIGHT, WIDTH)
    ours = blur(picture, chance(), sigma_pixels=3)
    inside = (slice(12, -12), slice(12, -12))  # theirs takes what is outside for black
    assert np.abs(ours - theirs)[inside].mean() < 1
    assert np.abs(ours - theirs)[inside].max() < 8


def test_a_point_is_blurred_to_the_wanted_variance():
    picture = np.zeros((101, 101, 3), np.uint8)
    picture[50, 50] = 255
    square = np.asarray(cv2.dilate(picture, np.ones((15, 15))), np.uint8)
    spread = blur(square, chance(), sigma_pixels=4)[..., 0].astype(float)
    x = np.arange(101) - 50
    variance = (spread * x**2).sum() / spread.sum()
    assert variance == pytest.approx(4**2 + (15**2 - 1) / 12, rel=0.03)  # box and Gaussian


def test_pixels_are_ffmpegs(tmp_path):
    graph = f"scale={WIDTH // 8}:{HEIGHT // 8}:flags=area,scale={WIDTH}:{HEIGHT}:flags=neighbor"
    theirs = shaped(filtered(tmp_path, smooth_picture(), graph), HEIGHT, WIDTH)
    ours = pixelize(smooth_picture(), chance(), ratio=1 / 8)
    assert np.abs(ours - theirs).max() <= 2
    assert (ours[:8, :8] == ours[0, 0]).all()


def test_crop_and_pad_are_ffmpegs(tmp_path):
    picture = smooth_picture()
    theirs = filtered(tmp_path, picture, "crop=160:120:40:90:exact=1")
    ours = crop(picture, chance(), scale=0.5, x=0.25, y=0.75)
    assert np.array_equal(ours, shaped(theirs, 120, 160))
    theirs = filtered(tmp_path, picture, "pad=width=iw+128:height=ih+48:x=64:y=24:color=black")
    ours = pad(picture, chance(), x=0.2, y=0.1)
    assert np.array_equal(ours, shaped(theirs, 288, 448))


@pytest.mark.parametrize("degrees", [-25, 10, 90])
def test_rotation_is_ffmpegs(tmp_path, degrees):
    graph = f"rotate={degrees}*PI/180:fillcolor=black"
    theirs = shaped(filtered(tmp_path, smooth_picture(), graph), HEIGHT, WIDTH)
    ours = rotate(smooth_picture(), chance(), degrees=degrees)
    assert np.abs(ours - theirs).mean() < 2.5


def test_a_quarter_turn_is_clockwise():
    picture = np.zeros((101, 101, 3), np.uint8)
    picture[40:60, 85:95] = 255  # right of the middle
    turned = rotate(picture, chance(), degrees=90)[..., 0]
    assert turned[90, 50] == 255 and turned[50, 90] == 0


def test_the_smiley_lies_where_it_should():
    gray = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    side = HEIGHT // 2
    covered = emoji(gray, chance(), size=0.5, x=1, y=0, opacity=1)
    changed = (covered != gray).any(axis=2)
    assert not changed[side:].any() and not changed[:, : WIDTH - side].any()
    assert changed.sum() == pytest.approx(np.pi / 4 * side**2, rel=0.03)
    forehead = covered[side // 8, WIDTH - side // 2].astype(int)
    assert forehead[0] > 200 and forehead[1] > 150 and forehead[2] < 100
    faint = emoji(gray, chance(), size=0.5, x=1, y=0, opacity=0.25).astype(int)
    assert np.abs(faint - (128 + 0.25 * (covered.astype(int) - 128))).max() <= 1
    assert (gray == 128).all()  # the picture itself is left alone


NOTHING: dict[str, dict[str, float]] = {
    "video_noise": {"level": 0},
    "blur": {"sigma_pixels": 0.1},
    "pixelize": {"ratio": 1},
    "emoji": {"size": 0.5, "x": 0.5, "y": 0.5, "opacity": 0},
    "crop": {"scale": 1, "x": 0.3, "y": 0.7},
    "pad": {"x": 0, "y": 0},
    "rotate": {"degrees": 0},
}


@pytest.mark.parametrize("name", PICTURE_TRANSFORMS)
def test_the_weakest_is_nothing(name):
    same = PICTURE_TRANSFORMS[name](smooth_picture(), chance(), **NOTHING[name])
    assert np.array_equal(same, smooth_picture())


def test_a_picture_made_a_frame_is_the_same_picture():
    picture = smooth_picture()
    assert np.array_equal(framed(picture).resized(HEIGHT), picture)
    assert at_working_size(picture).shape == (WORKING_SHORT_SIDE, round(WIDTH * 256 / HEIGHT), 3)
