"""Small clips for tests, made by the bundled ffmpeg, and what that program says about a file.

ffmpeg is the independent oracle: it decodes with its own command-line logic, and its frame list has
a time and a hash for every picture.
"""

import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

REAL_MEDIA = Path(__file__).resolve().parents[2].parent / "shared" / "media"


def ffmpeg(*arguments: str | Path) -> str:
    """Run the bundled ffmpeg; its standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace")


def make_clip(
    path: Path,
    *,
    seconds: float = 3,
    fps: str = "25",
    size: str = "320x240",
    sound: bool = True,
    picture: bool = True,
    options: tuple[str, ...] = (),
) -> Path:
    """A moving test picture with a tone."""
    inputs: list[str] = []
    if picture:
        inputs += ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={fps}:duration={seconds}"]
    if sound:
        inputs += ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=44100:duration={seconds}"]
    pixels = ["-pix_fmt", "yuv420p"] if picture else []
    ffmpeg(*inputs, *pixels, *options, path)
    return path


@dataclass(frozen=True)
class ListedFrame:
    """One picture as the ffmpeg program sees it."""

    time: Fraction
    """Seconds on the container's clock."""
    md5: str
    """Of the raw planes."""


def listed_frames(path: Path, stream: str = "v:0") -> list[ListedFrame]:
    """Every picture of a file with its time, by the ffmpeg program."""
    text = ffmpeg(
        "-noautorotate", "-copyts", "-i", path, "-map", f"0:{stream}",
        "-fps_mode", "passthrough", "-enc_time_base", "demux", "-f", "framemd5", "-",
    )  # fmt: skip
    time_base = Fraction(re.search(r"#tb 0: (\d+/\d+)", text)[1])  # type: ignore[index]
    rows = [line.split(",") for line in text.splitlines() if line and line[0] != "#"]
    return [ListedFrame(int(row[2]) * time_base, row[5].strip()) for row in rows]
