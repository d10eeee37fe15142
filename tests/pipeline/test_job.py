"""The shard job as a user runs it: same bytes however it is run, killed, resumed or grown."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.pipeline.clips import ffmpeg, make_clip

CLIPS = 9
FAST = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-shortest")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with good clips, a mute one and a text that calls itself a video."""
    folder = tmp_path_factory.mktemp("clips")
    first = make_clip(folder / "clip0.mp4", seconds=2.5, size="192x144", options=FAST)
    for number in range(1, CLIPS):
        path = folder / f"label{number % 2}" / f"clip{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        ffmpeg("-i", first, "-vf", f"hue=h={number * 30}", *FAST[:6], path)
    make_clip(folder / "mute.mp4", seconds=2, size="64x48", sound=False, options=FAST)
    (folder / "text.mp4").write_text("no video at all\n" * 20)
    return folder


def command(clips, out, *flags):
    base = [sys.executable, "-m", "pipeline", "shards", "--dataset", "folder", "--root", clips]
    own = ["--out", out, "--seconds-per-shard", "0.8", "--faces", "off", "--executor", "local"]
    return [*map(str, [*base, *own]), *flags]


def run(clips, out, *flags, code=0):
    done = subprocess.run(command(clips, out, *flags), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def hashes(out):
    tars = sorted((out / "shards").glob("*.tar"))
    return {tar.name: hashlib.sha256(tar.read_bytes()).hexdigest() for tar in tars}


@pytest.fixture(scope="module")
def undisturbed(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    run(clips, out, "--workers", "1")
    return out


def test_the_ledger_closes_and_names_every_reason(undisturbed):
    index = json.loads((undisturbed / "shardindex.json").read_text())
    assert index["counts"] == {
        "planned": CLIPS + 2, "samples": CLIPS, "errors": 2, "not_run": 0,
    }  # fmt: skip
    errors = pq.read_table(undisturbed / "errors.parquet").to_pylist()
    assert {row["uri"]: row["reason"] for row in errors} == {
        "mute.mp4": "no_audio", "text.mp4": "unsupported_format",
    }  # fmt: skip
    assert len(index["shardlist"]) > 2
    assert not list((undisturbed / "shards").glob("*tmp*"))


@pytest.mark.parametrize("flags", [("--workers", "2"), ("--executor", "ray", "--workers", "2")])
def test_workers_and_executor_do_not_change_a_byte(clips, undisturbed, tmp_path, flags):
    run(clips, tmp_path, *flags)
    assert hashes(tmp_path) == hashes(undisturbed)


def test_a_second_call_does_nothing(clips, undisturbed):
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "shards").iterdir()}
    assert "shards kept, 0 made" in run(clips, undisturbed)
    assert {p: p.stat().st_mtime_ns for p in (undisturbed / "shards").iterdir()} == before


def test_another_config_is_refused_and_named(clips, undisturbed):
    done = subprocess.run(
        command(clips, undisturbed, "--fps", "25"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "fps: 10/1 -> 25/1" in done.stderr


def test_damaged_shards_are_made_again_and_no_other(clips, undisturbed, tmp_path):
    run(clips, tmp_path)
    tars = sorted((tmp_path / "shards").glob("*.tar"))
    tars[0].unlink()
    with tars[1].open("ab") as file:
        file.write(b"grown")
    tars[2].with_suffix(".json").write_text('{"shard":')
    kept = {tar: tar.stat().st_mtime_ns for tar in tars[3:]}
    assert "3 made" in run(clips, tmp_path)
    assert hashes(tmp_path) == hashes(undisturbed)
    assert {tar: tar.stat().st_mtime_ns for tar in kept} == kept


def test_job_array_tasks_give_the_same_bytes(clips, undisturbed, tmp_path):
    for task in ("1/3", "0/3", "2/3"):
        run(clips, tmp_path, "--task", task)
    finalize = [sys.executable, "-m", "pipeline", "finalize", str(tmp_path)]
    assert subprocess.run(finalize, capture_output=True).returncode == 0
    assert hashes(tmp_path) == hashes(undisturbed)


def test_limit_leaves_rows_not_run_and_they_can_follow(clips, tmp_path):
    run(clips, tmp_path, "--limit", "4")
    index = json.loads((tmp_path / "shardindex.json").read_text())
    assert index["counts"]["not_run"] == CLIPS + 2 - 4
    kept = hashes(tmp_path)
    run(clips, tmp_path)
    index = json.loads((tmp_path / "shardindex.json").read_text())
    assert (index["counts"]["not_run"], index["counts"]["samples"]) == (0, CLIPS)
    assert kept.items() <= hashes(tmp_path).items()


def test_new_files_become_new_shards_and_old_ones_stay(clips, tmp_path):
    grown = tmp_path / "raw"
    grown.mkdir()
    for path in sorted(clips.glob("label1/*")):
        (grown / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out"
    run(grown, out)
    old = hashes(out)
    (grown / "another.mp4").write_bytes((clips / "clip0.mp4").read_bytes())
    assert "1 rows were appended as new shards" in run(grown, out)
    assert old.items() < hashes(out).items()
    rows = pq.read_table(out / "samples.parquet", columns=["instance"])["instance"].to_pylist()
    assert sorted(rows) == list(range(len(rows)))


def test_another_collection_is_not_mixed_in_but_a_moved_one_goes_on(clips, undisturbed, tmp_path):
    moved = shutil.copytree(clips, tmp_path / "moved")
    out = shutil.copytree(undisturbed, tmp_path / "out")
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


def test_retry_makes_the_same_bytes_and_keeps_the_old_until_then(clips, undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "out")
    retry = [sys.executable, "-m", "pipeline", "retry", str(out), "--executor", "local"]
    done = subprocess.run([*retry, "--reason", "no_audio"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert hashes(out) == hashes(undisturbed)
    nobody = dict(os.environ, RAY_ADDRESS="127.0.0.1:1")
    command = [*retry[:-1], "ray", "--reason", "no_audio"]
    done = subprocess.run(command, capture_output=True, text=True, env=nobody)
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr
    verify = [sys.executable, "-m", "pipeline", "verify", str(out)]
    assert subprocess.run(verify, capture_output=True).returncode in (0, 3)
    assert len(list((out / "shards").glob("*.json"))) == len(hashes(undisturbed))


def test_an_output_inside_the_root_is_refused(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    make_clip(raw / "clip.mp4", seconds=2, size="64x48", options=FAST)
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


def kill_at_random(process, chance, target):
    """Kill -9 the driver, a Ray worker or an item child after a random while."""
    time.sleep(chance.uniform(0.3, 2.5))
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
        victims = {
            "driver": [psutil.Process(process.pid)],
            "child": [p for p in tree if "pipeline.child" in " ".join(p.cmdline())],
            "worker": [p for p in tree if p.name().startswith("ray::")],
        }[target]
        if victims:
            os.kill(chance.choice(victims).pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return  # it was quicker


def killed_and_resumed(clips, out, target, seed, *flags):
    process = subprocess.Popen(
        command(clips, out, *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    kill_at_random(process, random.Random(seed), target)
    process.wait(timeout=120)
    run(clips, out)
    return hashes(out)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("target", ["driver", "child"])
def test_kill_9_and_resume_gives_the_same_bytes(clips, undisturbed, tmp_path, target, seed):
    assert killed_and_resumed(clips, tmp_path, target, seed) == hashes(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("target", ["driver", "worker", "child"])
def test_kill_9_under_ray_and_resume_gives_the_same_bytes(
    clips, undisturbed, tmp_path, target, seed
):
    flags = ("--executor", "ray", "--workers", "2")
    assert killed_and_resumed(clips, tmp_path, target, seed + 100, *flags) == hashes(undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_job_and_its_children(clips, tmp_path, number, code):
    process = subprocess.Popen(command(clips, tmp_path), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    children: list[psutil.Process] = []
    while not children and time.monotonic() < deadline:
        children = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.05)
    process.send_signal(number)
    _, text = process.communicate(timeout=30)
    assert process.returncode == code
    assert "same command again" in text
    assert not [child for child in children if child.is_running()]
    assert not (tmp_path / "shardindex.json").exists()


def test_a_second_job_on_the_same_output_is_told_who_holds_it(clips, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        done = subprocess.run(command(clips, tmp_path), capture_output=True, text=True)
    finally:
        holder.kill()
        holder.wait()
    assert done.returncode == 4
    assert f"process {holder.pid}" in done.stderr
    run(clips, tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
from pipeline.lock import lock
with lock(Path(sys.argv[1]), shared=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_too_many_faults_stop_the_job(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(230):
        (raw / f"{number:03}.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 100)
    out = tmp_path / "out"
    text = run(raw, out, code=3)
    assert "--max-error-rate" in text
    assert not (out / "shardindex.json").exists()
    assert "230 rows" in text


def test_a_folder_of_bad_files_only_exits_3(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "empty.mp4").touch()
    text = run(raw, tmp_path / "out", code=3)
    assert "empty_file" in text
    assert "Not a single clip" in text


def test_an_output_that_cannot_be_written_is_refused_first(clips, tmp_path):
    blocker = tmp_path / "file"
    blocker.touch()
    done = subprocess.run(command(clips, blocker / "out"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot write" in done.stderr


def test_verify_finds_the_flipped_byte(clips, undisturbed, tmp_path):
    run(clips, tmp_path)
    tar = sorted((tmp_path / "shards").glob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    verify = [sys.executable, "-m", "pipeline", "verify", str(tmp_path)]
    done = subprocess.run(verify, capture_output=True, text=True)
    assert done.returncode == 5
    assert tar.stem in done.stdout


def test_webdataset_and_tar_read_the_shards(undisturbed):
    import webdataset

    tars = sorted(Path(undisturbed / "shards").glob("*.tar"))
    names = subprocess.run(["tar", "tf", tars[0]], capture_output=True, text=True, check=True)
    assert names.stdout.splitlines()[0].endswith(".json")
    samples = list(webdataset.WebDataset([str(t) for t in tars], shardshuffle=False))
    assert len(samples) == CLIPS
    assert {"json", "frames.mjpeg", "mel.npy"} <= set(samples[0])


def test_wids_opens_the_index(undisturbed):
    import wids

    data = wids.ShardListDataset(str(undisturbed / "shardindex.json"), base=str(undisturbed))
    assert len(data) == CLIPS
