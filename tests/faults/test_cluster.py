"""A job on a Ray cluster of several nodes on this machine, whose workers and nodes are killed.

The nodes are started without our code and the plugin on their path: what runs there was shipped. A
plugin holds back half of the clips, so that what is killed is always in the middle of a shard.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.jobs import X264
from tests.faults.nodes import NODE, ray_cluster
from tests.faults.sets import hashes
from tests.pipeline.clips import ffmpeg, make_clip

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "tests" / "pipeline" / "plugins"
EARLY, LATE = 4, 4
WAIT_SECONDS = 500.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without CPUs and two nodes of one each, started far from our code."""
    with ray_cluster(tmp_path_factory.mktemp("elsewhere")) as cluster:
        for name in ("alpha", "beta"):
            cluster.add_node(num_cpus=1, node_name=name, **NODE)
        yield cluster


@pytest.fixture
def raw(tmp_path):
    """Clips of which the longer ones, which are begun first, can be opened at once."""
    folder = tmp_path / "raw"
    folder.mkdir()
    first = make_clip(folder / "early0.mp4", seconds=2.5, size="192x144", options=X264)
    for number in range(1, EARLY + LATE):
        name, cut = (f"early{number}", ()) if number < EARLY else (f"late{number}", ("-t", "2"))
        tint = ("-vf", f"hue=h={number * 30}")
        ffmpeg("-i", first, *tint, *cut, *X264[:6], folder / f"{name}.mp4")
    return folder


def command(raw, out, *flags):
    base = [sys.executable, "-m", "pipeline", "shards", "--dataset", "folder", "--root", raw]
    own = ["--out", out, "--seconds-per-shard", "0.8", "--faces", "off", "--timeout", "500"]
    return [*map(str, [*base, *own]), *flags]


def environment(plugins="glav_gate"):
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**kept, "PYTHONPATH": f"{ROOT}:{PLUGINS}", "GLAV_PLUGINS": plugins}


def start(raw, out, address):
    """The job, from another folder than the nodes' and with an output named from there."""
    words = command(raw, os.path.relpath(out, raw.parent), "--ray-address", address)
    with open(log_of(raw), "w") as log:
        return subprocess.Popen(
            words, cwd=raw.parent, env=environment(), stdout=log, stderr=subprocess.STDOUT
        )


def log_of(raw):
    return raw.parent / "job.log"


def wait_until(happens, job, raw, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not happens():
        if job.poll() is not None or time.monotonic() > deadline:
            job.kill()
            pytest.fail(f"waiting for {what}: {log_of(raw).read_text()}")
        time.sleep(0.05)


def wait_for_line(pattern, job, raw):
    wait_until(lambda: re.search(pattern, log_of(raw).read_text(), re.M), job, raw, pattern)


def wait_for_the_gate(job, raw, out, busy):
    """Until only late clips are left and `busy` shards of them are begun."""
    shards = out / "shards"

    def stuck():
        done = len(list(shards.glob("*.tar")))
        return done == EARLY and len(list(shards.glob("*.tar.tmp-*"))) == busy

    wait_until(stuck, job, raw, "the gate")


def finish(job, raw):
    (raw / "gate.txt").touch()
    code, text = job.wait(timeout=WAIT_SECONDS), log_of(raw).read_text()
    assert code == 0, text
    return text


def check_whole(raw, out, undisturbed):
    """Every clip once, no litter, and the bytes of a run in threads of one process."""
    done = subprocess.run(
        command(raw, undisturbed, "--executor", "local", "--workers", "1"),
        capture_output=True, text=True, env=environment(), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert hashes(out) == hashes(undisturbed)
    assert len(hashes(out)) == EARLY + LATE
    counts = json.loads((out / "shardindex.json").read_text())["counts"]
    assert counts == {"planned": 8, "samples": 8, "errors": 0, "not_run": 0}
    assert not [path for path in (out / "shards").iterdir() if path.suffix not in (".tar", ".json")]


def pids(out):
    """Of the Ray workers that made the shards."""
    sidecars = (out / "shards").glob("*.json")
    return {json.loads(path.read_text())["run"]["pid"] for path in sidecars}


def shard_workers():
    """The Ray workers below this process that make a shard at the moment."""
    tree = psutil.Process().children(recursive=True)
    return [p for p in tree if p.is_running() and "_make_in_ray_worker" in p.name()]


def test_a_worker_that_is_killed_costs_a_second_try_and_nothing_else(cluster, raw, tmp_path):
    out = tmp_path / "out"
    job = start(raw, out, cluster.address)
    wait_for_the_gate(job, raw, out, 2)
    victim = shard_workers()[0]
    children = victim.children()
    victim.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(child.is_running() for child in children), job, raw, "its end")
    text = finish(job, raw)
    assert f"Ray cluster at {cluster.address}: 3 nodes, 2 CPUs; no dashboard" in text
    assert text.count("was lost with its worker process (WorkerCrashedError)") == 1
    assert "made again, try 2 of 4" in text
    assert len(pids(out)) >= 2
    check_whole(raw, out, tmp_path / "undisturbed")


def test_a_node_that_dies_is_named_and_one_that_joins_takes_over(cluster, raw, tmp_path):
    doomed = cluster.add_node(num_cpus=1, node_name="doomed", **NODE)
    out = tmp_path / "out"
    job = start(raw, out, cluster.address)
    wait_for_the_gate(job, raw, out, 3)
    cluster.remove_node(doomed, allow_graceful=False)
    fresh = cluster.add_node(num_cpus=1, node_name="fresh", **NODE)
    wait_for_line(r"^node doomed \(.*\) was lost: \d CPUs now$", job, raw)
    wait_for_line(r"^node fresh \(.*\) joined: \d CPUs now$", job, raw)
    text = finish(job, raw)
    cluster.remove_node(fresh)
    lost = re.findall(r"^shard all-\d{6} was lost with the node doomed \(.*$", text, re.M)
    assert len(lost) == 1, text
    assert lost[0].endswith("(NodeDiedError); it is made again, try 2 of 4")
    check_whole(raw, out, tmp_path / "undisturbed")


def test_a_cluster_that_was_not_named_is_not_joined(cluster, raw, tmp_path):
    """Although it is on this machine, where Ray would find it."""
    (raw / "gate.txt").touch()
    before = len(cluster.global_state.job_table())
    home = tmp_path / "home"
    home.mkdir()
    own = {**environment(), "HOME": str(home)}
    del own["RAY_AUTH_MODE"], own["RAY_AUTH_TOKEN"]
    done = subprocess.run(
        command(raw, tmp_path / "out", "--limit", "2"),
        capture_output=True, text=True, env=own, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Ray cluster" not in done.stderr
    assert len(cluster.global_state.job_table()) == before
    assert not (home / ".ray").exists()


def test_a_cluster_with_a_password_is_not_joined_without_it(cluster, raw, tmp_path):
    wrong = {**environment(), "RAY_AUTH_TOKEN": secrets.token_hex()}
    done = subprocess.run(
        command(raw, tmp_path / "out", "--ray-address", cluster.address),
        capture_output=True, text=True, env=wrong, cwd=tmp_path, timeout=WAIT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"the Ray cluster at {cluster.address} cannot be joined" in done.stderr


def test_ray_client_loses_nothing_either(cluster, raw, tmp_path):
    """`ray://`, through a server on the head: a worker killed, the same bytes."""
    out = tmp_path / "out"
    port = cluster.head_node._ray_params.ray_client_server_port
    job = start(raw, out, f"ray://127.0.0.1:{port}")
    wait_for_the_gate(job, raw, out, 2)
    shard_workers()[0].send_signal(signal.SIGKILL)
    wait_for_line(r"was lost with its worker process .* made again, try 2 of 4$", job, raw)
    finish(job, raw)
    check_whole(raw, out, tmp_path / "undisturbed")


SLURM = {
    "python": f'exec {sys.executable} "$@"',
    "scontrol": 'echo "$HEAD_NODE"',
    "srun": 'exec "$@"',
    "ray": """
        printf '%s\\n' "$@" > "$STAGE/ray-arguments"
        while [[ $1 != -- ]]; do shift; done; shift; exec "$@" """,
}
"""Slurm and `ray symmetric-run`, played: the cluster is there already. The real one ends with `ray
stop`, which would end every Ray of this user; the script looks for `ray` beside the interpreter."""


def test_the_slurm_script_makes_the_shards_and_has_them_verified(cluster, raw, tmp_path):
    from ray.scripts.scripts import start as ray_start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    out, programs = tmp_path / "out", tmp_path / "bin"
    programs.mkdir()
    for name, text in SLURM.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    (raw / "gate.txt").touch()
    head, port = cluster.address.split(":")
    done = subprocess.run(
        ["bash", "jobs/shards.sbatch", *command(raw, out)[4:6], "--root", str(raw),
         "--seconds-per-shard", "0.8", "--faces", "off"],
        cwd=ROOT, capture_output=True, text=True, env={
            **environment(), "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHON": f"{programs}/python",
            "OUT": str(out), "STAGE": str(tmp_path), "HEAD_NODE": head,
            "SLURM_JOB_ID": str(int(port) - 20000), "SLURM_JOB_NODELIST": "played",
            "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Ray cluster at {cluster.address}: 3 nodes" in done.stderr
    said = (tmp_path / "ray-arguments").read_text().split("\n")
    assert said[:5] == ["symmetric-run", "--address", cluster.address, "--min-nodes", "3"]
    options = curate_and_validate_ray_start_args(said[1 : said.index("--")])
    context = ray_start.make_context("start", ["--head", *options])
    assert context.params["num_cpus"] == 1
    assert context.params["temp_dir"] == f"/tmp/ray-{int(port) - 20000}"
    check_whole(raw, out, tmp_path / "undisturbed")
