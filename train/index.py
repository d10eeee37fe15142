"""shardindex.json + samples.parquet -> ShardSet: what the loader may draw from.

Reads what `pipeline shards` wrote last and believes it only after checks: schema, addresses,
members and counts must fit. Gives a `ShardSet` to mixture.py, or raises a sentence.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.format import FIELD_NAME, SCHEMA_VERSION
from stores.base import Store
from train.cache import CachedStore
from train.cuts import Reads
from train.errors import IncompleteError, ShardError, UsageError
from train.fields import Field

INDEX_NAME = "shardindex.json"
CLIP_COLUMNS = ("key", "base", "shard", "offset", "size", "instance", "frames", "labels", "splits")
GROUP = "group"
"""A column that sets made elsewhere may lack."""
CONTENT_FIELDS = ("fps", "short_side", "mel_rate_hz")
"""What two sets must agree in before their clips can share a batch."""

MADE_BY = {
    "demo-glcm": "make demo",
    "kinetics400-glcm": "make shards DATASET=kinetics400",
    "avspeech-glcm": "make shards DATASET=avspeech",
}
"""The sets that the documentation names, by folder: only for these we know what to type."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardSet:
    """A shard set as its index describes it. Arrays have one entry a clip, in tar order."""

    store: Store
    """The OUT folder, wherever it lies."""
    name: str
    """DATASET-PROFILE."""
    config: dict[str, Any]
    """The pipeline's configuration: fps, short_side, mel_rate_hz, ..."""
    config_hash: str
    """Of that configuration."""
    complete: bool
    """False for an index written by `pipeline finalize --partial`."""
    members: tuple[str, ...]
    """Extensions every sample has."""
    instances: int
    """Instance ids run from 0 to this, gaps included; the offset of the set mixed in next."""
    shards: tuple[str, ...]
    """Relative addresses of the tars."""
    shard_bytes: Ints
    """Their sizes."""
    keys: pa.ChunkedArray
    bases: pa.ChunkedArray
    labels: pa.ChunkedArray
    splits: pa.ChunkedArray
    groups: pa.ChunkedArray
    """Speaker or source video of each clip; null where it is not known."""
    shard: Ints
    """Position in `shards`."""
    offset: Ints
    """First byte of the sample in its tar."""
    size: Ints
    """Bytes of the sample, headers and padding included."""
    instance: Ints
    frames: Ints
    sha256: tuple[str, ...] = ()
    """Of the tars."""
    known_fields: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Fields that were added to the set, as its index names them."""
    index: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What its index says beside the shards and the fields."""
    content_sha256: str = ""
    """Of its index without the fields: adding one makes no other set of it."""
    fields: Mapping[str, Field] = field(default_factory=dict)
    """Those that are joined: see train.fields."""

    def __len__(self) -> int:
        """Clips."""
        return len(self.offset)

    def __repr__(self) -> str:
        """Name and counts."""
        return f"ShardSet({self.name}, {len(self):,} clips in {len(self.shards):,} shards)"

    @property
    def fps(self) -> Fraction:
        """Frames a second."""
        return Fraction(self.config["fps"])

    @property
    def has_fields(self) -> npt.NDArray[np.bool_]:
        """Clips that have all joined fields, empty or not."""
        there = np.ones(len(self), np.bool_)
        for one in self.fields.values():
            there &= one.there
        return there

    def in_split(self, split: str) -> Ints:
        """Rows of a split: `train` or `kinetics400:train`; rows without any split are in `train`.

        Raises:
            UsageError: nobody is in it; the message lists the splits there are.
        """
        flat = pc.list_flatten(self.splits)
        rows = pc.list_parent_indices(self.splits).to_numpy()
        wanted = pc.or_(pc.equal(flat, split), pc.ends_with(flat, ":" + split))
        chosen = np.full(len(self), split == "train")
        chosen[rows] = False  # whoever names splits is in none but those
        chosen[rows[wanted.to_numpy(zero_copy_only=False)]] = True
        if not chosen.any():
            known = (
                ", ".join(sorted(pc.unique(flat).to_pylist())) or "none, all its clips are train"
            )
            raise UsageError(f"{self.name} has no clip in split {split!r}; its splits: {known}")
        return np.flatnonzero(chosen)


def open_shards(store: Store) -> ShardSet:
    """Read and check the index of a shard set.

    Args:
        store: the OUT folder of `pipeline shards`, such as data/shards/demo-glcm, or its copy.

    Raises:
        UsageError: there are no shards, or they are of another schema.
        IncompleteError: the shards are not finished.
        ShardError: index and tables disagree, or an address leads elsewhere.
        StoreError: they cannot be reached.
    """
    index = _read_index(store)
    shards = index["shardlist"]
    urls = tuple(_checked_url(store, entry["url"]) for entry in shards)
    clips = _read_clips(store)
    shard = _shard_numbers(store, clips["shard"], urls)
    _check_counts(store, shard, shards)
    _check_places(store, shard, _ints(clips["offset"]), _ints(clips["size"]), shards)
    if isinstance(store, CachedStore):
        facts = [(entry["filesize"], entry.get("sha256") or "") for entry in shards]
        store = store.expecting(dict(zip(urls, facts, strict=True)))
    return ShardSet(
        store=store,
        name=index["name"],
        config=index["config"],
        config_hash=index["config_hash"],
        complete=bool(index.get("complete")),
        members=tuple(index.get("members") or ()),
        instances=int(index["instances"]),
        sha256=tuple(str(entry.get("sha256") or "") for entry in shards),
        known_fields=_known_fields(store, index),
        index={name: value for name, value in index.items() if name not in ("shardlist", "fields")},
        content_sha256=_content_sha256(index),
        shards=urls,
        shard_bytes=np.array([entry["filesize"] for entry in shards], np.int64),
        keys=clips["key"],
        bases=clips["base"],
        labels=clips["labels"],
        splits=_lists(clips["splits"]),
        groups=_groups(clips),
        shard=shard,
        offset=_ints(clips["offset"]),
        size=_ints(clips["size"]),
        instance=_ints(clips["instance"]),
        frames=_ints(clips["frames"]),
    )


def require_readable(shard_set: ShardSet, reads: Reads) -> None:
    """Refuse a set that does not store what a method reads.

    Raises:
        UsageError: names what is missing and the profile that has it.
    """
    what = _missing(shard_set, reads)
    if what:
        profile = shard_set.config.get("profile")
        raise UsageError(
            f"{shard_set.name} stores no {what} (profile {profile}), which this method reads: make "
            f"it with PROFILE={reads.profile}"
        )


def _missing(shard_set: ShardSet, reads: Reads) -> str:
    """What of a method's wishes a set does not store; empty if all is there."""
    config = shard_set.config
    if not config["short_side"]:
        return "frames"
    if reads.mel and not config.get("mel_rate_hz"):
        return "mel"
    found = (config.get("waveform_rate_hz"), config.get("waveform_channels"))
    if reads.wave_rate_hz and found != (reads.wave_rate_hz, reads.wave_channels):
        return f"waveform of {reads.wave_rate_hz} Hz in {reads.wave_channels} channel(s)"
    stored = set(shard_set.members).union(*(one.members for one in shard_set.fields.values()))
    missing = set(reads.members) - stored if shard_set.members else set()
    return " or ".join(sorted(missing))


def require_same_content(sets: list[ShardSet]) -> None:
    """Refuse a mixture of sets that were made differently.

    Raises:
        UsageError: names the field and both values.
    """
    for other in sets[1:]:
        for name in CONTENT_FIELDS:
            ours, theirs = sets[0].config.get(name), other.config.get(name)
            if ours != theirs:
                raise UsageError(
                    f"{sets[0].name} has {name} {ours}, {other.name} has {theirs}; sets of one "
                    "mixture must be made with the same profile"
                )


# --- reading ------------------------------------------------------------------------------------


def _read_index(store: Store) -> dict[str, Any]:
    path = store.url(INDEX_NAME)
    try:
        index = json.loads(store.read(INDEX_NAME))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_index(store) from error
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path} is no JSON ({error}); {_again(store)}") from error
    if not isinstance(index, dict) or index.get("schema") != SCHEMA_VERSION:
        found = index.get("schema") if isinstance(index, dict) else None
        raise UsageError(
            f"{path} has schema {found!r}, this trainer reads schema {SCHEMA_VERSION}; make the "
            "shards again with this version, or train with the version that made them"
        )
    missing = {"name", "config", "config_hash", "instances", "shardlist"} - set(index)
    if missing:
        raise ShardError(f"{path} lacks {', '.join(sorted(missing))}; {_again(store)}")
    if not index["shardlist"]:
        raise UsageError(f"{path} lists no shard; `python -m pipeline errors {store}` says why")
    return index


def _content_sha256(index: dict[str, Any]) -> str:
    content = {name: value for name, value in index.items() if name != "fields"}
    return hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()


def _no_index(store: Store) -> UsageError | IncompleteError:
    if not store.is_local:
        return UsageError(
            f"no shards under {store}: there is no {store.url(INDEX_NAME)}. Check the address, or "
            "copy a finished set there, with all its files"
        )
    try:
        dataset = json.loads(store.read("plan.json"))["dataset"]
    except (OSError, ValueError, KeyError, TypeError):
        return UsageError(f"no shards under {store}: {_instead(Path(str(store)))}")
    return IncompleteError(
        f"{store} is not finished: it has no {INDEX_NAME}. Run the command that began it again "
        f"(`make shards DATASET={dataset}` ...), or train on what is there after `python -m "
        f"pipeline finalize {store} --partial`"
    )


def _instead(folder: Path) -> str:
    """Which sets there are near a folder without one, and how this one is made, where known."""
    for place in (folder, folder.parent):
        if found := sorted(path.parent.name for path in place.glob(f"*/{INDEX_NAME}")):
            return f"{place} holds the sets {', '.join(found)}"
    if folder.name in MADE_BY:
        return f"make them with `{MADE_BY[folder.name]}`"
    where = f"{folder.parent} holds no set" if folder.parent.is_dir() else (
        f"there is no folder {folder.parent}"
    )  # fmt: skip
    return f"{where}. Check the path; `make shards` lists what sets can be made of"


def _again(store: Store) -> str:
    if store.is_local:
        return f"write it again with `python -m pipeline finalize {store}`"
    return "write it again with `python -m pipeline finalize` where it was made, and copy it anew"


def _known_fields(store: Store, index: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Fields by name, which is the name of a folder below the set, too."""
    fields = index.get("fields") or {}
    plain = isinstance(fields, dict) and all(
        FIELD_NAME.fullmatch(name) and isinstance(told, dict) and _are_texts(told.get("members"))
        for name, told in fields.items()
    )
    if not plain:
        raise ShardError(
            f"{store.url(INDEX_NAME)} does not name fields as `pipeline add-field` does: "
            f"{str(fields)[:200]}; {_again(store)}"
        )
    return dict(fields)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _checked_url(store: Store, url: Any) -> str:
    """A shard's address inside the set: relative, downwards, a tar."""
    plain = isinstance(url, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)*\.tar", url)
    if not plain or ".." in url.split("/"):
        raise ShardError(
            f"{store.url(INDEX_NAME)} lists the shard {str(url)[:200]!r}; only tars below the "
            "set's own folder are read"
        )
    return str(url)


def _read_clips(store: Store) -> pa.Table:
    path = store.url("samples.parquet")
    try:
        file = pa.BufferReader(store.read("samples.parquet"))
        known = pq.read_schema(file).names
        missing = set(CLIP_COLUMNS) - set(known)
        if missing:
            raise ShardError(f"{path} lacks {', '.join(sorted(missing))}; {_again(store)}")
        return pq.read_table(file, columns=[*CLIP_COLUMNS, *({GROUP} & set(known))])
    except FileNotFoundError as error:
        raise ShardError(f"{path} is missing; {_again(store)}") from error
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path} cannot be read ({error}); {_again(store)}") from error


def _shard_numbers(store: Store, names: pa.ChunkedArray, urls: tuple[str, ...]) -> Ints:
    """Each clip's position in the list of shards."""
    stems = pa.array([PurePosixPath(url).stem for url in urls])
    numbers = pc.index_in(names, value_set=stems)
    if numbers.null_count:
        stranger = names.filter(pc.is_null(numbers))[0].as_py()
        raise ShardError(
            f"{store.url('samples.parquet')} names shard {stranger!r}, which {INDEX_NAME} does not "
            f"list; {_again(store)}"
        )
    return _ints(numbers)


def _check_counts(store: Store, shard: Ints, shards: list[dict[str, Any]]) -> None:
    found = np.bincount(shard, minlength=len(shards))
    for entry, count in zip(shards, found, strict=True):
        listed = entry["nsamples"] - entry.get("dropped", 0)  # taken back, but still in the tar
        if listed != count:
            raise ShardError(
                f"{entry['url']} has {listed} samples in {INDEX_NAME} and {count} in "
                f"samples.parquet; {_again(store)}"
            )


def _check_places(
    store: Store, shard: Ints, offset: Ints, size: Ints, shards: list[dict[str, Any]]
) -> None:
    """Every sample has a place of its own in its tar: as many places as samples."""
    ends = np.array([entry["filesize"] for entry in shards], np.int64)[shard]
    order = np.lexsort((offset, shard))
    same = np.diff(shard[order]) == 0
    overlaps = same & ((offset + size)[order][:-1] > offset[order][1:])
    wrong = np.flatnonzero((offset < 0) | (size <= 0) | (offset + size > ends))
    if len(wrong) or overlaps.any():
        row = int(wrong[0]) if len(wrong) else int(order[1:][overlaps][0])
        entry = shards[shard[row]]
        raise ShardError(
            f"samples.parquet places a sample at bytes {offset[row]} to {offset[row] + size[row]} "
            f"of {store.url(entry['url'])}, outside its {entry['filesize']} bytes or inside "
            f"another sample; {_again(store)}"
        )


def _groups(clips: pa.Table) -> pa.ChunkedArray:
    """Strings; an empty one says nothing and is null."""
    if GROUP not in clips.column_names:
        return pa.chunked_array([pa.nulls(len(clips), pa.string())])
    groups = clips[GROUP].cast(pa.string())
    return pc.if_else(pc.equal(groups, ""), pa.scalar(None, pa.string()), groups)


def _ints(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.to_numpy(), np.int64)


def _lists(column: pa.ChunkedArray) -> pa.ListArray:
    """Without nulls, in one chunk: what parent indices can be taken from."""
    column = pc.coalesce(column, pa.scalar([], column.type))
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
