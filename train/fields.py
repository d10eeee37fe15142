"""Fields that were added to a set (`pipeline add-field`), joined to its clips by key.

    join(shard_set, ["lip", "embed"]) -> the set, with `fields`
    reader.read(row, ("json", "lip.mjpeg"))   reads the crops from the side shard

A field's samples lie in side shards, one beside each shard of the set, of one version of it: where
a shard was made again since, the field is refused until it is made again, too. Numbers come from a
table: clips of shards that are new, or were made again since, have none until it is joined again.
Fields that the samples store themselves (the crops of profile `lips`) are joined by the same name,
so that whoever asks for lips need not know.
"""

import contextlib
import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.format import FIELD_NAME, FIELD_SCHEMA, N_LANDMARKS, FormatError
from stores.base import Store
from stores.errors import StoreError
from train.cache import CachedStore
from train.errors import IncompleteError, ShardError, UsageError

if TYPE_CHECKING:
    from train.index import ShardSet
    from train.read import StoredClip

FACES = ("lip", "face", "landmarks")
"""Kinds that a clip without a face has nothing of."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Field:
    """A field of a set. Arrays have one entry a clip of the set."""

    name: str
    kind: str
    """lip, face, landmarks, mel, features or number."""
    members: tuple[str, ...]
    """Extensions of its side samples; the first is its JSON."""
    there: Bools
    """Which clips have it."""
    faceless: Bools
    """Which clips have it without a face: there is nothing in it."""
    index: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its shardindex.json; empty where the samples store it themselves."""
    sha256: str = ""
    """Of its index."""
    urls: tuple[str, ...] = ()
    """Side shards, by shard of the set; empty ones have no sample."""
    url_bytes: tuple[int, ...] = ()
    offset: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    size: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    numbers: npt.NDArray[np.float64] | None = None
    """Of kind `number`; NaN where a clip has none."""
    behind: str = ""
    """Of numbers: that some shards are newer, and what to do; empty where none is."""
    reasons: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Why clips lack it, by key."""

    @property
    def is_beside(self) -> bool:
        """Whether it lies in side shards."""
        return bool(self.urls)

    @property
    def usable(self) -> Bools:
        """Clips with something in it."""
        return self.there & ~self.faceless

    def why_not(self, key: str) -> str:
        """Why a clip lacks it."""
        return self.reasons.get(key, self.behind or "not in the index of the field")

    @property
    def note(self) -> str:
        """What a result that used it has to say of it; empty where there is nothing."""
        if self.behind:
            return self.behind
        config = self.index.get("config") or {}
        if self.kind not in FACES or config.get("origin") != "stored":
            return ""
        side, enlarged = config["base"]["short_side"], self.index.get("enlarged")
        if self.kind == "landmarks":
            return f"landmarks were found in stored frames of {side} pixels (field {self.name})"
        blurred = enlarged is not None and enlarged > 1
        much = f", enlarged {enlarged:.2f} times, so less sharp than the source" if blurred else ""
        return f"{self.kind} crops are cut from stored frames of {side} pixels{much}"


def join(shard_set: "ShardSet", names: Iterable[str]) -> "ShardSet":
    """The set with these fields.

    Raises:
        UsageError: it has no such field.
        IncompleteError: the field was made of another version of the set; says what mends it.
        ShardError: the field is damaged.
    """
    fields = dict(shard_set.fields)
    store = shard_set.store
    for name in names:
        if name in fields:
            continue
        fields[name] = _own(shard_set, name) or _beside(shard_set, name)
        store = _expecting(store, fields[name])
    return replace(shard_set, fields=fields, store=store)


def with_members(shard_set: "ShardSet", members: Iterable[str]) -> "ShardSet":
    """The set with the fields that have those of the members which its samples do not store."""
    wanted = set(members) - set(shard_set.members)
    known = shard_set.known_fields.items()
    return join(shard_set, [name for name, told in known if wanted & set(told["members"])])


def names_of(text: str) -> tuple[str, ...]:
    """`lip,embed` -> names.

    Raises:
        UsageError: one is no name.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if not FIELD_NAME.fullmatch(name):
            raise UsageError(f"--fields has {name!r}; expected names of fields, such as lip,embed")
    return names


def mel_member(sets: Sequence["ShardSet"], names: Iterable[str]) -> str:
    """The mel that is read: a field of kind `mel` takes the place of the samples' own.

    Raises:
        UsageError: two fields would.
    """
    found = [name for name in names if sets[0].fields[name].kind == "mel"]
    if len(found) > 1:
        raise UsageError(f"--fields names the mels {', '.join(found)}; a model hears one")
    return f"{found[0]}.npy" if found else "mel.npy"


def field_members(shard_set: "ShardSet", names: Iterable[str]) -> tuple[str, ...]:
    """Extensions that fields are read from, but for a mel, which is asked for by itself."""
    chosen = [shard_set.fields[name] for name in names]
    return tuple(m for one in chosen if one.kind != "mel" for m in one.members if m[-5:] != ".json")


def read_fields(
    shard_set: "ShardSet", names: Iterable[str], row: int, clip: "StoredClip", places: Sequence[int]
) -> dict[str, npt.NDArray[Any]]:
    """The fields of a cut, by name; all clips of a set give the same shapes.

    Args:
        shard_set: with the fields joined.
        names: which.
        row: of the clip.
        clip: with their members.
        places: frames of the cut.

    Returns:
        lip, face: uint8 (T, S, S, 3), the nearest one where a frame has no face. landmarks: float32
        (T, 68, 2) source pixels, NaN where there is none. FIELD.FEATURE: float32 (C,), or (T, C)
        of features a frame, NaN where it cannot be had. A number: float32 ().
    """
    found: dict[str, npt.NDArray[Any]] = {}
    at = np.asarray(places, np.int64)
    for name in names:
        one = shard_set.fields[name]
        if one.numbers is not None:
            found[name] = np.asarray(one.numbers[row], np.float32)
        elif one.kind in ("lip", "face"):
            crops = clip.crops(one.members[-1], at, int(shard_set.config["crop_size"]))
            if crops is None:
                raise FormatError(f"there is no face in {one.members[-1]}")
            found[name] = crops
        elif one.kind == "landmarks":
            found[name] = _landmarks(clip, one.members[-1], at)
        elif one.kind == "features":
            found |= _features(one, clip, at)
    return found


def _landmarks(clip: "StoredClip", member: str, at: Ints) -> npt.NDArray[np.float32]:
    points = clip.array(member)
    if points.shape != (clip.meta["frames"], N_LANDMARKS, 2):
        raise FormatError(f"{member} is {points.shape} for {clip.meta['frames']} frames")
    return np.asarray(points[at], np.float32)


def _features(one: Field, clip: "StoredClip", at: Ints) -> dict[str, npt.NDArray[Any]]:
    """By FIELD.FEATURE."""
    facts = one.index["config"]["facts"]
    per_frame = facts.get("per") == "frame"
    found = {}
    for member in one.members[1:]:
        name = member.removesuffix(".npy")
        channels = int(facts["channels"][name.partition(".")[2]])
        array = np.asarray(clip.array(member), np.float32)
        expected = (clip.meta["frames"], channels) if per_frame else (channels,)
        if not array.size:
            array = np.full(expected, np.nan, np.float32)
        if array.shape != expected:
            raise FormatError(f"{member} is {array.shape}; expected {expected}")
        found[name] = array[at] if per_frame else array
    return found


# --- one field ----------------------------------------------------------------------------------


def _own(shard_set: "ShardSet", name: str) -> Field | None:
    """A field of faces that the samples store themselves."""
    member = f"{name}.npy" if name == "landmarks" else f"{name}.mjpeg"
    if name not in FACES or member not in shard_set.members:
        return None
    everybody = np.ones(len(shard_set), np.bool_)
    faceless = ~everybody
    samples = pq.ParquetFile(pa.BufferReader(shard_set.store.read("samples.parquet")))
    if "face_rate" in samples.schema_arrow.names:
        rates = samples.read(columns=["face_rate"])["face_rate"]
        faceless = rates.fill_null(0).to_numpy() == 0
    return Field(name, name, (member,), everybody, faceless)


def _beside(shard_set: "ShardSet", name: str) -> Field:
    """A field that was added."""
    if name not in shard_set.known_fields:
        known = ", ".join(shard_set.known_fields) or "none"
        raise UsageError(
            f"{shard_set.name} has no field {name}; its fields: {known}. Add it with "
            f"{_command(shard_set, name)}"
        )
    store, folder = shard_set.store, f"fields/{name}"
    index, sha256 = _index(shard_set, name)
    common: dict[str, Any] = {
        "name": name,
        "kind": str(index["kind"]),
        "members": tuple(index["members"]),
        "index": index,
        "sha256": sha256,
        "reasons": _reasons(store, f"{folder}/errors.parquet"),
    }
    stale, is_number = _stale(shard_set, index), index["kind"] == "number"
    behind = _behind(shard_set, name, stale, is_number) if stale.any() else ""
    if behind and (stale.all() or not is_number):
        raise IncompleteError(behind)
    if is_number:
        numbers = _numbers(shard_set, name)
        numbers[stale[shard_set.shard]] = np.nan
        common["faceless"] = np.zeros(len(shard_set), np.bool_)
        return Field(there=~np.isnan(numbers), numbers=numbers, behind=behind, **common)
    entries = {PurePosixPath(one["url"]).stem: one for one in index["shardlist"]}
    stems = [PurePosixPath(url).stem for url in shard_set.shards]
    places = _places(shard_set, name)
    found = Field(
        urls=tuple(f"{folder}/shards/{stem}.tar" if stem in entries else "" for stem in stems),
        url_bytes=tuple(int(entries[s]["filesize"]) if s in entries else 0 for s in stems),
        there=places["size"] > 0,
        faceless=places["faceless"] > 0,
        offset=places["offset"],
        size=places["size"],
        **common,
    )
    _check_places(shard_set, found)
    return found


def _index(shard_set: "ShardSet", name: str) -> tuple[dict[str, Any], str]:
    """The field's shardindex.json and its sha256."""
    path = f"fields/{name}/shardindex.json"
    try:
        data = shard_set.store.read(path)
        index = json.loads(data)
    except FileNotFoundError as error:
        raise IncompleteError(
            f"the field {name} of {shard_set.name} is not finished: there is no "
            f"{shard_set.store.url(path)}; run {_command(shard_set, name)}"
        ) from error
    except ValueError as error:
        raise _damaged(shard_set, name, f"{path} is no JSON ({error})") from error
    needed = {"schema", "kind", "members", "shardlist", "bases", "config", "base_config_hash"}
    if not isinstance(index, dict) or needed - set(index) or index["schema"] != FIELD_SCHEMA:
        raise _damaged(shard_set, name, f"{path} is no index of a field that this version reads")
    return index, hashlib.sha256(data).hexdigest()


def _stale(shard_set: "ShardSet", index: dict[str, Any]) -> Bools:
    """Shards of which the field was not made: it belongs to one version of each."""
    if index["base_config_hash"] != shard_set.config_hash:
        return np.ones(len(shard_set.shards), np.bool_)
    made_of = (index["bases"].get(PurePosixPath(url).stem) for url in shard_set.shards)
    pairs = zip(made_of, shard_set.sha256, strict=True)
    return np.array([of != sha256 for of, sha256 in pairs], np.bool_)


def _behind(shard_set: "ShardSet", name: str, stale: Bools, is_number: bool) -> str:
    """Which shards are newer than a field, and what to do."""
    urls = [url for url, is_stale in zip(shard_set.shards, stale, strict=True) if is_stale]
    shown = ", ".join(urls[:3]) + (", ..." if len(urls) > 3 else "")
    missing = ": it makes what is missing"
    numbers = " once the table has the numbers of their clips"
    return (
        f"the field {name} of {shard_set.name} does not belong to {len(urls)} of its "
        f"{len(stale)} shards, which are new or were made again since ({shown}); "
        f"run {_command(shard_set, name)}{numbers if is_number else missing}"
    )


def _places(shard_set: "ShardSet", name: str) -> dict[str, Ints]:
    """Where each clip's side sample lies; size 0 where it has none."""
    table = _table(shard_set, name, "samples.parquet", ("key", "shard", "offset", "size", "face"))
    rows, table = _joined(shard_set, table)
    found = {column: np.zeros(len(shard_set), np.int64) for column in ("offset", "size")}
    for column, values in found.items():
        values[rows] = table[column].to_numpy()
    stems = pa.array([PurePosixPath(url).stem for url in shard_set.shards])
    shards = pc.index_in(table["shard"], value_set=stems).to_numpy()
    if len(np.unique(rows)) != len(rows) or (shards != shard_set.shard[rows]).any():
        raise _damaged(shard_set, name, "its samples.parquet names clips of other shards")
    found["faceless"] = np.zeros(len(shard_set), np.int64)
    found["faceless"][rows] = pc.equal(table["face"], False).fill_null(False).to_numpy()
    return found


def _check_places(shard_set: "ShardSet", found: Field) -> None:
    """Inside of the side shards."""
    ends = np.array(found.url_bytes, np.int64)[shard_set.shard]
    if (found.there & ((found.offset < 0) | (found.offset + found.size > ends))).any():
        raise _damaged(shard_set, found.name, "its samples.parquet points beyond its shards")


def _numbers(shard_set: "ShardSet", name: str) -> npt.NDArray[np.float64]:
    table = _table(shard_set, name, "table.parquet", ("key", name))
    numbers = np.full(len(shard_set), np.nan)
    rows, table = _joined(shard_set, table)
    numbers[rows] = table[name].cast(pa.float64()).to_numpy()
    return numbers


def _joined(shard_set: "ShardSet", table: pa.Table) -> tuple[Ints, pa.Table]:
    """The rows of the set that a table's belong to; clips that the set has no more are gone."""
    rows = pc.index_in(table["key"], value_set=shard_set.keys.combine_chunks())
    return np.asarray(rows.drop_null().to_numpy(), np.int64), table.filter(pc.is_valid(rows))


def _table(shard_set: "ShardSet", name: str, file: str, columns: tuple[str, ...]) -> pa.Table:
    path = f"fields/{name}/{file}"
    try:
        data = pa.BufferReader(shard_set.store.read(path))
        return pq.read_table(data, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard_set, name, f"{path} cannot be read ({error})") from error


def _reasons(store: Store, path: str) -> dict[str, str]:
    try:
        table = pq.read_table(pa.BufferReader(store.read(path)), columns=["key", "reason"])
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{store.url(path)} cannot be read ({error})") from error
    return dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))


def _expecting(store: Store, found: Field) -> Store:
    """A cache that knows the side shards, too."""
    if not isinstance(store, CachedStore) or not found.is_beside:
        return store
    facts = {one["url"]: one for one in found.index["shardlist"]}
    sides = {f"fields/{found.name}/{url}": (int(one["filesize"]), str(one["sha256"]))
             for url, one in facts.items()}  # fmt: skip
    return store.expecting(sides)


def _damaged(shard_set: "ShardSet", name: str, what: str) -> ShardError:
    return ShardError(
        f"the field {name} of {shard_set.name}: {what}; make it again (--overwrite) "
        f"with {_command(shard_set, name)}"
    )


def _command(shard_set: "ShardSet", name: str) -> str:
    """What makes or mends a field; a set behind a web server is mended where it was made."""
    flags: list[str] = []
    with contextlib.suppress(StoreError, OSError, ValueError, LookupError, TypeError):
        flags = json.loads(shard_set.store.read(f"fields/{name}/field.json"))["flags"]
    rest = " ".join(map(shlex.quote, [name, *flags]))
    if not str(shard_set.store).startswith(("http://", "https://")):
        return f"`python -m pipeline add-field {shard_set.store} {rest}`"
    return f"`python -m pipeline add-field OUT {rest}` where the set was made, and copy it anew"
