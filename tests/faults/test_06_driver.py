"""Cases 6, 7, 8 and 11: the driver is killed, told to stop, run again, run twice."""

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.jobs import (
    MARK,
    committed,
    litter,
    plugin,
    run,
    start,
    still_running,
    times,
    wait_for_shards,
)
from tests.faults.sets import hashes, read_set

EXECUTORS = ["local", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture
def short_path():
    """A temporary folder for Ray, whose sockets want short paths."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_06_driver_killed_and_the_same_command_again(clips, whole, tmp_path, executor, short_path):
    flags = ("--executor", executor, "--workers", "2")
    marked = {MARK: tmp_path.name, "TMPDIR": str(short_path)}
    process = start(clips, tmp_path, *flags, **plugin("glav_slow"), **marked)
    wait_for_shards(tmp_path, 2, process)
    process.kill()
    process.communicate(timeout=280)
    kept = len(committed(tmp_path))
    said = run(clips, tmp_path, *flags, **marked)
    total = len(committed(whole))
    assert 2 <= kept < total
    resumed = next(line for line in said.splitlines() if line.startswith("resumed"))
    words = resumed.replace(",", "").split()
    found, made = int(words[1]), int(words[4])
    assert found >= kept  # a worker may have committed one more after the driver was gone
    assert found + made == total
    assert list(read_set(whole).differences(read_set(tmp_path))) == []
    assert still_running(tmp_path.name) == []
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_07_driver_told_to_stop(clips, tmp_path, number, code, executor, short_path):
    marked = {MARK: f"{tmp_path.name}-{executor}", "TMPDIR": str(short_path)}
    process = start(clips, tmp_path, "--executor", executor, **plugin("glav_slow"), **marked)
    wait_for_shards(tmp_path, 1, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=280)  # 15 s on a machine of its own
    assert process.returncode == code, said
    assert "same command again" in said
    assert still_running(marked[MARK]) == []
    if executor == "local":  # Ray's workers are killed; the run that completes the set tidies up
        assert litter(tmp_path) == []
    assert not (tmp_path / "shardindex.json").exists()
    assert list(short_path.iterdir()) == []


def test_08_complete_output_is_left_alone(clips, whole):
    before = times(whole / "shards")
    said = run(clips, whole)
    total = len(committed(whole))
    assert f"resumed: {total} shards kept, 0 made" in said
    assert times(whole / "shards") == before


HOLDER = """
import sys, time
from pathlib import Path
from pipeline.lock import lock
with lock(Path(sys.argv[1]), shared=False):
    print("held", flush=True)
    time.sleep(600)
"""


def test_11_second_job_is_told_who_holds_the_output(clips, whole, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        said = run(clips, tmp_path, code=4)
    finally:
        holder.kill()
        holder.communicate()
    assert f"process {holder.pid} on " in said
    assert not committed(tmp_path)
    run(clips, tmp_path)  # at once: the lock went with its owner
    assert hashes(tmp_path) == hashes(whole)


def test_extra_ctrl_c_while_the_index_is_written(clips, whole, tmp_path):
    said = run(clips, tmp_path, code=130, **plugin("glav_interrupted"))
    assert "same command again" in said
    assert len(committed(tmp_path)) == len(committed(whole))
    assert not (tmp_path / "shardindex.json").exists()
    assert litter(tmp_path) == []
    assert "0 made" in run(clips, tmp_path)
    assert list(read_set(whole).differences(read_set(tmp_path))) == []
