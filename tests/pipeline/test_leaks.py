"""`pipeline leaks`: what is learned from and held out, by content, file and group; the way out."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from manifests.errors import UsageError
from pipeline.format import decode_jpeg, encode_json
from pipeline.leakpage import write_page
from pipeline.leaks import find_leaks, write_leaks
from pipeline.pairs import Sets
from tests.pipeline import copies
from tests.pipeline.fabricate import Members, edit_json, write_set
from tests.train.ramps import mixture_of
from train.view import View


def clip(
    key: str, seed: int, split: str, group: str, how: str = "", start: float = 0.0, **source: str
) -> Members:
    made = copies.members(key, seed, copies.COPIES.get(how), splits=[split], group=group)
    meta = json.loads(made["json"])
    meta["source"] |= source
    meta["window_start"] = start
    return {**made, "json": encode_json(meta)}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaks")
    learned = [
        clip("k/0", 0, "k:train", "yt:a"),
        clip("k/1", 1, "k:train", "yt:b"),
        clip("k/2", 2, "k:train", "yt:c"),
        clip("k/3", 3, "k:train", "yt:d", sha1="file"),
        clip("k/4", 4, "k:train", "yt:e"),
        clip("k/5", 1, "k:train", "yt:b2"),  # the very same as k/1
        clip("k/6", 6, "k:val", "yt:f"),
        clip("k/7", 2, "k:val", "yt:g", "letterboxed"),
    ]
    scored = [
        clip("u/0", 10, "u:test1", "ucf:x"),
        clip("u/1", 1, "u:test1", "ucf:y", "mirrored"),
        clip("u/2", 4, "u:train1", "ucf:z"),  # of no test split
        clip("u/3", 13, "u:test1", "yt:a"),
        clip("u/4", 14, "u:test1", "ucf:w", start=20.0, sha1="file"),
    ]
    train = write_set(folder / "train", copies.GLCM, [learned])
    test = write_set(folder / "test", copies.GLCM, [scored])
    edit_json(train / "shardindex.json", name="k-glcm", members=list(copies.GLCM.members))
    edit_json(test / "shardindex.json", name="u-glcm")
    return train, test


@pytest.fixture(scope="module")
def leaks(sets):
    return find_leaks(sets)


def test_what_is_planted_is_found_and_nothing_else(leaks):
    rows = leaks.table().to_pylist()
    assert {(row["key"], row["other_key"], row["kind"]) for row in rows} == {
        ("k/1", "u/1", "near"),
        ("k/5", "u/1", "near"),  # as it is the same as k/1
        ("k/2", "k/7", "near"),
        ("k/3", "u/4", "source"),
        ("k/0", "u/3", "group"),
    }
    assert {row["set"] for row in rows} == {"k-glcm"}
    text = "\n".join(leaks.lines())
    assert "6 clips of" in text
    assert "near     3 that are learned from are like 2 that are held out" in text


def test_only_some_kinds(sets):
    rows = find_leaks(sets, ["source"]).table().to_pylist()
    assert [(row["key"], row["picture_distance"]) for row in rows] == [("k/3", None)]
    with pytest.raises(UsageError, match="--kinds alike: expected some of exact"):
        find_leaks(sets, ["alike"])


def test_the_trainer_leaves_the_table_out(sets, leaks, tmp_path):
    path = tmp_path / "leaks.parquet"
    write_leaks(leaks, path)
    mixture = mixture_of(str(sets[0]), view=View(without=path))
    assert mixture.keys().to_pylist() == ["k/4"]


def test_the_page_shows_both_strips(leaks, tmp_path):
    write_page(leaks, tmp_path / "leaks.html")
    page = (tmp_path / "leaks.html").read_text()
    strips = [base64.b64decode(one) for one in re.findall(r"base64,([^\"]+)\" width", page)]
    assert len(strips) == 2 * len(leaks.found)
    place = 2 * [leak.trained for leak in leaks.found].index(2)  # k/2 and its letterboxed copy
    one, other = decode_jpeg(strips[place]), decode_jpeg(strips[place + 1])
    assert one.shape[0] == other.shape[0] == 96
    assert np.asarray(other[:8]).max() < 40 < np.asarray(one[:8]).mean()
    assert "mirrored" in page


def test_the_page_says_what_it_cannot_show(leaks, tmp_path):
    sets = [replace(prints, out=tmp_path / "gone") for prints in leaks.sets.sets[1:]]
    write_page(replace(leaks, sets=Sets([leaks.sets.sets[0], *sets])), tmp_path / "leaks.html")
    page = (tmp_path / "leaks.html").read_text()
    assert page.count("cannot be read: ") == sum(leak.held_out > 7 for leak in leaks.found) > 0


def test_folds_that_overlap_leak_only_within_a_fold(tmp_path):
    """UCF101's three splits: a clip is trained on in some and tested in another."""
    made = [copies.members(f"f/{n}", 5, splits=names, group=f"g{n}") for n, names in enumerate(
        [["x:train1", "x:test2"], ["x:test1", "x:train2"], ["x:test3"]])]  # fmt: skip
    out = write_set(tmp_path / "out", copies.GLCM, [made])
    leaks = find_leaks([out])
    assert {(leak.trained, leak.held_out) for leak in leaks.found} == {(0, 1), (1, 0)}


def test_a_set_of_test_clips_first_is_refused(tmp_path):
    out = write_set(tmp_path / "out", copies.GLCM, [[clip("a", 1, "x:test", "g")]])
    with pytest.raises(UsageError, match="name first the set that is learned from"):
        find_leaks([out])


def test_a_set_without_anything_held_out_is_not_called_clean(tmp_path):
    out = write_set(tmp_path / "out", copies.GLCM, [[clip("a", 1, "x:train", "g")]])
    lines = find_leaks([out]).lines()
    assert lines[-1].startswith("  nothing was compared: name a second set")
