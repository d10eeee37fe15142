"""Nothing that a job runs holds more after more clips: each kind of process, one at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.corpus import corpus
from tests.faults.flat import drift
from tests.faults.jobs import plugin, run

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 30
MOST_MIB = {"child": 6.0, "worker": 2.0, "driver": 2.0}
"""Between thirds; a child's heap comes in pages of 2 MiB, and may take or give back a few."""
ROUNDS = {"child": 24, "worker": 12, "driver": 60}
LEAK_BYTES = {"worker": 200_000, "driver": 20_000}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set of a few short clips, some bad."""
    folder = tmp_path_factory.mktemp("flat")
    raw, out = corpus(folder / "raw", CLIPS, seed=1), folder / "out"
    run(raw, out, "--seconds-per-shard", "6", "--workers", "1", "--timeout", "300")
    return out


def levels(role, made, *numbers, **environment):
    """MiB after each round."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.flat", role, made, *map(str, numbers)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("role", MOST_MIB)
def test_it_holds_no_more_after_more_clips(role, made):
    found = levels(role, made, ROUNDS[role])
    assert len(found) == ROUNDS[role]
    assert drift(found) <= MOST_MIB[role], found


@pytest.mark.parametrize("role", LEAK_BYTES)
def test_a_leak_would_be_seen(role, made):
    found = levels(role, made, ROUNDS[role], LEAK_BYTES[role])
    assert drift(found) > MOST_MIB[role], found


def test_a_leak_of_a_picture_a_clip_would_be_seen_in_a_child(made):
    found = levels("child", made, ROUNDS["child"], **plugin("glav_leak"))
    assert drift(found) > MOST_MIB["child"], found
