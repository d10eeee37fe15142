"""Batch files for shards: bash and YAML read them, our own parsers take the commands they run.

Slurm and Ray are played by programs that write down how they were called, or that run what they
were given; `tests/faults/test_cluster.py` runs the script for Slurm on real nodes of Ray.
"""

import functools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
import yaml  # type: ignore[import-untyped]

from pipeline.commands import COMMANDS
from tests.faults.jobs import X264
from tests.faults.sets import hashes
from tests.pipeline.clips import ffmpeg, make_clip

ROOT = Path(__file__).resolve().parents[1]
JOBS = ROOT / "jobs"
SCRIPTS = sorted([*JOBS.glob("*.sh"), *JOBS.glob("*.sbatch")])
NOTES = """
    printf '%s\\0' "$(basename "$0")" "$@" >> "$STAGE/calls"; echo >> "$STAGE/calls" """
"""A program that writes down its name and words."""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_slurm_sees_all_of_its_options(path):
    """They end at the first command."""
    commands = path.read_text().split("\nset -", 1)[-1]
    assert not re.search(r"^#SBATCH", commands, re.MULTILINE)


# --- played programs ---------------------------------------------------------------------------


def stage(folder, **programs):
    """An environment with these programs in front of all others."""
    place = folder / "bin"
    place.mkdir()
    for name, text in programs.items():
        (place / name).write_text(f"#!/bin/bash\n{text}\n")
        (place / name).chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
    return {
        **kept, "PATH": f"{place}:{kept['PATH']}", "STAGE": str(folder),
        "PYTHON": f"{place}/python", "OUT": "/data/shards/x",
    }  # fmt: skip


def run(name, env, *words, code=0):
    command = ["bash", str(JOBS / name), *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def calls(folder, program):
    """The words of every call of a program."""
    lines = (folder / "calls").read_text().splitlines()
    found = [line.split("\0")[:-1] for line in lines]
    return [words[1:] for words in found if words[0] == program]


def parsed(words):
    """Name and first argument of `python -m pipeline ...` by our own parser.

    It exits where it does not know a word.
    """
    dash_m, package, name, *rest = words
    assert (dash_m, package) == ("-m", "pipeline")
    seen = functools.wraps(COMMANDS[name])(lambda *args, **named: [*args, *named.values()][0])
    return name, tyro.cli(seen, args=rest)


def example_of(name):
    """The words behind the script's name in the example of its head."""
    text = re.search(rf"jobs/{re.escape(name)} \\?(.*?)\n#\n", (JOBS / name).read_text(), re.DOTALL)
    assert text, name
    return shlex.split(text[1].replace("\\\n#", " ").replace("\n#", " "))


# --- Slurm -------------------------------------------------------------------------------------

ALLOCATION = {
    "SLURM_JOB_ID": "1234567", "SLURM_JOB_NODELIST": "n[1-4]", "SLURM_JOB_NUM_NODES": "4",
    "SLURM_CPUS_PER_TASK": "64",
}  # fmt: skip
PLAYED = {
    "python": NOTES,
    "scontrol": "printf 'n1\\nn2\\n'",
    "srun": 'exec "$@"',
    "ray": f'{NOTES}; while [[ $1 != -- ]]; do shift; done; shift; exec "$@"',
}


def test_ray_in_an_allocation(tmp_path):
    env = {**stage(tmp_path, **PLAYED), **ALLOCATION}
    run("shards.sbatch", env, *example_of("shards.sbatch"))
    (started,) = calls(tmp_path, "ray")
    assert started[:5] == ["symmetric-run", "--address", "n1:24567", "--min-nodes", "4"]
    (_, options), verify = map(parsed, calls(tmp_path, "python"))
    assert (options.dataset, options.out) == ("kinetics", "/data/shards/x")
    assert (options.executor, options.ray_address) == ("ray", "n1:24567")
    assert (verify[0], str(verify[1])) == ("verify", "/data/shards/x")


@pytest.mark.parametrize("code", [3, 5])
def test_a_job_that_fails_is_not_verified_and_has_its_code(tmp_path, code):
    env = {**stage(tmp_path, **{**PLAYED, "python": f"{NOTES}; exit {code}"}), **ALLOCATION}
    run("shards.sbatch", env, "--dataset", "demo", code=code)
    assert len(calls(tmp_path, "python")) == 1


def test_a_cluster_that_did_not_start_is_found_out_by_verify(tmp_path):
    """`ray symmetric-run` returns 0 then."""
    played = {**PLAYED, "ray": NOTES, "python": f"{NOTES}; exit 3"}
    run("shards.sbatch", {**stage(tmp_path, **played), **ALLOCATION}, "--dataset", "demo", code=3)
    ((name, _),) = map(parsed, calls(tmp_path, "python"))
    assert name == "verify"


def test_a_job_out_of_time_is_queued_again(tmp_path):
    played = {
        **PLAYED,
        "scontrol": f'if [[ $1 == show ]]; then echo n1; else {NOTES.strip()}; fi',
        "srun": "kill -USR1 $PPID; sleep 1; exit 3",
    }  # fmt: skip
    text = run("shards.sbatch", {**stage(tmp_path, **played), **ALLOCATION}, code=3)
    assert "out of time; queued again" in text
    assert calls(tmp_path, "scontrol") == [["requeue", "1234567"]]


def test_a_lock_of_a_former_machine_is_waited_for(tmp_path):
    locked_twice = f'{NOTES}; [[ $(wc -l < "$STAGE/calls") -lt 3 ]] && exit 4; exit 0'
    env = {**stage(tmp_path, python=locked_twice), "LOCK_WAIT_SECONDS": "0"}
    run("patiently.sh", env, f"{tmp_path}/bin/python", "-m", "pipeline", "shards")
    assert len(calls(tmp_path, "python")) == 3
    (tmp_path / "bin" / "python").write_text(f"#!/bin/bash\n{NOTES}; exit 4\n")
    run("patiently.sh", env, f"{tmp_path}/bin/python", code=4)
    assert len(calls(tmp_path, "python")) == 3 + 13


SBATCH = """
    while [[ $1 == --* ]]; do
        [[ $1 == --array ]] && last=${2#0-}
        [[ $1 == --parsable ]] && shift || shift 2
    done
    if [[ -n ${last:-} ]]; then
        for task in $(seq 0 "$last"); do
            SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_MAX=$last bash "$@" >&2 &
        done
        wait
        echo "77;cluster"
    else
        bash "$@" >&2; echo $? > "$STAGE/verdict"; echo 78
    fi"""
"""Runs at once what it is given; the tasks of an array beside each other, as Slurm does."""


def test_the_commands_of_a_job_array(tmp_path):
    env = stage(tmp_path, python=NOTES, sbatch=SBATCH)
    text = run("shards-array.sh", {**env, "TASKS": "3"}, *example_of("shards-array.sh"))
    assert "job array 77 makes the shards, job 78 the index" in text
    commands = [parsed(words) for words in calls(tmp_path, "python")]
    tasks = [options for name, options in commands if name == "shards"]
    assert {options.task for options in tasks} == {"0/3", "1/3", "2/3"}
    assert {(options.executor, options.workers) for options in tasks} == {("local", 1)}
    assert {(options.dataset, options.out) for options in tasks} == {("kinetics", "/data/shards/x")}
    assert [name for name, _ in commands[3:]] == ["status", "finalize", "verify"]


@pytest.mark.parametrize("tasks", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_tasks_is_refused(tmp_path, tasks):
    env = {**stage(tmp_path, python=NOTES, sbatch=NOTES), "TASKS": tasks}
    assert f"TASKS is '{tasks}'" in run("shards-array.sh", env, code=2)
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("name", ["shards.sbatch", "shards-array.sh", "shards-array.sbatch",
                                  "shards-finalize.sbatch", "shards-ray-job.sh"])  # fmt: skip
def test_without_an_output_a_script_says_how_to_name_it(tmp_path, name):
    env = {**stage(tmp_path), **ALLOCATION, "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
    del env["OUT"]
    done = subprocess.run(["bash", JOBS / name], env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "OUT=/data/shards/NAME" in done.stderr


@pytest.mark.slow
def test_a_job_array_makes_what_one_process_makes(tmp_path):
    """Three tasks that begin together and plan the same, then the dependent job."""
    raw, out, alone = tmp_path / "raw", tmp_path / "out", tmp_path / "alone"
    raw.mkdir()
    first = make_clip(raw / "0.mp4", seconds=2.5, size="192x144", options=X264)
    for number in range(1, 6):
        ffmpeg("-i", first, "-vf", f"hue=h={number * 30}", *X264[:6], raw / f"{number}.mp4")
    words = ["--dataset", "folder", "--root", str(raw), "--seconds-per-shard", "0.8", "--faces"]
    env = stage(tmp_path, python=f'exec {sys.executable} "$@"', sbatch=SBATCH)
    text = run("shards-array.sh", {**env, "OUT": str(out), "TASKS": "3"}, *words, "off")
    assert (tmp_path / "verdict").read_text() == "0\n", text
    command = [sys.executable, "-m", "pipeline", "shards", *words, "off", "--out", str(alone)]
    subprocess.run([*command, "--executor", "local"], check=True, capture_output=True, cwd=ROOT)
    assert hashes(out) == hashes(alone)
    index = json.loads((out / "shardindex.json").read_text())
    assert (index["complete"], index["counts"]["samples"]) == (True, 6)


# --- Ray ---------------------------------------------------------------------------------------


def test_a_job_submitted_through_the_dashboard(tmp_path):
    from ray.dashboard.modules.job.cli import submit

    env = stage(tmp_path, ray=NOTES)
    env["RAY_API_SERVER_ADDRESS"] = "http://head:8265"
    run("shards-ray-job.sh", env, *example_of("shards-ray-job.sh"))
    ((group, name, *words),) = calls(tmp_path, "ray")
    assert (group, name) == ("job", "submit")
    context = submit.make_context("submit", words)
    assert context.params["address"] == "http://head:8265"
    interpreter, *command = context.params["entrypoint"]
    assert interpreter == env["PYTHON"]
    assert parsed(command)[1].out == "/data/shards/x"


def rayjob():
    return yaml.safe_load((JOBS / "shards.rayjob.yaml").read_text())


def groups():
    cluster = rayjob()["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_kuberay_gets_a_job_whose_command_is_ours():
    job = rayjob()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    bash, script, python, *words = shlex.split(job["spec"]["entrypoint"])
    assert (bash, Path(script).name, python) == ("bash", "patiently.sh", "python")
    _, options = parsed(words)
    mounts = groups()[0]["template"]["spec"]["containers"][0]["volumeMounts"]
    places = {mount["mountPath"]: mount.get("readOnly", False) for mount in mounts}
    assert places["/data/raw"] is True
    assert places["/data/shards"] is False
    assert options.root.startswith("/data/raw/")
    assert options.out.startswith("/data/shards/")


def test_kuberays_ray_is_the_locked_one():
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    assert rayjob()["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]


@pytest.mark.parametrize("group", groups(), ids=["head", "workers"])
def test_a_pod_is_nobody_special_and_has_all_its_volumes(group):
    spec = group["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    cpus = group["rayStartParams"]["num-cpus"]
    assert cpus in ("0", container["resources"]["limits"]["cpu"])
    assert container["resources"]["requests"] == container["resources"]["limits"]
