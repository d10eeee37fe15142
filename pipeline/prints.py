"""The fingerprints of a whole set: made shard by shard, kept in OUT/quality/fingerprints.parquet.

A second call reads what is there and looks only into shards that are new or have other bytes.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import UsageError
from manifests.recipes import recipe_of
from pipeline.check import UNREADABLE
from pipeline.fingerprints import Fingerprint, fingerprint
from pipeline.format import FormatError, decode_meta
from pipeline.outputs import Outputs, Place, reading_table
from pipeline.shard import write_atomically
from selection.facts import COLUMNS, FOLDER, add_columns, shard_hashes, with_bases

FILE = "fingerprints.parquet"
VERSION = 2
"""Of what a fingerprint is; others are made again."""
LISTS = {"pictures": pa.uint64(), "sound": pa.uint32(), "motion": pa.float32()}
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard_sha256", pa.string()),
        ("source_sha1", pa.string()),
        ("window_start", pa.float64()),
        ("recipe", pa.string()),
        ("content_sha1", pa.string()),
        *((name, pa.list_(type_)) for name, type_ in LISTS.items()),
    ],
    metadata={"glav_fingerprints": str(VERSION)},
)
SAMPLE_COLUMNS = ["key", "shard", "offset", "size", "group", "splits", "seconds"]


@dataclass(frozen=True)
class Prints:
    """The clips of a set, in the order of samples.parquet."""

    out: Path
    name: str
    """DATASET-PROFILE."""
    clips: pa.Table
    """The columns of SAMPLE_COLUMNS and SCHEMA."""
    bases: Mapping[str, str]
    """The shards it was made of, and their sha256."""

    def __len__(self) -> int:
        """Clips."""
        return len(self.clips)

    def __getitem__(self, row: int) -> Fingerprint:
        """Of one clip."""
        pictures, sound, motion = (self.flat[name][self._span(name, row)] for name in LISTS)
        return Fingerprint(pictures.astype(np.uint64), sound.astype(np.uint64), motion)

    def _span(self, name: str, row: int) -> slice:
        ends = self.ends[name]
        return slice(int(ends[row]), int(ends[row + 1]))

    @cached_property
    def flat(self) -> dict[str, npt.NDArray[Any]]:
        """The entries of all clips, one after the other, by kind."""
        return {name: pc.list_flatten(self.clips[name]).to_numpy() for name in LISTS}

    @cached_property
    def ends(self) -> dict[str, npt.NDArray[np.int64]]:
        """Where each clip's entries begin and the last one's end."""
        lengths = {name: pc.list_value_length(self.clips[name]).to_numpy() for name in LISTS}
        return {name: np.concatenate([[0], np.cumsum(n)]) for name, n in lengths.items()}

    def place(self, row: int) -> Place:
        """Where a clip lies."""
        found = self.clips.slice(row, 1).select(["key", "shard", "offset", "size"]).to_pylist()
        return Place(**found[0])


def prints_of(out: Path, *, workers: int = 1) -> Prints:
    """The fingerprints of a finished set; what is missing is made and kept.

    Raises:
        NotFinishedError: the set has no index yet.
        FormatError: a shard cannot be read, or the index does not list it.
        UsageError: the set cannot be written to.
    """
    outputs = Outputs(out)
    index = outputs.index()
    with reading_table(outputs.samples_path):
        samples = pq.read_table(outputs.samples_path, columns=SAMPLE_COLUMNS)
    hashes = shard_hashes(index)
    stored = _stored(out)
    known = set(zip(stored["key"].to_pylist(), stored["shard_sha256"].to_pylist(), strict=True))
    todo: dict[str, list[Place]] = {}
    wanted = []
    for row in samples.select(["key", "shard", "offset", "size"]).to_pylist():
        sha256 = _hash_of(row["shard"], hashes, out)
        wanted.append(f"{row['key']} {sha256}")
        if (row["key"], sha256) not in known:
            todo.setdefault(row["shard"], []).append(Place(**row))
    shards = [(places, hashes[name]) for name, places in todo.items()]
    made = list(_made(out, shards, workers))
    prints = pa.concat_tables([stored, *made])
    named = pc.binary_join_element_wise(prints["key"], prints["shard_sha256"], " ")
    places = pc.index_in(pa.array(wanted, pa.string()), value_set=named.combine_chunks())
    prints = prints.take(places)
    if made or len(prints) != len(stored):
        _write(out, FILE, prints.replace_schema_metadata(SCHEMA.metadata))
    for name in SAMPLE_COLUMNS[1:]:
        prints = prints.append_column(name, samples[name])
    return Prints(out, str(index["name"]), prints, hashes)


def _hash_of(shard: str, hashes: Mapping[str, str], out: Path) -> str:
    if shard not in hashes:
        raise FormatError(
            f"{out / 'samples.parquet'} has clips of the shard {shard}, which "
            f"{out / 'shardindex.json'} does not list; `python -m pipeline finalize {out}` writes "
            "both anew"
        )
    return hashes[shard]


def write_quality(
    out: Path, file: str, table: pa.Table, bases: Mapping[str, str], columns: Sequence[str] = ()
) -> None:
    """Write OUT/quality/FILE whole, and note the columns it gives to `--where`.

    Args:
        out: folder of the set.
        file: name of the table.
        table: one row a clip, or a pair of clips.
        bases: the shards it was made of, as the index had them before they were read.
        columns: what `--where` may name.

    Raises:
        UsageError: the set cannot be written to.
    """
    _write(out, file, with_bases(table, bases), columns)


def _write(out: Path, file: str, table: pa.Table, columns: Sequence[str] = ()) -> None:
    folder = out / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_atomically(folder / file, buffer.getvalue())
        if columns:
            noted = out / COLUMNS
            known = json.loads(noted.read_bytes()) if noted.exists() else {}
            text = json.dumps(add_columns(known, file, columns), indent=1) + "\n"
            write_atomically(noted, text.encode())
    except OSError as error:
        raise UsageError(
            f"cannot write {folder / file}: {error.strerror or error}; facts of quality are kept "
            "beside the shards"
        ) from error


def _stored(out: Path) -> pa.Table:
    try:
        table = pq.read_table(out / FOLDER / FILE)
    except (OSError, pa.ArrowException):
        return SCHEMA.empty_table()
    if not table.schema.equals(SCHEMA, check_metadata=False):
        return SCHEMA.empty_table()
    same = (table.schema.metadata or {}).get(b"glav_fingerprints") == str(VERSION).encode()
    return table.replace_schema_metadata(SCHEMA.metadata) if same else SCHEMA.empty_table()


def _made(out: Path, todo: list[tuple[list[Place], str]], workers: int) -> Iterator[pa.Table]:
    if workers <= 1 or len(todo) <= 1:
        yield from (_of_shard(out, places, sha256) for places, sha256 in todo)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(_of_shard, out, places, sha256) for places, sha256 in todo]
        yield from (future.result() for future in waiting)


def _of_shard(out: Path, places: list[Place], sha256: str) -> pa.Table:
    outputs = Outputs(out)
    rows = [{**_of_clip(outputs, place), "shard_sha256": sha256} for place in places]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _of_clip(outputs: Outputs, place: Place) -> dict[str, Any]:
    try:
        members = outputs.read_members(place)
        meta = decode_meta(members)
        found = fingerprint(meta, members)
    except UNREADABLE as error:
        raise FormatError(
            f"{place.key} in {outputs.tar_path(place.shard)} cannot be read ({error}); `python -m "
            f"pipeline verify {outputs.out}` says what to do"
        ) from error
    content = hashlib.sha1(usedforsecurity=False)
    for name in sorted(members.keys() - {"json"}):
        content.update(members[name])
    return {
        "key": place.key,
        "source_sha1": meta["source"].get("sha1"),
        "window_start": meta.get("window_start"),
        "recipe": _recipe(meta),
        "content_sha1": content.hexdigest(),
        "pictures": found.pictures,
        "sound": found.sound.astype(np.uint32),
        "motion": found.motion,
    }


def _recipe(meta: dict[str, Any]) -> str:
    """How a clip was manipulated, noise included: the same text for the same, "" for not at all.

    Raises:
        ValueError: it is no recipe.
    """
    recipe = recipe_of(meta["key"], meta.get("extra") or {})
    return f"{recipe.identity}\n{recipe}" if recipe.transforms else ""
