"""The shard job as a user starts it, and what it left."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

PLUGINS = Path(__file__).parents[1] / "pipeline" / "plugins"
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-shortest")
MARK = "GLAV_TEST_JOB"
"""Environment variable by which the processes of one job are known, whoever their parent is."""


def command(root: Path | str, out: Path | str, *flags: Any) -> list[str]:
    """`pipeline shards` over a folder: no faces, no Ray, short shards, unless flags say other."""
    base = [sys.executable, "-m", "pipeline", "shards", "--dataset", "folder", "--root", root]
    own = ["--out", out, "--seconds-per-shard", "0.8", "--faces", "off", "--executor", "local"]
    return [*map(str, [*base, *own, *flags])]


def run(root: Path, out: Path, *flags: Any, code: int = 0, **environment: Any) -> str:
    """Run it to its end; everything it said."""
    done = subprocess.run(
        command(root, out, *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stdout
    assert "pipeline/__main__.py" not in done.stdout  # no traceback of the command; children may
    return done.stdout


def start(root: Path, out: Path, *flags: Any, **environment: str) -> "subprocess.Popen[str]":
    """Begin it; its words are in `stdout`."""
    return subprocess.Popen(
        command(root, out, *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def plugin(name: str) -> dict[str, Any]:
    """The environment with which a job, its workers and children load a plugin of ours."""
    return {"GLAV_PLUGINS": name, "PYTHONPATH": str(PLUGINS)}


def committed(out: Path) -> list[Path]:
    """Sidecars that are there."""
    return sorted((out / "shards").glob("*.json"))


def wait_for_shards(out: Path, count: int, process: "subprocess.Popen[str]") -> None:
    """Until so many are committed; a job that ends before that is a fault of the test."""
    deadline = time.monotonic() + 200
    while len(committed(out)) < count:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline, "no shards"
        time.sleep(0.02)


def times(folder: Path) -> dict[Path, int]:
    """When each file was last written, ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def litter(out: Path) -> list[Path]:
    """Temporary and progress files."""
    return [p for p in out.rglob("*") if "tmp" in p.name or p.name.endswith(".progress")]


def still_running(mark: str, seconds: float = 60) -> list[str]:
    """Processes with this mark that are there although they had time to end."""
    deadline = time.monotonic() + seconds
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _marked(mark: str) -> list[str]:
    return [
        f"{process.pid} {process.info['cmdline']}"
        for process in psutil.process_iter(["environ", "cmdline"])
        if (process.info["environ"] or {}).get(MARK) == mark
    ]
