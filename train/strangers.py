"""Whose sound is foreign to a clip: of another group, or at least of another source.

Neighbours in a shard are no strangers: windows of one file lie side by side, and so do the clips of
one speaker. A stranger may well be of the same class, as where groups are named after classes.
"""

import re
from collections import Counter

import pyarrow as pa

from train.index import ShardSet

ANOTHER_GROUP = "another group (speaker, source video)"
ANOTHER_SOURCE = "another source file of the same group"
NOWHERE = "nowhere: all clips are of one source file"


def strangers(shard_set: ShardSet, rows: list[int]) -> tuple[dict[int, int], str]:
    """Another clip for each one, of those it has nothing to do with.

    Args:
        shard_set: of all clips.
        rows: of it; both the clips and those that may be their strangers.

    Returns:
        Row -> row, empty where all clips are of one source; and a word on where they are from.
    """
    sources = [source_of(key) for key in shard_set.keys.take(pa.array(rows)).to_pylist()]
    groups = shard_set.groups.take(pa.array(rows)).to_pylist()
    names = [group or source for group, source in zip(groups, sources, strict=True)]
    for known, said in ((names, ANOTHER_GROUP), (sources, ANOTHER_SOURCE)):
        if len(set(known)) > 1:
            others = elsewhere(known)
            return {row: rows[other] for row, other in zip(rows, others, strict=True)}, said
    return {}, NOWHERE


def source_of(key: str) -> str:
    """The key of the file: a window adds its start, `-` and at least 8 digits (milliseconds)."""
    return re.sub(r"-\d{8,}$", "", key)


def of_another_class(classes: list[str], groups: list[str]) -> list[int]:
    """For each place one of another class, spread over all other classes.

    Returns:
        The places; none where there is one class, or where a group has several, as a speaker has
        who says several words: then classes do not tell sources apart.
    """
    if len(set(classes)) < 2 or len(set(zip(groups, classes, strict=True))) > len(set(groups)):
        return []
    order, first = sorted(range(len(classes)), key=classes.__getitem__), 0
    found = [0] * len(classes)
    for same in Counter(classes[one] for one in order).values():
        others = len(order) - same
        step = max(1, others // same)
        for place in range(same):
            other = place * step % others
            found[order[first + place]] = order[other if other < first else other + same]
        first += same
    return found


def elsewhere(names: list[str]) -> list[int]:
    """For each place one with another name, of which there are at least two.

    In order of their names, the clips of one name go round those behind it: each has its own other
    clip as long as there are enough.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    counts, found, first = Counter(names), [0] * len(names), 0
    for place, one in enumerate(order):
        if names[one] != names[order[first]]:
            first = place
        same = counts[names[one]]
        found[one] = order[(first + same + (place - first) % (len(names) - same)) % len(names)]
    return found
