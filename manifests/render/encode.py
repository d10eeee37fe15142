"""Pictures and a waveform into a file, by ffmpeg-python and the bundled ffmpeg program.

Single-threaded and bit-exact, so that the same input gives the same bytes on one machine. The
file appears under its name only when it is complete.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import imageio_ffmpeg
import numpy as np
import soundfile
from numpy.typing import NDArray

BITEXACT: dict[str, Any] = {
    "fflags": "+bitexact", "flags:v": "+bitexact", "flags:a": "+bitexact", "threads": 1,
}  # fmt: skip

BT601 = "setparams=colorspace=smpte170m:color_primaries=smpte170m:color_trc=smpte170m:range=tv"
"""Names the colours that `_planes` makes."""

VIDEO: dict[str, dict[str, Any]] = {
    "h264": {"c:v": "libx264", "preset": "superfast", "crf": 25},
    "mpeg4": {"c:v": "mpeg4", "q:v": 4},
    "xvid": {"c:v": "libxvid", "q:v": 4},
    "mpeg1": {"c:v": "mpeg1video", "q:v": 4},
    "mpeg2": {"c:v": "mpeg2video", "q:v": 4},
    # vp8: below 0 the speed is fixed; above, it follows the clock, and with it the bytes
    "vp8": {"c:v": "libvpx", "deadline": "realtime", "cpu-used": -8, "b:v": "1M"},
    "vp9": {"c:v": "libvpx-vp9", "deadline": "realtime", "cpu-used": 8, "b:v": "1M"},
    "mjpeg": {"c:v": "mjpeg", "q:v": 5, "pix_fmt": "yuvj420p"},
}
"""Encoder arguments by codec."""

AUDIO: dict[str, dict[str, Any]] = {
    "aac": {"c:a": "aac", "b:a": "96k"},
    "mp2": {"c:a": "mp2", "b:a": "128k"},
    "mp3": {"c:a": "libmp3lame", "b:a": "96k"},
    "opus": {"c:a": "libopus", "b:a": "64k"},
    "vorbis": {"c:a": "libvorbis", "q:a": 4},
    "pcm": {"c:a": "pcm_s16le"},
}
"""Encoder arguments by codec."""


@dataclass(frozen=True)
class Encoding:
    """How a file is made."""

    suffix: str
    """Container by its file name ending, with the dot."""
    video: str = "h264"
    """Key of `VIDEO`."""
    audio: str = "aac"
    """Key of `AUDIO`."""
    fps: Fraction = Fraction(25)
    """Pictures a second."""
    audio_delay_seconds: float = 0.0
    """How much later than the picture the sound stream starts; the waveform loses that much."""
    rotation: int = 0
    """Degrees clockwise that a player must turn the stored picture by: 0, 90, 180 or 270."""
    filters: str = ""
    """Filter chain for the picture, e.g. one that drops frames or squeezes them."""
    extra: tuple[tuple[str, Any], ...] = field(default=())
    """Further output options, winning over the codec's."""


class EncodeError(RuntimeError):
    """The ffmpeg program refused; the message holds its last words."""


def encode(
    path: Path,
    encoding: Encoding,
    frames: Iterable[NDArray[np.uint8]],
    samples: NDArray[np.float32] | None,
    rate_hz: int,
) -> Path:
    """Writes a file with pictures and sound.

    Args:
        path: Where to; its folder is made.
        encoding: How.
        frames: RGB pictures of one size, as they should be seen.
        samples: Waveform of shape (samples,) or (samples, channels) from the first picture on,
            or None for a file without sound.
        rate_hz: Its sample rate.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{encoding.suffix}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".encode-") as folder:
        sound = None
        if samples is not None:
            sound = Path(folder) / "sound.wav"
            skipped = round(encoding.audio_delay_seconds * rate_hz)
            soundfile.write(sound, samples[skipped:], rate_hz, subtype="PCM_16")
        upright = part if not encoding.rotation else Path(folder) / f"stored{encoding.suffix}"
        _encode_frames(upright, encoding, frames, sound)
        if encoding.rotation:
            run(["-display_rotation", str(-encoding.rotation), "-i", str(upright), "-c", "copy",
                 *arguments(BITEXACT), str(part)])  # fmt: skip
    os.replace(part, path)
    return path


def _encode_frames(
    path: Path,
    encoding: Encoding,
    frames: Iterable[NDArray[np.uint8]],
    sound: Path | None,
) -> None:
    """Pipes the pictures through the encoder."""
    pictures = (_planes(np.rot90(frame, encoding.rotation // 90)) for frame in frames)
    first = next(iter_pictures := iter(pictures))
    height, width = first.shape[0] * 2 // 3, first.shape[1]
    video = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="yuv420p", s=f"{width}x{height}",
                         framerate=str(encoding.fps))  # fmt: skip
    streams = [video]
    options = {"pix_fmt": "yuv420p", **BITEXACT, **VIDEO[encoding.video]}
    options["vf"] = ",".join(filter(None, [encoding.filters, BT601]))
    if encoding.filters:
        options["fps_mode"] = "passthrough"
    if sound is not None:
        streams.append(ffmpeg.input(str(sound), itsoffset=encoding.audio_delay_seconds))
        options |= AUDIO[encoding.audio]
    output = ffmpeg.output(*streams, str(path), **{**options, **dict(encoding.extra)})
    command = output.global_args("-v", "error").overwrite_output().compile(cmd=program())
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints)
        assert process.stdin is not None
        try:
            process.stdin.write(first.data)
            for picture in iter_pictures:
                process.stdin.write(picture.data)
            process.stdin.close()
        except BrokenPipeError:
            pass  # The program ended early; its words say why.
        if process.wait() != 0:
            complaints.seek(0)
            raise EncodeError(f"{path.name}: {complaints.read().decode(errors='replace')[-800:]}")


def _planes(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB to planar YCbCr 4:2:0, BT.601, limited range: faster here than in the filter graph."""
    planes = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2YUV_I420)
    return np.asarray(planes, np.uint8)


def run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Runs the ffmpeg program with some arguments and raises with its words if it fails."""
    line = [program(), "-hide_banner", "-nostdin", "-y", *command]
    done = subprocess.run(line, capture_output=True, check=False)
    if done.returncode:
        raise EncodeError(f"{' '.join(line)}: {done.stderr.decode(errors='replace')[-800:]}")
    return done


def arguments(options: dict[str, Any]) -> list[str]:
    """Writes options as command line arguments."""
    return [text for name, value in options.items() for text in (f"-{name}", str(value))]


def program() -> str:
    """Path of the bundled ffmpeg."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())
