"""Finding and following faces, against dlib on every full picture and on staged scenes."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data

from pipeline import PROFILES, detector
from pipeline.config import Faces
from pipeline.detector import Box, Detection, ModelMissingError, landmarks_model_path, overlap
from pipeline.faces import FaceFollower, FaceTrack
from pipeline.format import decode_jpeg
from pipeline.frame import Frame
from pipeline.shots import ShotCounter
from pipeline.tracks import Sight, Track, filled_boxes, ranked

MEDIA = Path(__file__).parents[2].parent / "shared" / "media"
FPS = Fraction(10)
Picture = npt.NDArray[np.uint8]

needs_media = pytest.mark.skipif(not MEDIA.is_dir(), reason="the real media are not here")


# --- staged scenes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head() -> Picture:
    """The astronaut's head and collar, 160x160; dlib's box on it is about 90 pixels wide."""
    return np.ascontiguousarray(skimage.data.astronaut()[15:175, 145:305])


def backdrop(seed: int = 0) -> Picture:
    """A 480x270 background without faces."""
    coarse = np.random.default_rng(seed).integers(30, 220, (5, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (480, 270), interpolation=cv2.INTER_CUBIC), np.uint8)


def scene(*heads: tuple[Picture, float, float], seed: int = 0) -> Frame:
    """Heads pasted at (x, y) of their top left corner, to a fraction of a pixel."""
    picture = backdrop(seed)
    for face, x, y in heads:
        move = np.array([[1.0, 0, x], [0, 1.0, y]])
        cv2.warpAffine(face, move, (480, 270), dst=picture, borderMode=cv2.BORDER_TRANSPARENT)
    return Frame(av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p"))


def follow(
    frames: list[Frame],
    faces: Faces = "on",
    *,
    point: tuple[float, float] | None = None,
    fps: Fraction = FPS,
    **changes: Any,
) -> list[FaceTrack]:
    """The tracks of a sequence of one picture a tick."""
    config = dataclasses.replace(PROFILES["glcm"], faces=faces, **changes)
    follower = FaceFollower(config, fps, point)
    for tick, frame in enumerate(frames):
        follower.see(tick, frame)
    return follower.finish(len(frames))


def states(track: FaceTrack) -> str:
    """One letter a tick: d, f or n."""
    return "".join(state[0] for state in track.states)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts looks, searches around a box and landmark predictions."""
    counts = {"look": 0, "near": 0, "predict_landmarks": 0}

    def counted(name: str) -> None:
        original = getattr(detector, name)

        def wrapper(*args: Any) -> Any:
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(detector, name, wrapper)

    for name in counts:
        counted(name)
    return counts


def test_follows_a_moving_face(head: Picture) -> None:
    """Found everywhere; boxes and landmarks as dlib gives them on every full picture."""
    frames = [scene((head, 60 + 9 * t, 50 + 3 * np.sin(t))) for t in range(20)]
    (track,) = follow(frames)
    assert states(track) == "d" * 20
    assert track.landmarks.shape == (20, 68, 2) and track.landmarks.dtype == np.float32
    errors = []
    for tick, frame in enumerate(frames):
        truth, points = full_detection(frame)
        assert overlap(truth.box, as_box(track.boxes[tick])) > 0.5
        errors.append(normalised_error(track.landmarks[tick], points))
    assert np.mean(errors) < 0.04
    for jpegs in (track.face_jpegs, track.lip_jpegs):
        assert all(jpeg and decode_jpeg(jpeg).shape == (112, 112, 3) for jpeg in jpegs)
    assert all(score is not None and score > 0 for score in track.scores)


def test_results_are_repeatable_and_json_ready(head: Picture) -> None:
    """Same pictures, same bytes; plain lists and numbers where they go into the JSON."""
    frames = [scene((head, 100 + 3 * t, 60)) for t in range(6)]
    first, second = follow(frames)[0], follow(frames)[0]
    assert first.boxes == second.boxes and first.lip_jpegs == second.lip_jpegs
    assert np.array_equal(first.landmarks, second.landmarks)
    transform = first.lip_transforms[0]
    assert transform is not None and isinstance(transform[0][0], float) and len(transform) == 2
    assert isinstance(first.boxes[0], list)


def test_transforms_are_those_of_the_pictures(head: Picture) -> None:
    """Cutting the source through the stored transform gives the stored crop."""
    frames = [scene((head, 100, 60)) for _ in range(4)]
    (track,) = follow(frames)
    whole = frames[2].yuv_region((0, 0, 480, 270), 480, 270).rgb()
    for jpegs, transforms in (
        (track.face_jpegs, track.face_transforms),
        (track.lip_jpegs, track.lip_transforms),
    ):
        jpeg = jpegs[2]
        assert jpeg is not None
        expected = cv2.warpAffine(whole, np.array(transforms[2]), (112, 112))
        assert np.abs(decode_jpeg(jpeg).astype(int) - expected).mean() < 4


def test_without_lips(head: Picture) -> None:
    """A profile without lips has neither crops nor transforms of them."""
    (track,) = follow([scene((head, 100, 60))] * 4, lips=False)
    assert track.lip_jpegs == [] and track.lip_transforms == [None] * 4
    assert all(track.face_jpegs)


def test_repeated_pictures_are_not_searched_again(head: Picture, calls: dict[str, int]) -> None:
    """A slow source repeats pictures on the grid; their faces are copied."""
    shown = [scene((head, 100 + 4 * t, 60)) for t in range(3)]
    (track,) = follow([shown[t // 5] for t in range(15)])
    assert states(track) == "d" * 15
    assert calls["near"] <= 2 + 1 + 2
    assert track.boxes[0] == track.boxes[4] != track.boxes[5]


def test_auto_looks_once_a_second(calls: dict[str, int]) -> None:
    """Where there is no face nothing else happens, and the landmark model stays on disk."""
    assert follow([scene(seed=1) for _ in range(40)], "auto") == []
    assert calls["look"] == 4
    assert calls["predict_landmarks"] == 0


def test_auto_follows_back_to_where_a_face_appeared(head: Picture) -> None:
    """A face that comes between two looks is found from its first picture on."""
    empty, full = scene(), [scene((head, 100 + 2 * t, 60)) for t in range(30)]
    (track,) = follow([empty] * 13 + full[13:], "auto")
    assert states(track) == "n" * 13 + "d" * 17


def test_on_finds_a_late_face_as_well(head: Picture) -> None:
    """However long nobody was there."""
    (track,) = follow([scene() for _ in range(27)] + [scene((head, 90 + t, 60)) for t in range(13)])
    assert states(track) == "n" * 27 + "d" * 13


def test_repeated_pictures_are_followed_back_too(head: Picture) -> None:
    """A face that came while nobody looked, in a source slower than the grid."""
    shown = [scene((head, 100 + 2 * t, 60)) for t in range(15)]
    empty = scene()
    (track,) = follow([empty] * 14 + [shown[t // 2] for t in range(14, 30)], "auto")
    assert states(track) == "n" * 14 + "d" * 16


def test_short_gaps_are_filled_long_ones_not(head: Picture) -> None:
    """A hand before the face for 0.2 s, and somebody gone for a second."""
    frames = [scene((head, 100 + t, 60)) for t in range(30)]
    for tick in (5, 6, *range(14, 24)):
        frames[tick] = scene()
    (track,) = follow(frames)
    assert states(track) == "d" * 5 + "ff" + "d" * 7 + "n" * 10 + "d" * 6
    assert track.scores[5] is None and track.boxes[5] is not None and track.face_jpegs[5]
    assert track.boxes[15] is None and track.face_jpegs[15] is None
    assert np.isnan(track.landmarks[15]).all() and np.isfinite(track.landmarks[5]).all()


def test_a_track_ends_at_a_cut(head: Picture) -> None:
    """Another place in another scene is another face; the longer one is stored."""
    before = [scene((head, 40, 40), seed=1) for _ in range(12)]
    after = [scene((head, 290, 80), seed=2) for _ in range(18)]
    (track,) = follow(before + after)
    assert states(track) == "n" * 12 + "d" * 18
    assert all(box is None or box[0] > 250 for box in track.boxes)


def test_a_track_goes_on_over_a_cut_in_its_place(head: Picture) -> None:
    """A new background behind the same face ends nothing."""
    frames = [scene((head, 150, 60), seed=1 + t // 10) for t in range(20)]
    (track,) = follow(frames)
    assert states(track) == "d" * 20


@pytest.fixture
def two_people(head: Picture) -> list[Frame]:
    """A large face on the left, a smaller one on the right."""
    small = np.asarray(cv2.resize(head, (136, 136), interpolation=cv2.INTER_AREA), np.uint8)
    return [scene((head, 40 + t, 60), (small, 310 - t, 70)) for t in range(20)]


@pytest.mark.parametrize(("point", "left"), [((0.25, 0.5), True), ((0.78, 0.5), False)])
def test_the_point_chooses_the_speaker(
    two_people: list[Frame], point: tuple[float, float], left: bool
) -> None:
    """AVSpeech says where the speaker's face is in the first second."""
    (track,) = follow(two_people, point=point)
    assert track.chosen_by == "point" and states(track) == "d" * 20
    assert (as_box(track.boxes[0])[0] < 240) == left


def test_without_a_point_the_largest_is_chosen(two_people: list[Frame]) -> None:
    """Size times length."""
    (track,) = follow(two_people)
    assert track.chosen_by == "largest" and as_box(track.boxes[10])[0] < 240


def test_two_tracks(two_people: list[Frame]) -> None:
    """The deepfake profile stores both people, the larger first."""
    tracks = follow(two_people, face_tracks=2)
    assert [states(track) for track in tracks] == ["d" * 20] * 2
    assert as_box(tracks[0].boxes[0])[0] < 240 < as_box(tracks[1].boxes[0])[0]


def test_ticks_beyond_the_end_are_dropped(head: Picture) -> None:
    """The clip may turn out shorter than what was seen."""
    follower = FaceFollower(dataclasses.replace(PROFILES["glcm"], faces="on"), FPS)
    for tick in range(10):
        follower.see(tick, scene((head, 100, 60)))
    (track,) = follower.finish(7)
    assert len(track.states) == len(track.boxes) == len(track.landmarks) == 7
    assert len(track.lip_jpegs) == len(track.face_transforms) == 7
    assert FaceFollower(PROFILES["glcm"], FPS).finish(0) == []


# --- rules ------------------------------------------------------------------------------------


def track_of(scores: dict[int, float], box: Box = (0, 0, 100, 100), shot: int = 0) -> Track:
    """A track with detections at ticks."""
    track = Track()
    for tick, score in scores.items():
        track.add(tick, Sight(Detection(box, score), None, shot))  # type: ignore[arg-type]
    return track


def test_a_face_needs_three_detections_or_a_strong_one() -> None:
    """Chance hits of the detector come alone and weak."""
    assert ranked([track_of({3: 0.4, 4: 0.3})], 10, None, 10) == []
    assert len(ranked([track_of({3: 1.2})], 10, None, 10)) == 1
    assert len(ranked([track_of({3: 0.2, 4: 0.1, 5: 0.3})], 10, None, 10)) == 1
    assert ranked([track_of({3: 0.2, 4: 0.1, 5: 0.3})], 5, None, 10) == []


def test_the_point_counts_in_its_second_only() -> None:
    """Who comes later cannot be meant; then the size decides."""
    late = track_of({12: 1.5}, (200, 0, 300, 100))
    wide = track_of({12: 1.5, 13: 1.5}, (0, 0, 100, 100))
    assert ranked([late, wide], 20, (250, 50), 10) == [(wide, "largest"), (late, "largest")]
    assert ranked([late, wide], 20, (250, 50), 13)[0] == (late, "point")
    assert ranked([late, wide], 20, (250, 250), 13)[0] == (wide, "largest")


def test_filling_stays_in_one_shot() -> None:
    """A gap over a cut is no gap of one face."""
    track = track_of({0: 1.0, 1: 1.0})
    track.sights[2] = Sight(None, track.sights[1].patch, 0)
    track.add(3, Sight(Detection((30, 0, 130, 100), 1.0), track.sights[1].patch, 0))
    assert filled_boxes(track, 4, 3) == {2: (15, 0, 115, 100)}
    track.sights[3] = dataclasses.replace(track.sights[3], shot=1)
    assert filled_boxes(track, 4, 3) == {}


def test_cuts_are_told_from_flashes_and_pans() -> None:
    """Structure and brightness must both change."""
    picture = backdrop(3)
    flash = np.clip(picture.astype(int) + 60, 0, 255).astype(np.uint8)
    pan = np.roll(picture, 15, axis=1)
    shots = ShotCounter()
    seen = [picture, picture, flash, picture, pan, backdrop(4)]
    cuts = [
        shots.see(Frame(av.VideoFrame.from_ndarray(p).reformat(format="yuv420p"))) for p in seen
    ]
    assert cuts == [False, False, False, False, False, True]
    assert shots.shot == 1


def test_a_missing_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the file, the package and the variable."""
    assert landmarks_model_path().is_file()
    monkeypatch.setenv("GLAV_LANDMARKS", str(tmp_path / "mine.dat"))
    with pytest.raises(
        ModelMissingError, match=r"mine\.dat.*face_recognition_models.*GLAV_LANDMARKS"
    ):
        landmarks_model_path()
    assert landmarks_model_path(__file__) == Path(__file__)


# --- the real thing ---------------------------------------------------------------------------


def as_box(sides: list[float] | None) -> Box:
    """A stored box."""
    assert sides is not None
    x0, y0, x1, y1 = sides
    return x0, y0, x1, y1


def full_detection(frame: Frame) -> tuple[Detection, npt.NDArray[np.float32]]:
    """Run dlib on the full picture, enlarged twice where it is small: the plain way."""
    gray = np.ascontiguousarray(frame.gray())
    enlarge = int(gray.size < 500_000)
    rectangles, scores, _ = detector._detector().run(gray, enlarge, 0.0)
    best = int(np.argmax(scores))
    r = rectangles[best]
    box = (float(r.left()), float(r.top()), r.right() + 1.0, r.bottom() + 1.0)
    return Detection(box, scores[best]), detector.predict_landmarks(gray, box)


def normalised_error(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> float:
    """Mean distance over the distance of the outer eye corners."""
    eyes = np.linalg.norm(theirs[45] - theirs[36])
    return float(np.linalg.norm(ours - theirs, axis=1).mean() / eyes)


def real_frames(path: Path, every: int, count: int) -> Iterator[Frame]:
    """Every so-manieth picture of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for number, picture in enumerate(container.decode(stream)):
            if number // every >= count:
                return
            if number % every == 0:
                yield Frame(picture, stream.sample_aspect_ratio)


TALKING = [
    ("grid-s1-h264/video/bbaf2n.mp4", 1, 40),
    ("lipnet-grid/**/lbax4n.mpg", 2, 25),
    ("sadtalker/**/WDA_*.mp4", 3, 30),
    ("**/original_sequences/**/004.mp4", 3, 12),
]


@needs_media
@pytest.mark.parametrize(("pattern", "every", "count"), TALKING)
@pytest.mark.parametrize("faces", ["on", "auto"])
def test_as_good_as_detecting_on_every_full_picture(
    pattern: str, every: int, count: int, faces: Faces
) -> None:
    """Coverage and landmarks on people who talk."""
    path = next(iter(sorted(MEDIA.glob(pattern))), None)
    if path is None:
        pytest.skip(f"no {pattern}")
    frames = list(real_frames(path, every, count))
    (track,) = follow(frames, faces, fps=Fraction(25, every))
    assert "n" not in states(track)
    chosen = range(0, len(frames), 4)
    errors = [normalised_error(track.landmarks[t], full_detection(frames[t])[1]) for t in chosen]
    assert np.mean(errors) < 0.035
    sizes = [decode_jpeg(jpeg).shape for jpeg in track.lip_jpegs if jpeg]
    assert sizes == [(112, 112, 3)] * len(frames)


@needs_media
@pytest.mark.parametrize("name", ["v_Biking_g01_c01.avi", "drum.mp4", "nasa_13013.mp4"])
def test_no_false_alarms_on_real_video(name: str) -> None:
    """Nobody is there."""
    path = next(iter(sorted(MEDIA.glob(f"**/{name}"))), None)
    if path is None:
        pytest.skip(f"no {name}")
    assert follow(list(real_frames(path, 5, 30)), "auto") == []
