"""Several hundred short clips for soaks: cheap to make and to decode, no two of equal bytes."""

import random
import shutil
import struct
from pathlib import Path

from tests.pipeline.clips import ffmpeg, make_clip

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-shortest")
SHAPES = [("320x240", "25"), ("192x144", "30"), ("160x120", "12.5"), ("240x320", "24")]
BAD_EVERY = 25
REAL_SUFFIXES = {".mp4", ".avi", ".mpg", ".webm", ".mkv", ".mov", ".ogg", ".wav"}
REAL_BYTES_AT_MOST = 400_000


def corpus(folder: Path, clips: int, seed: int, media: Path | None = None) -> Path:
    """A folder of `clips` files, one in 25 of them bad; with `media`, one in four a real one."""
    folder.mkdir(parents=True)
    seeds = _seeds(folder.parent / "seeds")
    real = _real(media, clips // 4, seed) if media is not None else []
    for number in range(clips):
        path = folder / f"label{number % 7}" / f"clip{number:05d}.mp4"
        path.parent.mkdir(exist_ok=True)
        if number % BAD_EVERY == 7:
            path.write_bytes(_BAD[number // BAD_EVERY % len(_BAD)])
        elif number % 4 == 1 and real:
            source = real[number // 4 % len(real)]
            shutil.copy(source, path.with_suffix(source.suffix))
        else:
            path.write_bytes(seeds[number % len(seeds)] + _free_box(number))
    return folder


def many_times(raw: Path, into: Path, count: int) -> tuple[Path, int]:
    """A folder with the files of another one again and again, as hard links; and how many."""
    files = sorted(path for path in raw.rglob("*") if path.is_file())
    for number in range(count):
        source = files[number % len(files)]
        link = into / source.parent.name / f"again{number // len(files)}-{source.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.hardlink_to(source)
    return into, count


_BAD = [b"", b"no video at all\n" * 20, b"ffconcat version 1.0\nfile 'clip00000.mp4'\n"]


def _seeds(folder: Path) -> list[bytes]:
    """A dozen different clips, one of them mute."""
    folder.mkdir()
    made = []
    for number in range(12):
        size, fps = SHAPES[number % len(SHAPES)]
        plain, path = folder / f"plain{number}.mp4", folder / f"{number}.mp4"
        sound = number != 11
        make_clip(plain, seconds=1.5 + number / 8, size=size, fps=fps, sound=sound, options=X264)
        ffmpeg("-i", plain, "-vf", f"hue=h={number * 30}", *X264[:6], path)
        made.append(path.read_bytes())
    return made


def _free_box(number: int) -> bytes:
    """An MP4 box that every player skips: other bytes, the same clip."""
    return struct.pack(">I4sI", 12, b"free", number)


def _real(media: Path, count: int, seed: int) -> list[Path]:
    """Small real files, drawn by the seed."""
    files = [
        path
        for path in sorted(media.rglob("*"))
        if path.suffix in REAL_SUFFIXES and path.stat().st_size < REAL_BYTES_AT_MOST
    ]
    return random.Random(seed).sample(files, min(count, len(files)))
