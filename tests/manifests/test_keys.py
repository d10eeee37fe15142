"""Slugs: the rule of architecture §2, and that keys always match the pattern."""

from __future__ import annotations

import hashlib
import os
import re

import pytest

from manifests.keys import KEY_PATTERN, folder_key


def hashed(path: str) -> str:
    return hashlib.sha1(os.fsencode(path)).hexdigest()[:8]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("cats/tom.mp4", "cats/tom_mp4"),
        ("tom", "tom"),
        ("-tom.mp4", "-tom_mp4"),
        ("--9O4XZOge4.webm", "--9O4XZOge4_webm"),
        ("a_b-C/9.MOV", "a_b-C/9_MOV"),
    ],
)
def test_only_the_extensions_dot_needs_no_hash(path: str, key: str) -> None:
    assert folder_key(path) == key


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("a b.mp4", "a_b_mp4"),
        ("v1.2/clip.tar.gz", "v1_2/clip_tar_gz"),
        ("caf\u00e9.mp4", "caf__mp4"),
        ("bad\udcff.mp4", "bad__mp4"),
        ("a//b.mp4", "a/b_mp4"),
        ("/a.mp4", "a_mp4"),
        ("a\n.mp4", "a__mp4"),
    ],
)
def test_any_other_change_adds_the_paths_hash(path: str, slug: str) -> None:
    assert folder_key(path) == f"{slug}-{hashed(path)}"


@pytest.mark.parametrize("path", ["", "/", ".", "...", "a/../b.mp4", "\udcff", "a/.b", "x."])
def test_every_key_matches_the_pattern(path: str) -> None:
    assert re.fullmatch(KEY_PATTERN, folder_key(path))
