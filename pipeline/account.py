"""Which shard speaks for which row, so that the ledger counts every row exactly once.

A row is cut into one shard. A patch that was planned later takes it over (`pipeline retry`), and a
tombstone takes it away from all of them (`pipeline drop`). Whoever counts, lists or makes samples
and errors asks here; entries of a sidecar whose row belongs elsewhere count no more.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.dropped import dropped_keys
from pipeline.outputs import Outputs
from pipeline.plan import Plan
from pipeline.rows import PlannedRows

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Account:
    """What is special in a set; nothing in most of them."""

    elsewhere: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Shard -> keys of its rows that it does not speak for."""
    dropped: frozenset[str] = NOTHING
    """Keys of rows of the manifest that were taken back."""
    dropped_in_shards: int = 0
    """How many of them have a shard; the others were left out by `--limit`."""

    def not_of(self, shard: str) -> frozenset[str]:
        """Keys of a shard's rows that do not count there, and are not made there any more."""
        return self.elsewhere.get(shard, NOTHING)

    def dropped_of(self, shard: str) -> frozenset[str]:
        """Keys of a shard's rows that were taken back."""
        return self.not_of(shard) & self.dropped


def account_of(out: Path, plan: Plan) -> Account:
    """What patches and tombstones say of a set.

    Raises:
        FormatError: there are some, and they or manifest.parquet cannot be read.
    """
    dropped = dropped_keys(out)
    patched = {key for patch in plan.patches for key in patch.keys}
    if not dropped and not patched:
        return Account()
    rows = PlannedRows(Outputs(out).manifest_path)
    places = rows.positions(dropped | patched)
    keys: list[str] = rows.take(places, ["key"])["key"].to_pylist()
    elsewhere = defaultdict(set)
    shards = plan.cut_shards
    firsts = np.array([shard.first_row for shard in shards], np.int64)
    in_shards = places < plan.rows_in_shards
    numbers = np.searchsorted(firsts, places[in_shards], "right") - 1
    for number, key in zip(numbers.tolist(), keys, strict=False):
        elsewhere[shards[number].name].add(key)
    taken: set[str] = set()
    for patch in reversed(plan.patches):
        elsewhere[patch.name] = {key for key in patch.keys if key in taken or key in dropped}
        taken.update(patch.keys)
    known = dropped.intersection(keys)
    count = sum(key in known for key in keys[: int(in_shards.sum())])
    return Account({name: frozenset(of) for name, of in elsewhere.items()}, known, count)
