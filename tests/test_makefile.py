"""The Makefile: a name it does not know is refused, what it knows reaches the command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def dry_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`make -n`: what would be run; this test may itself be run by make."""
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    command = ["make", "-n", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shards", "DATASET=demo", "PROFIL=lips"], "takes no PROFIL=. Did you mean PROFILE=?"),
        (["shards", "dataset=demo"], "takes no dataset=. Did you mean DATASET=?"),
        (["pretrain", "SHARD=x"], "make pretrain takes no SHARD=. Did you mean SHARDS=?"),
        (["demo", "PROFILE=lips"], "make demo takes no PROFILE=. "),
        (["XYZW=1"], "make help takes no XYZW=.  It takes DATA= PYTHON= ARGS="),
    ],
)
def test_a_variable_that_a_target_does_not_take_is_refused(arguments, said):
    done = dry_run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "pipeline" not in done.stdout


def test_what_a_target_takes_reaches_its_command():
    flags = "--limit 3 --note=PROFIL=lips"
    done = dry_run("shards", "DATASET=demo", "PROFILE=lips", "OUT=/x y", f"ARGS={flags}")
    assert done.returncode == 0, done.stderr
    assert f'--out "/x y" --profile "lips" {flags}' in " ".join(
        done.stdout.replace("\\\n", "").split()
    )


def test_variables_of_the_environment_are_nobodys_mistake(monkeypatch):
    monkeypatch.setenv("PROFIL", "lips")
    assert dry_run("shards", "DATASET=demo").returncode == 0


def variables_in_the_help():
    """Target and the variables that `make help` shows for it."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    for target, text in (line.split(":", 1) for line in lines if "  ## " in line):
        names = re.findall(r"\b([A-Z_]+)=", text.partition("##")[2])
        if names:
            yield pytest.param(target, names, id=target)


@pytest.mark.parametrize(("target", "names"), list(variables_in_the_help()))
def test_every_variable_that_the_help_shows_is_taken(target, names):
    done = dry_run(target, *(f"{name}=value" for name in names))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("value") >= len(names)
