"""Clips of one or more sets that are the same, or nearly, as pairs with numbers.

    exact     the same file, window and recipe, or the same stored bytes; not compared any further
    near      pictures and sound alike: rescaled, recompressed, cut, bordered, a little cropped
    picture   the same pictures in the same moments with another sound, or without any
    sound     the same sound with other pictures

The kind is a reading of the numbers by the thresholds below (`bench.duplicates` measures them);
the numbers are kept. Clips that only look alike, such as two sentences of one speaker before one
camera, are no pair: their pictures agree, their motion and sound do not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.candidates import Ints, candidates
from pipeline.fingerprints import PICTURE_BITS, SOUND_BITS, Hashes, mirrored
from pipeline.matching import Distance, distance
from pipeline.prints import Prints

NEAR_PICTURE, NEAR_SOUND = 0.28, 0.33
"""Both at most so far: near."""
ALONE_PICTURE, LEAST_MOTION = 0.22, 0.9
"""Pictures at most so far that move together at least so much: picture."""
ALONE_SOUND = 0.3
"""Sound at most so far: sound."""
SOUND_EVERY = 2
"""Of the ten hashes a second that overlap by a quarter of a second, these are looked up."""
EXACT, NEAR, PICTURE, SOUND = "exact", "near", "picture", "sound"
Keep = Callable[[Ints, Ints], npt.NDArray[np.bool_]]
NAN = float("nan")
UNCOMPARED = Distance(NAN, False, NAN, NAN, NAN)


@dataclass(frozen=True)
class Pair:
    """Two clips by their numbers over all sets, the smaller one first."""

    one: int
    other: int
    kind: str
    distance: Distance = UNCOMPARED

    @property
    def is_duplicate(self) -> bool:
        """Whether the two say the same to who learns from them.

        Exact or near ones, and pictures alike where one of the two has nothing to hear.
        """
        silent = bool(np.isnan(self.distance.sound_distance))
        return self.kind in (EXACT, NEAR) or (self.kind == PICTURE and silent)


@dataclass(frozen=True)
class Sets:
    """Several sets in a row, so that a clip is a number."""

    sets: Sequence[Prints]

    @cached_property
    def firsts(self) -> Ints:
        """The number of each set's first clip, and one more than the last clip's."""
        return np.cumsum([0, *(len(prints) for prints in self.sets)], dtype=np.int64)

    def where(self, clip: int) -> tuple[int, int]:
        """The set of a clip, and its row there."""
        number = int(np.searchsorted(self.firsts, clip, side="right")) - 1
        return number, clip - int(self.firsts[number])

    def hashes(self, name: str, every: int = 1) -> tuple[Hashes, Ints]:
        """All hashes of a kind, and whose they are."""
        parts, owners = [], []
        for first, prints in zip(self.firsts, self.sets, strict=False):
            flat = prints.flat[name].astype(np.uint64)
            lengths = np.diff(prints.ends[name])
            within = np.arange(len(flat)) - np.repeat(prints.ends[name][:-1], lengths)
            kept = within % every == 0
            parts.append(flat[kept])
            owners.append((np.repeat(np.arange(len(prints)), lengths) + first)[kept])
        return np.concatenate(parts), np.concatenate(owners).astype(np.int64)

    def column(self, name: str) -> list[Any]:
        """A column of all clips."""
        return [value for prints in self.sets for value in prints.clips[name].to_pylist()]


def find_pairs(sets: Sets) -> list[Pair]:
    """All pairs of a kind, in the order of their clips."""
    exact = exact_pairs(sets)
    return sorted([*exact, *alike_pairs(sets, exact)], key=lambda pair: (pair.one, pair.other))


def alike_pairs(sets: Sets, exact: Sequence[Pair], keep: Keep | None = None) -> Iterator[Pair]:
    """Pairs that are near, or alike in pictures or sound, in the order of their clips.

    Of clips that are exactly the same, the first alone is compared with others.

    Args:
        sets: of the clips.
        exact: what `exact_pairs` found in them.
        keep: which of two columns of clips are worth comparing; default: all.
    """
    alike = _candidates(sets)
    alike = alike[~np.isin(alike, [pair.other for pair in exact]).any(1)]
    for one, other in (alike if keep is None else alike[keep(*alike.T)]).tolist():
        measured = _distance(sets, one, other)
        if kind := kind_of(measured):
            yield Pair(one, other, kind, measured)


def kind_of(measured: Distance) -> str:
    """What the numbers mean; empty: nothing."""
    picture, sound = measured.picture_distance, measured.sound_distance
    if picture <= NEAR_PICTURE and sound <= NEAR_SOUND:
        return NEAR
    if picture <= ALONE_PICTURE and measured.motion_correlation >= LEAST_MOTION:
        return PICTURE
    return SOUND if sound <= ALONE_SOUND else ""


def as_columns(pair: Pair) -> dict[str, Any]:
    """The numbers of a pair, NaN as None."""
    numbers = asdict(pair.distance)
    return {"kind": pair.kind} | {
        name: None if isinstance(value, float) and np.isnan(value) else value
        for name, value in numbers.items()
    }


def _candidates(sets: Sets) -> Ints:
    """Pairs worth a look: by pictures, also mirrored ones, and by sound."""
    pictures, owners = sets.hashes("pictures")
    both = np.concatenate([pictures, mirrored(pictures)])
    alike = [candidates(both, np.concatenate([owners, owners]), PICTURE_BITS + 1)]
    alike.append(candidates(*sets.hashes("sound", SOUND_EVERY), SOUND_BITS))
    pairs = np.unique(np.concatenate(alike), axis=0)
    return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]], np.int64)


def _distance(sets: Sets, one: int, other: int) -> Distance:
    (first, row), (second, other_row) = sets.where(one), sets.where(other)
    return distance(sets.sets[first][row], sets.sets[second][other_row])


def exact_pairs(sets: Sets) -> list[Pair]:
    """Each clip beside the first one that is the same, directly or through others."""
    groups = grouped(_exact_ties(sets))
    found = (Pair(first, clip, EXACT) for first, clips in groups.items() for clip in clips[1:])
    return sorted(found, key=lambda pair: pair.other)


def _exact_ties(sets: Sets) -> Iterator[tuple[int, int]]:
    """Each clip, and the first with the same content, or with the same place in the same file."""
    first: dict[tuple[object, ...], int] = {}
    names_of = ("content_sha1", "source_sha1", "window_start", "seconds", "recipe")
    columns = zip(*(sets.column(name) for name in names_of), strict=True)
    for clip, (content, source, start, seconds, recipe) in enumerate(columns):
        names: list[tuple[object, ...]] = [("content", content)]
        if source:  # profiles cut at whole intervals of their own
            names.append(("source", source, round(start or 0, 2), round(seconds), recipe))
        for name in names:
            if (earlier := first.setdefault(name, clip)) != clip:
                yield earlier, clip


def grouped(ties: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Clips that are tied, directly or through others: the first of each group -> all of them."""
    first: dict[int, int] = {}

    def find(clip: int) -> int:
        while first.setdefault(clip, clip) != clip:
            first[clip] = first[first[clip]]
            clip = first[clip]
        return clip

    for tie in ties:
        one, other = sorted(map(find, tie))
        first[other] = one
    groups: dict[int, list[int]] = {}
    for clip in sorted(first):
        groups.setdefault(find(clip), []).append(clip)
    return groups
