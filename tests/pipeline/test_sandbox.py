"""A file that breaks its child process costs itself a sample, and nobody else."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import PROFILES
from pipeline.config import Limits
from pipeline.errors import ClipError, Reason
from pipeline.item import Failed, Item, Made
from pipeline.sandbox import Sandbox
from pipeline.shard import ShardTask, write_shard
from tests.pipeline.clips import make_clip
from tests.pipeline.rows import row

PLUGINS = Path(__file__).parent / "plugins"
CONFIG = replace(PROFILES["glcm"], faces="off")
LIMITS = Limits(base_seconds=60, seconds_per_second=0, memory_bytes=1 << 30)
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-shortest")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The same clip under names that the plugin knows, and under an innocent one."""
    folder = tmp_path_factory.mktemp("clips")
    first = make_clip(folder / "a.mp4", seconds=1.5, size="64x48", options=X264)
    for name in ("chatter", "killed_once"):
        shutil.copy(first, folder / f"{name}.mp4")
    return folder


@pytest.fixture
def faults(monkeypatch):
    """Children import the plugin, as a user's own package would be."""
    monkeypatch.setenv("GLAV_PLUGINS", "glav_faults")
    monkeypatch.setenv("PYTHONPATH", str(PLUGINS))


def run(sandbox, folder, name):
    """(outcome, tries) of a one-row file."""
    [result] = sandbox.run(Item(str(folder), (row(f"{name}.mp4"),)))
    return result


def test_what_a_library_prints_does_not_reach_the_samples(clips, faults):
    with Sandbox(CONFIG, LIMITS) as sandbox:
        noisy, _ = run(sandbox, clips, "chatter")
        quiet, _ = run(sandbox, clips, "a")
    assert isinstance(noisy, Made)
    assert isinstance(quiet, Made)
    assert noisy.members["frames.mjpeg"] == quiet.members["frames.mjpeg"]


def test_a_kill_from_outside_is_tried_again_and_harmless(clips, faults):
    with Sandbox(CONFIG, LIMITS) as sandbox:
        outcome, tries = run(sandbox, clips, "killed_once")
    assert isinstance(outcome, Made)
    assert tries == 2


def test_rows_made_before_the_child_dies_are_kept(clips, monkeypatch):
    """Rows of one file: the deaf second reply costs the second row alone."""
    sandbox = Sandbox(CONFIG, LIMITS)
    item = Item(str(clips), (row("a.mp4", 0.0, 1.2), row("a.mp4", 0.1, 1.4)))

    def dies_after_one(part):
        yield Failed(0, ClipError(Reason.NO_AUDIO, "first", "audio"))
        if len(part.rows) == 2:
            raise ClipError(Reason.CRASH, "died", "child")

    monkeypatch.setattr(sandbox, "_converse", dies_after_one)
    results = {outcome.index: tries for outcome, tries in sandbox.run(item)}
    assert results == {0: 1, 1: 2}


def test_a_row_the_child_forgets_is_a_crash_and_not_lost(clips, monkeypatch):
    sandbox = Sandbox(CONFIG, LIMITS)
    monkeypatch.setattr(sandbox, "_converse", lambda part: iter(()))
    outcome, _ = run(sandbox, clips, "a")
    assert isinstance(outcome, Failed)
    assert outcome.error.reason == Reason.CRASH


@pytest.mark.parametrize(
    "reply", ["{not json}", "[]", '{"type": "made"}', '{"type": "failed", "reason": "odd"}', "7"]
)
def test_a_reply_that_makes_no_sense_is_a_crash(clips, monkeypatch, reply):
    program = f"import sys; sys.stdin.readline(); print({reply!r}, flush=True); sys.stdin.read()"
    really_start = subprocess.Popen

    def start(command, **options):
        return really_start([sys.executable, "-c", program], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    with Sandbox(CONFIG, LIMITS) as sandbox:
        outcome, _ = run(sandbox, clips, "a")
    assert isinstance(outcome, Failed)
    assert outcome.error.reason == Reason.CRASH


def test_a_header_that_lies_about_the_length_buys_no_time(clips, monkeypatch):
    ready, opened = (
        json.dumps(reply) for reply in ({"type": "ready"}, {"type": "opened", "seconds": 1e9})
    )
    program = (
        f"import sys; sys.stdin.readline(); print({ready!r}, flush=True); sys.stdin.readline(); "
        f"print({opened!r}, flush=True); sys.stdin.read()"
    )
    really_start = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda command, **options: really_start([sys.executable, "-c", program], **options),
    )
    limits = Limits(base_seconds=2, seconds_per_second=0.1, max_clip_seconds=10)
    with Sandbox(CONFIG, limits) as sandbox:
        outcome, _ = run(sandbox, clips, "a")
    assert isinstance(outcome, Failed)
    assert outcome.error.reason == Reason.TIMEOUT
    assert outcome.error.detail == "no result after 3 s"


def test_starting_a_child_takes_no_time_from_its_file(clips, monkeypatch):
    """Libraries load slowly on a busy machine, and after each file that killed a child."""
    late = "import time; time.sleep(11); from pipeline.child import main; main()"
    really_start = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda command, **options: really_start([sys.executable, "-c", late], **options),
    )
    limits = replace(LIMITS, base_seconds=10)
    with Sandbox(CONFIG, limits) as sandbox:
        outcome, tries = run(sandbox, clips, "a")
    assert isinstance(outcome, Made)
    assert tries == 1


def test_a_child_that_does_not_start_is_said_to_be_the_trouble(clips, monkeypatch):
    monkeypatch.setattr("pipeline.sandbox.START_SECONDS", 0.2)
    with Sandbox(CONFIG, LIMITS) as sandbox:
        outcome, tries = run(sandbox, clips, "a")
    assert isinstance(outcome, Failed)
    assert (outcome.error.reason, tries) == (Reason.TIMEOUT, 2)
    assert outcome.error.detail == "no child process after 0 s"


def test_a_file_that_is_not_there_troubles_no_child(tmp_path):
    class NoChild(Sandbox):
        def run(self, item):
            raise AssertionError(f"{item.uri} was sent to a child")

    rows = tuple({**row(uri), "instance": i} for i, uri in enumerate(["gone.mp4", "../up.mp4"]))
    task = ShardTask("all-000000", rows, str(tmp_path), str(tmp_path), CONFIG, "", "", LIMITS, {})
    errors = write_shard(task, NoChild(CONFIG, LIMITS), lambda progress: None)["errors"]
    reasons = [(error["reason"], error["tries"]) for error in errors]
    assert reasons == [("missing_file", 1), ("bad_path", 1)]


def test_a_job_may_be_process_1_of_a_container(clips, tmp_path):
    """A parent with number 1 does not mean that the real one is gone."""
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine grants no namespace of processes")
    folder = tmp_path / "raw"
    folder.mkdir()
    shutil.copy(clips / "a.mp4", folder)
    command = [
        *alone, sys.executable, "-m", "pipeline", "shards", "--dataset", "folder",
        "--root", str(folder), "--out", str(tmp_path / "out"), "--faces", "off",
        "--executor", "local",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 row = 1 sample" in done.stdout
