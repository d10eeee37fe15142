"""Names that steer a terminal: no command lets them through, and no ledger trips over them."""

import os
import subprocess
import sys
import unicodedata

import pytest

from tests.pipeline.clips import make_clip

NAMES = (b"esc\x1b[31mred\x07.mp4", b"new\nline.mp4", b"c1\xc2\x9b.mp4", b"bidi\xe2\x80\xaegpj.mp4")
LABEL = b"la\x1b]0;bel\x07"
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-shortest")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One good clip, and bad files whose names and labels hold escape sequences and line ends."""
    folder = tmp_path_factory.mktemp("names") / "raw"
    (folder / os.fsdecode(LABEL)).mkdir(parents=True)
    make_clip(folder / "good.mp4", seconds=2, size="64x48", options=X264)
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(b"no video")
        (folder / os.fsdecode(LABEL) / os.fsdecode(name)).write_bytes(b"no video")
    outside = folder.parent / os.fsdecode(b"\xff\x1b.mp4")
    outside.write_bytes(b"no video")
    (folder / "link.mp4").symlink_to(outside)
    return folder


def said(package, *arguments):
    """Everything a command says, as bytes, after a check that it has no traceback."""
    command = [sys.executable, "-m", package, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True)
    text = done.stdout + done.stderr
    assert b"Traceback" not in text, text.decode()
    return text


def steering(text):
    """Characters that do more than stand in a line."""
    return {c for c in text.decode() if unicodedata.category(c)[0] == "C"} - {"\n"}


def test_no_command_lets_a_name_steer_the_terminal(folder, tmp_path):
    out = tmp_path / "out"
    asked = ("--dataset", "folder", "--root", folder, "--out", out, "--faces", "off")
    for package, *arguments in (
        ("manifests", "build", *asked[:4], "--out", tmp_path / "m.parquet"),
        ("pipeline", "plan", *asked),
        ("pipeline", "shards", *asked, "--executor", "local"),
        ("pipeline", "status", out),
        ("pipeline", "verify", out, "--deep"),
        ("pipeline", "retry", out, "--reason", "unsupported_format", "--executor", "local"),
        ("pipeline", "finalize", out),
        ("pipeline", "peek", out),
        ("pipeline", "errors", out),
    ):
        text = said(package, *arguments)
        assert not steering(text), (package, arguments, text)
    lines = text.decode().splitlines()
    assert sum(".mp4  unsupported_format (open)" in line for line in lines) == 2 * len(NAMES)
    assert any(r"  new\nline.mp4  unsupported_format" in line for line in lines)
    assert any("link.mp4  bad_path" in line for line in lines)


def test_sentences_about_files_and_columns_are_printable_too(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("na\x1b[31mme,la\x07bel\na,b\n")
    text = said("manifests", "build", "--dataset", "table", "--table", table)
    assert b"no column with paths" in text
    assert not steering(text)
    table.write_text("path\ngo\x1bne.mp4\n")
    out = tmp_path / "m.parquet"
    text = said("manifests", "build", "--dataset", "table", "--table", table, "--out", out)
    assert rb"go\x1bne.mp4" in text
    assert not steering(text)
