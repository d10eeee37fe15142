"""Face and lip crops: where things lie in them, and that pixels and transforms agree."""

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipeline import crops
from pipeline.crops import PatchKeeper, cut, face_transforms, lip_transforms, smooth
from pipeline.frame import Frame

SIZE = 112
ONE_SHOT = np.zeros(20, np.int64)


def frame_of(rgb: npt.NDArray[np.uint8], pixel_format: str = "yuv420p") -> Frame:
    """A frame as a decoder would give it."""
    return Frame(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb)).reformat(format=pixel_format)
    )


def face_points(*, width: float = 100.0, mouth_open: float = 0.1) -> npt.NDArray[np.float64]:
    """68 points of a schematic straight face, centred at the origin; only what crops use."""
    points = np.zeros((68, 2))
    points[36], points[45], points[33] = (-0.35, -0.2), (0.35, -0.2), (0.0, 0.12)
    around = np.linspace(np.pi, -np.pi, 20, endpoint=False)
    points[48:68, 0] = 0.2 * np.cos(around)
    points[48:68, 1] = 0.35 - mouth_open * np.sin(around)
    points[48], points[54] = (-0.2, 0.35), (0.2, 0.35)
    return points * width


def moved(
    points: npt.NDArray[np.float64], degrees: float, x: float, y: float
) -> npt.NDArray[np.float64]:
    """The points turned about the origin, then shifted."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned: npt.NDArray[np.float64] = points @ np.array([[c, s], [-s, c]]) + (x, y)
    return turned


def mapped(
    matrix: npt.NDArray[np.float64], points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Points through a 2x3 matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def talking(degrees: float = 0.0) -> npt.NDArray[np.float32]:
    """(20, 68, 2): a face that drifts, tilts and opens its mouth."""
    return np.array(
        [
            moved(face_points(mouth_open=0.03 + 0.01 * (t % 7)), degrees + t, 300 + 3 * t, 200 - t)
            for t in range(20)
        ],
        np.float32,
    )


@pytest.mark.parametrize("degrees", [-40, 0, 25])
def test_lips_are_centred_a_third_wide_and_level(degrees: float) -> None:
    """What GLCM asks of a lip picture."""
    landmarks = talking(degrees)
    transforms = lip_transforms(landmarks, ONE_SHOT, SIZE, sigma=0.6)
    shown = np.array([mapped(m, p) for m, p in zip(transforms, landmarks, strict=True)])
    centres = shown[:, 48:68].mean(axis=1)
    assert np.abs(centres - (SIZE - 1) / 2).mean() < 1.5
    lips = shown[:, 54] - shown[:, 48]
    assert np.median(np.linalg.norm(lips, axis=1)) == pytest.approx(SIZE / 3, rel=0.01)
    eyes = shown[:, 45] - shown[:, 36]
    assert np.abs(np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))).max() < 2


def test_lip_scale_is_one_number_a_clip() -> None:
    """An opening or rounding mouth changes the picture, not the zoom."""
    landmarks = talking()
    landmarks[5, 48, 0] += 15
    transforms = lip_transforms(landmarks, ONE_SHOT, SIZE, sigma=0.6)
    scales = np.sqrt(np.abs(np.linalg.det(transforms[:, :, :2])))
    assert np.ptp(scales) < 1e-9


def test_no_face_no_transform() -> None:
    """Gaps stay gaps, also when nothing is there at all."""
    landmarks = talking()
    landmarks[3:6] = np.nan
    transforms = lip_transforms(landmarks, ONE_SHOT, SIZE, sigma=0.6)
    assert np.isnan(transforms[3:6]).all() and np.isfinite(transforms[[2, 6]]).all()
    assert np.isnan(
        lip_transforms(np.full((20, 68, 2), np.nan, np.float32), ONE_SHOT, SIZE, 1.0)
    ).all()


def test_face_crop_has_a_quarter_of_margin() -> None:
    """The box fills two thirds of the crop, in its middle."""
    boxes = np.tile([100.0, 50.0, 180.0, 130.0], (20, 1))
    transform = face_transforms(boxes, ONE_SHOT, SIZE, sigma=0.6)[7]
    edges = np.array([[100.0, 50.0], [180.0, 130.0]]) - 0.5
    expected = np.array([[1, 1], [5, 5]]) * SIZE / 6 - 0.5
    assert np.allclose(mapped(transform, edges), expected)


def test_smoothing_keeps_to_its_group_and_to_what_is_there() -> None:
    """Constants stay constant beside gaps, borders and other shots."""
    values = np.repeat([[1.0], [5.0]], 10, axis=0)
    values[4] = np.nan
    groups = np.repeat([0, 1], 10)
    smoothed = smooth(values, groups, sigma=1.5)
    assert np.isnan(smoothed[4, 0])
    assert np.allclose(np.delete(smoothed, 4, 0), np.delete(values, 4, 0))
    jitter = np.tile([[0.0], [1.0]], (10, 1))
    assert np.ptp(smooth(jitter, ONE_SHOT, sigma=1.5)) < 0.5


def chart(dots: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Bright blobs on gray, with their centres at fractions of pixels."""
    y, x = np.mgrid[0:480, 0:640].astype(float)
    picture = np.full((480, 640), 60.0)
    for dot_x, dot_y in dots:
        picture += 180 * np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / (2 * 4.0**2))
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("box", [(200, 120, 300, 220), (181, 101, 342, 262), (90, 60, 420, 390)])
@pytest.mark.parametrize("degrees", [0, 20])
def test_pixels_agree_with_transforms(box: tuple[float, ...], degrees: float) -> None:
    """Blobs lie in the crop where the stored transform says, whatever the patch's scale."""
    x0, y0, x1, y1 = box
    centre_x, centre_y, size = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0
    dots = np.array([[-0.2, 0.1], [0.25, 0.3], [0.0, -0.15]]) * size + (centre_x, centre_y)
    patch = PatchKeeper(SIZE).keep(frame_of(chart(dots)), (x0, y0, x1, y1))
    landmarks = np.tile(moved(face_points(width=size), degrees, centre_x, centre_y), (20, 1, 1))
    transforms = lip_transforms(landmarks.astype(np.float32), ONE_SHOT, SIZE, sigma=0.6)
    picture = cut(patch, transforms[0], SIZE)
    for expected in mapped(transforms[0], dots):
        if (expected < 8).any() or (expected > SIZE - 9).any():
            continue
        x, y = np.round(expected).astype(int)
        spot = picture[y - 7 : y + 8, x - 7 : x + 8, 1].astype(float)
        weights = np.clip(spot - spot.min() - 0.5 * np.ptp(spot), 0, None)
        rows, columns = np.mgrid[-7:8, -7:8]
        found = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
        assert np.abs(found + np.array([x, y]) - expected).max() < 0.4


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "rgb24", "yuv420p10le"])
def test_colours_survive(pixel_format: str) -> None:
    """Patch, warp and conversion keep colours."""
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[:] = (200, 120, 40)
    patch = PatchKeeper(SIZE).keep(frame_of(rgb, pixel_format), (200, 120, 300, 220))
    picture = cut(patch, np.array([[1.0, 0, -190], [0, 1.0, -110]]), SIZE)
    assert np.abs(picture.astype(int) - rgb[0, 0]).max() <= 4


def test_outside_the_picture_the_border_is_repeated() -> None:
    """A face at the edge gives a whole crop without black."""
    rgb = np.full((480, 640, 3), 150, np.uint8)
    patch = PatchKeeper(SIZE).keep(frame_of(rgb), (-40, -30, 80, 90))
    boxes = np.tile([-40.0, -30.0, 80.0, 90.0], (20, 1))
    picture = cut(patch, face_transforms(boxes, ONE_SHOT, SIZE, 0.6)[0], SIZE)
    assert np.abs(picture.astype(int) - 150).max() <= 3


def test_long_clips_keep_patches_as_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the budget the memory falls by a factor of ten and the picture hardly changes."""
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (640, 480))
    frame, box = frame_of(np.asarray(rgb, np.uint8)), (200.0, 120.0, 330.0, 250.0)
    raw = PatchKeeper(SIZE).keep(frame, box)
    monkeypatch.setattr(crops, "RAW_PATCH_BYTES", -1)
    packed = PatchKeeper(SIZE).keep(frame, box)
    assert all(isinstance(plane, bytes) for plane in packed.planes)
    assert sum(len(bytes(p)) for p in packed.planes) < sum(len(bytes(p)) for p in raw.planes) / 5
    matrix = np.array([[0.6, 0, -100], [0, 0.6, -60]])
    assert np.abs(cut(raw, matrix, SIZE).astype(int) - cut(packed, matrix, SIZE)).mean() < 2
