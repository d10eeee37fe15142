"""The command lines of all packages: what they say to a wrong flag and to a closed pipe."""

import os
import subprocess
import sys

import pytest


def run(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("command", "flag", "known"),
    [
        ("pipeline shards", "--dataset demo --limt=3", "--limit {None}|INT"),
        ("manifests build", "--dataset demo --widow=3", "--window {None}|FLOAT"),
        ("bench", "--onl x", "--only {all"),
        ("train pretrain", "--shard=x", "--shards STR"),
    ],
)
def test_a_wrong_flag_is_answered_for_the_command_that_was_typed(command, flag, known):
    done = run(*command.split(), *flag.split())
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert known in said
    assert said.count("--help") == 1
    assert f"python -m {command} --help" in said


@pytest.mark.parametrize(
    "command",
    [
        "pipeline shards --help",
        "manifests build --help",
        "manifests datasets",
        "bench --help",
        "train check --help",
        "train describe --preset tiny",
    ],
)
def test_a_closed_pipe_is_no_error(command):
    reader, writer = os.pipe()
    os.close(reader)
    done = run(*command.split(), stdout=writer)
    os.close(writer)
    assert done.stderr == ""
