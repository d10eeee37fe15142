"""`pipeline duplicates`: planted copies are found, strangers are not; groups, ranks, next calls."""

import json
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import UsageError
from pipeline import candidates as lookup
from pipeline.duplicates import duplicates
from pipeline.fingerprints import (
    Fingerprint,
    content_box,
    fingerprint,
    mirrored,
    picture_hashes,
    sound_hashes,
)
from pipeline.format import FormatError
from pipeline.matching import distance
from pipeline.pairs import Sets, exact_pairs
from pipeline.prints import prints_of
from pipeline.view import view_of
from tests.pipeline import copies
from tests.pipeline.fabricate import write_set

STRANGERS = 12


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Twelve strangers; and a second set with a copy of another one for each kind of copy."""
    folder = tmp_path_factory.mktemp("sets")
    first = [copies.members(f"real/{seed:02d}", seed) for seed in range(STRANGERS)]
    second = [
        copies.members(f"copy/{name}", seed, change)
        for seed, (name, change) in enumerate(copies.COPIES.items())
    ]
    second.append(copies.members("copy/dubbed", 8, lambda shown, _: (shown, copies.mel(77))))
    second.append(copies.members("copy/played", 9, lambda _, heard: (copies.pictures(78), heard)))
    second.append(copies.members("copy/same", 10))
    ours = write_set(folder / "ours", copies.GLCM, [first[:6], first[6:]])
    return ours, write_set(folder / "theirs", copies.GLCM, [second])


@pytest.fixture(scope="module")
def found(sets):
    lines = duplicates(sets)
    pairs = pq.read_table(sets[0] / "quality" / "duplicates.parquet").to_pylist()
    return lines, {(pair["key"], pair["other_key"]): pair for pair in pairs}


def test_every_copy_is_found_and_no_stranger(found):
    _, pairs = found
    kinds = {f"copy/{name}": "near" for name in copies.COPIES}
    kinds |= {"copy/dubbed": "picture", "copy/played": "sound", "copy/same": "exact"}
    sources = {name: f"real/{seed:02d}" for seed, name in enumerate(list(kinds)[:6])}
    sources |= {"copy/dubbed": "real/08", "copy/played": "real/09", "copy/same": "real/10"}
    assert {names: pair["kind"] for names, pair in pairs.items()} == {
        (sources[name], name): kind for name, kind in kinds.items()
    }


def test_distances_and_shifts_are_told(found):
    _, pairs = found
    assert pairs["real/01", "copy/mirrored"]["is_mirrored"]
    assert not pairs["real/00", "copy/rescaled"]["is_mirrored"]
    assert pairs["real/04", "copy/cut"]["offset_seconds"] == -2.0
    assert pairs["real/08", "copy/dubbed"]["sound_distance"] > 0.35
    assert pairs["real/09", "copy/played"]["picture_distance"] > 0.25
    assert pairs["real/05", "copy/softer"]["sound_distance"] < 0.05


def test_one_of_each_group_is_kept_by_where(sets, found):
    lines, _ = found
    assert any("7 groups of the same content: 7 clips too many" in line for line in lines)
    ours, theirs = sets
    assert view_of(ours, "duplicate_rank == 0").sizes[0].passing.clips == STRANGERS
    whole = view_of(theirs, "duplicate_rank == 0").sizes[0]
    assert (whole.passing.clips, whole.whole.clips) == (2, 9)  # dubbed and played
    of = "duplicate_of == 'real/04' and duplicate_of_set == 'demo-glcm'"
    assert view_of(theirs, of).sizes[0].passing.clips == 1


def test_a_second_call_looks_at_no_shard_again(sets, found, monkeypatch):
    looked = []
    monkeypatch.setattr("pipeline.prints.fingerprint", lambda *given: looked.append(given))
    again = prints_of(sets[0])
    assert not looked
    assert again[3].pictures.tolist() == prints_of(sets[0])[3].pictures.tolist()


def test_a_changed_shard_is_looked_at_again(tmp_path, monkeypatch):
    out = write_set(
        tmp_path / "out", copies.GLCM, [[copies.members("a", 1)], [copies.members("b", 2)]]
    )
    prints_of(out)
    index = json.loads((out / "shardindex.json").read_bytes())
    index["shardlist"][1]["sha256"] = "other"
    (out / "shardindex.json").write_text(json.dumps(index))
    looked = []

    def noted(meta, members):
        looked.append(meta["key"])
        return fingerprint(meta, members)

    monkeypatch.setattr("pipeline.prints.fingerprint", noted)
    prints_of(out)
    assert looked == ["b"]


def test_a_shard_that_the_index_does_not_list_is_refused(tmp_path):
    out = write_set(tmp_path / "out", copies.GLCM, [[copies.members("a", 1)]])
    index = json.loads((out / "shardindex.json").read_bytes())
    (out / "shardindex.json").write_text(json.dumps({**index, "shardlist": []}))
    with pytest.raises(FormatError, match="pipeline finalize"):
        prints_of(out)


def test_one_stretch_of_a_file_manipulated_in_two_ways_is_not_exactly_the_same(tmp_path):
    """AugVGG: four rows of one window, each with a recipe of its own."""
    faster = {"name": "speed", "factor": 1.1}
    recipes: dict[str, Any] = {
        "clean": {},
        "a/fast": {"transforms": [faster]},
        "again": {"transforms": []},
    }
    source = {**json.loads(copies.members("", 1)["json"])["source"], "sha1": "file"}

    def clip(name, seed):
        extra = {"reference_key": "k", **recipes[name]}
        return copies.members(name, seed, source=source, extra=extra)

    made = [clip(name, seed) for seed, name in enumerate(recipes)]
    first = write_set(tmp_path / "first", copies.GLCM, [made])
    other = write_set(tmp_path / "other", copies.GLCM, [[clip("a/fast", 9)]])
    duplicates([first, other])
    pairs = pq.read_table(first / "quality" / "duplicates.parquet").to_pylist()
    assert {(pair["key"], pair["other_key"], pair["kind"]) for pair in pairs} == {
        ("clean", "again", "exact"), ("a/fast", "a/fast", "exact"),
    }  # fmt: skip
    assert pairs[0]["picture_distance"] is pairs[0]["sound_distance"] is None  # nobody compared


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_clips_that_are_the_same_through_a_third_one_are_one_group(order):
    """The first has the bytes of the third, the second its place in the same file."""
    contents, sources = ("x", "y", "x", "z"), ("p", "q", "q", None)
    clips = pa.table({
        "content_sha1": [contents[clip] for clip in order],
        "source_sha1": pa.array([sources[clip] for clip in order], pa.string()),
        "window_start": [0.0] * 4, "seconds": [2.0] * 4, "recipe": [""] * 4,
    })  # fmt: skip
    one_set: Any = [SimpleNamespace(clips=clips)]
    same = sorted(order.index(clip) for clip in range(3))
    found = [(pair.one, pair.other) for pair in exact_pairs(Sets(one_set))]
    assert found == [(same[0], same[1]), (same[0], same[2])]


def test_a_set_named_twice_is_refused(sets):
    with pytest.raises(UsageError, match="named twice"):
        duplicates([sets[0], sets[0]])


# --- the pieces ---------------------------------------------------------------------------------


def test_a_mirrored_picture_has_the_mirrored_hash():
    lumas = np.random.default_rng(0).normal(128, 40, (5, 32, 32)).astype(np.float32)
    assert mirrored(picture_hashes(lumas)).tolist() == picture_hashes(lumas[:, :, ::-1]).tolist()
    flat = np.full((1, 32, 32), 90, np.float32)
    assert picture_hashes(flat).tolist() == mirrored(picture_hashes(flat)).tolist() == [0]


def test_borders_are_what_is_never_bright():
    picture = np.zeros((40, 60), np.uint8)
    picture[5:35, 10:50] = 200
    assert content_box(picture) == (slice(5, 35), slice(10, 50))
    assert content_box(np.zeros((40, 60), np.uint8)) == (slice(0, 40), slice(0, 60))


def test_sound_is_known_at_another_rate_of_slices():
    """The same sound at 30 and at 75 slices a second; silence says nothing."""
    slow = copies.mel(5, 60)
    fast = np.asarray(cv2.resize(slow, (450, 80)), np.float32)
    nothing = np.zeros(0, np.uint64)
    one, other = (
        Fingerprint(nothing, sound_hashes(mel, rate, 22050), nothing.astype(np.float32))
        for mel, rate in ((slow, 30.0), (fast, 75.0))
    )
    assert distance(one, other).sound_distance < 0.1
    assert not sound_hashes(np.full((80, 90), np.log(1e-5), np.float32), 30.0, 22050).any()


def test_candidates_find_close_hashes_and_few_others():
    """Against all pairs: of 2,000 strangers' hashes and copies with a tenth of the bits flipped."""
    rng = np.random.default_rng(3)
    clips, each = 200, 10
    hashes = rng.integers(1, 1 << 63, (clips, each), dtype=np.uint64)
    flips = rng.random((clips, each, 63)) < 0.1
    flipped = (flips * (np.uint64(1) << np.arange(63, dtype=np.uint64))).sum(2, dtype=np.uint64)
    everything = np.concatenate([hashes, hashes ^ flipped]).ravel()
    owners = np.repeat(np.arange(2 * clips), each)
    pairs = {tuple(pair) for pair in lookup.candidates(everything, owners, 63).tolist()}
    copies_found = {(clip, clip + clips) for clip in range(clips)} & pairs
    assert len(copies_found) >= 0.98 * clips
    assert len(pairs) < 0.1 * (2 * clips) ** 2 / 2
    assert not lookup.candidates(np.zeros(5, np.uint64), np.arange(5), 63).size
