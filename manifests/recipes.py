"""Recipes: how a clip is manipulated before it becomes a sample, as plain data in a row's `extra`.

    {"reference_key": "vggsound/ID_000300", "seed": 0,
     "transforms": [{"name": "speed", "factor": 1.3}, {"name": "blur", "sigma_pixels": 2.4}]}

A row is manipulated if its `extra` has both `reference_key` (the clip it was made from) and
`transforms`; they are done in this order, time first. The kinds are those of AugVGG (Jenni,
Black and Collomosse, AAAI 2023), what each does follows AugLy 1.0, which the paper used. It
publishes no ranges: those of `TRANSFORMS` are ours. Lengths in pixels are those of a picture whose
shorter side has 256, whatever the file has, so that one recipe manipulates all clips alike.

Here a recipe is drawn and checked; `pipeline.augment` carries it out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any, Literal

Sense = Literal["picture", "sound", "time"]
_DECIMALS = 3


@dataclass(frozen=True)
class Parameter:
    """A number of a transform: what it may be, and from where it is drawn."""

    least: float
    most: float
    """Values from `least` to `most` can be carried out."""
    low: float
    high: float
    """Drawn evenly from `low` to `high`: strong enough to matter, weak enough to be watched."""
    logarithmic: bool = False
    """Drawn evenly in its logarithm (frequencies, speeds)."""
    both_ways: bool = False
    """The opposite is as likely: the negative, or the inverse of a logarithmic one."""

    def draw(self, chance: Random) -> float:
        """A value; two numbers are used up, whatever the kind of parameter."""
        share, other_way = chance.random(), chance.random() < 0.5
        if self.logarithmic:
            value = math.exp(math.log(self.low) + math.log(self.high / self.low) * share)
            value = 1 / value if self.both_ways and other_way else value
        else:
            value = self.low + (self.high - self.low) * share
            value = -value if self.both_ways and other_way else value
        return round(value, _DECIMALS)


@dataclass(frozen=True)
class Transform:
    """A kind of manipulation."""

    sense: Sense
    """What it acts on; `time` moves picture and sound together."""
    parameters: Mapping[str, Parameter]


_ANYWHERE = Parameter(0, 1, 0, 1)
_SNR_DB = Parameter(-20, 60, 0, 15)

TRANSFORMS: dict[str, Transform] = {
    # Gaussian noise on every value, new in every picture; level as ffmpeg's `noise=alls`: the
    # standard deviation is level / sqrt(3) of 255 grey values.
    "video_noise": Transform("picture", {"level": Parameter(0, 100, 25, 60)}),
    # Gaussian blur.
    "blur": Transform("picture", {"sigma_pixels": Parameter(0.1, 50, 1.5, 5)}),
    # Shrunk to `ratio` of its sides and enlarged again in squares.
    "pixelize": Transform("picture", {"ratio": Parameter(0.01, 1, 0.1, 0.35)}),
    # A smiley of `size` of the shorter side; x and y are shares of the room there is.
    "emoji": Transform(
        "picture",
        {
            "size": Parameter(0.02, 1, 0.2, 0.5),
            "x": _ANYWHERE,
            "y": _ANYWHERE,
            "opacity": Parameter(0, 1, 0.7, 1),
        },
    ),
    # `scale` of width and height is kept; x and y are shares of the room there is.
    "crop": Transform(
        "picture", {"scale": Parameter(0.1, 1, 0.5, 0.8), "x": _ANYWHERE, "y": _ANYWHERE}
    ),
    # Black borders left and right of x times the width each, above and below of y the height.
    "pad": Transform(
        "picture", {"x": Parameter(0, 1, 0.05, 0.25), "y": Parameter(0, 1, 0.05, 0.25)}
    ),
    # Clockwise about the middle; the size stays, the corners are black.
    "rotate": Transform("picture", {"degrees": Parameter(-180, 180, 5, 30, both_ways=True)}),
    # White noise, and clicks at equal distances; ratio of the powers over the whole clip.
    "audio_noise": Transform("sound", {"snr_db": _SNR_DB}),
    "clicks": Transform(
        "sound", {"seconds_between": Parameter(0.05, 10, 0.2, 1), "snr_db": _SNR_DB}
    ),
    # Pitch by semitones, length kept.
    "pitch_shift": Transform("sound", {"semitones": Parameter(-12, 12, 1, 6, both_ways=True)}),
    # Exponential decay by 60 dB in so many seconds; `wet` is the reverberation's share of power.
    "reverb": Transform(
        "sound",
        {"decay_seconds": Parameter(0.05, 5, 0.3, 1.5), "wet": Parameter(0, 1, 0.3, 0.7)},
    ),
    # Second-order filters (12 dB an octave), and a bell of quality 0.7.
    "high_pass": Transform("sound", {"cutoff_hz": Parameter(20, 20000, 500, 3000, True)}),
    "low_pass": Transform("sound", {"cutoff_hz": Parameter(20, 20000, 500, 3000, True)}),
    "peaking": Transform(
        "sound",
        {
            "center_hz": Parameter(20, 20000, 300, 4000, True),
            "gain_db": Parameter(-40, 40, 8, 18, both_ways=True),
        },
    ),
    # Faster (or slower, below 1) at the same pitch, picture and sound alike.
    "speed": Transform("time", {"factor": Parameter(0.25, 4, 1.2, 2, True, both_ways=True)}),
    # `duration` of the clip is kept; `offset` is a share of what goes.
    "trim": Transform("time", {"duration": Parameter(0.05, 1, 0.4, 0.8), "offset": _ANYWHERE}),
}
"""What can be done, by name."""

_IN_PLACE = (("video_noise", "blur", "pixelize", "emoji"), ("audio_noise", "clicks"))
_SPATIAL = (
    ("crop", "pad", "rotate"),
    ("pitch_shift", "reverb", ("high_pass", "low_pass", "peaking")),
)
_TIME = (("speed", "trim"),)

SETS: dict[str, tuple[Any, ...]] = {
    "IP": _IN_PLACE,
    "S": _SPATIAL,
    "T": _TIME,
    "C": (*_TIME, *_SPATIAL, *_IN_PLACE),
}
"""AugVGG's four sets: one of each group, evenly; a group inside of a group counts as one."""


def draw(name: str, seed: int, key: str) -> list[dict[str, Any]]:
    """The transforms of a query.

    Args:
        name: one of `SETS`.
        seed: of the whole data set.
        key: of the clip that is manipulated.

    Returns:
        A function of the arguments alone: not of other rows, the machine or Python's version.
    """
    digest = hashlib.sha256(f"{seed}\n{name}\n{key}".encode()).digest()
    chance = Random(int.from_bytes(digest[:8]))
    return [_drawn(group, chance) for group in SETS[name]]


def _drawn(group: Any, chance: Random) -> dict[str, Any]:
    while not isinstance(group, str):
        group = group[int(chance.random() * len(group))]
    parameters = TRANSFORMS[group].parameters
    return {"name": group, **{name: p.draw(chance) for name, p in parameters.items()}}


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; without transforms it leaves a clip as it is."""

    identity: str = ""
    """Seed and key: what noise is drawn from."""
    transforms: tuple[Mapping[str, Any], ...] = ()
    """In the order of the row."""

    def of(self, sense: Sense) -> tuple[tuple[int, Mapping[str, Any]], ...]:
        """The transforms that act on pictures, sound or time, with their places in the recipe."""
        named = enumerate(self.transforms)
        return tuple((i, t) for i, t in named if TRANSFORMS[t["name"]].sense == sense)

    @property
    def speed(self) -> Fraction:
        """Seconds of the file in a second of the sample."""
        factors = (t["factor"] for _, t in self.of("time") if t["name"] == "speed")
        return Fraction(str(next(factors, 1)))

    @property
    def kept(self) -> tuple[Fraction, Fraction]:
        """(first, last) of the stretch that is kept, as shares of the clip."""
        trim = next((t for _, t in self.of("time") if t["name"] == "trim"), None)
        if trim is None:
            return Fraction(0), Fraction(1)
        duration, offset = Fraction(str(trim["duration"])), Fraction(str(trim["offset"]))
        return offset * (1 - duration), offset * (1 - duration) + duration

    def __str__(self) -> str:
        """One line for people."""
        return ", ".join(_sentence(transform) for transform in self.transforms) or "nothing"


def _sentence(transform: Mapping[str, Any]) -> str:
    numbers = (f"{name} {value:g}" for name, value in parameters(transform).items())
    return " ".join([str(transform["name"]), *numbers])


def parameters(transform: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a recipe's transform, by name."""
    return {name: value for name, value in transform.items() if name != "name"}


def recipe_of(key: str, extra: Mapping[str, Any]) -> Recipe:
    """The recipe of a row or of a stored sample.

    Raises:
        ValueError: it cannot be carried out; the sentence says which value was expected.
    """
    if not {"reference_key", "transforms"} <= extra.keys():
        return Recipe()
    for problem in _problems(extra["transforms"]):
        raise ValueError(f"the recipe {problem}")
    return Recipe(f"{extra.get('seed', 0)}\n{key}", tuple(extra["transforms"]))


def problem_of(extra: str) -> str | None:
    """What is wrong with the recipe in a row's `extra` (JSON text); None if nothing is."""
    try:
        recipe_of("", json.loads(extra))
    except (ValueError, AttributeError) as error:
        return str(error)
    return None


def _problems(transforms: Any) -> Iterator[str]:
    if not isinstance(transforms, list):
        yield f"has transforms {transforms!r:.80}; expected a list of {{'name': ..., numbers}}"
        return
    for transform in transforms:
        yield from _transform_problems(transform)
    names = [transform["name"] for transform in transforms]
    for name in ("speed", "trim"):
        if names.count(name) > 1:
            yield f"has {name} {names.count(name)} times; expected it once at most"


def _transform_problems(transform: Any) -> Iterator[str]:
    name = transform.get("name") if isinstance(transform, dict) else None
    if not isinstance(name, str) or name not in TRANSFORMS:
        known = ", ".join(TRANSFORMS)
        yield f"has an unknown transform {transform!r:.80}; names known: {known}"
        return
    parameters = TRANSFORMS[name].parameters
    if transform.keys() != {"name", *parameters}:
        given = ", ".join(sorted(transform.keys() - {"name"})) or "none"
        yield f"has {name} with the numbers {given}; expected {', '.join(parameters)}"
        return
    for label, parameter in parameters.items():
        if not _is_inside(transform[label], parameter):
            span = f"{parameter.least:g} to {parameter.most:g}"
            yield f"has {name} with {label} {transform[label]!r:.40}; expected {span}"


def _is_inside(value: Any, parameter: Parameter) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and parameter.least <= value <= parameter.most
