"""Whose sound is foreign to a clip: that of another speaker or source."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import format as shard_format
from tests.train.ramps import mixture_of, ramp, ramp_set_of
from train.strangers import elsewhere, of_another_class, source_of, strangers


def test_keys_of_windows_are_those_of_their_file():
    assert source_of("folder/cats/tom-00010000") == "folder/cats/tom"
    assert source_of("folder/cats/tom-123456789") == "folder/cats/tom"
    assert source_of("demo/head/010") == "demo/head/010"
    assert source_of("folder/cats/tom-2024") == "folder/cats/tom-2024"


@pytest.mark.parametrize("names", ["ab", "aab", "abab", "aaaab", "aabbcc", "cabbage", "ba" * 9])
def test_everyone_has_a_stranger(names: str):
    found = elsewhere(list(names))
    assert all(names[other] != names[one] for one, other in enumerate(found))
    for name in set(names):  # and not all of them the same one
        same = [other for one, other in enumerate(found) if names[one] == name]
        assert len(set(same)) == min(len(same), len(names) - len(same))


def grouped(folder: Path, facts: list[tuple[str, str]]) -> Any:
    """The part of a set of (key, group)."""
    clips = []
    for number, (key, group) in enumerate(facts):
        members = ramp(key, number, 12)
        meta = {**json.loads(members["json"]), "group": group}
        clips.append({**members, "json": shard_format.encode_json(meta)})
    return mixture_of(str(ramp_set_of(folder / "demo-glcm", [clips]))).parts[0]


def test_sound_of_another_class_is_spread_over_all_others() -> None:
    classes = [name for name in "abcde" for _ in range(4)]
    found = of_another_class(classes, [str(place) for place in range(20)])
    for name in "abcde":
        theirs = [classes[found[place]] for place in range(20) if classes[place] == name]
        assert sorted(theirs) == sorted(set("abcde") - {name})
    assert of_another_class(["a", "a", "b"], ["x", "x", "y"]) == [2, 2, 0]


def test_classes_that_do_not_tell_sources_apart_give_no_strangers() -> None:
    assert of_another_class(["a", "a"], ["x", "y"]) == []
    assert of_another_class(["one", "two", "one"], ["eve", "eve", "bob"]) == []


@pytest.mark.parametrize(
    ("facts", "expected", "said"),
    [
        ([("d/a", "eve"), ("d/b", "eve"), ("d/c", "bob")], {0: {2}, 1: {2}, 2: {0, 1}}, "group"),
        ([("d/a-00000000", "s1"), ("d/a-00001000", "s1"), ("d/b", "s1")],
         {0: {2}, 1: {2}, 2: {0, 1}}, "source file of the same group"),
        ([("d/a-00000000", "d:a"), ("d/a-00001000", "d:a")], {}, "nowhere"),
    ],
)  # fmt: skip
def test_foreign_sound_is_of_another_group_or_source(
    tmp_path: Path, facts: Any, expected: Any, said: str
):
    part = grouped(tmp_path, facts)
    found, where = strangers(part.shard_set, part.rows.tolist())
    assert said in where
    assert found.keys() == expected.keys()
    assert all(found[row] in may for row, may in expected.items())
