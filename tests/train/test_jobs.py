"""Batch scripts: bash reads them, our parser their commands, and Slurm's part is played."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train.runs import metrics, same, weights
from train.__main__ import pretrain_config

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "jobs" / "pretrain.sbatch"
SCRIPTS = sorted((ROOT / "jobs").glob("*.sbatch"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def command_of(text):
    """The words behind `-m train` of a shell command that goes over several lines."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return shlex.split(re.search(r"-m train (.*?)(?: &)?$", joined, re.MULTILINE)[1])  # type: ignore[index]


def test_its_command_is_one_of_ours():
    """The script's own words, and the example of its head in place of "$@"."""
    text = SCRIPT.read_text()
    name, *words = command_of(text)
    assert (name, words[-1]) == ("pretrain", "$@")
    example = text.split("jobs/pretrain.sbatch ")[1].split("\n#\n")[0].replace("\\\n#", "")
    config = pretrain_config([*words[:-1], *shlex.split(example)])
    assert config.run == "$folder"
    assert config.preset == "glcm_r18"
    assert "avspeech-glcm@n=120000" in config.shards


def test_slurm_signals_the_shell_in_time_and_may_queue_it_again():
    options = re.findall(r"^#SBATCH (\S+)$", SCRIPT.read_text(), re.MULTILINE)
    assert {"--signal=B:USR1@120", "--requeue", "--open-mode=append"} <= set(options)
    assert not re.search(r"^#SBATCH", SCRIPT.read_text().split("\nset -")[1], re.MULTILINE)


# --- Slurm, played by four small programs ---------------------------------------------------------

PROGRAMS = {
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        echo $$ > "$STAGE/step"
        export SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1
        exec "$@" """,
    "scancel": """
        all() { for child in $(ps -o pid= --ppid "$1"); do all "$child"; done; echo "$1"; }
        kill -"${1#--signal=}" $(all "$(cat "$STAGE/step")")""",
    "scontrol": """
        if [[ $1 == show ]]; then echo localhost; else echo "$@" >> "$STAGE/requeued"; fi""",
}


def slurm(stage):
    """An environment in which a batch script finds what it calls."""
    programs = stage / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    return {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "STAGE": str(stage),
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1", "RANKS_PER_NODE": "2", "PYTHON": sys.executable,
        "GLAV_PLUGINS": "tests.train.toy", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def batch(env, run, shards, *more):
    words = [
        "bash", str(SCRIPT), "--method", "toy", "--preset", "toy", "--shards", str(shards),
        "--epochs", "5", "--batch-size", "2", "--workers", "0", "--device", "cpu", *more,
    ]  # fmt: skip
    return subprocess.Popen(
        words, cwd=ROOT, env={**env, "RUN": str(run)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for_steps(run, count, process):
    path = run / "metrics.jsonl"
    while not (path.exists() and path.read_text().count("\n") >= count):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_job_that_is_told_to_stop_saves_is_queued_again_and_goes_on(ten, tmp_path):
    env = slurm(tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    text, _ = (alone := batch(env, whole, ten)).communicate(timeout=280)
    assert alone.returncode == 0, text
    assert not (tmp_path / "requeued").exists()

    first = batch(env, parts, ten, "--model.seconds", "0.3")
    wait_for_steps(parts, 3, first)
    first.send_signal(signal.SIGUSR1)
    text, _ = first.communicate(timeout=280)
    assert first.returncode == 0, text
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n"
    assert len(metrics(parts)) < len(metrics(whole)) == 10

    second = batch(env, parts, ten, "--model.seconds", "0.3")
    text, _ = second.communicate(timeout=280)
    assert second.returncode == 0, text
    assert "going on at step" in text
    assert (tmp_path / "requeued").read_text().count("\n") == 1
    assert same(parts) == same(whole)
    expected = weights(whole)
    assert all((expected[name] == tensor).all() for name, tensor in weights(parts).items())


@pytest.mark.slow
def test_a_job_that_fails_after_an_earlier_preemption_is_not_queued_for_ever(ten, tmp_path):
    env, run = slurm(tmp_path), tmp_path / "run"
    run.mkdir()
    (run / "preempted").write_text("{}")
    process = batch(env, run, tmp_path / "nowhere-glcm")
    text, _ = process.communicate(timeout=280)
    assert process.returncode == 1, text
    assert "no shards under" in text
    assert not (tmp_path / "requeued").exists()


# --- the script alone: what it waits for is played, too -------------------------------------------

SLOWLY = """trap 'case $BASH_COMMAND in kill*|wait*) sleep 0.5;; esac' DEBUG"""
"""Before it looks for the step or waits: the step is gone by then."""


def played(tmp_path, step, prelude=""):
    """Exit code and words of the script whose job step is these lines of bash.

    Handing a signal on takes a second, in which the step may end.
    """
    env = slurm(tmp_path)
    (tmp_path / "prelude").write_text(prelude)
    for name, text in {"srun": step, "scancel": "sleep 1"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\ntrap - DEBUG\n{text}\n")
    process = batch({**env, "BASH_ENV": str(tmp_path / "prelude")}, tmp_path / "run", "nowhere")
    text, _ = process.communicate(timeout=280)
    return process.returncode, text


@pytest.mark.parametrize("code", [0, 3, 138])
def test_a_step_that_is_gone_at_once_has_its_code(tmp_path, code):
    assert played(tmp_path, f"exit {code}", SLOWLY) == (code, "")


@pytest.mark.parametrize("code", [0, 3, 138])
def test_a_signal_that_comes_as_the_step_ends_does_not_change_its_code(tmp_path, code):
    found, text = played(tmp_path, f"sleep 1; kill -USR1 $(ps -o ppid= $PPID); exit {code}")
    assert (found, text) == (code, "USR1: the ranks save\n")


def test_two_signals_are_no_end(tmp_path):
    twice = f"{'sleep 2; kill -USR1 $(ps -o ppid= $PPID); ' * 2}sleep 2; exit 4"
    assert played(tmp_path, twice) == (4, "USR1: the ranks save\n" * 2)
