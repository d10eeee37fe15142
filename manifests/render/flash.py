"""Flash and beep in every odd kind of file: what the alignment tests are measured on.

A white picture and a 1 kHz beep start at the same nominal time, at irregular intervals so that a
shift by one event cannot pass for none. `make` writes one clip of `MATRIX`; what is true of a
file is then read from it by another program: `flash_times` and `beep_times` (see `clock`).
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manifests.render.clock import beep_times, flash_times
from manifests.render.encode import BITEXACT, Encoding, arguments, encode, run
from manifests.render.sounds import soundtrack

__all__ = ["MATRIX", "FlashClip", "beep_times", "events", "flash_times", "frames", "make"]

SIZE = (160, 120)
"""Width and height in pixels."""
SECONDS = 6.0
CUT_SECONDS = 2.3
"""Where the cut clips are cut; their sources are this much longer."""
FLASH_SECONDS = 0.12
"""How long a flash lasts at least, so that a grid of 10 Hz cannot miss it."""
NOMINAL_SECONDS = (0.55, 1.43, 2.64, 3.37, 4.48, 5.21, 6.33, 7.16, 7.85)
"""When something happens, before it is moved to the next picture."""
NTSC = Fraction(30000, 1001)
FILM = Fraction(24000, 1001)


@dataclass(frozen=True)
class FlashClip:
    """One file of the matrix."""

    name: str
    """File name without ending."""
    encoding: Encoding
    variation: str = "plain"
    """Key of `VARIATIONS`, or `plain`."""
    seconds: float = SECONDS
    """Length of what is encoded, before any cut."""

    @property
    def container(self) -> str:
        """File name ending without the dot."""
        return self.encoding.suffix[1:]

    @property
    def video_codec(self) -> str:
        """Key of `encode.VIDEO`."""
        return self.encoding.video

    @property
    def fps(self) -> Fraction:
        """Pictures a second before any are dropped."""
        return self.encoding.fps


def events(fps: Fraction, seconds: float) -> list[Fraction]:
    """When flash and beep start: the pts of the picture at or after each nominal time."""
    numbers = (-(-Fraction(str(nominal)) * fps // 1) for nominal in NOMINAL_SECONDS)
    return [n / fps for number in numbers if (n := Fraction(-(-number // 1))) / fps < seconds - 0.4]


def frames(fps: Fraction, seconds: float) -> Iterator[NDArray[np.uint8]]:
    """Dark pictures with a bar that walks, white ones for `FLASH_SECONDS` from each event on."""
    starts = events(fps, seconds)
    width, height = SIZE
    for index in range(round(seconds * fps)):
        time = index / fps
        picture = np.full((height, width, 3), 40, np.uint8)
        left = int(time * 60) % (width - 20)
        picture[30:90, left : left + 20] = 90
        if any(start <= time < start + Fraction(str(FLASH_SECONDS)) for start in starts):
            picture[:] = 255
        yield picture


def make(clip: FlashClip, folder: Path) -> Path:
    """Writes one clip of the matrix.

    Args:
        clip: What to write.
        folder: Where to; it is made.

    Returns:
        The file.
    """
    rate_hz = 48000 if clip.encoding.audio == "opus" else 44100
    times = [float(time) for time in events(clip.fps, clip.seconds)]
    samples = soundtrack("flash", times, clip.seconds, 0.0, rate_hz, seed=0)
    path = folder / f"{clip.name}{clip.encoding.suffix}"
    pictures = frames(clip.fps, clip.seconds)
    if clip.variation == "plain":
        return encode(path, clip.encoding, pictures, samples, rate_hz)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".flash-") as place:
        source = Path(place) / f"source{clip.encoding.suffix}"
        encode(source, clip.encoding, pictures, samples, rate_hz)
        run([*VARIATIONS[clip.variation](source), "-c", "copy", *arguments(BITEXACT), str(path)])
    return path


def _cut(source: Path) -> list[str]:
    """From somewhere between two key pictures to the end."""
    return ["-ss", str(CUT_SECONDS), "-i", str(source)]


def _cut_without_edit_list(source: Path) -> list[str]:
    """The same, but the container does not say what to hide."""
    return [*_cut(source), "-use_editlist", "0"]


def _late(stream: str, source: Path) -> list[str]:
    """Shifts the picture (v) or the sound (a) by half a second."""
    early, late = ["-i", str(source)], ["-itsoffset", "0.5", "-i", str(source)]
    other = {"v": "a", "a": "v"}[stream]
    return [*early, *late, "-map", f"1:{stream}", "-map", f"0:{other}"]


def _gap(source: Path) -> list[str]:
    """Loses the sound of half a second between two beeps."""
    lose = "noise=drop='between(pts*tb,1.7,2.2)'"
    return ["-i", str(source), "-bsf:a", lose]


VARIATIONS: dict[str, Callable[[Path], list[str]]] = {
    "cut": _cut,
    "cut_without_edit_list": _cut_without_edit_list,
    "video_late": lambda source: _late("v", source),
    "audio_late": lambda source: _late("a", source),
    "audio_gap": _gap,
}
"""What is done to an encoded file by copying its packets: ffmpeg arguments before ``-c copy``."""

_B_FRAMES = (("bf", 3), ("g", 50))
_OPEN_GOP = (("x264-params", "open-gop=1:bframes=3:keyint=25:min-keyint=25:scenecut=0"),)
_LONG_GOP = (("bf", 2), ("g", 50), ("sc_threshold", 0))
_DROP = "select='not(eq(mod(n,5),2)+eq(mod(n,7),4))'"
_RATES = {
    "10": Fraction(10), "15": Fraction(15), "23976": FILM, "24": Fraction(24), "25": Fraction(25),
    "2997": NTSC, "30": Fraction(30), "50": Fraction(50), "5994": Fraction(60000, 1001),
    "60": Fraction(60),
}  # fmt: skip


def _matrix() -> Iterator[FlashClip]:
    for name, fps in _RATES.items():
        yield FlashClip(f"mp4_{name}", Encoding(".mp4", fps=fps, extra=_B_FRAMES))
    for name, encoding in {
        "mkv_25": Encoding(".mkv"),
        "mkv_23976_opus": Encoding(".mkv", "h264", "opus", FILM),
        "mov_30_pcm": Encoding(".mov", "mpeg4", "pcm", Fraction(30)),
        "mov_mjpeg": Encoding(".mov", "mjpeg", "aac"),
        "webm_vp8": Encoding(".webm", "vp8", "vorbis", Fraction(30)),
        "webm_vp9": Encoding(".webm", "vp9", "opus"),
        "avi_mp3": Encoding(".avi", "mpeg4", "mp3"),
        "avi_pcm": Encoding(".avi", "mpeg4", "pcm", NTSC),
        "avi_b_frames": Encoding(".avi", "mpeg4", "mp3", extra=(("bf", 2),)),
        "avi_packed": Encoding(".avi", "xvid", "mp3", extra=(("bf", 2),)),
        "ts_h264": Encoding(".ts", extra=_B_FRAMES),
        "ts_mpeg2": Encoding(".ts", "mpeg2", "mp2", NTSC, extra=(("bf", 2),)),
        "mpg_mpeg1": Encoding(".mpg", "mpeg1", "mp2", extra=(("bf", 2),)),
        "mpg_mpeg2": Encoding(".mpg", "mpeg2", "mp2", NTSC),
        "mp4_mp3": Encoding(".mp4", audio="mp3", fps=Fraction(30)),
        "mp4_fragmented": Encoding(".mp4", extra=(("movflags", "frag_keyframe+empty_moov"),)),
        "mp4_vfr": Encoding(".mp4", fps=Fraction(30), filters=_DROP),
        "mkv_vfr": Encoding(".mkv", fps=Fraction(30), filters=_DROP),
        "mp4_open_gop": Encoding(".mp4", extra=_OPEN_GOP),
    }.items():
        yield FlashClip(name, encoding)
    for suffix in (".mp4", ".mkv", ".mov", ".ts"):
        encoding, seconds = Encoding(suffix, extra=_LONG_GOP), SECONDS + CUT_SECONDS
        yield FlashClip(f"{suffix[1:]}_cut", encoding, "cut", seconds)
    for name, suffix, extra, variation in (
        ("mp4_cut_without_edit_list", ".mp4", _LONG_GOP, "cut_without_edit_list"),
        ("mp4_open_gop_cut", ".mp4", _OPEN_GOP, "cut"),
        ("ts_open_gop_cut", ".ts", _OPEN_GOP, "cut"),
        ("mp4_video_late", ".mp4", (), "video_late"),
        ("mp4_audio_late", ".mp4", (), "audio_late"),
        ("mkv_video_late", ".mkv", (), "video_late"),
        ("mkv_audio_gap", ".mkv", (), "audio_gap"),
    ):
        seconds = SECONDS + CUT_SECONDS * ("cut" in variation)
        yield FlashClip(name, Encoding(suffix, extra=extra), variation, seconds)


MATRIX: tuple[FlashClip, ...] = tuple(_matrix())
"""All files, about forty."""
