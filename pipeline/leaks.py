"""`pipeline leaks TRAIN TEST ...`: what is learned from and scored, too, between splits and sets.

    exact, near, picture, sound   the same content, see `pipeline.pairs`
    source                        the same file, other seconds of it
    group                         the same speaker, actor or source video, by the manifest

A table with one row a clip that is learned from, clip that is held out, and kind: facts, not a
verdict, since some benchmarks share speakers on purpose. Its columns `set` and `key` name the
clips that are learned from, so that `train pretrain --without TABLE` leaves them out.

Learned from are clips of TRAIN's train splits, or without a split; held out are the others of TRAIN
(of the same fold, where there are several), and of the other sets all but those that are only in
train splits.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import UsageError
from pipeline.duplicates import PAIRS_SCHEMA, open_sets
from pipeline.matching import Distance
from pipeline.pairs import (
    EXACT,
    NEAR,
    PICTURE,
    SOUND,
    UNCOMPARED,
    Pair,
    Sets,
    alike_pairs,
    as_columns,
    exact_pairs,
)

SOURCE, GROUP = "source", "group"
KINDS = (EXACT, NEAR, PICTURE, SOUND, SOURCE, GROUP)
TRAIN = "train"
SCHEMA = pa.schema(
    [
        *(PAIRS_SCHEMA.field(name) for name in ("set", "key")),
        ("splits", pa.string()),
        *(PAIRS_SCHEMA.field(name) for name in ("other_set", "other_key")),
        ("other_splits", pa.string()),
        *list(PAIRS_SCHEMA)[4:],
    ]
)


@dataclass(frozen=True)
class Leak:
    """A clip that is learned from, and one that is held out."""

    trained: int
    held_out: int
    kind: str
    distance: Distance = UNCOMPARED


@dataclass
class Leaks:
    """What was found."""

    sets: Sets
    found: list[Leak]
    trained: int
    """Clips that are learned from."""
    held_out: int
    """Clips that are held out."""

    def table(self) -> pa.Table:
        """One row a leak."""
        return pa.Table.from_pylist([self.row(leak) for leak in self.found], schema=SCHEMA)

    def row(self, leak: Leak) -> dict[str, Any]:
        """A leak in words and numbers."""
        ours, theirs = self._clip(leak.trained), self._clip(leak.held_out)
        others = {f"other_{name}": value for name, value in theirs.items()}
        pair = Pair(leak.trained, leak.held_out, leak.kind, leak.distance)
        return {**ours, **others, **as_columns(pair)}

    def _clip(self, clip: int) -> dict[str, str]:
        number, row = self.sets.where(clip)
        prints = self.sets.sets[number]
        splits = prints.clips["splits"][row].as_py() or []
        key = prints.clips["key"][row].as_py()
        return {"set": prints.name, "key": key, "splits": " ".join(splits)}

    def lines(self) -> list[str]:
        """The counts for a terminal."""
        names = ", ".join(str(prints.out) for prints in self.sets.sets[1:])
        beside = f" and {names}" if names else ""
        lines = [f"{self.trained:,} clips of {self.sets.sets[0].out} are learned from, "
                 f"{self.held_out:,} of it{beside} are held out"]  # fmt: skip
        for kind in KINDS:
            rows = [leak for leak in self.found if leak.kind == kind]
            if rows:
                trained = len({leak.trained for leak in rows})
                held_out = len({leak.held_out for leak in rows})
                lines.append(f"  {kind:<8} {trained:,} that are learned from are like {held_out:,} "
                             "that are held out")  # fmt: skip
        if not self.held_out:
            return [*lines, "  nothing was compared: name a second set, or one with splits"]
        return lines if len(lines) > 1 else [*lines, "  none is like another"]


def find_leaks(outs: Sequence[Path], kinds: Sequence[str] = KINDS, workers: int = 1) -> Leaks:
    """Compare what is learned from in the first set with what is held out in it and in others.

    Raises:
        UsageError: an unknown kind; a set named twice; nothing is learned from.
        NotFinishedError: a set has no index yet.
    """
    if unknown := set(kinds) - set(KINDS):
        raise UsageError(
            f"--kinds {', '.join(sorted(unknown))}: expected some of {', '.join(KINDS)}"
        )
    sets = open_sets(outs, workers)
    roles = Roles.of(sets)
    if not roles.trained:
        raise UsageError(
            f"{sets.sets[0].out} has no clip in a train split and none without a split; name first "
            "the set that is learned from"
        )
    found = [leak for leak in _all_leaks(sets, roles) if leak.kind in kinds]
    found.sort(key=lambda leak: (KINDS.index(leak.kind), leak.trained, leak.held_out))
    return Leaks(sets, found, len(roles.trained), len(roles.held_out))


def write_leaks(leaks: Leaks, path: Path) -> None:
    """The table for `--without`.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(leaks.table(), path, compression="zstd")
    except OSError as error:
        raise UsageError(f"--table {path} cannot be written: {error.strerror or error}") from error


# --- who is learned from, and who is held out ----------------------------------------------------


@dataclass(frozen=True)
class Roles:
    """Which folds each clip is learned from in, and held out in."""

    trained: dict[int, set[str]]
    held_out: dict[int, set[str]]
    first_set: int
    """Clips of the first set; they have smaller numbers."""

    @classmethod
    def of(cls, sets: Sets) -> "Roles":
        """From the splits of all clips."""
        trained: dict[int, set[str]] = {}
        held_out: dict[int, set[str]] = {}
        first_set = len(sets.sets[0])
        for clip, splits in enumerate(sets.column("splits")):
            names = [name.rpartition(":")[2] for name in splits or []]
            learned = {_fold(name) for name in names if name.startswith(TRAIN)}
            others = {_fold(name) for name in names if not name.startswith(TRAIN)}
            if clip < first_set and (learned or not names):
                trained[clip] = learned or {""}
            if others or (clip >= first_set and not names):
                held_out[clip] = others
        return cls(trained, held_out, first_set)

    def is_leak(self, trained: int, held_out: int) -> bool:
        """Whether the one is learned from and the other held out: in one fold, or another set."""
        if trained == held_out or trained not in self.trained or held_out not in self.held_out:
            return False
        same_set = held_out < self.first_set
        return not same_set or bool(self.trained[trained] & self.held_out[held_out])


def _fold(split: str) -> str:
    """`train1` and `test1` belong together, as do `train` and `val`."""
    found = re.search(r"\d+$", split)
    return found[0] if found else ""


# --- what is alike -------------------------------------------------------------------------------


def _all_leaks(sets: Sets, roles: Roles) -> Iterator[Leak]:
    """By content first; of the same file or group only what is not known by content already."""
    told: set[tuple[int, int]] = set()
    for leak in _by_content(sets, roles):
        told.add((leak.trained, leak.held_out))
        yield leak
    for kind, column in ((SOURCE, "source_sha1"), (GROUP, "group")):
        for leak in _by_name(sets.column(column), roles, kind):
            if (leak.trained, leak.held_out) not in told:
                told.add((leak.trained, leak.held_out))
                yield leak


def _by_content(sets: Sets, roles: Roles) -> Iterator[Leak]:
    """Pairs, where a clip also stands for those that are exactly the same."""
    same: dict[int, list[int]] = {}
    exact = exact_pairs(sets)
    for pair in exact:
        same.setdefault(pair.one, [pair.one]).append(pair.other)
    trained, held_out = (_marked(sets, clips, same) for clips in (roles.trained, roles.held_out))
    pairs = alike_pairs(
        sets,
        exact,
        lambda one, other: (trained[one] & held_out[other]) | (trained[other] & held_out[one]),
    )
    for first, clips in same.items():
        for clip in clips:
            yield from _first_held_out(clip, same[first], roles, EXACT, UNCOMPARED)
    for pair in pairs:
        ours, theirs = same.get(pair.one, [pair.one]), same.get(pair.other, [pair.other])
        for clip in ours:
            yield from _first_held_out(clip, theirs, roles, pair.kind, pair.distance)
        for clip in theirs:
            yield from _first_held_out(clip, ours, roles, pair.kind, pair.distance)


def _marked(
    sets: Sets, clips: Collection[int], same: dict[int, list[int]]
) -> npt.NDArray[np.bool_]:
    """Which clips are among some, or stand for one that is."""
    marks = np.zeros(int(sets.firsts[-1]), np.bool_)
    marks[list(clips)] = True
    for first, others in same.items():
        marks[first] = marks[others].any()
    return marks


def _first_held_out(
    clip: int, others: Sequence[int], roles: Roles, kind: str, distance: Distance
) -> Iterator[Leak]:
    """A clip that is learned from, and the first that is held out of some that are all the same."""
    for other in others:
        if roles.is_leak(clip, other):
            yield Leak(clip, other, kind, distance)
            return


def _by_name(names: Sequence[str | None], roles: Roles, kind: str) -> Iterator[Leak]:
    """Each clip that is learned from, and the first that is held out with the same name."""
    by_name: dict[str, list[int]] = {}
    for clip in roles.held_out:
        if name := names[clip]:
            by_name.setdefault(name, []).append(clip)
    for clip in roles.trained:
        others = by_name.get(names[clip] or "", ())
        yield from _first_held_out(clip, others, roles, kind, UNCOMPARED)
