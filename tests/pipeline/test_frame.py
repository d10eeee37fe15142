"""Displayed pictures against the ffmpeg program, which reads, turns and scales on its own."""

import gc
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.frame import Frame, Orientation, display_orientation

MEDIA = Path(__file__).parents[2].parent / "shared" / "media"
SCENE = "testsrc2=size={}:rate=5:duration=0.4,gblur=sigma=6"
COLOURED = "smptehdbars=size={}:rate=5:duration=0.4,gblur=sigma=6"
ROUNDING = 3.2
"""Levels between exact conversion and swscale's fast one, which truncates and shares chroma."""

needs_media = pytest.mark.skipif(not MEDIA.is_dir(), reason="the real media are not here")


def render(path: Path, scene: str, *options: str) -> Path:
    """Encode a synthetic scene with the bundled ffmpeg."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-f", "lavfi", "-i", scene]
    subprocess.run([*command, *options, str(path)], check=True)
    return path


def first_frame(path: Path, *, mirrored: bool = False) -> Frame:
    """The first decoded picture, turned by its rotation or by the whole display matrix."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        picture = next(container.decode(stream))
        orientation = display_orientation(picture) if mirrored else None
        return Frame(picture, stream.sample_aspect_ratio, orientation)


def by_program(path: Path, width: int, height: int, flags: str = "area") -> npt.NDArray[np.int16]:
    """What the ffmpeg program shows: turned by itself, scaled to square pixels, RGB."""
    scale = f"scale={width}:{height}:flags={flags},format=rgb24"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-vf", scale]
    command += ["-frames:v", "1", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3).astype(np.int16)


def difference(ours: npt.NDArray[np.uint8], theirs: npt.NDArray[np.int16]) -> float:
    """Mean absolute difference in steps of 8-bit colour."""
    return float(np.abs(ours.astype(np.int16) - theirs).mean())


def region(frame: Frame, *place: int) -> npt.NDArray[np.uint8]:
    """RGB of a displayed box: x0, y0, x1, y1, then the width and height it is scaled to."""
    x0, y0, x1, y1, width, height = place
    return frame.yuv_region((x0, y0, x1, y1), width, height).rgb()


PALETTE = "split[a][b];[a]palettegen[p];[b][p]paletteuse"
FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuv420p10le", "nv12", "gray", "rgb24"]


@pytest.mark.parametrize("pixel_format", [*FORMATS, "pal8", "bgra", "yuv444p12le"])
def test_formats_look_as_in_the_program(tmp_path: Path, pixel_format: str) -> None:
    """Every way of storing pixels gives the same small picture."""
    path = tmp_path / "clip.nut"
    extra = ["-vf", PALETTE] if pixel_format == "pal8" else []
    render(path, SCENE.format("320x240"), *extra, "-c:v", "rawvideo", "-pix_fmt", pixel_format)
    frame = first_frame(path)
    width, height = frame.resized_size(96)
    theirs = by_program(path, width, height)
    assert difference(frame.resized(96), theirs) < 1.0
    whole = region(frame, 0, 0, frame.width, frame.height, width, height)
    assert difference(whole, theirs) < ROUNDING
    assert frame.gray().shape == (frame.height, frame.width)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
@pytest.mark.parametrize("levels", ["tv", "pc"])
def test_tagged_colours(tmp_path: Path, matrix: str, levels: str) -> None:
    """Matrix and range are those of the file, on both roads to RGB."""
    conversion = f"scale=out_color_matrix={matrix}:out_range={levels},format=yuv420p"
    tags = ["-colorspace", matrix, "-color_range", levels, "-color_primaries", "bt709"]
    path = tmp_path / "clip.mp4"
    render(path, COLOURED.format("320x180"), "-vf", conversion, *tags, "-crf", "5")
    theirs = by_program(path, 160, 90)
    assert difference(first_frame(path).resized(90), theirs) < 1.0
    part = region(first_frame(path), 0, 0, 320, 180, 160, 90)
    assert difference(part, theirs) < ROUNDING


def test_untagged_colours_are_bt601(tmp_path: Path) -> None:
    """Without tags the ffmpeg program means BT.601 limited, and so do we."""
    path = render(tmp_path / "clip.mp4", COLOURED.format("1280x720"), "-pix_fmt", "yuv420p")
    frame = first_frame(path)
    assert difference(frame.resized(90), by_program(path, 160, 90)) < 1.0
    part = region(frame, 0, 0, 1280, 720, 160, 90)
    assert difference(part, by_program(path, 160, 90)) < ROUNDING


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["", "hflip", "vflip"])
def test_display_matrix(tmp_path: Path, degrees: int, flip: str) -> None:
    """Quarter turns and mirrorings of the display matrix, as the program applies them."""
    plain = render(tmp_path / "plain.mp4", SCENE.format("200x120"), "-pix_fmt", "yuv420p")
    path = tmp_path / "turned.mp4"
    options = ["-display_rotation", str(degrees), *([f"-display_{flip}"] if flip else [])]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *options, "-i", str(plain)]
    subprocess.run([*command, "-c", "copy", str(path)], check=True)
    frame = first_frame(path, mirrored=bool(flip))
    assert (frame.width, frame.height) == ((120, 200) if degrees % 180 else (200, 120))
    theirs = by_program(path, frame.width, frame.height)
    whole = region(frame, 0, 0, frame.width, frame.height, frame.width, frame.height)
    assert difference(whole, theirs) < ROUNDING
    assert difference(region(frame, 10, 20, 70, 60, 60, 40), theirs[20:60, 10:70]) < ROUNDING
    luma = theirs @ np.array([0.299, 0.587, 0.114])
    assert np.corrcoef(frame.gray().ravel(), luma.ravel())[0, 1] > 0.99


def test_sample_aspect_ratio(tmp_path: Path) -> None:
    """Wide pixels widen the picture; gray and regions count in the same pixels."""
    path = render(tmp_path / "clip.mp4", SCENE.format("176x144"), "-vf", "setsar=128/117")
    frame = first_frame(path)
    assert (frame.width, frame.height) == (193, 144)
    assert frame.gray().shape == (144, 193)
    theirs = by_program(path, 193, 144, "bicubic")
    assert difference(frame.resized(72), by_program(path, *frame.resized_size(72))) < 1.5
    assert difference(region(frame, 20, 20, 180, 100, 160, 80), theirs[20:100, 20:180]) < ROUNDING


@pytest.mark.parametrize("aspect", [None, Fraction(0), Fraction(1000), Fraction(1)])
def test_absurd_aspect_is_ignored(aspect: Fraction | None) -> None:
    """Damage in a header does not make a picture a mile wide."""
    assert Frame(av.VideoFrame(64, 48, "yuv420p"), aspect).width == 64


@pytest.mark.parametrize("size", [(160, 121), (161, 121), (3, 2)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    """Chroma of odd pictures reaches half a sample further."""
    frame = Frame(av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 200, np.uint8)))
    odd = Frame(frame._picture.reformat(format="yuv420p"))
    assert np.abs(region(odd, 0, 0, *size, 40, 40).astype(int) - 200).max() <= 3
    assert odd.resized(16).min() > 190


def test_region_repeats_the_border() -> None:
    """A box that sticks out, or lies outside altogether, still gives a picture."""
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], 80, 0).repeat(3, 2)
    frame = Frame(av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp)).reformat(format="yuv444p"))
    left = region(frame, -40, 0, 40, 80, 80, 80).astype(int)
    assert np.abs(left[:, :40]).max() <= 3
    assert np.abs(left[:, 40:] - ramp[:, :40]).max() <= 3
    assert np.abs(region(frame, 300, -50, 340, -10, 20, 20).astype(int) - 198).max() <= 3


def test_pictures_are_freed_at_once() -> None:
    """No reference cycle keeps decoded pictures until the garbage collector comes by."""
    gc.disable()
    try:
        picture = av.VideoFrame(64, 48, "yuv420p")
        frame = Frame(picture)
        frame.gray(), region(frame, 0, 0, 8, 8, 4, 4), frame.resized(16)
        watched = weakref.ref(frame)
        holders = sys.getrefcount(picture)
        del frame
        assert watched() is None
        assert sys.getrefcount(picture) < holders
    finally:
        gc.enable()


def test_gray_is_the_decoders_memory_and_keeps_it() -> None:
    """No copy for upright 8-bit video; the view outlives the frame object."""
    picture = av.VideoFrame(64, 48, "yuv420p")
    gray = Frame(picture).gray()
    assert gray.base is not None
    del picture
    assert gray.shape == (48, 64)


def test_orientation_boxes_agree_with_pictures() -> None:
    """A displayed box and its coded one show the same pixels, for all eight orientations."""
    coded = np.arange(6 * 10).reshape(6, 10)
    for bits in range(8):
        orientation = Orientation(bool(bits & 1), bool(bits & 2), bool(bits & 4))
        shown = orientation.apply(coded)
        x0, y0, x1, y1 = orientation.coded((1, 2, 4, 5), shown.shape[1], shown.shape[0])
        assert np.array_equal(orientation.apply(coded[y0:y1, x0:x1]), shown[2:5, 1:4])


REAL = [
    "decord/**/video_90.mov",
    "decord/**/video_180.mov",
    "**/nasa_13013_rotated.mp4",
    "**/fire2.mp4",
    "**/carphone_pristine.mp4",
    "**/dolbyVision-hdr.MOV",
    "**/h264_10bits.mp4",
    "**/testsrc2_odd_height_and_width_444_10bit.mp4",
]


@needs_media
@pytest.mark.parametrize("pattern", REAL)
def test_real_files_look_as_in_the_program(pattern: str) -> None:
    """Phones, cameras and test clips with every oddity we have seen."""
    path = min(MEDIA.glob(pattern))
    frame = first_frame(path)
    width, height = frame.resized_size(120)
    theirs = by_program(path, width, height)
    assert difference(frame.resized(120), theirs) < 2.5
    assert difference(region(frame, 0, 0, frame.width, frame.height, width, height), theirs) < 6
