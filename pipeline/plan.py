"""Manifest -> plan: which rows go into which shard, fixed before any work starts.

Rows whose splits never overlap are separate plan parts, so nobody streams train to read val.
Inside a part the source files come in hash order (classes and speakers mix), the rows of one file
stay together and in order of time, and shards are cut by seconds of media. The plan depends on the
rows alone: not on the number of workers, the machine or what already exists.

Everything is columns and numpy: two million rows take well under a minute (architecture §8).
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import SCHEMA

PLAN_COLUMNS = ("plan_part", "plan_shard", "instance", "planned_seconds")
MAX_SHARD_SECONDS = 1000.0
"""About 100 clips of 10 s and 100 MB at the default profile."""
MIN_SHARD_SECONDS = 20.0
SHARDS_WANTED = 16
"""A small set is cut into about so many shards, so that workers and loaders find enough of them."""
USUAL_SECONDS = 10.0
"""A clip of unknown length and size counts as this."""
USUAL_BYTES_A_SECOND = 100_000.0
"""Guesses a length from a size where nothing else is known; only the cut depends on it."""
LONGEST_GUESS_SECONDS = 3600.0

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlannedShard:
    """A shard before it is made."""

    name: str
    first_row: int
    rows: int
    seconds: float
    fingerprint: str


@dataclass(frozen=True)
class Patch(PlannedShard):
    """A shard of rows that failed in an earlier one and were tried again (`pipeline retry`).

    It takes its rows over: what earlier shards say of them counts no more. Rows keep their places
    in manifest.parquet and their instance numbers, so they need not be adjacent.
    """

    split_label: str
    keys: tuple[str, ...]
    """Of its rows, in the order of manifest.parquet."""
    planned_bytes: tuple[int | None, ...] = ()
    """Sizes of their files by manifest.parquet, in that order; other ones may have been read, which
    were mended since. Plans of earlier versions have none."""


@dataclass(frozen=True)
class PlanPart:
    """Rows that were planned together and share a split."""

    name: str
    split_label: str
    first_row: int
    rows: int
    first_instance: int
    shards: tuple[PlannedShard, ...]


@dataclass(frozen=True)
class Plan:
    """All shards of a set, in the order of the rows of OUT/manifest.parquet."""

    dataset: str
    profile: str
    name: str
    config_hash: str
    manifest_root: str
    seconds_per_shard: float
    parts: tuple[PlanPart, ...]
    planned_rows: int
    """All rows, those without a shard (`--limit`) included: the left side of the ledger."""
    licence: str = ""
    schema: int = field(default=1)
    patches: tuple[Patch, ...] = ()
    """In the order they were planned; of two with one row the later one has it."""

    @property
    def cut_shards(self) -> list[PlannedShard]:
        """The shards that the rows were cut into: every row that has a shard is in one of them."""
        return [shard for part in self.parts for shard in part.shards]

    @property
    def shards(self) -> list[PlannedShard]:
        """All shards, the patches last."""
        return [*self.cut_shards, *self.patches]

    @property
    def rows_in_shards(self) -> int:
        """Rows that have a shard; they come first in OUT/manifest.parquet."""
        return sum(part.rows for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """For plan.json."""
        stored = asdict(self)
        return stored if self.patches else {n: v for n, v in stored.items() if n != "patches"}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Plan":
        """The inverse of `as_dict`."""
        parts = tuple(
            PlanPart(**{**part, "shards": tuple(PlannedShard(**s) for s in part["shards"])})
            for part in stored["parts"]
        )
        lists = ("keys", "planned_bytes")
        patches = tuple(
            Patch(**{**patch, **{name: tuple(patch.get(name, ())) for name in lists}})
            for patch in stored.get("patches", ())
        )
        return cls(**{**stored, "parts": parts, "patches": patches})


def plan_rows(
    rows: pa.Table,
    *,
    seconds_per_shard: float | None,
    limit: int | None,
    config_hash: str,
    before: Plan | None = None,
) -> tuple[pa.Table, list[PlanPart], float]:
    """Cut rows into parts and shards.

    Args:
        rows: manifest rows that no plan has seen yet.
        seconds_per_shard: media seconds of a shard; None chooses by the length of all rows.
        limit: plan only so many rows (the first in hash order); the rest get no shard.
        config_hash: goes into the shards' fingerprints.
        before: the plan these rows are appended to.

    Returns:
        The rows in plan order with `PLAN_COLUMNS` (null for rows without a shard), the parts,
        and the seconds a shard.
    """
    seconds = planned_seconds(rows)
    part_names, part_of = parts_of(rows["splits"])
    hashes = file_hashes(rows["uri"])
    chosen = _within_limit(hashes, limit)
    if seconds_per_shard is None:
        # Of all rows: what `--limit` leaves out follows later and is cut by the same length.
        total = float(seconds.sum())
        seconds_per_shard = min(max(total / SHARDS_WANTED, MIN_SHARD_SECONDS), MAX_SHARD_SECONDS)
    order = plan_order(rows, part_of, hashes, chosen)
    ordered = rows.take(pa.array(order))
    count = int(chosen.sum())
    cutter = _Cutter(before, config_hash, seconds_per_shard)
    parts = cutter.cut(
        ordered, [part_names[i] for i in part_of[order[:count]]], seconds[order], hashes[order]
    )
    return with_plan_columns(ordered, parts, seconds[order]), parts, seconds_per_shard


def with_plan_columns(ordered: pa.Table, parts: Sequence[PlanPart], seconds: Floats) -> pa.Table:
    """Rows in plan order with `PLAN_COLUMNS`; those behind the parts' rows have no shard."""
    count = sum(part.rows for part in parts)
    rest = [None] * (len(ordered) - count)
    first = parts[0].first_instance if parts else 0
    part_names = [part.name for part in parts for _ in range(part.rows)]
    shards = [shard for part in parts for shard in part.shards]
    shard_names = [shard.name for shard in shards for _ in range(shard.rows)]
    instances = [*range(first, first + count)]
    table = ordered.append_column("plan_part", pa.array([*part_names, *rest], pa.string()))
    table = table.append_column("plan_shard", pa.array([*shard_names, *rest], pa.string()))
    table = table.append_column("instance", pa.array([*instances, *rest], pa.int64()))
    return table.append_column("planned_seconds", pa.array(seconds, pa.float64()))


def with_fingerprints_of(plan: Plan, rows: pa.Table) -> tuple[Plan, int]:
    """The plan with the fingerprints that these rows give its shards, and how many are new."""

    def marked(shard: PlannedShard) -> PlannedShard:
        piece = rows.slice(shard.first_row, shard.rows)
        return replace(shard, fingerprint=fingerprint(piece, shard.first_row, plan.config_hash))

    def marked_patch(patch: Patch) -> Patch:
        places = pc.index_in(pa.array(patch.keys, pa.string()), value_set=keys)
        return replace(patch, **of_patch(rows.take(places), plan.config_hash))

    keys = rows["key"].combine_chunks()
    parts = tuple(replace(part, shards=tuple(map(marked, part.shards))) for part in plan.parts)
    new = replace(plan, parts=parts, patches=tuple(map(marked_patch, plan.patches)))
    pairs = zip(plan.shards, new.shards, strict=True)
    return new, sum(before.fingerprint != after.fingerprint for before, after in pairs)


def planned_seconds(rows: pa.Table) -> Floats:
    """Media seconds of each row by the manifest: its window, its promise, or a guess by size."""
    window = pc.subtract(rows["end_s"], pc.coalesce(rows["start_s"], 0.0))
    promised = pc.struct_field(rows["expect"], "duration_s")
    guess = pc.min_element_wise(
        pc.divide(pc.cast(rows["bytes"], pa.float64()), USUAL_BYTES_A_SECOND), LONGEST_GUESS_SECONDS
    )
    seconds = pc.coalesce(window, promised, guess, USUAL_SECONDS)
    values: Floats = np.maximum(seconds.to_numpy(zero_copy_only=False), 0.1)
    return values


def guess_note(rows: pa.Table) -> str:
    """Says in brackets for how many clips `planned_seconds` guesses; empty if for none.

    Args:
        rows: with `end_s` and `expect`.
    """
    promised = pc.struct_field(rows["expect"], "duration_s")
    guessed = pc.sum(pc.and_(pc.is_null(rows["end_s"]), pc.is_null(promised))).as_py() or 0
    part = "" if guessed == len(rows) else f" for {guessed:,} of {len(rows):,}"
    return f" (estimated{part})" if guessed else ""


def parts_of(splits: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Names of the plan parts, and the part of each row; splits that share a row share a part."""
    joined = pc.binary_join(pc.coalesce(splits, pa.scalar([], splits.type)), "\n")
    encoded = joined.combine_chunks().dictionary_encode()
    combinations = [text.split("\n") if text else [] for text in encoded.dictionary.to_pylist()]
    labels = _part_labels(combinations)
    names = sorted(set(labels))
    of_combination = np.array([names.index(label) for label in labels], np.int64)
    return names, of_combination[encoded.indices.to_numpy()]


def _part_labels(combinations: list[list[str]]) -> list[str]:
    """A part name for each combination of splits that occurs."""
    groups: list[set[str]] = []
    for combination in combinations:
        merged = set(combination)
        for group in [g for g in groups if g & merged]:
            merged |= group
            groups.remove(group)
        if merged:
            groups.append(merged)
    name_of = {split: _part_name(group) for group in groups for split in group}
    return [name_of[combination[0]] if combination else "all" for combination in combinations]


def _part_name(splits: set[str]) -> str:
    """`train` for `{"k400:train"}`; `all` for splits that overlap under different names."""
    names = {split.partition(":")[2] or split for split in splits}
    name = names.pop() if len(names) == 1 else "all"
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name) or "all"


def file_hashes(uris: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """A well-mixed 64-bit number for each row's file; equal files get equal numbers."""
    encoded = uris.combine_chunks().dictionary_encode()
    digests = b"".join(
        hashlib.blake2b(uri.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        for uri in _plain(encoded.dictionary)
    )
    of_file = np.frombuffer(digests, ">u8").astype(np.uint64)
    hashes: npt.NDArray[np.uint64] = of_file[encoded.indices.to_numpy()]
    return hashes


def _plain(strings: pa.Array) -> Iterator[str]:
    """Python strings of a long array, a piece at a time."""
    for start in range(0, len(strings), 100_000):
        yield from strings.slice(start, 100_000).to_pylist()


def _within_limit(hashes: npt.NDArray[np.uint64], limit: int | None) -> npt.NDArray[np.bool_]:
    """Which rows are planned."""
    chosen = np.ones(len(hashes), bool)
    if limit is not None and limit < len(hashes):
        chosen[np.argsort(hashes, kind="stable")[limit:]] = False
    return chosen


def plan_order(
    rows: pa.Table, part_of: Ints, hashes: npt.NDArray[np.uint64], chosen: npt.NDArray[np.bool_]
) -> Ints:
    """Planned rows first; by part, file in hash order, start; ties by key."""
    starts = pc.coalesce(rows["start_s"], 0.0).to_numpy(zero_copy_only=False)
    keys = pc.rank(rows["key"].combine_chunks(), tiebreaker="dense").to_numpy()
    uris = rows["uri"].combine_chunks().dictionary_encode().indices.to_numpy()
    order: Ints = np.lexsort((keys, starts, uris, hashes, part_of, ~chosen))
    return order


class _Cutter:
    """Cuts ordered rows into shards; names and instances go on where an earlier plan stopped."""

    def __init__(self, before: Plan | None, config_hash: str, seconds_per_shard: float) -> None:
        self._config_hash = config_hash
        self._seconds = seconds_per_shard
        self._parts_before = before.parts if before else ()
        self._row = before.rows_in_shards if before else 0

    def cut(
        self, rows: pa.Table, parts: Sequence[str], seconds: Floats, hashes: npt.NDArray[np.uint64]
    ) -> list[PlanPart]:
        """The parts.

        Args:
            rows: all rows in plan order; only the first `len(parts)` are cut.
            parts: part name of each row to be cut.
            seconds: planned seconds of each row.
            hashes: file hash of each row.
        """
        names = np.array(parts, dtype=object)
        borders = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        made: list[PlanPart] = []
        for begin, end in pairwise(borders):
            if begin == end:
                continue
            numbers = shard_numbers(seconds[begin:end], hashes[begin:end], self._seconds)
            part = self._part(
                parts[begin], rows.slice(begin, end - begin), numbers, seconds[begin:end]
            )
            made.append(part)
        return made

    def _part(self, label: str, rows: pa.Table, numbers: Ints, seconds: Floats) -> PlanPart:
        earlier = [part for part in self._parts_before if part.split_label == label]
        number = sum(len(part.shards) for part in earlier)
        borders = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        first = self._row
        shards = []
        for begin, end in pairwise(borders):
            piece = rows.slice(begin, end - begin)
            shards.append(
                PlannedShard(
                    name=f"{label}-{number:06d}",
                    first_row=self._row,
                    rows=end - begin,
                    seconds=round(float(seconds[begin:end].sum()), 3),
                    fingerprint=fingerprint(piece, self._row, self._config_hash),
                )
            )
            number += 1
            self._row += end - begin
        name = label if not earlier else f"{label}.{len(earlier)}"
        return PlanPart(name, label, first, self._row - first, first, tuple(shards))


def shard_numbers(seconds: Floats, hashes: npt.NDArray[np.uint64], most: float) -> Ints:
    """Which shard each row goes to; a file is never cut in two."""
    is_first = np.concatenate(([True], hashes[1:] != hashes[:-1]))
    file_of = np.cumsum(is_first) - 1
    before_file = np.concatenate(([0.0], np.cumsum(np.bincount(file_of, seconds))))[:-1]
    numbers: Ints = np.floor(before_file / most).astype(np.int64)[file_of]
    return numbers


def fingerprint(rows: pa.Table, first_instance: int, config_hash: str) -> str:
    """Hash of a shard's rows, their instance numbers and the config."""
    return _fingerprint(rows, str(first_instance), config_hash)


def of_patch(rows: pa.Table, config_hash: str) -> dict[str, Any]:
    """What a patch repeats of its rows."""
    return {
        "fingerprint": patch_fingerprint(rows, config_hash),
        "keys": tuple(rows["key"].to_pylist()),
        "planned_bytes": tuple(rows["bytes"].to_pylist()),
    }


def patch_fingerprint(rows: pa.Table, config_hash: str) -> str:
    """The same for rows of a patch, which have an `instance` each."""
    return _fingerprint(rows, ",".join(map(str, rows["instance"].to_pylist())), config_hash)


def fingerprint_of(shard: PlannedShard, rows: pa.Table, config_hash: str) -> str:
    """What the rows that manifest.parquet has for a shard say its fingerprint should be."""
    if isinstance(shard, Patch):
        return patch_fingerprint(rows, config_hash)
    return fingerprint(rows, shard.first_row, config_hash)


def _fingerprint(rows: pa.Table, instances: str, config_hash: str) -> str:
    plain = rows.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(None)
    at = plain.schema.get_field_index("dataset")
    plain = plain.set_column(at, "dataset", plain["dataset"].cast(pa.string()))
    # A copy, because what lies below a null struct or beside a slice is no part of the rows.
    plain = plain.flatten().take(np.arange(len(plain)))
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, plain.schema) as writer:
        writer.write_table(plain.combine_chunks())
    digest = hashlib.sha256(buffer.getbuffer())
    digest.update(f"{instances} {config_hash}".encode())
    return digest.hexdigest()
