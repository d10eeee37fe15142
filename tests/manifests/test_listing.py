"""The walk: what is listed, what is counted, what is followed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from manifests.listing import fingerprint, from_uri, to_uri, walk


def test_side_files_are_counted_and_media_are_sorted(tree) -> None:
    root = tree(
        {
            *("b/2.mp4", "a.mp4", "b/1.mkv", "b/1.txt", "x.json", "x.csv", "s.align", "notes.md"),
            *("._a.mp4", ".DS_Store", "a.mp4.part", "a.ytdl", ".git/HEAD"),
        }
    )
    listing = walk(root)
    assert [e.path for e in listing.files] == ["a.mp4", "b/1.mkv", "b/2.mp4", "notes.md"]
    assert [e.path for e in listing.side] == ["b/1.txt", "s.align", "x.csv", "x.json"]
    assert listing.ignored == {
        "*.txt side files": 1,
        "*.json side files": 1,
        "*.csv side files": 1,
        "*.align side files": 1,
        "._* (macOS metadata)": 1,
        "hidden files": 1,
        "hidden folders": 1,
        "*.part (unfinished downloads)": 1,
        "*.ytdl (unfinished downloads)": 1,
    }


def test_links_and_fifos_are_entries_and_never_opened(tree, tmp_path: Path) -> None:
    root = tree(["a.mp4"])
    (tmp_path / "outside.mp4").write_bytes(b"12345")
    (root / "in.mp4").symlink_to("a.mp4")
    (root / "out.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "dangling.mp4").symlink_to("nothing.mp4")
    os.mkfifo(root / "pipe.mp4")
    listing = walk(root)
    found = {entry.path: (entry.kind, entry.bytes) for entry in listing.files}
    assert found == {
        "a.mp4": ("file", 4),
        "in.mp4": ("link", 4),
        "out.mp4": ("link", 5),
        "dangling.mp4": ("link", None),
        "pipe.mp4": ("special", 0),
    }
    assert listing.links_out == 1


def test_linked_folders_are_followed_once_and_only_inside(tree, tmp_path: Path) -> None:
    root = tree(["real/a.mp4"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.mp4").write_bytes(b"b")
    (root / "val").symlink_to("real")
    (root / "again").symlink_to("real")
    (root / "real" / "loop").symlink_to("..")
    (root / "out").symlink_to(tmp_path / "other")
    listing = walk(root)
    paths = [entry.path for entry in listing.files]
    assert len(paths) == 2 and "real/a.mp4" in paths
    assert listing.ignored["linked folders that leave the root"] == 1
    assert listing.ignored["linked folders already listed"] >= 2


def test_names_that_are_not_utf8_survive(tree) -> None:
    root = tree(["ok.mp4"])
    with open(os.fsencode(root) + b"/bad\xff.mp4", "wb") as file:
        file.write(b"x")
    path = walk(root).files[0].path
    assert to_uri(path) == "bytes:bad%FF.mp4"
    assert from_uri(to_uri(path)) == path
    assert os.path.exists(root / from_uri(to_uri(path)))


@pytest.mark.parametrize("path", ["a.mp4", "bytes:a.mp4", "100%FF.mp4", "caf\u00e9/\udc80.mp4"])
def test_uris_go_back_to_paths(path: str) -> None:
    to_uri(path).encode()
    assert from_uri(to_uri(path)) == path


def test_the_fingerprint_sees_every_change(tree, tmp_path: Path) -> None:
    root = tree(["a.mp4", "train.csv"])
    outside = tmp_path / "annotations.csv"
    outside.write_text("x")

    def now() -> str:
        return fingerprint(walk(root), [outside])

    seen = [now()]
    assert now() == seen[0]
    (root / "a.mp4").write_bytes(b"longer than before")
    seen.append(now())
    os.utime(root / "train.csv", ns=(time.time_ns(), 1))
    seen.append(now())
    (root / "b.mp4").touch()
    seen.append(now())
    outside.write_text("xy")
    seen.append(now())
    assert len(set(seen)) == len(seen)


def test_a_link_in_a_circle_is_listed_like_any_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    assert "circle.mp4" in [file.path for file in walk(tmp_path).files]
