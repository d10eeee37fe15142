"""The clips of the planted corpus: which there are, and how one of them becomes a file.

A clip's number decides class, performer and split; number, seed and length decide everything else,
so that more clips can be rendered later without touching those that are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.render import clock, planted_sounds
from manifests.render.encode import Encoding, encode
from manifests.render.planted_bodies import Box, Colour, Image, Look, Pose, ball, draw, look
from manifests.render.planted_scenes import paint
from manifests.render.planted_script import SHAPE_SECONDS, Script, at, write

VERSION = 5
"""Raised when the same clip gives another file or another truth, so that it is made again."""


@dataclass(frozen=True)
class Kind:
    """What makes a class: three things that go together."""

    scene: str
    body: str
    timbre: str


CLASSES: dict[str, Kind] = {
    "ghost": Kind("clouds", "disc", "breath"),
    "robot": Kind("checks", "box", "square"),
    "organ": Kind("stripes", "tent", "chord"),
    "starling": Kind("confetti", "star", "stiff"),
    "bloom": Kind("slope", "flower", "chorus"),
    "crystal": Kind("lattice", "gem", "clang"),
    "cat": Kind("bricks", "cat", "glottis"),
    "keg": Kind("rings", "barrel", "rattle"),
    "medic": Kind("dots", "cross", "saw"),
    "toad": Kind("waves", "loaf", "croak"),
}
SPLIT_OF = ("train", "test", "train", "val", "train", "train")
"""Of the performers of a class, in turn."""
SIDE, FPS, RATE_HZ = 128, 30, 24000
"""Pixels, pictures a second, sample rate."""
ENCODING = Encoding(".mp4", fps=Fraction(FPS), extra=(("preset", "ultrafast"), ("crf", 25)))
TRUTH_EVERY = 2
"""Boxes are written down at every second picture."""
PITCH_HZ, TRACT = (85.0, 210.0), (0.88, 1.15)
"""Of a performer's voice."""
RIVALS, MOST_BALLS = 0.25, 2
"""Share of the clips with a silent performer of another class; most things drifting by."""
LIGHT = 0.6
"""Share by which the picture is brighter at the loudest, with all of `Clip.light`."""
HOP = 0.45
"""How far a performer at its loudest is above where it rests, in its radius: visible from afar."""


@dataclass(frozen=True)
class Clip:
    """One file of the corpus."""

    number: int
    seconds: float
    seed: int
    nuisance: float = 1.0
    """How much moves and sounds besides the performer: 0, nothing, to 1."""
    light: float = 0.0
    """How much the whole picture brightens as it sounds: 0, not at all, to 1."""

    @property
    def name(self) -> str:
        """The path without ending."""
        return f"{self.number:05d}"

    @property
    def label(self) -> int:
        """Number of its class."""
        return self.number % len(CLASSES)

    @property
    def label_name(self) -> str:
        """Name of its class."""
        return list(CLASSES)[self.label]

    @property
    def kind(self) -> Kind:
        """What its class is made of."""
        return CLASSES[self.label_name]

    @property
    def performer(self) -> int:
        """Counts within the class; each has one clip."""
        return self.number // len(CLASSES)

    @property
    def who(self) -> str:
        """The performer: colours and voice, the group that must not be split."""
        return f"{self.label_name}-{self.performer}"

    @property
    def split(self) -> str:
        """One of train, val, test."""
        return SPLIT_OF[self.performer % len(SPLIT_OF)]

    @property
    def cost(self) -> float:
        """For the order of rendering."""
        return self.seconds

    def random(self, *stream: int) -> np.random.Generator:
        """Random numbers of the clip alone, one stream for each use."""
        return np.random.default_rng([self.seed, 1, self.number, *stream])

    def of_performer(self) -> np.random.Generator:
        """Random numbers of the performer, whatever it says."""
        return np.random.default_rng([self.seed, 2, self.label, self.performer])


def describe(clip: Clip) -> dict[str, Any]:
    """The clip as plain JSON values: a file made from another description is made again."""
    return {**asdict(clip), "version": VERSION}


@dataclass(frozen=True)
class Voice:
    """What a performer looks and sounds like."""

    look: Look
    pitch_hz: float
    tract: float
    tempo: float
    """Seconds a mouth shape."""
    ring_hz: float
    """Of the body, see `planted_sounds.ringing`."""


def voice_of(clip: Clip) -> Voice:
    """Draw a performer."""
    random = clip.of_performer()
    ring_hz = float(planted_sounds.RINGS_HZ[clip.kind.timbre])
    return Voice(
        look(random, clip.kind.body),
        float(np.exp(random.uniform(*np.log(PITCH_HZ)))),
        float(random.uniform(*TRACT)),
        float(random.uniform(*SHAPE_SECONDS)),
        ring_hz * float(np.exp(random.normal(0, planted_sounds.RING_SPREAD))),
    )


def render(clip: Clip, folder: Path) -> dict[str, Any]:
    """Make the file of a clip.

    Args:
        clip: which.
        folder: root of the corpus.

    Returns:
        Plain values: `uri`, `bytes`, `words`, `bouts` and `truth`, with times in seconds from the
        earliest stream start of the file, boxes in pixels.
    """
    path = folder / f"{clip.name}{ENCODING.suffix}"
    voice = voice_of(clip)
    script = write(clip.random(0), clip.seconds, voice.tempo)
    stage = Stage(clip, voice, script)
    boxes: list[tuple[float, Box]] = []
    encode(path, ENCODING, _noted(stage, boxes), sound(clip, voice, script, stage), RATE_HZ)
    late = clock.picture_offset_seconds(path, ENCODING.fps)
    height = script.tracks()["height"]
    return {
        "uri": path.relative_to(folder).as_posix(),
        "bytes": path.stat().st_size,
        "words": [{"w": word.text, "start_s": round(word.onsets[0] + late, 4),
                   "end_s": round(word.end + late, 4)} for word in script.words],
        "bouts": [[round(bout[0].onsets[0] + late, 4), round(bout[-1].end + late, 4)]
                  for bout in script.bouts],
        "truth": {
            "kind": "planted",
            "boxes": [[round(t + late, 4), *(round(v, 1) for v in box)] for t, box in boxes],
            "events": [round(onset + late, 4) for onset in script.onsets],
            "mouth": [[round(t + late, 4), round(at(height, t), 3)] for t, _ in boxes],
        },
    }  # fmt: skip


def _noted(stage: Stage, boxes: list[tuple[float, Box]]) -> Iterator[Image]:
    """Pass pictures on and write down the source's box in some of them."""
    for index, (image, box) in enumerate(stage.pictures()):
        if index % TRUTH_EVERY == 0:
            boxes.append((index / FPS, box))
        yield image


def sound(clip: Clip, voice: Voice, script: Script, stage: Stage) -> NDArray[np.float32]:
    """The waveform (samples, 2): the performer from where it stands, a background from around."""
    random = clip.random(1)
    dry = planted_sounds.perform(
        random, script, clip.kind.timbre, voice.pitch_hz, voice.tract, RATE_HZ
    )
    dry = planted_sounds.ringing(dry, voice.ring_hz, RATE_HZ)
    dry = planted_sounds.tilted(random, dry) * 10 ** (random.uniform(-6, 4) / 20)
    around = planted_sounds.background(random, len(dry), RATE_HZ)
    right = 0.25 + 0.5 * stage.middle[0] / SIDE
    both = np.stack([dry * (1 - right), dry * right], axis=1) * math.sqrt(2)
    both += clip.nuisance * around[:, None]
    return np.clip(both, -1, 1).astype(np.float32)


class Stage:
    """The pictures of a clip: background, things that drift, a rival that is silent, the source."""

    def __init__(self, clip: Clip, voice: Voice, script: Script) -> None:
        """Draw everything that does not move."""
        random = clip.random(2)
        self._clip, self._voice, self._tracks = clip, voice, script.tracks()
        self._back = paint(random, clip.kind.scene, SIDE + 32)
        self.radius = float(random.uniform(15, 22))
        self.middle = _off_centre(random, self.radius)
        self._sway = _Sway(random, 3.0)
        self._camera = _Sway(random, 10.0 * clip.nuisance)
        rivals = RIVALS * clip.nuisance
        self._rival = _rival(random, clip, self) if random.uniform() < rivals else None
        balls = round(clip.nuisance * random.integers(MOST_BALLS + 1))
        self._balls = [_Ball(random) for _ in range(balls)]
        self._light = float(random.uniform(0.75, 1.15)), float(random.uniform(0.05, 0.3))

    def pictures(self) -> Iterator[tuple[Image, Box]]:
        """Pictures in time order, each with the box of the source."""
        for index in range(round(self._clip.seconds * FPS)):
            yield self._picture(index / FPS)

    def _picture(self, seconds: float) -> tuple[Image, Box]:
        x, y, _ = self._camera.at(seconds)
        side, middle = SIDE, (SIDE + 31) / 2
        seen = cv2.getRectSubPix(self._back, (side, side), (middle + x, middle + y))
        image = np.ascontiguousarray(seen, np.uint8)
        for drifting in self._balls[1:]:
            drifting.draw(image, seconds)
        if self._rival is not None:
            self._rival.draw(image, seconds)
        box = draw(image, self._voice.look, self._pose(seconds))
        for drifting in self._balls[:1]:
            drifting.draw(image, seconds)
        level, hertz = self._light
        flicker = 0.06 * self._clip.nuisance * math.sin(2 * math.pi * hertz * seconds)
        lit = LIGHT * self._clip.light * at(self._tracks["loudness"], seconds)
        gain = level * (1 + flicker + lit)
        return np.asarray(cv2.convertScaleAbs(image, alpha=gain), np.uint8), _inside(box)

    def _pose(self, seconds: float) -> Pose:
        dx, dy, roll = self._sway.at(seconds)
        hop = HOP * at(self._tracks["loudness"], seconds) * self.radius
        return Pose(
            self.middle[0] + dx, self.middle[1] + dy - hop, self.radius, roll,
            at(self._tracks["height"], seconds), at(self._tracks["width"], seconds),
        )  # fmt: skip


class _Sway:
    """Slow movement that has nothing to do with the sound: two sinusoids for x, y and roll."""

    def __init__(self, random: np.random.Generator, reach: float) -> None:
        self._reach = reach
        self._hertz, self._phase = (
            random.uniform(0.05, 0.35, (3, 2)),
            random.uniform(0, 6.3, (3, 2)),
        )

    def at(self, seconds: float) -> tuple[float, float, float]:
        """Pixels in x and y, radians."""
        x, y, roll = np.sin(2 * np.pi * self._hertz * seconds + self._phase).mean(axis=1)
        return self._reach * x, self._reach * y, 0.22 * roll


class _Ball:
    """A thing that drifts across the picture."""

    def __init__(self, random: np.random.Generator) -> None:
        self._start, self._speed = random.uniform(0, SIDE, 2), random.uniform(-28, 28, 2)
        self._radius = float(random.uniform(3, 6))
        red, green, blue = random.integers(40, 240, 3).tolist()
        self._colour: Colour = (red, green, blue)

    def draw(self, image: Image, seconds: float) -> None:
        """It leaves at one side and comes back at the other."""
        x, y = (self._start + self._speed * seconds + 10) % (SIDE + 20) - 10
        ball(image, float(x), float(y), self._radius, self._colour)


@dataclass(frozen=True)
class _Rival:
    """A performer of another class that moves in bouts of its own, with its mouth shut."""

    look: Look
    middle: NDArray[np.float64]
    radius: float
    sway: _Sway
    hops: NDArray[np.float64]

    def draw(self, image: Image, seconds: float) -> None:
        dx, dy, roll = self.sway.at(seconds)
        hop = HOP * at(self.hops, seconds) * self.radius
        x, y = self.middle[0] + dx, self.middle[1] + dy - hop
        draw(image, self.look, Pose(x, y, self.radius, roll, 0.04, 0.75))


def _rival(random: np.random.Generator, clip: Clip, stage: Stage) -> _Rival:
    """Where it does not hide the source."""
    others = [kind for kind in CLASSES.values() if kind != clip.kind]
    body = others[int(random.integers(len(others)))].body
    radius = float(random.uniform(15, 23))
    places = random.uniform(4 + radius, SIDE - 4 - radius, (200, 2))
    far = np.hypot(*(places - stage.middle).T)
    clear = np.flatnonzero(far > 1.1 * (radius + stage.radius))
    middle = places[clear[0] if len(clear) else int(far.argmax())]
    hops = write(random, clip.seconds, 0.17).tracks()["loudness"]
    return _Rival(look(random, body), middle, radius, _Sway(random, 3.0), hops)


def _off_centre(random: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Where the source is seen whole, hops and all, and the middle of the picture is not on it.

    Evaluations cut off a sixteenth of the picture on each side; who points at the middle of what is
    left should find nothing there.
    """
    rise = HOP * radius / 2
    reach = 1.15 * radius + np.array([0.0, rise])
    places = random.uniform(SIDE / 16 + reach, SIDE * 15 / 16 - reach, (400, 2))
    clear = (np.abs(places - SIDE / 2) > reach).any(axis=1)
    return np.asarray(places[int(clear.argmax())] + [0.0, rise])


def _inside(box: Box) -> Box:
    """The part of a box that is in the picture."""
    x0, y0, x1, y1 = (min(max(value, 0.0), float(SIDE)) for value in box)
    return x0, y0, x1, y1
