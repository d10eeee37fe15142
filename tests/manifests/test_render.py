"""What is rendered is what is written down about it, and the truth readers read the truth."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.render import clips, clock, flash, objects, sounds, voice
from manifests.render.encode import EncodeError, Encoding, encode, run
from manifests.render.head import Head, HeadFrame
from manifests.render.stage import Stage, irregular

dlib = pytest.importorskip("dlib")
LANDMARKS = "models/shape_predictor_68_face_landmarks.dat"
UPPER_INNER_LIP, LOWER_INNER_LIP, EYE_CORNERS = (61, 62, 63), (67, 66, 65), (36, 45)


def matrix(name: str) -> flash.FlashClip:
    """Return a clip of the matrix by name."""
    return next(clip for clip in flash.MATRIX if clip.name == name)


# The voice


def test_voice_is_a_function_of_its_seed() -> None:
    first, again, other = (voice.speak(seed, 3.0, 150.0) for seed in (1, 1, 2))
    assert np.array_equal(first.samples, again.samples)
    assert first.words == again.words != other.words


def test_syllables_start_when_they_say() -> None:
    utterance = voice.speak(4, 6.0, 150.0)
    rate = utterance.rate_hz
    loudness = np.convolve(utterance.samples**2, np.ones(rate // 100) / (rate // 100), "same")
    for word in utterance.words:
        at = round(word.start_seconds * rate)
        before, after = loudness[at - rate // 40], loudness[at + rate // 40]
        assert after > 4 * before, word


def test_mouth_is_shut_for_b_and_m_and_wide_for_a() -> None:
    utterance = voice.speak(5, 11.0, 150.0)
    for word in utterance.words:
        if word.text[0] in "bm":
            assert utterance.opening_at(word.start_seconds + 0.005) < 0.15, word
        if word.text[1] == "a":
            middle = (word.start_seconds + word.end_seconds) / 2 + 0.02
            assert utterance.opening_at(middle) > 0.6, word
    assert utterance.opening.min() >= 0 and utterance.opening.max() <= 1


# The head


@pytest.fixture(scope="module")
def landmarks() -> Callable[[HeadFrame], tuple[np.ndarray, np.ndarray] | None]:
    """Give dlib's face box and 68 landmarks of a frame, or None where it sees no face."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("face_recognition_models is not installed")
    predict = dlib.shape_predictor(str(Path(spec.submodule_search_locations[0]) / LANDMARKS))
    detect = dlib.get_frontal_face_detector()

    def find(frame: HeadFrame) -> tuple[np.ndarray, np.ndarray] | None:
        found = detect(np.ascontiguousarray(frame.image), 0)
        if not found:
            return None
        box = max(found, key=lambda face: face.area())
        points = np.array([(p.x, p.y) for p in predict(frame.image, box).parts()], float)
        return np.array([box.left(), box.top(), box.right(), box.bottom()], float), points

    return find


def lip_distance(points: np.ndarray) -> float:
    """Return the opening of the inner lips in units of the distance of the eyes."""
    gap = points[list(LOWER_INNER_LIP)] - points[list(UPPER_INNER_LIP)]
    left, right = points[list(EYE_CORNERS)]
    return float(np.linalg.norm(gap, axis=1).mean() / np.linalg.norm(right - left))


@pytest.mark.parametrize("who", sorted(clips.SPEAKERS))
def test_dlib_sees_the_face_and_its_mouth_moves(who: str, landmarks: Callable[..., Any]) -> None:
    clip = next(clip for clip in clips.CLIPS if clip.who == who and clip.size[1] <= 360)
    look = clips.SPEAKERS[who]
    utterance = voice.speak(clip.seed, clip.seconds, look.pitch_hz)
    head = Head(look, clip.size, clips.ZOOM[clip.size[1]], clip.seed)
    drawn = list(head.render(utterance, fps=5.0, frames=50))
    seen = [(frame, found) for frame in drawn if (found := landmarks(frame)) is not None]
    assert len(seen) == len(drawn)
    openings = [frame.opening for frame, _ in seen]
    distances = [lip_distance(points) for _, (_, points) in seen]
    assert np.corrcoef(openings, distances)[0, 1] > 0.9
    assert min(distances) < 0.06 and max(distances) > 0.2, "the lips meet and part"
    assert all(frame.box[2] - frame.box[0] >= 100 for frame in drawn)
    assert np.median([overlap(frame.box, box) for frame, (box, _) in seen]) > 0.7


def overlap(one: tuple[float, ...], other: np.ndarray) -> float:
    """Return intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    areas = [float((b[2] - b[0]) * (b[3] - b[1])) for b in (one, other)]
    return shared / (sum(areas) - shared)


def test_only_the_head_moves() -> None:
    look = clips.SPEAKERS["ada"]
    head = Head(look, (640, 480), 2.0, seed=1)
    utterance = voice.speak(1, 3.0, look.pitch_hz)
    first, *_, last = (frame.image.astype(int) for frame in head.render(utterance, 5.0, 15))
    change = np.abs(first - last).max(axis=2)
    assert change[:, -60:].max() < 12, "the background only changes its brightness"
    assert change[100:300, 200:440].max() > 60


# Things


@pytest.mark.parametrize("kind", objects.KINDS)
def test_box_holds_what_changes_at_an_event(kind: str) -> None:
    stage = Stage(kind, (320, 240), (0.9, 1.5, 2.2), seed=7)
    before, after = 0.899, 0.9
    silent = Stage(kind, (320, 240), (5.0,), seed=7)
    assert stage.on_left == silent.on_left
    drawn = list(stage.render(1000.0, 905))
    image, box = drawn[round(1000 * after)]
    previous, _ = drawn[round(1000 * before)]
    if kind == "ball":  # a ball shows its event by turning round, not by its looks
        heights = [drawn[n][1][3] for n in (860, 900, 904)]
        assert heights[1] == max(heights)
        return
    change = np.abs(image.astype(int) - previous.astype(int)).max(axis=2)
    rows, columns = np.nonzero(change > 60)
    assert len(rows) > 20, "something is to be seen"
    x0, y0, x1, y1 = box
    inside = (columns >= x0 - 2) & (columns <= x1 + 2) & (rows >= y0 - 2) & (rows <= y1 + 2)
    assert inside.all()


def test_ball_touches_the_floor_exactly_at_its_events() -> None:
    events = irregular(3, 6.0, 0.5, 0.85)
    frames = Stage("ball", (320, 240), events, seed=3).render(100.0, 600)
    bottoms = np.array([box[3] for _, box in frames])
    for event in events:
        around = round(100 * event) + np.arange(-20, 21)
        lowest = around[np.argmax(bottoms[around])] / 100
        assert lowest == pytest.approx(event, abs=0.011)
        assert bottoms[around].max() == pytest.approx(0.88 * 240, abs=5)


@pytest.mark.parametrize("kind", sorted(sounds.SOUNDS))
def test_sound_starts_at_its_events(kind: str) -> None:
    rate, events = 44100, (0.5, 1.75)
    track = sounds.soundtrack(kind, events, 3.0, 180.0, rate, seed=1)
    loud = np.flatnonzero(np.abs(track) > 0.1)
    assert loud[0] / rate == pytest.approx(0.5, abs=0.002)
    second = loud[loud > 1.7 * rate][0] / rate
    assert second == pytest.approx(1.75, abs=0.002) or kind == "bell"
    assert np.abs(track).max() <= 1


# Files


@pytest.mark.parametrize("video", ["h264", "vp8", "vp9"])
def test_same_input_same_bytes_also_on_a_busy_machine(video: str, tmp_path: Path) -> None:
    """Some encoders choose their speed by the clock."""
    noise = np.random.default_rng(0).integers(0, 128, (8, 360, 640, 3), np.uint8)
    frames = [noise[k % 8] + np.uint8(k) for k in range(100)]
    encoding = Encoding(".mkv", video=video)
    one = encode(tmp_path / "idle.mkv", encoding, frames, None, 22_050).read_bytes()
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(6)]
    try:
        two = encode(tmp_path / "busy.mkv", encoding, frames, None, 22_050).read_bytes()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert one == two


def test_rotated_file_is_seen_upright(tmp_path: Path) -> None:
    picture = np.full((160, 96, 3), 40, np.uint8)
    picture[:40, :24] = 250  # top left as seen
    encoding = Encoding(".mp4", rotation=90, fps=Fraction(10))
    path = encode(tmp_path / "turned.mp4", encoding, [picture] * 3, None, 44100)
    out = tmp_path / "seen.rgb"
    run(["-i", str(path), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", str(out)])
    seen = np.fromfile(out, np.uint8).reshape(160, 96, 3)
    assert seen[5:30, 5:18].min() > 200
    assert seen[60:].max() < 100 and seen[:, 40:].max() < 100


def test_refusal_carries_the_words_of_the_program(tmp_path: Path) -> None:
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3
    with pytest.raises(EncodeError, match="webm"):
        encode(tmp_path / "wrong.webm", Encoding(".webm", "h264", "aac"), frames, None, 44100)
    assert not (tmp_path / "wrong.webm").exists()


# The truth readers


@pytest.mark.parametrize("name", ["mp4_25", "mp4_2997", "mov_30_pcm", "mp4_mp3", "mp4_open_gop"])
def test_truth_of_plain_files_is_the_nominal_event(name: str, tmp_path: Path) -> None:
    clip = matrix(name)
    path = flash.make(clip, tmp_path)
    nominal = flash.events(clip.fps, clip.seconds)
    unit = Fraction(1, 10000)  # pts are rounded to the container's time base
    assert all(
        abs(found - event) < unit
        for found, event in zip(flash.flash_times(path), nominal, strict=True)
    )
    assert flash.beep_times(path) == pytest.approx([float(event) for event in nominal], abs=1e-3)


@pytest.mark.parametrize(("name", "picture", "sound"), [
    ("mp4_video_late", 0.5, 0.0), ("mp4_audio_late", 0.0, 0.5), ("mkv_audio_gap", 0.0, 0.0),
])  # fmt: skip
def test_truth_of_shifted_streams(name: str, picture: float, sound: float, tmp_path: Path) -> None:
    clip = matrix(name)
    path = flash.make(clip, tmp_path)
    nominal = np.array([float(event) for event in flash.events(clip.fps, clip.seconds)])
    assert [float(t) for t in flash.flash_times(path)] == pytest.approx(nominal + picture, abs=1e-3)
    assert flash.beep_times(path) == pytest.approx(nominal + sound, abs=1e-3)


def test_truth_keeps_the_clock_of_a_transport_stream(tmp_path: Path) -> None:
    clip = matrix("ts_h264")
    path = flash.make(clip, tmp_path)
    first = clock.pictures(path)[0][0]
    assert first > 1  # the muxer starts at 1.4 s and more
    nominal = flash.events(clip.fps, clip.seconds)
    assert [time - first for time in flash.flash_times(path)] == nominal
    beeps = [time - float(first) for time in flash.beep_times(path)]
    assert beeps == pytest.approx([float(event) for event in nominal], abs=1e-3)
    assert 0 < clock.picture_offset_seconds(path, clip.fps) < 0.05  # AAC starts one frame earlier


def test_dropped_pictures_delay_a_flash_by_whole_pictures(tmp_path: Path) -> None:
    clip = matrix("mp4_vfr")
    path = flash.make(clip, tmp_path)
    times = [time for time, _ in clock.pictures(path)]
    assert len({b - a for a, b in pairwise(times)}) > 1
    for found, event in zip(
        flash.flash_times(path), flash.events(clip.fps, clip.seconds), strict=True
    ):
        assert (found - event) * clip.fps in (0, 1, 2)


def test_beep_of_a_wave_file_is_exact_to_the_sample(tmp_path: Path) -> None:
    import soundfile

    rate = 48000
    wave = np.zeros(2 * rate, np.float32)
    for start in (12345, 60001):
        wave[start : start + rate // 20] = np.sin(2 * np.pi * np.arange(rate // 20) / 48)
    path = tmp_path / "beeps.wav"
    soundfile.write(path, wave, rate)
    assert flash.beep_times(path) == pytest.approx([12345 / rate, 60001 / rate], abs=2.5e-4)


def test_matrix_covers_what_people_have() -> None:
    names = [clip.name for clip in flash.MATRIX]
    assert len(names) == len(set(names)) >= 30
    assert {clip.container for clip in flash.MATRIX} >= {
        "mp4", "mkv", "mov", "webm", "avi", "ts", "mpg"
    }  # fmt: skip
    assert len({clip.fps for clip in flash.MATRIX}) == 10
    assert {clip.variation for clip in flash.MATRIX} == {"plain", *flash.VARIATIONS}


@pytest.mark.slow
@pytest.mark.parametrize("clip", flash.MATRIX, ids=lambda clip: clip.name)
def test_every_matrix_file_has_flashes_and_beeps(clip: flash.FlashClip, tmp_path: Path) -> None:
    path = flash.make(clip, tmp_path)
    flashes, beeps = flash.flash_times(path), flash.beep_times(path)
    wanted = len(flash.events(clip.fps, clip.seconds))
    if "cut" in clip.variation:
        wanted -= 2
    assert len(beeps) == wanted
    assert wanted - 2 <= len(flashes) <= wanted  # a stream cut before a key picture loses some
    shift = {"video_late": 0.5, "audio_late": -0.5}.get(clip.variation, 0.0)
    for time in flashes:
        assert min(abs(float(time) - shift - beep) for beep in beeps) < 0.15
