"""`make setup` and `make wheels` in a folder of their own, with a lock of one small package."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = "http://127.0.0.1:9/simple"


def make_wheel(folder, version):
    """A wheel of the package `tiny`, by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tiny-{version}-py3-none-any.whl"
    facts = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny.py", f"VERSION = {version!r}\n")
        wheel.writestr(
            f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{facts}/RECORD", "")
    return path


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    (folder / "requirements.lock").write_text("tiny==1.0\n")
    (folder / "requirements-cluster.lock").write_text("tiny==1.0\n")
    return folder


def make(checkout, *words, code=0, **variables):
    """`make`, with an index for pip that does not answer."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE"))}
    environment = {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": NOWHERE,
                   "PIP_RETRIES": "0", **variables}  # fmt: skip
    done = subprocess.run(
        ["make", f"PYTHON={sys.executable}", *words],
        cwd=checkout, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def installed(checkout):
    """The version of `tiny` in the .venv, and the folder that it takes our packages from."""
    python = checkout / ".venv" / "bin" / "python"
    code = "import sys, tiny; print(tiny.VERSION, *(p for p in sys.path if p.endswith('checkout')))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    return done.stdout.split()


@pytest.mark.slow
def test_without_a_network_a_folder_of_wheels_will_do(checkout, tmp_path):
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    make_wheel(source, "1.0")
    here = {"PIP_FIND_LINKS": str(source), "PIP_NO_INDEX": "1"}
    assert f"make setup WHEELS={wheels}" in make(checkout, "wheels", f"WHEELS={wheels}", **here)
    assert [path.name for path in wheels.iterdir()] == ["tiny-1.0-py3-none-any.whl"]
    make(checkout, "setup", f"WHEELS={wheels}")
    assert installed(checkout) == ["1.0", str(checkout)]
    mark = checkout / ".venv" / ".done"
    before = mark.stat().st_mtime_ns
    make(checkout, "setup", f"WHEELS={wheels}")
    make(checkout, "setup", CLUSTER="1", TORCH_INDEX=NOWHERE)  # of the environment: not meant
    assert mark.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_build_of_a_package_is_chosen_by_an_index(checkout, tmp_path):
    """As torch 2.13.0+cu128 comes from another index than 2.13.0; another wish is another .venv."""
    plain = make_wheel(tmp_path / "plain", "1.0")
    index = tmp_path / "index" / "tiny"
    wheel = make_wheel(index, "1.0+cu128")
    (index / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    here = {"PIP_INDEX_URL": f"file://{tmp_path}/none", "PIP_FIND_LINKS": str(plain.parent)}
    make(checkout, "setup", **here)
    assert installed(checkout)[0] == "1.0"
    wish = f"TORCH_INDEX=file://{index.parent}"
    make(checkout, "setup", wish, **here)
    assert installed(checkout)[0] == "1.0+cu128"
    mark = checkout / ".venv" / ".done"
    assert str(index.parent) not in mark.read_text()  # an address may hold a password
    before = mark.stat().st_mtime_ns
    make(checkout, "setup", wish, **here)
    assert mark.stat().st_mtime_ns == before


def test_wheels_that_are_not_there_are_named(checkout, tmp_path):
    text = make(checkout, "setup", f"WHEELS={tmp_path}/no", code=2)
    assert f"WHEELS={tmp_path}/no is no folder" in text
    assert not (checkout / ".venv").exists()
    assert "name a folder: make wheels WHEELS=" in make(checkout, "wheels", code=2)


def test_the_lock_for_clusters_says_the_same_as_the_other():
    def pins(name):
        lines = (ROOT / name).read_text().splitlines()
        return dict(line.split()[0].split("==") for line in lines if "==" in line)

    both, ours = pins("requirements-cluster.lock"), pins("requirements.lock")
    assert both["ray"] == ours["ray"]
    assert {"aiohttp", "opencensus"} <= both.keys() - ours.keys()
    assert {name: pin for name, pin in both.items() if ours.get(name, pin) != pin} == {}


def test_no_lock_and_no_container_names_a_host():
    files = [*ROOT.glob("requirements*"), *(ROOT / "containers").iterdir(), ROOT / "Makefile"]
    for path in (path for path in files if path.is_file()):
        assert not re.search(r"https?://\w", path.read_text()), path
