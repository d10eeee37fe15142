"""`pipeline doctor`: what this machine has of what the pipeline needs, and how to get the rest.

Every check is a line; nothing that is missing stops the others. Libraries are imported
one by one, because only an import shows that one loads.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

from pipeline.check import file_hash
from pipeline.errors import plain_text
from pipeline.host import usable_cores
from pipeline.units import bytes_text

EXIT_OK, EXIT_MISSING = 0, 3
State = Literal["ok", "note", "missing"]

LIBRARIES = {
    "av": "av",
    "cv2": "opencv-python-headless",
    "dlib": "dlib-bin",
    "ffmpeg": "ffmpeg-python",
    "jinja2": "jinja2",
    "librosa": "librosa",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "ray": "ray",
    "simplejpeg": "simplejpeg",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "tqdm": "tqdm",
    "tyro": "tyro",
}
"""Import name and distribution of what the pipeline needs."""
TRAINER_LIBRARIES = ("torch", "webdataset")

DECODERS = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "vp8": ("vp8", "libvpx"),
    "vp9": ("vp9", "libvpx-vp9"),
    "av1": ("libdav1d", "libaom-av1", "libgav1"),
    "mpeg1": ("mpeg1video",),
    "mpeg2": ("mpeg2video",),
    "mpeg4": ("mpeg4",),
    "aac": ("aac",),
    "mp3": ("mp3float", "mp3"),
    "opus": ("opus", "libopus"),
    "vorbis": ("vorbis", "libvorbis"),
    "flac": ("flac",),
}
"""Codecs of people's videos, and libav's decoders for each. Its own `av1` needs a GPU."""

LANDMARK_SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
LANDMARK_LICENCE = (
    "trained on iBUG 300-W: for non-commercial use; another 68-point model can be given by its path"
)
SETUP = "make setup"
MIN_DISK_BYTES = 10 << 30
MIN_SHARED_MEMORY_BYTES = 1 << 30
MIN_MEMORY_BYTES = 2 << 30
FFMPEG_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis."""

    what: str
    state: State
    said: str
    remedy: str = ""
    """What to do about it; empty if nothing."""


@dataclass(frozen=True)
class Diagnosis:
    """All lines, and whether the pipeline can run."""

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0, or 3 if something needed is missing."""
        missing = any(check.state == "missing" for check in self.checks)
        return EXIT_MISSING if missing else EXIT_OK

    def lines(self) -> list[str]:
        """For the terminal."""
        width = max(len(check.what) for check in self.checks)
        return [
            f"{check.state:<8}{check.what:<{width}}  {check.said}"
            + (f"; {check.remedy}" if check.remedy else "")
            for check in self.checks
        ]


def doctor(data: Path = Path("data"), landmarks: Path | None = None) -> Diagnosis:
    """Look at this machine.

    Args:
        data: where data will lie.
        landmarks: a 68-point model other than the packaged one.
    """
    return Diagnosis(tuple(_checks(data, landmarks)))


def _checks(data: Path, landmarks: Path | None) -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.machine()}")
    for name, distribution in LIBRARIES.items():
        yield _library(name, distribution)
    for name in TRAINER_LIBRARIES:
        yield _trainer_library(name)
    yield _landmark_model(landmarks)
    yield _decoders()
    yield _ffmpeg()
    yield _cluster()
    yield _cores()
    yield _memory()
    yield _disk(data)
    yield _shared_memory(Path("/dev/shm"))


# --- software ---------------------------------------------------------------------------------


def _library(name: str, distribution: str) -> Check:
    try:
        import_module(name)
        return Check(name, "ok", metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return Check(name, "ok", f"there, but not from {distribution}")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return Check(name, "missing", plain_text(str(error)), f"{distribution} comes with {SETUP}")


def _trainer_library(name: str) -> Check:
    """Not imported: the pipeline does without, and torch takes seconds."""
    try:
        return Check(name, "ok", f"{metadata.version(name)} (for the trainer)")
    except metadata.PackageNotFoundError:
        return Check(name, "note", "not there; only the trainer needs it", f"it comes with {SETUP}")


def _landmark_model(given: Path | None) -> Check:
    try:
        from pipeline.detector import landmarks_model_path

        path = landmarks_model_path(given)
    except (ImportError, OSError) as error:
        remedy = f"face_recognition_models comes with {SETUP}"
        return Check("landmarks", "missing", plain_text(str(error)), remedy)
    digest = file_hash(path, "sha256")
    if digest == LANDMARK_SHA256:
        return Check("landmarks", "ok", f"{path}, sha256 {digest}", LANDMARK_LICENCE)
    return Check(
        "landmarks", "note", f"{path}, sha256 {digest}", "not the packaged model; mind its licence"
    )


def _decoders() -> Check:
    try:
        from av.codec import Codec
    except ImportError as error:
        return Check("codecs", "missing", plain_text(str(error)), f"av comes with {SETUP}")

    def there(decoder: str) -> bool:
        try:
            Codec(decoder, "r")
        except ValueError:  # av's UnknownCodecError
            return False
        return True

    lost = [name for name, options in DECODERS.items() if not any(map(there, options))]
    if lost:
        remedy = "use av's own wheel, not one built against another libav"
        return Check("codecs", "missing", f"libav cannot decode {', '.join(lost)}", remedy)
    return Check("codecs", "ok", " ".join(DECODERS))


def _ffmpeg() -> Check:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        program = get_ffmpeg_exe()
        command = [program, "-nostdin", "-version"]
        said = subprocess.run(
            command, capture_output=True, timeout=FFMPEG_TIMEOUT_SECONDS, check=True
        )
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        remedy = f"imageio-ffmpeg comes with {SETUP}"
        return Check("ffmpeg binary", "missing", plain_text(str(error)), remedy)
    version = said.stdout.decode(errors="replace").partition("Copyright")[0]
    return Check("ffmpeg binary", "ok", f"{plain_text(version)}, {program}")


def _cluster() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        return Check("Ray cluster", "note", f"RAY_ADDRESS is {plain_text(address)}: jobs go there")
    return Check("Ray cluster", "ok", "none named; jobs run on this machine")


# --- machine ----------------------------------------------------------------------------------


def _cores() -> Check:
    said = f"{usable_cores()} by affinity and cgroup, {os.cpu_count()} in the machine"
    return Check("cores", "ok", said)


def cgroup_memory_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The memory limit of this container, None if there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _first_line(root / name)
        if limit.isdigit() and int(limit) < 1 << 60:
            return int(limit)
    return None


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0].strip()
    except OSError:
        return ""


def _memory() -> Check:
    try:
        from psutil import virtual_memory
    except ImportError:
        return Check("memory", "note", "unknown without psutil", SETUP)
    memory = virtual_memory()
    limit = cgroup_memory_bytes()
    said = f"{bytes_text(memory.available)} of {bytes_text(memory.total)} free"
    said += "" if limit is None else f", {bytes_text(limit)} by cgroup"
    if min(memory.available, limit or memory.available) < MIN_MEMORY_BYTES:
        return Check("memory", "note", said, "a worker takes up to 600 MB: use fewer WORKERS")
    return Check("memory", "ok", said)


def _disk(data: Path) -> Check:
    there = next(path for path in (data.absolute(), *data.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    said = f"{bytes_text(free)} free for {data}"
    if not os.access(there, os.W_OK):
        return Check("disk", "missing", f"{there} cannot be written", "set DATA to another folder")
    if free < MIN_DISK_BYTES:
        return Check("disk", "note", said, "an hour of video takes about 1 GB of shards")
    return Check("disk", "ok", said)


def _shared_memory(path: Path) -> Check:
    if not path.is_dir():
        return Check(str(path), "note", "not there; Ray falls back to the disk")
    size = shutil.disk_usage(path).total
    if size < MIN_SHARED_MEMORY_BYTES:
        remedy = "start the container with --shm-size=2g, for the trainer's loader and Ray"
        return Check(str(path), "note", bytes_text(size), remedy)
    return Check(str(path), "ok", bytes_text(size))
