"""SHARDS=path@n=120000,path@w=0.5 -> a Mixture: which clips, how often, under which number.

The path is a folder, or s3://bucket/set, gs://bucket/set or https://host/set (see `stores`).
`@n=120000` takes a subset of so many clips, drawn once by `--subset-seed` (a smaller n gives a
part of what a larger n gives); `@w=0.5` brings every clip every second epoch on average, drawn
anew each epoch, `@w=2` twice an epoch; nothing brings each clip once an epoch. Clips shorter than
the window and clips that a view (--where, --without) does not let pass are left out and counted;
a subset is drawn among the others.
"""

import hashlib
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.format import MEL_SLICES_PER_FRAME
from stores import open_store
from stores.base import Store
from stores.local import LocalStore
from train.cache import Cache, CachedStore
from train.cuts import Reads, cut_text, seconds_of
from train.errors import UsageError
from train.fields import join, mel_member
from train.index import (
    Ints,
    ShardSet,
    open_shards,
    require_readable,
    require_same_content,
)
from train.view import View

log = logging.getLogger(__name__)

DEFAULT_SETS = ("kinetics400-glcm", "avspeech-glcm")
DEFAULT_CLIPS = 120_000
"""Of each default set, where both are there: the paper's K-AV-240K."""


@dataclass(frozen=True)
class Source:
    """One entry of SHARDS."""

    store: Store
    clips: int | None = None
    """@n: size of the subset."""
    weight: float = 1.0
    """@w: times an epoch."""


@dataclass(frozen=True)
class Part:
    """The chosen clips of one set."""

    shard_set: ShardSet
    rows: Ints
    """Rows of the set that are used, ascending."""
    clips_per_epoch: int
    first_instance: int
    """Added to the set's instance ids."""
    too_short: int
    """Clips of the split with fewer frames than the window."""
    not_in_view: int
    """Clips of the split that are long enough and that the view does not let pass."""
    in_split: int
    """Clips of the split, whether they are used or not."""
    lacks_field: int = 0
    """Clips of the split that lack a field, or have nothing in it (no face)."""


@dataclass(frozen=True)
class Mixture:
    """What one epoch is drawn from."""

    parts: tuple[Part, ...]
    reads: Reads
    """What is read of each clip."""
    split: str
    view: View
    """Which clips pass."""

    @property
    def frames(self) -> int:
        """Frames that a clip must have."""
        return self.reads.least_frames

    @property
    def clips_per_epoch(self) -> int:
        """Draws an epoch, over all sets."""
        return sum(part.clips_per_epoch for part in self.parts)

    @property
    def clips(self) -> int:
        """Different clips."""
        return sum(len(part.rows) for part in self.parts)

    @property
    def instances(self) -> int:
        """One more than the largest instance id; what a memory bank must hold."""
        last = self.parts[-1]
        return last.first_instance + last.shard_set.instances

    def chosen_instances(self) -> Ints:
        """Ids of the chosen clips, ascending."""
        ids = [part.first_instance + part.shard_set.instance[part.rows] for part in self.parts]
        return np.unique(np.concatenate(ids)).astype(np.int64)

    @property
    def fps(self) -> float:
        """Frames a second, the same in all sets."""
        return float(self.parts[0].shard_set.fps)

    @property
    def short_side(self) -> int:
        """Pixels, the same in all sets."""
        return int(self.parts[0].shard_set.config["short_side"])

    def fingerprint(self) -> str:
        """Changes when any clip, its place or its number does; stored in checkpoints."""
        digest = hashlib.sha256(f"{self.frames}".encode())
        for part in self.parts:
            chosen = part.shard_set
            digest.update(f"{chosen.name} {chosen.config_hash} {part.clips_per_epoch}".encode())
            ids = part.first_instance + chosen.instance[part.rows]
            for array in (ids, chosen.offset[part.rows], chosen.shard[part.rows]):
                digest.update(array.tobytes())
            for name in self.reads.fields:
                digest.update(f"{name} {chosen.fields[name].sha256}".encode())
        return digest.hexdigest()

    def first_instances(self) -> dict[str, int]:
        """Where each set's instance ids begin; stored in checkpoints."""
        return {part.shard_set.name: part.first_instance for part in self.parts}

    def table(self) -> pa.Table:
        """The chosen clips by set, key and instance id: the frozen list of the run."""
        columns: dict[str, list[pa.Array]] = {"set": [], "key": [], "instance": []}
        for part in self.parts:
            keys = part.shard_set.keys.take(pa.array(part.rows)).combine_chunks()
            columns["set"].append(pa.array([part.shard_set.name] * len(part.rows)))
            columns["key"].append(keys)
            ids = part.first_instance + part.shard_set.instance[part.rows]
            columns["instance"].append(pa.array(ids))
        return pa.table({name: pa.chunked_array(arrays) for name, arrays in columns.items()})

    def once(self) -> "Mixture":
        """The same clips, each once an epoch, whatever their weights."""
        parts = (replace(part, clips_per_epoch=len(part.rows)) for part in self.parts)
        return replace(self, parts=tuple(parts))

    def keys(self) -> pa.ChunkedArray:
        """Of all chosen clips."""
        return pa.chunked_array(
            [part.shard_set.keys.take(pa.array(part.rows)).combine_chunks() for part in self.parts]
        )

    def groups(self) -> pa.ChunkedArray:
        """Speakers or source videos of the chosen clips that know theirs."""
        groups = [part.shard_set.groups.take(pa.array(part.rows)) for part in self.parts]
        return pa.chunked_array([group.combine_chunks() for group in groups]).drop_null()

    def lines(self) -> list[str]:
        """What is read, for the log."""
        return [
            f"{part.shard_set.name}: {len(part.rows):,} of {part.in_split:,} clips of split "
            f"{self.split}, {part.clips_per_epoch:,} an epoch; {cut_text(self.reads, self.fps)}"
            + (f"; {part.too_short:,} clips are shorter and left out" if part.too_short else "")
            + (f"; {part.lacks_field:,} clips without {' or '.join(self.reads.fields)} are left out"
               if part.lacks_field else "")
            + "".join(f"; {part.shard_set.fields[name].behind}" for name in self.reads.fields
                      if part.shard_set.fields[name].behind)
            + (f"; {self.view} leaves out {part.not_in_view:,}" if self.view else "")
            + ("" if part.shard_set.complete else "; the index is partial, more may follow")
            for part in self.parts
        ]  # fmt: skip


def parse_shards(
    text: str, data: Path, *, allow_http: bool = False, cache: Cache | None = None
) -> list[Source]:
    """The sets named by SHARDS; without a name the defaults of architecture §2.

    Args:
        text: comma-separated paths or addresses, each with an optional @n= or @w=.
        data: where default sets are looked for, below `shards`.
        allow_http: take sets from web servers.
        cache: keeps shards that are not on this machine.

    Raises:
        UsageError: an entry that cannot be read, or no default set is there.
    """
    if not text:
        return _default_sources(data)
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    return [_parse_source(entry, allow_http, cache) for entry in entries]


def open_mixture(
    sources: list[Source],
    *,
    reads: Reads,
    split: str = "train",
    subset_seed: int = 0,
    view: View = View(),  # noqa: B008, it is frozen
) -> Mixture:
    """Open the sets, choose their clips.

    Args:
        sources: from `parse_shards`.
        reads: what a method wants of each clip.
        split: `train`, or with the data set's name `kinetics400:train`.
        subset_seed: draws the clips of `@n=`.
        view: which clips pass.

    Raises:
        TrainError: a set is missing, incomplete, damaged, or does not fit.
    """
    _refuse_twice(sources)
    sets = _named_apart([open_shards(source.store) for source in sources])
    sets = [join(shard_set, reads.fields) for shard_set in sets]
    reads = replace(reads, mel_member=mel_member(sets, reads.fields))
    for shard_set in sets:
        require_readable(shard_set, reads)
    require_same_content(sets)
    parts: list[Part] = []
    first_instance = 0
    for source, shard_set in zip(sources, sets, strict=True):
        chosen = _rows(shard_set, reads, split, view)
        rows = chosen.rows
        if source.clips is not None:
            rows = _subset(shard_set, rows, source.clips, subset_seed)
        clips_per_epoch = round(len(rows) * source.weight)
        parts.append(Part(shard_set, rows, clips_per_epoch, first_instance, **chosen.left_out))
        first_instance += shard_set.instances
    return Mixture(tuple(parts), reads, split, view)


def require_mel_slices(mixture: Mixture, model: Any) -> None:
    """Refuse a model that needs more mel slices a frame than shards have.

    Args:
        mixture: what it would be trained on.
        model: a method's config; one without `slices_per_frame` takes what shards have.

    Raises:
        UsageError: says both numbers.
    """
    needed = getattr(model, "slices_per_frame", MEL_SLICES_PER_FRAME)
    if needed != MEL_SLICES_PER_FRAME:
        name = mixture.parts[0].shard_set.name
        raise UsageError(
            f"this model needs {needed} mel slices a frame, {needed * mixture.fps:g} a second; "
            f"{name} has {MEL_SLICES_PER_FRAME}, {MEL_SLICES_PER_FRAME * mixture.fps:g} a second, "
            "as every profile of the pipeline. Leave --model.audio-stride at 1"
        )


# --- pieces -----------------------------------------------------------------------------------


def _default_sources(data: Path) -> list[Source]:
    folders = [data / "shards" / name for name in DEFAULT_SETS]
    found = [folder for folder in folders if (folder / "plan.json").exists()]
    if not found:
        raise UsageError(
            f"neither {folders[0]} nor {folders[1]} is there; make one with `make shards "
            "DATASET=kinetics ROOT=...` or `make shards DATASET=avspeech ROOT=...`, or name "
            "another set with SHARDS="
        )
    return [Source(LocalStore(path), DEFAULT_CLIPS if len(found) > 1 else None) for path in found]


def _parse_source(entry: str, allow_http: bool, cache: Cache | None) -> Source:
    match = re.fullmatch(r"(.+?)/?(?:@n=([1-9]\d*)|@w=(\d+(?:\.\d+)?|\.\d+))?", entry)
    # Before anything is repeated: an address that holds a password is refused without it.
    store = open_store(match[1], allow_http=allow_http) if match and "://" in match[1] else None
    if not match or "@" in match[1] or (match[3] and not float(match[3])):
        raise UsageError(
            f"cannot read {entry!r} in SHARDS; write path, path@n=120000 (clips an epoch) or "
            "path@w=0.5 (times an epoch)"
        )
    store = store or open_store(match[1], allow_http=allow_http)
    if cache is not None and not store.is_local:
        store = CachedStore(store, cache)
    return Source(store, int(match[2]) if match[2] else None, float(match[3] or 1))


def _refuse_twice(sources: list[Source]) -> None:
    """A set beside itself would be its own negatives.

    Raises:
        UsageError: names it.
    """
    addresses = [str(source.store) for source in sources]
    if twice := next((one for one in addresses if addresses.count(one) > 1), None):
        raise UsageError(
            f"{twice} is named {addresses.count(twice)} times in SHARDS, so that clips would be "
            f"their own negatives; for clips that come several times an epoch write {twice}@w=2"
        )


def _named_apart(sets: list[ShardSet]) -> list[ShardSet]:
    """Sets of one name, such as two of `folder`, become NAME, NAME#2: records are by name."""
    named: list[ShardSet] = []
    for shard_set in sets:
        before = sum(other.name.partition("#")[0] == shard_set.name for other in named)
        name = f"{shard_set.name}#{before + 1}" if before else shard_set.name
        named.append(replace(shard_set, name=name))
    return named


class _Chosen(NamedTuple):
    """The clips of a split that may be used."""

    rows: Ints
    left_out: dict[str, int]
    """`in_split`, and why clips of it are not used: `too_short`, `lacks_field`, `not_in_view`."""


def _rows(shard_set: ShardSet, reads: Reads, split: str, view: View) -> _Chosen:
    """The clips of a split that are long enough, have what is read, and are in the view."""
    in_split = shard_set.in_split(split)
    long_enough = _long_enough(shard_set, in_split, reads.least_frames, split)
    rows, lacking = _with_fields(shard_set, long_enough, reads.fields)
    passing = rows[view.passes(shard_set)[rows]] if view else rows
    if not len(passing):
        raise UsageError(
            f"{view} lets none of the {len(rows):,} clips of {shard_set.name}, split {split}, "
            f"pass; `python -m pipeline report {shard_set.store} --where ...` tells which "
            "condition leaves out how many"
        )
    left_out = {
        "in_split": len(in_split),
        "too_short": len(in_split) - len(long_enough),
        "lacks_field": lacking,
        "not_in_view": len(rows) - len(passing),
    }
    return _Chosen(passing, left_out)


def _long_enough(shard_set: ShardSet, in_split: Ints, frames: int, split: str) -> Ints:
    rows: Ints = in_split[shard_set.frames[in_split] >= frames]
    if not len(rows):
        longest = int(shard_set.frames[in_split].max())
        raise UsageError(
            f"all {len(in_split):,} clips of {shard_set.name}, split {split}, are shorter than the "
            f"{seconds_of(frames, float(shard_set.fps))} that are needed: the longest has "
            f"{longest} frames. Choose a preset with a shorter window, such as PRESET=tiny (16 "
            "frames), or set --model.frames"
        )
    return rows


def _with_fields(shard_set: ShardSet, rows: Ints, names: tuple[str, ...]) -> tuple[Ints, int]:
    """The rows that have something in every field, and how many have not."""
    kept = rows
    for name in names:
        kept = kept[shard_set.fields[name].usable[kept]]
    if len(rows) and not len(kept):
        raise UsageError(
            f"none of the {len(rows):,} clips of {shard_set.name} has {' and '.join(names)}; see "
            f"{shard_set.store.url(f'fields/{names[0]}/errors.parquet')}, or leave --fields out"
        )
    return kept, len(rows) - len(kept)


def _subset(shard_set: ShardSet, rows: Ints, clips: int, seed: int) -> Ints:
    """The `clips` rows whose hash of (seed, key) is smallest: stable when others are added."""
    if clips > len(rows):
        log.warning("%s has %d clips, %d were asked for", shard_set.name, len(rows), clips)
        return rows
    keys = shard_set.keys.take(pa.array(rows)).to_pylist()
    ranks = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys]
    chosen = sorted(range(len(rows)), key=ranks.__getitem__)[:clips]
    return np.sort(rows[chosen])
