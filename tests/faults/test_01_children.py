"""Cases 1 to 3: what one video does to the process that decodes it costs that video only."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.faults.jobs import MARK, X264, plugin, run, still_running
from tests.pipeline.clips import make_clip

TIMEOUT_SECONDS = 30
"""A file takes a moment: on a busy machine none that is well may run into the limit."""
HURT = {
    "segfault": ("crash", "SIGSEGV", 2),
    "exit": ("crash", "code 3", 2),
    "gil": ("timeout", f"no result after {TIMEOUT_SECONDS} s", 2),
    "deaf": ("timeout", f"no result after {TIMEOUT_SECONDS} s", 2),
    "hog": ("out_of_memory", "memory limit", 2),
    "surprise": ("decode_error", "RuntimeError: nobody expects this", 1),
}
"""What tests/pipeline/plugins/glav_faults.py does to files of these names; reason, words, tries."""
WELL = ["a", "chatter", "killed_once", "z"]


@dataclass(frozen=True)
class Job:
    """A job over files that hurt their decoder, and others."""

    out: Path
    said: str
    left: list[str]
    """Processes that outlived it."""

    def errors(self, *names):
        """(reason, tries) by name; the detail must have its words, and each row is there once."""
        rows = pq.read_table(self.out / "errors.parquet").to_pylist()
        by_name = {Path(row["uri"]).stem: row for row in rows}
        assert len(by_name) == len(rows) == len(HURT)
        for name in names:
            assert HURT[name][1] in by_name[name]["detail"]
        return {name: (by_name[name]["reason"], by_name[name]["tries"]) for name in names}


@pytest.fixture(
    scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)], name="job"
)
def _job(request, tmp_path_factory):
    """Exit code 0, and all other files are samples, once each."""
    place = tmp_path_factory.mktemp("hurt")
    (place / "raw").mkdir()
    first = make_clip(place / "raw" / "a.mp4", seconds=1.5, size="64x48", options=X264)
    for name in (*HURT, *WELL[1:]):
        shutil.copy(first, place / "raw" / f"{name}.mp4")
    mark = f"{place.name}-{request.param}"
    said = run(
        place / "raw", place / "out", "--executor", request.param, "--workers", "2",
        "--timeout", TIMEOUT_SECONDS, "--seconds-per-shard", "4", "--max-error-rate", "1",
        **{**plugin("glav_faults"), MARK: mark},
    )  # fmt: skip
    keys = pq.read_table(place / "out" / "samples.parquet")["key"].to_pylist()
    assert sorted(keys) == [f"{name}_mp4" for name in WELL]
    assert "10 rows = 4 samples" in said
    return Job(place / "out", said, still_running(mark))


def expected(*names):
    return {name: (HURT[name][0], HURT[name][2]) for name in names}


def test_01_decoder_dies_on_one_video(job):
    assert job.errors("segfault", "exit") == expected("segfault", "exit")
    assert "crash                       2" in job.said


def test_02_decoder_hangs_holding_the_gil_or_deaf_to_signals(job):
    assert job.errors("gil", "deaf") == expected("gil", "deaf")
    assert "timeout                     2" in job.said
    assert job.left == []


def test_03_decoder_eats_memory(job):
    assert job.errors("hog") == expected("hog")
    assert "out_of_memory               1" in job.said


def test_an_error_nobody_foresaw_is_a_row_of_the_ledger(job):
    assert job.errors("surprise") == expected("surprise")
    said = ["-m", "pipeline", "errors", str(job.out), "--reason", "decode_error"]
    done = subprocess.run([sys.executable, *said], capture_output=True, text=True)
    assert done.returncode == 0
    assert "surprise_mp4" in done.stdout
