"""The table of the demo corpus, and how one row of it becomes a file with its truth.

`CLIPS` says everything: 12 talking heads of five speakers, 16 sounding objects, 6 lamps that flash
and beep, and 5 broken files, over the containers, codecs and frame rates that people have.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.render import clock, sounds
from manifests.render.encode import Encoding, encode
from manifests.render.head import Head, Look
from manifests.render.stage import Stage, irregular
from manifests.render.voice import speak

VERSION = 1
"""Raised when the same table gives other files or another truth, so that they are made again."""
SECONDS = 11.0
"""Length of every clip that is not broken."""
NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)
TRUTH_HZ = 12.5
"""About how often boxes and mouth openings are written down."""

SPEAKERS = {
    "ada": Look(195.0),
    "ben": Look(112.0, True, 0.93, (0.90, 0.95, 1.08), 1.1, 0.8),
    "cleo": Look(225.0, False, 1.06, (1.10, 1.00, 0.85), 0.9, 1.1),
    "dan": Look(130.0, True, 1.02, (0.95, 0.90, 0.85), 1.4, 0.6),
    "eve": Look(165.0, False, 0.96, (1.0, 1.0, 1.0), 1.0, 0.0),
}
ZOOM = {240: 1.4, 360: 1.8, 480: 2.4, 640: 2.0, 720: 3.0}
"""Height of a talking head's picture -> pixels per pixel of the portrait."""
VALIDATION = ("eve", "ball-d", "bell-d", "drum-d", "string-d", "flash-d")
"""Speakers and objects of the validation split; the others train."""
LABELS = ("head", "ball", "bell", "drum", "string", "flash")
"""Class names in the order of the class numbers."""


@dataclass(frozen=True)
class Clip:
    """One file of the corpus."""

    kind: str
    """A label, or "broken"."""
    number: int
    """Counts within the kind."""
    who: str
    """Speaker or object: the group that must not be split."""
    size: tuple[int, int]
    """Width and height in pixels as seen."""
    encoding: Encoding
    seconds: float = SECONDS
    rate_hz: int = 44100
    """Sample rate of the sound."""
    stereo: bool = False
    """Whether the sound comes from where the thing is."""
    fault: str = ""
    """For broken files: `empty`, `truncated`, `text`, `silent` or `short`."""

    @property
    def name(self) -> str:
        """Kind and number: the key below the data set's name, and the path without ending."""
        return f"{self.kind}/{self.number:03d}"

    @property
    def seed(self) -> int:
        """Unlike that of any other clip."""
        return 1000 * sum(self.kind.encode()) + self.number

    @property
    def cost(self) -> float:
        """Pixels: large pictures take longest."""
        return float(self.size[0] * self.size[1] * self.seconds * self.encoding.fps)

    @property
    def split(self) -> str:
        """Either `train` or `val`."""
        return "val" if self.who in VALIDATION else "train"


def _heads() -> Iterator[Clip]:
    drop = "select='not(eq(mod(n,5),3)+eq(mod(n,7),5))'"
    vga, small, wide = (640, 480), (320, 240), (480, 360)
    rows: list[tuple[str, tuple[int, int], Encoding]] = [
        ("ada", vga, Encoding(".mp4")),
        ("ada", small, Encoding(".mp4", fps=Fraction(30))),
        ("ada", wide, Encoding(".mkv", fps=FILM)),
        ("ben", (1280, 720), Encoding(".mp4", extra=(("preset", "ultrafast"),))),
        ("ben", wide, Encoding(".mov", audio="pcm", fps=Fraction(30))),
        ("ben", wide, Encoding(".webm", "vp8", "vorbis")),
        ("cleo", wide, Encoding(".mp4", fps=NTSC)),
        ("cleo", vga, Encoding(".ts")),
        ("dan", (360, 640), Encoding(".mp4", fps=Fraction(30), rotation=90)),
        ("dan", small, Encoding(".avi", "mpeg4", "mp3")),
        ("eve", wide, Encoding(".mp4", audio_delay_seconds=0.3)),
        ("eve", wide, Encoding(".mp4", fps=Fraction(30), filters=drop)),
    ]
    for number, (who, size, encoding) in enumerate(rows):
        yield Clip("head", number, who, size, encoding)


def _things() -> Iterator[Clip]:
    wide, small = (480, 270), (320, 240)
    encodings = {
        "ball": [Encoding(".mp4"), Encoding(".mkv", audio="opus"), Encoding(".webm", "vp9", "opus"),
                 Encoding(".mp4", fps=NTSC)],
        "bell": [Encoding(".mp4", fps=Fraction(30)), Encoding(".mov", "mjpeg", "pcm"),
                 Encoding(".ts", "mpeg2", "mp2", NTSC), Encoding(".mp4")],
        "drum": [Encoding(".avi", "mpeg4", "mp3"), Encoding(".mp4", fps=FILM),
                 Encoding(".mpg", "mpeg2", "mp2", filters="scale=240:240,setsar=4/3"),
                 Encoding(".mkv")],
        "string": [Encoding(".mp4"), Encoding(".webm", "vp8", "vorbis"), Encoding(".ts"),
                   Encoding(".mp4", fps=Fraction(50))],
        "flash": [Encoding(".mp4"), Encoding(".mkv", fps=Fraction(30)), Encoding(".avi", "xvid"),
                  Encoding(".webm", "vp9", "opus", Fraction(30)), Encoding(".ts", fps=NTSC),
                  Encoding(".mp4", fps=Fraction(60))],
    }  # fmt: skip
    for kind, rows in encodings.items():
        for number, encoding in enumerate(rows):
            stereo = (kind, number) in {("ball", 3), ("drum", 3)}
            # "a" appears twice so that lamps, of which there are six, have four groups too
            who = f"{kind}-{'abcdaa'[number]}"
            yield Clip(kind, number, who, wide if number % 2 else small, encoding,
                       rate_hz=48000 if encoding.audio == "opus" or stereo else 44100,
                       stereo=stereo)  # fmt: skip


def _broken() -> Iterator[Clip]:
    for number, fault in enumerate(("empty", "truncated", "text", "silent", "short")):
        seconds = {"short": 0.5, "truncated": 2.0}.get(fault, SECONDS)
        yield Clip("broken", number, f"broken-{fault}", (320, 240), Encoding(".mp4"), seconds,
                   fault=fault)  # fmt: skip


CLIPS: tuple[Clip, ...] = (*_heads(), *_things(), *_broken())
"""The corpus."""


@dataclass(frozen=True)
class Scene:
    """What is to be encoded, and what is true of it; seconds count from the first picture."""

    frames: Iterator[tuple[NDArray[np.uint8], tuple[float, float, float, float], float]]
    """Picture, box of what sounds, mouth opening (0 where there is none)."""
    samples: NDArray[np.float32]
    events: list[float]
    words: list[dict[str, Any]]


def scene(clip: Clip) -> Scene:
    """Prepares pictures and sound of a clip."""
    count = round(clip.seconds * clip.encoding.fps)
    fps = float(clip.encoding.fps)
    if clip.kind == "head":
        return _head_scene(clip, fps, count)
    kind = "flash" if clip.kind == "broken" else clip.kind
    events = irregular(clip.seed, clip.seconds, 0.5, 0.85)
    stage = Stage(kind, clip.size, events, clip.seed)
    pitch = 130.0 + 35 * (ord(clip.who[-1]) % 5)
    track = sounds.soundtrack(kind, events, clip.seconds, pitch, clip.rate_hz, clip.seed)
    if clip.stereo:
        right = 0.15 + 0.7 * (1 - stage.on_left)
        track = np.stack([track * (1 - right), track * right], axis=1)
    frames = ((image, box, 0.0) for image, box in stage.render(fps, count))
    return Scene(frames, track, list(events), [])


def _head_scene(clip: Clip, fps: float, count: int) -> Scene:
    look = SPEAKERS[clip.who]
    utterance = speak(clip.seed, clip.seconds, look.pitch_hz, clip.rate_hz)
    head = Head(look, clip.size, ZOOM[clip.size[1]], clip.seed)
    frames = ((f.image, f.box, f.opening) for f in head.render(utterance, fps, count))
    words = [{"w": w.text, "start_s": w.start_seconds, "end_s": w.end_seconds}
             for w in utterance.words]  # fmt: skip
    return Scene(frames, utterance.samples, [w.start_seconds for w in utterance.words], words)


def render(clip: Clip, folder: Path) -> dict[str, Any]:
    """Makes the file of a clip below a folder.

    Args:
        clip: Row of `CLIPS`.
        folder: Root of the corpus.

    Returns:
        Plain values: `uri`, `bytes`, `words`, and `truth` with times in seconds from the earliest
        stream start of the file, boxes in pixels as seen.
    """
    path = folder / f"{clip.name}{clip.encoding.suffix}"
    facts: dict[str, Any] = {"uri": path.relative_to(folder).as_posix(), "words": []}
    if clip.fault in ("empty", "text"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if clip.fault == "empty" else b"This is a text, not a video.\n" * 40)
        return {**facts, "bytes": path.stat().st_size, "truth": None}
    seen = scene(clip)
    notes: list[tuple[float, tuple[float, float, float, float], float]] = []
    samples = None if clip.fault == "silent" else seen.samples
    encode(
        path,
        clip.encoding,
        _note(seen, clip.encoding.fps, notes),
        samples,
        clip.rate_hz,
    )
    if clip.fault == "truncated":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    if clip.fault:
        return {**facts, "bytes": path.stat().st_size, "truth": None}
    offset = clock.picture_offset_seconds(path, clip.encoding.fps)
    words = [{**word, "start_s": round(word["start_s"] + offset, 4),
              "end_s": round(word["end_s"] + offset, 4)} for word in seen.words]  # fmt: skip
    return {**facts, "bytes": path.stat().st_size, "words": words,
            "truth": _truth(clip, seen.events, notes, offset)}  # fmt: skip


def _note(
    seen: Scene,
    fps: Fraction,
    notes: list[tuple[float, tuple[float, float, float, float], float]],
) -> Iterator[NDArray[np.uint8]]:
    """Passes pictures on and writes down what is true of some of them."""
    every = max(1, round(fps / Fraction(TRUTH_HZ)))
    for index, (image, box, opening) in enumerate(seen.frames):
        if index % every == 0:
            notes.append((float(index / fps), box, opening))
        yield image


def _truth(
    clip: Clip,
    events: list[float],
    notes: list[tuple[float, tuple[float, float, float, float], float]],
    offset: float,
) -> dict[str, Any]:
    """The truth as plain values on the file's clock."""
    kind = clip.kind if clip.kind in ("head", "flash") else "object"
    mouth = [[round(t + offset, 4), round(opening, 3)] for t, _, opening in notes]
    return {
        "kind": kind,
        "boxes": [[round(t + offset, 4), *(round(v, 1) for v in box)] for t, box, _ in notes],
        "events": [round(event + offset, 4) for event in events],
        "mouth": mouth if kind == "head" else [],
    }


def describe(clip: Clip) -> dict[str, Any]:
    """The clip as plain JSON values: a file made from another description is made again."""
    encoding = {**asdict(clip.encoding), "fps": str(clip.encoding.fps)}
    return {**asdict(clip), "encoding": encoding, "version": VERSION}
