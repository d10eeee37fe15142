"""The ffmpeg program: what is known of a file before it is decoded, and encoding what is shown.

Imported only by commands that need it. Files are opened as the pipeline opens them: as media from a
fixed list of containers, and from this machine only.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from train.errors import TrainError

CONTAINERS = ",".join(
    (
        *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "flv", "mpeg"),
        *("mpegts", "mpegvideo", "ogg", "wav", "flac", "mp3", "aac"),
    )
)
"""The only ones that files are opened as, by their names in ffmpeg (architecture §6)."""
TOLD_CHARACTERS = 500
Pixels = npt.NDArray[np.uint8]


def program() -> str:
    """Path of the program that imageio-ffmpeg brings."""
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def duration_seconds(path: Path) -> float | None:
    """How long a file says it is; None where it does not say."""
    command = [program(), "-hide_banner", "-nostdin", "-protocol_whitelist", "file",
               "-format_whitelist", CONTAINERS, "-i", f"file:{path}"]  # fmt: skip
    said = subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")
    found = re.search(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", said)
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def overlaid(
    path: Path, out: Path, *, start_seconds: float, seconds: float | None,
    size: tuple[int, int], canvas: tuple[int, int], pictures: Iterable[Pixels], fps: str,
) -> None:  # fmt: skip
    """Write a video with pictures over it, and with its sound.

    Args:
        path: the video; rotation and the shape of its pixels are applied.
        out: .mp4, .mkv or .mov; H.264 and AAC.
        start_seconds: from where on, counted from the file's first picture or sound.
        seconds: how long; None is to the end.
        size: width and height, pixels, that the video is scaled to; even.
        canvas: the same of the result; the video lies at the top left.
        pictures: RGBA (height, width, 4) of the canvas, the first one from the start on.
        fps: of the pictures; the video keeps its own.

    Raises:
        TrainError: the program refused; the message has its last words.
    """
    import ffmpeg

    cut = {} if seconds is None else {"t": seconds}
    # Looking for 0 finds the first picture, and would lose the sound before it.
    cut |= {"ss": start_seconds} if start_seconds > 0 else {}
    source = ffmpeg.input(f"file:{path}", **cut, protocol_whitelist="file",
                          format_whitelist=CONTAINERS)  # fmt: skip
    over = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgba", framerate=fps,
                        s=f"{canvas[0]}x{canvas[1]}")  # fmt: skip
    under = source["v:0"].filter("scale", *size).filter("setsar", 1).filter("pad", *canvas, 0, 0)
    shown = ffmpeg.filter([under, over], "overlay", eof_action="repeat")
    options = {"vcodec": "libx264", "pix_fmt": "yuv420p", "crf": 20, "preset": "veryfast",
                "acodec": "aac", "audio_bitrate": "160k"}  # fmt: skip
    output = ffmpeg.output(shown, source["a:0"], str(out), **options)
    _run(output.global_args("-v", "error").overwrite_output().compile(cmd=program()), pictures, out)


def _run(command: Any, pictures: Iterable[Pixels], out: Path) -> None:
    """The program, with pictures on its standard input."""
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints)
        assert process.stdin is not None
        try:
            for picture in pictures:
                process.stdin.write(np.ascontiguousarray(picture).data)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended early: the video is shorter than its map, or its words say why
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        if code:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip()[-TOLD_CHARACTERS:]
            raise TrainError(f"{out} could not be encoded: {said or f'ffmpeg ended with {code}'}")
