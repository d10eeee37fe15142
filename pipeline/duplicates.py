"""`pipeline duplicates OUT [OUT2 ...]`: which clips are there more than once, as numbers.

    OUT/quality/duplicates.parquet        pairs with their distances, kind and shift in time
    OUT/quality/duplicate_groups.parquet  of every clip: its group, the group's size, its rank

The second gives columns to `--where`: `duplicate_rank == 0` keeps one clip of each group, the first
in the order of the sets and their clips. Nothing is removed, and what counts as the same is decided
by whoever reads the pairs' numbers (see `pipeline.pairs`).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.errors import UsageError
from pipeline.pairs import Pair, Sets, as_columns, find_pairs, grouped
from pipeline.prints import Prints, prints_of, write_quality
from pipeline.units import counted

PAIRS, GROUPS = "duplicates.parquet", "duplicate_groups.parquet"
PAIRS_SCHEMA = pa.schema(
    [
        ("set", pa.string()),
        ("key", pa.string()),
        ("other_set", pa.string()),
        ("other_key", pa.string()),
        ("kind", pa.string()),
        ("picture_distance", pa.float32()),
        ("is_mirrored", pa.bool_()),
        ("sound_distance", pa.float32()),
        ("motion_correlation", pa.float32()),
        ("offset_seconds", pa.float64()),
    ]
)
GROUPS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("duplicate_group", pa.string()),
        ("duplicate_count", pa.int32()),
        ("duplicate_rank", pa.int32()),
        ("duplicate_of", pa.string()),
        ("duplicate_of_set", pa.string()),
    ]
)


def duplicates(outs: Sequence[Path], *, workers: int = 1) -> list[str]:
    """Find them in and between sets, write the tables into each set, and say what was found.

    Raises:
        UsageError: a set is named twice, or cannot be written to.
        NotFinishedError: a set has no index yet.
    """
    sets = open_sets(outs, workers)
    pairs = find_pairs(sets)
    groups = grouped((pair.one, pair.other) for pair in pairs if pair.is_duplicate)
    for number, prints in enumerate(sets.sets):
        write_quality(prints.out, PAIRS, pairs_table(sets, pairs, number), prints.bases)
        table = groups_table(sets, groups, number)
        write_quality(prints.out, GROUPS, table, prints.bases, GROUPS_SCHEMA.names[1:])
    return _lines(sets, pairs, groups)


def open_sets(outs: Sequence[Path], workers: int) -> Sets:
    """The fingerprints of some sets.

    Raises:
        UsageError: one is named twice.
    """
    if len({out.resolve() for out in outs}) < len(outs):
        raise UsageError("a set is named twice, so that all its clips would be duplicates; name "
                         "each once")  # fmt: skip
    return Sets([prints_of(out, workers=workers) for out in outs])


def pairs_table(sets: Sets, pairs: Sequence[Pair], number: int) -> pa.Table:
    """The pairs of which one clip is of a set; the set's own clip first where only one is."""
    keys = [prints.clips["key"] for prints in sets.sets]
    rows = []
    for pair in pairs:
        (set_one, one), (set_other, other) = sets.where(pair.one), sets.where(pair.other)
        if number not in (set_one, set_other):
            continue
        rows.append({
            "set": sets.sets[set_one].name, "key": keys[set_one][one].as_py(),
            "other_set": sets.sets[set_other].name, "other_key": keys[set_other][other].as_py(),
            **as_columns(pair),
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PAIRS_SCHEMA)


def groups_table(sets: Sets, groups: dict[int, list[int]], number: int) -> pa.Table:
    """One row for each clip of a set; who has no duplicate is the only one of no group."""
    prints, first_clip = sets.sets[number], int(sets.firsts[number])
    rows: list[dict[str, Any]] = [
        {"key": key, "duplicate_count": 1, "duplicate_rank": 0}
        for key in prints.clips["key"].to_pylist()
    ]
    for first, clips in groups.items():
        of_set, of_row = sets.where(first)
        origin = sets.sets[of_set]
        name = origin.clips["key"][of_row].as_py()
        for rank, clip in enumerate(clips):
            if sets.where(clip)[0] == number:
                rows[clip - first_clip] |= {
                    "duplicate_group": f"{origin.name}:{name}",
                    "duplicate_count": len(clips),
                    "duplicate_rank": rank,
                    "duplicate_of": name if rank else None,
                    "duplicate_of_set": origin.name if rank else None,
                }
    return pa.Table.from_pylist(rows, schema=GROUPS_SCHEMA)


def _lines(sets: Sets, pairs: Sequence[Pair], groups: dict[int, list[int]]) -> list[str]:
    kinds = Counter(pair.kind for pair in pairs)
    clips = sum(len(prints) for prints in sets.sets)
    more = sum(len(group) - 1 for group in groups.values())
    names = ", ".join(_told(prints) for prints in sets.sets)
    lines = [f"{names}: {counted(clips, 'clip')}"]
    lines += [f"  {kind:<8} {counted(count, 'pair')}" for kind, count in sorted(kinds.items())]
    if not kinds:
        lines.append("  no pair of clips is alike")
    lines.append(
        f"  {counted(len(groups), 'group')} of the same content: {counted(more, 'clip')} too many; "
        '--where "duplicate_rank == 0" leaves them out'
    )
    return [*lines, *(f"Table: {prints.out / 'quality' / PAIRS}" for prints in sets.sets)]


def _told(prints: Prints) -> str:
    return f"{prints.name} ({prints.out})"
