"""A shard set with its manifest -> the examples of a split, and which of them are missing.

The shards hold what could be decoded, the manifest beside them everything the data set promises;
an accuracy over the first is no benchmark result unless it is the second.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stores.base import Store
from train.errors import ShardError, UsageError
from train.fields import with_members
from train.index import ShardSet, open_shards
from train.plan import seed_of, shuffled
from train.view import Mask, View

MANIFEST, ERRORS, SAMPLES = "manifest.parquet", "errors.parquet", "samples.parquet"
COLUMNS = ("key", "group_id", "splits", "labels", "label_names", "segments", "transcript", "words",
           "extra")  # fmt: skip
TOLD_MISSING = 10
PART = re.compile(r"part(\d+)of(\d+)")


class Example(NamedTuple):
    """What is scored: a clip, or a part of one."""

    name: str
    """The clip's key; of a part, the key, `#` and its number."""
    row: int
    """Of the shard set."""
    target: Any
    """Its class, its transcript, its segments' classes."""
    group: str
    """Speaker, source video: what must not be on both sides of a split."""
    start: int
    """First frame in the clip."""
    frames: int
    """How many."""
    track: int = 0
    """Which face, for pictures of faces."""
    sound_later: int = 0
    """Frames that the sound is taken from later in the clip, all of which the clip must have."""


@dataclass(frozen=True)
class LabelledSet:
    """A shard set, and what its manifest says."""

    shard_set: ShardSet
    manifest: pa.Table
    """Columns `COLUMNS`, one row a planned clip."""
    classes: tuple[str, ...]
    """Names of the classes, by number."""
    reasons: dict[str, str]
    """Of the rows that became no sample, by key."""
    index_sha256: str
    otherwise: str = "not_run"
    """The reason of a row that is neither a sample nor an error."""
    dataset: str = ""
    """Its canonical name."""
    silent: frozenset[str] = frozenset()
    """Keys of samples without sound, or with nothing to hear in it."""
    official: dict[str, int] = field(default_factory=dict)
    """Clips that were published in each split, as far as its manifest knows."""
    in_view: Mask | None = None
    """Rows of the shard set that are learned from and scored; None: all."""

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of the shard set by key."""
        there = self.shard_set.has_fields
        return {key: row for row, key in enumerate(self.shard_set.keys.to_pylist()) if there[row]}

    @property
    def fps(self) -> float:
        """Frames a second."""
        return float(self.shard_set.fps)

    def planned(self, splits: Sequence[str]) -> list[dict[str, Any]]:
        """The manifest rows of any of some splits, in the manifest's order.

        Args:
            splits: such as `ucf101:test1`, or `test` for any data set's; or `part2of5`, which is
                the second fifth of the groups that have samples, in an order of their own.
        """
        parts = [match for split in splits if (match := PART.fullmatch(split))]
        if parts:
            chosen = {number for match in parts for number in self._part(*map(int, match.groups()))}
            return list(self.manifest.take(pa.array(sorted(chosen), pa.int64())).to_pylist())
        flat = pc.list_flatten(self._splits)
        rows = pc.list_parent_indices(self._splits)
        wanted = pa.array([False] * len(flat), pa.bool_())
        for split in splits:
            either = pc.or_(pc.equal(flat, split), pc.ends_with(flat, ":" + split))
            wanted = pc.or_(wanted, either)
        return list(self.manifest.take(pc.unique(rows.filter(wanted))).to_pylist())

    @cached_property
    def _splits(self) -> pa.Array:
        column = self.manifest["splits"]
        return pc.coalesce(column, pa.scalar([], column.type)).combine_chunks()

    def _part(self, number: int, parts: int) -> list[int]:
        """Manifest rows of one of several parts, groups whole; parts have like numbers of them.

        Rows that became no sample are in none: parts are cut of what is there, not published.
        """
        chosen = set(self.groups[number - 1 :: parts])
        return [row for row, (key, group) in enumerate(self._groups())
                if group in chosen and key in self.row_of]  # fmt: skip

    @cached_property
    def groups(self) -> list[str]:
        """Speakers, source videos of samples; one without is its own. In an order of their own."""
        there = {group for key, group in self._groups() if key in self.row_of}
        return sorted(there, key=lambda group: (seed_of("part", group), group))

    def _groups(self) -> list[tuple[str, str]]:
        """Of each manifest row its key and its group."""
        keys = self.manifest["key"].to_pylist()
        groups = self.manifest["group_id"].to_pylist()
        return [(key, group or key) for group, key in zip(groups, keys, strict=True)]

    def split_names(self) -> list[str]:
        """All splits that rows name."""
        return sorted(pc.unique(pc.list_flatten(self._splits)).to_pylist())

    def published(self, split: str) -> int:
        """Clips that a split has as published, named with its data set or without; 0: unknown."""
        known = self.official.items()
        return max((n for name, n in known if f":{name}".endswith(f":{split}")), default=0)

    def examples(self, splits: Sequence[str]) -> list[Example]:
        """Each clip of some splits that is there, with its first label.

        Raises:
            UsageError: a clip has no label.
        """
        found = []
        for planned in self.planned(splits):
            row = self.row_of.get(planned["key"])
            if row is None:
                continue
            if not planned["labels"]:
                raise UsageError(f"{planned['key']} of {self.shard_set.name} has no label; leave "
                                 "it out of the split, or give it one")  # fmt: skip
            found.append(self.whole(planned, row, planned["labels"][0]))
        return found

    def clips(self, splits: Sequence[str]) -> list[Example]:
        """Each clip of some splits that is there, labelled or not; its target is None."""
        return [
            self.whole(planned, self.row_of[planned["key"]], None)
            for planned in self.planned(splits)
            if planned["key"] in self.row_of
        ]

    def label_names(self) -> dict[str, str]:
        """The first label of each planned clip that has one, by key."""
        names = zip(self.manifest["key"].to_pylist(), self.manifest["label_names"].to_pylist(),
                    strict=True)  # fmt: skip
        return {key: of[0] for key, of in names if of}

    def whole(self, planned: dict[str, Any], row: int, target: Any) -> Example:
        """The example that is a whole clip."""
        return Example(planned["key"], row, target, planned["group_id"] or planned["key"], 0,
                       int(self.shard_set.frames[row]))  # fmt: skip

    def shows(self, row: int) -> bool:
        """Whether a row of the shard set is learned from and scored."""
        return self.in_view is None or bool(self.in_view[row])

    def seen_through(self, view: View) -> "LabelledSet":
        """The same set, of which only what passes is learned from and scored.

        Raises:
            UsageError: the view cannot be understood, or names what is not there.
        """
        return replace(self, in_view=view.passes(self.shard_set)) if view else self

    def missing(self, splits: Sequence[str]) -> dict[str, str]:
        """Planned clips of some splits that are no samples: key -> reason."""
        return {
            planned["key"]: self.reasons.get(planned["key"], self.otherwise)
            for planned in self.planned(splits)
            if planned["key"] not in self.row_of
        }


def open_labelled(store: Store) -> LabelledSet:
    """Open a finished shard set with its manifest.

    Raises:
        UsageError, IncompleteError, ShardError, StoreError: as `open_shards`; or there is no
            manifest beside the shards.
    """
    shard_set = open_shards(store)
    try:
        manifest = pq.read_table(pa.BufferReader(store.read(MANIFEST)), columns=list(COLUMNS))
        errors = pq.read_table(pa.BufferReader(store.read(ERRORS)), columns=["key", "reason"])
    except FileNotFoundError as error:
        raise UsageError(
            f"{store} has no {MANIFEST} or {ERRORS}, which say what should be scored; copy them "
            "there from where the shards were made"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{store}: {MANIFEST} or {ERRORS} cannot be read ({error})") from error
    facts = json.loads((manifest.schema.metadata or {}).get(b"glav", b"{}"))
    reasons = dict(zip(errors["key"].to_pylist(), errors["reason"].to_pylist(), strict=True))
    told = shard_set.index
    return LabelledSet(
        shard_set=shard_set,
        manifest=manifest,
        classes=tuple(told.get("labels") or ()),
        reasons=reasons,
        index_sha256=shard_set.content_sha256,
        otherwise="dropped" if (told.get("counts") or {}).get("dropped") else "not_run",
        dataset=str(told.get("dataset") or ""),
        silent=_silent(store),
        official=(facts.get("report") or {}).get("official") or {},
    )


def with_stored(labelled: LabelledSet, members: Iterable[str]) -> LabelledSet:
    """The set with the fields that have those of the members which its samples do not store.

    Clips that lack such a field count as missing, by the reason that the field names.

    Raises:
        IncompleteError, ShardError: as `train.fields.join`.
    """
    shard_set = with_members(labelled.shard_set, members)
    fields = shard_set.fields.values()
    if not fields:
        return labelled
    reasons = {key: why for one in fields for key, why in one.reasons.items()}
    told = "".join(one.sha256 for one in fields)
    return replace(
        labelled,
        shard_set=shard_set,
        reasons={**reasons, **labelled.reasons},
        index_sha256=hashlib.sha256(f"{labelled.index_sha256}{told}".encode()).hexdigest(),
    )


def _silent(store: Store) -> frozenset[str]:
    samples = pq.ParquetFile(pa.BufferReader(store.read(SAMPLES)))
    if "silent" not in samples.schema_arrow.names:
        return frozenset()
    table = samples.read(columns=["key", "silent"])
    return frozenset(table.filter(table["silent"].fill_null(False))["key"].to_pylist())


def any_clips(labelled: LabelledSet, splits: Sequence[str], _settings: object) -> list[Example]:
    """Clips of some splits, labelled or not: the examples of tasks that need no labels."""
    return labelled.clips(splits)


def require_whole(labelled: LabelledSet, splits: Sequence[str], allow_missing: bool) -> int:
    """How many clips the test splits should have.

    Raises:
        UsageError: some are missing, and that is not allowed; the message lists them.
    """
    expected = len(labelled.planned(splits))
    if not expected:
        known = ", ".join(labelled.split_names()) or "none"
        raise UsageError(
            f"{labelled.shard_set.name} has no clip in {', '.join(splits)}; its splits: {known}"
        )
    missing = labelled.missing(splits)
    published = sum(labelled.published(split) for split in splits)
    if published > expected and not allow_missing:
        raise UsageError(
            f"{', '.join(splits)} has {published:,} clips as published, {labelled.shard_set.name} "
            f"knows of {expected:,}: an accuracy over these is not the benchmark's. Add the others "
            "and run `make shards` again, or score what is there with --allow-missing"
        )
    if missing and not allow_missing:
        listed = [f"  {key}: {reason}" for key, reason in list(missing.items())[:TOLD_MISSING]]
        if len(missing) > TOLD_MISSING:
            listed.append(f"  ... and {len(missing) - TOLD_MISSING} more")
        raise UsageError(
            f"{len(missing)} of the {expected} clips of {', '.join(splits)} are no samples in "
            f"{labelled.shard_set.name}, so no accuracy over the others is the benchmark's:\n"
            + "\n".join(listed)
            + f"\n`python -m pipeline errors {labelled.shard_set.store}` says why; add the files "
            "and run `make shards` again, without --limit where they were not run, or score what "
            "is there with --allow-missing"
        )
    return max(expected, published)


def few_of_each(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """At most `count` examples of each class, drawn by the seed; fewer are some of more.

    Raises:
        UsageError: an example has no class.
    """
    by_class: dict[int, list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.name):
        if not isinstance(example.target, int):
            raise UsageError(f"--labels {count} counts examples of a class, but {example.name} has "
                             "no single class; leave it out, or take --limit")  # fmt: skip
        by_class.setdefault(example.target, []).append(example)
    kept = {
        members[place].name
        for members in by_class.values()
        for place in shuffled(len(members), seed)[:count]
    }
    return [example for example in examples if example.name in kept]


def held_out_groups(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Cut whole groups off the training examples, to choose the epoch by.

    Returns:
        What stays for training, and about `share` of the examples; () where there is one group.
    """
    names = sorted({example.group for example in examples})
    order = [names[place] for place in shuffled(len(names), seed)]
    counts = dict.fromkeys(names, 0)
    for example in examples:
        counts[example.group] += 1
    chosen: set[str] = set()
    taken = 0
    for name in order[:-1]:  # one stays, whatever the share
        if taken >= share * len(examples):
            break
        chosen.add(name)
        taken += counts[name]
    kept = [example for example in examples if example.group not in chosen]
    return kept, [example for example in examples if example.group in chosen]
