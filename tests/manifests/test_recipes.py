"""Recipes: what is drawn, that it stays the same, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction

import pytest

from manifests.columns import table
from manifests.recipes import SETS, TRANSFORMS, draw, recipe_of
from manifests.schema import validate

KINDS = {
    "IP": ({"video_noise", "blur", "pixelize", "emoji"}, {"audio_noise", "clicks"}),
    "S": (
        {"crop", "pad", "rotate"},
        {"pitch_shift", "reverb", "high_pass", "low_pass", "peaking"},
    ),
    "T": ({"speed", "trim"},),
}
KINDS["C"] = (*KINDS["T"], *KINDS["S"], *KINDS["IP"])
"""The paper's list."""


def recipe(*transforms):
    return recipe_of("key", {"reference_key": "k", "transforms": list(transforms), "seed": 0})


def test_published_recipes_do_not_change() -> None:
    """Numbers found with a recipe are comparable only as long as it is drawn the same way."""
    assert draw("T", 0, "vggsound/---g-f_I2yQ_000001") == [{"name": "speed", "factor": 1.993}]
    assert draw("IP", 0, "vggsound/---g-f_I2yQ_000001") == [
        {"name": "blur", "sigma_pixels": 3.06},
        {"name": "audio_noise", "snr_db": 7.346},
    ]


@pytest.mark.parametrize("name", SETS)
def test_a_set_takes_one_of_each_kind_evenly(name: str) -> None:
    count = 1200
    drawn = [draw(name, 0, f"clip{number}") for number in range(count)]
    for place, kinds in enumerate(KINDS[name]):
        seen = Counter(transforms[place]["name"] for transforms in drawn)
        assert set(seen) == kinds
        filters = seen["high_pass"] + seen["low_pass"] + seen["peaking"]
        groups = [n for kind, n in seen.items() if "pass" not in kind and kind != "peaking"]
        groups += [filters] if filters else []
        expected = count / len(groups)  # binomial: four deviations
        assert all(
            abs(n - expected) < 4 * (expected * (1 - expected / count)) ** 0.5 for n in groups
        )
    assert {len(transforms) for transforms in drawn} == {len(KINDS[name])}


def test_what_is_drawn_can_be_carried_out_and_uses_its_whole_range() -> None:
    values: dict[tuple[str, str], list[float]] = {}
    for number in range(3000):
        transforms = draw("C", 1, f"clip{number}")
        recipe(*transforms)  # raises if it cannot
        for transform in transforms:
            for label in TRANSFORMS[transform["name"]].parameters:
                values.setdefault((transform["name"], label), []).append(transform[label])
    for (name, label), seen in values.items():
        parameter = TRANSFORMS[name].parameters[label]
        low, high = parameter.low, parameter.high
        lowest = low
        if parameter.both_ways:
            lowest = 1 / high if parameter.logarithmic else -high
            middle = 1 if parameter.logarithmic else 0
            share = sum(value < middle for value in seen) / len(seen)
            assert 0.4 < share < 0.6
        span = high - lowest
        assert lowest - 1e-3 <= min(seen) < lowest + 0.1 * span
        assert high - 0.1 * span < max(seen) <= high + 1e-3


def test_time_is_rational() -> None:
    made = recipe(
        {"name": "speed", "factor": 1.3}, {"name": "trim", "duration": 0.4, "offset": 0.5}
    )
    assert made.speed == Fraction(13, 10)
    assert made.kept == (Fraction(3, 10), Fraction(7, 10))
    assert (recipe().speed, recipe().kept) == (1, (0, 1))


def test_rows_without_a_reference_have_no_recipe() -> None:
    assert recipe_of("key", {"transforms": "of a table of somebody's"}).transforms == ()


@pytest.mark.parametrize(
    ("transforms", "words"),
    [
        ("speed", "expected a list"),
        ([{"name": "sharpen"}], "unknown transform .*names known: video_noise, blur"),
        (["speed"], "unknown transform"),
        ([{"name": ["speed"]}], "unknown transform"),
        ([{"name": "speed"}], "speed with the numbers none; expected factor"),
        ([{"name": "speed", "factor": 2, "pitch": 1}], "numbers factor, pitch; expected factor"),
        ([{"name": "speed", "factor": 40}], "speed with factor 40; expected 0.25 to 4"),
        ([{"name": "speed", "factor": True}], "factor True"),
        ([{"name": "speed", "factor": float("nan")}], "factor nan"),
        ([{"name": "speed", "factor": "2"}], "factor '2'"),
        ([{"name": "speed", "factor": 2}] * 2, "speed 2 times; expected it once"),
    ],
)
def test_what_cannot_be_carried_out_is_said(transforms, words) -> None:
    extra = {"reference_key": "k", "transforms": transforms, "seed": 0}
    with pytest.raises(ValueError, match=words):
        recipe_of("key", extra)
    rows = [{"dataset": "folder", "key": key, "source_id": key, "group_id": key, "uri": key,
             "extra": text} for key, text in (("a", json.dumps(extra)), ("b", "{}"))]  # fmt: skip
    (problem,) = validate(table(rows))
    assert "row 0 (key 'a')" in problem and "row 1" not in problem
