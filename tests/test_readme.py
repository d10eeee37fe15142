"""What the README and the pages of docs/ show works: the reader, Make targets, links."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import manifests
from pipeline import PROFILES
from tests.pipeline.fabricate import fabricate

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page):
    makefile, text = (ROOT / "Makefile").read_text(), page.read_text()
    for target in set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


def anchors(page):
    """Of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_code_begins_with_its_language_or_after_a_blank_line(page):
    """A closing fence without an opening one would turn all prose after it into code."""
    lines = page.read_text().splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    assert len(fences) % 2 == 0
    for opening, closing in zip(fences[::2], fences[1::2], strict=True):
        assert lines[opening] in {"```", "```bash", "```python"}
        assert lines[opening - 1] == "" or lines[opening - 1].startswith("<!--")
        assert lines[closing] == "```"


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_the_readme_leads_to_every_page(page):
    assert f"](docs/{page.name}" in README


def test_every_profile_and_data_set_is_in_the_readme():
    for name in [*PROFILES, *manifests.DATASETS]:
        assert f"`{name}`" in README, name
