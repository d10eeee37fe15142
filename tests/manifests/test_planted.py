"""The planted corpus: what is written down is what is seen and heard, and splits share nothing."""

from __future__ import annotations

import colorsys
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from manifests import UsageError
from manifests.build import build
from manifests.dataset import ScanOptions
from manifests.planted import busy_seconds
from manifests.render.kept import Renderer
from manifests.render.planted import (
    CLASSES,
    FPS,
    RATE_HZ,
    SIDE,
    Clip,
    Stage,
    describe,
    render,
    sound,
    voice_of,
)  # fmt: skip
from manifests.render.planted_bodies import BODIES
from manifests.render.planted_scenes import SCENES, paint
from manifests.render.planted_script import CONTROL_HZ, SHAPES, WORDS, write
from manifests.render.planted_sounds import RING_DB, RINGS_HZ, TIMBRES, ringing

SECONDS = 4.0
NUMBERS = (0, 1, 6)
"""Noise, checks and a human voice."""


def test_twenty_words_whose_pictures_alone_tell_five_sets_apart() -> None:
    assert len(set(WORDS)) == 20
    sets = [frozenset(word) for word in WORDS]
    assert {sets.count(one) for one in sets} == {4} and {len(one) for one in sets} == {3}
    assert set("".join(WORDS)) == set(SHAPES)


def test_classes_are_scenes_bodies_and_timbres_one_to_one() -> None:
    kinds = list(CLASSES.values())
    assert len(kinds) == 10
    assert {kind.scene for kind in kinds} == set(SCENES)
    assert {kind.body for kind in kinds} == set(BODIES)
    assert {kind.timbre for kind in kinds} == set(TIMBRES)


def hue_and_chroma(colours: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of colours (N, 3): hue as a part of the circle, and the largest less the smallest."""
    hue = [colorsys.rgb_to_hsv(*(colour / 255))[0] for colour in colours]
    return np.array(hue), np.ptp(colours, axis=1)


def test_a_class_has_a_hue_that_no_other_class_has() -> None:
    """A tenth of the colour circle each; performers lie apart within it."""
    clips = [Clip(number, 7.0, 0) for number in range(300)]
    drawn = np.array([voice_of(clip).look.colour for clip in clips])
    hues, _ = hue_and_chroma(drawn)
    place = np.array([list(BODIES).index(clip.kind.body) for clip in clips])
    off = (hues - place / len(BODIES) + 0.5) % 1 - 0.5
    assert np.abs(off).max() < 0.5 / len(BODIES) and len(np.unique(drawn, axis=0)) > 290


def test_scenes_are_muted_and_performers_are_not() -> None:
    scenes = [paint(np.random.default_rng(seed), kind, SIDE) for seed, kind in enumerate(SCENES)]
    _, muted = hue_and_chroma(np.array([scene.mean(axis=(0, 1)) for scene in scenes]))
    looks = [voice_of(Clip(number, 7.0, 0)).look for number in range(20)]
    _, clear = hue_and_chroma(np.array([look.colour for look in looks]))
    assert muted.max() < 50 < clear.min()


@pytest.mark.parametrize("ring_hz", RINGS_HZ.values())
def test_a_body_rings_in_its_band_alone(ring_hz: float) -> None:
    """Of white noise, which has as much in every band."""
    noise = np.random.default_rng(0).standard_normal(5 * RATE_HZ)
    power = np.abs(np.fft.rfft(ringing(noise, ring_hz, RATE_HZ))) ** 2
    octaves = np.log2(np.fft.rfftfreq(len(noise), 1 / RATE_HZ)[1:] / ring_hz)
    inside, outside = (power[1:][mask].mean() for mask in (abs(octaves) < 0.02, abs(octaves) > 1))
    assert 10 * np.log10(inside / outside) == pytest.approx(RING_DB, abs=1.0)


def test_ringing_leaves_the_level_as_it_is() -> None:
    noise = np.random.default_rng(1).standard_normal(RATE_HZ)
    assert np.mean(ringing(noise, 900, RATE_HZ) ** 2) == pytest.approx(np.mean(noise**2))
    assert not ringing(np.zeros(1000), 900, RATE_HZ).any()


@pytest.mark.parametrize("seed", range(5))
def test_bouts_and_pauses(seed: int) -> None:
    script = write(np.random.default_rng(seed), 30.0, 0.17)
    bouts = [(bout[0].onsets[0], bout[-1].end) for bout in script.bouts]
    lengths = [end - start for start, end in bouts[:-1]]  # the clip's end may cut the last one
    assert min(lengths) > 0.9 and max(lengths) < 3.2
    pauses = [after[0] - before[1] for before, after in pairwise(bouts)]
    assert min(pauses) >= 0.5 and max(pauses) <= 1.6
    assert bouts[-1][1] <= 30 - 0.25
    busy = sum(end - start for start, end in bouts) / 30
    assert 0.4 < busy < 0.8


def test_the_mouth_has_the_shape_of_its_letter() -> None:
    script = write(np.random.default_rng(3), 20.0, 0.16)
    tracks = script.tracks()
    for word in script.words:
        for letter, (start, end) in zip(word.text, pairwise([*word.onsets, word.end]), strict=True):
            middle = round((start + end) / 2 * CONTROL_HZ)
            assert tracks["height"][middle] == pytest.approx(SHAPES[letter].height, abs=1e-6)
            assert tracks["width"][middle] == pytest.approx(SHAPES[letter].width, abs=1e-6)
            assert 0.5 <= tracks["loudness"][middle] / SHAPES[letter].loudness <= 1


def test_splits_share_no_performer_and_hold_every_class() -> None:
    clips = [Clip(number, 7.0, 0) for number in range(600)]
    groups: dict[str, set[str]] = {}
    for clip in clips:
        groups.setdefault(clip.who, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in groups.values()) and len(groups) == 600
    for split, share in (("train", 400), ("val", 100), ("test", 100)):
        chosen = [clip.label for clip in clips if clip.split == split]
        assert len(chosen) == share and set(chosen) == set(range(10))
    voices = {clip.who: voice_of(clip) for clip in clips}
    assert len({voice.pitch_hz for voice in voices.values()}) == 600


def test_no_sequence_of_words_is_in_two_splits() -> None:
    said: dict[tuple[str, ...], set[str]] = {}
    for number in range(600):
        clip = Clip(number, 7.0, 0)
        words = write(clip.random(0), clip.seconds, voice_of(clip).tempo).words
        said.setdefault(tuple(word.text for word in words), set()).add(clip.split)
    assert max(len(splits) for splits in said.values()) == 1


def test_seconds_that_bouts_fill_by_hand() -> None:
    assert busy_seconds([(0.6, 2.4), (2.7, 3.2), (4.5, 6.9)], 7.0) == [(1.0, 3.0), (4.0, 7.0)]
    assert busy_seconds([(0.2, 0.6)], 7.0) == []
    assert busy_seconds([(5.0, 6.4)], 6.5) == [(5.0, 6.0)]  # the last half second has no label


# --- files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("planted")
    clips = [Clip(number, SECONDS, 5) for number in NUMBERS]
    return root, Renderer(render, describe).kept(root, clips, workers=1)


def read(path: Path) -> tuple[list[float], list[NDArray[np.uint8]], NDArray[np.float64], int]:
    """Times and pictures, waveform (channels, samples) and its rate, all from the same zero."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    with av.open(str(path)) as file:
        blocks = list(file.decode(audio=0))
    rate = blocks[0].sample_rate
    begins = [round(seconds_of(block) * rate) for block in blocks]
    zero = min(seconds_of(frames[0]), begins[0] / rate)
    wave = np.zeros((2, begins[-1] + blocks[-1].samples - round(zero * rate)))
    for begin, block in zip(begins, blocks, strict=True):
        place = begin - round(zero * rate)
        wave[:, place : place + block.samples] = block.to_ndarray()
    times = [seconds_of(frame) - zero for frame in frames]
    pictures = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]
    return times, pictures, wave, rate


def seconds_of(decoded: av.VideoFrame | av.AudioFrame) -> float:
    """Of the container's clock."""
    assert decoded.pts is not None and decoded.time_base is not None
    return float(decoded.pts * decoded.time_base)


def test_sound_begins_where_the_truth_says(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    root, facts = corpus
    for fact in facts:
        _, _, wave, rate = read(root / fact["uri"])
        assert rate == 24000 and wave.shape[1] >= SECONDS * rate - 1
        hop = rate // 200
        power = (wave.sum(0)[: wave.shape[1] // hop * hop].reshape(-1, hop) ** 2).mean(1)
        rise = np.diff(np.log(power + 1e-6))
        found = []
        for event in fact["truth"]["events"]:
            near = rise[max(round(event * 200) - 12, 0) : round(event * 200) + 12]
            found.append((int(near.argmax()) - min(12, round(event * 200))) / 200)
        assert abs(float(np.median(found))) <= 0.015, fact["uri"]


def test_the_mouth_is_seen_where_and_when_the_truth_says(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    root, facts = corpus
    for fact in facts:
        times, pictures, _, _ = read(root / fact["uri"])
        assert len(pictures) == SECONDS * FPS and pictures[0].shape == (SIDE, SIDE, 3)
        boxes, mouth = (np.array(fact["truth"][name]) for name in ("boxes", "mouth"))
        dark = []
        for moment, picture in zip(times, pictures, strict=True):
            x0, y0, x1, y1 = (int(np.interp(moment, boxes[:, 0], edge)) for edge in boxes[:, 1:].T)
            lower = picture[(y0 + y1) // 2 : y1, x0:x1].max(axis=2)
            dark.append((lower < 45).mean())
        opening = np.interp(times, mouth[:, 0], mouth[:, 1])
        at = [np.corrcoef(opening[6:-6], np.roll(dark, -lag)[6:-6])[0, 1] for lag in range(-6, 7)]
        assert abs(int(np.argmax(at)) - 6) <= 1 and max(at) > 0.75, fact["uri"]


def test_sound_comes_from_where_the_performer_is(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    root, facts = corpus
    for fact in facts:
        _, _, wave, _ = read(root / fact["uri"])
        boxes = np.array(fact["truth"]["boxes"])
        place = float((boxes[:, 1] + boxes[:, 3]).mean() / 2 / SIDE)
        left, right = np.sqrt((wave**2).mean(axis=1))
        if abs(place - 0.5) > 0.06:
            assert (right > left) == (place > 0.5), fact["uri"]


def test_what_is_there_is_kept_and_what_is_not_is_made_the_same_again(
    corpus: tuple[Path, list[dict[str, Any]]],
) -> None:
    root, facts = corpus
    clips = [Clip(number, SECONDS, 5) for number in NUMBERS]
    first, second = (root / fact["uri"] for fact in facts[:2])
    before, kept = first.read_bytes(), second.stat().st_mtime_ns
    first.write_bytes(before[:100])
    assert Renderer(render, describe).kept(root, clips, workers=1) == facts
    assert first.read_bytes() == before and second.stat().st_mtime_ns == kept


def test_the_manifest_knows_it_all(
    corpus: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    root, facts = corpus
    options = ScanOptions(planted_clips=2, planted_seconds=SECONDS, planted_seed=5)
    table, report = build("planted", root, tmp_path / "m.parquet", options)
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == ["planted/00000", "planted/00001"]
    assert report.vocabulary == list(CLASSES) and rows[1]["label_names"] == ["robot"]
    for row, fact in zip(rows, facts, strict=False):
        assert row["words"] == fact["words"] and set(row["transcript"].split()) <= set(WORDS)
        assert row["group_id"] and len(row["splits"]) == 1
        truth = json.loads(row["extra"])["truth"]
        assert len(truth["boxes"]) == SECONDS * FPS / 2 and truth["bouts"] == fact["bouts"]
        assert all(segment["label"] == row["labels"][0] for segment in row["segments"])


@pytest.mark.parametrize(
    "wrong", [{"planted_clips": 0}, {"planted_seconds": 1.0}, {"planted_seed": -1}]
)
def test_sizes_that_make_no_corpus_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected 1 or more clips, 3 to 60 seconds"):
        ScanOptions(**wrong)


@pytest.mark.parametrize("light", [0.0, 1.0])
def test_the_light_follows_the_sound(light: float) -> None:
    clip = Clip(3, SECONDS, 5, nuisance=0.0, light=light)
    voice = voice_of(clip)
    script = write(clip.random(0), clip.seconds, voice.tempo)
    stage = Stage(clip, voice, script)
    corner = np.array([image[:8, :8].mean() for image, _ in stage.pictures()])
    heard = np.abs(sound(clip, voice, script, stage)).mean(1)
    loud = heard[: len(corner) * RATE_HZ // FPS].reshape(len(corner), -1).mean(1)
    if not light:
        assert np.ptp(corner) == 0
    else:
        assert np.corrcoef(corner, loud)[0, 1] > 0.6 and np.ptp(corner) > 0.2 * corner.min()


def test_a_share_of_nuisance_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"--planted-nuisance is 1\.5; expected 0"):
        ScanOptions(planted_nuisance=1.5)


def test_without_nuisance_only_the_performer_moves_and_sounds() -> None:
    """Outside its box nothing changes from picture to picture, and pauses are silent."""
    clip = Clip(3, SECONDS, 5, nuisance=0.0)
    voice = voice_of(clip)
    script = write(clip.random(0), clip.seconds, voice.tempo)
    stage = Stage(clip, voice, script)
    seen = list(stage.pictures())[:60]
    left, top, right, bottom = np.array([box for _, box in seen]).T
    outside = np.ones((SIDE, SIDE), bool)
    outside[
        int(top.min()) - 2 : int(bottom.max()) + 3, int(left.min()) - 2 : int(right.max()) + 3
    ] = False
    pictures = np.stack([image for image, _ in seen])
    assert outside.sum() > SIDE * SIDE / 4
    assert (pictures[:, outside] == pictures[0, outside]).all()
    assert not (pictures == pictures[0]).all()
    before = int(script.onsets[0] * RATE_HZ * 0.9)
    heard = sound(clip, voice, script, stage)
    assert np.abs(heard[:before]).max() < 1e-3 < np.abs(heard).max()


def test_its_options_leave_other_manifests_true() -> None:
    assert not any(name.startswith("planted") for name in ScanOptions().as_dict())
    assert ScanOptions(planted_clips=9).as_dict()["planted_clips"] == 9


def test_two_jobs_on_one_corpus_render_each_clip_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []
    begun = threading.Event()

    def slowly(clip: Clip, root: Path) -> dict[str, Any]:
        begun.set()
        made.append(clip.number)
        time.sleep(0.3)
        (root / f"{clip.name}.mp4").write_bytes(b"12345")
        return {"uri": f"{clip.name}.mp4", "bytes": 5}

    clips = [Clip(number, SECONDS, 5) for number in range(4)]
    renderer = Renderer(slowly, describe)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(renderer.kept, tmp_path, clips, 1)
        assert begun.wait(30)
        second = pool.submit(renderer.kept, tmp_path, clips, 1)
        assert first.result() == second.result() and len(first.result()) == 4
    assert sorted(made) == [0, 1, 2, 3]
    assert "waiting until it is through" in capfd.readouterr().err
