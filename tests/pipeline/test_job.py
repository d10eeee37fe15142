"""The shard job as a user runs it; how it is killed and resumed is in tests/faults."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.job import clean
from tests.faults.conftest import GOOD, clips, whole
from tests.faults.jobs import X264, command, run
from tests.faults.sets import hashes
from tests.pipeline.clips import make_clip

__all__ = ["clips", "whole"]

REPOSITORY = Path(__file__).parents[2]


def test_the_ledger_closes_and_names_every_reason(whole):
    index = json.loads((whole / "shardindex.json").read_text())
    assert index["counts"] == {
        "planned": GOOD + 2, "samples": GOOD, "errors": 2, "not_run": 0,
    }  # fmt: skip
    errors = pq.read_table(whole / "errors.parquet").to_pylist()
    assert {row["uri"]: row["reason"] for row in errors} == {
        "mute.mp4": "no_audio", "text.mp4": "unsupported_format",
    }  # fmt: skip
    assert len(index["shardlist"]) > 2
    assert not list((whole / "shards").glob("*tmp*"))


def test_job_array_tasks_give_the_same_bytes(clips, whole, tmp_path):
    for task in ("1/3", "0/3", "2/3"):
        run(clips, tmp_path, "--task", task)
    finalize = [sys.executable, "-m", "pipeline", "finalize", str(tmp_path)]
    assert subprocess.run(finalize, capture_output=True).returncode == 0
    assert hashes(tmp_path) == hashes(whole)


def test_what_killed_drivers_left_is_removed(clips, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    names = ("report.html.tmp-0", "labels/folder.json.tmp-1", "shards/x.tar.tmp-2",
             "quality/columns.json.tmp-3")  # fmt: skip
    left = [out / name for name in names]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    run(clips, out)
    assert not any(path.exists() for path in left)


WRITERS = {
    "metrics": """
from pipeline.watch import Moment, Watch, WatchOptions
Watch(out, Moment("set", shards=1, kept=0, clips=1), WatchOptions()).tell()
""",
    "scan": """
from manifests import schema
from tests.pipeline.factory import rows
path = out / "scan" / "manifest.parquet"
schema.write(rows("a"), path, labels=["x"], root="/", fingerprint="", report={})
""",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_left_of_a_file_whose_writer_was_killed_is_removed(tmp_path, writer):
    """It has a name by which the next complete job knows it."""
    kill = (
        "import os, sys; from pathlib import Path; out = Path(sys.argv[1])\n"
        "os.rename = os.replace = lambda *_: os._exit(9)\n"
    )
    killed = [sys.executable, "-c", kill + WRITERS[writer], str(tmp_path)]
    assert subprocess.run(killed, cwd=REPOSITORY).returncode == 9
    assert [path for path in tmp_path.rglob("*") if path.is_file()]
    clean(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_job_with_nothing_to_make_says_that_none_runs(clips, whole, tmp_path):
    """One that was killed after its last shard leaves metrics of a running job."""
    out = shutil.copytree(whole, tmp_path / "out")
    metrics = out / "metrics.prom"
    running = re.compile(r"^(glav_job_running\{.*\}) [01]\.0$", re.M)
    metrics.write_text(running.sub(r"\1 1.0", metrics.read_text()))
    assert "0 made" in run(clips, out)
    said = metrics.read_text()
    assert [line[-4:] for line in re.findall(r"^glav_job_running.*$", said, re.M)] == [" 0.0"]
    [there] = re.findall(r"^glav_shards_committed\{.*\} (\d+)\.0$", said, re.M)
    assert int(there) == len(list((out / "shards").glob("*.tar")))


def test_limit_leaves_rows_not_run_and_they_can_follow(clips, tmp_path):
    run(clips, tmp_path, "--limit", "4")
    index = json.loads((tmp_path / "shardindex.json").read_text())
    assert index["counts"]["not_run"] == GOOD + 2 - 4
    kept = hashes(tmp_path)
    run(clips, tmp_path)
    index = json.loads((tmp_path / "shardindex.json").read_text())
    assert (index["counts"]["not_run"], index["counts"]["samples"]) == (0, GOOD)
    assert kept.items() <= hashes(tmp_path).items()


def test_another_collection_is_not_mixed_in_but_a_moved_one_goes_on(clips, whole, tmp_path):
    moved = shutil.copytree(clips, tmp_path / "moved")
    out = shutil.copytree(whole, tmp_path / "out")
    assert "0 made" in run(moved, out)
    assert json.loads((out / "plan.json").read_text())["manifest_root"] == str(moved)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(clips / "clip0.mp4", other / "another.mp4")
    done = subprocess.run(command(other, out), capture_output=True, text=True)
    assert done.returncode == 2
    assert "another collection" in done.stderr


def test_class_numbers_of_a_set_never_change(clips, tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in ("b/one.mp4", "b/two.mp4", "c/three.mp4"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips / "clip0.mp4", raw / name)
    run(raw, out, "--seconds-per-shard", "0.1")
    kept = hashes(out)
    (raw / "b" / "two.mp4").unlink()
    (raw / "a").mkdir()
    shutil.copy(clips / "clip0.mp4", raw / "a" / "four.mp4")
    run(raw, out, "--seconds-per-shard", "0.1")
    names = json.loads((out / "shardindex.json").read_text())["labels"]
    assert names == ["b", "c", "a"]
    samples = pq.read_table(out / "samples.parquet").to_pylist()
    assert {row["key"]: names[row["labels"][0]] for row in samples} == {
        "b/one_mp4": "b", "b/two_mp4": "b", "c/three_mp4": "c", "a/four_mp4": "a",
    }  # fmt: skip
    assert kept.items() < hashes(out).items()


def test_retry_on_a_cluster_that_is_not_there_touches_nothing(clips, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    retry = [sys.executable, "-m", "pipeline", "retry", str(out), "--reason", "no_audio"]
    nobody = dict(os.environ, RAY_ADDRESS="127.0.0.1:1")
    done = subprocess.run(retry, capture_output=True, text=True, env=nobody)
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr
    verify = [sys.executable, "-m", "pipeline", "verify", str(out)]
    assert subprocess.run(verify, capture_output=True).returncode in (0, 3)
    assert hashes(out) == hashes(whole)


def test_an_output_inside_the_root_is_refused(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    make_clip(raw / "clip.mp4", seconds=2, size="64x48", options=X264)
    done = subprocess.run(command(raw, raw / "out"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "inside the root" in done.stderr


def test_a_task_may_not_overwrite(clips, tmp_path):
    flags = ("--task", "0/2", "--overwrite")
    done = subprocess.run(command(clips, tmp_path, *flags), capture_output=True, text=True)
    assert done.returncode == 2
    assert "--overwrite" in done.stderr


def test_the_group_can_read_everything(clips, tmp_path):
    out = tmp_path / "out"
    shell = "umask 077; exec " + " ".join(command(clips, out))
    assert subprocess.run(["bash", "-c", shell], capture_output=True).returncode == 0
    closed = [p for p in [out, *out.rglob("*")] if not p.stat().st_mode & 0o040]
    assert not closed


def test_the_last_task_of_an_array_ends_the_lease(clips, tmp_path):
    run(clips, tmp_path, "--task", "0/1")
    assert (tmp_path / "run.lock").read_bytes() == b""


def test_a_refused_request_leaves_no_folder(tmp_path):
    done = subprocess.run(
        command(tmp_path / "nothing", tmp_path / "out"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_whose_name_is_no_text_is_refused(clips, tmp_path):
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/o\xff"))
    assert r"o\udcff': the name is not UTF-8" in run(clips, out, code=2)
    assert not os.path.exists(out)


def test_webdataset_and_tar_read_the_shards(whole):
    import webdataset

    tars = sorted(Path(whole / "shards").glob("*.tar"))
    names = subprocess.run(["tar", "tf", tars[0]], capture_output=True, text=True, check=True)
    assert names.stdout.splitlines()[0].endswith(".json")
    samples = list(webdataset.WebDataset([str(t) for t in tars], shardshuffle=False))
    assert len(samples) == GOOD
    assert {"json", "frames.mjpeg", "mel.npy"} <= set(samples[0])


def test_wids_opens_the_index(whole):
    import wids

    data = wids.ShardListDataset(str(whole / "shardindex.json"), base=str(whole))
    assert len(data) == GOOD
