"""The recipes of containers, as far as they can be checked without a builder of containers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.test_jobs import NOTES, calls, parsed, stage

ROOT = Path(__file__).resolve().parents[1]
CONTAINERS = ROOT / "containers"


def instructions():
    """(name, rest) of the Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (CONTAINERS / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [tuple(line.split(maxsplit=1)) for line in lines if line]


def those(name):
    return [rest for instruction, rest in instructions() if instruction == name]


def sections():
    """{name: lines} of the recipe for Apptainer."""
    parts = re.split(r"^%(\w+)\n", (CONTAINERS / "glav.def").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def shell_reads(text):
    return subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True)


def commands_of_make(text):
    """What follows `make` in a script, without what the shell or a builder would fill in."""
    found = re.findall(r"\bmake (setup[^\n&]*)", text)
    return [re.sub(r'"\$\w+"|\{\{ \w+ \}\}', "x", words).split() for words in found]


def test_what_is_copied_is_there():
    for rest in those("COPY"):
        *sources, _ = rest.split()
        for source in sources:
            assert (ROOT / source).exists(), source


def test_the_image_runs_as_a_user_with_a_number_who_is_not_root():
    """Kubernetes believes runAsNonRoot of numbers only."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", those("USER")[-1])
    last = max(n for n, (name, _) in enumerate(instructions()) if name == "USER")
    assert not {"RUN", "COPY", "ADD"} & {name for name, _ in instructions()[last:]}
    job = yaml.safe_load((ROOT / "jobs" / "shards.rayjob.yaml").read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert those("USER")[-1].split(":")[0] == str(head["securityContext"]["runAsUser"])
    (container,) = head["containers"]
    assert f"docker build -t {container['image']} " in (CONTAINERS / "Dockerfile").read_text()
    folder = those("WORKDIR")[-1]
    assert f"{folder}/jobs/patiently.sh" in job["spec"]["entrypoint"]


def test_every_command_of_the_recipes_parses():
    for run in those("RUN"):
        assert shell_reads(re.sub(r"--mount=\S+", "", run)).stderr == ""
    for name in ("setup", "post", "environment", "runscript", "test"):
        assert shell_reads(sections()[name]).stderr == "", name
    for name in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(word, str) for word in json.loads(those(name)[-1]))
    _, *command = json.loads(those("CMD")[-1])
    assert command == ["-m", "pipeline", "doctor"]


@pytest.mark.parametrize("recipe", ["Dockerfile", "glav.def"])
def test_the_set_up_is_one_that_make_takes(recipe, tmp_path):
    found = commands_of_make((CONTAINERS / recipe).read_text())
    assert found
    for words in found:
        done = subprocess.run(
            ["make", "-n", f"--file={ROOT}/Makefile", f"PYTHON={sys.executable}", *words],
            cwd=tmp_path, capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert "takes no" not in done.stderr, done.stderr
        assert "CLUSTER=1" in words


def test_both_recipes_start_from_the_same():
    start = re.search(r"^From: (.*)$", (CONTAINERS / "glav.def").read_text(), re.MULTILINE)
    assert start
    assert those("FROM") == ["scratch AS wheels", start[1]]


def test_environments_data_and_history_stay_outside():
    ignored = (CONTAINERS / "Dockerfile.dockerignore").read_text().split()
    assert {".git", ".venv", "/data", "/runs"} <= set(ignored)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    folders = {path.split("/")[0] for path in tracked.splitlines() if "/" in path}
    assert not folders & {name.strip("/") for name in ignored}


@pytest.mark.parametrize("name", ["python", "ray"])
def test_the_interpreter_of_an_image_stands_in_for_one(tmp_path, name):
    env = stage(tmp_path, apptainer=NOTES)
    command = [str(CONTAINERS / "bin" / name), "-m", "pipeline", "verify", "/data/a b"]
    subprocess.run(command, env={**env, "GLAV_IMAGE": "/images/glav.sif"}, check=True)
    ((verb, image, program, *words),) = calls(tmp_path, "apptainer")
    assert (verb, image, program) == ("exec", "/images/glav.sif", f"/opt/glav/.venv/bin/{name}")
    assert parsed(words) == ("verify", "/data/a b")
