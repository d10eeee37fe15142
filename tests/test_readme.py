"""What the README shows works: its reader, and its Make targets."""

import re
import subprocess
import sys
from pathlib import Path

import manifests
from pipeline import PROFILES
from tests.pipeline.fabricate import fabricate

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def reader_lines():
    """The code block behind the marker."""
    marked = README.split("<!-- reader:")[1]
    return re.search(r"```python\n(.*?)```", marked, re.DOTALL)[1]  # type: ignore[index]


def test_the_readers_lines_are_at_most_twenty_four():
    assert len(reader_lines().strip().splitlines()) <= 24


def test_the_reader_reads_shards_without_our_code(tmp_path):
    fabricate(tmp_path / "data" / "shards" / "demo-glcm", PROFILES["glcm"])
    (tmp_path / "reader.py").write_text(reader_lines())
    command = [sys.executable, "-I", "reader.py"]  # isolated: neither the checkout nor its path
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(80, " in done.stdout


def test_every_make_target_in_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


def test_every_profile_and_data_set_is_in_the_readme():
    for name in [*PROFILES, *manifests.DATASETS]:
        assert f"`{name}`" in README, name
