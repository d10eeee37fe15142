"""Case 12, and what surrounds a job: disks, limits, environments, other workers and executors."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import disk_sentence
from tests.pipeline.clips import make_clip

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-shortest")


def shards(root, out, *flags, environment=None, shell=None):
    command = [
        sys.executable, "-m", "pipeline", "shards", "--dataset", "folder", "--root", str(root),
        "--out", str(out), "--faces", "off", "--executor", "local", "--workers", "1",
        "--seconds-per-shard", "0.5", *flags,
    ]  # fmt: skip
    if shell is not None:
        command = ["bash", "-c", f'{shell}; exec "$@"', "bash", *command]
    env = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six clips; a shard of one takes about 150 KiB."""
    folder = tmp_path_factory.mktemp("clips")
    first = make_clip(folder / "clip0.mp4", seconds=2, size="192x144", options=X264)
    for number in range(1, 6):
        (folder / f"clip{number}.mp4").write_bytes(first.read_bytes())
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, growable, if this machine lets us make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk])
    if made.returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def temporary_files(out):
    return [path for path in out.rglob("*") if "tmp" in path.name]


def test_12_disk_full(clips, small_disk):
    done = shards(clips, small_disk / "out")
    assert done.returncode == 3, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("No space left") == 1, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not temporary_files(small_disk)
    for sidecar in (small_disk / "out" / "shards").glob("*.json"):
        assert (
            sidecar.with_suffix(".tar").stat().st_size
            == json.loads(sidecar.read_bytes())["filesize"]
        )
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    again = shards(clips, small_disk / "out")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "6 samples" in again.stdout


def test_12_disk_too_full_for_the_plan(clips, small_disk):
    (small_disk / "ballast").write_bytes(bytes(690 << 10))
    done = shards(clips, small_disk / "out")
    assert done.returncode in (2, 3), done.stdout + done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert not temporary_files(small_disk)


def test_13_output_on_a_read_only_disk(clips, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = shards(clips, small_disk / "out")
    assert done.returncode == 2
    assert f"cannot write to the output folder {small_disk / 'out'}" in done.stderr


def test_12_file_sizes_limited(clips, tmp_path):
    done = shards(clips, tmp_path / "out", shell="ulimit -f 64")
    assert done.returncode == 3, done.stdout + done.stderr
    text = done.stdout + done.stderr
    assert "File too large. Allow larger files (ulimit -f unlimited" in text
    assert "Traceback" not in text
    assert shards(clips, tmp_path / "out").returncode == 0


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO]
)
def test_12_every_error_of_a_disk_has_its_remedy(number):
    error = OSError(number, os.strerror(number))
    said = disk_sentence("shard x in /out", error, 5 << 20)
    finding, remedy = said.split(". ")
    assert "shard x in /out" in finding
    first, then = remedy.split(", then ")
    assert first.split()[0] in ("Make", "Allow", "Put")
    assert then == "run the same command again: committed shards are kept."


def test_extra_64_file_handles(clips, tmp_path):
    done = shards(clips, tmp_path, "--limit", "2", shell="ulimit -n 64")
    assert done.returncode == 0, done.stdout + done.stderr


def test_extra_no_temporary_folder(clips, tmp_path):
    missing = {"TMPDIR": str(tmp_path / "nowhere")}
    done = shards(clips, tmp_path / "out", "--limit", "2", environment=missing)
    assert done.returncode == 0, done.stdout + done.stderr


def test_extra_hash_seeds_and_time_zones(clips, tmp_path):
    outs = [tmp_path / "a", tmp_path / "b"]
    settings = [{"PYTHONHASHSEED": "1", "TZ": "UTC"}, {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"}]
    for out, environment in zip(outs, settings, strict=True):
        assert shards(clips, out, "--limit", "2", environment=environment).returncode == 0
    tars = [{p.name: p.read_bytes() for p in Path(out, "shards").glob("*.tar")} for out in outs]
    assert tars[0] == tars[1]


@pytest.mark.parametrize(
    "flags", [("--workers", "2"), ("--executor", "ray", "--workers", "2")], ids=["threads", "ray"]
)
def test_extra_other_workers_and_executor(clips, tmp_path, flags):
    """One worker and no Ray, or two with one: the same bytes."""
    tars = []
    for out, more in ((tmp_path / "one", ()), (tmp_path / "other", flags)):
        assert shards(clips, out, "--limit", "4", *more).returncode == 0
        tars.append({p.name: p.read_bytes() for p in Path(out, "shards").glob("*.tar")})
    assert len(tars[0]) > 1
    assert tars[0] == tars[1]


def test_extra_temporary_folder_of_a_long_name_under_ray(clips, tmp_path):
    """Batch systems set such ones; the paths of Ray's sockets may have 107 characters."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    flags = ("--limit", "1", "--executor", "ray")
    done = shards(clips, tmp_path / "out", *flags, environment={"TMPDIR": str(long)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(long.iterdir()) == []
